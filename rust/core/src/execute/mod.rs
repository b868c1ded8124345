//! Run a plan: open the inputs, check every job against their headers, then stream.

mod apply;
mod control;
mod delta;
mod group;
mod job;
mod memory;
mod output;
mod read_ahead;

use crate::checkpoint::{Checkpoint, Identity, Reader};
use crate::error::{Error, Result};
use crate::parallel::{pool, Parallel};
use crate::plan::Plan;
use crate::segments::is_large;
use crate::sink::Sink;

use job::BoundJob;
use memory::Budget;
use read_ahead::ReadAhead;

pub use control::{Control, JobControl};
pub use memory::Forecast;

/// How to run, none of which changes a byte of the output.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Elements that a kernel works on at a time: a power of two from 64 to 65,536.
    pub chunk: usize,
    /// Bytes of anonymous memory that the run may use.
    pub memory_bytes: u64,
}

/// Chunks of this many elements keep a kernel's buffers in the second-level cache.
pub const DEFAULT_CHUNK: usize = 4096;

impl Options {
    /// Check the values.
    ///
    /// # Errors
    /// [`Error::Plan`]
    pub fn new(threads: usize, chunk: usize, memory_bytes: u64) -> Result<Self> {
        if threads == 0
            || !chunk.is_power_of_two()
            || !(crate::kernels::drop::LANES..=crate::segments::BLOCK).contains(&chunk)
        {
            let reason = format!("no such way to run: {threads} threads, chunks of {chunk}");
            return Err(Error::Plan { reason });
        }
        Ok(Self { threads, chunk, memory_bytes })
    }
}

/// What a job runs with.
#[derive(Clone, Copy)]
pub(crate) struct Resources<'a> {
    /// Elements of a chunk.
    pub chunk: usize,
    /// Bytes that may be held between passes.
    pub cache_bytes: usize,
    /// Where work is counted, and stopped.
    pub control: &'a JobControl<'a>,
    /// Where a large tensor's segments run.
    pub parallel: &'a Parallel<'a>,
}

/// A plan whose inputs are open and agree with it.
#[derive(Debug)]
pub struct Prepared {
    plan: Plan,
    checkpoints: Vec<Checkpoint>,
}

impl Prepared {
    /// Open all inputs and check every job against their headers.
    ///
    /// # Errors
    /// Whatever [`Checkpoint::open`] gives; missing tensors, other shapes, dtypes that cannot be
    /// merged.
    pub fn new(plan: Plan) -> Result<Self> {
        let checkpoints =
            plan.models.iter().map(|path| Checkpoint::open(path)).collect::<Result<Vec<_>>>()?;
        let prepared = Self { plan, checkpoints };
        prepared.bind()?;
        Ok(prepared)
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// For each model, what its files were when they were opened.
    pub fn identities(&self) -> Vec<Vec<&Identity>> {
        self.checkpoints
            .iter()
            .map(|model| model.shards().iter().map(Reader::identity).collect())
            .collect()
    }

    /// What a run reads and needs, from headers alone.
    ///
    /// # Errors
    /// None once [`Prepared::new`] has succeeded.
    pub fn forecast(&self, threads: usize) -> Result<Forecast> {
        Ok(Forecast::new(&self.bind()?, threads))
    }

    /// Merge into `sink`, which is left to be finished. Returns the content hash of every output
    /// tensor, in the order of the jobs.
    ///
    /// # Errors
    /// [`Error::NonFinite`], [`Error::BufferDiffers`], [`Error::Io`], [`Error::Memory`],
    /// [`Error::InputChanged`], [`Error::Cancelled`].
    pub fn run(&self, sink: &dyn Sink, options: Options, control: &Control) -> Result<Vec<u64>> {
        let jobs = self.bind()?;
        let budget = Budget::new(&jobs, options)?;
        let pool = pool(options.threads)?;
        let mut order: Vec<usize> = (0..jobs.len()).collect();
        order.sort_by_key(|&number| jobs[number].position());
        let ordered: Vec<&BoundJob> = order.iter().map(|&number| &jobs[number]).collect();
        let hashes = ReadAhead::beside(&ordered, control, options.memory_bytes, || {
            run_in_order(&jobs, &order, sink, &budget, control, &Parallel::Pool(&pool))
        })?;
        for reader in self.checkpoints.iter().flat_map(Checkpoint::shards) {
            reader.check_unchanged()?;
        }
        Ok(hashes)
    }

    fn bind(&self) -> Result<Vec<BoundJob<'_>>> {
        self.plan.jobs.iter().map(|job| BoundJob::new(job, &self.plan, &self.checkpoints)).collect()
    }
}

/// Large tensors one by one, all workers inside each; those between them side by side.
fn run_in_order(
    jobs: &[BoundJob],
    order: &[usize],
    sink: &dyn Sink,
    budget: &Budget,
    control: &Control,
    pool: &Parallel,
) -> Result<Vec<u64>> {
    let mut hashes = vec![0; jobs.len()];
    for wave in order.chunk_by(|&a, &b| !is_large(jobs[a].len()) && !is_large(jobs[b].len())) {
        let one = |&number: &usize, parallel: &Parallel, cache_bytes: usize| {
            let job = &jobs[number];
            let control = &JobControl::new(control, job.work_bytes(), job.input_bytes());
            let resources = Resources { chunk: budget.chunk, cache_bytes, control, parallel };
            let hash = job.run(number, sink, &resources)?;
            control.finish();
            Ok((number, hash))
        };
        let done = match wave {
            [number] if is_large(jobs[*number].len()) => {
                vec![one(number, pool, budget.cache_bytes)?]
            }
            _ => {
                let share = budget.cache_bytes / pool.threads();
                pool.map(wave.len(), |i| one(&wave[i], &Parallel::Here, share))?
            }
        };
        for (number, hash) in done {
            hashes[number] = hash;
        }
    }
    Ok(hashes)
}
