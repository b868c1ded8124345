//! What the kernels written for AVX-512 share: whether the processor has it, loads and stores, and
//! rounding.

use std::arch::x86_64::*;

/// Whether the processor has what these kernels use; the standard library looks once in a process.
pub(crate) fn available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512dq")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vbmi2")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
}

/// Loads and stores of whole registers, checked by the types.
macro_rules! registers {
    ($($load:ident $store:ident [$element:ty; $n:literal] $register:ty, $loadu:ident $storeu:ident;)*) => {$(
        #[target_feature(enable = "avx512f,avx512vl")]
        #[inline]
        pub(crate) fn $load(from: &[$element; $n]) -> $register {
            // SAFETY: the reference covers the bytes that are read, and any alignment will do.
            unsafe { $loadu(from.as_ptr().cast()) }
        }

            #[allow(dead_code)] // not every type is stored
        #[target_feature(enable = "avx512f,avx512vl")]
        #[inline]
        pub(crate) fn $store(to: &mut [$element; $n], register: $register) {
            // SAFETY: the reference covers the bytes that are written, and any alignment will do.
            unsafe { $storeu(to.as_mut_ptr().cast(), register) }
        }
    )*};
}

registers! {
    load_u16 store_u16 [u16; 32] __m512i, _mm512_loadu_si512 _mm512_storeu_si512;
    load_u32 store_u32 [u32; 16] __m512i, _mm512_loadu_si512 _mm512_storeu_si512;
    load_f32 store_f32 [f32; 16] __m512, _mm512_loadu_ps _mm512_storeu_ps;
    load_f64 store_f64 [f64; 8] __m512d, _mm512_loadu_pd _mm512_storeu_pd;
    load_half_bytes store_half_bytes [u8; 32] __m256i, _mm256_loadu_si256 _mm256_storeu_si256;
    load_bytes store_bytes [u8; 64] __m512i, _mm512_loadu_si512 _mm512_storeu_si512;
}

/// Sixteen values of bfloat16.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn widen(halves: __m256i) -> __m512 {
    _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(halves)))
}

/// [`round_bf16_result`](crate::number::round_bf16_result) of sixteen values.
#[target_feature(enable = "avx512f")]
#[inline]
pub(crate) fn round_bf16(values: __m512) -> __m512 {
    let bits = _mm512_castps_si512(values);
    let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
    let up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    let rounded = _mm512_add_epi32(bits, up);
    let upper = _mm512_set1_epi32(0xffff_0000_u32 as i32);
    _mm512_castsi512_ps(_mm512_and_si512(rounded, upper))
}
