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
use crate::statistics::ranks::{RankLimits, RowRanks};
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
}

/// Buffers for the rows of whole slabs.
#[derive(Default)]
struct Slabs<M> {
    magnitudes: Vec<M>,
    /// Of their limits.
    bounds: Vec<u32>,
    row: Vec<M>,
    row_bounds: Vec<u32>,
    ranks: RowRanks,
}

impl<'a> MaskMaker<'a> {
    pub(super) fn new(job: &'a DeltaJob<'a>, chunk: usize, control: &'a JobControl<'a>) -> Self {
        Self { job, chunk, control, scratch: vec![], base: vec![], delta: vec![] }
    }

    /// Bytes of the buffers at their largest.
    pub(super) fn bytes(job: &DeltaJob, chunk: usize) -> usize {
        match job.sparsify {
            crate::plan::Sparsify::Ranks => {
                let (slab, columns) = (job.rows.slab().min(job.len), job.rows.columns.min(job.len));
                let widest = (run_elements(slab) + 2 * slab).min(job.len + slab);
                let magnitude = if job.has_low_bits() { 4 } else { 2 };
                let strided = if job.rows.stride > 1 { (magnitude + 4) * columns } else { 0 };
                (magnitude + 4) * widest + strided + RowRanks::bytes(columns) + 2 * 4 * chunk
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
        if !ranked.is_empty() && self.job.has_low_bits() {
            self.ranked::<u32>(&ranked, segment, &mut masks, leaves)?;
        } else if !ranked.is_empty() {
            self.ranked::<u16>(&ranked, segment, &mut masks, leaves)?;
        }
        Ok(masks)
    }

    fn ranked<M: Magnitude>(
        &mut self,
        experts: &[(usize, usize, Stream, &RankLimits)],
        segment: &Segment,
        masks: &mut [Option<Mask>],
        leaves: &mut [Leaves],
    ) -> Result<()> {
        let (job, slab, stride) = (self.job, self.job.rows.slab(), self.job.rows.stride);
        let tensors = experts.iter().map(|(_, expert, ..)| &job.experts[*expert].tensor);
        let inputs: Vec<&Tensor> = std::iter::once(&job.base).chain(tensors).collect();
        let mut behind = Behind::early(&inputs, segment, job.len);
        let mut slabs = Slabs::<M>::default();
        for run in pieces(segment.range.clone(), run_elements(slab)) {
            self.control.check()?;
            behind.passed(run.start);
            let whole = run.start / slab * slab..run.end.next_multiple_of(slab);
            for (place, expert, stream, table) in experts {
                let Some(mask) = &mut masks[*place] else { continue };
                self.read(*expert, whole.clone(), &mut slabs.magnitudes)?;
                slabs.rank(table, slab, stride);
                for block in pieces(run.clone(), BLOCK) {
                    let inside = block.start - whole.start..block.end - whole.start;
                    let offset = block.start - segment.range.start;
                    let exact = |place| slabs.limit(table, slab, stride, inside.start + place);
                    let bounds = &slabs.bounds[inside.clone()];
                    mask.draw_each(offset, *stream, segment.range.start, bounds, exact);
                    if let Some(leaves) = leaves.get_mut(*place) {
                        let sums = leaves.sums(block.start);
                        add_kept(&slabs.magnitudes[inside], mask.rows(offset), sums);
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

impl<M: Magnitude> Slabs<M> {
    /// Bounds for whole slabs, by the rows' ranks.
    fn rank(&mut self, table: &RankLimits, slab: usize, stride: usize) {
        self.bounds.resize(self.magnitudes.len(), 0);
        for (magnitudes, bounds) in
            self.magnitudes.chunks_exact(slab).zip(self.bounds.chunks_exact_mut(slab))
        {
            if stride == 1 {
                self.ranks.bounds(table, magnitudes, bounds);
                continue;
            }
            self.row_bounds.resize(slab / stride, 0);
            for lane in 0..stride {
                self.row.clear();
                self.row.extend(magnitudes.iter().skip(lane).step_by(stride));
                self.ranks.bounds(table, &self.row, &mut self.row_bounds);
                let places = bounds.iter_mut().skip(lane).step_by(stride);
                places.zip(&self.row_bounds).for_each(|(bounds, found)| *bounds = *found);
            }
        }
    }

    /// The limit of one element.
    fn limit(&self, table: &RankLimits, slab: usize, stride: usize, place: usize) -> u32 {
        let row = &self.magnitudes[place / slab * slab..][..slab][place % stride..];
        table.limit(row, stride, self.magnitudes[place])
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
