//! Opening a checkpoint: one safetensors file, shards with an index, or tensors at known places.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::checkpoint::entries::MAX_TENSORS;
use crate::checkpoint::index::Index;
use crate::checkpoint::tensors::Found;
use crate::checkpoint::{header, index, Identity, Kind, Reader, TensorEntry, Tensors};
use crate::error::{readable, Error, Result};
use crate::plan::{Files, Listed, Model};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const INDEX_ENDING: &str = ".index.json";
/// How a git-lfs pointer begins, and more bytes than one has.
const POINTER: &[u8] = b"version https://git-lfs.github.com/spec/";
const POINTER_BYTES: u64 = 1024;

/// What the files of a checkpoint say of its tensors, and what they were when they said it.
#[derive(Debug)]
pub struct Headers {
    place: PathBuf,
    path: PathBuf,
    files: Vec<Identity>,
    tensors: Tensors,
    unlisted: Vec<String>,
}

/// The headers of a checkpoint, with its files open.
#[derive(Debug)]
pub struct Checkpoint {
    headers: Arc<Headers>,
    shards: Vec<Reader>,
}

/// Headers that were read before, by the place that a plan has for their model.
pub type KnownHeaders = HashMap<PathBuf, Arc<Headers>>;

impl Headers {
    /// What was opened: a folder, an index or a file.
    pub fn place(&self) -> &Path {
        &self.place
    }
}

/// A checkpoint whose files are being opened.
#[derive(Debug, Default)]
pub(super) struct Opening {
    pub(super) shards: Vec<Reader>,
    pub(super) tensors: Found,
}

impl Opening {
    /// # Errors
    /// [`Error::HeaderJson`]: a tensor is in two files.
    pub(super) fn done(self, place: &Path, index: Option<&Index>) -> Result<Checkpoint> {
        let Self { shards, tensors } = self;
        let tensors = tensors.sorted().map_err(|(tensor, shard)| Error::HeaderJson {
            path: shards[shard].path().into(),
            reason: format!("tensor `{}` stands in another shard too", readable(&tensor)),
        })?;
        let listed = |name: &str| index.is_none_or(|index| index.tensors.contains_key(name));
        let unlisted = tensors.iter().map(|entry| entry.name).filter(|name| !listed(name));
        let path = index.and(place.parent()).unwrap_or(place);
        let headers = Headers {
            place: place.into(),
            path: path.into(),
            files: shards.iter().map(|shard| shard.identity().clone()).collect(),
            unlisted: unlisted.map(str::to_owned).collect(),
            tensors,
        };
        Ok(Checkpoint { headers: Arc::new(headers), shards })
    }
}

impl Checkpoint {
    /// Open an index with its shards, one safetensors file, or a folder that holds
    /// `model.safetensors.index.json` or else `model.safetensors`.
    ///
    /// What an index does not list is read too, as transformers does: a shard belongs to the
    /// checkpoint with all that it holds.
    ///
    /// # Errors
    /// Every fault that shows in headers or index: missing or truncated files, overlapping or
    /// doubled tensors, shards that do not hold what the index says.
    pub fn open(path: &Path) -> Result<Self> {
        let index = path.join(INDEX);
        if path.is_file() && path.to_string_lossy().ends_with(INDEX_ENDING) {
            Self::indexed(path)
        } else if path.is_file() {
            Self::of_files(path, [path])
        } else if index.exists() {
            Self::indexed(&index)
        } else if path.join(SINGLE).exists() {
            Self::of_files(path, [path.join(SINGLE).as_path()])
        } else if path.exists() {
            Err(Error::NoCheckpoint { path: path.into() })
        } else {
            let source = std::io::ErrorKind::NotFound.into();
            Err(Error::Io { path: path.into(), action: "open", source })
        }
    }

    /// Open the files of headers that were read before, without reading them again.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::FileKind`]; [`Error::InputChanged`] for a file that is no longer what it
    /// was.
    pub fn reopen(headers: &Arc<Headers>) -> Result<Self> {
        let reopen = |was: &Identity| Reader::open(&was.path)?.expect(was);
        let shards = headers.files.iter().map(reopen).collect::<Result<_>>()?;
        Ok(Self { headers: headers.clone(), shards })
    }

