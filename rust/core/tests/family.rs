//! Many merges of the same models in one pass: each is what it would be alone.

#![allow(clippy::unwrap_used)]

use std::path::Path;

use mergeplan_core::execute::{Options, Prepared, Target};
use mergeplan_core::output::{MemorySink, Region};
use mergeplan_core::plan::Plan;
use mergeplan_core::work::Control;
use safetensors::Dtype;

mod common;
use common::{checkpoint, run_into_memory};

const ROWS: usize = 90;
const COLUMNS: usize = 800;

fn models(folder: &Path) {
    for (name, period) in [("base", 97), ("a", 89), ("b", 83), ("c", 79)] {
        checkpoint(&folder.join(name), &[ROWS, COLUMNS], |i| (i % period) as f32 * 0.01);
    }
}

/// A plan that merges some of the models, each with its weight; the base is model 0.
fn plan(folder: &Path, merge: &str, models: &[(&str, f64)]) -> Plan {
    let paths: Vec<String> = std::iter::once("base")
        .chain(models.iter().map(|(name, _)| *name))
        .map(|name| format!(r#""{}/{name}""#, folder.display()))
        .collect();
    let inputs: Vec<String> = models
        .iter()
        .enumerate()
        .map(|(i, (_, weight))| {
            let options = r#""density":0.4,"gamma":0.1,"epsilon":0.2"#;
            format!(r#"{{"model":{},"tensor":"x","weight":{weight},{options}}}"#, i + 1)
        })
        .collect();
    let text = format!(
        r#"{{"version":1,"seed":3,"allow_nonfinite":false,"max_shard_bytes":5000000000,
            "models":[{}],"jobs":[{{"tensor":"x","shape":[{ROWS},{COLUMNS}],"out_dtype":"BF16",
            "merge":{{{merge},"inputs":[{}]}}}}]}}"#,
        paths.join(","),
        inputs.join(",")
    );
    Plan::from_json(&text).unwrap()
}

fn delta(sparsify: &str, consensus: bool) -> String {
    format!(
        r#""kind":"delta","dtype":"float32","base":{{"model":0,"tensor":"x"}},
           "sparsify":"{sparsify}","rescale":true,"consensus":{consensus},"normalize":true,
           "lambda":0.5"#
    )
}

/// Several subsets by several methods, in an order of no meaning.
fn plans(folder: &Path) -> Vec<Plan> {
    let linear = r#""kind":"linear","dtype":"float32","normalize":true"#.to_owned();
    let mut plans = Vec::new();
    for (sparsify, consensus) in
        [("magnitude", true), ("random", false), ("outliers", true), ("ranks", false)]
    {
        let merge = delta(sparsify, consensus);
        plans.push(plan(folder, &merge, &[("a", 1.0), ("b", 1.0), ("c", 1.0)]));
        plans.push(plan(folder, &merge, &[("c", 1.0)]));
        plans.push(plan(folder, &linear, &[("b", 1.0), ("c", 3.0)]));
        plans.push(plan(folder, &merge, &[("c", 0.5), ("a", 2.0), ("c", 0.25)]));
        plans.push(plan(folder, &merge, &[]));
        plans.push(plan(folder, &linear, &[("a", 1.0)]));
    }
    plans
}

fn alone(folder: &Path) -> Vec<Vec<Vec<u8>>> {
    let options = Options::new(1, 4096, 256 << 20).unwrap();
    let one =
        |plan| run_into_memory(&Prepared::new(plan).unwrap(), 0, options, &Control::default()).1;
    plans(folder).into_iter().map(one).collect()
}

/// Run some plans of a family together.
fn together(prepared: &Prepared, which: &[usize], options: Options) -> Vec<Vec<u8>> {
    let mut tensors = vec![vec![0; 2 * ROWS * COLUMNS]; which.len()];
    let sinks: Vec<MemorySink> = tensors
        .iter_mut()
        .zip(which)
        .map(|(bytes, &plan)| {
            let jobs = &prepared.plans()[plan].jobs;
            MemorySink::new(0, jobs, vec![Region { bytes, dtype: Dtype::BF16 }]).unwrap()
        })
        .collect();
    let targets: Vec<Target> =
        sinks.iter().zip(which).map(|(sink, &plan)| prepared.target(plan, sink)).collect();
    prepared.run(&targets, options, &Control::default()).unwrap();
    drop(sinks);
    tensors
}

#[test]
fn each_merge_is_what_it_is_alone_whatever_runs_beside_and_before_it() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let expected = alone(folder.path());
    let prepared = Prepared::family(plans(folder.path()), &Default::default()).unwrap();
    let all: Vec<usize> = (0..expected.len()).collect();
    let reversed: Vec<usize> = all.iter().rev().copied().collect();
    let least = prepared.forecast(2).unwrap().least_memory_bytes;
    for (threads, memory) in [(1, 256 << 20), (2, least), (7, 1 << 30)] {
        let options = Options::new(threads, 512, memory).unwrap();
        for which in [&all[..], &[3], &reversed, &[1, 0], &[2, 2]] {
            for (tensor, &plan) in together(&prepared, which, options).iter().zip(which) {
                assert_eq!(*tensor, expected[plan][0], "plan {plan} of {which:?}");
            }
        }
    }
}

