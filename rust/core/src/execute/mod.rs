//! Run a plan: open the inputs, check every job against their headers, then stream.

mod apply;
mod delta;
mod group;
mod job;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rayon::ThreadPoolBuilder;

use crate::checkpoint::Checkpoint;
use crate::error::{Error, Result};
use crate::parallel::Parallel;
use crate::plan::Plan;
use crate::segments::is_large;
use crate::sink::Sink;

use job::BoundJob;

/// How to run, none of which changes a byte of the output.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Worker threads, at least 1.
    pub threads: usize,
    /// Elements that a kernel works on at a time: a power of two from 16 to 65,536.
    pub chunk: usize,
}

/// Chunks of this many elements keep a kernel's buffers in the second-level cache.
pub const DEFAULT_CHUNK: usize = 4096;

impl Options {
    /// Check the values.
    ///
    /// # Errors
    /// [`Error::Plan`]
    pub fn new(threads: usize, chunk: usize) -> Result<Self> {
        if threads == 0
            || !chunk.is_power_of_two()
            || !(16..=crate::segments::BLOCK).contains(&chunk)
        {
            let reason = format!("no such way to run: {threads} threads, chunks of {chunk}");
            return Err(Error::Plan { reason });
        }
        Ok(Self { threads, chunk })
    }
}

/// What a run shares with those who watch it.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    done_bytes: AtomicU64,
}

impl Control {
    /// Ask the run to stop; it returns [`Error::Cancelled`] within a block's work.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Input bytes processed so far, of [`Prepared::work_bytes`].
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }

    fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    fn add(&self, bytes: usize) {
        self.done_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }
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

    /// Input bytes that a run goes over, each as often as it is read.
    ///
    /// # Errors
    /// None once [`Prepared::new`] has succeeded.
    pub fn work_bytes(&self) -> Result<u64> {
        Ok(self.bind()?.iter().map(BoundJob::work_bytes).sum())
    }

    /// Merge into `sink`. Returns the content hash of every output tensor, in the order of the jobs.
    ///
    /// # Errors
    /// [`Error::NonFinite`], [`Error::BufferDiffers`], [`Error::Io`], [`Error::Cancelled`].
    pub fn run(&self, sink: &dyn Sink, options: Options, control: &Control) -> Result<Vec<u64>> {
        let jobs = self.bind()?;
        let pool = ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .thread_name(|number| format!("mergeplan-{number}"))
            .build()
            .map_err(|error| Error::Plan { reason: error.to_string() })?;
        let pool = Parallel::Pool(&pool);
        let mut order: Vec<usize> = (0..jobs.len()).collect();
        order.sort_by_key(|&number| jobs[number].position());

        // Large tensors one by one, all workers inside each; those between them side by side.
        let mut hashes = vec![0; jobs.len()];
        for wave in order.chunk_by(|&a, &b| !is_large(jobs[a].len()) && !is_large(jobs[b].len())) {
            let one = |&number: &usize, inside: &Parallel| {
                Ok((number, jobs[number].run(number, sink, options.chunk, control, inside)?))
            };
            let done = match wave {
                [number] if is_large(jobs[*number].len()) => vec![one(number, &pool)?],
                _ => pool.map(wave.len(), |i| one(&wave[i], &Parallel::Here))?,
            };
            for (number, hash) in done {
                hashes[number] = hash;
            }
        }
        sink.finish()?;
        Ok(hashes)
    }

    fn bind(&self) -> Result<Vec<BoundJob<'_>>> {
        self.plan.jobs.iter().map(|job| BoundJob::new(job, &self.plan, &self.checkpoints)).collect()
    }
}
