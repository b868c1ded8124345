//! The passes that come before: thresholds, content hashes, norms.

use crate::dtype::Float;
use crate::error::Result;
use crate::execute::delta::masks::MaskMaker;
use crate::execute::delta::{DeltaJob, Expert};
use crate::execute::output::Behind;
use crate::execute::Resources;
use crate::kernels::drop::{limit, Mask};
use crate::kernels::elementwise::{round_all, with_precision};
use crate::philox::Stream;
use crate::plan::Sparsify;
use crate::precision::{Bf16, F16, F32};
use crate::segments::{pieces, segments, Segment};
use crate::source::Source;
use crate::statistics::magnitude::{self, thresholds, Threshold, Wanted};
use crate::statistics::norm::{l1_scales, scale_of, Leaves};
use crate::statistics::ranks::RankLimits;
use crate::statistics::selection::{Chance, Selection};
use crate::statistics::{content, DeltaWalk, Visit};

/// What applying every expert needs to know of its whole tensor.
pub struct States {
    /// Which elements of each expert are kept.
    pub selections: Vec<Selection>,
    /// Factor on what is kept; 1 where nothing is rescaled.
    pub scales: Vec<f32>,
    /// Masks by segment and expert, where they were made and there is room to keep them.
    pub masks: Vec<Vec<Option<Mask>>>,
}

