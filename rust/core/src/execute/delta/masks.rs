//! Random masks of one segment, with the L1 norms before and after where they are wanted.

use std::ops::Range;

use crate::error::Result;
use crate::execute::delta::job::DeltaJob;
use crate::kernels::drop::Mask;
use crate::number::philox::{Stream, GROUP};
use crate::source::{Behind, DeltaRun, Source};
use crate::statistics::norm::Leaves;
use crate::statistics::ranks::{RankLimits, RowSorter};
use crate::statistics::selection::{Chance, Selection};
use crate::work::{pieces, segments, JobControl, Segment, BLOCK};

/// Rows at either end of a run are ranked twice; a run this many rows long makes that cheap.
const ROWS_PER_RUN: usize = 16;

/// Makes the masks of a job's experts, with its buffers.
pub(super) struct MaskMaker<'a> {
    job: &'a DeltaJob<'a>,
    chunk: usize,
    control: &'a JobControl<'a>,
    scratch: Vec<u8>,
    base: Vec<f32>,
    delta: Vec<f32>,
    halves: Vec<u16>,
    limits: Vec<u32>,
    sorter: RowSorter,
}

impl<'a> MaskMaker<'a> {
    pub(super) fn new(job: &'a DeltaJob<'a>, chunk: usize, control: &'a JobControl<'a>) -> Self {
        Self {
            job,
            chunk,
            control,
            scratch: vec![],
            base: vec![],
            delta: vec![],
            halves: vec![],
            limits: vec![],
            sorter: RowSorter::default(),
        }
    }

    /// Bytes of the buffers at their largest.
    pub(super) fn bytes(job: &DeltaJob, chunk: usize) -> usize {
        match job.sparsify {
            crate::plan::Sparsify::Ranks => {
                let slab = job.rows.slab().min(job.len);
                let widest = (run_elements(slab) + 2 * slab).min(job.len + slab);
                3 * 4 * widest + 16 * job.rows.columns.min(job.len) + 2 * chunk.max(GROUP)
            }
            _ => 0,
        }
    }

    /// The mask of one expert over `segment`, or none where its selection is not random. Where ranks
    /// are taken, the delta has to be read: then its norms are added to `leaves`.
    pub(super) fn mask(
        &mut self,
        expert: usize,
        selection: &Selection,
        segment: &Segment,
        leaves: Option<&mut Leaves>,
    ) -> Result<Option<Mask>> {
        let Selection::Random { stream, chance } = selection else { return Ok(None) };
        let (start, length) = (segment.range.start, segment.range.len());
        Ok(Some(match chance {
            Chance::Same(limit) => Mask::drawn(length, *stream, start, *limit),
            Chance::Ranked(table) => {
                let mut mask = Mask::new(length);
                self.ranked(expert, *stream, table, segment, &mut mask, leaves)?;
                mask
            }
        }))
    }

    fn ranked(
        &mut self,
        expert: usize,
        stream: Stream,
        table: &RankLimits,
        segment: &Segment,
        mask: &mut Mask,
        mut leaves: Option<&mut Leaves>,
    ) -> Result<()> {
        let (rows, job) = (self.job.rows, self.job);
        let slab = rows.slab();
        let inputs = [&job.base, &job.experts[expert].tensor];
        let mut behind = Behind::early(&inputs, segment, job.len);
        for run in pieces(segment.range.clone(), run_elements(slab)) {
            self.control.check()?;
            behind.passed(run.start);
            let whole = run.start / slab * slab..run.end.next_multiple_of(slab);
            self.read(expert, whole.clone())?;
            self.limits.resize(whole.len(), 0);
            for first in (0..whole.len()).step_by(slab) {
                let (delta, limits) =
                    (&self.delta[first..first + slab], &mut self.limits[first..first + slab]);
                for place in (0..rows.stride).map(|lane| (lane, rows.stride)) {
                    self.sorter.limits(table, delta, place, job.has_low_bits(), limits);
                }
            }
            for range in pieces(run.clone(), self.chunk.max(GROUP)) {
                self.halves.resize(range.len(), 0);
                stream.upper(range.start as u64, &mut self.halves);
                let inside = range.start - whole.start..range.end - whole.start;
                let offset = range.start - segment.range.start;
                let lower = |element| stream.lower((segment.range.start + element) as u64);
                mask.keep_below_each(offset, &self.halves, &self.limits[inside.clone()], lower);
                if let Some(leaves) = leaves.as_deref_mut() {
                    let delta = &mut self.delta[inside];
                    leaves.before(range.start, delta);
                    mask.apply(offset, delta);
                    leaves.after(range.start, delta);
                }
            }
        }
        behind.finish();
        Ok(())
    }

    /// Fill `self.delta` with one expert's delta.
    fn read(&mut self, expert: usize, range: Range<usize>) -> Result<()> {
        let (job, expert) = (self.job, &self.job.experts[expert].tensor);
        self.base.resize(range.len(), 0.0);
        self.delta.resize(range.len(), 0.0);
        for part in pieces(0..range.len(), self.chunk) {
            let start = range.start + part.start;
            let (base, delta) = (&mut self.base[part.clone()], &mut self.delta[part]);
            job.base.read(job.dtype, start, base, &mut self.scratch)?;
            let run = DeltaRun { working: job.dtype, start, base };
            expert.read_delta(run, delta, &mut self.scratch)?;
        }
        Ok(())
    }
}

impl DeltaJob<'_> {
    /// Bytes that a worker's masks take: those of one segment, and the buffers they are made with.
    pub(crate) fn mask_bytes(&self, chunk: usize) -> usize {
        if !self.is_random() {
            return 0;
        }
        let longest = segments(self.len).first().map_or(0, |segment| segment.range.len());
        self.thinned().len() * Mask::bytes(longest) + MaskMaker::bytes(self, chunk)
    }
}

/// Elements that are ranked at a time, whole blocks.
fn run_elements(slab: usize) -> usize {
    let rows = if slab <= BLOCK { ROWS_PER_RUN } else { 1 };
    (rows * slab).next_multiple_of(BLOCK)
}
