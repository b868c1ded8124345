//! Statistics of many vectors in one tensor: the whole tensor, its rows, or its columns.
//!
//! 1. Rows of up to a block are read once, many at a time, and every pass runs in memory.
//! 2. Longer rows are streamed, once for each pass, by all workers.
//! 3. Columns are gathered, some lines of a stripe at a time, and read once for each pass.
//!
//! All three add the same numbers in the same order: a vector's blocks are counted from its start.

use std::ops::Range;

use crate::error::Result;
use crate::execute::group::sweep::{Buffers, Fold, Lanes, Sweep};
use crate::kernels::elementwise::SUM_LANES;
use crate::number::Precision;
use crate::work::{pieces, BLOCK};

/// Elements of short rows that are read at a time, and those of one piece of parallel work.
const BATCH: usize = 1 << 13;
const TASK: usize = 1 << 19;
/// Columns of a stripe.
const STRIPE: usize = 128;
/// Lines of it that are gathered at a time: a multiple of the lanes, and a divisor of a block.
const LINES: usize = 256;

/// How a tensor is made of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Vectors {
    /// Each vector is a run of `length` elements.
    Rows { length: usize },
    /// Vector `c` has the elements `c`, `c + width`, `c + 2 · width`, …
    Columns { width: usize },
}

impl Vectors {
    /// The whole tensor as one vector.
    pub(super) fn whole(shape: &[usize]) -> Self {
        Self::Rows { length: shape.iter().product() }
    }

    /// Along the last dimension.
    pub(super) fn last(shape: &[usize]) -> Self {
        Self::Rows { length: shape.last().copied().unwrap_or(1) }
    }

    /// Along the first dimension.
    pub(super) fn first(shape: &[usize]) -> Self {
        match shape {
            [] | [_] => Self::whole(shape),
            [_, others @ ..] => Self::Columns { width: others.iter().product() },
        }
    }

    /// Number of vectors in a tensor of `len` elements.
    pub(super) fn count(self, len: usize) -> usize {
        match self {
            Self::Rows { length } => len / length.max(1),
            Self::Columns { width } => width.min(len),
        }
    }

    /// How often statistics of `passes` passes read the tensor.
    pub(super) fn sweeps(self, passes: usize) -> u64 {
        if self.in_memory() {
            1
        } else {
            passes as u64
        }
    }

    /// Whether further passes read nothing.
    pub(super) fn in_memory(self) -> bool {
        matches!(self, Self::Rows { length } if length <= BLOCK)
    }

    /// Split a run of elements so that each part lies in one row, or in one line of columns:
    /// `(vector of the first element, part)`, parts counted from the start of the run.
    pub(super) fn split(
        self,
        start: usize,
        length: usize,
    ) -> impl Iterator<Item = (usize, Range<usize>)> {
        let period = match self {
            Self::Rows { length } => length,
            Self::Columns { width } => width,
        };
        let mut at = 0;
        std::iter::from_fn(move || {
            let (line, offset) = ((start + at) / period, (start + at) % period);
            let part = at..(at + period - offset).min(length);
            at = part.end;
            let vector = if matches!(self, Self::Rows { .. }) { line } else { offset };
            (part.start < length).then_some((vector, part))
        })
    }
}

/// Elements of the longest run that is read or gathered at a time, in a tensor of this shape.
pub(super) fn longest_run(shape: &[usize]) -> usize {
    let row = shape.last().copied().unwrap_or(1);
    let rows = if row <= BLOCK { row.max(BATCH) } else { 0 };
    rows.max(STRIPE * LINES)
}

/// A run of one vector in every input.
pub(super) struct Chunk<'a> {
    base: &'a [f32],
    inputs: &'a [Vec<f32>],
    at: Range<usize>,
}

impl<'a> Chunk<'a> {
    pub(super) fn base(&self) -> &'a [f32] {
        &self.base[self.at.clone()]
    }

    pub(super) fn input(&self, number: usize) -> &'a [f32] {
        &self.inputs[number][self.at.clone()]
    }
}

/// Statistics of a vector: passes that sum something, each with what the last one found.
pub(super) trait Statistics<P: Precision>: Sync {
    /// What is known of a vector between passes.
    type State: Default + Send + Sync;
    /// What is kept of it.
    type Kept: Copy + Send;

    /// Whether the inputs are taken as differences from the base.
    fn deltas(&self) -> bool;
    fn passes(&self, vectors: Vectors) -> usize;
    /// What the pass folds, and how many of it.
    fn folds(&self, pass: usize) -> (Fold, usize);
    fn add(&self, pass: usize, state: &Self::State, chunk: &Chunk, sums: &mut [Lanes]);
    fn advance(&self, pass: usize, state: &mut Self::State, totals: &[f64]);
    fn keep(&self, state: Self::State) -> Self::Kept;
}

/// What is kept of every vector.
pub(super) struct Kept<T> {
    pub vectors: Vectors,
    pub values: Vec<T>,
}

/// Compute the statistics of every vector.
pub(super) fn statistics<P: Precision, S: Statistics<P>>(
    statistics: &S,
    sweep: &Sweep,
    vectors: Vectors,
) -> Result<Kept<S::Kept>> {
    let values = match vectors {
        _ if sweep.inputs.len() == 0 => vec![],
        Vectors::Rows { length } if vectors.in_memory() => short_rows(statistics, sweep, length)?,
        Vectors::Rows { length } => {
            let rows = pieces(0..sweep.inputs.len(), length);
            rows.map(|row| long_row(statistics, sweep, row)).collect::<Result<_>>()?
        }
        Vectors::Columns { width } => columns(statistics, sweep, width)?,
    };
    Ok(Kept { vectors, values })
}

