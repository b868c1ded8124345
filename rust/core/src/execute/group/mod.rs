//! Methods that look at whole vectors of their inputs: statistics first, then one elementwise pass.
//!
//! mergekit rounds every step to the dtype of its tensors. So do these, with two liberties: sums
//! over a tensor run in float64 and are rounded where mergekit's are, and in float32 a Gram matrix
//! may stand for sums over normalised vectors.

mod arcee_fusion;
mod custom;
mod job;
mod karcher;
mod lanes;
mod method;
mod model_stock;
mod multislerp;
mod nearswap;
mod nuslerp;
mod order;
mod passthrough;
mod ram;
mod ready;
mod sce;
mod slerp;
mod sweep;
mod vectors;

pub(super) use custom::CustomJob;
pub(super) use job::GroupJob;
