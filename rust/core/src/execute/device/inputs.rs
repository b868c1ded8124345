//! Input as bytes, for whoever computes elsewhere.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use rayon::ThreadPool;

use crate::error::Result;
use crate::execute::prepared::missing;
use crate::execute::Prepared;
use crate::number::philox::Stream;
use crate::number::Float;
use crate::plan::Merge;
use crate::source::{Source, Tensor};
use crate::work::{is_large, pool, Parallel, BLOCK};

/// Elements that one thread copies at a time: a worker's buffer holds some millions, and one thread
/// is an eighth of a bus.
const PIECE: usize = 1 << 18;

/// A floating-point input of a job.
#[derive(Debug)]
pub struct JobInput<'a> {
    tensor: Tensor<'a>,
    len: usize,
}

impl JobInput<'_> {
    /// What tells it from all other tensors that are open.
    pub fn identity(&self) -> (usize, u64) {
        self.tensor.identity()
    }

    /// Dtype of its elements.
    pub fn dtype(&self) -> Float {
        self.tensor.dtype()
    }

    /// Whether it has so many bytes of whole elements from element `start` on.
    pub fn has(&self, start: usize, n_bytes: usize) -> bool {
        let size = self.dtype().size();
        let end = (n_bytes / size).checked_add(start);
        n_bytes.is_multiple_of(size) && end.is_some_and(|end| end <= self.len)
    }

    /// It will not be read again: its pages need not stay resident.
    pub fn release(&self) {
        self.tensor.release(0..self.len);
    }
}

/// Reads the inputs of plans.
#[derive(Debug)]
pub struct DeviceInputs {
    pool: ThreadPool,
    read_bytes: AtomicU64,
}

impl DeviceInputs {
    /// Copy with so many threads.
    ///
    /// # Errors
    /// [`Error::Threads`](crate::Error::Threads)
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
    /// [`Error::Io`](crate::Error::Io); [`Error::NonFinite`](crate::Error::NonFinite) from a tensor
    /// that is computed.
    pub fn read(
        &self,
        prepared: &Prepared,
        input: &JobInput,
        start: usize,
        out: &mut [u8],
    ) -> Result<()> {
        let JobInput { tensor, len } = input;
        let size = tensor.dtype().size();
        let end = start + out.len() / size;
        tensor.will_need(end..(end + (end - start)).min(*len));
        let parts: Vec<_> = out.chunks_mut(PIECE * size).map(Mutex::new).collect();
        Parallel::Pool(&self.pool).map(parts.len(), |number| {
            let mut part = parts[number].lock().unwrap_or_else(PoisonError::into_inner);
            let (from, mut scratch) = (start + number * PIECE, Vec::new());
            tensor.read_bytes(from, &mut part, &mut scratch)?;
            // What is not whole blocks is hashed when the job is done.
            let to = from + part.len() / size;
            let to = if to == *len { to } else { to / BLOCK * BLOCK };
            let whole = from.next_multiple_of(BLOCK).min(to)..to;
            let hash = |block| tensor.hash(block, &mut scratch);
            prepared.hashes().note(tensor.identity(), *len, whole, hash)
        })?;
        if is_large(*len) {
            tensor.release(start..end);
        }
        self.read_bytes.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Prepared {
    /// The floating-point inputs of a job, the base first; a job that copies has none, nor has one in
    /// float64, which is the core's own.
    ///
    /// # Errors
    /// [`Error::Plan`](crate::Error::Plan) where there is no such job.
    pub fn inputs(&self, plan: usize, job: usize) -> Result<Vec<JobInput<'_>>> {
        let (plan, job) = self.job(plan, job)?;
        if matches!(job.merge, Merge::Copy { .. } | Merge::Wide { .. } | Merge::Given {}) {
            return Ok(vec![]);
        }
        let input = |(model, name)| {
            let tensor = self.models().tensor(model, name, &job.shape, plan.allow_nonfinite)?;
            Ok(JobInput { tensor, len: job.len() })
        };
        job.merge.tensors().map(input).collect()
    }

    /// The stream of an input's random mask.
    ///
    /// # Errors
    /// [`Error::Plan`](crate::Error::Plan) where there is no such input, and whatever reading gives.
    pub fn stream(&self, plan: usize, job: usize, input: usize) -> Result<Stream> {
        let inputs = self.inputs(plan, job)?;
        let input = inputs.get(input).ok_or_else(|| missing("input"))?;
        let (plan, job) = self.job(plan, job)?;
        Ok(Stream::new(plan.seed, &job.tensor, input.tensor.fingerprint(job.len())?))
    }
}
