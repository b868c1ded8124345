//! Bytes of one input file: mapped where the system can, read where it cannot.

use std::fs::{File, FileType};
use std::path::{Path, PathBuf};

use memmap2::Mmap;

use crate::error::{Error, Result};

/// An open input file.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    bytes: u64,
    access: Access,
}

#[derive(Debug)]
enum Access {
    Map(Mmap),
    File(File),
}

impl Reader {
    /// Open a regular file, or a link to one, and map it; what cannot be mapped is read instead.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |action, source| Error::Io { path: path.into(), action, source };
        // Before the file is opened: to open a named pipe would wait for a writer.
        let kind = std::fs::metadata(path).map_err(|source| failed("open", source))?.file_type();
        if !kind.is_file() {
            return Err(Error::FileKind { path: path.into(), found: kind_name(kind) });
        }
        let file = File::open(path).map_err(|source| failed("open", source))?;
        let metadata = file.metadata().map_err(|source| failed("read", source))?;
        // SAFETY: the map is read-only. That nobody truncates or rewrites an input during a merge is
        // a documented condition; the merge never opens an input for writing, and refuses an
        // output inside an input folder.
        let access = match unsafe { Mmap::map(&file) } {
            Ok(map) => {
                #[cfg(unix)]
                // Advice only: where it is refused, the merge is slower and no less right.
                let _ = map.advise(memmap2::Advice::Sequential);
                Access::Map(map)
            }
            Err(_) => Access::File(file),
        };
        Ok(Self { path: path.into(), bytes: metadata.len(), access })
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether the file is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// `length` bytes from `offset`: a slice of the map, or else `scratch`, filled.
    pub fn read<'a>(
        &'a self,
        offset: u64,
        length: usize,
        scratch: &'a mut Vec<u8>,
    ) -> Result<&'a [u8]> {
        let failed = |source| Error::Io { path: self.path.clone(), action: "read", source };
        match &self.access {
            Access::Map(map) => usize::try_from(offset)
                .ok()
                .and_then(|start| map.get(start..start.checked_add(length)?))
                .ok_or_else(|| failed(std::io::ErrorKind::UnexpectedEof.into())),
            Access::File(file) => {
                scratch.resize(length, 0);
                read_exact_at(file, scratch, offset).map_err(failed)?;
                Ok(scratch)
            }
        }
    }
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

#[cfg(unix)]
fn read_exact_at(file: &File, buffer: &mut [u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, buffer, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut buffer: &mut [u8], mut offset: u64) -> std::io::Result<()> {
    while !buffer.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_read(file, buffer, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        buffer = &mut buffer[n..];
        offset += n as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_and_a_plain_read_give_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let mapped = Reader::open(&path).unwrap();
        assert!(matches!(mapped.access, Access::Map(_)));
        let access = Access::File(File::open(&path).unwrap());
        let read = Reader { path: path.clone(), bytes: 10, access };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        assert_eq!(mapped.read(3, 4, &mut a).unwrap(), b"3456");
        assert_eq!(read.read(3, 4, &mut b).unwrap(), b"3456");
        assert!(mapped.read(8, 4, &mut a).is_err());
        assert!(read.read(8, 4, &mut b).is_err());
        assert!(mapped.read(u64::MAX, 4, &mut a).is_err());
    }
}
