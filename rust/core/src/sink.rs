//! Where output goes: positional writes of finished blocks, in any order, from any thread.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::error::{Error, Result};
use crate::layout::Layout;

/// Takes the blocks of output tensors.
pub trait Sink: Sync {
    /// Store `bytes` at `offset` within the tensor of job number `job`. No two calls overlap.
    ///
    /// # Errors
    /// [`Error::Io`]
    fn write(&self, job: usize, offset: u64, bytes: &[u8]) -> Result<()>;

    /// Everything was written: make it durable.
    ///
    /// # Errors
    /// [`Error::Io`]
    fn finish(&self) -> Result<()>;
}

/// Safetensors files in a folder.
#[derive(Debug)]
pub struct FileSink<'a> {
    layout: &'a Layout,
    files: Vec<(PathBuf, File)>,
}

impl<'a> FileSink<'a> {
    /// Create the files of `layout` in `folder`, reserve their space and write their headers.
    ///
    /// # Errors
    /// [`Error::Io`]: a file exists already, or the disk has no room for the whole layout.
    pub fn create(folder: &Path, layout: &'a Layout) -> Result<Self> {
        let mut files = Vec::with_capacity(layout.files.len());
        for file in &layout.files {
            let path = folder.join(&file.name);
            let failed = |action, source| Error::Io { path: path.clone(), action, source };
            let handle = File::create_new(&path).map_err(|source| failed("create", source))?;
            reserve(&handle, file.bytes).map_err(|source| failed("reserve space for", source))?;
            write_all_at(&handle, &file.header, 0).map_err(|source| failed("write", source))?;
            files.push((path, handle));
        }
        Ok(Self { layout, files })
    }
}

impl Sink for FileSink<'_> {
    fn write(&self, job: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let place = self.layout.places[job];
        let (path, file) = &self.files[place.file];
        write_all_at(file, bytes, place.offset + offset).map_err(|source| Error::Io {
            path: path.clone(),
            action: "write",
            source,
        })
    }

    fn finish(&self) -> Result<()> {
        for (path, file) in &self.files {
            file.sync_all().map_err(|source| Error::Io {
                path: path.clone(),
                action: "sync",
                source,
            })?;
        }
        Ok(())
    }
}

/// The caller's memory: one buffer for each job.
#[derive(Debug, Default)]
pub struct MemorySink {
    tensors: Vec<Mutex<Vec<u8>>>,
}

impl MemorySink {
    /// Buffers of the given lengths.
    pub fn new(bytes: impl IntoIterator<Item = u64>) -> Self {
        let tensors = bytes.into_iter().map(|n| Mutex::new(vec![0; n as usize])).collect();
        Self { tensors }
    }

    /// The buffers, in the order of the jobs.
    pub fn into_tensors(self) -> Vec<Vec<u8>> {
        let whole = |tensor: Mutex<Vec<u8>>| tensor.into_inner().unwrap_or_else(|e| e.into_inner());
        self.tensors.into_iter().map(whole).collect()
    }
}

impl Sink for MemorySink {
    fn write(&self, job: usize, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut tensor = self.tensors[job].lock().unwrap_or_else(|e| e.into_inner());
        let start = offset as usize;
        tensor[start..start + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        Ok(())
    }
}

/// Claim the blocks now, so that a full disk shows before the first byte is computed.
fn reserve(file: &File, bytes: u64) -> std::io::Result<()> {
    file.set_len(bytes)?;
    #[cfg(target_os = "linux")]
    if bytes > 0 {
        use rustix::fs::{fallocate, FallocateFlags};
        use rustix::io::Errno;
        match fallocate(file, FallocateFlags::empty(), 0, bytes) {
            // Some file systems cannot reserve; there a full disk shows at the write.
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(unix)]
fn write_all_at(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_all_at(file: &File, mut bytes: &[u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let n = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if n == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        bytes = &bytes[n..];
        offset += n as u64;
    }
    Ok(())
}
