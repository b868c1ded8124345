//! Task arithmetic and its kin: statistics of each expert first, then one pass over all of them.

use crate::dtype::Float;
use crate::error::{Error, Result};
use crate::execute::apply::Apply;
use crate::execute::Control;
use crate::kernels::combine::{combine, Buffers, Mix};
use crate::kernels::elementwise::{round_all, scale, subtract, with_precision};
use crate::parallel::Parallel;
use crate::philox::Stream;
use crate::plan::{Job, Merge, Sparsify};
use crate::precision::{Bf16, Precision, F16, F32};
use crate::segments::{pieces, Segment};
use crate::source::{CheckpointTensor, Source};
use crate::statistics::magnitude::threshold;
use crate::statistics::norm::l1_scale;
use crate::statistics::{content, Cursor, DeltaWalk, ExpertState, Selection};

/// A [`Merge::Delta`] bound to its inputs.
pub struct DeltaJob<'a> {
    name: &'a str,
    len: usize,
    seed: u64,
    dtype: Float,
    sparsify: Sparsify,
    rescale: bool,
    mix: Mix,
    base: CheckpointTensor<'a>,
    experts: Vec<Expert<'a>>,
}

struct Expert<'a> {
    tensor: CheckpointTensor<'a>,
    density: f64,
}

impl<'a> DeltaJob<'a> {
    pub fn new(
        job: &'a Job,
        seed: u64,
        tensor: impl Fn(usize, &'a str) -> Result<CheckpointTensor<'a>>,
    ) -> Result<Self> {
        let Merge::Delta { dtype, base, sparsify, rescale, consensus, normalize, lambda, inputs } =
            &job.merge
        else {
            return Err(Error::Plan {
                reason: format!("tensor `{}` is no delta merge", job.tensor),
            });
        };
        let mut experts = Vec::new();
        let mut weights = Vec::new();
        // A weight of zero changes neither sum nor divisor: such an expert is not read.
        for input in inputs.iter().filter(|input| input.weight != 0.0) {
            experts.push(Expert {
                tensor: tensor(input.model, &input.tensor)?,
                density: input.density,
            });
            weights.push(input.weight as f32);
        }
        round_all(*dtype, &mut weights);
        if !weights.iter().all(|weight| weight.is_finite()) || !(*lambda as f32).is_finite() {
            return Err(Error::Options {
                tensor: job.tensor.clone(),
                reason: format!("a weight or lambda is too large for `{}`", dtype.name()),
            });
        }
        Ok(Self {
            name: &job.tensor,
            len: job.len(),
            seed,
            dtype: *dtype,
            sparsify: *sparsify,
            rescale: *rescale,
            mix: Mix {
                weights,
                consensus: *consensus,
                normalize: *normalize,
                lambda: *lambda as f32,
            },
            base: tensor(base.model, &base.tensor)?,
            experts,
        })
    }

    pub fn dtype(&self) -> Float {
        self.dtype
    }

    /// Bytes read for each element, over all passes.
    pub fn bytes_per_element(&self) -> u64 {
        let base = self.base.dtype().size();
        let passes = |expert: &Expert| {
            let own = expert.tensor.dtype().size();
            let walks = match (self.sparsify, self.thins(expert)) {
                (Sparsify::None, _) | (_, false) => 0,
                (Sparsify::Magnitude, _) => {
                    1 + usize::from(self.has_low_bits()) + usize::from(self.rescale)
                }
                (Sparsify::Random, _) => usize::from(self.rescale),
            };
            let hash = self.sparsify == Sparsify::Random && self.thins(expert);
            walks * (base + own) + (1 + usize::from(hash)) * own
        };
        (base + self.experts.iter().map(passes).sum::<usize>()) as u64
    }

    /// Whether some elements of the expert are dropped, and some kept.
    fn thins(&self, expert: &Expert) -> bool {
        expert.density > 0.0 && expert.density < 1.0 && self.len > 0
    }

    fn has_low_bits(&self) -> bool {
        self.dtype != Float::Bf16
    }

    /// The statistics of every expert.
    pub fn states(
        &self,
        segments: &[Segment],
        chunk: usize,
        control: &Control,
        parallel: &Parallel,
    ) -> Result<Vec<ExpertState>> {
        let state = |expert| self.state(expert, segments, chunk, control, parallel);
        self.experts.iter().map(state).collect()
    }

    fn state(
        &self,
        expert: &Expert,
        segments: &[Segment],
        chunk: usize,
        control: &Control,
        parallel: &Parallel,
    ) -> Result<ExpertState> {
        if self.sparsify == Sparsify::None || expert.density >= 1.0 {
            return Ok(ExpertState { selection: Selection::All, scale: 1.0 });
        }
        if !self.thins(expert) {
            return Ok(ExpertState { selection: Selection::Nothing, scale: 1.0 });
        }
        let walk =
            Walk { base: &self.base, expert: &expert.tensor, dtype: self.dtype, chunk, control };
        let selection = if self.sparsify == Sparsify::Magnitude {
            let n_kept = ((expert.density * self.len as f64) as u64).max(1);
            let found = threshold(&walk, segments, n_kept, self.has_low_bits(), parallel)?;
            Selection::Magnitude(found)
        } else {
            let stream = Stream::new(
                self.seed,
                self.name,
                self.content(expert, segments, control, parallel)?,
            );
            Selection::random(stream, self.probability(expert.density))
        };
        let scale = if self.rescale {
            l1_scale(&walk, segments, &selection, self.rescale_dtype(), parallel)?
        } else {
            1.0
        };
        Ok(ExpertState { selection, scale })
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
        match (self.sparsify, self.dtype) {
            (Sparsify::Random, Float::F16) => Float::F32,
            (_, dtype) => dtype,
        }
    }

    fn content(
        &self,
        expert: &Expert,
        segments: &[Segment],
        control: &Control,
        parallel: &Parallel,
    ) -> Result<u64> {
        let blocks = parallel.map(segments.len(), |i| {
            let mut scratch = Vec::new();
            let mut hashes = Vec::new();
            for block in segments[i].blocks() {
                control.check()?;
                hashes.push(expert.tensor.hash(block.start, block.len(), &mut scratch)?);
                control.add(block.len() * expert.tensor.dtype().size());
            }
            Ok(hashes)
        })?;
        Ok(content::combine(&blocks.concat()))
    }

    /// The work on one segment, once the statistics are known.
    pub fn apply<'b, P: Precision>(
        &'b self,
        states: &'b [ExpertState],
        segment: &Segment,
        control: &'b Control,
    ) -> DeltaApply<'b, P> {
        DeltaApply {
            job: self,
            states,
            cursors: states.iter().map(|state| state.selection.cursor(segment)).collect(),
            control,
            deltas: vec![Vec::new(); self.experts.len()],
            buffers: Buffers::default(),
            words: Vec::new(),
            scratch: Vec::new(),
            precision: std::marker::PhantomData,
        }
    }
}

