//! The plan: what Python decided, as versioned JSON. With [`crate::source::Source`] and
//! [`crate::sink::Sink`] it is all that crosses between the two languages.

mod group;
mod models;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::dtype::Float;
use crate::error::{Error, Result};

pub use group::{Along, GroupMethod};
pub use models::{
    Cast, Concat, Derivation, Derived, Listed, ListedTensor, Lora, Model, Rows, MEAN, ZERO,
};

/// Version of the plan's format.
pub const VERSION: u32 = 1;

/// One merge: inputs, tensor jobs in the order in which they are packed into shards, and the seed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// Seed of the random masks.
    pub seed: u64,
    /// Merge NaN and infinity instead of refusing them.
    pub allow_nonfinite: bool,
    /// A new shard begins where the tensors of one would take more bytes than this.
    pub max_shard_bytes: u64,
    /// The models that jobs refer to by number.
    pub models: Vec<Model>,
    /// One job for each output tensor.
    pub jobs: Vec<Job>,
}

/// How one output tensor is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// Name of the output tensor.
    pub tensor: String,
    /// Its shape, and that of every input.
    pub shape: Vec<usize>,
    /// Its dtype in the output file.
    pub out_dtype: Dtype,
    /// The arithmetic.
    pub merge: Merge,
}

/// A tensor of one of the plan's models.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRef {
    /// Index into [`Plan::models`].
    pub model: usize,
    /// Name of the tensor there.
    pub tensor: String,
}

/// An input of a merge with its options.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Index into [`Plan::models`].
    pub model: usize,
    /// Name of the tensor there.
    pub tensor: String,
    /// Factor of this input.
    pub weight: f64,
    /// Share of its delta that is kept, in [0, 1].
    #[serde(default = "one")]
    pub density: f64,
    /// Share of the largest magnitudes that is dropped, for [`Sparsify::Outliers`].
    #[serde(default)]
    pub gamma: f64,
    /// Half the spread of the probabilities in a row, for [`Sparsify::Ranks`].
    #[serde(default)]
    pub epsilon: f64,
}

fn one() -> f64 {
    1.0
}

/// The arithmetic of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Merge {
    /// Nothing: the place is reserved, and whoever runs the plan writes the tensor afterwards.
    Given {},
    /// The same bytes from every input: buffers that are not floating point.
    Copy {
        /// All inputs must agree; the first is copied.
        inputs: Vec<TensorRef>,
    },
    /// A weighted sum of whole tensors: mergekit's `linear`.
    Linear {
        /// Dtype to which inputs and result are rounded; sums are float32.
        dtype: Float,
        /// Divide by the sum of the weights.
        normalize: bool,
        /// The tensors.
        inputs: Vec<Input>,
    },
    /// `base + lambda · mix(weight · sparsify(expert − base))`: task arithmetic and its kin.
    Delta {
        /// Dtype to which every step is rounded.
        dtype: Float,
        /// The tensor that deltas are taken from.
        base: TensorRef,
        /// Which elements of a delta are kept.
        sparsify: Sparsify,
        /// Scale what is kept so that its L1 norm is that of the whole delta.
        rescale: bool,
        /// Keep only the elements that agree with the sign of the weighted sum (TIES).
        consensus: bool,
        /// Divide by the sum of the weights that took part.
        normalize: bool,
        /// Factor on the mixed delta.
        lambda: f64,
        /// The experts.
        inputs: Vec<Input>,
    },
    /// A method that looks at whole vectors of the inputs.
    Group {
        /// Dtype to which every step is rounded.
        dtype: Float,
        /// The method with its options.
        method: GroupMethod,
        /// The base, where the method has one.
        base: Option<TensorRef>,
        /// All other tensors, in the order of the config.
        inputs: Vec<TensorRef>,
    },
}

/// Rule by which a delta is thinned to its density.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sparsify {
    /// Keep everything.
    None,
    /// Keep the largest magnitudes (TIES).
    Magnitude,
    /// Drop the largest magnitudes and keep the next ones (breadcrumbs).
    Outliers,
    /// Keep each element with probability `density` (DARE).
    Random,
    /// Keep each element with a probability that grows with its magnitude's rank in its row (DELLA).
    Ranks,
}

