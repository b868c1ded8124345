//! Bytes of one input: a file, mapped where that is fastest and read where it cannot be or must not,
//! or memory of the caller's.

use std::fs::{File, FileType};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use memmap2::Mmap;

use crate::error::{Error, Result};
use crate::positional::read_exact_at;

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// The path by which it was opened.
    pub path: PathBuf,
    /// Its length.
    pub bytes: u64,
    /// When it was last modified, in nanoseconds since 1970.
    pub mtime_ns: u64,
    /// When it or what the system keeps of it last changed, in the same; 0 where the system does not
    /// say.
    pub ctime_ns: u64,
    /// Its number on its disk, and the disk's; 0 where the system does not say.
    pub place: [u64; 2],
}

impl Identity {
    fn of(path: &Path, metadata: &std::fs::Metadata) -> Self {
        let modified = metadata.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok());
        let mtime_ns = modified.map_or(0, |t| u64::try_from(t.as_nanos()).unwrap_or(u64::MAX));
        #[cfg(unix)]
        let (ctime_ns, place) = {
            use std::os::unix::fs::MetadataExt;
            let ns =
                i128::from(metadata.ctime()) * 1_000_000_000 + i128::from(metadata.ctime_nsec());
            (u64::try_from(ns).unwrap_or(0), [metadata.ino(), metadata.dev()])
        };
        #[cfg(not(unix))]
        let (ctime_ns, place) = (0, [0; 2]);
        Self { path: path.into(), bytes: metadata.len(), mtime_ns, ctime_ns, place }
    }

    /// Whether a file is seen to be another than it was. The time of change alone does not say so: a
    /// new link to the file moves it too.
    fn differs(&self, other: &Self) -> bool {
        (self.bytes, self.mtime_ns, self.place) != (other.bytes, other.mtime_ns, other.place)
    }

    /// # Errors
    /// [`Error::InputChanged`]: it is another now.
    fn expect(&self, now: &Self) -> Result<()> {
        if !self.differs(now) {
            return Ok(());
        }
        let words = |i: &Self| format!("{} bytes, modified at {} ns", i.bytes, i.mtime_ns);
        let (expected, found) = (words(self), words(now));
        Err(Error::InputChanged { path: self.path.clone(), expected, found })
    }
}

/// An open input.
#[derive(Debug)]
pub struct Reader {
    identity: Identity,
    store: Store,
}

#[derive(Debug)]
enum Store {
    /// Without `file` it is opened again for each read, so that a merge may have any number of inputs.
    File {
        file: Option<File>,
        map: Option<Mmap>,
    },
    Memory(&'static [u8]),
}

impl Reader {
    /// Open a file and map it; a file that cannot be mapped, or lies on a network file system, is
    /// read instead: a map of a file that shrinks ends the process, and over a network that happens.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |action, source| Error::Io { path: path.into(), action, source };
        let refuse = |kind: FileType| match kind.is_file() {
            true => Ok(()),
            false => Err(Error::FileKind { path: path.into(), found: kind_name(kind) }),
        };
        // Asked before it is opened, as to open a device may do something; and what counts is what was
        // opened, as the path may have come to lead elsewhere.
        refuse(std::fs::metadata(path).map_err(|source| failed("open", source))?.file_type())?;
        let file = open_at_once(path).map_err(|source| failed("open", source))?;
        let metadata = file.metadata().map_err(|source| failed("read", source))?;
        refuse(metadata.file_type())?;
        let identity = Identity::of(path, &metadata);
        // SAFETY: the map is read-only. That nobody truncates or rewrites an input during a merge is
        // a documented condition; the merge never opens an input for writing, and refuses an
        // output inside an input folder.
        let map = if is_remote(&file) { None } else { unsafe { Mmap::map(&file) }.ok() };
        #[cfg(unix)]
        if let Some(map) = &map {
            // Advice only: where it is refused, the merge is slower and no less right.
            let _ = map.advise(memmap2::Advice::Sequential);
        }
        let file = may_stay_open(&file).then_some(file);
        Ok(Self { identity, store: Store::File { file, map } })
    }

    /// Bytes that are in memory already. `name` stands for a path in messages.
    pub(crate) fn over(name: &str, bytes: &'static [u8]) -> Self {
        let (path, bytes_in_all) = (name.into(), bytes.len() as u64);
        let identity =
            Identity { path, bytes: bytes_in_all, mtime_ns: 0, ctime_ns: 0, place: [0; 2] };
        Self { identity, store: Store::Memory(bytes) }
    }

    /// The file's path, or the memory's name.
    pub fn path(&self) -> &Path {
        &self.identity.path
    }

    /// Whether the bytes are in memory already.
    pub(crate) fn is_memory(&self) -> bool {
        matches!(self.store, Store::Memory(_))
    }

    /// What the file was when it was opened.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Length in bytes.
    pub fn len(&self) -> u64 {
        self.identity.bytes
    }

