//! A merge by a function of the caller's.
//!
//! ```text
//! for each input, once for a family of merges: statistics of its whole tensor, and its state:
//!     state = fold(join, function.state(run) for each run in order)
//! for each run: out = round(function.merge(base, inputs, statistics, states))
//! ```
//! 1. Runs are the same whatever the chunk, the segment and the thread: whole blocks, or whole rows.
//!    A function that gives other bits for other runs still gives one output, therefore.
//! 2. Rows that two blocks share are computed for each of them.
//! 3. The states of one input are made one behind the other, several inputs side by side: joining
//!    floats in another order would give other bits.

use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::execute::group::lanes::add_squares;
use crate::execute::group::order;
use crate::execute::group::sweep::{Buffers, Fold, Inputs, Sweep};
use crate::execute::pass::{Apply, Found, FoundKey, Known, Resources};
use crate::kernels::elementwise::{add_magnitudes, round_all, SUM_LANES};
use crate::number::F32;
use crate::plan::{Call, Custom, CustomMethod, Job, Merge, State, Statistic};
use crate::source::{Source, Tensor};
use crate::work::{segments, BLOCK};

/// A [`GroupMethod::Custom`](crate::plan::GroupMethod::Custom) bound to its inputs.
pub(crate) struct CustomJob<'a> {
    inputs: Inputs<'a>,
    planned: &'a Custom,
    function: Arc<dyn CustomMethod>,
    options: String,
}

impl<'a> CustomJob<'a> {
    pub(crate) fn new(
        job: &'a Job,
        planned: &'a Custom,
        tensor: impl Fn(usize, &'a str) -> Result<Tensor<'a>>,
    ) -> Result<Self> {
        let Merge::Group { dtype, base, inputs, .. } = &job.merge else {
            return Err(Error::Plan {
                reason: format!("tensor `{}` is no group merge", job.tensor),
            });
        };
        let base = base.as_ref().map(|base| tensor(base.model, &base.tensor)).transpose()?;
        let tensors = inputs.iter().map(|input| tensor(input.model, &input.tensor));
        let tensors = tensors.collect::<Result<_>>()?;
        let (name, shape, dtype) = (job.tensor.as_str(), job.shape.as_slice(), *dtype);
        let inputs = Inputs { name, shape, dtype, base, tensors };
        let options = planned.options.to_string();
        Ok(Self { inputs, planned, function: planned.function()?, options })
    }

    /// The tensors that are read.
    pub(crate) fn inputs(&self) -> impl Iterator<Item = &Tensor<'a>> {
        self.inputs.base.iter().chain(&self.inputs.tensors)
    }

    /// Bytes of one worker's buffers: a run of every input and the result, copied for the function
    /// twice, and five arrays of all inputs that it may make of them.
    pub(crate) fn worker_bytes(&self) -> usize {
        let run = self.columns().map_or(BLOCK, |columns| columns.max(BLOCK));
        4 * run.min(self.inputs.len().max(1)) * (7 * self.inputs().count() + 8)
    }

    /// Bytes that the statistics hold, states apart.
    pub(crate) fn statistics_bytes(&self) -> usize {
        let n_segments = segments(self.inputs.len()).len();
        let sums = self.inputs.len().div_ceil(BLOCK) * 8 * (2 + 2 * SUM_LANES);
        sums + if self.has(Statistic::Threshold) { order::bytes(n_segments) } else { 0 }
    }

    /// Bytes that a family keeps of the tensor between runs, states apart.
    pub(crate) fn known_bytes(&self) -> usize {
        const ENTRY: usize = 1024;
        let keeps = !self.planned.statistics.is_empty() || self.planned.has_states;
        usize::from(keeps) * ENTRY * self.inputs.tensors.len()
    }

    /// Bytes read for each element, over all passes.
    pub(crate) fn bytes_per_element(&self) -> u64 {
        let base = self.inputs.base.as_ref().map_or(0, |base| base.dtype().size());
        let all = self.inputs.bytes_per_element();
        // Statistics go over the base with each input anew.
        let before = all - base + base * self.inputs.tensors.len();
        all as u64 + self.sweeps() * before as u64
    }

    fn sweeps(&self) -> u64 {
        let has = |one| u64::from(self.has(one));
        let sums = has(Statistic::L1).max(has(Statistic::L2));
        let threshold = 2 * has(Statistic::Threshold);
        sums + has(Statistic::Largest) + threshold + u64::from(self.planned.has_states)
    }

