//! Inner products in place of tensors: those of the tensors that a merge gives, to the last bit whatever
//! runs beside.

#![allow(clippy::unwrap_used)]

use mergeplan_core::execute::{Options, Prepared, Target};
use mergeplan_core::output::{ProductSink, Sink, Vector};
use mergeplan_core::plan::Plan;
use mergeplan_core::work::Control;
use safetensors::Dtype;

mod common;
use common::{checkpoint, run_into_memory};

/// More than a block of 65,536, and no multiple of what is widened at a time.
const SHAPE: [usize; 2] = [301, 701];
const LEN: usize = SHAPE[0] * SHAPE[1];

fn models(folder: &std::path::Path) {
    for (name, period) in [("base", 97), ("a", 89), ("b", 83)] {
        checkpoint(&folder.join(name), &SHAPE, |i| (i % period) as f32 * 0.01);
    }
}

fn plan(folder: &std::path::Path, out_dtype: &str, slope: &str) -> Plan {
    let path = |name| format!(r#""{}/{name}""#, folder.display());
    let input = |model| format!(r#"{{"model":{model},"tensor":"x","weight":1.0,"density":0.4}}"#);
    Plan::from_json(&format!(
        r#"{{"version":1,"seed":3,"allow_nonfinite":false,"max_shard_bytes":5000000000,
            "models":[{},{},{}],"jobs":[{{"tensor":"x","shape":[{},{}],"out_dtype":"{out_dtype}",
            "merge":{{"kind":"delta","dtype":"float32","base":{{"model":0,"tensor":"x"}},
            "sparsify":"magnitude","rescale":false,"consensus":true,"normalize":true,
            "lambda":0.5,"inputs":[{},{}]{slope}}}}}]}}"#,
        path("base"),
        path("a"),
        path("b"),
        SHAPE[0],
        SHAPE[1],
        input(1),
        input(2)
    ))
    .unwrap()
}

fn products(prepared: &Prepared, vectors: Vec<Vector>, threads: usize, chunk: usize) -> Vec<f64> {
    let sink = ProductSink::new(0, &prepared.plans()[0].jobs, vec![vectors]).unwrap();
    let options = Options::new(threads, chunk, 256 << 20).unwrap();
    let target = Target { plan: 0, jobs: 0..1, sink: &sink as &dyn Sink };
    prepared.run(&[target], options, &Control::default()).unwrap();
    sink.products().remove(0)
}

fn values(seed: u64) -> Vec<f32> {
    (0..LEN as u64).map(|i| ((i * seed) % 1009) as f32 / 512.0 - 1.0).collect()
}

#[test]
fn products_are_those_of_the_output_in_every_dtype_and_at_any_number_of_threads() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let narrow: Vec<u8> = values(7).iter().flat_map(|v| v.to_le_bytes()).collect();
    let wide: Vec<u8> = values(7).iter().flat_map(|v| f64::from(*v).to_le_bytes()).collect();
    let other: Vec<u8> = values(11).iter().flat_map(|v| v.to_le_bytes()).collect();
    for out_dtype in ["F32", "BF16"] {
        let prepared = Prepared::new(plan(folder.path(), out_dtype, "")).unwrap();
        let options = Options::new(1, 4096, 256 << 20).unwrap();
        let tensor = run_into_memory(&prepared, 0, options, &Control::default()).1.remove(0);
        let size = tensor.len() / LEN;
        let value = |bytes: &[u8]| match size {
            4 => f32::from_le_bytes(bytes.try_into().unwrap()),
            _ => f32::from_bits(u32::from(u16::from_le_bytes(bytes.try_into().unwrap())) << 16),
        };
        let expected = |seed| -> f64 {
            let pairs = tensor.chunks(size).zip(values(seed));
            pairs.map(|(bytes, vector)| f64::from(value(bytes)) * f64::from(vector)).sum()
        };
        let vectors = || {
            vec![
                Vector { bytes: &narrow, dtype: Dtype::F32 },
                Vector { bytes: &wide, dtype: Dtype::F64 },
                Vector { bytes: &other, dtype: Dtype::F32 },
            ]
        };
        let found = products(&prepared, vectors(), 1, 4096);
        assert!((found[0] - expected(7)).abs() < 1e-9 * LEN as f64, "{found:?}");
        assert!((found[2] - expected(11)).abs() < 1e-9 * LEN as f64, "{found:?}");
        assert_eq!(found[0].to_bits(), found[1].to_bits());
        for (threads, chunk) in [(2, 64), (7, 65_536)] {
            assert_eq!(products(&prepared, vectors(), threads, chunk), found);
        }
        assert!(products(&prepared, vec![], 1, 4096).is_empty());
    }
}

#[test]
fn slopes_have_no_base_and_vectors_that_do_not_fit_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    models(folder.path());
    let ones: Vec<u8> = std::iter::repeat_n(1.0_f32.to_le_bytes(), LEN).flatten().collect();
    let vector = Vector { bytes: &ones, dtype: Dtype::F32 };
    let slope = |along: usize| {
        let plan = plan(folder.path(), "F32", &format!(r#","slope":{along}"#));
        Prepared::new(plan)
    };
    // Of weights 1 and 1 the quotient does not move where both are made more: homogeneous of degree 0.
    // Signs do not change then either, but votes near zero count as if some did, this way and that.
    let moved: f64 = [0, 1]
        .iter()
        .map(|&along| products(&slope(along).unwrap(), vec![vector], 2, 4096)[0])
        .sum();
    assert!(moved.abs() < 1e-4 * LEN as f64, "{moved}");
    // Along lambda it is what a merge adds to the base, at a lambda of 1.
    let mixed = Prepared::new(plan(folder.path(), "F32", r#","mixed":true"#)).unwrap();
    let merged = Prepared::new(plan(folder.path(), "F32", "")).unwrap();
    let whole =
        run_into_memory(&merged, 0, Options::new(1, 4096, 256 << 20).unwrap(), &Control::default());
    let merged: f64 = whole.1[0]
        .chunks(4)
        .map(|bytes| f64::from(f32::from_le_bytes(bytes.try_into().unwrap())))
        .sum();
    let base: f64 = (0..LEN).map(|i| f64::from((i % 97) as f32 * 0.01)).sum();
    let along = products(&mixed, vec![vector], 2, 4096)[0];
    assert!((0.5 * along - (merged - base)).abs() < 1e-6 * LEN as f64, "{along}");
    assert!(slope(2).is_err_and(|error| error.to_string().contains("along no input")));
    let prepared = slope(0).unwrap();
    let jobs = &prepared.plans()[0].jobs;
    for wrong in [
        Vector { bytes: &ones[4..], dtype: Dtype::F32 },
        Vector { bytes: &ones, dtype: Dtype::F64 },
        Vector { bytes: &ones, dtype: Dtype::I32 },
    ] {
        assert!(ProductSink::new(0, jobs, vec![vec![wrong]]).is_err());
    }
    assert!(ProductSink::new(0, jobs, vec![]).is_err());
}
