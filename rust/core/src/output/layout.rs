//! Where every output byte goes, decided before the first read: so workers may fill disjoint
//! ranges in any order, and the space can be reserved.

use std::collections::HashMap;
use std::ops::Range;

use safetensors::tensor::{Metadata, TensorInfo};

use crate::checkpoint::MAX_HEADER;
use crate::error::{Error, Result};
use crate::plan::{Job, Plan};
use crate::work::BLOCK;

/// All output files.
#[derive(Debug, Clone)]
pub struct Layout {
    /// The shards, in order.
    pub files: Vec<FileLayout>,
    /// For each job of the plan: the file and the offset of its first byte there.
    pub places: Vec<Place>,
    /// For each job: elements, and bits of an element.
    tensors: Vec<(usize, usize)>,
}

/// One output file.
#[derive(Debug, Clone)]
pub struct FileLayout {
    /// Its name.
    pub name: String,
    /// Length prefix and JSON header.
    pub header: Vec<u8>,
    /// Length of the whole file.
    pub bytes: u64,
    /// The jobs whose tensors it holds, in the order of the plan.
    pub jobs: Vec<usize>,
}

/// First byte of an output tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Index into [`Layout::files`].
    pub file: usize,
    /// Offset in the file.
    pub offset: u64,
}

impl Layout {
    /// Pack the plan's tensors into shards as mergekit does: in the plan's order, a new shard where
    /// the next tensor would exceed the limit; inside a shard sorted by element size, then name.
    ///
    /// # Errors
    /// [`Error::Plan`] where a header cannot be written.
    pub fn new(plan: &Plan) -> Result<Self> {
        let mut shards: Vec<Vec<usize>> = vec![vec![]];
        let mut filled = 0_u64;
        for (number, job) in plan.jobs.iter().enumerate() {
            let bytes = job.out_bytes();
            let last = shards.len() - 1;
            if !shards[last].is_empty() && filled.saturating_add(bytes) > plan.max_shard_bytes {
                shards.push(vec![]);
                filled = 0;
            }
            filled += bytes;
            let last = shards.len() - 1;
            shards[last].push(number);
        }

        let count = shards.len();
        let mut places = vec![Place { file: 0, offset: 0 }; plan.jobs.len()];
        let mut files = Vec::with_capacity(count);
        for (file, jobs) in shards.into_iter().enumerate() {
            let name = match count {
                1 => format!("{}.safetensors", plan.stem),
                _ => format!("{}-{:05}-of-{count:05}.safetensors", plan.stem, file + 1),
            };
            let (header, bytes) = pack(plan, &jobs, file, &mut places)?;
            files.push(FileLayout { name, header, bytes, jobs });
        }
        let size = |job: &Job| (job.len(), job.out_dtype.bitsize());
        Ok(Self { files, places, tensors: plan.jobs.iter().map(size).collect() })
    }

    /// Number of blocks of all tensors.
    pub(crate) fn blocks(&self) -> u64 {
        self.tensors.iter().map(|(len, _)| len.div_ceil(BLOCK) as u64).sum()
    }

    /// Numbers of the blocks of a job's tensor.
    pub(crate) fn blocks_of(&self, job: usize) -> Range<usize> {
        0..self.tensors.get(job).map_or(0, |(len, _)| len.div_ceil(BLOCK))
    }

