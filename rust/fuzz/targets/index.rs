//! The index of a checkpoint in shards.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use mergeplan_core::checkpoint::index;

fuzz_target!(|json: &[u8]| {
    if let Ok(found) = index::parse(Path::new("i"), json) {
        assert!(found.shards.iter().all(|name| !name.contains(['/', '\0'])));
        assert!(found.tensors.values().all(|&shard| shard < found.shards.len()));
    }
});