impl DeltaJob<'_> {
    /// Go over the inputs as often as the method needs before it can apply.
    ///
    /// # Errors
    /// Whatever reading gives.
    pub fn states(&self, segments: &[Segment], resources: &Resources) -> Result<States> {
        let whole = |expert: &Expert| {
            let all = self.sparsify == Sparsify::None || expert.density >= 1.0 || self.len == 0;
            if all {
                Selection::All
            } else {
                Selection::Nothing
            }
        };
        let mut states = States {
            selections: self.experts.iter().map(whole).collect(),
            scales: vec![1.0; self.experts.len()],
            masks: vec![],
        };
        let thinned = self.thinned();
        if thinned.is_empty() {
            return Ok(states);
        }
        if self.is_random() {
            let masks = thinned.len() * Mask::bytes(self.len);
            let keep =
                self.rescale && masks + self.norm_bytes(thinned.len()) <= resources.cache_bytes;
            if keep {
                states.masks = vec![vec![None; self.experts.len()]; segments.len()];
            }
            // One expert after the other: its norms are taken while the cache still holds what was
            // hashed.
            for &expert in &thinned {
                states.selections[expert] = self.random(expert, segments, resources)?;
                if self.rescale {
                    self.norm_of_mask(expert, keep, segments, resources, &mut states)?;
                }
            }
            if self.rescale {
                resources.control.add(self.len * self.base.dtype().size());
            }
            return Ok(states);
        }
        let (_, each) = self.threshold_bytes(segments.len(), resources.parallel.threads());
        let at_once = (resources.cache_bytes / each).max(1);
        // Where not even one expert has the room that it would like, less is set aside.
        let short = each.saturating_sub(resources.cache_bytes / at_once);
        let aside = (self.aside_bytes().saturating_sub(short)) / self.ranks_per_expert();
        for group in thinned.chunks(at_once) {
            let walk = Walk { job: self, experts: group, resources };
            let wanted = group.iter().map(|&i| self.wanted(&self.experts[i])).collect::<Vec<_>>();
            let found = self.thresholds(&walk, segments, &wanted, aside)?;
            for (&expert, selection) in group.iter().zip(found) {
                states.selections[expert] = selection;
            }
            if self.rescale {
                let chosen: Vec<_> = group.iter().map(|&i| &states.selections[i]).collect();
                let rounding = self.rescale_dtype();
                let scales = l1_scales(&walk, segments, &chosen, rounding, resources.parallel)?;
                for (&expert, scale) in group.iter().zip(scales) {
                    states.scales[expert] = scale;
                }
            }
        }
        Ok(states)
    }

    /// Bytes that the statistics take, all experts together: the least, and what serves speed best.
    pub fn statistics_bytes(&self, threads: usize) -> (usize, usize) {
        let (thinned, segments) = (self.thinned().len(), segments(self.len).len());
        if thinned == 0 {
            return (0, 0);
        }
        if !self.is_random() {
            let (least, most) = self.threshold_bytes(segments, threads);
            return (least, most * thinned);
        }
        let least = self.norm_bytes(thinned);
        (least, least + thinned * Mask::bytes(self.len))
    }

    /// Bytes of the sums and tables of experts that are thinned at random.
    fn norm_bytes(&self, thinned: usize) -> usize {
        let tables = match self.sparsify {
            Sparsify::Ranks => RankLimits::bytes(self.rows.columns),
            _ => 0,
        };
        thinned * (Leaves::bytes(self.len) + tables)
    }

    /// Bytes that finding one expert's thresholds takes: the least, and what serves speed best.
    fn threshold_bytes(&self, segments: usize, threads: usize) -> (usize, usize) {
        let ranks = self.ranks_per_expert();
        let low = if self.has_low_bits() { ranks * magnitude::low_bytes(segments) } else { 0 };
        let least = magnitude::high_bytes(segments, threads) + low;
        (least, least + self.aside_bytes().saturating_sub(low))
    }

    /// Bytes of an expert's magnitudes that are best set aside while the rest is counted.
    fn aside_bytes(&self) -> usize {
        if self.has_low_bits() {
            self.ranks_per_expert() * magnitude::aside_bytes(self.len)
        } else {
            0
        }
    }

    fn ranks_per_expert(&self) -> usize {
        if self.sparsify == Sparsify::Outliers {
            2
        } else {
            1
        }
    }

    /// How many of the largest are dropped, and how many are there down to the least that is kept.
    fn wanted(&self, expert: &Expert) -> (u64, u64) {
        let share = |part: f64| (part * self.len as f64) as u64;
        let (n, kept) = (self.len as u64, share(expert.density));
        match self.sparsify {
            Sparsify::Outliers => {
                let bottom = n.saturating_sub(kept).saturating_sub(share(expert.gamma));
                let dropped = n - bottom - kept;
                (dropped, dropped + kept)
            }
            _ => (0, kept.max(1)),
        }
    }

    fn thresholds(
        &self,
        walk: &Walk,
        segments: &[Segment],
        wanted: &[(u64, u64)],
        aside: usize,
    ) -> Result<Vec<Selection>> {
        let ranks: Vec<Wanted> = wanted
            .iter()
            .enumerate()
            .flat_map(|(stream, &(top, least))| [top, least].map(|rank| Wanted { stream, rank }))
            .filter(|wanted| wanted.rank > 0)
            .collect();
        let parallel = walk.resources.parallel;
        let found = thresholds(walk, segments, &ranks, self.has_low_bits(), aside, parallel)?;
        let mut found = ranks.into_iter().zip(found).peekable();
        let mut selections = Vec::with_capacity(wanted.len());
        for (stream, &(top, least)) in wanted.iter().enumerate() {
            let mut next = |rank: u64| -> Option<Threshold> {
                let expected = Wanted { stream, rank };
                found.next_if(|(wanted, _)| *wanted == expected).map(|(_, threshold)| threshold)
            };
            let top = next(top);
            selections.push(match next(least) {
                Some(least_kept) if Some(&least_kept) != top.as_ref() => {
                    Selection::Magnitude { least: least_kept, top }
                }
                _ => Selection::Nothing,
            });
        }
        Ok(selections)
    }

    fn random(
        &self,
        expert: usize,
        segments: &[Segment],
        resources: &Resources,
    ) -> Result<Selection> {
        let expert = &self.experts[expert];
        let content = self.content(expert, segments, resources)?;
        let stream = Stream::new(self.seed, self.name, content);
        let chance = match self.sparsify {
            Sparsify::Ranks => {
                let columns = self.rows.columns;
                let dtype = if self.dtype == Float::F16 { Float::F32 } else { self.dtype };
                Chance::Ranked(with_precision!(dtype, P => {
                    RankLimits::new::<P>(columns, expert.density, expert.epsilon)
                }))
            }
            _ => Chance::Same(limit(self.probability(expert.density))),
        };
        Ok(Selection::Random { stream, chance })
    }

    /// mergekit draws from a tensor of the delta's dtype, but from float32 for float16 on a CPU.
    fn probability(&self, density: f64) -> f32 {
        let mut probability = [density as f32];
        if self.dtype == Float::Bf16 {
            round_all(Float::Bf16, &mut probability);
        }
        probability[0]
    }

    /// mergekit rescales a randomly thinned float16 delta in float32, everything else in its dtype.
    fn rescale_dtype(&self) -> Float {
        match self.dtype {
            Float::F16 if self.is_random() => Float::F32,
            dtype => dtype,
        }
    }

    fn content(&self, expert: &Expert, segments: &[Segment], resources: &Resources) -> Result<u64> {
        let Resources { control, parallel, .. } = resources;
        let blocks = parallel.map(segments.len(), |i| {
            let mut scratch = Vec::new();
            let mut hashes = Vec::new();
            let inputs = [&expert.tensor];
            let mut behind = Behind::early(&inputs, &segments[i], self.len);
            for block in segments[i].blocks() {
                control.check()?;
                behind.passed(block.start);
                hashes.push(expert.tensor.hash(block.start, block.len(), &mut scratch)?);
                control.add(block.len() * expert.tensor.dtype().size());
            }
            behind.finish();
            Ok(hashes)
        })?;
        Ok(content::combine(&blocks.concat()))
    }

    /// Make one expert's mask and its factor.
    fn norm_of_mask(
        &self,
        expert: usize,
        keep: bool,
        segments: &[Segment],
        resources: &Resources,
        states: &mut States,
    ) -> Result<()> {
        let Resources { chunk, control, parallel, .. } = *resources;
        let selection = &states.selections[expert];
        let made = parallel.map(segments.len(), |number| {
            let segment = &segments[number];
            let mut leaves = Leaves::new(segment);
            let mut maker = MaskMaker::new(self, chunk, control);
            let mask = maker.mask(expert, selection, segment, Some(&mut leaves))?;
            control.add(segment.range.len() * self.experts[expert].tensor.dtype().size());
            Ok((mask.filter(|_| keep), leaves))
        })?;
        let leaves = made.iter().map(|(_, leaves)| leaves);
        states.scales[expert] = scale_of(leaves, self.rescale_dtype());
        for (masks, (mask, _)) in states.masks.iter_mut().zip(made) {
            masks[expert] = mask;
        }
        Ok(())
    }
}