    /// What was read of its files.
    pub fn headers(&self) -> &Arc<Headers> {
        &self.headers
    }

    /// Open a model of a plan that is stored.
    ///
    /// # Errors
    /// As for [`Checkpoint::open`]; [`Error::Plan`] for a model that is derived.
    pub fn of(model: &Model) -> Result<Self> {
        match model {
            Model::Folder(path) => Self::open(path),
            Model::Files(Files { path, files }) => {
                Self::of_files(path, files.iter().map(PathBuf::as_path))
            }
            Model::Listed(listed) => Self::listed(listed),
            Model::Derived(_) | Model::Scaled(_) => {
                Err(Error::Plan { reason: "a derived model has no files".into() })
            }
        }
    }

    /// Open safetensors files that are one checkpoint together.
    fn of_files<'p>(path: &Path, files: impl IntoIterator<Item = &'p Path>) -> Result<Self> {
        let mut opening = Opening::default();
        files.into_iter().try_for_each(|file| opening.add_shard(file))?;
        opening.done(path, None)
    }

    /// Open the files of a checkpoint whose tensors lie at known places.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::FileKind`]; [`Error::TensorBytes`] for a tensor that ends behind its
    /// file.
    fn listed(listed: &Listed) -> Result<Self> {
        let mut opening = Opening::default();
        let mut numbers: BTreeMap<&Path, usize> = BTreeMap::new();
        for (name, place) in &listed.tensors {
            let shard = match numbers.get(place.file.as_path()) {
                Some(&shard) => shard,
                None => {
                    opening.shards.push(Reader::open(&place.file)?);
                    numbers.insert(&place.file, opening.shards.len() - 1);
                    opening.shards.len() - 1
                }
            };
            let file_bytes = opening.shards[shard].len();
            let bits = place.shape.iter().try_fold(1_u64, |n, &side| n.checked_mul(side as u64));
            let bits = bits.and_then(|n| n.checked_mul(place.dtype.bitsize() as u64));
            let bytes = bits.map(|bits| bits.div_ceil(8));
            let end = bytes.and_then(|bytes| bytes.checked_add(place.offset));
            let Some(bytes) = bytes.filter(|_| end.is_some_and(|end| end <= file_bytes)) else {
                return Err(Error::TensorBytes {
                    path: place.file.clone(),
                    tensor: readable(name),
                    expected: bytes.map_or("more than 2^63".to_owned(), |bytes| bytes.to_string()),
                    found: file_bytes.saturating_sub(place.offset).to_string(),
                });
            };
            let (dtype, shape) = (place.dtype, place.shape.clone());
            opening.tensors.push(name, Kind { dtype, shape, shard, bytes }, place.offset);
        }
        opening.done(&listed.path, None)
    }

    /// The open files.
    pub fn shards(&self) -> &[Reader] {
        &self.shards
    }

    /// All tensors by name.
    pub fn tensors(&self) -> &Tensors {
        &self.headers.tensors
    }

    /// Tensors that the index does not list, by name.
    pub fn unlisted(&self) -> &[String] {
        &self.headers.unlisted
    }

    /// One tensor.
    ///
    /// # Errors
    /// [`Error::MissingTensor`]
    pub(crate) fn tensor(&self, name: &str) -> Result<TensorEntry<'_>> {
        let Headers { path, tensors, .. } = &*self.headers;
        let missing = || Error::MissingTensor { path: path.clone(), tensor: name.into() };
        tensors.get(name).ok_or_else(missing)
    }

    fn indexed(path: &Path) -> Result<Self> {
        let folder = path.parent().unwrap_or(path);
        let invalid = |reason: String| Error::Index { path: path.into(), reason };
        let reader = Reader::open(path)?;
        if reader.len() > index::MAX_INDEX {
            let reason = format!("{} bytes, at most {}", reader.len(), index::MAX_INDEX);
            return Err(invalid(reason));
        }
        let index = index::parse(path, &reader.small(0, reader.len() as usize)?)?;
        let is_missing = |name: &&String| !folder.join(name).exists();
        let missing: Vec<&String> = index.shards.iter().filter(is_missing).collect();
        if let Some(first) = missing.first() {
            return Err(Error::MissingShards {
                path: path.into(),
                missing: missing.len(),
                shards: index.shards.len(),
                shard: readable(first),
            });
        }
        let mut opening = Opening::default();
        index.shards.iter().try_for_each(|name| opening.add_shard(&folder.join(name)))?;
        let checkpoint = opening.done(path, Some(&index))?;
        for (tensor, &shard) in &index.tensors {
            if checkpoint.tensors().get(tensor).map(|entry| entry.shard) != Some(shard) {
                let (tensor, shard) = (readable(tensor), &index.shards[shard]);
                return Err(invalid(format!("tensor `{tensor}` is not in `{shard}`")));
            }
        }
        Ok(checkpoint)
    }
}

