//! Changes to a valid document, in its structure and in its bytes. proptest draws them and, on a
//! failure, drops all that do not matter.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{select, Index};

use crate::json::Json;

/// Where numbers change their nature, and what is no number or none that JSON knows.
const NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "-0",
    "2",
    "3",
    "4",
    "5",
    "7",
    "8",
    "16",
    "255",
    "65536",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9007199254740992",
    "9007199254740993",
    "1152921504606846975",
    "1152921504606846976",
    "2305843009213693951",
    "2305843009213693952",
    "4611686018427387904",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551608",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "1.0",
    "0.5",
    "1e0",
    "1e3",
    "1e308",
    "1e400",
    "-1e400",
    "1e-400",
    "NaN",
    "Infinity",
    "01",
    "+1",
    ".5",
    "0x10",
    "null",
    "true",
    "[]",
    "{}",
    "[0]",
    "{\"F32\":null}",
    "",
];

/// Names of every kind: dtypes, shards, keys that mean something, escapes, and what is no string.
const STRINGS: &[&str] = &[
    r#""""#,
    r#""a""#,
    r#""\u0061""#,
    r#""b""#,
    r#""w.0""#,
    r#""é""#,
    r#""日本""#,
    r#""😀""#,
    r#""\ud83d\ude00""#,
    r#""\ud800""#,
    r#""\udc00x""#,
    r#""\u0000""#,
    r#""a\u0000b""#,
    r#""\u202e""#,
    r#""\n\t\"\\""#,
    r#""\x""#,
    "\"\u{0}\"",
    "\"\u{1b}[31m\"",
    r#"".""#,
    r#""..""#,
    r#""/""#,
    r#""../s1""#,
    r#""a/b""#,
    r#""s1/""#,
    r#""s1/.""#,
    r#""./s1""#,
    r#""a\\b""#,
    r#""s1.""#,
    r#""s1 ""#,
    r#""/etc/passwd""#,
    r#""C:\\x""#,
    r#""CON""#,
    r#""NUL""#,
    r#""s1""#,
    r#""s2""#,
    r#""model.safetensors""#,
    r#""model.safetensors.index.json""#,
    r#""pytorch_model.bin""#,
    r#""__metadata__""#,
    r#""weight_map""#,
    r#""metadata""#,
    r#""dtype""#,
    r#""shape""#,
    r#""data_offsets""#,
    r#""F32""#,
    r#""BF16""#,
    r#""F16""#,
    r#""F64""#,
    r#""F4""#,
    r#""F6_E2M3""#,
    r#""F6_E3M2""#,
    r#""F8_E4M3""#,
    r#""F8_E5M2""#,
    r#""F8_E8M0""#,
    r#""BOOL""#,
    r#""C64""#,
    r#""I64""#,
    r#""U8""#,
    r#""f32""#,
    r#""F128""#,
    r#""float32""#,
    r#""copy""#,
    r#""linear""#,
    r#""delta""#,
    r#""random""#,
    r#""magnitude""#,
    "null",
    "1",
    "[]",
    "{}",
    "\"",
];

/// One change to the tree. Indexes are fractions of whatever number of places there is.
#[derive(Debug, Clone)]
pub enum Change {
    Token {
        at: Index,
        with: &'static str,
    },
    Number {
        at: Index,
        with: u64,
    },
    LongString {
        at: Index,
        bytes: usize,
    },
    Rename {
        at: Index,
        with: &'static str,
    },
    Remove {
        at: Index,
    },
    /// A field or an item stands `times` more often, with the same key.
    Repeat {
        at: Index,
        times: usize,
    },
    /// As [`Change::Repeat`], with a key of its own for each.
    Multiply {
        at: Index,
        times: usize,
    },
    Swap {
        a: Index,
        b: Index,
    },
    Copy {
        from: Index,
        to: Index,
    },
    Nest {
        at: Index,
        depth: usize,
        object: bool,
    },
}

/// One change to the text.
#[derive(Debug, Clone)]
pub enum ByteChange {
    Flip { at: Index, bit: u8 },
    Set { at: Index, byte: u8 },
    Insert { at: Index, byte: u8 },
    Truncate { at: Index },
    Extend { bytes: Vec<u8> },
}

pub fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<Index>;
    let change = prop_oneof![
        8 => (at(), select(NUMBERS)).prop_map(|(at, with)| Change::Token { at, with }),
        6 => (at(), select(STRINGS)).prop_map(|(at, with)| Change::Token { at, with }),
        4 => (at(), prop_oneof![0_u64..64, any::<u64>()])
            .prop_map(|(at, with)| Change::Number { at, with }),
        5 => (at(), select(STRINGS)).prop_map(|(at, with)| Change::Rename { at, with }),
        3 => at().prop_map(|at| Change::Remove { at }),
        3 => (at(), 1_usize..3).prop_map(|(at, times)| Change::Repeat { at, times }),
        2 => (at(), 1_usize..20).prop_map(|(at, times)| Change::Multiply { at, times }),
        3 => (at(), at()).prop_map(|(a, b)| Change::Swap { a, b }),
        3 => (at(), at()).prop_map(|(from, to)| Change::Copy { from, to }),
        2 => (at(), 1_usize..200, any::<bool>())
            .prop_map(|(at, depth, object)| Change::Nest { at, depth, object }),
    ];
    // Large ones cost a hundred times as much as the others together and are drawn seldom.
    let large = prop_oneof![
        (at(), 1_usize..100_000).prop_map(|(at, bytes)| Change::LongString { at, bytes }),
        (at(), 1_usize..2000).prop_map(|(at, times)| Change::Repeat { at, times }),
        (at(), 1_usize..2000).prop_map(|(at, times)| Change::Multiply { at, times }),
        (at(), 1_usize..5000, any::<bool>()).prop_map(|(at, depth, object)| Change::Nest {
            at,
            depth,
            object
        }),
    ];
    vec(prop_oneof![400 => change, 1 => large], 0..6)
}

