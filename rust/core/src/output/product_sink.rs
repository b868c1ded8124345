//! In place of output tensors, their inner products with vectors of the caller's, such as gradients.
//!
//! ```text
//! product[tensor][vector] = Σ_blocks Σ_lanes Σ_(i in lane) output[i] · vector[i]     in float64
//! ```
//! Blocks come in any order and from any thread; each leaves its sums, which are added up in the order
//! of the blocks at the end, so that no bit depends on threads. What is held is eight bytes for each
//! block and vector.

use std::sync::Mutex;

use safetensors::Dtype;

use crate::error::{Error, Result};
use crate::kernels::dot::{add_products, widen};
use crate::kernels::elementwise::SUM_LANES;
use crate::number::Float;
use crate::output::{Block, Sink};
use crate::plan::Job;
use crate::work::{pieces, BLOCK};

/// Elements that are widened at a time: two buffers on the stack.
const AT_ONCE: usize = 1024;

/// As many elements as a tensor has, in its order.
#[derive(Debug, Clone, Copy)]
pub struct Vector<'a> {
    /// The memory.
    pub bytes: &'a [u8],
    /// What it holds.
    pub dtype: Dtype,
}

/// Some vectors for each of some consecutive jobs.
#[derive(Debug)]
pub struct ProductSink<'a> {
    first: usize,
    tensors: Vec<Tensor<'a>>,
}

#[derive(Debug)]
struct Tensor<'a> {
    /// Of the output; unused where there are no vectors.
    dtype: Float,
    vectors: Vec<(&'a [u8], Kind)>,
    /// The sums of each block, (blocks, vectors).
    blocks: Mutex<Vec<f64>>,
}

/// What a vector's elements are.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Float(Float),
    F64,
}

impl<'a> ProductSink<'a> {
    /// Vectors for `jobs`, the first of which is job `first` of its plan. A tensor without any is
    /// merged and dropped.
    ///
    /// # Errors
    /// [`Error::Plan`]: a vector has another length than its tensor, or one of both holds no floats.
    pub fn new(first: usize, jobs: &[Job], vectors: Vec<Vec<Vector<'a>>>) -> Result<Self> {
        if vectors.len() != jobs.len() {
            let reason = format!("vectors of {} jobs for {}", vectors.len(), jobs.len());
            return Err(Error::Plan { reason });
        }
        let tensors = jobs.iter().zip(vectors).map(|(job, vectors)| Tensor::new(job, vectors));
        Ok(Self { first, tensors: tensors.collect::<Result<_>>()? })
    }

    /// For each job its products, one for each vector.
    pub fn products(self) -> Vec<Vec<f64>> {
        self.tensors.into_iter().map(Tensor::products).collect()
    }
}

impl<'a> Tensor<'a> {
    fn new(job: &Job, vectors: Vec<Vector<'a>>) -> Result<Self> {
        let wrong =
            |found: String| Error::Plan { reason: format!("tensor `{}`: {found}", job.tensor) };
        let dtype = Float::of(job.out_dtype);
        if dtype.is_none() && !vectors.is_empty() {
            return Err(wrong(format!("no products with {}", job.out_dtype)));
        }
        let checked = |Vector { bytes, dtype }| {
            let kind = match (dtype, Float::of(dtype)) {
                (Dtype::F64, _) => Kind::F64,
                (_, Some(float)) => Kind::Float(float),
                _ => return Err(wrong(format!("no products with a vector of {dtype}"))),
            };
            let expected = job.len() * kind.size();
            match bytes.len() == expected {
                true => Ok((bytes, kind)),
                false => Err(wrong(format!("expected {expected} bytes, found {}", bytes.len()))),
            }
        };
        let vectors = vectors.into_iter().map(checked).collect::<Result<Vec<_>>>()?;
        let blocks = vec![0.0; vectors.len() * job.len().div_ceil(BLOCK)];
        Ok(Self { dtype: dtype.unwrap_or(Float::F32), vectors, blocks: Mutex::new(blocks) })
    }

    /// The products of a block of the output that begins at element `start`.
    fn block(&self, start: usize, bytes: &[u8]) -> Vec<f64> {
        let size = self.dtype.size();
        let (mut values, mut vector) = ([0.0; AT_ONCE], [0.0; AT_ONCE]);
        let mut sums = vec![[0.0; SUM_LANES]; self.vectors.len()];
        for some in pieces(0..bytes.len() / size, AT_ONCE) {
            let values = &mut values[..some.len()];
            self.dtype.widen(&bytes[some.start * size..some.end * size], values);
            for ((memory, kind), sums) in self.vectors.iter().zip(&mut sums) {
                let vector = &mut vector[..some.len()];
                kind.read(memory, start + some.start, vector);
                add_products(values, vector, sums);
            }
        }
        sums.iter().map(|lanes| lanes.iter().sum()).collect()
    }

    fn products(self) -> Vec<f64> {
        let count = self.vectors.len();
        let mut sums = vec![0.0; count];
        if count > 0 {
            let blocks = self.blocks.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
            for block in blocks.chunks(count) {
                sums.iter_mut().zip(block).for_each(|(sum, product)| *sum += product);
            }
        }
        sums
    }
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Self::Float(float) => float.size(),
            Self::F64 => 8,
        }
    }

    /// The elements from `start` on that `out` has place for.
    fn read(self, memory: &[u8], start: usize, out: &mut [f64]) {
        let bytes = &memory[start * self.size()..(start + out.len()) * self.size()];
        match self {
            Self::Float(float) => {
                let mut narrow = [0.0; AT_ONCE];
                let narrow = &mut narrow[..out.len()];
                float.widen(bytes, narrow);
                widen(narrow, out);
            }
            Self::F64 => {
                for (out, bytes) in out.iter_mut().zip(bytes.as_chunks::<8>().0) {
                    *out = f64::from_le_bytes(*bytes);
                }
            }
        }
    }
}

impl Sink for ProductSink<'_> {
    fn write(&self, block: Block, bytes: &[u8], _hash: u64) -> Result<()> {
        let tensor = &self.tensors[block.job - self.first];
        let count = tensor.vectors.len();
        if count > 0 {
            let found = tensor.block(block.offset as usize / tensor.dtype.size(), bytes);
            let mut blocks = tensor.blocks.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            blocks[block.number * count..][..count].copy_from_slice(&found);
        }
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
