//! The models of a plan: folders, tensors at known places in any files, and tensors that are computed
//! from those of other models while they stream.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use super::path_text;
use crate::number::Float;

/// Derivations of derivations: a model may be this many steps from a stored one.
const DEEPEST: usize = 8;
/// In [`Rows::from`]: a row of zeros.
pub const ZERO: i64 = -1;
/// In [`Rows::from`]: one of [`Rows::means`].
pub const MEAN: i64 = -2;

/// A tensor of one of the plan's models.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorRef {
    /// Index into [`crate::plan::Plan::models`].
    pub model: usize,
    /// Name of the tensor there.
    pub tensor: String,
}

/// Where a model's tensors come from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Model {
    /// A folder that holds a safetensors checkpoint, an index, or one safetensors file.
    Folder(#[serde(with = "path_text")] PathBuf),
    /// Safetensors files that are one checkpoint without an index.
    Files(Files),
    /// Tensors at known places.
    Listed(Listed),
    /// Tensors computed from those of other models.
    Derived(Derived),
    /// A stored model, some of whose tensors have scales.
    Scaled(Scaled),
}

/// See [`Model::Files`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Their folder, for messages.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// The files.
    #[serde(with = "path_text::many")]
    pub files: Vec<PathBuf>,
}

/// A checkpoint of some other format, whose tensors lie as they are in its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listed {
    /// Its folder, for messages.
    #[serde(with = "path_text")]
    pub path: PathBuf,
    /// All tensors by name.
    pub tensors: BTreeMap<String, ListedTensor>,
}

/// Where a tensor lies: little-endian, row-major, in one piece.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListedTensor {
    /// The file.
    #[serde(with = "path_text")]
    pub file: PathBuf,
    /// Element type.
    pub dtype: Dtype,
    /// Sides, outermost first.
    pub shape: Vec<usize>,
    /// First byte, from the start of the file.
    pub offset: u64,
}

/// A model that is nowhere stored.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Derived {
    /// All tensors by name.
    pub derived: BTreeMap<String, Derivation>,
}

/// A stored model with its 8-bit floats as the numbers that they stand for:
/// `float32(q) · float32(scale)`, rounded to `dtype`, where every block of q has a scale. All other
/// tensors are as they are. It has a line for each kind and not for each tensor: DeepSeek-V3 has
/// 45,000.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scaled {
    /// Index of the stored model.
    pub scaled: usize,
    /// What the values are rounded to.
    pub dtype: Float,
    /// The 8-bit tensors by their shapes.
    pub kinds: Vec<Scales>,
}

/// The scales of all 8-bit tensors of one shape.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scales {
    /// Sides of q.
    pub shape: Vec<usize>,
    /// What the scales' name has behind that of q.
    pub ending: String,
    /// Sides of the scales: one element for each block, row-major; floating point.
    pub scales: Vec<usize>,
    /// Sides of a block, one for each axis of q; the last of an axis may be cut off by the edge.
    pub block: Vec<usize>,
}

/// How a tensor is computed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Derivation {
    /// Another tensor as it is.
    Same(TensorRef),
    /// Another tensor, rounded.
    Cast(Cast),
    /// A tensor with a low-rank update.
    Lora(Lora),
    /// Tensors one behind the other.
    Concat(Concat),
    /// Rows of some tensors in another order.
    Rows(Rows),
}

/// See [`Derivation::Cast`].
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cast {
    /// Index into [`crate::plan::Plan::models`].
    pub model: usize,
    /// Name of the tensor there.
    pub tensor: String,
    /// What its values are rounded to.
    pub dtype: Float,
}

/// `x + scale · B·A`, rounded to `dtype`, as peft's `merge_and_unload` leaves it. The product and the
/// sum are float32.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lora {
    /// Index of the model that is adapted.
    pub model: usize,
    /// Its tensor x, of two axes `[m, n]`.
    pub tensor: String,
    /// `[r, n]`; transposed `[r, m]`.
    pub a: TensorRef,
    /// `[m, r]`; transposed `[n, r]`.
    pub b: TensorRef,
    /// Factor of the update.
    pub scale: f64,
    /// What x and the result are rounded to.
    pub dtype: Float,
    /// Whether `(B·A)ᵀ` is added: embeddings, and layers that are stored the other way round.
    pub transposed: bool,
}

