//! Where a run's tensors go.

use std::ops::Range;

use crate::output::Sink;
use crate::plan::Job;

/// Some of a plan's jobs, and where their tensors go.
#[derive(Clone)]
pub struct Target<'a> {
    /// Number of the plan.
    pub plan: usize,
    /// The jobs.
    pub jobs: Range<usize>,
    /// Takes the blocks.
    pub sink: &'a dyn Sink,
}

/// One output of a bundle.
#[derive(Clone, Copy)]
pub(crate) struct Member<'a> {
    /// Position of its target in the run.
    pub target: usize,
    /// Number of the job in its plan.
    pub number: usize,
    pub job: &'a Job,
    pub seed: u64,
}
