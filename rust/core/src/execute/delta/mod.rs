//! Task arithmetic and its kin: statistics of every expert first, then one pass over all of them, for
//! any number of mixes.

mod apply;
mod job;
mod known_states;
mod masks;
mod states;

pub(super) use job::{alike, DeltaJob};
