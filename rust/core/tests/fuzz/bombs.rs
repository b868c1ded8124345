//! Headers that cost the most memory for their size: what each byte of a header may take.

use std::path::Path;

use mergeplan_core::checkpoint::header;

use crate::run::{full, measured, turn};

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

fn bombs(bytes: usize) -> Vec<(&'static str, Vec<u8>)> {
    const TENSOR: &str = r#"{"dtype":"F4","shape":[0],"data_offsets":[0,0]}"#;
    let unknown = r#"{"a":{"dtype":"F4","shape":[0],"data_offsets":[0,0],"b":["#;
    let sides = r#"{"a":{"dtype":"F4","data_offsets":[0,0],"shape":["#;
    let same = |item: &'static str| move |_| item.to_owned();
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

#[test]
fn no_header_takes_memory_out_of_proportion() {
    let _turn = turn();
    let bytes = if full() { 100_000_000 } else { 1 << 20 };
    let mut worst = 0_f64;
    for (name, json) in bombs(bytes) {
        let read = || header::parse(Path::new("f"), &json, 8 + json.len() as u64).is_ok();
        let (accepted, cost) = measured(read);
        println!(
            "{name}: {:.1} bytes for each byte of the header, {:.2?}, {}",
            cost.peak_bytes as f64 / json.len() as f64,
            cost.time,
            if accepted { "accepted" } else { "refused" }
        );
        worst = worst.max(cost.peak_bytes as f64 / json.len() as f64);
    }
}
