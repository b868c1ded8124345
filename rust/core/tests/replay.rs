//! A plan is text: it can be replayed without Python, into files or into memory.

// The helpers below are part of the tests, which may unwrap.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use mergeplan_core::execute::{Options, Prepared};
use mergeplan_core::output::{Block, FileSink, Layout, Sink};
use mergeplan_core::plan::{Merge, Plan};
use mergeplan_core::work::Control;
use mergeplan_core::Error;

mod common;
use common::{checkpoint, run, run_into_memory};

const ELEMENTS: usize = 70_000;

fn plan(folder: &Path, sparsify: &str) -> Plan {
    let text = format!(
        r#"{{"version":1,"seed":3,"allow_nonfinite":false,"max_shard_bytes":5000000000,
            "models":["{0}/base","{0}/a","{0}/b"],
            "jobs":[{{"tensor":"x","shape":[{ELEMENTS}],"out_dtype":"BF16","merge":{{
              "kind":"delta","dtype":"float32","base":{{"model":0,"tensor":"x"}},
              "sparsify":"{sparsify}","rescale":true,"consensus":true,"normalize":true,"lambda":0.5,
              "inputs":[{{"model":1,"tensor":"x","weight":1.0,"density":0.3,"epsilon":0.2}},
                        {{"model":2,"tensor":"x","weight":0.5,"density":0.6,"gamma":0.1}}]}}}}]}}"#,
        folder.display()
    );
    Plan::from_json(&text).unwrap()
}

fn options(threads: usize, chunk: usize) -> Options {
    Options::new(threads, chunk, 256 << 20).unwrap()
}

fn models(folder: &Path) {
    checkpoint(&folder.join("base"), &[ELEMENTS], |i| (i % 97) as f32 * 0.01);
    checkpoint(&folder.join("a"), &[ELEMENTS], |i| (i % 89) as f32 * 0.011);
    checkpoint(&folder.join("b"), &[ELEMENTS], |i| (i % 83) as f32 * 0.012);
}

#[test]
fn memory_and_files_get_the_same_bytes_at_any_thread_count() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    for sparsify in ["none", "magnitude", "outliers", "random", "ranks"] {
        let prepared = Prepared::new(plan(folder.path(), sparsify)).unwrap();
        let layout = Arc::new(Layout::new(&prepared.plans()[0]).unwrap());
        let out = folder.path().join(sparsify);
        std::fs::create_dir(&out).unwrap();
        let control = Control::default();
        let journal = folder.path().join(format!("{sparsify}.journal"));
        let files = FileSink::create(&out, &layout, &journal).unwrap();
        let hashes = run(&prepared, &files, options(1, 4096), &control).unwrap();
        files.finish().unwrap();
        assert_eq!(control.done_bytes(), prepared.forecast(1).unwrap().work_bytes);

        let (again, memory) = run_into_memory(&prepared, 0, options(7, 64), &Control::default());
        assert_eq!(hashes, again);

        let written = std::fs::read(out.join("model.safetensors")).unwrap();
        let place = layout.places[0].offset as usize;
        assert_eq!(written.len() as u64, layout.bytes());
        assert_eq!(written[place..], memory[0]);
    }
}

#[test]
fn no_pass_looks_for_what_is_kept_where_nothing_is() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let mut plan = plan(folder.path(), "outliers");
    let Merge::Delta { inputs, rescale, .. } = &mut plan.jobs[0].merge else { unreachable!() };
    *rescale = false;
    inputs.iter_mut().for_each(|input| input.density = 0.9 / ELEMENTS as f64);
    let prepared = Prepared::new(plan).unwrap();
    let control = Control::default();
    run_into_memory(&prepared, 0, options(1, 4096), &control);
    assert_eq!(control.done_bytes(), prepared.forecast(1).unwrap().input_bytes);
    assert_eq!(control.done_bytes(), prepared.forecast(1).unwrap().work_bytes);
}

