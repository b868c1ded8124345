//! Tensors of float64 and of complex numbers: read in full for sums in float64, or rounded to float32
//! for the jobs that compute in it.

use std::ops::Range;

use safetensors::Dtype;
use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::{Reader, TensorEntry};
use crate::error::{Error, Result};
use crate::kernels::elementwise::{first_nonfinite, round_all};
use crate::number::Float;
use crate::source::{AnyTensor, Source, Tensor};

/// A stored tensor of float64, or of complex numbers, which are pairs of float32.
#[derive(Debug, Clone)]
pub(crate) struct WideStored<'a> {
    pub(super) reader: &'a Reader,
    pub(super) name: &'a str,
    pub(super) offset: u64,
    pub(super) dtype: Dtype,
    pub(super) allow_nonfinite: bool,
}

/// A tensor whose numbers are read as float64.
#[derive(Debug, Clone)]
pub(crate) enum WideTensor<'a> {
    /// One that no float32 holds.
    Stored(WideStored<'a>),
    /// Any other.
    Narrow(Tensor<'a>),
}

impl<'a> WideStored<'a> {
    /// The tensor of an entry, if it is one of these.
    pub(super) fn of(
        entry: TensorEntry<'a>,
        reader: &'a Reader,
        allow_nonfinite: bool,
    ) -> Option<Self> {
        let (offset, dtype) = (entry.offset, entry.dtype);
        matches!(dtype, Dtype::F64 | Dtype::C64).then_some(Self {
            reader,
            name: entry.name,
            offset,
            dtype,
            allow_nonfinite,
        })
    }

    /// Whether its numbers are not parts of complex ones.
    pub(super) fn is_real(&self) -> bool {
        self.dtype == Dtype::F64
    }

    /// Bytes of a number.
    fn number_bytes(&self) -> usize {
        if self.dtype == Dtype::C64 {
            4
        } else {
            8
        }
    }

    /// The numbers from `start` on.
    fn read_numbers(&self, start: usize, out: &mut [f64], scratch: &mut Vec<u8>) -> Result<()> {
        let size = self.number_bytes();
        let offset = self.offset + (start * size) as u64;
        let bytes = self.reader.read(offset, out.len() * size, scratch)?;
        for (value, bytes) in out.iter_mut().zip(bytes.chunks_exact(size)) {
            *value = match *bytes {
                [a, b, c, d] => f64::from(f32::from_le_bytes([a, b, c, d])),
                [a, b, c, d, e, f, g, h] => f64::from_le_bytes([a, b, c, d, e, f, g, h]),
                _ => f64::NAN,
            };
        }
        match out.iter().position(|value| !value.is_finite()) {
            Some(index) if !self.allow_nonfinite => {
                let element = (start + index) * size / (self.dtype.bitsize() / 8);
                Err(self.nonfinite(element, out[index], "float64"))
            }
            _ => Ok(()),
        }
    }

    fn nonfinite(&self, element: usize, value: f64, dtype: &'static str) -> Error {
        Error::NonFinite {
            path: self.reader.path().into(),
            tensor: self.name.into(),
            index: element as u64,
            value: value as f32,
            dtype,
        }
    }

    /// What tells it from all other tensors that are open.
    pub(super) fn identity(&self) -> (usize, u64) {
        (std::ptr::from_ref(self.reader) as usize, self.offset)
    }

    fn byte_range(&self, elements: Range<usize>) -> Range<u64> {
        self.offset + 8 * elements.start as u64..self.offset + 8 * elements.end as u64
    }
}

/// Of float64, rounded to float32: what a dtype in the config asks for.
impl Source for WideStored<'_> {
    fn dtype(&self) -> Float {
        Float::F32
    }

    fn read(
        &self,
        working: Float,
        start: usize,
        out: &mut [f32],
        scratch: &mut Vec<u8>,
    ) -> Result<()> {
        let mut numbers = vec![0.0; out.len()];
        self.read_numbers(start, &mut numbers, scratch)?;
        for (value, number) in out.iter_mut().zip(&numbers) {
            *value = *number as f32;
        }
        round_all(working, out);
        match first_nonfinite(out) {
            Some(index) if !self.allow_nonfinite => {
                Err(self.nonfinite(start + index, numbers[index], working.name()))
            }
            _ => Ok(()),
        }
    }

    fn hash(&self, elements: Range<usize>, scratch: &mut Vec<u8>) -> Result<u64> {
        let Range { start, end } = self.byte_range(elements);
        Ok(xxh3_64(self.reader.read(start, (end - start) as usize, scratch)?))
    }

    fn scratch_bytes(&self, chunk: usize) -> usize {
        16 * chunk
    }

    fn will_need(&self, elements: Range<usize>) {
        self.reader.will_need(self.byte_range(elements));
    }

    fn release(&self, elements: Range<usize>) {
        self.reader.release(self.byte_range(elements));
    }
}

impl<'a> From<WideTensor<'a>> for AnyTensor<'a> {
    fn from(tensor: WideTensor<'a>) -> Self {
        match tensor {
            WideTensor::Stored(tensor) => Self::Wide(tensor),
            WideTensor::Narrow(tensor) => Self::Narrow(tensor),
        }
    }
}

impl<'a> WideTensor<'a> {
    /// Numbers of an element.
    pub(crate) fn numbers(&self) -> usize {
        match self {
            Self::Stored(WideStored { dtype: Dtype::C64, .. }) => 2,
            _ => 1,
        }
    }

    /// Bytes of an element.
    pub(crate) fn size(&self) -> usize {
        self.narrow().map_or(8, |tensor| tensor.dtype().size())
    }

    /// The tensor, where the jobs that compute in float32 read it too.
    pub(crate) fn narrow(&self) -> Option<&Tensor<'a>> {
        match self {
            Self::Stored(_) => None,
            Self::Narrow(tensor) => Some(tensor),
        }
    }

    /// The numbers from `start` on.
    ///
    /// # Errors
    /// As for [`Source::read`].
    pub(crate) fn read(&self, start: usize, out: &mut [f64], scratch: &mut Vec<u8>) -> Result<()> {
        match self {
            Self::Stored(tensor) => tensor.read_numbers(start, out, scratch),
            Self::Narrow(tensor) => {
                let mut values = vec![0.0; out.len()];
                tensor.read(Float::F32, start, &mut values, scratch)?;
                out.iter_mut().zip(values).for_each(|(out, value)| *out = f64::from(value));
                Ok(())
            }
        }
    }
}
