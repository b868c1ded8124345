//! Random masks of one segment, with the L1 norms before and after where they are wanted.

use std::ops::Range;

use crate::error::Result;
use crate::execute::delta::job::DeltaJob;
use crate::kernels::drop::Mask;
use crate::kernels::masked::add_kept;
use crate::number::philox::Stream;
use crate::number::Magnitude;
use crate::source::{Behind, DeltaRun, Source, Tensor};
use crate::statistics::norm::Leaves;
use crate::statistics::ranks::{RankLimits, RankRow, RowSorter};
use crate::statistics::row_counts::{RowCounter, LONGEST};
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
    limits: Vec<u32>,
}

/// Buffers for the rows of a run.
#[derive(Default)]
struct Rows<M, R> {
    magnitudes: Vec<M>,
    row: Vec<M>,
    limits: Vec<u32>,
    ranks: R,
}

impl<'a> MaskMaker<'a> {
    pub(super) fn new(job: &'a DeltaJob<'a>, chunk: usize, control: &'a JobControl<'a>) -> Self {
        let (scratch, base, delta, limits) = (vec![], vec![], vec![], vec![]);
        Self { job, chunk, control, scratch, base, delta, limits }
    }

    /// Bytes of the buffers at their largest.
    pub(super) fn bytes(job: &DeltaJob, chunk: usize) -> usize {
        match job.sparsify {
            crate::plan::Sparsify::Ranks => {
                let (slab, columns) = (job.rows.slab().min(job.len), job.rows.columns.min(job.len));
                let widest = (run_elements(slab) + 2 * slab).min(job.len + slab);
                let (magnitude, ranks) = if counts(job) {
                    (2, RowCounter::bytes(columns))
                } else {
                    (4, RowSorter::bytes(columns))
                };
                let strided = if job.rows.stride > 1 { (magnitude + 4) * columns } else { 0 };
                (magnitude + 4) * widest + strided + ranks + 2 * 4 * chunk
            }
            _ => 0,
        }
    }

    /// The masks of some experts over `segment`; none where a selection is not random. Where ranks are
    /// taken, the deltas have to be read: then their norms are added to `leaves`, if there are any.
    pub(super) fn masks(
        &mut self,
        experts: &[(usize, &Selection)],
        segment: &Segment,
        leaves: &mut [Leaves],
    ) -> Result<Vec<Option<Mask>>> {
        let (start, length) = (segment.range.start, segment.range.len());
        let mut masks = Vec::with_capacity(experts.len());
        let mut ranked = Vec::new();
        for (place, (expert, selection)) in experts.iter().enumerate() {
            let Selection::Random { stream, chance } = selection else {
                masks.push(None);
                continue;
            };
            masks.push(Some(match chance {
                Chance::Same(limit) => Mask::drawn(length, *stream, start, *limit),
                Chance::Ranked(table) => {
                    ranked.push((place, *expert, *stream, table));
                    Mask::new(length)
                }
            }));
        }
        if !ranked.is_empty() && counts(self.job) {
            self.ranked::<u16, RowCounter>(&ranked, segment, &mut masks, leaves)?;
        } else if !ranked.is_empty() {
            self.ranked::<u32, RowSorter>(&ranked, segment, &mut masks, leaves)?;
        }
        Ok(masks)
    }

    fn ranked<M: Magnitude, R: RankRow<M>>(
        &mut self,
        experts: &[(usize, usize, Stream, &RankLimits)],
        segment: &Segment,
        masks: &mut [Option<Mask>],
        leaves: &mut [Leaves],
    ) -> Result<()> {
        let (slab, job) = (self.job.rows.slab(), self.job);
        let tensors = experts.iter().map(|(_, expert, ..)| &job.experts[*expert].tensor);
        let inputs: Vec<&Tensor> = std::iter::once(&job.base).chain(tensors).collect();
        let mut behind = Behind::early(&inputs, segment, job.len);
        let mut rows = Rows::<M, R>::default();
        for run in pieces(segment.range.clone(), run_elements(slab)) {
            self.control.check()?;
            behind.passed(run.start);
            let whole = run.start / slab * slab..run.end.next_multiple_of(slab);
            for (place, expert, stream, table) in experts {
                let Some(mask) = &mut masks[*place] else { continue };
                self.read(*expert, whole.clone(), &mut rows.magnitudes)?;
                self.limits.resize(whole.len(), 0);
                rows.rank(table, slab, job.rows.stride, &mut self.limits);
                for block in pieces(run.clone(), BLOCK) {
                    let inside = block.start - whole.start..block.end - whole.start;
                    let offset = block.start - segment.range.start;
                    mask.draw_each(
                        offset,
                        *stream,
                        segment.range.start,
                        &self.limits[inside.clone()],
                    );
                    if let Some(leaves) = leaves.get_mut(*place) {
                        let sums = leaves.sums(block.start);
                        add_kept(&rows.magnitudes[inside], mask.rows(offset), sums);
                    }
                }
            }
        }
        behind.finish();
        Ok(())
    }

    /// Fill `magnitudes` with those of one expert's delta.
    fn read<M: Magnitude>(
        &mut self,
        expert: usize,
        range: Range<usize>,
        magnitudes: &mut Vec<M>,
    ) -> Result<()> {
        let (job, expert) = (self.job, &self.job.experts[expert].tensor);
        magnitudes.resize(range.len(), M::default());
        for (part, out) in pieces(range, self.chunk).zip(magnitudes.chunks_mut(self.chunk)) {
            self.base.resize(part.len(), 0.0);
            self.delta.resize(part.len(), 0.0);
            job.base.read(job.dtype, part.start, &mut self.base, &mut self.scratch)?;
            let run = DeltaRun { working: job.dtype, start: part.start, base: &self.base };
            expert.read_delta(run, &mut self.delta, &mut self.scratch)?;
            M::all_of(&self.delta, out);
        }
        Ok(())
    }
}

impl<M: Magnitude, R: RankRow<M>> Rows<M, R> {
    /// The limits of whole slabs, by the rows' ranks.
    fn rank(&mut self, table: &RankLimits, slab: usize, stride: usize, limits: &mut [u32]) {
        for (magnitudes, limits) in
            self.magnitudes.chunks_exact(slab).zip(limits.chunks_exact_mut(slab))
        {
            if stride == 1 {
                self.ranks.limits(table, magnitudes, limits);
                continue;
            }
            self.limits.resize(slab / stride, 0);
            for lane in 0..stride {
                self.row.clear();
                self.row.extend(magnitudes.iter().skip(lane).step_by(stride));
                self.ranks.limits(table, &self.row, &mut self.limits);
                let places = limits.iter_mut().skip(lane).step_by(stride);
                places.zip(&self.limits).for_each(|(limit, found)| *limit = *found);
            }
        }
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

/// Whether ranks are counted, not sorted for.
fn counts(job: &DeltaJob) -> bool {
    !job.has_low_bits() && job.rows.columns <= LONGEST
}

/// Elements that are ranked at a time, whole blocks.
fn run_elements(slab: usize) -> usize {
    let rows = if slab <= BLOCK { ROWS_PER_RUN } else { 1 };
    (rows * slab).next_multiple_of(BLOCK)
}
