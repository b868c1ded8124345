//! Jobs whose arithmetic runs elsewhere, as on a GPU: their inputs as bytes, their output as blocks.
//!
//! Whoever computes reads through [`Inputs`] and writes through [`Outputs`], in any order and from any
//! thread; files, journal and hashes are then those of a run of [`Prepared`].

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rayon::ThreadPool;

use crate::error::{Error, Result};
use crate::execute::blocks::write_block;
use crate::execute::{Options, Prepared, Target};
use crate::number::philox::Stream;
use crate::output::Sink;
use crate::plan::{Job, Merge, Plan};
use crate::source::{Source, Tensor};
use crate::statistics::content;
use crate::work::{is_large, pieces, pool, Control, Parallel, BLOCK};

/// Elements that one thread copies at a time.
const PIECE: usize = 1 << 20;

/// The inputs of plans, as bytes.
#[derive(Debug)]
pub struct Inputs {
    pool: ThreadPool,
    read_bytes: AtomicU64,
}

impl Inputs {
    /// Copy with so many threads.
    ///
    /// # Errors
    /// [`Error::Plan`] where the system gives no threads.
    pub fn new(threads: usize) -> Result<Self> {
        Ok(Self { pool: pool(threads)?, read_bytes: AtomicU64::new(0) })
    }

    /// Bytes read so far, each as often as it was.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Copy elements of an input, in its own dtype; `out` says how many. What follows is asked for in
    /// advance, and of a large tensor what was read need not stay resident.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::NonFinite`] from a tensor that is computed.
    pub fn read(&self, tensor: &Tensor, len: usize, start: usize, out: &mut [u8]) -> Result<()> {
        let size = tensor.dtype().size();
        let end = start + out.len() / size;
        tensor.will_need(end..(end + (end - start)).min(len));
        let parts: Vec<_> = out.chunks_mut(PIECE * size).map(Mutex::new).collect();
        Parallel::Pool(&self.pool).map(parts.len(), |number| {
            tensor.read_bytes(start + number * PIECE, &mut lock(&parts[number]), &mut vec![])
        })?;
        if is_large(len) {
            tensor.release(start..end);
        }
        self.read_bytes.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Prepared {
    /// The floating-point inputs of a job, in the order of [`Merge::tensors`]; a job that copies has
    /// none.
    ///
    /// # Errors
    /// [`Error::Plan`] where there is no such job.
    pub fn inputs(&self, plan: usize, job: usize) -> Result<Vec<Tensor<'_>>> {
        let (plan, job) = self.job(plan, job)?;
        if matches!(job.merge, Merge::Copy { .. } | Merge::Given {}) {
            return Ok(vec![]);
        }
        let tensor =
            |(model, name)| self.models().tensor(model, name, &job.shape, plan.allow_nonfinite);
        job.merge.tensors().map(tensor).collect()
    }

    /// The stream of an input's random mask.
    ///
    /// # Errors
    /// [`Error::Plan`] where there is no such input, and whatever reading gives.
    pub fn stream(&self, plan: usize, job: usize, input: usize) -> Result<Stream> {
        let inputs = self.inputs(plan, job)?;
        let tensor = inputs.get(input).ok_or_else(|| missing("input"))?;
        let (plan, job) = self.job(plan, job)?;
        Ok(Stream::new(plan.seed, &job.tensor, tensor.fingerprint(job.len())?))
    }

    /// A plan, and one of its jobs.
    ///
    /// # Errors
    /// [`Error::Plan`] where there is no such job.
    pub fn job(&self, plan: usize, job: usize) -> Result<(&Plan, &Job)> {
        let plan = self.plans().get(plan).ok_or_else(|| missing("plan"))?;
        Ok((plan, plan.jobs.get(job).ok_or_else(|| missing("job"))?))
    }
}

fn missing(what: &str) -> Error {
    Error::Plan { reason: format!("there is no such {what}") }
}

/// The output of one plan, on its way into a sink.
#[derive(Debug)]
pub struct Outputs<S> {
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

impl<S: Sink> Outputs<S> {
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
    pub fn write(&self, prepared: &Prepared, job: usize, start: usize, bytes: &[u8]) -> Result<()> {
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
        for Range { start: at, end } in pieces(start..end, BLOCK) {
            let place = at / BLOCK;
            if matches!(&*lock(&self.jobs[number]), Hashes::Blocks(all) if all[place].is_none()) {
                let bytes = &bytes[(at - start) * size..(end - start) * size];
                let hash = write_block(&self.sink, number, at, at * size, bytes)?;
                if let Hashes::Blocks(all) = &mut *lock(&self.jobs[number]) {
                    all[place] = Some(hash);
                }
            }
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
    outputs: &[Arc<Outputs<S>>],
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