    fn has(&self, statistic: Statistic) -> bool {
        self.planned.statistics.contains(&statistic)
    }

    fn columns(&self) -> Option<usize> {
        self.planned.by_rows.then(|| self.inputs.shape.last().copied().unwrap_or(1).max(1))
    }

    /// The run that holds an element.
    fn run(&self, at: usize) -> Range<usize> {
        let columns = self.columns().unwrap_or(1);
        let length = (BLOCK / columns).max(1) * columns;
        let start = at / length * length;
        start..(start + length).min(self.inputs.len())
    }

    fn call<'c>(&'c self, start: usize, buffers: &'c Buffers) -> Call<'c> {
        Call {
            tensor: self.inputs.name,
            shape: self.inputs.shape,
            start,
            columns: self.columns(),
            options: &self.options,
            base: self.inputs.base.as_ref().map(|_| buffers.base.as_slice()),
            inputs: &buffers.inputs,
        }
    }

    fn failed(&self, reason: String) -> Error {
        let (method, tensor) = (self.planned.method.clone(), self.inputs.name.to_owned());
        Error::Custom { method, tensor, reason }
    }

    /// Find out what the function is told of whole tensors.
    pub(crate) fn prepare<'s>(&'s self, resources: &'s Resources<'s>) -> Result<Ready<'s, 'a>> {
        let Resources { chunk, control, parallel, known, .. } = *resources;
        let sweep = Sweep { inputs: &self.inputs, chunk, control, parallel };
        let found = self.found(&sweep, known)?;
        let states = found.iter().filter_map(|one| one.state.clone()).collect();
        let numbers = found.into_iter().map(|one| one.numbers).collect();
        Ok(Ready { job: self, sweep, numbers, states })
    }

    /// What is known of each input; what an earlier run has found is not looked for again.
    fn found(&self, sweep: &Sweep, known: Option<&Known>) -> Result<Vec<Found>> {
        if self.planned.statistics.is_empty() && !self.planned.has_states {
            return Ok(vec![]);
        }
        let keys: Vec<FoundKey> = (0..self.inputs.tensors.len()).map(|i| self.key(i)).collect();
        let before = |key| known.and_then(|known| known.lock().found(key));
        let mut found: Vec<Option<Found>> = keys.iter().map(before).collect();
        let missing: Vec<usize> = (0..found.len()).filter(|&i| found[i].is_none()).collect();
        let alone: Vec<Inputs> = missing.iter().map(|&i| self.alone(i)).collect();
        let states = self.states(sweep, &alone)?;
        for ((&i, inputs), state) in missing.iter().zip(&alone).zip(states) {
            let numbers = self.numbers(&Sweep { inputs, ..*sweep }, self.density(i))?;
            let entry = Found { numbers, state };
            if let Some(known) = known {
                known.lock().keep(keys[i].clone(), entry.clone());
            }
            found[i] = Some(entry);
        }
        Ok(found.into_iter().flatten().collect())
    }

    fn key(&self, input: usize) -> FoundKey {
        let density = |statistic: &Statistic| match statistic {
            Statistic::Threshold => self.density(input).to_bits(),
            _ => 0,
        };
        FoundKey {
            method: [self.planned.method.clone(), self.planned.sha256.clone()],
            statistics: self.planned.statistics.iter().map(|s| (*s, density(s))).collect(),
            base: self.inputs.base.as_ref().map(Tensor::identity),
            input: self.inputs.tensors[input].identity(),
        }
    }

    fn density(&self, input: usize) -> f64 {
        self.planned.densities.get(input).copied().unwrap_or(1.0)
    }

    /// One input with the base.
    fn alone(&self, input: usize) -> Inputs<'a> {
        let Inputs { name, shape, dtype, ref base, ref tensors } = self.inputs;
        Inputs { name, shape, dtype, base: base.clone(), tensors: vec![tensors[input].clone()] }
    }

    fn states(&self, sweep: &Sweep, alone: &[Inputs]) -> Result<Vec<Option<State>>> {
        if !self.planned.has_states {
            return Ok(vec![None; alone.len()]);
        }
        let failed = |reason| self.failed(reason);
        sweep.parallel.map(alone.len(), |number| {
            let own = Sweep { inputs: &alone[number], ..*sweep };
            let mut buffers = Buffers::default();
            let mut folded: Option<State> = None;
            let mut at = 0;
            while at < self.inputs.len() {
                sweep.control.check()?;
                let run = self.run(at);
                own.read(run.clone(), &mut buffers)?;
                let call = self.call(run.start, &buffers);
                let state = self.function.state(&call).map_err(failed)?;
                folded = Some(match folded {
                    None => state,
                    Some(first) => self.function.join(&first, &state).map_err(failed)?,
                });
                at = run.end;
            }
            Ok(folded)
        })
    }

    /// Of the one input of a sweep.
    fn numbers(&self, own: &Sweep, density: f64) -> Result<Vec<f64>> {
        let mut sums = vec![0.0; 2];
        if self.has(Statistic::L1) || self.has(Statistic::L2) {
            sums = own.sums(2, |buffers, sums| {
                buffers.subtract_base::<F32>();
                add_magnitudes(&buffers.inputs[0], &mut sums[0]);
                add_squares(&buffers.inputs[0], &mut sums[1..]);
            })?;
        }
        let mut largest = 0.0;
        if self.has(Statistic::Largest) {
            let found = own.reduce(0..own.inputs.len(), Fold::Max, 1, |buffers, lanes| {
                buffers.subtract_base::<F32>();
                for (i, value) in buffers.inputs[0].iter().enumerate() {
                    let lane = &mut lanes[0][i % SUM_LANES];
                    *lane = lane.max(f64::from(value.abs()));
                }
            })?;
            largest = found.first().copied().unwrap_or(0.0).max(0.0);
        }
        let threshold = if self.has(Statistic::Threshold) { threshold(own, density)? } else { 0.0 };
        let number = |statistic: &Statistic| match statistic {
            Statistic::L1 => sums[0],
            Statistic::L2 => sums[1].sqrt(),
            Statistic::Largest => largest,
            Statistic::Threshold => threshold,
        };
        Ok(self.planned.statistics.iter().map(number).collect())
    }
}

