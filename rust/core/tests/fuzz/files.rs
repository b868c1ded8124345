//! Checkpoints on disk: whole folders, with shards, indexes and links.

use std::path::Path;

use mergeplan_core::checkpoint::Checkpoint;
use proptest::prelude::*;

use crate::header::{bits, elements};
use crate::run::{bounded, full, fuzz};
use crate::{header, index};

const INDEX: &str = "model.safetensors.index.json";

/// One file alone, or two with their index.
type Mutant = (header::Mutant, Option<(header::Mutant, index::Mutant)>);

/// Most files of a folder stay whole, or no folder would ever be accepted.
fn mutants() -> impl Strategy<Value = Mutant> {
    let whole = || header::mutants().prop_map(header::Mutant::unchanged);
    let file = || prop_oneof![1 => header::mutants(), 2 => whole()];
    let sharded = (file(), index::mutants(), any::<bool>());
    (file(), proptest::option::weighted(0.7, sharded)).prop_map(|(first, sharded)| {
        let sharded = sharded.map(|(mut second, mut index, whole)| {
            second.first = 10;
            let shard = |name: &'static str| move |tensor: String| (tensor, name);
            index.tensors = first.names().map(shard("s1")).collect();
            index.tensors.extend(second.names().map(shard("s2")));
            (second, if whole { index.unchanged() } else { index })
        });
        (first, sharded)
    })
}

/// What the files of a mutant hold; a file that is only a length is a sparse one.
fn write(folder: &Path, (first, sharded): &Mutant) -> usize {
    let write = |name: &str, file: &header::File| {
        let path = folder.join(name);
        std::fs::write(&path, &file.bytes).unwrap();
        // Lengths that a file system takes; longer ones stay cut off.
        if file.length < 1 << 40 {
            std::fs::File::options().write(true).open(&path).unwrap().set_len(file.length).unwrap();
        }
        file.bytes.len()
    };
    let _ = std::fs::remove_file(folder.join(INDEX));
    match sharded {
        None => write("model.safetensors", &first.file()),
        Some((second, index)) => {
            let index = index.bytes();
            std::fs::write(folder.join(INDEX), &index).unwrap();
            index.len() + write("s1", &first.file()) + write("s2", &second.file())
        }
    }
}

fn check(folder: &Path, mutant: &Mutant) -> bool {
    let bytes = write(folder, mutant);
    let Ok(checkpoint) = bounded(bytes, || Checkpoint::open(folder)) else { return false };
    for tensor in checkpoint.tensors().iter() {
        let name = tensor.name;
        let shard = &checkpoint.shards()[tensor.shard];
        assert_eq!(shard.path().parent(), Some(folder));
        let end = tensor.offset.checked_add(tensor.bytes).unwrap();
        assert!(tensor.offset >= 10 && end <= shard.len(), "`{name}` is outside its file");
        assert_eq!(elements(tensor.shape) * bits(tensor.dtype), 8 * u128::from(tensor.bytes));
        assert_eq!(tensor.len() as u128, elements(tensor.shape));
        if tensor.bytes <= 1 << 20 {
            let read = |scratch: &mut Vec<u8>| {
                shard.read(tensor.offset, tensor.bytes as usize, scratch).unwrap().len()
            };
            assert_eq!(read(&mut Vec::new()) as u64, tensor.bytes);
        }
    }
    true
}

#[test]
fn files() {
    let folder = tempfile::tempdir().unwrap();
    let dump = |(first, sharded): &Mutant| match sharded {
        None => first.file().bytes,
        Some((second, index)) => [index.bytes(), first.file().bytes, second.file().bytes].concat(),
    };
    // A folder takes a hundred times as long as bytes in memory.
    let share = if full() { 0.002 } else { 0.02 };
    fuzz("files", share, &mutants(), |mutant| check(folder.path(), mutant), dump);
}