    /// Whether it is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// `length` bytes from `offset`: a slice of the memory or the map, or else `scratch`, filled.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn read<'a>(
        &'a self,
        offset: u64,
        length: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        match &self.store {
            Store::Memory(bytes) => self.slice(bytes, offset, length),
            Store::File { map: Some(map), .. } => self.slice(map, offset, length),
            Store::File { map: None, .. } => {
                scratch.resize(length, 0);
                self.copy(offset, scratch)?;
                Ok(scratch)
            }
        }
    }

    /// A copy of some bytes: of a header or an index, which are read before anybody knows whether the
    /// file is whole yet. A map of a file that is cut meanwhile ends the process.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::NoMemory`]
    pub(crate) fn small(&self, offset: u64, length: usize) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| Error::NoMemory { needed: length as u64 })?;
        bytes.resize(length, 0);
        self.copy(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Fill `out` from `offset`. A file is read even where it is mapped: to touch each of its pages
    /// once, in order to copy it, takes longer.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(crate) fn copy(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        match &self.store {
            Store::Memory(bytes) => out.copy_from_slice(self.slice(bytes, offset, out.len())?),
            Store::File { file: Some(file), .. } => {
                let read =
                    crate::fault::hit("read").and_then(|()| read_exact_at(file, out, offset));
                read.map_err(|source| self.failed(source))?;
            }
            Store::File { file: None, .. } => {
                crate::fault::hit("read").map_err(|source| self.failed(source))?;
                let file = self.open_again()?;
                read_exact_at(&file, out, offset).map_err(|source| self.failed(source))?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// [`Error::InputChanged`]: the path leads to another file now; [`Error::Io`]
    fn open_again(&self) -> Result<File> {
        let file = open_at_once(self.path()).map_err(|source| self.failed(source))?;
        let metadata = file.metadata().map_err(|source| self.failed(source))?;
        self.identity.expect(&Identity::of(self.path(), &metadata))?;
        Ok(file)
    }

    fn slice<'a>(&self, all: &'a [u8], offset: u64, length: usize) -> Result<&'a [u8]> {
        crate::fault::hit("read").map_err(|source| self.failed(source))?;
        usize::try_from(offset)
            .ok()
            .and_then(|start| all.get(start..start.checked_add(length)?))
            .ok_or_else(|| self.failed(std::io::ErrorKind::UnexpectedEof.into()))
    }

    fn failed(&self, source: std::io::Error) -> Error {
        Error::Io { path: self.path().into(), action: "read", source }
    }

    /// Whether a range seems to lie in memory; true where that cannot be asked.
    pub(crate) fn is_cached(&self, range: Range<u64>) -> bool {
        #[cfg(target_os = "linux")]
        match &self.store {
            Store::File { file: Some(file), .. } => return seems_cached(file, &range),
            Store::File { file: None, .. } => {
                return self.open_again().map_or(true, |file| seems_cached(&file, &range))
            }
            Store::Memory(_) => {}
        }
        let _ = range;
        true
    }

    /// Ask the system to fetch a range that will be read soon. Advice only.
    pub(crate) fn will_need(&self, range: Range<u64>) {
        #[cfg(target_os = "linux")]
        {
            let fetch = |file: &File| {
                if !seems_cached(file, &range) {
                    use rustix::fs::{fadvise, Advice};
                    let length = std::num::NonZeroU64::new(range.end - range.start);
                    let _ = fadvise(file, range.start, length, Advice::WillNeed);
                }
            };
            match &self.store {
                Store::File { file: Some(file), .. } => fetch(file),
                Store::File { file: None, .. } => {
                    if let Ok(file) = self.open_again() {
                        fetch(&file);
                    }
                }
                Store::Memory(_) => {}
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// Give back the pages of a range that has been read, so that they no longer count as resident.
    /// They stay in the system's cache while there is room for them.
    pub(crate) fn release(&self, range: Range<u64>) {
        #[cfg(target_os = "linux")]
        if let Store::File { map: Some(map), .. } = &self.store {
            let (start, length) = (range.start as usize, (range.end - range.start) as usize);
            if length > 0 && start.checked_add(length).is_some_and(|end| end <= map.len()) {
                // SAFETY: the map is shared with the file and read-only, so a page that is dropped
                // and touched again holds the same bytes: nothing can be lost.
                let _ = unsafe {
                    map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, start, length)
                };
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }

    /// Check that the file is still what it was when it was opened. Memory is the caller's to keep.
    ///
    /// # Errors
    /// [`Error::InputChanged`], [`Error::Io`]
    pub(crate) fn check_unchanged(&self) -> Result<()> {
        if self.is_memory() {
            return Ok(());
        }
        let metadata = std::fs::metadata(self.path()).map_err(|source| self.failed(source))?;
        self.identity.expect(&Identity::of(self.path(), &metadata))
    }

    /// This, if its file is what it was.
    ///
    /// # Errors
    /// [`Error::InputChanged`]
    pub(super) fn expect(self, was: &Identity) -> Result<Self> {
        was.expect(&self.identity).map(|()| self)
    }
}

/// Inputs whose files stay open; of a low limit on open files they leave three quarters to others.
/// That the others are opened again does not show in a merge's time (docs/evidence/speed.md).
const MOST_KEPT: u64 = 256;

/// Whether an input keeps its file open. Numbers of files are given from 0, so that a high one says
/// that many are open.
fn may_stay_open(file: &File) -> bool {
    #[cfg(unix)]
    {
        use rustix::process::{getrlimit, Resource};
        use std::os::fd::AsRawFd;
        let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        u64::try_from(file.as_raw_fd()).is_ok_and(|number| number < MOST_KEPT.min(limit / 4))
    }
    #[cfg(not(unix))]
    {
        let _ = file;
        true
    }
}

/// Open a file to read it. Opening a pipe waits for somebody to write to it, but for this way.
fn open_at_once(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    }
    options.open(path)
}

/// Whether the middle and the end of a range are in the page cache. To ask for a range that is
/// costs the system a look at every page: 0.7 s for 4 GB, a third of a whole merge.
#[cfg(target_os = "linux")]
fn seems_cached(file: &File, range: &Range<u64>) -> bool {
    use rustix::io::{preadv2, Errno, ReadWriteFlags};
    let cached = |offset: u64| {
        let mut byte = [0];
        let mut buffers = [std::io::IoSliceMut::new(&mut byte)];
        let read = preadv2(file, &mut buffers, offset, ReadWriteFlags::NOWAIT);
        // What cannot be asked, as on a disk in memory, needs no reading ahead.
        read != Err(Errno::AGAIN)
    };
    range.is_empty() || cached((range.start + range.end) / 2) && cached(range.end - 1)
}

fn kind_name(kind: FileType) -> &'static str {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if kind.is_fifo() {
            return "a named pipe";
        } else if kind.is_socket() {
            return "a socket";
        } else if kind.is_char_device() || kind.is_block_device() {
            return "a device";
        }
    }
    if kind.is_dir() {
        "a folder"
    } else {
        "something else"
    }
}

