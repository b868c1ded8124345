//! What a run shares with those who watch it.
//!
//! Workers count what they have read after every chunk, some microseconds of work. A counter that all
//! of them add to would go from core to core each time, some 50 ns: from 16 cores on there is no more
//! to be had. So each adds to one of its own, and to the shared one now and then.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Bytes that a worker counts by itself before all are told.
const OFTEN: u64 = 1 << 20;
/// Own counters of a job. Workers beyond that share them.
const STRIPES: usize = 64;

/// What no other value shares a cache line with, nor the line that is fetched with it.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Apart<T>(T);

/// Progress of a run, and the wish to stop it.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: Apart<AtomicBool>,
    done_bytes: AtomicU64,
    read_bytes: AtomicU64,
    touched_bytes: AtomicU64,
    tables: AtomicU64,
    table_elements: AtomicU64,
}

impl Control {
    /// Ask the run to stop; it returns [`Error::Cancelled`] within a block's work.
    pub fn cancel(&self) {
        self.cancelled.0.store(true, Ordering::Relaxed);
    }

    /// Bytes of work done so far, of those that the forecast plans.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }

    /// Input bytes gone over so far, each as often as it was.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Experts' tensors whose magnitudes were counted in tables, since no sample told where their
    /// threshold lies; and the elements of all of them.
    pub fn tables(&self) -> (u64, u64) {
        (self.tables.load(Ordering::Relaxed), self.table_elements.load(Ordering::Relaxed))
    }

    /// Input bytes that have been read for the first time.
    pub(crate) fn touched_bytes(&self) -> u64 {
        self.touched_bytes.load(Ordering::Relaxed)
    }

    /// Some input bytes were gone over, outside any job.
    pub(crate) fn add(&self, bytes: usize) {
        self.read_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.done_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.cancelled.0.load(Ordering::Relaxed) {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }
}

/// One job's share of a [`Control`]. A pass that could not be foreseen adds no progress, and a job
/// that is done counts as planned: so progress ends at what was forecast.
#[derive(Debug)]
pub(crate) struct JobControl<'a> {
    control: &'a Control,
    planned: AtomicU64,
    untouched: AtomicU64,
    /// By worker, what it has not told yet.
    stripes: Vec<Apart<AtomicU64>>,
}

impl<'a> JobControl<'a> {
    /// A job that is expected to go over `planned` bytes, `inputs` of them for the first time.
    pub(crate) fn new(control: &'a Control, planned: u64, inputs: u64) -> Self {
        // One suffices to whoever works alone.
        let stripes = if rayon::current_thread_index().is_some() { 1 } else { STRIPES };
        let stripes = (0..stripes).map(|_| Apart::default()).collect();
        Self { control, planned: planned.into(), untouched: inputs.into(), stripes }
    }

    /// # Errors
    /// [`Error::Cancelled`] once that is wished.
    pub(crate) fn check(&self) -> Result<()> {
        self.control.check()
    }

    /// Some input bytes were gone over.
    pub(crate) fn add(&self, bytes: usize) {
        let worker = rayon::current_thread_index().unwrap_or(0);
        let own = &self.stripes[worker % self.stripes.len()].0;
        if own.fetch_add(bytes as u64, Ordering::Relaxed) + bytes as u64 >= OFTEN {
            self.tell(own.swap(0, Ordering::Relaxed));
        }
    }

    /// Magnitudes of some experts' tensors, of `len` elements each, are counted in tables.
    pub(crate) fn add_tables(&self, tensors: usize, len: usize) {
        let elements = (tensors * len) as u64;
        self.control.tables.fetch_add(tensors as u64, Ordering::Relaxed);
        self.control.table_elements.fetch_add(elements, Ordering::Relaxed);
    }

    fn tell(&self, bytes: u64) {
        self.control.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.control.done_bytes.fetch_add(take(&self.planned, bytes), Ordering::Relaxed);
        self.control.touched_bytes.fetch_add(take(&self.untouched, bytes), Ordering::Relaxed);
    }

    /// The job is done.
    pub(crate) fn finish(&self) {
        let left = self.stripes.iter().map(|own| own.0.swap(0, Ordering::Relaxed)).sum();
        self.tell(left);
        self.control.done_bytes.fetch_add(take(&self.planned, u64::MAX), Ordering::Relaxed);
        self.control.touched_bytes.fetch_add(take(&self.untouched, u64::MAX), Ordering::Relaxed);
    }
}

/// Take up to `wanted` off a counter.
fn take(counter: &AtomicU64, wanted: u64) -> u64 {
    let before = counter
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            Some(left.saturating_sub(wanted))
        })
        .unwrap_or_default();
    before.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_workers_count_by_themselves_is_told_in_full() {
        let control = Control::default();
        let job = JobControl::new(&control, 150 << 20, 100 << 20);
        for _ in 0..161 {
            job.add((1 << 20) - 1);
        }
        // Two at a time.
        assert_eq!(control.read_bytes(), 160 * ((1 << 20) - 1));
        job.finish();
        assert_eq!(control.read_bytes(), 161 * ((1 << 20) - 1));
        assert_eq!((control.done_bytes(), control.touched_bytes()), (150 << 20, 100 << 20));
    }
}