/// Bytes of some tensors of one model and dtype, one behind the other: packed mixtures of experts.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concat {
    /// Index into [`crate::plan::Plan::models`].
    pub model: usize,
    /// Names of the tensors there, in order.
    pub tensors: Vec<String>,
    /// Sides of the whole.
    pub shape: Vec<usize>,
}

/// A tensor made of rows (everything at one index of the first axis) of others: an embedding for
/// another vocabulary.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// Tensors whose shapes agree in all axes but the first.
    pub tensors: Vec<TensorRef>,
    /// For each row the number of its tensor, or [`ZERO`], or [`MEAN`].
    pub from: Vec<i64>,
    /// For each row its number there, or that of its mean.
    pub rows: Vec<usize>,
    /// Lists of (tensor, row), each of which makes one row: summed in order and divided by their
    /// number, every step rounded.
    pub means: Vec<Vec<(usize, usize)>>,
    /// Rows at the end that are each the mean of all rows before.
    pub padding: usize,
}

impl Derivation {
    /// The tensors that it reads.
    pub(crate) fn references(&self) -> Vec<(usize, &str)> {
        fn all(refs: &[TensorRef]) -> Vec<(usize, &str)> {
            refs.iter().map(|r| (r.model, r.tensor.as_str())).collect()
        }
        match self {
            Self::Same(TensorRef { model, tensor }) | Self::Cast(Cast { model, tensor, .. }) => {
                vec![(*model, tensor)]
            }
            Self::Lora(Lora { model, tensor, a, b, .. }) => {
                vec![(*model, tensor), (a.model, &a.tensor), (b.model, &b.tensor)]
            }
            Self::Concat(Concat { model, tensors, .. }) => {
                tensors.iter().map(|tensor| (*model, tensor.as_str())).collect()
            }
            Self::Rows(Rows { tensors, .. }) => all(tensors),
        }
    }

    fn renumber(&mut self, numbers: &[usize]) {
        let new = |model: &mut usize| *model = numbers[*model];
        match self {
            Self::Same(TensorRef { model, .. })
            | Self::Cast(Cast { model, .. })
            | Self::Concat(Concat { model, .. }) => new(model),
            Self::Lora(Lora { model, a, b, .. }) => {
                [model, &mut a.model, &mut b.model].into_iter().for_each(new);
            }
            Self::Rows(Rows { tensors, .. }) => {
                tensors.iter_mut().for_each(|r| new(&mut r.model));
            }
        }
    }

    /// Why it cannot be, if it cannot.
    fn refuse(&self) -> Option<&'static str> {
        match self {
            Self::Lora(lora) if !(lora.scale as f32).is_finite() => {
                Some("the scale of a low-rank update is too large")
            }
            Self::Concat(Concat { tensors, .. }) if tensors.is_empty() => {
                Some("nothing to concatenate")
            }
            Self::Rows(Rows { tensors, from, rows, means, .. }) => {
                let there = |t: usize| t < tensors.len();
                let valid = |(&from, &row): (&i64, &usize)| match from {
                    ZERO => true,
                    MEAN => row < means.len(),
                    _ => usize::try_from(from).is_ok_and(there),
                };
                let mut means = means.iter();
                (tensors.is_empty()
                    || from.len() != rows.len()
                    || !from.iter().zip(rows).all(valid)
                    || !means.all(|mean| !mean.is_empty() && mean.iter().all(|(t, _)| there(*t))))
                .then_some("rows of tensors that are not there")
            }
            _ => None,
        }
    }
}

impl Model {
    /// The models that it is derived from.
    fn sources(&self) -> BTreeSet<usize> {
        match self {
            Self::Derived(Derived { derived }) => {
                let each = derived.values().flat_map(Derivation::references);
                each.map(|(model, _)| model).collect()
            }
            Self::Scaled(Scaled { scaled, .. }) => BTreeSet::from([*scaled]),
            Self::Folder(_) | Self::Files(_) | Self::Listed(_) => BTreeSet::new(),
        }
    }

