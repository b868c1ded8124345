//! Output into the caller's memory, such as the parameters of a model that is loaded already.

use std::sync::Mutex;

use safetensors::Dtype;

use crate::error::{Error, Result};
use crate::number::Float;
use crate::output::{Block, Sink};
use crate::plan::Job;

/// A tensor's elements in memory, in the order in which a file would hold them.
#[derive(Debug)]
pub struct Region<'a> {
    /// The memory.
    pub bytes: &'a mut [u8],
    /// What it holds.
    pub dtype: Dtype,
}

/// One region for each of some consecutive jobs.
#[derive(Debug)]
pub struct MemorySink<'a> {
    first: usize,
    places: Vec<Place<'a>>,
}

#[derive(Debug)]
struct Place<'a> {
    bytes: Mutex<&'a mut [u8]>,
    /// Dtypes of the merge's output and of the memory, where they differ.
    convert: Option<(Float, Float)>,
}

impl<'a> MemorySink<'a> {
    /// Regions for `jobs`, the first of which is job `first` of its plan. Output of another dtype
    /// than the region's is rounded to the output's dtype first, and then converted: memory then
    /// holds what loading the written file would give.
    ///
    /// # Errors
    /// [`Error::Plan`]: a region has another length than its tensor, or its dtype cannot hold it.
    pub fn new(first: usize, jobs: &[Job], regions: Vec<Region<'a>>) -> Result<Self> {
        let wrong = |reason: String| Error::Plan { reason };
        if regions.len() != jobs.len() {
            return Err(wrong(format!("{} regions for {} tensors", regions.len(), jobs.len())));
        }
        let mut places = Vec::with_capacity(jobs.len());
        for (job, Region { bytes, dtype }) in jobs.iter().zip(regions) {
            let convert = match (Float::of(job.out_dtype), Float::of(dtype)) {
                _ if job.out_dtype == dtype => None,
                (Some(from), Some(to)) => Some((from, to)),
                _ => {
                    let (name, from) = (&job.tensor, job.out_dtype);
                    return Err(wrong(format!("tensor `{name}`: {from} does not go into {dtype}")));
                }
            };
            let expected = job.len() * dtype.bitsize() / 8;
            if bytes.len() != expected {
                let (name, found) = (&job.tensor, bytes.len());
                let reason = format!("tensor `{name}`: expected {expected} bytes, found {found}");
                return Err(wrong(reason));
            }
            places.push(Place { bytes: Mutex::new(bytes), convert });
        }
        Ok(Self { first, places })
    }
}

impl Sink for MemorySink<'_> {
    fn write(&self, block: Block, bytes: &[u8], _hash: u64) -> Result<()> {
        let Place { bytes: memory, convert } = &self.places[block.job - self.first];
        let start = block.offset as usize;
        let Some((from, to)) = convert else {
            let mut memory = memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            memory[start..start + bytes.len()].copy_from_slice(bytes);
            return Ok(());
        };
        let mut values = vec![0.0; bytes.len() / from.size()];
        from.widen(bytes, &mut values);
        let start = start / from.size() * to.size();
        let mut memory = memory.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        to.narrow(&values, &mut memory[start..start + values.len() * to.size()]);
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}
