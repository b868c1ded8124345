//! How one output tensor is made: the job, its arithmetic, and what it reads.

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::number::Float;
use crate::plan::{GroupMethod, TensorRef};

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
    /// What the files call its pieces, one behind the other, where they do not hold it as a whole: the
    /// matrices of a mixture's experts, which are merged as one tensor. Empty for all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
}

/// A piece of a job's tensor, under its own name in the output file.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// Its name.
    pub tensor: String,
    /// Its shape.
    pub shape: Vec<usize>,
}

/// An input of a merge with its options.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Index into [`crate::plan::Plan::models`].
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
        /// Not the merge, but its slope along the weight of this input: see `kernels::slope`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        slope: Option<usize>,
        /// Not the merge, but its slope along lambda: the mixed delta, without base and lambda.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        mixed: bool,
    },
    /// The same without thinning, in float64: for tensors that hold float64, and for complex ones, whose
    /// parts are summed each for itself.
    Wide {
        /// The tensor that deltas are taken from; without one, whole tensors are summed.
        base: Option<TensorRef>,
        /// Divide by the sum of the weights.
        normalize: bool,
        /// Factor on the mixed delta.
        lambda: f64,
        /// The tensors.
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

impl Job {
    /// Number of elements.
    pub(crate) fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Name and shape of each tensor that the output file gets.
    pub fn stored(&self) -> impl Iterator<Item = (&str, &[usize])> {
        let whole = self.parts.is_empty().then_some((self.tensor.as_str(), self.shape.as_slice()));
        let parts = self.parts.iter().map(|part| (part.tensor.as_str(), part.shape.as_slice()));
        whole.into_iter().chain(parts)
    }

    /// Bytes of the output tensor.
    pub fn out_bytes(&self) -> u64 {
        (self.len() * self.out_dtype.bitsize() / 8) as u64
    }
}

impl Merge {
    /// Every tensor that is read, as (model, name); the base first.
    pub(crate) fn tensors(&self) -> impl Iterator<Item = (usize, &str)> {
        let (base, refs, inputs): (&[TensorRef], &[TensorRef], &[Input]) = match self {
            Merge::Given {} => (&[], &[], &[]),
            Merge::Copy { inputs } => (&[], inputs, &[]),
            Merge::Linear { inputs, .. } => (&[], &[], inputs),
            Merge::Delta { base, inputs, .. } => (std::slice::from_ref(base), &[], inputs),
            Merge::Wide { base, inputs, .. } => (base.as_slice(), &[], inputs),
            Merge::Group { base, inputs, .. } => (base.as_slice(), inputs, &[]),
        };
        let refs = base.iter().chain(refs).map(|r| (r.model, r.tensor.as_str()));
        refs.chain(inputs.iter().map(|i| (i.model, i.tensor.as_str())))
    }

    /// The tensors whose values count: a sum reads none of weight zero.
    pub(crate) fn read(&self) -> impl Iterator<Item = (usize, &str)> {
        let weights = match self {
            Merge::Linear { inputs, .. } | Merge::Delta { inputs, .. } => inputs.as_slice(),
            _ => &[],
        };
        let base = self.tensors().count() - weights.len();
        let counts = move |number: usize| {
            number.checked_sub(base).and_then(|i| weights.get(i)).is_none_or(|i| i.weight != 0.0)
        };
        self.tensors().enumerate().filter(move |(i, _)| counts(*i)).map(|(_, tensor)| tensor)
    }

    /// Number the models anew: model `i` becomes `numbers[i]`.
    pub(crate) fn renumber(&mut self, numbers: &[usize]) {
        let (base, refs, inputs): (Option<&mut TensorRef>, &mut [TensorRef], &mut [Input]) =
            match self {
                Merge::Given {} => (None, &mut [], &mut []),
                Merge::Copy { inputs } => (None, inputs, &mut []),
                Merge::Linear { inputs, .. } => (None, &mut [], inputs),
                Merge::Delta { base, inputs, .. } => (Some(base), &mut [], inputs),
                Merge::Wide { base, inputs, .. } => (base.as_mut(), &mut [], inputs),
                Merge::Group { base, inputs, .. } => (base.as_mut(), inputs, &mut []),
            };
        base.into_iter().chain(refs).for_each(|r| r.model = numbers[r.model]);
        inputs.iter_mut().for_each(|input| input.model = numbers[input.model]);
    }

    pub(super) fn inputs(&self) -> &[Input] {
        match self {
            Merge::Given {} | Merge::Copy { .. } | Merge::Group { .. } => &[],
            Merge::Linear { inputs, .. }
            | Merge::Delta { inputs, .. }
            | Merge::Wide { inputs, .. } => inputs,
        }
    }
}
