//! `model.safetensors.index.json`.

use std::path::{Component, Path};

use mergeplan_core::checkpoint::index;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::json::Json;
use crate::mutate::{apply, apply_bytes, byte_changes, changes, ByteChange, Change};
use crate::run::{bounded, fuzz};

/// A valid index and what is changed in it.
#[derive(Debug, Clone)]
pub struct Mutant {
    /// Tensors and their shards.
    pub tensors: Vec<(String, &'static str)>,
    metadata: bool,
    changes: Vec<Change>,
    byte_changes: Vec<ByteChange>,
}

pub fn mutants() -> impl Strategy<Value = Mutant> {
    let shard = select(&["s1", "s2", "model-00001-of-00002.safetensors"][..]);
    let numbered = |shards: Vec<&'static str>| {
        shards.into_iter().enumerate().map(|(i, shard)| (format!("w.{i}"), shard)).collect()
    };
    let tensors = vec(shard, 0..5).prop_map(numbered);
    (tensors, any::<bool>(), changes(), byte_changes()).prop_map(
        |(tensors, metadata, changes, byte_changes)| Mutant {
            tensors,
            metadata,
            changes,
            byte_changes,
        },
    )
}

impl Mutant {
    pub fn unchanged(mut self) -> Self {
        self.changes.clear();
        self.byte_changes.clear();
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let tensor = |(name, shard): &(String, &str)| (format!("\"{name}\""), Json::string(shard));
        let map = Json::Object(self.tensors.iter().map(tensor).collect());
        let mut document = Json::object([("weight_map", map)]);
        if let (true, Json::Object(fields)) = (self.metadata, &mut document) {
            let metadata = Json::object([("total_size", Json::token(8))]);
            fields.insert(0, (r#""metadata""#.into(), metadata));
        }
        self.changes.iter().for_each(|change| apply(&mut document, change));
        let mut bytes = document.text().into_bytes();
        self.byte_changes.iter().for_each(|change| apply_bytes(&mut bytes, change));
        bytes
    }
}

fn check(mutant: &Mutant) -> bool {
    let bytes = mutant.bytes();
    let result = bounded(bytes.len(), || index::parse(Path::new("index.json"), &bytes));
    match result {
        Ok(found) => {
            let theirs: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
            let theirs = theirs["weight_map"].as_object().unwrap();
            assert_eq!(theirs.len(), found.tensors.len());
            for (tensor, &shard) in &found.tensors {
                assert_eq!(theirs[tensor], found.shards[shard]);
            }
            assert!(found.shards.is_sorted_by(|a, b| a < b), "{:?}", found.shards);
            for shard in &found.shards {
                let path = Path::new("/folder").join(shard);
                assert_eq!(path.parent(), Some(Path::new("/folder")), "{shard}");
                assert!(matches!(path.components().next_back(), Some(Component::Normal(_))));
                assert!(!shard.contains(['/', '\\', '\0']), "{shard}");
            }
            true
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.len() < 2000, "a message of {} bytes", text.len());
            assert!(!text.contains(char::is_control), "a raw control character: {text:?}");
            let changed = !(mutant.changes.is_empty() && mutant.byte_changes.is_empty());
            assert!(changed, "refused a valid index: {text}");
            false
        }
    }
}

#[test]
fn indexes() {
    fuzz("indexes", 0.2, &mutants(), check, Mutant::bytes);
}
