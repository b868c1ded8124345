//! How much anonymous memory a run takes, known before it begins.
//!
//! A worker holds one chunk of every input and one block of output. Statistics hold tables and
//! masks between passes; what they hold beyond the least is a matter of speed, and is cut to what
//! the limit leaves. Mapped input pages are not anonymous memory.

use crate::error::{Error, Result};
use crate::execute::bundle::Bundle;
use crate::execute::Options;
use crate::work::{is_large, memory_within};

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
    pub(crate) fn new(bundles: &[Bundle], threads: usize) -> Self {
        let needs = Needs { bundles, threads, kept: 0 };
        let chunk = crate::work::DEFAULT_CHUNK;
        let statistics = |bundle: &Bundle| bundle.statistics_bytes(needs.inside(bundle)).1;
        Self {
            work_bytes: bundles.iter().map(Bundle::work_bytes).sum(),
            input_bytes: bundles.iter().map(Bundle::input_bytes).sum(),
            least_memory_bytes: needs.least(LEAST_CHUNK, 1),
            most_memory_bytes: needs.workers(chunk, usize::MAX)
                + needs.largest_sum(statistics)
                + needs.bookkeeping(),
        }
    }
}

/// How the limit is shared out.
pub(crate) struct Budget {
    /// Elements of a chunk.
    pub chunk: usize,
    /// Merges of one tensor that are computed at a time.
    pub members: usize,
    /// Bytes for statistics, all workers together.
    pub cache_bytes: usize,
    /// Whether what is found out stays for later runs.
    pub keeps: bool,
    /// Bytes for masks that stay then: what statistics leave.
    pub masks_bytes: usize,
}

impl Budget {
    /// Where the system gives less than the limit, that is the limit. `kept` are bytes that would stay
    /// between runs: where the limit has no room for them, or the system, nothing stays.
    ///
    /// # Errors
    /// [`Error::Memory`] where the limit is below the least; [`Error::NoMemory`] where the system
    /// does not give that.
    pub(super) fn new(bundles: &[Bundle], options: Options, kept: u64) -> Result<Self> {
        let Options { threads, mut chunk, memory_bytes, .. } = options;
        let mut needs = Needs { bundles, threads, kept };
        let least = needs.least(LEAST_CHUNK, 1);
        let fits = kept > 0 && least <= memory_bytes;
        let with_kept = fits.then(|| memory_within(memory_bytes, least, threads).ok()).flatten();
        let keeps = with_kept.is_some();
        let limit = match with_kept {
            Some(limit) => limit,
            None => {
                needs.kept = 0;
                memory_within(memory_bytes, needs.least(LEAST_CHUNK, 1), threads)?
            }
        };
        let mut members = bundles.iter().map(|b| b.members().len()).max().unwrap_or(1).max(1);
        // Another pass over inputs that are cached costs less than smaller chunks do.
        while members > 1 && needs.least(chunk, members) > limit {
            members = members.div_ceil(2);
        }
        while chunk > LEAST_CHUNK && needs.least(chunk, members) > limit {
            chunk /= 2;
        }
        let needed = needs.least(chunk, members);
        if needed > limit {
            return Err(Error::Memory { needed, limit });
        }
        let left = limit - needs.workers(chunk, members) - needs.bookkeeping();
        let statistics = |bundle: &Bundle| bundle.statistics_bytes(needs.inside(bundle)).1;
        let wanted = if keeps { needs.largest_sum(statistics) } else { left };
        let cache_bytes = usize::try_from(left.min(wanted)).unwrap_or(usize::MAX);
        let masks_bytes = usize::try_from(left).unwrap_or(usize::MAX) - cache_bytes;
        Ok(Self { chunk, members, cache_bytes, keeps, masks_bytes })
    }
}

/// What a run of some bundles takes.
struct Needs<'a> {
    bundles: &'a [Bundle<'a>],
    threads: usize,
    kept: u64,
}

impl Needs<'_> {
    fn least(&self, chunk: usize, members: usize) -> u64 {
        let least = |bundle: &Bundle| bundle.statistics_bytes(self.inside(bundle)).0;
        self.workers(chunk, members) + self.largest_sum(least) + self.bookkeeping()
    }

    /// Bytes of all workers' buffers.
    fn workers(&self, chunk: usize, members: usize) -> u64 {
        let worker = self.bundles.iter().map(|bundle| bundle.worker_bytes(chunk, members)).max();
        worker.unwrap_or(0) as u64 * self.threads as u64
    }

    /// A large tensor has the whole run to itself; of the others as many run side by side as there
    /// are threads.
    fn largest_sum(&self, bytes: impl Fn(&Bundle) -> usize) -> u64 {
        let most = |large: bool| {
            let some = self.bundles.iter().filter(|bundle| is_large(bundle.len()) == large);
            some.map(&bytes).max().unwrap_or(0) as u64
        };
        most(true).max(most(false) * self.threads as u64)
    }

    /// Threads that work inside a tensor.
    fn inside(&self, bundle: &Bundle) -> usize {
        if is_large(bundle.len()) {
            self.threads
        } else {
            1
        }
    }

    fn bookkeeping(&self) -> u64 {
        let each = |bundle: &Bundle| {
            let blocks = bundle.len().div_ceil(crate::work::BLOCK) as u64;
            bundle.members().len() as u64 * (TENSOR_BYTES + BLOCK_BYTES * blocks)
        };
        let tensors: u64 = self.bundles.iter().map(each).sum();
        THREAD_BYTES * (self.threads as u64 + 2) + tensors + self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_stay_is_dropped_where_the_limit_or_the_system_has_no_room() {
        let keeps = |kept, memory_bytes| {
            let options = Options::new(1, crate::work::DEFAULT_CHUNK, memory_bytes).unwrap();
            Budget::new(&[], options, kept).unwrap().keeps
        };
        assert!(keeps(1 << 20, 1 << 25));
        assert!(!keeps(1 << 26, 1 << 25));
        assert!(!keeps(0, 1 << 25));
        // More than a process can address, and less than the limit.
        assert!(!keeps(1 << 60, 1 << 62));
    }
}