/// The least of the `int(density · elements)` largest magnitudes.
fn threshold(own: &Sweep, density: f64) -> Result<f64> {
    let n_kept = (density * own.inputs.len() as f64) as u64;
    if n_kept == 0 {
        own.skip(2);
        return Ok(f64::INFINITY);
    }
    let magnitudes = |_: usize, buffers: &mut Buffers| {
        buffers.subtract_base::<F32>();
        let Buffers { inputs, scratch: [magnitudes, ..], .. } = buffers;
        magnitudes.clear();
        magnitudes.extend(inputs[0].iter().map(|value| value.abs()));
    };
    let rank = own.inputs.len() as u64 - n_kept;
    let found = order::order_statistics(own, true, magnitudes, |_| vec![rank])?;
    Ok(found.first().map_or(f64::INFINITY, |one| f64::from(one.value)))
}

/// A function that knows what it is told of whole tensors.
pub(crate) struct Ready<'s, 'a> {
    job: &'s CustomJob<'a>,
    sweep: Sweep<'s>,
    numbers: Vec<Vec<f64>>,
    states: Vec<State>,
}

impl<'s, 'a> Ready<'s, 'a> {
    /// The work on one segment.
    pub(crate) fn apply(&'s self) -> CustomApply<'s, 'a> {
        CustomApply { ready: self, buffers: Buffers::default(), run: 0..0, results: vec![] }
    }
}

pub(crate) struct CustomApply<'s, 'a> {
    ready: &'s Ready<'s, 'a>,
    buffers: Buffers,
    /// The elements whose results are at hand.
    run: Range<usize>,
    results: Vec<f32>,
}

impl CustomApply<'_, '_> {
    fn compute(&mut self, run: Range<usize>) -> Result<()> {
        let Ready { job, sweep, numbers, states } = self.ready;
        sweep.read(run.clone(), &mut self.buffers)?;
        self.results.resize(run.len(), 0.0);
        let call = job.call(run.start, &self.buffers);
        let merged = job.function.merge(&call, numbers, states, &mut self.results);
        merged.map_err(|reason| job.failed(reason))?;
        round_all(job.inputs.dtype, &mut self.results);
        self.run = run;
        Ok(())
    }
}

impl Apply for CustomApply<'_, '_> {
    fn chunk(&mut self, start: usize, outs: &mut [Vec<f32>]) -> Result<()> {
        let Some(out) = outs.first_mut() else { return Ok(()) };
        let mut done = 0;
        while done < out.len() {
            let at = start + done;
            if !self.run.contains(&at) {
                self.compute(self.ready.job.run(at))?;
            }
            let from = at - self.run.start;
            let count = (self.run.end - at).min(out.len() - done);
            out[done..done + count].copy_from_slice(&self.results[from..from + count]);
            done += count;
        }
        Ok(())
    }
}
