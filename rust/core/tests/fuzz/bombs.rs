//! Inputs that cost the most memory for their size.

use std::io::Write;
use std::path::Path;

use mergeplan_core::checkpoint::{header, index, Checkpoint};
use mergeplan_core::plan::Plan;

use crate::run::{full, measured, turn};

/// The largest input that is read: 100 MB for headers and indexes.
fn size() -> usize {
    if full() {
        100_000_000
    } else {
        1 << 20
    }
}

type Bomb = (&'static str, Vec<u8>);

/// Read all; every one must stay within `bound` bytes of memory for each of its own.
fn check(bombs: Vec<Bomb>, bound: f64, read: impl Fn(&[u8]) -> bool) {
    for (name, input) in bombs {
        let (accepted, cost) = measured(|| read(&input));
        let each = cost.peak_bytes as f64 / input.len() as f64;
        let word = if accepted { "accepted" } else { "refused" };
        println!("{name}: {each:.1} bytes for each byte, {:.2?}, {word}", cost.time);
        assert!(each <= bound, "{name}: {each:.1} bytes for each byte");
    }
}

/// A header of about `bytes`: `head`, then `item(number)` as often as it fits, then `tail`.
fn filled(bytes: usize, head: &str, item: impl Fn(usize) -> String, tail: &str) -> Vec<u8> {
    let mut text = head.to_owned();
    let mut number = 0;
    loop {
        let item = item(number);
        if text.len() + item.len() + 1 + tail.len() > bytes {
            break;
        }
        text.push_str(if number > 0 { "," } else { "" });
        text.push_str(&item);
        number += 1;
    }
    (text + tail).into_bytes()
}

fn headers(bytes: usize) -> Vec<Bomb> {
    const TENSOR: &str = r#"{"dtype":"F4","shape":[0],"data_offsets":[0,0]}"#;
    let unknown = r#"{"a":{"dtype":"F4","shape":[0],"data_offsets":[0,0],"b":["#;
    let sides = r#"{"a":{"dtype":"F4","data_offsets":[0,0],"shape":["#;
    let long = |head: &str, tail: &str| {
        (head.to_owned() + &"x".repeat(bytes - head.len() - tail.len()) + tail).into_bytes()
    };
    vec![
        ("tiny tensors", filled(bytes, "{", |i| format!(r#""{i}":{TENSOR}"#), "}")),
        ("one name", filled(bytes, "{", |_| format!(r#""a":{TENSOR}"#), "}")),
        ("empty objects", filled(bytes, unknown, same("{}"), "]}}")),
        ("objects of one field", filled(bytes, unknown, same(r#"{"":0}"#), "]}}")),
        ("arrays of one item", filled(bytes, unknown, same("[0]"), "]}}")),
        ("numbers", filled(bytes, unknown, same("0"), "]}}")),
        ("fields", filled(bytes, r#"{"a":{"#, |i| format!(r#""{i}":0"#), "}}")),
        ("sides", filled(bytes, sides, same("0"), "]}}")),
        ("metadata", filled(bytes, r#"{"__metadata__":{"#, |i| format!(r#""{i}":"""#), "}}")),
        ("depth", "[".repeat(bytes).into_bytes()),
        ("depth of objects", r#"{"a":"#.repeat(bytes / 5).into_bytes()),
        ("a long name", long(r#"{""#, &format!(r#"":{TENSOR}}}"#))),
        ("a long name with a fault", long(r#"{""#, r#"":{"dtype":"F4"}}"#)),
        ("a long dtype", long(r#"{"a":{"dtype":""#, r#""}}"#)),
        ("a long string for a shape", long(r#"{"a":{"shape":""#, r#""}}"#)),
        ("escapes", filled(bytes, r#"{""#, same(r"\u0001"), r#"":{"dtype":"F4"}}"#)),
        ("spaces", b" ".repeat(bytes)),
        ("zeros", vec![0; bytes]),
    ]
}

fn same(item: &'static str) -> impl Fn(usize) -> String {
    move |_| item.to_owned()
}

fn indexes(bytes: usize) -> Vec<Bomb> {
    let map = r#"{"weight_map":{"#;
    vec![
        ("index: one shard", filled(bytes, map, |i| format!(r#""{i}":"s""#), "}}")),
        ("index: many shards", filled(bytes, map, |i| format!(r#""{i}":"{i}""#), "}}")),
        ("index: objects", filled(bytes, r#"{"a":["#, same(r#"{"":0}"#), r#"],"weight_map":{}}"#)),
        ("index: depth", "[".repeat(bytes).into_bytes()),
        ("index: zeros", vec![0; bytes]),
    ]
}

fn plans(bytes: usize) -> Vec<Bomb> {
    let head =
        r#"{"version":1,"seed":7,"allow_nonfinite":false,"max_shard_bytes":0,"models":["a"],"#;
    let (tail, inputs) = ("]}", r#""out_dtype":"F32","merge":{"kind":"copy","inputs":[]}"#);
    let job = |i| format!(r#"{{"tensor":"{i}","shape":[],{inputs}}}"#);
    let within = |start: &str, item: &'static str, end: &str| {
        filled(bytes, &format!("{head}{start}"), same(item), end)
    };
    let shape = r#""jobs":[{"tensor":"a","shape":["#;
    let merge =
        r#""jobs":[{"tensor":"a","shape":[],"out_dtype":"F32","merge":{"kind":"copy","inputs":["#;
    vec![
        ("plan: jobs", filled(bytes, &format!(r#"{head}"jobs":["#), job, tail)),
        ("plan: sides", within(shape, "0", &format!("],{inputs}}}]}}"))),
        ("plan: inputs", within(merge, r#"{"model":0,"tensor":""}"#, "]}}]}")),
        ("plan: inputs of numbers", within(merge, "0", "]}}]}")),
        ("plan: inputs of lists", within(merge, "[0]", "]}}]}")),
        ("plan: inputs of objects", within(merge, r#"{"":0}"#, "]}}]}")),
    ]
}

#[test]
fn no_header_takes_memory_out_of_proportion() {
    let _turn = turn();
    check(headers(size()), 12.0, |json| {
        header::parse(Path::new("f"), json, 8 + json.len() as u64).is_ok()
    });
}

#[test]
fn no_checkpoint_takes_memory_out_of_proportion() {
    let _turn = turn();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    // One more than a header alone: its copy, which is parsed.
    check(headers(size()), 13.1, |json| {
        let mut out = std::fs::File::create(&file).unwrap();
        out.write_all(&(json.len() as u64).to_le_bytes()).unwrap();
        out.write_all(json).unwrap();
        Checkpoint::open(folder.path()).is_ok()
    });
}

#[test]
fn no_index_takes_memory_out_of_proportion() {
    let _turn = turn();
    check(indexes(size()), 64.0, |json| index::parse(Path::new("i"), json).is_ok());
}

#[test]
fn no_plan_takes_memory_out_of_proportion() {
    let _turn = turn();
    check(plans(1 << 20), 64.0, |json| Plan::from_json(std::str::from_utf8(json).unwrap()).is_ok());
}
