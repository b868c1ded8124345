//! What a pool's deltas have in common, tensor by tensor, in one pass over base and experts: inner
//! products, signs, and what is left of a delta when its small elements are trimmed.
//!
//! Tensors are cut into runs by length alone. Counts have no order, and a tensor's sums are folded in
//! the order of its runs once all are there, so that nothing depends on threads; what is held is the
//! sums of the tensors in work, whatever the model's size.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard};

use crate::error::{Error, Result};
use crate::kernels::gram::{Gram, Row, LANES};
use crate::kernels::similar::{shares_kept, Counts, Signs, BINS, GROUP};
use crate::number::Float;
use crate::plan::Model;
use crate::source;
use crate::source::{DeltaRun, Held, Models, Source};
use crate::work::{self, pieces, Control, Parallel, BLOCK};

/// Elements of a run.
const RUN: usize = 16 * BLOCK;
/// Elements of all deltas that a kernel sees at a time: a quarter of a second-level cache of 1 MiB.
const CHUNK: usize = 2048;
/// Elements of all models that are copied from their files at a time: with eight experts of bfloat16
/// a third of that cache.
const HELD: usize = 8 * CHUNK;
/// Runs by which reading is ahead of each worker.
const AHEAD: usize = 2;

/// One tensor's deltas beside each other. Matrices are row-major, (experts, experts).
#[derive(Debug, Clone, PartialEq)]
pub struct Similarity {
    /// Elements of the tensor.
    pub elements: u64,
    /// Inner products of the deltas.
    pub gram: Vec<f64>,
    /// Elements at which both deltas have the same sign.
    pub agreeing: Vec<u64>,
    /// Elements at which neither delta is zero.
    pub nonzero: Vec<u64>,
    /// Share of a delta's squared norm that its largest elements hold, (experts, densities).
    pub kept: Vec<f64>,
}

/// A base and the experts whose deltas are compared, open.
#[derive(Debug)]
pub struct Pool {
    models: Models,
    base: usize,
    experts: Vec<usize>,
}

impl Pool {
    /// Open models: the base, then the experts, then those that only they are derived from.
    ///
    /// # Errors
    /// [`Error::Plan`] where there are fewer; whatever opening a model gives.
    pub fn open(given: Vec<Model>, experts: usize) -> Result<Self> {
        let mut models = Models::default();
        let numbers = models.open_all(given, &mut HashMap::new(), &HashMap::new())?;
        let (Some(&base), Some(experts)) = (numbers.first(), numbers.get(1..=experts)) else {
            return Err(Error::Plan { reason: "there are fewer models than experts".into() });
        };
        Ok(Self { base, experts: experts.into(), models })
    }
}

/// The similarities of the tensors `names`, in that order, of which every model has one of the same
/// shape.
///
/// # Errors
/// [`Error::MissingTensor`], [`Error::Shape`], [`Error::Dtype`]; [`Error::NonFinite`];
/// [`Error::Io`], [`Error::Threads`], [`Error::Cancelled`].
pub fn similarities(
    pool: &Pool,
    names: &[String],
    densities: &[f64],
    threads: usize,
    control: &Control,
) -> Result<Vec<Similarity>> {
    let tensors = names.iter().map(|name| Tensor::new(pool, name)).collect::<Result<Vec<_>>>()?;
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&number| tensors[number].base.identity());
    let of = |&number: &usize| pieces(0..tensors[number].length, RUN).map(move |r| (number, r));
    let runs: Vec<(usize, Range<usize>)> = order.iter().flat_map(of).collect();
    let ask = |number: usize| {
        if let Some((tensor, range)) = runs.get(number) {
            tensors[*tensor].inputs().for_each(|input| input.will_need(range.clone()));
        }
    };
    (0..AHEAD * threads).for_each(ask);
    // Counters are a megabyte at eight experts: to make them for every run is seen.
    let workers = Mutex::new(Vec::new());
    Parallel::Pool(&work::pool(threads)?).map(runs.len(), |number| {
        ask(number + AHEAD * threads);
        let (tensor, range) = runs[number].clone();
        let idle = lock(&workers).pop();
        let mut worker = idle.unwrap_or_else(|| Worker::new(pool.experts.len()));
        tensors[tensor].take(range, &mut worker, densities, control)?;
        lock(&workers).push(worker);
        Ok(())
    })?;
    Ok(tensors.into_iter().map(|tensor| tensor.finish(densities)).collect())
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(|error| error.into_inner())
}

/// A tensor in every model, and what is known of it so far.
struct Tensor<'a> {
    base: source::Tensor<'a>,
    experts: Vec<source::Tensor<'a>>,
    length: usize,
    found: Mutex<Found>,
}

/// Sums of some of a tensor's runs; of matrices, the upper triangle.
#[derive(Default)]
struct Found {
    products: Vec<Option<Vec<f64>>>,
    agreeing: Vec<u64>,
    nonzero: Vec<u64>,
    magnitudes: Vec<Vec<u64>>,
    whole: Option<Similarity>,
}

impl<'a> Tensor<'a> {
    fn new(Pool { models, base, experts }: &'a Pool, name: &'a str) -> Result<Self> {
        let shape = models.shape(*base, name)?;
        let of = |&model: &usize| models.tensor(model, name, &shape, false);
        Ok(Self {
            base: of(base)?,
            experts: experts.iter().map(of).collect::<Result<_>>()?,
            length: shape.iter().product(),
            found: Mutex::default(),
        })
    }

