//! Hashes of the inputs' blocks, taken when they are read, so that a run that goes on later can tell
//! whether a file that looks changed is.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Result;
use crate::execute::prepared::missing;
use crate::execute::Prepared;
use crate::plan::{Job, Merge, Plan};
use crate::source::AnyTensor;
use crate::statistics::content;
use crate::work::{over_runs, pieces, Control, BLOCK};

/// What tells a tensor from all others that are open, and the hashes of its blocks.
type ByTensor = HashMap<(usize, u64), Vec<Option<u64>>>;

/// The hash of each block of an input that was read, once for however many jobs read it.
#[derive(Debug, Default)]
pub(crate) struct InputHashes(Mutex<ByTensor>);

impl InputHashes {
    /// Some elements of a tensor of `len` were read, as whole blocks: hash those that were not.
    ///
    /// # Errors
    /// Whatever `hash` gives.
    pub(crate) fn note(
        &self,
        identity: (usize, u64),
        len: usize,
        elements: Range<usize>,
        mut hash: impl FnMut(Range<usize>) -> Result<u64>,
    ) -> Result<()> {
        for block in pieces(elements, BLOCK) {
            let number = block.start / BLOCK;
            if !block.is_empty() && of(&mut self.lock(), identity, len)[number].is_none() {
                let hash = hash(block)?;
                of(&mut self.lock(), identity, len)[number] = Some(hash);
            }
        }
        Ok(())
    }

    /// The hash of all of a tensor; what was not read yet is read now.
    fn whole(&self, tensor: &AnyTensor, len: usize) -> Result<u64> {
        let (identity, mut scratch) = (tensor.identity(), Vec::new());
        self.note(identity, len, 0..len, |block| tensor.hash(block, &mut scratch))?;
        let count = len.div_ceil(BLOCK);
        let all = &mut self.lock();
        let blocks: Vec<u64> =
            of(all, identity, len).iter().take(count).copied().flatten().collect();
        Ok(content::combine(&blocks))
    }

    fn lock(&self) -> MutexGuard<'_, ByTensor> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tensor without elements shares its place with the next one, and has no blocks.
fn of(all: &mut ByTensor, identity: (usize, u64), len: usize) -> &mut Vec<Option<u64>> {
    let blocks = all.entry(identity).or_default();
    blocks.resize(blocks.len().max(len.div_ceil(BLOCK)), None);
    blocks
}

impl Prepared {
    /// One hash over all tensors that a job reads, in the order of its plan.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub(crate) fn input_hash(&self, plan: usize, job: usize) -> Result<u64> {
        let (plan, job) = self.job(plan, job)?;
        let inputs = self.read_by(plan, job)?;
        let hashes = inputs.iter().map(|tensor| self.hashes().whole(tensor, job.len()));
        Ok(content::combine(&hashes.collect::<Result<Vec<_>>>()?))
    }

    /// The same of several jobs of a plan.
    ///
    /// # Errors
    /// [`crate::Error::Plan`] where there is no such job; [`crate::Error::Cancelled`]; whatever reading
    /// gives.
    pub fn input_hashes(
        &self,
        plan: usize,
        jobs: &[usize],
        threads: usize,
        control: &Control,
    ) -> Result<Vec<u64>> {
        let all = self.plans().get(plan).ok_or_else(|| missing("plan"))?;
        let found = |&job: &usize| {
            let job = all.jobs.get(job).ok_or_else(|| missing("job"))?;
            Ok((job, self.read_by(all, job)?))
        };
        let read = jobs.iter().map(found).collect::<Result<Vec<_>>>()?;
        let lengths: Vec<usize> = read.iter().map(|(job, _)| job.len()).collect();
        over_runs(&lengths, threads, |number, elements| {
            let ((job, tensors), mut scratch) = (&read[number], Vec::new());
            control.check()?;
            tensors.iter().try_for_each(|tensor| {
                let hash = |block| tensor.hash(block, &mut scratch);
                self.hashes().note(tensor.identity(), job.len(), elements.clone(), hash)
            })
        })?;
        jobs.iter().map(|&job| self.input_hash(plan, job)).collect()
    }

    /// The tensors that a job reads: none of weight zero.
    fn read_by<'a>(&'a self, plan: &Plan, job: &'a Job) -> Result<Vec<AnyTensor<'a>>> {
        let (models, nonfinite) = (self.models(), plan.allow_nonfinite);
        let find = |(model, name): (usize, &'a str)| match &job.merge {
            Merge::Copy { .. } if models.is_stored(model, name) => models
                .raw_of(model, name, job)
                .map(|raw| AnyTensor::Raw(raw, job.out_dtype.bitsize())),
            Merge::Wide { .. } => Ok(models.wide(model, name, &job.shape, nonfinite)?.into()),
            _ => Ok(AnyTensor::Narrow(models.tensor(model, name, &job.shape, nonfinite)?)),
        };
        job.merge.read().map(find).collect()
    }
}
