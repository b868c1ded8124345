//! Methods of the caller's: the same runs and the same bytes whatever the chunk and the threads, whole
//! rows, statistics of whole tensors, and failures that name the tensor.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::{Arc, Mutex};

use mergeplan_core::execute::{Options, Prepared};
use mergeplan_core::output::{MemorySink, Region};
use mergeplan_core::plan::{Call, CustomMethod, Plan, State};
use mergeplan_core::work::Control;
use mergeplan_core::Error;
use safetensors::Dtype;

mod common;
use common::{checkpoint, run_into_memory};

/// More than a block of 65,536; rows that lie on two blocks.
const SHAPE: [usize; 2] = [301, 701];
const LEN: usize = SHAPE[0] * SHAPE[1];

/// The base, and of each input's delta the share of its largest magnitude, by its number of elements.
#[derive(Debug, Default)]
struct Scaled {
    runs: Mutex<Vec<(usize, usize)>>,
    fails: bool,
}

impl CustomMethod for Scaled {
    fn state(&self, call: &Call) -> Result<State, String> {
        Ok(Arc::new(call.inputs[0].len()))
    }

    fn join(&self, first: &State, second: &State) -> Result<State, String> {
        let count = |state: &State| *state.downcast_ref::<usize>().unwrap();
        Ok(Arc::new(count(first) + count(second)))
    }

    fn merge(
        &self,
        call: &Call,
        statistics: &[Vec<f64>],
        states: &[State],
        out: &mut [f32],
    ) -> Result<(), String> {
        if self.fails {
            return Err("it does not want to".into());
        }
        self.runs.lock().unwrap().push((call.start, out.len()));
        assert!(states.iter().all(|state| *state.downcast_ref::<usize>().unwrap() == LEN));
        out.copy_from_slice(call.base.unwrap());
        for (input, numbers) in call.inputs.iter().zip(statistics) {
            for ((out, value), base) in out.iter_mut().zip(input).zip(call.base.unwrap()) {
                *out += (value - base) / numbers[0] as f32;
            }
        }
        Ok(())
    }
}

fn plan(folder: &Path, by_rows: bool) -> Plan {
    let path = |name| format!(r#""{}/{name}""#, folder.display());
    Plan::from_json(&format!(
        r#"{{"version":1,"seed":0,"allow_nonfinite":false,"max_shard_bytes":5000000000,
            "models":[{},{},{}],"jobs":[{{"tensor":"x","shape":[{},{}],"out_dtype":"F32",
            "merge":{{"kind":"group","dtype":"float32","base":{{"model":0,"tensor":"x"}},
            "inputs":[{{"model":1,"tensor":"x"}},{{"model":2,"tensor":"x"}}],
            "method":{{"name":"custom","method":"scaled","sha256":"0","by_rows":{by_rows},
            "has_states":true,"statistics":["largest"],"options":{{}}}}}}}}]}}"#,
        path("base"),
        path("a"),
        path("b"),
        SHAPE[0],
        SHAPE[1],
    ))
    .unwrap()
}

fn prepared(folder: &Path, by_rows: bool, method: &Arc<Scaled>) -> Prepared {
    let mut plan = plan(folder, by_rows);
    plan.give_functions(|name, hash| {
        assert_eq!((name, hash), ("scaled", "0"));
        Ok::<Arc<dyn CustomMethod>, Error>(method.clone())
    })
    .unwrap();
    Prepared::new(plan).unwrap()
}

fn models(folder: &Path) {
    for (name, period) in [("base", 97), ("a", 89), ("b", 83)] {
        checkpoint(&folder.join(name), &SHAPE, |i| (i % period) as f32 * 0.01);
    }
}

#[test]
fn runs_and_bytes_are_the_same_whatever_the_chunk_and_the_threads() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    for by_rows in [false, true] {
        let mut seen = Vec::new();
        for (threads, chunk) in [(1, 65_536), (2, 256), (7, 4096)] {
            let method = Arc::new(Scaled::default());
            let prepared = prepared(folder.path(), by_rows, &method);
            let options = Options::new(threads, chunk, 256 << 20).unwrap();
            let bytes = run_into_memory(&prepared, 0, options, &Control::default()).1.remove(0);
            let mut runs = method.runs.lock().unwrap().clone();
            runs.sort_unstable();
            runs.dedup();
            let of_rows = runs.iter().all(|(start, n)| start % SHAPE[1] + n % SHAPE[1] == 0);
            assert_eq!(of_rows, by_rows);
            assert_eq!(runs.iter().map(|(_, n)| n).sum::<usize>(), LEN);
            seen.push((runs, bytes));
        }
        assert!(seen.iter().all(|one| *one == seen[0]));
        let value = |i: usize| f32::from_le_bytes(seen[0].1[4 * i..4 * i + 4].try_into().unwrap());
        for i in [0, 700, 65_536, LEN - 1] {
            let at = |period| (i % period) as f32 * 0.01;
            let largest = |period| {
                let delta = |i| ((i % period) as f32 * 0.01 - (i % 97) as f32 * 0.01).abs();
                (0..LEN).map(delta).fold(0.0, f32::max)
            };
            let delta = |period| (at(period) - at(97)) / largest(period);
            assert!((value(i) - (at(97) + delta(89) + delta(83))).abs() < 1e-5);
        }
    }
}

#[test]
fn a_failure_names_method_and_tensor_and_a_plan_without_functions_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let method = Arc::new(Scaled { fails: true, ..Scaled::default() });
    let prepared = prepared(folder.path(), false, &method);
    let mut bytes = vec![0; 4 * LEN];
    let region = Region { bytes: &mut bytes, dtype: Dtype::F32 };
    let sink = MemorySink::new(0, &prepared.plans()[0].jobs, vec![region]).unwrap();
    let options = Options::new(1, 4096, 256 << 20).unwrap();
    let failed = prepared.run(&[prepared.target(0, &sink)], options, &Control::default());
    let expected = "method `scaled`: tensor `x`: it does not want to";
    assert_eq!(failed.unwrap_err().to_string(), expected);
    let refused = Prepared::new(plan(folder.path(), false));
    assert!(matches!(refused, Err(Error::Plan { .. })));
}