fn read<P: Precision, S: Statistics<P>>(
    statistics: &S,
    sweep: &Sweep,
    range: Range<usize>,
    buffers: &mut Buffers,
) -> Result<()> {
    sweep.read(range, buffers)?;
    if statistics.deltas() {
        buffers.subtract_base::<P>();
    }
    Ok(())
}

fn long_row<P: Precision, S: Statistics<P>>(
    statistics: &S,
    sweep: &Sweep,
    row: Range<usize>,
) -> Result<S::Kept> {
    let mut state = S::State::default();
    for pass in 0..statistics.passes(Vectors::Rows { length: row.len() }) {
        let (fold, count) = statistics.folds(pass);
        let totals = sweep.reduce(row.clone(), fold, count, |buffers, sums| {
            if statistics.deltas() {
                buffers.subtract_base::<P>();
            }
            let at = 0..buffers.inputs[0].len();
            let chunk = Chunk { base: &buffers.base, inputs: &buffers.inputs, at };
            statistics.add(pass, &state, &chunk, sums);
        })?;
        statistics.advance(pass, &mut state, &totals);
    }
    Ok(statistics.keep(state))
}

fn short_rows<P: Precision, S: Statistics<P>>(
    statistics: &S,
    sweep: &Sweep,
    length: usize,
) -> Result<Vec<S::Kept>> {
    let batch = (BATCH / length).max(1) * length;
    let task = (TASK / batch).max(1) * batch;
    let count = sweep.inputs.len().div_ceil(task);
    let tasks = sweep.parallel.map(count, |number| {
        let mut buffers = Buffers::default();
        let (mut lanes, mut totals) = (Vec::new(), Vec::new());
        let end = sweep.inputs.len().min((number + 1) * task);
        let mut kept = Vec::with_capacity((end - number * task) / length);
        for range in pieces(number * task..end, batch) {
            sweep.control.check()?;
            let rows = pieces(0..range.len(), length);
            read(statistics, sweep, range, &mut buffers)?;
            for at in rows {
                let chunk = Chunk { base: &buffers.base, inputs: &buffers.inputs, at };
                let mut state = S::State::default();
                for pass in 0..statistics.passes(Vectors::Rows { length }) {
                    let (fold, count) = statistics.folds(pass);
                    lanes.clear();
                    lanes.resize(count, [fold.start(); SUM_LANES]);
                    statistics.add(pass, &state, &chunk, &mut lanes);
                    totals.clear();
                    totals.extend(lanes.iter().map(|lanes| fold.all(lanes.iter().copied())));
                    statistics.advance(pass, &mut state, &totals);
                }
                kept.push(statistics.keep(state));
            }
        }
        Ok(kept)
    })?;
    Ok(tasks.into_iter().flatten().collect())
}

fn columns<P: Precision, S: Statistics<P>>(
    statistics: &S,
    sweep: &Sweep,
    width: usize,
) -> Result<Vec<S::Kept>> {
    let stripes = sweep.parallel.map(width.div_ceil(STRIPE), |number| {
        stripe(statistics, sweep, width, number * STRIPE..width.min((number + 1) * STRIPE))
    })?;
    Ok(stripes.into_iter().flatten().collect())
}

fn stripe<P: Precision, S: Statistics<P>>(
    statistics: &S,
    sweep: &Sweep,
    width: usize,
    columns: Range<usize>,
) -> Result<Vec<S::Kept>> {
    let lines = sweep.inputs.len() / width;
    let mut states: Vec<S::State> = columns.clone().map(|_| S::State::default()).collect();
    let (mut buffers, mut gathered) = (Buffers::default(), Buffers::default());
    gathered.inputs.resize_with(sweep.inputs.tensors.len(), Vec::new);
    for pass in 0..statistics.passes(Vectors::Columns { width }) {
        let (fold, count) = statistics.folds(pass);
        // For each column and quantity, one partial result of each block.
        let mut blocks = vec![Vec::new(); count * columns.len()];
        for block in pieces(0..lines, BLOCK) {
            let mut lanes = vec![[fold.start(); SUM_LANES]; count * columns.len()];
            for piece in pieces(block, LINES) {
                sweep.control.check()?;
                for values in std::iter::once(&mut gathered.base).chain(&mut gathered.inputs) {
                    values.resize(columns.len() * LINES, 0.0);
                }
                for (place, line) in piece.clone().enumerate() {
                    let start = line * width;
                    let range = start + columns.start..start + columns.end;
                    read(statistics, sweep, range, &mut buffers)?;
                    scatter(&buffers.base, &mut gathered.base, place, LINES);
                    for (from, to) in buffers.inputs.iter().zip(&mut gathered.inputs) {
                        scatter(from, to, place, LINES);
                    }
                }
                for (column, state) in states.iter().enumerate() {
                    let at = column * LINES..column * LINES + piece.len();
                    let chunk = Chunk { base: &gathered.base, inputs: &gathered.inputs, at };
                    statistics.add(pass, state, &chunk, &mut lanes[column * count..][..count]);
                }
            }
            for (blocks, lanes) in blocks.iter_mut().zip(&lanes) {
                blocks.push(fold.all(lanes.iter().copied()));
            }
        }
        for (state, blocks) in states.iter_mut().zip(blocks.chunks(count)) {
            let totals: Vec<f64> =
                blocks.iter().map(|blocks| fold.all(blocks.iter().copied())).collect();
            statistics.advance(pass, state, &totals);
        }
    }
    Ok(states.into_iter().map(|state| statistics.keep(state)).collect())
}

/// Put one line of a stripe at position `place` of every column.
fn scatter(line: &[f32], columns: &mut [f32], place: usize, stride: usize) {
    for (value, column) in line.iter().zip(columns.chunks_mut(stride)) {
        column[place] = *value;
    }
}
