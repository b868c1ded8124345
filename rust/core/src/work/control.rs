//! What a run shares with those who watch it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::error::{Error, Result};

/// Progress of a run, and the wish to stop it.
#[derive(Debug, Default)]
pub struct Control {
    cancelled: AtomicBool,
    done_bytes: AtomicU64,
    read_bytes: AtomicU64,
    touched_bytes: AtomicU64,
}

impl Control {
    /// Ask the run to stop; it returns [`Error::Cancelled`] within a block's work.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Bytes of work done so far, of those that the forecast plans.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }

    /// Input bytes gone over so far, each as often as it was.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
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
        if self.cancelled.load(Ordering::Relaxed) {
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
}

impl<'a> JobControl<'a> {
    /// A job that is expected to go over `planned` bytes, `inputs` of them for the first time.
    pub(crate) fn new(control: &'a Control, planned: u64, inputs: u64) -> Self {
        Self { control, planned: planned.into(), untouched: inputs.into() }
    }

    /// # Errors
    /// [`Error::Cancelled`] once that is wished.
    pub(crate) fn check(&self) -> Result<()> {
        self.control.check()
    }

    /// Some input bytes were gone over.
    pub(crate) fn add(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.control.read_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.control.done_bytes.fetch_add(take(&self.planned, bytes), Ordering::Relaxed);
        self.control.touched_bytes.fetch_add(take(&self.untouched, bytes), Ordering::Relaxed);
    }

    /// The job is done.
    pub(crate) fn finish(&self) {
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
