//! Element types of the files: widening to `f32`, narrowing from it, both exact or rounded once.

use half::f16;
use half::slice::HalfFloatSliceExt;
use multiversion::multiversion;
use safetensors::Dtype;

use crate::number::round_bf16;

/// The floating-point element types that a merge reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum Float {
    /// IEEE binary32.
    #[serde(rename = "float32")]
    F32,
    /// The upper half of a binary32.
    #[serde(rename = "bfloat16")]
    Bf16,
    /// IEEE binary16.
    #[serde(rename = "float16")]
    F16,
}

impl Float {
    /// The type of a tensor in a file, if it is one that can be merged.
    pub(crate) fn of(dtype: Dtype) -> Option<Self> {
        match dtype {
            Dtype::F32 => Some(Self::F32),
            Dtype::BF16 => Some(Self::Bf16),
            Dtype::F16 => Some(Self::F16),
            _ => None,
        }
    }

    /// The safetensors name.
    #[cfg(test)]
    pub(crate) fn stored(self) -> Dtype {
        match self {
            Self::F32 => Dtype::F32,
            Self::Bf16 => Dtype::BF16,
            Self::F16 => Dtype::F16,
        }
    }

    /// Torch's name, as in mergekit's YAML.
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::Bf16 => "bfloat16",
            Self::F16 => "float16",
        }
    }

    /// Bytes of one element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 | Self::F16 => 2,
        }
    }

    /// Widen little-endian elements to `f32`; every value is exact.
    ///
    /// `bytes` holds `out.len()` elements.
    pub(crate) fn widen(self, bytes: &[u8], out: &mut [f32]) {
        debug_assert_eq!(bytes.len(), out.len() * self.size());
        match self {
            Self::F32 => widen_f32(bytes, out),
            Self::Bf16 => widen_bf16(bytes, out),
            Self::F16 => widen_f16(bytes, out),
        }
    }

    /// Round `values` to this type, to nearest, ties to even, and store them little-endian.
    pub(crate) fn narrow(self, values: &[f32], bytes: &mut [u8]) {
        debug_assert_eq!(bytes.len(), values.len() * self.size());
        match self {
            Self::F32 => narrow_f32(values, bytes),
            Self::Bf16 => narrow_bf16(values, bytes),
            Self::F16 => narrow_f16(values, bytes),
        }
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn widen_f32(bytes: &[u8], out: &mut [f32]) {
    for (value, b) in out.iter_mut().zip(bytes.chunks_exact(4)) {
        *value = f32::from_le_bytes([b[0], b[1], b[2], b[3]]);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn widen_bf16(bytes: &[u8], out: &mut [f32]) {
    for (value, b) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        *value = f32::from_bits(u32::from(u16::from_le_bytes([b[0], b[1]])) << 16);
    }
}

/// `half` picks the processor's own conversion at run time.
fn widen_f16(bytes: &[u8], out: &mut [f32]) {
    let mut buffer = [f16::ZERO; 256];
    for (values, bytes) in out.chunks_mut(256).zip(bytes.chunks(512)) {
        let halves = &mut buffer[..values.len()];
        for (half, b) in halves.iter_mut().zip(bytes.chunks_exact(2)) {
            *half = f16::from_le_bytes([b[0], b[1]]);
        }
        halves.convert_to_f32_slice(values);
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn narrow_f32(values: &[f32], bytes: &mut [u8]) {
    for (b, value) in bytes.chunks_exact_mut(4).zip(values) {
        b.copy_from_slice(&value.to_le_bytes());
    }
}

#[multiversion(targets("x86_64+avx512f+avx512bw+avx512vl+avx512dq", "x86_64+avx2+fma"))]
fn narrow_bf16(values: &[f32], bytes: &mut [u8]) {
    for (b, value) in bytes.chunks_exact_mut(2).zip(values) {
        let high = (round_bf16(*value).to_bits() >> 16) as u16;
        b.copy_from_slice(&high.to_le_bytes());
    }
}

fn narrow_f16(values: &[f32], bytes: &mut [u8]) {
    let mut buffer = [f16::ZERO; 256];
    for (bytes, values) in bytes.chunks_mut(512).zip(values.chunks(256)) {
        let halves = &mut buffer[..values.len()];
        halves.convert_from_f32_slice(values);
        for (b, half) in bytes.chunks_exact_mut(2).zip(halves.iter()) {
            b.copy_from_slice(&half.to_le_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::bf16;

    #[test]
    fn every_16_bit_value_survives_the_round_trip() {
        for dtype in [Float::Bf16, Float::F16] {
            let bytes: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
            let mut values = vec![0.0; 65_536];
            dtype.widen(&bytes, &mut values);
            let mut back = vec![0; bytes.len()];
            dtype.narrow(&values, &mut back);
            for (i, value) in values.iter().enumerate() {
                let pattern = u16::from_le_bytes([back[2 * i], back[2 * i + 1]]);
                if value.is_nan() {
                    let exact = match dtype {
                        Float::Bf16 => bf16::from_bits(pattern).is_nan(),
                        _ => f16::from_bits(pattern).is_nan(),
                    };
                    assert!(exact, "{i:#06x} is no longer a NaN");
                } else {
                    assert_eq!(usize::from(pattern), i);
                }
            }
        }
    }
}
