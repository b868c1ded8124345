//! The index of a checkpoint in shards: which tensor is in which file.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use crate::checkpoint::entries::{Checked, MAX_TENSORS};
use crate::error::{readable, Error, Result};
use crate::plan::is_plain;
use crate::work::check_memory;

/// Bytes of the longest index that is read: as for a header. Real ones have a few megabytes.
pub(crate) const MAX_INDEX: u64 = 100_000_000;

/// Memory that parsing takes for each byte, at the most; `tests/fuzz/bombs.rs` holds that.
const MOST_TIMES: u64 = 64;

/// Shards of one checkpoint: as many as the hub's names with five digits can count.
const MAX_SHARDS: usize = 100_000;

/// A parsed index.
#[derive(Debug)]
pub struct Index {
    /// Names of the shards, sorted; each names a file in the index's own folder.
    pub shards: Vec<String>,
    /// For each tensor the number of its shard.
    pub tensors: BTreeMap<String, usize>,
}

/// Parse an index and check its names.
pub fn parse(path: &Path, json: &[u8]) -> Result<Index> {
    let invalid = |reason: &str| Error::Index { path: path.into(), reason: readable(reason) };
    check_memory(json.len() as u64 * MOST_TIMES)?;
    let Root(WeightMap { shards, mut tensors }) =
        serde_json::from_slice(json).map_err(|error| invalid(&error.to_string()))?;
    let mut sorted: Vec<(String, usize)> = shards.into_iter().collect();
    sorted.sort_unstable();
    if let Some((name, _)) = sorted.iter().find(|(name, _)| !is_plain(name)) {
        return Err(invalid(&format!("shard `{}` is not a plain file name", readable(name))));
    }
    let mut places = vec![0; sorted.len()];
    for (place, (_, number)) in sorted.iter().enumerate() {
        places[*number] = place;
    }
    tensors.values_mut().for_each(|number| *number = places[*number]);
    Ok(Index { shards: sorted.into_iter().map(|(name, _)| name).collect(), tensors })
}

struct Root(WeightMap);

impl<'de> Deserialize<'de> for Root {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(RootVisitor)
    }
}

struct RootVisitor;

impl<'de> Visitor<'de> for RootVisitor {
    type Value = Root;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with `weight_map`")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Root, A::Error> {
        let mut weight_map = None;
        while let Some(key) = map.next_key::<String>()? {
            if key != "weight_map" {
                map.next_value::<Checked>()?;
            } else if weight_map.replace(map.next_value()?).is_some() {
                return Err(A::Error::duplicate_field("weight_map"));
            }
        }
        weight_map.map(Root).ok_or_else(|| A::Error::missing_field("weight_map"))
    }
}

/// Shards are numbered as they come: a name is held once, however many tensors are in the file.
#[derive(Default)]
struct WeightMap {
    shards: HashMap<String, usize>,
    tensors: BTreeMap<String, usize>,
}

impl<'de> Deserialize<'de> for WeightMap {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_map(WeightMapVisitor)
    }
}

struct WeightMapVisitor;

impl<'de> Visitor<'de> for WeightMapVisitor {
    type Value = WeightMap;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of file names by tensor")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<WeightMap, A::Error> {
        let mut found = WeightMap::default();
        while let Some((tensor, shard)) = map.next_entry::<String, String>()? {
            let next = found.shards.len();
            let number = *found.shards.entry(shard).or_insert(next);
            if number >= MAX_SHARDS {
                return Err(A::Error::custom(format!("more than {MAX_SHARDS} shards")));
            }
            if found.tensors.len() == MAX_TENSORS {
                return Err(A::Error::custom(format!("more than {MAX_TENSORS} tensors")));
            }
            match found.tensors.entry(tensor) {
                Entry::Vacant(place) => place.insert(number),
                Entry::Occupied(twin) => {
                    let reason = format!("`{}` stands twice", readable(twin.key()));
                    return Err(A::Error::custom(reason));
                }
            };
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(json: &str) -> String {
        match parse(Path::new("i"), json.as_bytes()) {
            Err(Error::Index { reason, .. }) => reason,
            other => panic!("{json}: {other:?}"),
        }
    }

    #[test]
    fn shards_are_sorted_and_tensors_know_theirs() {
        let json = br#"{"metadata":{"total_size":8,"more":[1]},
                        "weight_map":{"c":"s2","a":"s1","b":"s2"}}"#;
        let index = parse(Path::new("i"), json).unwrap();
        assert_eq!(index.shards, ["s1", "s2"]);
        let tensors: Vec<_> = index.tensors.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!(tensors, [("a", 0), ("b", 1), ("c", 1)]);
    }

    #[test]
    fn only_names_of_files_in_the_folder_are_taken() {
        for name in [
            "",
            ".",
            "..",
            "/",
            "../s",
            "/etc/passwd",
            "a/b",
            "s/",
            "s/.",
            "./s",
            r"a\\b",
            r"..\\s",
            "s.",
            "s ",
            r"s\u0000",
            r"\u001b[31m",
            r"s\n",
        ] {
            let reason = refusal(&format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#));
            assert!(reason.contains("plain") && !reason.contains(char::is_control), "{reason:?}");
        }
        for name in ["model-00001-of-00002.safetensors", "s.1", "モデル", ".hidden"] {
            let json = format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#);
            assert_eq!(parse(Path::new("i"), json.as_bytes()).unwrap().shards, [name]);
        }
    }

    #[test]
    fn endless_shards_are_refused() {
        let shards: Vec<String> = (0..=MAX_SHARDS).map(|i| format!(r#""{i}":"{i}""#)).collect();
        let reason = refusal(&format!(r#"{{"weight_map":{{{}}}}}"#, shards.join(",")));
        assert!(reason.contains("more than 100000 shards"));
    }

    #[test]
    fn an_index_is_an_object_that_says_everything_once() {
        for json in [
            "",
            "[]",
            r#"[{"a":"s"}]"#,
            "{}",
            r#"{"weight_map":null}"#,
            r#"{"weight_map":["s"]}"#,
            r#"{"weight_map":{"a":1}}"#,
            r#"{"weight_map":{},"weight_map":{}}"#,
            r#"{"weight_map":{"a":"s1","a":"s2"}}"#,
            r#"{"weight_map":{}}x"#,
            r#"{"metadata":1e400,"weight_map":{}}"#,
        ] {
            refusal(json);
        }
        assert!(refusal(r#"{"weight_map":{"a":"s1","\u0061":"s1"}}"#).contains("`a` stands twice"));
    }
}
