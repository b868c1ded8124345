//! Methods that look at whole vectors: every byte is counted, and none depends on threads or chunks.

// The helpers below are part of the tests, which may unwrap.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use mergeplan_core::execute::{Options, Prepared};
use mergeplan_core::plan::Plan;
use mergeplan_core::work::Control;

mod common;
use common::{checkpoint, run_into_memory};

const LINES: usize = 700;
const WIDTH: usize = 101;

fn plan(folder: &Path, dtype: &str, method: &str, has_base: bool, inputs: usize) -> Plan {
    let tensor = |model: usize| format!(r#"{{"model":{model},"tensor":"x"}}"#);
    let base = if has_base { tensor(0) } else { "null".into() };
    let inputs: Vec<String> = (1..=inputs).map(tensor).collect();
    let text = format!(
        r#"{{"version":1,"seed":3,"allow_nonfinite":false,"max_shard_bytes":5000000000,
            "models":["{0}/base","{0}/a","{0}/b","{0}/c"],
            "jobs":[{{"tensor":"x","shape":[{LINES},{WIDTH}],"out_dtype":"BF16","merge":{{
              "kind":"group","dtype":"{dtype}","method":{method},"base":{base},
              "inputs":[{1}]}}}}]}}"#,
        folder.display(),
        inputs.join(",")
    );
    Plan::from_json(&text).unwrap()
}

#[test]
fn all_bytes_are_counted_and_none_depends_on_threads_or_chunks() {
    let folder = tempfile::tempdir().unwrap();
    checkpoint(&folder.path().join("base"), &[LINES, WIDTH], |i| (i % 97) as f32 * 0.01);
    checkpoint(&folder.path().join("a"), &[LINES, WIDTH], |i| (i % 89) as f32 * 0.011);
    checkpoint(&folder.path().join("b"), &[LINES, WIDTH], |i| (i % 83) as f32 * 0.012);
    checkpoint(&folder.path().join("c"), &[LINES, WIDTH], |i| (i % 79) as f32 * 0.013);
    let methods = [
        (r#"{"name":"slerp","t":0.3}"#, true, 1),
        (r#"{"name":"nuslerp","t":0.3,"along":"tensor"}"#, true, 2),
        (r#"{"name":"nuslerp","t":0.3,"along":"last"}"#, false, 2),
        (r#"{"name":"nuslerp","t":0.3,"along":"first"}"#, true, 2),
        (r#"{"name":"multislerp","weights":[1,2,3],"normalize":true,"eps":1e-8}"#, true, 3),
        (r#"{"name":"multislerp","weights":[1],"normalize":true,"eps":1e-8}"#, true, 1),
        (r#"{"name":"model_stock","filter_wise":false}"#, true, 3),
        (r#"{"name":"model_stock","filter_wise":true}"#, true, 2),
        (r#"{"name":"sce","density":1}"#, true, 2),
        (r#"{"name":"sce","density":0.3}"#, true, 3),
        (r#"{"name":"sce","density":0.3}"#, true, 1),
        (r#"{"name":"sce","density":0.3}"#, true, 0),
        (r#"{"name":"karcher","max_iter":3,"tol":1e-9}"#, false, 3),
        (r#"{"name":"karcher","max_iter":9,"tol":0.1}"#, false, 2),
        (r#"{"name":"karcher","max_iter":9,"tol":1e9}"#, false, 2),
        (r#"{"name":"nearswap","t":0.01}"#, true, 1),
        (r#"{"name":"arcee_fusion"}"#, true, 1),
        (r#"{"name":"ram","epsilon":0.01}"#, true, 3),
        (r#"{"name":"ramplus_tl","r":0.1,"alpha":0.2,"epsilon":0.01}"#, true, 3),
        (r#"{"name":"passthrough","scale":0.5}"#, false, 1),
    ];
    for (method, has_base, inputs) in methods {
        for dtype in ["float32", "bfloat16", "float16"] {
            let plan = plan(folder.path(), dtype, method, has_base, inputs);
            let prepared = Prepared::new(plan).unwrap();
            let outputs = [(1, 4096), (3, 64), (2, 65_536)].map(|(threads, chunk)| {
                let control = Control::default();
                let options = Options::new(threads, chunk, 256 << 20).unwrap();
                let (_, tensors) = run_into_memory(&prepared, 0, options, &control);
                let expected = prepared.forecast(threads).unwrap().work_bytes;
                assert_eq!(control.done_bytes(), expected, "{method} {dtype}");
                tensors
            });
            assert!(outputs.iter().all(|output| *output == outputs[0]), "{method} {dtype}");
        }
    }
}
