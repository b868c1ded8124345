//! Going over a group's inputs, chunk after chunk, and summing something over them.

use std::ops::Range;

use crate::error::Result;
use crate::kernels::elementwise::{subtract, SUM_LANES};
use crate::number::{Float, Precision};
use crate::source::{Behind, Source, Tensor};
use crate::work::{pieces, segments, JobControl, Parallel, Segment};

/// The tensors of one group.
pub(super) struct Inputs<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub dtype: Float,
    pub base: Option<Tensor<'a>>,
    pub tensors: Vec<Tensor<'a>>,
}

impl<'a> Inputs<'a> {
    pub(super) fn all(&self) -> Vec<&Tensor<'a>> {
        self.base.iter().chain(&self.tensors).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Bytes of one element of every tensor.
    pub(super) fn bytes_per_element(&self) -> usize {
        self.base.iter().chain(&self.tensors).map(|tensor| tensor.dtype().size()).sum()
    }
}

/// Inputs, and how to go over them.
#[derive(Clone, Copy)]
pub(super) struct Sweep<'a> {
    pub inputs: &'a Inputs<'a>,
    pub chunk: usize,
    pub control: &'a JobControl<'a>,
    pub parallel: &'a Parallel<'a>,
}

/// A worker's memory: a run of every input, and room to compute in.
#[derive(Default)]
pub(super) struct Buffers {
    pub base: Vec<f32>,
    pub inputs: Vec<Vec<f32>>,
    /// Room of a method's own.
    pub scratch: [Vec<f32>; 3],
    /// Room in double precision.
    pub wide: [Vec<f64>; 2],
    /// Elements equal to a threshold that may still be taken in this segment.
    pub ties: u64,
    /// Bytes as read from a file.
    pub bytes: Vec<u8>,
}

impl Buffers {
    /// Replace every input by its difference from the base, where there is one.
    pub(super) fn subtract_base<P: Precision>(&mut self) {
        if !self.base.is_empty() {
            self.inputs.iter_mut().for_each(|input| subtract::<P>(input, &self.base));
        }
    }
}

/// Sixteen partial results of a block, by `index % 16`.
pub(super) type Lanes = [f64; SUM_LANES];

/// How partial results become one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fold {
    Sum,
    Max,
}

impl Fold {
    pub(super) fn start(self) -> f64 {
        match self {
            Fold::Sum => 0.0,
            Fold::Max => f64::NEG_INFINITY,
        }
    }

    pub(super) fn all(self, values: impl Iterator<Item = f64>) -> f64 {
        match self {
            Fold::Sum => values.sum(),
            Fold::Max => values.fold(f64::NEG_INFINITY, f64::max),
        }
    }
}

impl<'a> Sweep<'a> {
    /// Read a run of every input.
    pub(super) fn read(&self, range: Range<usize>, buffers: &mut Buffers) -> Result<()> {
        let Inputs { dtype, base, tensors, .. } = self.inputs;
        if let Some(base) = base {
            buffers.base.resize(range.len(), 0.0);
            base.read(*dtype, range.start, &mut buffers.base, &mut buffers.bytes)?;
        }
        buffers.inputs.resize_with(tensors.len(), Vec::new);
        for (tensor, values) in tensors.iter().zip(&mut buffers.inputs) {
            values.resize(range.len(), 0.0);
            tensor.read(*dtype, range.start, values, &mut buffers.bytes)?;
        }
        self.control.add(range.len() * self.inputs.bytes_per_element());
        Ok(())
    }

    /// Count sweeps as done that turned out not to be needed.
    pub(super) fn skip(&self, sweeps: u64) {
        self.control.add(sweeps as usize * self.inputs.len() * self.inputs.bytes_per_element());
    }

    /// Walk one segment: `visit(start, buffers)` for each chunk.
    pub(super) fn walk(
        &self,
        segment: &Segment,
        buffers: &mut Buffers,
        mut visit: impl FnMut(usize, &mut Buffers),
    ) -> Result<()> {
        let inputs = self.inputs.all();
        let mut behind = Behind::early(&inputs, segment, self.inputs.len());
        for block in segment.blocks() {
            self.control.check()?;
            behind.passed(block.start);
            for range in pieces(block, self.chunk) {
                self.read(range.clone(), buffers)?;
                visit(range.start, buffers);
            }
        }
        behind.finish();
        Ok(())
    }

    /// `work` on every segment of the tensor, and the results in order.
    pub(super) fn each_segment<T: Send>(
        &self,
        work: impl Fn(&Segment) -> Result<T> + Sync,
    ) -> Result<Vec<T>> {
        let segments = segments(self.inputs.len());
        self.parallel.map(segments.len(), |number| work(&segments[number]))
    }

    /// Fold `count` quantities over elements `range`, in one fixed order. `add` adds a chunk to the
    /// lanes of every quantity.
    pub(super) fn reduce(
        &self,
        range: Range<usize>,
        fold: Fold,
        count: usize,
        add: impl Fn(&mut Buffers, &mut [Lanes]) + Sync,
    ) -> Result<Vec<f64>> {
        let segments = segments(range.len());
        let blocks = self.parallel.map(segments.len(), |number| {
            let mut buffers = Buffers::default();
            let mut blocks = Vec::new();
            let inputs = self.inputs.all();
            let part = &segments[number].range;
            let place = range.start + part.start..range.start + part.end;
            let mut behind =
                Behind::early(&inputs, &Segment { number, range: place }, self.inputs.len());
            for block in segments[number].blocks() {
                self.control.check()?;
                behind.passed(range.start + block.start);
                let mut lanes = vec![[fold.start(); SUM_LANES]; count];
                for piece in pieces(block, self.chunk) {
                    self.read(range.start + piece.start..range.start + piece.end, &mut buffers)?;
                    add(&mut buffers, &mut lanes);
                }
                blocks.extend(lanes.iter().map(|lanes| fold.all(lanes.iter().copied())));
            }
            behind.finish();
            Ok(blocks)
        })?;
        let blocks = blocks.concat();
        Ok((0..count).map(|i| fold.all(blocks.iter().skip(i).step_by(count).copied())).collect())
    }

    /// [`Sweep::reduce`] of sums over the whole tensor.
    pub(super) fn sums(
        &self,
        count: usize,
        add: impl Fn(&mut Buffers, &mut [Lanes]) + Sync,
    ) -> Result<Vec<f64>> {
        self.reduce(0..self.inputs.len(), Fold::Sum, count, add)
    }
}