impl Opening {
    fn add_shard(&mut self, path: &Path) -> Result<()> {
        let reader = Reader::open(path)?;
        if reader.len() < POINTER_BYTES
            && reader.small(0, reader.len() as usize)?.starts_with(POINTER)
        {
            return Err(Error::LfsPointer { path: path.into() });
        }
        let prefix = match reader.len() {
            header::PREFIX.. => reader.small(0, 8)?.try_into().unwrap_or([0xff; 8]),
            _ => [0xff; 8],
        };
        let json_bytes = header::json_length(path, prefix, reader.len())?;
        let json = reader.small(header::PREFIX, json_bytes as usize)?;
        let found = header::parse(path, &json, reader.len())?;
        if self.tensors.len() + found.len() > MAX_TENSORS {
            let reason = format!("more than {MAX_TENSORS} tensors in its checkpoint");
            return Err(Error::HeaderJson { path: path.into(), reason });
        }
        let shard = self.shards.len();
        for (name, info) in found {
            let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            let (dtype, shape, bytes) = (info.dtype, info.shape, end - begin);
            let offset = header::PREFIX + json_bytes + begin;
            self.tensors.push(&name, Kind { dtype, shape, shard, bytes }, offset);
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
    fn what_an_index_does_not_list_is_read_and_told() {
        let folder = tempfile::tempdir().unwrap();
        let index = folder.path().join("x.safetensors.index.json");
        std::fs::write(&index, r#"{"weight_map":{"a":"s2"}}"#).unwrap();
        let two = r#"{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},
                      "d":{"dtype":"BF16","shape":[1],"data_offsets":[2,4]}}"#;
        write(&folder.path().join("s2"), two, &[0; 4]);
        let checkpoint = Checkpoint::open(&index).unwrap();
        assert_eq!(checkpoint.tensors().iter().map(|t| t.name).collect::<Vec<_>>(), ["a", "d"]);
        assert_eq!(checkpoint.unlisted(), ["d"]);
    }

    #[test]
    fn shards_without_an_index_are_one_checkpoint_and_no_name_stands_twice() {
        let folder = tempfile::tempdir().unwrap();
        let names = ["s1", "s2"].map(|name| folder.path().join(name));
        write(&names[0], ONE, &[0; 4]);
        write(&names[1], &ONE.replace("\"a\"", "\"b\""), &[0; 4]);
        let files = Model::Files(Files { path: folder.path().into(), files: names.to_vec() });
        assert_eq!(Checkpoint::of(&files).unwrap().tensors().len(), 2);
        write(&names[1], ONE, &[0; 4]);
        assert!(matches!(Checkpoint::of(&files).unwrap_err(), Error::HeaderJson { .. }));
    }

    #[test]
    fn shards_that_are_not_there_are_counted_and_pointers_are_named() {
        let folder = tempfile::tempdir().unwrap();
        write(&folder.path().join("s1"), ONE, &[0; 4]);
        let index = r#"{"weight_map":{"a":"s1","b":"s2","c":"s3"}}"#;
        std::fs::write(folder.path().join(INDEX), index).unwrap();
        let error = Checkpoint::open(folder.path()).unwrap_err();
        assert!(matches!(&error, Error::MissingShards { missing: 2, shards: 3, shard, .. }
            if shard == "s2"));
        let pointer = folder.path().join("p");
        let text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n";
        std::fs::write(&pointer, text).unwrap();
        assert!(matches!(Checkpoint::open(&pointer).unwrap_err(), Error::LfsPointer { .. }));
    }

    #[test]
    fn headers_are_read_once_and_a_file_that_is_another_by_then_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.safetensors");
        write(&path, ONE, &[0; 4]);
        let headers = Checkpoint::open(&path).unwrap().headers().clone();
        assert_eq!(headers.place(), path);
        let again = Checkpoint::reopen(&headers).unwrap();
        assert!(Arc::ptr_eq(again.headers(), &headers));
        assert_eq!(again.shards()[0].path(), path);
        write(&path, &ONE.replace("\"a\"", "\"ab\""), &[0; 4]);
        assert!(matches!(Checkpoint::reopen(&headers).unwrap_err(), Error::InputChanged { .. }));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Checkpoint::reopen(&headers).unwrap_err(), Error::Io { .. }));
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

