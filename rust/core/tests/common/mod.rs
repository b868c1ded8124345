//! What the tests of merges share.

#![allow(clippy::unwrap_used, dead_code)]

use std::path::Path;

use mergeplan_core::execute::{Options, Prepared};
use mergeplan_core::output::{MemorySink, Region, Sink};
use mergeplan_core::work::Control;
use mergeplan_core::Result;

/// A checkpoint of one float32 tensor `x`.
pub fn checkpoint(folder: &Path, shape: &[usize], value: impl Fn(usize) -> f32) {
    std::fs::create_dir(folder).unwrap();
    let elements: usize = shape.iter().product();
    let bytes = 4 * elements;
    let json = format!(r#"{{"x":{{"dtype":"F32","shape":{shape:?},"data_offsets":[0,{bytes}]}}}}"#);
    let mut file = (json.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(json.as_bytes());
    file.extend((0..elements).flat_map(|i| value(i).to_le_bytes()));
    std::fs::write(folder.join("model.safetensors"), file).unwrap();
}

/// Run the first plan alone.
pub fn run(
    prepared: &Prepared,
    sink: &dyn Sink,
    options: Options,
    control: &Control,
) -> Result<Vec<u64>> {
    prepared.run(&[prepared.target(0, sink)], options, control).map(|mut all| all.remove(0))
}

/// Run one plan into memory; returns its hashes and tensors.
pub fn run_into_memory(
    prepared: &Prepared,
    plan: usize,
    options: Options,
    control: &Control,
) -> (Vec<u64>, Vec<Vec<u8>>) {
    let jobs = &prepared.plans()[plan].jobs;
    let mut tensors: Vec<Vec<u8>> =
        jobs.iter().map(|job| vec![0; job.out_bytes() as usize]).collect();
    let regions = tensors.iter_mut().zip(jobs);
    let regions = regions.map(|(bytes, job)| Region { bytes, dtype: job.out_dtype }).collect();
    let sink = MemorySink::new(0, jobs, regions).unwrap();
    let hashes = prepared.run(&[prepared.target(plan, &sink)], options, control).unwrap().remove(0);
    drop(sink);
    (hashes, tensors)
}
