//! Output that is computed elsewhere, as blocks, beside what is merged here.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::ThreadPool;

use crate::error::{Error, Result};
use crate::execute::blocks::write_block;
use crate::execute::prepared::missing;
use crate::execute::{Options, Prepared, Target};
use crate::output::Sink;
use crate::plan::{Job, Merge};
use crate::statistics::content;
use crate::work::{pieces, pool, Control, Parallel, BLOCK};

/// Threads that hash and write, for all outputs: one alone is slower than a bus.
#[derive(Debug)]
pub struct Writers(ThreadPool);

impl Writers {
    /// So many.
    ///
    /// # Errors
    /// [`Error::Threads`](crate::Error::Threads)
    pub fn new(threads: usize) -> Result<Self> {
        pool(threads).map(Self)
    }
}

/// The output of one plan, on its way into a sink.
#[derive(Debug)]
pub struct DeviceOutputs<S> {
    plan: usize,
    sink: S,
    jobs: Vec<Mutex<Hashes>>,
}

/// What is known of a tensor that is being written.
#[derive(Debug, Clone)]
enum Hashes {
    Blocks(Vec<Option<u64>>),
    Whole(u64),
}

impl<S: Sink> DeviceOutputs<S> {
    /// Nothing is written but what the sink says was.
    pub fn new(prepared: &Prepared, plan: usize, sink: S) -> Result<Self> {
        prepared.job(plan, 0).map(drop).or_else(|error| match prepared.plans().get(plan) {
            Some(_) => Ok(()), // a plan without jobs
            None => Err(error),
        })?;
        let blocks = |(number, job): (usize, &Job)| {
            let count = job.len().div_ceil(BLOCK);
            let written = (0..count).map(|block| sink.written(number, block)).collect();
            Mutex::new(Hashes::Blocks(written))
        };
        let jobs = prepared.plans()[plan].jobs.iter().enumerate().map(blocks).collect();
        Ok(Self { plan, sink, jobs })
    }

    /// The sink.
    pub fn sink(&self) -> &S {
        &self.sink
    }

    /// Number of the plan.
    pub fn plan(&self) -> usize {
        self.plan
    }

    /// Whether a tensor is there as a whole.
    pub fn is_written(&self, job: usize) -> bool {
        self.jobs.get(job).is_some_and(|job| match &*lock(job) {
            Hashes::Blocks(blocks) => blocks.iter().all(Option::is_some),
            Hashes::Whole(_) => true,
        })
    }

    /// Write whole blocks of a job's tensor, the first of which begins at element `start`. Blocks that
    /// are there already are left alone.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Plan`] where these are no whole blocks of the tensor.
    pub fn write(
        &self,
        prepared: &Prepared,
        writers: &Writers,
        job: usize,
        start: usize,
        bytes: &[u8],
    ) -> Result<()> {
        let number = job;
        let (_, job) = prepared.job(self.plan, number)?;
        let size = job.out_dtype.bitsize() / 8;
        let end = start + bytes.len() / size.max(1);
        let whole = bytes.len().is_multiple_of(size.max(1))
            && start.is_multiple_of(BLOCK)
            && (end.is_multiple_of(BLOCK) || end == job.len())
            && end <= job.len();
        if !whole {
            return Err(missing("run of whole blocks"));
        }
        let blocks: Vec<_> = pieces(start..end, BLOCK).collect();
        Parallel::Pool(&writers.0).map(blocks.len(), |block| {
            let Range { start: at, end } = blocks[block].clone();
            let place = at / BLOCK;
            if matches!(&*lock(&self.jobs[number]), Hashes::Blocks(all) if all[place].is_none()) {
                let bytes = &bytes[(at - start) * size..(end - start) * size];
                let hash = write_block(&self.sink, number, at, at * size, bytes)?;
                if let Hashes::Blocks(all) = &mut *lock(&self.jobs[number]) {
                    all[place] = Some(hash);
                }
            }
            Ok(())
        })?;
        if self.is_written(number) && !self.sink.knows_inputs(number) {
            self.sink.inputs_read(number, prepared.input_hash(self.plan, number)?)?;
        }
        Ok(())
    }

    /// The hash of each tensor's content, once all of them are there.
    ///
    /// # Errors
    /// [`Error::Plan`] where a tensor is not.
    pub fn hashes(&self, prepared: &Prepared) -> Result<Vec<(usize, u64)>> {
        let jobs = prepared.plans()[self.plan].jobs.iter().enumerate();
        let merged = jobs.filter(|(_, job)| !matches!(job.merge, Merge::Given {}));
        // A tensor without elements is never written.
        for (number, _) in merged.clone().filter(|(number, _)| !self.sink.knows_inputs(*number)) {
            self.sink.inputs_read(number, prepared.input_hash(self.plan, number)?)?;
        }
        let hash = |(number, job): (usize, &Job)| match &*lock(&self.jobs[number]) {
            Hashes::Whole(hash) => Ok((number, *hash)),
            Hashes::Blocks(blocks) => {
                let blocks: Option<Vec<u64>> = blocks.iter().copied().collect();
                let blocks = blocks.ok_or_else(|| Error::Plan {
                    reason: format!("tensor `{}` was not written as a whole", job.tensor),
                })?;
                Ok((number, content::combine(&blocks)))
            }
        };
        merged.map(hash).collect()
    }
}

/// Merge some jobs of some outputs here, beside those that are computed elsewhere.
///
/// # Errors
/// As for [`Prepared::run`].
pub fn run_some<S: Sink>(
    prepared: &Prepared,
    outputs: &[Arc<DeviceOutputs<S>>],
    some: &[(usize, usize)],
    options: Options,
    control: &Control,
) -> Result<()> {
    let target = |&(output, job): &(usize, usize)| -> Result<Target> {
        let output = outputs.get(output).ok_or_else(|| missing("output"))?;
        prepared.job(output.plan, job)?;
        Ok(Target { plan: output.plan, jobs: job..job + 1, sink: &output.sink })
    };
    let targets = some.iter().map(target).collect::<Result<Vec<_>>>()?;
    let hashes = prepared.run(&targets, options, control)?;
    for (&(output, job), hash) in some.iter().zip(hashes) {
        if let Some(hash) = hash.first() {
            *lock(&outputs[output].jobs[job]) = Hashes::Whole(*hash);
        }
    }
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
