//! What a method must know of one expert's whole tensor before it can apply: small states that
//! merge in any order and do not depend on which other experts take part, so that a sweep over many
//! subsets computes them once. Uses `kernels` and what is
//! below it.

pub(crate) mod around;
pub mod content;
mod delta_walk;
pub mod fingerprint;
pub(crate) mod magnitude;
pub(crate) mod norm;
pub(crate) mod ranks;
pub(crate) mod row_counts;
pub(crate) mod selection;

pub(crate) use delta_walk::{DeltaWalk, Visit};
