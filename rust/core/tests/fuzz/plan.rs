//! Plans, and the layouts that follow from them.

use std::path::Path;

use mergeplan_core::checkpoint::header;
use mergeplan_core::output::Layout;
use mergeplan_core::plan::Plan;
use proptest::prelude::*;
use proptest::sample::select;
use safetensors::tensor::Metadata;

use crate::header::{bits, check_tensors, elements};
use crate::json::Json;
use crate::mutate::{apply, apply_bytes, byte_changes, changes, ByteChange, Change};
use crate::run::{bounded, fuzz};

/// A valid plan and what is changed in it.
#[derive(Debug, Clone)]
pub struct Mutant {
    jobs: Vec<(&'static str, &'static str, Vec<usize>)>,
    max_shard_bytes: u64,
    changes: Vec<Change>,
    byte_changes: Vec<ByteChange>,
}

fn mutants() -> impl Strategy<Value = Mutant> {
    let kind = select(&["copy", "linear", "delta"][..]);
    let dtype = select(&["F32", "BF16", "F16"][..]);
    let shape = proptest::collection::vec(select(&[0_usize, 1, 2, 3, 1000][..]), 0..4);
    let jobs = proptest::collection::vec((kind, dtype, shape), 0..4);
    let limit = select(&[0, 1, 4000, 5_000_000_000, u64::MAX][..]);
    (jobs, limit, changes(), byte_changes()).prop_map(
        |(jobs, max_shard_bytes, changes, byte_changes)| Mutant {
            jobs,
            max_shard_bytes,
            changes,
            byte_changes,
        },
    )
}

impl Mutant {
    fn bytes(&self) -> Vec<u8> {
        let job = |(i, (kind, dtype, shape)): (usize, &(&str, &str, Vec<usize>))| {
            Json::object([
                ("tensor", Json::string(&format!("w.{i}"))),
                ("shape", Json::array(shape)),
                ("out_dtype", Json::string(dtype)),
                ("merge", merge(kind)),
            ])
        };
        let mut document = Json::object([
            ("version", Json::token(1)),
            ("seed", Json::token(7)),
            ("allow_nonfinite", Json::token(false)),
            ("max_shard_bytes", Json::token(self.max_shard_bytes)),
            ("models", Json::Array(vec![Json::string("a"), Json::string("b"), scaled()])),
            ("jobs", Json::Array(self.jobs.iter().enumerate().map(job).collect())),
        ]);
        self.changes.iter().for_each(|change| apply(&mut document, change));
        let mut bytes = document.text().into_bytes();
        self.byte_changes.iter().for_each(|change| apply_bytes(&mut bytes, change));
        bytes
    }
}

/// The first model with its 8-bit tensors times their scales.
fn scaled() -> Json {
    let kind = Json::object([
        ("shape", Json::array([256_usize, 3])),
        ("ending", Json::string("_scale")),
        ("scales", Json::array([2_usize, 1])),
        ("block", Json::array([128_usize, 128])),
    ]);
    Json::object([
        ("scaled", Json::token(0)),
        ("dtype", Json::string("bfloat16")),
        ("kinds", Json::Array(vec![kind])),
    ])
}

fn merge(kind: &str) -> Json {
    let tensor =
        |model| Json::object([("model", Json::token(model)), ("tensor", Json::string("x"))]);
    let input = Json::object([
        ("model", Json::token(1)),
        ("tensor", Json::string("x")),
        ("weight", Json::token(0.5)),
        ("density", Json::token(0.3)),
    ]);
    let flag = || Json::token(true);
    let name = ("kind", Json::string(kind));
    let dtype = ("dtype", Json::string("float32"));
    match kind {
        "copy" => Json::object([name, ("inputs", Json::Array(vec![tensor(0), tensor(1)]))]),
        "linear" => {
            Json::object([name, dtype, ("normalize", flag()), ("inputs", Json::Array(vec![input]))])
        }
        _ => Json::object([
            name,
            dtype,
            ("base", tensor(0)),
            ("sparsify", Json::string("magnitude")),
            ("rescale", flag()),
            ("consensus", flag()),
            ("normalize", flag()),
            ("lambda", Json::token(1.0)),
            ("inputs", Json::Array(vec![input])),
        ]),
    }
}

fn check(mutant: &Mutant) -> bool {
    let bytes = mutant.bytes();
    // From Python, text is always Unicode.
    let Ok(text) = std::str::from_utf8(&bytes) else { return false };
    let changed = !(mutant.changes.is_empty() && mutant.byte_changes.is_empty());
    let plan = match bounded(bytes.len(), || Plan::from_json(text)) {
        Ok(plan) => plan,
        Err(error) => {
            assert!(changed, "refused a valid plan: {error}");
            return false;
        }
    };
    assert!(Plan::from_json(&serde_json::to_string(&plan).unwrap()).is_ok());
    match bounded(bytes.len(), || Layout::new(&plan)) {
        Ok(layout) => check_layout(&plan, &layout),
        Err(error) => assert!(changed, "no layout for a valid plan: {error}"),
    }
    true
}

fn check_layout(plan: &Plan, layout: &Layout) {
    let jobs = layout.files.iter().flat_map(|file| file.jobs.iter().copied());
    assert!(jobs.eq(0..plan.jobs.len()), "a job is in no file, in two, or out of order");
    assert_eq!(layout.places.len(), plan.jobs.len());
    let all: u128 = layout.files.iter().map(|file| u128::from(file.bytes)).sum();
    assert_eq!(u128::from(layout.bytes()), all);
    for (number, file) in layout.files.iter().enumerate() {
        let json = &file.header[8..];
        assert_eq!(file.header[..8], (json.len() as u64).to_le_bytes());
        assert_eq!(json.len() % 8, 0);
        let theirs: Metadata = serde_json::from_slice(json).unwrap();
        assert_eq!((file.header.len() + theirs.data_len()) as u64, file.bytes);
        let ours = header::parse(Path::new(&file.name), json, file.bytes).unwrap();
        check_tensors(json.len(), &ours, file.bytes);
        assert_eq!((ours.len(), theirs.tensors().len()), (file.jobs.len(), file.jobs.len()));
        let mut data = 0;
        for &job in &file.jobs {
            let (place, job) = (layout.places[job], &plan.jobs[job]);
            let info = theirs.info(&job.tensor).unwrap();
            assert_eq!(place.file, number);
            assert_eq!(place.offset, (file.header.len() + info.data_offsets.0) as u64);
            assert_eq!((info.dtype, &info.shape), (job.out_dtype, &job.shape));
            assert_eq!(elements(&job.shape) * bits(job.out_dtype), 8 * u128::from(job.out_bytes()));
            data += job.out_bytes();
        }
        assert!(data <= plan.max_shard_bytes || file.jobs.len() == 1, "a shard over the limit");
    }
}

#[test]
fn plans() {
    fuzz("plans", 0.3, &mutants(), check, Mutant::bytes);
}
