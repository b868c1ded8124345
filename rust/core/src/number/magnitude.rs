//! Magnitudes as bits: comparing the integers compares the values.

use multiversion::multiversion;

/// The bits of `|delta|`.
pub(crate) trait Magnitude: Copy + Default + Send + 'static {
    /// Whether there are others than those of a bfloat16.
    const LOW_BITS: bool;

    /// Of one delta.
    fn of(delta: f32) -> Self;
    /// As a number.
    fn value(self) -> f32;
    /// As the bits of that number.
    fn bits(self) -> u32;

    /// Where there are none but those of a bfloat16, these.
    fn halves(magnitudes: &[Self]) -> &[u16];

    /// Of several.
    fn all_of(deltas: &[f32], out: &mut [Self]) {
        all_of(deltas, out);
    }
}

/// Of a value of bfloat16, the bits that are not always zero.
impl Magnitude for u16 {
    const LOW_BITS: bool = false;

    fn halves(magnitudes: &[Self]) -> &[u16] {
        magnitudes
    }

    #[inline(always)]
    fn of(delta: f32) -> Self {
        (delta.to_bits() >> 16) as u16 & 0x7fff
    }

    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits(self.bits())
    }

    #[inline(always)]
    fn bits(self) -> u32 {
        u32::from(self) << 16
    }
}

impl Magnitude for u32 {
    const LOW_BITS: bool = true;

    fn halves(_: &[Self]) -> &[u16] {
        &[]
    }

    #[inline(always)]
    fn of(delta: f32) -> Self {
        delta.to_bits() & 0x7fff_ffff
    }

    #[inline(always)]
    fn value(self) -> f32 {
        f32::from_bits(self)
    }

    #[inline(always)]
    fn bits(self) -> u32 {
        self
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn all_of<M: Magnitude>(deltas: &[f32], out: &mut [M]) {
    for (out, delta) in out.iter_mut().zip(deltas) {
        *out = M::of(*delta);
    }
}