pub struct DeltaApply<'a, P> {
    job: &'a DeltaJob<'a>,
    states: &'a [ExpertState],
    cursors: Vec<Cursor>,
    control: &'a Control,
    deltas: Vec<Vec<f32>>,
    buffers: Buffers,
    words: Vec<u32>,
    scratch: Vec<u8>,
    precision: std::marker::PhantomData<P>,
}

impl<P: Precision> Apply for DeltaApply<'_, P> {
    fn chunk(&mut self, start: usize, out: &mut [f32]) -> Result<()> {
        let job = self.job;
        let mut read = job.base.dtype().size();
        job.base.read(job.dtype, start, out, &mut self.scratch)?;
        let experts = job.experts.iter().zip(self.states).zip(&job.mix.weights);
        let buffers = self.deltas.iter_mut().zip(&mut self.cursors);
        for (((expert, state), weight), (delta, cursor)) in experts.zip(buffers) {
            delta.resize(out.len(), 0.0);
            expert.tensor.read(job.dtype, start, delta, &mut self.scratch)?;
            subtract::<P>(delta, out);
            state.selection.apply(cursor, start, delta, &mut self.words);
            if state.scale != 1.0 {
                scale::<P>(delta, state.scale);
            }
            if *weight != 1.0 {
                scale::<P>(delta, *weight);
            }
            read += expert.tensor.dtype().size();
        }
        combine::<P>(&job.mix, &self.deltas, out, &mut self.buffers);
        self.control.add(read * out.len());
        Ok(())
    }
}

/// One expert's delta, for the statistics.
struct Walk<'a> {
    base: &'a CheckpointTensor<'a>,
    expert: &'a CheckpointTensor<'a>,
    dtype: Float,
    chunk: usize,
    control: &'a Control,
}

impl DeltaWalk for Walk<'_> {
    fn walk(
        &self,
        segment: &Segment,
        visit: &mut dyn FnMut(usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let length = self.chunk.min(segment.range.len());
        let (mut base, mut delta) = (vec![0.0; length], vec![0.0; length]);
        let mut scratch = Vec::new();
        for range in pieces(segment.range.clone(), self.chunk) {
            self.control.check()?;
            let (base, delta) = (&mut base[..range.len()], &mut delta[..range.len()]);
            self.base.read(self.dtype, range.start, base, &mut scratch)?;
            self.expert.read(self.dtype, range.start, delta, &mut scratch)?;
            with_precision!(self.dtype, P => subtract::<P>(delta, base));
            visit(range.start, delta)?;
            self.control.add(range.len() * (self.base.dtype().size() + self.expert.dtype().size()));
        }
        Ok(())
    }
}
