//! The content hashes of a checkpoint's tensors, to be held against a manifest.

use xxhash_rust::xxh3::xxh3_64;

use crate::checkpoint::{Checkpoint, TensorEntry};
use crate::error::Result;
use crate::statistics::content;
use crate::work::{over_runs, pieces, Control, BLOCK};

/// Name and content hash of every tensor, in the order in which they lie in the files.
///
/// A tensor of any dtype is hashed over blocks of 65,536 elements: a block is a whole number of
/// bytes even where an element is not.
///
/// # Errors
/// [`crate::Error::Io`], [`crate::Error::Cancelled`].
pub fn content_hashes(
    checkpoint: &Checkpoint,
    threads: usize,
    control: &Control,
) -> Result<Vec<(String, u64)>> {
    let mut tensors: Vec<TensorEntry> = checkpoint.tensors().iter().collect();
    tensors.sort_by_key(|entry| (entry.shard, entry.offset));
    let lengths: Vec<usize> = tensors.iter().map(TensorEntry::len).collect();
    let hashes = over_runs(&lengths, threads, |number, run| {
        let entry = tensors[number];
        let bits = entry.dtype.bitsize();
        let mut scratch = Vec::new();
        let mut hashes = Vec::with_capacity(run.len().div_ceil(BLOCK));
        for block in pieces(run, BLOCK) {
            control.check()?;
            let offset = entry.offset + (block.start * bits / 8) as u64;
            let length = (block.len() * bits).div_ceil(8);
            let bytes = checkpoint.shards()[entry.shard].read(offset, length, &mut scratch)?;
            hashes.push(xxh3_64(bytes));
            control.add(length);
        }
        Ok(hashes)
    })?;
    let names = tensors.iter().map(|entry| entry.name.to_owned());
    Ok(names.zip(hashes.iter().map(|runs| content::combine(&runs.concat()))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_whole_tensors_whatever_the_threads() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let elements = 17 * BLOCK + 5;
        let data: Vec<u8> = (0..3 * elements + 9).map(|i| (i * i % 251) as u8).collect();
        let header = format!(
            r#"{{"b":{{"dtype":"BF16","shape":[{elements}],"data_offsets":[0,{0}]}},
                "i":{{"dtype":"I8","shape":[{elements}],"data_offsets":[{0},{1}]}},
                "s":{{"dtype":"U64","shape":[],"data_offsets":[{1},{2}]}},
                "e":{{"dtype":"F32","shape":[0,3],"data_offsets":[{2},{2}]}},
                "f":{{"dtype":"F4","shape":[2],"data_offsets":[{2},{3}]}}}}"#,
            2 * elements,
            3 * elements,
            3 * elements + 8,
            3 * elements + 9,
        );
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&data);
        std::fs::write(&path, bytes).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        let (b, i) = (&data[..2 * elements], &data[2 * elements..3 * elements]);
        let tail = &data[3 * elements..];
        for threads in [1, 3] {
            let control = Control::default();
            let mut found = content_hashes(&checkpoint, threads, &control).unwrap();
            found.sort();
            let expected = [
                ("b", content::hash(b, 2)),
                ("e", content::hash(&[], 4)),
                ("f", content::hash(&tail[8..], 1)),
                ("i", content::hash(i, 1)),
                ("s", content::hash(&tail[..8], 8)),
            ];
            assert_eq!(found, expected.map(|(name, hash)| (name.to_owned(), hash)));
            assert_eq!(control.done_bytes(), data.len() as u64);
        }
    }
}
