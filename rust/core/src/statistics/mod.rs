//! What a method must know of one expert's whole tensor before it can apply: small states that
//! merge in any order and do not depend on which other experts take part, so that a sweep over many
//! subsets computes them once. Uses `kernels` and what is
//! below it.

pub mod content;
mod delta_walk;
pub mod fingerprint;
pub mod magnitude;
pub mod norm;
pub mod ranks;
pub mod selection;

pub use delta_walk::{DeltaWalk, Visit};