pub fn byte_changes() -> impl Strategy<Value = Vec<ByteChange>> {
    let at = any::<Index>;
    let change = prop_oneof![
        4 => (at(), 0_u8..8).prop_map(|(at, bit)| ByteChange::Flip { at, bit }),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| ByteChange::Set { at, byte }),
        2 => (at(), any::<u8>()).prop_map(|(at, byte)| ByteChange::Insert { at, byte }),
        1 => at().prop_map(|at| ByteChange::Truncate { at }),
        1 => vec(any::<u8>(), 0..9).prop_map(|bytes| ByteChange::Extend { bytes }),
    ];
    // Most mutants stay whole JSON, so that what lies behind the parser is reached.
    prop_oneof![3 => Just(vec![]), 1 => vec(change, 1..4)]
}

/// Apply a change; one that finds no place changes nothing.
pub fn apply(document: &mut Json, change: &Change) {
    let count = document.count();
    match change {
        Change::Token { at, with } => set(document, at.index(count), Json::token(with)),
        Change::Number { at, with } => set(document, at.index(count), Json::token(with)),
        Change::LongString { at, bytes } => {
            set(document, at.index(count), Json::string(&"x".repeat(*bytes)))
        }
        Change::Rename { at, with } => in_parent(document, at, |parent, i| {
            if let Json::Object(fields) = parent {
                fields[i].0 = (*with).to_owned();
            }
        }),
        Change::Remove { at } => in_parent(document, at, |parent, i| match parent {
            Json::Array(items) => drop(items.remove(i)),
            Json::Object(fields) => drop(fields.remove(i)),
            Json::Token(_) => {}
        }),
        Change::Repeat { at, times } => repeat(document, at, *times, |key, _| key.to_owned()),
        Change::Multiply { at, times } => repeat(document, at, *times, |_, i| format!("\"n{i}\"")),
        Change::Swap { a, b } => {
            let (a, b) = (a.index(count), b.index(count));
            let (Some(one), Some(two)) = (document.at(a).cloned(), document.at(b).cloned()) else {
                return;
            };
            set(document, a.max(b), if a > b { two.clone() } else { one.clone() });
            set(document, a.min(b), if a > b { one } else { two });
        }
        Change::Copy { from, to } => {
            if let Some(value) = document.at(from.index(count)).cloned() {
                set(document, to.index(count), value);
            }
        }
        Change::Nest { at, depth, object } => {
            // Text, not a tree: dropping a deep tree would recurse.
            let (open, close) = if *object { (r#"{"a":"#, "}") } else { ("[", "]") };
            if let Some(value) = document.at(at.index(count)) {
                let (open, close) = (open.repeat(*depth), close.repeat(*depth));
                *value = Json::Token(open + &value.text() + &close);
            }
        }
    }
}

pub fn apply_bytes(bytes: &mut Vec<u8>, change: &ByteChange) {
    match change {
        ByteChange::Flip { at, bit } if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
        }
        ByteChange::Set { at, byte } if !bytes.is_empty() => {
            let at = at.index(bytes.len());
            bytes[at] = *byte;
        }
        ByteChange::Insert { at, byte } => bytes.insert(at.index(bytes.len() + 1), *byte),
        ByteChange::Truncate { at } => bytes.truncate(at.index(bytes.len() + 1)),
        ByteChange::Extend { bytes: more } => bytes.extend(more),
        ByteChange::Flip { .. } | ByteChange::Set { .. } => {}
    }
}

fn set(document: &mut Json, at: usize, value: Json) {
    if let Some(place) = document.at(at) {
        *place = value;
    }
}

/// Call `change` with a parent and the number of one of its children.
fn in_parent(document: &mut Json, at: &Index, change: impl FnOnce(&mut Json, usize)) {
    let count = document.count();
    let first = at.index(count);
    // The first value from there on that has children, or else the root.
    let parents = (first..count).chain([0]).find_map(|i| {
        let children = match document.at(i)? {
            Json::Token(_) => 0,
            Json::Array(items) => items.len(),
            Json::Object(fields) => fields.len(),
        };
        (children > 0).then_some((i, children))
    });
    let Some((i, children)) = parents else { return };
    if let Some(parent) = document.at(i) {
        change(parent, at.index(usize::MAX) % children);
    }
}

fn repeat(document: &mut Json, at: &Index, times: usize, key: impl Fn(&str, usize) -> String) {
    const LARGEST: usize = 20_000;
    in_parent(document, at, |parent, i| match parent {
        Json::Array(items) if items[i].count() * times < LARGEST => {
            let item = items[i].clone();
            items.splice(i..i, std::iter::repeat_n(item, times));
        }
        Json::Object(fields) if fields[i].1.count() * times < LARGEST => {
            let (name, value) = fields[i].clone();
            let more = (0..times).map(|n| (key(&name, n), value.clone())).collect::<Vec<_>>();
            fields.splice(i..i, more);
        }
        _ => {}
    });
}