/// The deltas of some experts, side by side.
struct Walk<'a> {
    job: &'a DeltaJob<'a>,
    experts: &'a [usize],
    resources: &'a Resources<'a>,
}

impl DeltaWalk for Walk<'_> {
    fn streams(&self) -> usize {
        self.experts.len()
    }

    fn walk(&self, segment: &Segment, visit: &mut Visit) -> Result<()> {
        let Resources { chunk, control, .. } = *self.resources;
        let length = chunk.min(segment.range.len());
        let (mut base, mut delta) = (vec![0.0; length], vec![0.0; length]);
        let mut scratch = Vec::new();
        let tensors = self.experts.iter().map(|&expert| &self.job.experts[expert].tensor);
        let inputs: Vec<_> = std::iter::once(&self.job.base).chain(tensors).collect();
        let mut behind = Behind::early(&inputs, segment, self.job.len);
        for range in pieces(segment.range.clone(), chunk) {
            behind.passed(range.start);
            control.check()?;
            let (base, delta) = (&mut base[..range.len()], &mut delta[..range.len()]);
            self.job.base.read(self.job.dtype, range.start, base, &mut scratch)?;
            let mut read = self.job.base.dtype().size();
            for (stream, &expert) in self.experts.iter().enumerate() {
                let tensor = &self.job.experts[expert].tensor;
                tensor.read_delta(self.job.dtype, range.start, base, delta, &mut scratch)?;
                visit(stream, range.start, delta)?;
                read += tensor.dtype().size();
            }
            control.add(range.len() * read);
        }
        behind.finish();
        Ok(())
    }
}
