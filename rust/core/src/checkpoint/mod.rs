//! A checkpoint on disk: one safetensors file, or shards with an index.

mod header;
mod reader;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use safetensors::Dtype;

pub use reader::{Identity, Reader};

use crate::error::{Error, Result};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Where a tensor lies.
#[derive(Debug, Clone)]
pub struct TensorEntry {
    /// Element type.
    pub dtype: Dtype,
    /// Sides, outermost first; empty for a scalar.
    pub shape: Vec<usize>,
    /// Number of the shard in [`Checkpoint::shards`].
    pub shard: usize,
    /// First byte, from the start of the shard.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl TensorEntry {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The headers of a checkpoint, with its files open.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    shards: Vec<Reader>,
    tensors: BTreeMap<String, TensorEntry>,
}

impl Checkpoint {
    /// Open a folder that holds `model.safetensors` or `model.safetensors.index.json` with its
    /// shards, as the hub lays checkpoints out. As in mergekit, an index wins over a single file.
    /// A path that is a file is opened as a checkpoint of that one safetensors file.
    ///
    /// # Errors
    /// Every fault that shows in headers or index: missing or truncated files, overlapping or
    /// doubled tensors, shards that do not hold what the index says.
    pub fn open(path: &Path) -> Result<Self> {
        let index = path.join(INDEX);
        let mut checkpoint = Self { path: path.into(), shards: vec![], tensors: BTreeMap::new() };
        if path.is_file() {
            checkpoint.add_shard(path)?;
        } else if index.exists() {
            checkpoint.open_shards(&index)?;
        } else if path.join(SINGLE).exists() {
            checkpoint.add_shard(&path.join(SINGLE))?;
        } else if path.exists() {
            return Err(Error::NoCheckpoint { path: path.into() });
        } else {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(Error::Io { path: path.into(), action: "open", source });
        }
        Ok(checkpoint)
    }

    /// The folder, or the single file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The open files.
    pub fn shards(&self) -> &[Reader] {
        &self.shards
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorEntry> {
        &self.tensors
    }

    /// One tensor.
    ///
    /// # Errors
    /// [`Error::MissingTensor`]
    pub fn tensor(&self, name: &str) -> Result<&TensorEntry> {
        self.tensors
            .get(name)
            .ok_or_else(|| Error::MissingTensor { path: self.path.clone(), tensor: name.into() })
    }

    fn open_shards(&mut self, index: &Path) -> Result<()> {
        let invalid = |reason: String| Error::Index { path: index.into(), reason };
        let text = std::fs::read(index).map_err(|source| Error::Io {
            path: index.into(),
            action: "read",
            source,
        })?;
        #[derive(serde::Deserialize)]
        struct Index {
            weight_map: BTreeMap<String, String>,
        }
        let Index { weight_map } =
            serde_json::from_slice(&text).map_err(|error| invalid(error.to_string()))?;
        let mut names: Vec<&String> = weight_map.values().collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let mut parts = Path::new(name).components();
            let plain =
                matches!(parts.next(), Some(Component::Normal(_))) && parts.next().is_none();
            if !plain {
                return Err(invalid(format!("shard `{name}` is not a plain file name")));
            }
            self.add_shard(&self.path.join(name))?;
        }
        for (tensor, shard) in &weight_map {
            let found = self.tensors.get(tensor).map(|entry| self.shards[entry.shard].path());
            if found != Some(&self.path.join(shard)) {
                return Err(invalid(format!("tensor `{tensor}` is not in `{shard}`")));
            }
        }
        // As mergekit does: a tensor that the index does not list is not part of the checkpoint.
        self.tensors.retain(|name, _| weight_map.contains_key(name));
        Ok(())
    }

    fn add_shard(&mut self, path: &Path) -> Result<()> {
        let reader = Reader::open(path)?;
        let mut scratch = Vec::new();
        let prefix = (reader.len() >= header::PREFIX)
            .then(|| reader.read(0, 8, &mut scratch))
            .transpose()?
            .and_then(|bytes| <[u8; 8]>::try_from(bytes).ok())
            .unwrap_or([0xff; 8]);
        let json_bytes = header::json_length(path, prefix, reader.len())?;
        let json = reader.read(header::PREFIX, json_bytes as usize, &mut scratch)?;
        for (name, info) in header::parse(path, json, reader.len())? {
            let entry = TensorEntry {
                dtype: info.dtype,
                shape: info.shape,
                shard: self.shards.len(),
                offset: header::PREFIX + json_bytes + info.data_offsets.0 as u64,
                bytes: (info.data_offsets.1 - info.data_offsets.0) as u64,
            };
            if self.tensors.insert(name.clone(), entry).is_some() {
                let reason = format!("tensor `{name}` stands in another shard too");
                return Err(Error::HeaderJson { path: path.into(), reason });
            }
        }
        self.shards.push(reader);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(path: &Path, json: &str, data: &[u8]) {
        let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
        bytes.extend_from_slice(json.as_bytes());
        bytes.extend_from_slice(data);
        std::fs::write(path, bytes).unwrap();
    }

    const ONE: &str = r#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}"#;

    #[test]
    fn shard_names_that_leave_the_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["../x.safetensors", "/etc/passwd", "a/b", "."] {
            let index = format!(r#"{{"weight_map":{{"a":"{name}"}}}}"#);
            std::fs::write(folder.path().join(INDEX), index).unwrap();
            let error = Checkpoint::open(folder.path()).unwrap_err();
            assert!(
                matches!(&error, Error::Index { reason, .. } if reason.contains("plain")),
                "{error}"
            );
        }
    }

    #[test]
    fn an_index_must_name_the_shard_that_holds_the_tensor() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("s1"), ONE, &[0; 4]);
        std::fs::write(folder.path().join(INDEX), r#"{"weight_map":{"a":"s1","b":"s1"}}"#).unwrap();
        assert!(matches!(Checkpoint::open(folder.path()).unwrap_err(), Error::Index { .. }));
        std::fs::write(folder.path().join(INDEX), r#"{"weight_map":{"a":"s1"}}"#).unwrap();
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert_eq!(checkpoint.tensor("a").unwrap().len(), 2);
        assert!(checkpoint.tensor("b").is_err());
    }

    #[test]
    fn one_file_is_a_checkpoint_whatever_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, ONE, &[0; 4]);
        let checkpoint = Checkpoint::open(&path).unwrap();
        assert_eq!(checkpoint.tensors().len(), 1);
        assert_eq!(checkpoint.shards()[0].path(), path);
    }

    #[test]
    fn an_empty_file_and_an_empty_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(Checkpoint::open(folder.path()).unwrap_err(), Error::NoCheckpoint { .. }));
        std::fs::write(folder.path().join(SINGLE), b"").unwrap();
        assert!(matches!(Checkpoint::open(folder.path()).unwrap_err(), Error::HeaderLength { .. }));
    }
}