    /// Number the models that it is derived from anew.
    pub(crate) fn renumber(&mut self, numbers: &[usize]) {
        match self {
            Self::Derived(Derived { derived }) => {
                derived.values_mut().for_each(|derivation| derivation.renumber(numbers));
            }
            Self::Scaled(Scaled { scaled, .. }) => *scaled = numbers[*scaled],
            Self::Folder(_) | Self::Files(_) | Self::Listed(_) => {}
        }
    }
}

/// Why some models cannot be, if they cannot.
pub(super) fn refuse(models: &[Model]) -> Option<String> {
    for (number, model) in models.iter().enumerate() {
        match model {
            Model::Derived(Derived { derived }) => {
                for (name, derivation) in derived {
                    if let Some(reason) = derivation.refuse() {
                        return Some(format!("model {number}, tensor `{name}`: {reason}"));
                    }
                }
            }
            Model::Scaled(Scaled { kinds, .. }) if kinds.iter().any(|k| k.block.contains(&0)) => {
                return Some(format!("model {number}: a block without elements"));
            }
            _ => {}
        }
    }
    in_order(models).err()
}

/// The models' numbers, each after those that it is derived from.
///
/// # Errors
/// Why there is no such order: a model is derived from itself, from one that is not there, or in too
/// many steps.
pub(crate) fn in_order(models: &[Model]) -> Result<Vec<usize>, String> {
    let sources: Vec<BTreeSet<usize>> = models.iter().map(Model::sources).collect();
    // Steps from a stored model, once they are known.
    let mut depths: Vec<Option<usize>> = vec![None; models.len()];
    let mut order = Vec::with_capacity(models.len());
    for depth in 0..=DEEPEST {
        let known = |&source: &usize| depths.get(source).is_some_and(Option::is_some);
        let ready = |&n: &usize| depths[n].is_none() && sources[n].iter().all(known);
        let next: Vec<usize> = (0..models.len()).filter(ready).collect();
        next.iter().for_each(|&number| depths[number] = Some(depth));
        order.extend(next);
    }
    match depths.iter().position(Option::is_none) {
        Some(number) => {
            Err(format!("model {number} is derived from no other, or in more than {DEEPEST} steps"))
        }
        None => Ok(order),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(models: &str) -> Option<String> {
        refuse(&serde_json::from_str::<Vec<Model>>(models).unwrap())
    }

    fn same(model: usize) -> String {
        format!(r#"{{"derived":{{"x":{{"kind":"same","model":{model},"tensor":"x"}}}}}}"#)
    }

    #[test]
    fn a_model_is_derived_from_stored_and_from_derived_ones_wherever_they_stand() {
        assert_eq!(refused(&format!(r#"[{},"m"]"#, same(1))), None);
        assert_eq!(refused(&format!(r#"["m",{},{}]"#, same(0), same(1))), None);
        assert_eq!(refused(&format!(r#"["m",{},{}]"#, same(2), same(0))), None);
        assert!(refused(&format!(r#"["m",{},{}]"#, same(2), same(1))).is_some());
        assert!(refused(&format!(r#"["m",{}]"#, same(1))).is_some());
        assert!(refused(&format!(r#"["m",{}]"#, same(9))).is_some());
    }

    #[test]
    fn chains_of_derivations_end() {
        let chain = |n| format!(r#"["m",{}]"#, (0..n).map(same).collect::<Vec<_>>().join(","));
        assert_eq!(refused(&chain(DEEPEST)), None);
        assert!(refused(&chain(DEEPEST + 1)).is_some());
    }

    #[test]
    fn rows_must_be_rows_of_their_tensors() {
        let rows = |from: &str, rows: &str, means: &str| {
            refused(&format!(
                r#"["m",{{"derived":{{"x":{{"kind":"rows","tensors":[{{"model":0,"tensor":"x"}}],
                "from":{from},"rows":{rows},"means":{means},"padding":0}}}}}}]"#
            ))
        };
        assert_eq!(rows("[0,-1,-2]", "[5,0,0]", "[[[0,1]]]"), None);
        assert!(rows("[1]", "[0]", "[]").is_some());
        assert!(rows("[-3]", "[0]", "[]").is_some());
        assert!(rows("[-2]", "[0]", "[]").is_some());
        assert!(rows("[0]", "[0,1]", "[]").is_some());
        assert!(rows("[0]", "[0]", "[[]]").is_some());
        assert!(rows("[0]", "[0]", "[[[1,0]]]").is_some());
    }
}