#[test]
fn one_pass_serves_all_merges_and_later_runs_know_what_the_first_found() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let merge = delta("magnitude", true);
    let subsets: [&[(&str, f64)]; 3] =
        [&[("a", 1.0), ("b", 1.0)], &[("b", 1.0), ("c", 1.0)], &[("a", 1.0), ("c", 1.0)]];
    let plans = subsets.map(|subset| plan(folder.path(), &merge, subset)).to_vec();
    let prepared = Prepared::family(plans, &Default::default()).unwrap();
    let forecast = prepared.forecast(1).unwrap();
    let tensor = (4 * ROWS * COLUMNS) as u64;
    assert_eq!(forecast.input_bytes, 4 * tensor);
    let read = |which: &[usize]| {
        let mut memory = vec![vec![0; 2 * ROWS * COLUMNS]; which.len()];
        let sinks: Vec<MemorySink> = memory
            .iter_mut()
            .map(|bytes| {
                let region = Region { bytes, dtype: Dtype::BF16 };
                MemorySink::new(0, &prepared.plans()[0].jobs, vec![region]).unwrap()
            })
            .collect();
        let targets: Vec<Target> =
            sinks.iter().zip(which).map(|(sink, &plan)| prepared.target(plan, sink)).collect();
        let control = Control::default();
        let options = Options::new(1, 4096, 256 << 20).unwrap();
        prepared.run(&targets, options, &control).unwrap();
        control.read_bytes()
    };
    let first = read(&[0, 1, 2]);
    // Magnitudes, their low bits, norms, and the merges: each goes over base and experts.
    assert!((3 * 4 * tensor..=5 * 4 * tensor).contains(&first), "{first}");
    assert_eq!(read(&[0, 1, 2]), 4 * tensor);
    assert_eq!(read(&[1]), 3 * tensor);
}

#[test]
fn masks_stay_between_runs_where_the_limit_leaves_room() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let expected = alone(folder.path());
    let prepared = Prepared::family(plans(folder.path()), &Default::default()).unwrap();
    let least = prepared.forecast(2).unwrap().least_memory_bytes;
    let run = |which: &[usize], memory| {
        let options = Options::new(2, 4096, memory).unwrap();
        for (tensor, &plan) in together(&prepared, which, options).iter().zip(which) {
            assert_eq!(*tensor, expected[plan][0], "plan {plan} of {which:?} within {memory}");
        }
        prepared.kept_mask_bytes()
    };
    // One bit for each element, in whole groups; by ranks with the limits of a row's ranks too.
    let mask = (ROWS * COLUMNS).div_ceil(512) * 64;
    let (one, drawn) = (run(&[7], 256 << 20), run(&[6, 7, 9], 256 << 20));
    assert_eq!((one, drawn), (mask, 3 * mask));
    assert!(run(&[18, 19, 21], 256 << 20) >= drawn + 3 * mask);
    let all: Vec<usize> = (0..expected.len()).collect();
    assert_eq!(run(&all[1..], least), 0);
    assert!(run(&all, 256 << 20) >= 6 * mask);
    let options = Options { keeps: false, ..Options::new(2, 4096, 256 << 20).unwrap() };
    together(&prepared, &all, options);
    assert_eq!(prepared.kept_mask_bytes(), 0);
}

#[test]
fn memory_of_another_dtype_gets_what_loading_the_file_would_give() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let merge = delta("none", false);
    let prepared = Prepared::new(plan(folder.path(), &merge, &[("a", 1.0), ("b", 1.0)])).unwrap();
    let options = Options::new(1, 4096, 256 << 20).unwrap();
    let (_, stored) = run_into_memory(&prepared, 0, options, &Control::default());
    let jobs = &prepared.plans()[0].jobs;
    let mut wide = vec![0; 4 * ROWS * COLUMNS];
    let sink =
        MemorySink::new(0, jobs, vec![Region { bytes: &mut wide, dtype: Dtype::F32 }]).unwrap();
    prepared.run(&[prepared.target(0, &sink)], options, &Control::default()).unwrap();
    drop(sink);
    for (wide, stored) in wide.chunks_exact(4).zip(stored[0].chunks_exact(2)) {
        assert_eq!([0, 0, stored[0], stored[1]], *wide);
    }
    for (length, dtype) in [(7, Dtype::F32), (2 * ROWS * COLUMNS, Dtype::I16)] {
        let region = Region { bytes: &mut wide[..length], dtype };
        assert!(MemorySink::new(0, jobs, vec![region]).is_err());
    }
}
