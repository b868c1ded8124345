//! A whole plan, and what can be checked of it without its inputs.

use std::ffi::OsStr;
use std::path::Path;

use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::error::{readable, Error, Result};
use crate::number::Float;
use crate::plan::{models, Input, Job, Merge, Model, Sparsify};

/// Version of the plan's format.
pub const VERSION: u32 = 1;

/// Axes of a tensor: torch's own bound.
pub(crate) const MAX_AXES: usize = 64;

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
    /// How the names of the output's files begin.
    #[serde(default = "model")]
    pub stem: String,
    /// The models that jobs refer to by number.
    pub models: Vec<Model>,
    /// One job for each output tensor.
    pub jobs: Vec<Job>,
}

/// Whether a name stays in its folder, and is the same file on every system: Windows takes `\` for a
/// separator and drops dots and spaces at the end.
pub(crate) fn is_plain(name: &str) -> bool {
    Path::new(name).file_name() == Some(OsStr::new(name))
        && !name.contains(|c: char| c == '/' || c == '\\' || c.is_control())
        && !name.ends_with(['.', ' '])
}

fn model() -> String {
    "model".to_owned()
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
        if !is_plain(&plan.stem) {
            return Err(invalid(format!("no file can be named `{}`", readable(&plan.stem))));
        }
        if let Some(reason) = models::refuse(&plan.models) {
            return Err(invalid(reason));
        }
        let mut names = std::collections::HashSet::new();
        let mut bits = 0_u64;
        for job in &plan.jobs {
            let name = &job.tensor;
            for (stored, shape) in job.stored() {
                if shape.len() > MAX_AXES {
                    return Err(invalid(format!("tensor `{stored}`: more than {MAX_AXES} axes")));
                }
                // The format keeps this name for itself.
                if stored == "__metadata__" {
                    return Err(invalid(format!("no tensor can be named `{stored}`")));
                }
                if !names.insert(stored) {
                    return Err(invalid(format!("tensor `{stored}` has two jobs")));
                }
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
            if !job.parts.is_empty() && !pieces_make_the_whole(job) {
                return Err(invalid(format!("tensor `{name}`: its parts are not the whole")));
            }
            let computed = !matches!(job.merge, Merge::Copy { .. } | Merge::Given {});
            let wide = matches!(job.merge, Merge::Wide { .. })
                && matches!(job.out_dtype, Dtype::F64 | Dtype::C64);
            if computed && !wide && Float::of(job.out_dtype).is_none() {
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

/// Whether a job's parts have as many elements as its tensor, each a whole number of bytes.
fn pieces_make_the_whole(job: &Job) -> bool {
    let length = |shape: &[usize]| shape.iter().try_fold(1_usize, |n, &side| n.checked_mul(side));
    let lengths: Option<Vec<usize>> = job.parts.iter().map(|part| length(&part.shape)).collect();
    let total = lengths.and_then(|all| all.iter().try_fold(0_usize, |sum, n| sum.checked_add(*n)));
    job.out_dtype.bitsize().is_multiple_of(8) && total.is_some() && total == length(&job.shape)
}
