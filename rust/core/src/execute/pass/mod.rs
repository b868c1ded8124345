//! What every kind of job is given for a pass over its inputs, and what it gives: the floor on which
//! `delta`, `group` and `linear` stand.

mod apply;
mod known;
mod resources;

pub(super) use apply::Apply;
pub(super) use known::{Entry, Found, FoundKey, Key, Known, Masks};
pub(super) use resources::Resources;
