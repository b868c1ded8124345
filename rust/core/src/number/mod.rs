//! Numbers: the dtypes of files, rounding to them, and random words. Uses nothing of the crate.

mod dtype;
mod float8;
mod magnitude;
pub mod philox;
mod precision;
mod rounding;

pub use dtype::Float;
pub(crate) use float8::Float8;
pub(crate) use magnitude::Magnitude;
pub(crate) use precision::{Bf16, Precision, F16, F32};
pub(crate) use rounding::{round_bf16, round_bf16_result, round_f16};