    /// Where a block begins, and its length in bytes; `None` where there is no such block.
    pub(crate) fn block(&self, job: usize, number: usize) -> Option<(Place, usize)> {
        let &(len, bits) = self.tensors.get(job)?;
        let start = number.checked_mul(BLOCK).filter(|start| *start < len)?;
        let Place { file, offset } = self.places[job];
        let place = Place { file, offset: offset + (start * bits / 8) as u64 };
        Some((place, (BLOCK.min(len - start) * bits).div_ceil(8)))
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

/// Header and length of one file; sets the places of its tensors.
fn pack(plan: &Plan, jobs: &[usize], file: usize, places: &mut [Place]) -> Result<(Vec<u8>, u64)> {
    let invalid = |error: String| Error::Plan { reason: format!("cannot lay out: {error}") };
    let mut order = jobs.to_vec();
    order.sort_by(|&a, &b| {
        let (a, b) = (&plan.jobs[a], &plan.jobs[b]);
        b.out_dtype.cmp(&a.out_dtype).then_with(|| a.tensor.cmp(&b.tensor))
    });
    let mut end = 0_u64;
    let mut infos = Vec::with_capacity(order.len());
    for &number in &order {
        let job = &plan.jobs[number];
        places[number] = Place { file, offset: end };
        let dtype = job.out_dtype;
        for (name, shape) in job.stored() {
            let start = end;
            end += (shape.iter().product::<usize>() * dtype.bitsize() / 8) as u64;
            let data_offsets = (start as usize, end as usize);
            let shape = shape.to_vec();
            infos.push((name.to_owned(), TensorInfo { dtype, shape, data_offsets }));
        }
    }
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    let metadata = Metadata::new(Some(format), infos).map_err(|e| invalid(e.to_string()))?;
    let mut json = serde_json::to_vec(&metadata).map_err(|e| invalid(e.to_string()))?;
    json.resize(json.len().next_multiple_of(8), b' ');
    if json.len() as u64 > MAX_HEADER {
        return Err(invalid(format!(
            "a header of {} bytes is longer than readers take",
            json.len()
        )));
    }
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.extend_from_slice(&json);
    for &number in &order {
        places[number].offset += header.len() as u64;
    }
    let bytes = header.len() as u64 + end;
    Ok((header, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn laid_out(max: u64, jobs: &[(&str, &str, &str)]) -> Result<Layout> {
        let job = |(name, dtype, shape): &(&str, &str, &str)| {
            format!(
                r#"{{"tensor":"{name}","shape":{shape},"out_dtype":"{dtype}",
                    "merge":{{"kind":"copy","inputs":[{{"model":0,"tensor":"x"}}]}}}}"#
            )
        };
        let jobs: Vec<String> = jobs.iter().map(job).collect();
        let text = format!(
            r#"{{"version":1,"seed":0,"allow_nonfinite":false,"max_shard_bytes":{max},
                "models":["m"],"jobs":[{}]}}"#,
            jobs.join(",")
        );
        Plan::from_json(&text).and_then(|plan| Layout::new(&plan))
    }

    #[test]
    fn parts_lie_one_behind_the_other_in_place_of_the_whole() {
        let text = r#"{"version":1,"seed":0,"allow_nonfinite":false,"max_shard_bytes":99,"models":["m"],
            "jobs":[{"tensor":"w","shape":[2,3],"out_dtype":"BF16","parts":PARTS,
                "merge":{"kind":"copy","inputs":[{"model":0,"tensor":"x"}]}}]}"#;
        let laid_out = |parts: &str| {
            Plan::from_json(&text.replace("PARTS", parts)).and_then(|plan| Layout::new(&plan))
        };
        let found =
            laid_out(r#"[{"tensor":"b","shape":[4]},{"tensor":"a","shape":[1,2]}]"#).unwrap();
        let header = String::from_utf8(found.files[0].header[8..].to_vec()).unwrap();
        assert!(header.contains(r#""b":{"dtype":"BF16","shape":[4],"data_offsets":[0,8]}"#));
        assert!(header.contains(r#""a":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}"#));
        assert!(!header.contains(r#""w""#));
        assert!(laid_out(r#"[{"tensor":"b","shape":[4]}]"#).is_err());
        assert!(laid_out(r#"[{"tensor":"b","shape":[3]},{"tensor":"b","shape":[3]}]"#).is_err());
        assert!(laid_out(r#"[{"tensor":"__metadata__","shape":[6]}]"#).is_err());
    }

    #[test]
    fn files_have_the_names_that_the_plan_asks_for_and_stay_in_their_folder() {
        let text = r#"{"version":1,"seed":0,"allow_nonfinite":false,"max_shard_bytes":1,"stem":"STEM",
            "models":["m"],"jobs":[{"tensor":"w","shape":[1],"out_dtype":"BF16",
                "merge":{"kind":"copy","inputs":[{"model":0,"tensor":"x"}]}}]}"#;
        let laid_out = |stem: &str| {
            Plan::from_json(&text.replace("STEM", stem)).and_then(|plan| Layout::new(&plan))
        };
        let found = laid_out("diffusion_pytorch_model").unwrap();
        assert_eq!(found.files[0].name, "diffusion_pytorch_model.safetensors");
        for stem in ["", "..", "../m", "/m", r"a\\m", "a/m"] {
            assert!(laid_out(stem).is_err(), "{stem}");
        }
    }

    #[test]
    fn what_no_file_could_hold_is_refused() {
        assert!(laid_out(0, &[("a", "F64", "[3]")]).is_ok());
        assert!(laid_out(0, &[("__metadata__", "F32", "[1]")]).is_err());
        assert!(laid_out(0, &[("a", "F64", "[1152921504606846975]")]).is_err());
        let names: Vec<String> = (0..40).map(|i| format!("t{i}")).collect();
        let forty: Vec<_> =
            names.iter().map(|name| (name.as_str(), "U8", "[1152921504606846975]")).collect();
        assert!(laid_out(u64::MAX, &forty).is_err());
        assert!(laid_out(0, &forty).is_err());
        assert!(laid_out(0, &[(&"x".repeat(100_000_001), "F32", "[1]")]).is_err());
    }
}
