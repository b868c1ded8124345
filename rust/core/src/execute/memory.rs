//! How much anonymous memory a run takes, known before it begins.
//!
//! A worker holds one chunk of every input and one block of output. Statistics hold tables and
//! masks between passes; what they hold beyond the least is a matter of speed, and is cut to what
//! the limit leaves. Mapped input pages are not anonymous memory.

use crate::error::{Error, Result};
use crate::execute::job::BoundJob;
use crate::execute::Options;
use crate::segments::is_large;

/// Stacks and allocator of the process's threads, and of the pool itself.
const THREAD_BYTES: u64 = 1 << 20;
/// Smallest chunk that a tight limit leads to.
const LEAST_CHUNK: usize = 256;
/// Bytes for each tensor and each block of output: jobs, hashes, the journal of a resumed run.
const TENSOR_BYTES: u64 = 1024;
const BLOCK_BYTES: u64 = 24;

/// What a run takes and does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Forecast {
    /// Input bytes that the passes go over, each as often as it is read.
    pub work_bytes: u64,
    /// Input bytes, each once.
    pub input_bytes: u64,
    /// The least anonymous memory that the run can do with.
    pub least_memory_bytes: u64,
    /// Anonymous memory beyond which it gets no faster.
    pub most_memory_bytes: u64,
}

impl Forecast {
    pub(crate) fn new(jobs: &[BoundJob], threads: usize) -> Self {
        let statistics = |job: &BoundJob| job.statistics_bytes(job_threads(job, threads)).1;
        let (workers, _) = worker_and_statistics(jobs, threads, crate::execute::DEFAULT_CHUNK);
        let most = largest_sum(jobs, threads, statistics);
        Self {
            work_bytes: jobs.iter().map(BoundJob::work_bytes).sum(),
            input_bytes: jobs.iter().map(BoundJob::input_bytes).sum(),
            least_memory_bytes: least(jobs, threads, LEAST_CHUNK),
            most_memory_bytes: workers + most + bookkeeping(jobs, threads),
        }
    }
}

/// How the limit is shared out.
pub(crate) struct Budget {
    /// Elements of a chunk.
    pub chunk: usize,
    /// Bytes for statistics, all workers together.
    pub cache_bytes: usize,
}

impl Budget {
    /// # Errors
    /// [`Error::Memory`] where the limit is below the least.
    pub fn new(jobs: &[BoundJob], options: Options) -> Result<Self> {
        let Options { threads, memory_bytes: limit, .. } = options;
        let mut chunk = options.chunk;
        while chunk > LEAST_CHUNK && least(jobs, threads, chunk) > limit {
            chunk /= 2;
        }
        let needed = least(jobs, threads, chunk);
        if needed > limit {
            return Err(Error::Memory { needed, limit });
        }
        let (workers, _) = worker_and_statistics(jobs, threads, chunk);
        let left = limit - workers - bookkeeping(jobs, threads);
        Ok(Self { chunk, cache_bytes: usize::try_from(left).unwrap_or(usize::MAX) })
    }
}

fn least(jobs: &[BoundJob], threads: usize, chunk: usize) -> u64 {
    let (workers, statistics) = worker_and_statistics(jobs, threads, chunk);
    workers + statistics + bookkeeping(jobs, threads)
}

/// Bytes of all workers' buffers, and the least that statistics take.
fn worker_and_statistics(jobs: &[BoundJob], threads: usize, chunk: usize) -> (u64, u64) {
    let worker = jobs.iter().map(|job| job.worker_bytes(chunk)).max().unwrap_or(0);
    let least = |job: &BoundJob| job.statistics_bytes(job_threads(job, threads)).0;
    (worker as u64 * threads as u64, largest_sum(jobs, threads, least))
}

/// A large tensor has the whole run to itself; of the others as many run side by side as there are
/// threads.
fn largest_sum(jobs: &[BoundJob], threads: usize, bytes: impl Fn(&BoundJob) -> usize) -> u64 {
    let most = |large: bool| {
        let some = jobs.iter().filter(|job| is_large(job.len()) == large);
        some.map(&bytes).max().unwrap_or(0) as u64
    };
    most(true).max(most(false) * threads as u64)
}

fn job_threads(job: &BoundJob, threads: usize) -> usize {
    if is_large(job.len()) {
        threads
    } else {
        1
    }
}

fn bookkeeping(jobs: &[BoundJob], threads: usize) -> u64 {
    let blocks: u64 =
        jobs.iter().map(|job| job.len().div_ceil(crate::segments::BLOCK) as u64).sum();
    THREAD_BYTES * (threads as u64 + 2) + TENSOR_BYTES * jobs.len() as u64 + BLOCK_BYTES * blocks
}