/// Whether the file lies on another machine, or on a file system of somebody's own making.
fn is_remote(file: &File) -> bool {
    #[cfg(target_os = "linux")]
    {
        // Magic numbers of statfs(2): NFS, SMB, SMB2, CIFS, FUSE, 9P, Ceph, AFS, Lustre.
        const REMOTE: [u32; 9] = [
            0x6969,
            0x517b,
            0xfe53_4d42,
            0xff53_4d42,
            0x6573_5546,
            0x0102_1997,
            0x00c3_6400,
            0x5346_414f,
            0x0bd0_0bd3,
        ];
        rustix::fs::fstatfs(file).is_ok_and(|found| REMOTE.contains(&(found.f_type as u32)))
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_a_plain_read_and_memory_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let Reader { identity, store: Store::File { file, map } } = Reader::open(&path).unwrap()
        else {
            panic!("a file is no memory");
        };
        assert!(map.is_some());
        let read = Reader { identity, store: Store::File { file, map: None } };
        let closed = |map| Reader {
            identity: read.identity.clone(),
            store: Store::File { file: None, map },
        };
        let Reader { store: Store::File { map, .. }, .. } = Reader::open(&path).unwrap() else {
            panic!("a file is no memory");
        };
        let (closed, only_mapped) = (closed(None), closed(map));
        let memory = Reader::over("m", b"0123456789");
        let mapped = Reader::open(&path).unwrap();
        let mut scratch = Vec::new();
        for reader in [&mapped, &read, &closed, &only_mapped, &memory] {
            assert_eq!(reader.read(3, 4, &mut scratch).unwrap(), b"3456");
            reader.will_need(0..10);
            reader.release(0..10);
            assert_eq!(reader.read(3, 4, &mut scratch).unwrap(), b"3456");
            let mut own = [0; 4];
            reader.copy(3, &mut own).unwrap();
            assert_eq!(&own, b"3456");
            for beyond in [8, u64::MAX] {
                assert!(reader.read(beyond, 4, &mut scratch).is_err());
                assert!(reader.copy(beyond, &mut own).is_err());
            }
            reader.check_unchanged().unwrap();
        }
    }

    #[test]
    fn a_file_that_changes_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let reader = Reader::open(&path).unwrap();
        reader.check_unchanged().unwrap();
        std::fs::write(&path, b"0123456789a").unwrap();
        assert!(matches!(reader.check_unchanged().unwrap_err(), Error::InputChanged { .. }));
        // Nor is another file read where the first is not kept open.
        let identity = reader.identity.clone();
        let closed = Reader { identity, store: Store::File { file: None, map: None } };
        assert!(matches!(closed.copy(0, &mut [0; 4]).unwrap_err(), Error::InputChanged { .. }));
    }

    #[cfg(unix)]
    #[test]
    fn a_pipe_or_device_is_refused_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        assert!(Reader::open(&pipe).is_err());
        let opened = open_at_once(&pipe).unwrap();
        assert!(!opened.metadata().unwrap().is_file());
        assert!(Reader::open(Path::new("/dev/zero")).is_err());
    }
}
