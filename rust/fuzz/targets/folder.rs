//! A checkpoint on disk, opened, and every tensor of it hashed.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mergeplan_core::checkpoint::Checkpoint;
use mergeplan_core::compare::content_hashes;
use mergeplan_core::work::Control;

fuzz_target!(|file: &[u8]| {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    std::fs::write(&path, file).expect("a file");
    if let Ok(checkpoint) = Checkpoint::open(&path) {
        let _ = content_hashes(&checkpoint, 1, &Control::default());
    }
});
