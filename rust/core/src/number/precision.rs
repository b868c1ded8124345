//! The precision in which a merge is computed: `f32` registers, rounded to the working dtype after
//! every step, as torch does with 16-bit tensors on a CPU.

use crate::number::{round_bf16_result, round_f16, Float};

/// A working dtype. `round` is applied after each arithmetic step.
pub(crate) trait Precision: Copy + Send + Sync + 'static {
    /// The dtype.
    const DTYPE: Float;
    /// The nearest value of the dtype, ties to even, of a result of arithmetic on its values.
    fn round(value: f32) -> f32;
}

/// Compute in `f32`.
#[derive(Clone, Copy)]
pub(crate) struct F32;
/// Round every step to bfloat16.
#[derive(Clone, Copy)]
pub(crate) struct Bf16;
/// Round every step to float16.
#[derive(Clone, Copy)]
pub(crate) struct F16;

impl Precision for F32 {
    const DTYPE: Float = Float::F32;
    #[inline(always)]
    fn round(value: f32) -> f32 {
        value
    }
}

impl Precision for Bf16 {
    const DTYPE: Float = Float::Bf16;
    #[inline(always)]
    fn round(value: f32) -> f32 {
        round_bf16_result(value)
    }
}

impl Precision for F16 {
    const DTYPE: Float = Float::F16;
    #[inline(always)]
    fn round(value: f32) -> f32 {
        round_f16(value)
    }
}
