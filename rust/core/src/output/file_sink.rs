//! Output into files, of which an interrupted run leaves what the next can go on with.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::output::journal::{Journal, Written};
use crate::output::{Block, Layout, Sink};
use crate::positional::{open_again, read_exact_at, write_all_at};

/// Safetensors files in a folder, with a journal of the blocks that they hold.
#[derive(Debug)]
pub struct FileSink {
    layout: Arc<Layout>,
    files: Vec<(PathBuf, File)>,
    journal: Journal,
    written: Written,
}

impl FileSink {
    /// Create the files of `layout` in `folder`, reserve their space and write their headers.
    ///
    /// # Errors
    /// [`Error::Io`]: a file exists already, or the disk has no room for the whole layout.
    pub fn create(folder: &Path, layout: &Arc<Layout>, journal: &Path) -> Result<Self> {
        let mut files = Vec::with_capacity(layout.files.len());
        for file in &layout.files {
            let path = folder.join(&file.name);
            let failed = |action, source| Error::Io { path: path.clone(), action, source };
            let handle = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .map_err(|source| failed("create", source))?;
            crate::fault::hit("layout").map_err(|source| failed("write", source))?;
            reserve(&handle, file.bytes).map_err(|source| failed("reserve space for", source))?;
            write_all_at(&handle, &file.header, 0).map_err(|source| failed("write", source))?;
            files.push((path, handle));
        }
        let journal = Journal::create(journal, layout.blocks())?;
        Ok(Self { layout: layout.clone(), files, journal, written: Written::default() })
    }

    /// Open what an interrupted run left, and find out which blocks are whole: those in the journal
    /// whose bytes still have the hash that it names.
    ///
    /// # Errors
    /// [`Error::Resume`]: the files are not those of this layout.
    pub fn resume(folder: &Path, layout: &Arc<Layout>, journal: &Path) -> Result<Self> {
        let mut files = Vec::with_capacity(layout.files.len());
        for file in &layout.files {
            let path = folder.join(&file.name);
            let handle = open_again(&path).map_err(|source| Error::Resume {
                path: path.clone(),
                reason: format!("cannot open it: {source}"),
            })?;
            let mut header = vec![0; file.header.len()];
            let length = handle.metadata().map(|found| found.len()).unwrap_or(0);
            let same = length == file.bytes
                && read_exact_at(&handle, &mut header, 0).is_ok()
                && header == file.header;
            if !same {
                let reason = "it is not the file that this merge would write".to_owned();
                return Err(Error::Resume { path, reason });
            }
            files.push((path, handle));
        }
        let (journal, mut written) = Journal::resume(journal)?;
        let mut bytes = Vec::new();
        written.retain(|job, number, hash| {
            let Some((place, length)) = layout.block(job, number) else { return false };
            bytes.resize(length, 0);
            let (_, file) = &files[place.file];
            read_exact_at(file, &mut bytes, place.offset).is_ok()
                && xxhash_rust::xxh3::xxh3_64(&bytes) == hash
        });
        Ok(Self { layout: layout.clone(), files, journal, written })
    }

    /// Whether a journal lists every block of some jobs.
    pub fn has_all(journal: &Path, layout: &Layout, jobs: impl Iterator<Item = usize>) -> bool {
        let written = Journal::read(journal);
        let listed = |job| layout.blocks_of(job).all(|number| written.get(job, number).is_some());
        jobs.into_iter().all(listed)
    }

    /// Blocks that an earlier run has left whole.
    pub fn resumed_blocks(&self) -> usize {
        self.written.len()
    }
}

impl Sink for FileSink {
    fn write(&self, block: Block, bytes: &[u8], hash: u64) -> Result<()> {
        let place = self.layout.places[block.job];
        let (path, file) = &self.files[place.file];
        let failed = |source| Error::Io { path: path.clone(), action: "write", source };
        crate::fault::hit("write").map_err(failed)?;
        write_all_at(file, bytes, place.offset + block.offset).map_err(failed)?;
        self.journal.add(block.job, block.number, hash)
    }

    fn written(&self, job: usize, number: usize) -> Option<u64> {
        self.written.get(job, number)
    }

    fn finish(&self) -> Result<()> {
        for (path, file) in &self.files {
            let failed = |source| Error::Io { path: path.clone(), action: "sync", source };
            crate::fault::hit("sync").map_err(failed)?;
            file.sync_all().map_err(failed)?;
        }
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