    fn inputs(&self) -> impl Iterator<Item = &source::Tensor<'a>> {
        self.experts.iter().chain([&self.base])
    }

    /// Go over a run, and add what it gave; the last one folds the tensor.
    fn take(
        &self,
        run: Range<usize>,
        worker: &mut Worker,
        densities: &[f64],
        control: &Control,
    ) -> Result<()> {
        for block in pieces(run.clone(), BLOCK) {
            control.check()?;
            for held in pieces(block.clone(), HELD) {
                worker.hold(self, held.clone())?;
                for chunk in pieces(held, CHUNK) {
                    worker.chunk(self, chunk)?;
                }
            }
            let bytes: usize = self.inputs().map(|input| input.dtype().size()).sum();
            control.add(block.len() * bytes);
        }
        self.inputs().for_each(|input| input.release(run.clone()));
        let mut found = lock(&self.found);
        found.add(worker, run.start / RUN, self.length.div_ceil(RUN));
        if found.products.iter().all(Option::is_some) {
            let whole = found.fold(self.length, self.experts.len(), densities);
            found.whole = Some(whole);
        }
        Ok(())
    }

    fn finish(self, densities: &[f64]) -> Similarity {
        let mut found = self.found.into_inner().unwrap_or_else(|error| error.into_inner());
        found.whole.take().unwrap_or_else(|| {
            // A tensor without elements has no run.
            let n = self.experts.len();
            found.add(&mut Worker::new(n), 0, 1);
            found.fold(0, n, densities)
        })
    }
}

impl Found {
    fn add(&mut self, worker: &mut Worker, run: usize, runs: usize) {
        let n = worker.deltas.len();
        self.products.resize(runs, None);
        self.products[run] = Some(std::mem::replace(&mut worker.gram, Gram::new(n)).upper());
        self.agreeing.resize(n * n, 0);
        self.nonzero.resize(n * n, 0);
        let pairs =
            [(&mut self.agreeing, &mut worker.agreeing), (&mut self.nonzero, &mut worker.nonzero)];
        for (totals, counts) in pairs {
            for (total, count) in totals.iter_mut().zip(counts) {
                *total += std::mem::take(count);
            }
        }
        self.magnitudes.resize(n, vec![0; BINS]);
        for (totals, counts) in self.magnitudes.iter_mut().zip(&mut worker.counts) {
            counts.drain_into(totals);
        }
    }

    /// Make the whole of all runs, and let their sums go.
    fn fold(&mut self, length: usize, n: usize, densities: &[f64]) -> Similarity {
        let mut gram = vec![0.0; n * n];
        for products in self.products.drain(..).flatten() {
            gram.iter_mut().zip(products).for_each(|(sum, product)| *sum += product);
        }
        let kept = self.magnitudes.drain(..);
        Similarity {
            elements: length as u64,
            gram: mirrored(gram, n),
            agreeing: mirrored(std::mem::take(&mut self.agreeing), n),
            nonzero: mirrored(std::mem::take(&mut self.nonzero), n),
            kept: kept.flat_map(|counts| shares_kept(&counts, densities)).collect(),
        }
    }
}

/// A matrix of which only the upper triangle is there, made symmetric.
fn mirrored<T: Copy>(mut matrix: Vec<T>, n: usize) -> Vec<T> {
    for row in 0..n {
        for column in 0..row {
            matrix[row * n + column] = matrix[column * n + row];
        }
    }
    matrix
}

/// A worker's buffers, and the sums of one run.
struct Worker {
    /// Blocks of the experts, then of the base.
    held: Vec<Held>,
    base: Vec<f32>,
    deltas: Vec<Vec<Row>>,
    scratch: Vec<u8>,
    signs: Vec<Signs>,
    counts: Vec<Counts>,
    gram: Gram,
    agreeing: Vec<u64>,
    nonzero: Vec<u64>,
}

impl Worker {
    fn new(n: usize) -> Self {
        Self {
            held: (0..=n).map(|_| Held::default()).collect(),
            base: vec![],
            deltas: vec![vec![]; n],
            scratch: vec![],
            signs: vec![Signs::default(); n],
            counts: vec![Counts::default(); n],
            gram: Gram::new(n),
            agreeing: vec![0; n * n],
            nonzero: vec![0; n * n],
        }
    }

    fn hold(&mut self, tensor: &Tensor, block: Range<usize>) -> Result<()> {
        for (held, input) in self.held.iter_mut().zip(tensor.inputs()) {
            held.fill(input, block.clone(), &mut self.scratch)?;
        }
        Ok(())
    }

    fn chunk(&mut self, tensor: &Tensor, chunk: Range<usize>) -> Result<()> {
        let (length, scratch) = (chunk.len(), &mut self.scratch);
        self.base.resize(length, 0.0);
        self.held[tensor.experts.len()].read(&tensor.base, chunk.start, &mut self.base, scratch)?;
        let run = DeltaRun { working: Float::F32, start: chunk.start, base: &self.base };
        for (number, (expert, held)) in tensor.experts.iter().zip(&self.held).enumerate() {
            let delta = &mut self.deltas[number];
            delta.resize(length.next_multiple_of(GROUP) / LANES, [0.0; LANES]);
            let delta = delta.as_flattened_mut();
            held.read_delta(expert, run, &mut delta[..length], scratch)?;
            delta[length..].fill(0.0);
            self.counts[number].add(&delta[..length]);
            self.signs[number].take(delta);
        }
        let n = self.deltas.len();
        self.gram.add(&self.deltas);
        for row in 0..n {
            for column in row..n {
                let (agreeing, nonzero) = self.signs[row].agreement(&self.signs[column]);
                self.agreeing[row * n + column] += agreeing;
                self.nonzero[row * n + column] += nonzero;
            }
        }
        Ok(())
    }
}