impl Plan {
    /// Read a plan and check what can be checked without the inputs.
    ///
    /// # Errors
    /// [`Error::Plan`]
    pub fn from_json(text: &str) -> Result<Self> {
        let invalid = |reason: String| Error::Plan { reason };
        let plan: Self = serde_json::from_str(text).map_err(|error| invalid(error.to_string()))?;
        if plan.version != VERSION {
            return Err(invalid(format!("expected version {VERSION}, found {}", plan.version)));
        }
        if let Some(reason) = models::refuse(&plan.models) {
            return Err(invalid(reason));
        }
        let mut names = std::collections::HashSet::new();
        let mut bits = 0_u64;
        for job in &plan.jobs {
            let name = &job.tensor;
            // The format keeps this name for itself.
            if name == "__metadata__" {
                return Err(invalid(format!("no tensor can be named `{name}`")));
            }
            if !names.insert(name) {
                return Err(invalid(format!("tensor `{name}` has two jobs")));
            }
            if job.merge.tensors().any(|(model, _)| model >= plan.models.len()) {
                return Err(invalid(format!("tensor `{name}`: no such model")));
            }
            let own = job.shape.iter().try_fold(1_u64, |n, &side| n.checked_mul(side as u64));
            // As float64 at least, so that no count of bytes in the run can overflow.
            let own = own.and_then(|n| n.checked_mul(64.max(job.out_dtype.bitsize() as u64)));
            bits =
                own.and_then(|own| bits.checked_add(own)).filter(|sum| *sum < 1 << 62).ok_or_else(
                    || invalid(format!("tensor `{name}`: shape {:?} is too large", job.shape)),
                )?;
            let computed = !matches!(job.merge, Merge::Copy { .. } | Merge::Given {});
            if computed && Float::of(job.out_dtype).is_none() {
                return Err(invalid(format!("tensor `{name}`: cannot write {}", job.out_dtype)));
            }
            if let Merge::Group { method, base, inputs, .. } = &job.merge {
                if let Some(reason) = method.refuse(base.is_some(), inputs.len()) {
                    return Err(invalid(format!("tensor `{name}`: {reason}")));
                }
            }
            for input in job.merge.inputs() {
                let Input { density, gamma, epsilon, .. } = *input;
                let ranked = matches!(&job.merge, Merge::Delta { sparsify, .. } if *sparsify == Sparsify::Ranks)
                    && density > 0.0
                    && density < 1.0;
                let spread = epsilon >= 0.0
                    && (!ranked || density - epsilon > 0.0 && density + epsilon < 1.0);
                if !(0.0..=1.0).contains(&density) || !(0.0..=1.0).contains(&gamma) || !spread {
                    return Err(invalid(format!(
                        "tensor `{name}`: density, gamma or epsilon out of range"
                    )));
                }
            }
        }
        Ok(plan)
    }
}

impl Job {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the output tensor.
    pub fn out_bytes(&self) -> u64 {
        (self.len() * self.out_dtype.bitsize() / 8) as u64
    }
}

impl Merge {
    /// Every tensor that is read, as (model, name); the base first.
    pub fn tensors(&self) -> impl Iterator<Item = (usize, &str)> {
        let (base, refs, inputs): (&[TensorRef], &[TensorRef], &[Input]) = match self {
            Merge::Given {} => (&[], &[], &[]),
            Merge::Copy { inputs } => (&[], inputs, &[]),
            Merge::Linear { inputs, .. } => (&[], &[], inputs),
            Merge::Delta { base, inputs, .. } => (std::slice::from_ref(base), &[], inputs),
            Merge::Group { base, inputs, .. } => (base.as_slice(), inputs, &[]),
        };
        let refs = base.iter().chain(refs).map(|r| (r.model, r.tensor.as_str()));
        refs.chain(inputs.iter().map(|i| (i.model, i.tensor.as_str())))
    }

    /// Number the models anew: model `i` becomes `numbers[i]`.
    pub fn renumber(&mut self, numbers: &[usize]) {
        let (base, refs, inputs): (Option<&mut TensorRef>, &mut [TensorRef], &mut [Input]) =
            match self {
                Merge::Given {} => (None, &mut [], &mut []),
                Merge::Copy { inputs } => (None, inputs, &mut []),
                Merge::Linear { inputs, .. } => (None, &mut [], inputs),
                Merge::Delta { base, inputs, .. } => (Some(base), &mut [], inputs),
                Merge::Group { base, inputs, .. } => (base.as_mut(), inputs, &mut []),
            };
        base.into_iter().chain(refs).for_each(|r| r.model = numbers[r.model]);
        inputs.iter_mut().for_each(|input| input.model = numbers[input.model]);
    }

    fn inputs(&self) -> &[Input] {
        match self {
            Merge::Given {} | Merge::Copy { .. } | Merge::Group { .. } => &[],
            Merge::Linear { inputs, .. } | Merge::Delta { inputs, .. } => inputs,
        }
    }
}