#[test]
fn a_resumed_run_keeps_whole_blocks_and_ends_with_the_same_bytes() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let prepared = Prepared::new(plan(folder.path(), "magnitude")).unwrap();
    let layout = Arc::new(Layout::new(&prepared.plans()[0]).unwrap());
    let (out, journal) = (folder.path().join("out"), folder.path().join("journal"));
    std::fs::create_dir(&out).unwrap();
    let merge =
        |sink: &FileSink| run(&prepared, sink, options(1, 4096), &Control::default()).unwrap();
    let hashes = merge(&FileSink::create(&out, &layout, &journal).unwrap());
    let file = out.join("model.safetensors");
    let (whole, records) = (std::fs::read(&file).unwrap(), std::fs::read(&journal).unwrap());
    for keep in 0..=2_usize {
        for damage in [false, true] {
            std::fs::write(&journal, &records[..24 * keep]).unwrap();
            let mut bytes = whole.clone();
            let data = layout.places[0].offset as usize;
            bytes[data] ^= u8::from(damage);
            std::fs::write(&file, &bytes).unwrap();
            let sink = FileSink::resume(&out, &layout, &journal).unwrap();
            assert_eq!(sink.resumed_blocks(), keep - usize::from(damage && keep > 0));
            assert_eq!(merge(&sink), hashes);
            // A damaged block that no record vouches for is written again.
            assert_eq!(std::fs::read(&file).unwrap(), whole);
        }
    }
    std::fs::write(&file, &whole[1..]).unwrap();
    let error = FileSink::resume(&out, &layout, &journal).unwrap_err();
    assert!(matches!(error, Error::Resume { .. }), "{error}");
}

#[test]
fn too_little_memory_is_refused_with_the_least_that_would_do() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let prepared = Prepared::new(plan(folder.path(), "magnitude")).unwrap();
    struct Nowhere;
    impl Sink for Nowhere {
        fn write(&self, _: Block, _: &[u8], _: u64) -> mergeplan_core::Result<()> {
            Ok(())
        }
        fn finish(&self) -> mergeplan_core::Result<()> {
            Ok(())
        }
    }
    let within = |memory| {
        run(&prepared, &Nowhere, Options::new(2, 4096, memory).unwrap(), &Control::default())
    };
    let Err(Error::Memory { needed, limit: 1000 }) = within(1000) else { panic!() };
    assert_eq!(needed, prepared.forecast(2).unwrap().least_memory_bytes);
    assert!(within(needed - 1).is_err());
    assert_eq!(within(needed).unwrap(), within(1 << 30).unwrap());
}

#[test]
fn a_cancelled_run_stops() {
    struct CancelAtFirstWrite<'a>(&'a Control);
    impl Sink for CancelAtFirstWrite<'_> {
        fn write(&self, block: Block, _: &[u8], _: u64) -> mergeplan_core::Result<()> {
            assert_eq!(block.offset, 0, "a second block was written after the cancellation");
            self.0.cancel();
            Ok(())
        }
        fn finish(&self) -> mergeplan_core::Result<()> {
            panic!("a cancelled run must not finish");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let prepared = Prepared::new(plan(folder.path(), "none")).unwrap();
    let control = Control::default();
    let sink = CancelAtFirstWrite(&control);
    let result = run(&prepared, &sink, options(1, 4096), &control);
    assert!(matches!(result, Err(Error::Cancelled)));
}

#[test]
fn plans_that_cannot_run_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let good = serde_json::to_value(plan(folder.path(), "magnitude")).unwrap();
    let refused = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut plan = good.clone();
        change(&mut plan);
        let text = plan.to_string();
        Plan::from_json(&text).and_then(Prepared::new).unwrap_err()
    };
    let job = "/jobs/0";
    let set = |path: &'static str, value: serde_json::Value| {
        move |plan: &mut serde_json::Value| *plan.pointer_mut(path).unwrap() = value.clone()
    };
    assert!(matches!(refused(&set("/version", 2.into())), Error::Plan { .. }));
    let axes = refused(&set("/jobs/0/shape", vec![1; 65].into())).to_string();
    assert!(axes.contains("more than 64 axes"), "{axes}");
    assert!(matches!(refused(&set("/jobs/0/merge/base/model", 9.into())), Error::Plan { .. }));
    assert!(matches!(
        refused(&set("/jobs/0/merge/inputs/0/density", 2.into())),
        Error::Plan { .. }
    ));
    assert!(matches!(refused(&set("/jobs/0/out_dtype", "I8".into())), Error::Plan { .. }));
    let huge = serde_json::json!([1_u64 << 62, 4]);
    assert!(matches!(refused(&set("/jobs/0/shape", huge)), Error::Plan { .. }));
    assert!(matches!(refused(&set("/jobs/0/shape", serde_json::json!([3]))), Error::Shape { .. }));
    let missing = set("/jobs/0/merge/base/tensor", "y".into());
    assert!(matches!(refused(&missing), Error::MissingTensor { tensor, .. } if tensor == "y"));
    let twice = |plan: &mut serde_json::Value| {
        let copy = plan.pointer(job).unwrap().clone();
        plan["jobs"].as_array_mut().unwrap().push(copy);
    };
    assert!(matches!(refused(&twice), Error::Plan { .. }));
}