    /// Opening a named pipe waits for a writer, and a device never ends.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_is_no_regular_file_is_refused_at_once() {
        use rustix::fs::{mknodat, FileType, Mode, CWD};
        let make_pipe = |path: &Path| {
            mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0).unwrap();
        };
        let make_folder = |path: &Path| std::fs::create_dir(path).unwrap();
        let make_device = |path: &Path| std::os::unix::fs::symlink("/dev/zero", path).unwrap();
        let make_socket = |path: &Path| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
        type Make<'a> = &'a dyn Fn(&Path);
        let cases: [(&str, Make); 4] = [
            ("a named pipe", &make_pipe),
            ("a folder", &make_folder),
            ("a device", &make_device),
            ("a socket", &make_socket),
        ];
        for (kind, make) in cases {
            for name in [SINGLE, INDEX, "s1"] {
                let folder = tempfile::tempdir().unwrap();
                make(&folder.path().join(name));
                if name == "s1" {
                    let index = r#"{"weight_map":{"a":"s1"}}"#;
                    std::fs::write(folder.path().join(INDEX), index).unwrap();
                }
                let error = Checkpoint::open(folder.path()).unwrap_err();
                assert!(
                    matches!(&error, Error::FileKind { found, .. } if *found == kind),
                    "{error}"
                );
            }
        }
    }

    #[cfg(unix)]
    #[test]
    fn shards_may_be_links_to_files_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        write(&elsewhere.path().join("blob"), ONE, &[0; 4]);
        let (blob, shard) = (elsewhere.path().join("blob"), folder.path().join("s1"));
        std::os::unix::fs::symlink(blob, shard).unwrap();
        std::fs::write(folder.path().join(INDEX), r#"{"weight_map":{"a":"s1"}}"#).unwrap();
        assert_eq!(Checkpoint::open(folder.path()).unwrap().tensors().len(), 1);
    }

    #[test]
    fn an_endless_index_and_an_endless_file_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: &str, bytes: u64| {
            std::fs::File::create(folder.path().join(name)).unwrap().set_len(bytes).unwrap();
        };
        // Sparse: lengths that take no disk. The header of zeros is one of no bytes.
        make(SINGLE, 1 << 42);
        assert!(matches!(Checkpoint::open(folder.path()).unwrap_err(), Error::HeaderJson { .. }));
        make(INDEX, 1 << 42);
        assert!(matches!(Checkpoint::open(folder.path()).unwrap_err(), Error::Index { .. }));
    }

    #[test]
    fn pickled_weights_are_never_opened() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["pytorch_model.bin", "pytorch_model.bin.index.json"] {
            std::fs::write(folder.path().join(name), "\u{80}").unwrap();
        }
        assert!(matches!(Checkpoint::open(folder.path()).unwrap_err(), Error::NoCheckpoint { .. }));
        let index = r#"{"weight_map":{"a":"pytorch_model.bin"}}"#;
        std::fs::write(folder.path().join(INDEX), index).unwrap();
        assert!(matches!(Checkpoint::open(folder.path()).unwrap_err(), Error::HeaderLength { .. }));
    }
}
