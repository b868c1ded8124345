//! Output into files, of which an interrupted run leaves what the next can go on with.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use crate::error::{Error, Result};
use crate::output::handles::OutputFile;
use crate::output::journal::{Journal, Written};
use crate::output::{Block, Handles, Layout, Sink};
use crate::positional::{begin_sync, open_again, read_exact_at, write_all_at};

/// Bytes of a file that the system is asked to begin to bring to the disk, once they are all written.
const WINDOW: u64 = 16 << 20;
/// No block is longer, so that the blocks that begin in a window have as many bytes but for this.
const LONGEST: u64 = 1 << 20;

/// Safetensors files in a folder, with a journal of the blocks that they hold.
#[derive(Debug)]
pub struct FileSink {
    layout: Arc<Layout>,
    files: Vec<OutFile>,
    journal: Journal,
    written: Written,
    inputs: Journal,
    known: Mutex<HashMap<usize, u64>>,
}

/// A file that is being written.
#[derive(Debug)]
struct OutFile {
    file: OutputFile,
    /// Whose turn it is to write: the file system lets one at a time, and has the others spin.
    turn: Mutex<()>,
    /// For each window of the file how much was written of what begins in it.
    written: Vec<AtomicU64>,
}

impl OutFile {
    fn new(file: OutputFile, bytes: u64) -> Self {
        let written = (0..bytes.div_ceil(WINDOW)).map(|_| AtomicU64::default()).collect();
        Self { file, turn: Mutex::default(), written }
    }
}

impl FileSink {
    /// Create the files of `layout` in `folder`, reserve their space and write their headers.
    ///
    /// # Errors
    /// [`Error::Io`]: a file exists already, or the disk has no room for the whole layout.
    pub fn create(folder: &Path, layout: &Arc<Layout>, journal: &Path) -> Result<Self> {
        Self::create_among(&Arc::default(), folder, layout, journal)
    }

    /// The same, with files of other outputs open.
    ///
    /// # Errors
    /// As for [`FileSink::create`].
    pub fn create_among(
        handles: &Arc<Handles>,
        folder: &Path,
        layout: &Arc<Layout>,
        journal: &Path,
    ) -> Result<Self> {
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
            let opened = OutputFile::new(path, handle, handles);
            files.push(OutFile::new(opened, file.bytes));
        }
        let inputs = Journal::create(&inputs_beside(journal), layout.places.len() as u64)?;
        let journal = Journal::create(journal, layout.blocks())?;
        let (written, known) = (Written::default(), Mutex::default());
        Ok(Self { layout: layout.clone(), files, journal, written, inputs, known })
    }

    /// Open what an interrupted run left, and find out which blocks are whole: those in the journal
    /// whose bytes still have the hash that it names.
    ///
    /// # Errors
    /// [`Error::Resume`]: the files are not those of this layout.
    pub fn resume(folder: &Path, layout: &Arc<Layout>, journal: &Path) -> Result<Self> {
        Self::resume_among(&Arc::default(), folder, layout, journal)
    }

    /// The same, with files of other outputs open.
    ///
    /// # Errors
    /// As for [`FileSink::resume`].
    pub fn resume_among(
        handles: &Arc<Handles>,
        folder: &Path,
        layout: &Arc<Layout>,
        journal: &Path,
    ) -> Result<Self> {
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
            let opened = OutputFile::new(path, handle, handles);
            files.push(OutFile::new(opened, file.bytes));
        }
        let (inputs, known) = Journal::resume(&inputs_beside(journal))?;
        let (journal, mut written) = Journal::resume(journal)?;
        let mut bytes = Vec::new();
        written.retain(|job, number, hash| {
            let Some((place, length)) = layout.block(job, number) else { return false };
            bytes.resize(length, 0);
            let file = files[place.file].file.open();
            file.is_ok_and(|file| read_exact_at(&file, &mut bytes, place.offset).is_ok())
                && xxhash_rust::xxh3::xxh3_64(&bytes) == hash
        });
        let known = Mutex::new(known.of_jobs());
        Ok(Self { layout: layout.clone(), files, journal, written, inputs, known })
    }

    /// Whether a journal lists every block of some jobs.
    pub fn has_all(journal: &Path, layout: &Layout, jobs: impl Iterator<Item = usize>) -> bool {
        let written = Journal::read(journal);
        let listed = |job| layout.blocks_of(job).all(|number| written.get(job, number).is_some());
        jobs.into_iter().all(listed)
    }

    /// For each job of which the journal says that it is done: the hash of all that it read.
    pub fn inputs_read(journal: &Path) -> HashMap<usize, u64> {
        Journal::read(&inputs_beside(journal)).of_jobs()
    }

    /// Leave only some jobs' blocks in a journal, as if the others had not begun.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub fn keep(journal: &Path, jobs: &HashSet<usize>) -> Result<()> {
        Journal::keep(journal, jobs)
    }

    /// For each job that is done the hash of all that it read.
    pub fn inputs(&self) -> HashMap<usize, u64> {
        self.known().clone()
    }

    fn known(&self) -> MutexGuard<'_, HashMap<usize, u64>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file_of(&self, block: Block) -> &OutFile {
        &self.files[self.layout.places[block.job].file]
    }

    /// Write a block in its turn, and note it.
    fn store(&self, block: Block, bytes: &[u8], hash: u64, turn: MutexGuard<()>) -> Result<()> {
        let OutFile { file, written, .. } = self.file_of(block);
        let failed = |source| Error::Io { path: file.path().into(), action: "write", source };
        crate::fault::hit("write").map_err(failed)?;
        let offset = self.layout.places[block.job].offset + block.offset;
        let open = file.open().map_err(failed)?;
        write_all_at(&open, bytes, offset).map_err(failed)?;
        drop(turn);
        if let Some(window) = written.get((offset / WINDOW) as usize) {
            window.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        }
        crate::fault::hit("journal").map_err(failed)?;
        self.journal.add(block.job, block.number, hash)
    }

    /// Have the system begin to bring to the disk what was written, window by window, as long as it
    /// shall `go_on`. It may have to wait for the disk, which no worker should.
    pub(super) fn begin_sync(&self, go_on: impl Fn() -> bool) {
        for OutFile { file, written, .. } in &self.files {
            for (number, window) in written.iter().enumerate() {
                if window.load(Ordering::Relaxed) >= WINDOW - LONGEST && go_on() {
                    window.store(0, Ordering::Relaxed);
                    if let Ok(file) = file.open() {
                        begin_sync(&file, number as u64 * WINDOW, WINDOW);
                    }
                }
            }
        }
    }

    /// Blocks that an earlier run has left whole.
    pub fn resumed_blocks(&self) -> usize {
        self.written.len()
    }
}

impl Sink for FileSink {
    fn write(&self, block: Block, bytes: &[u8], hash: u64) -> Result<()> {
        let turn = &self.file_of(block).turn;
        self.store(block, bytes, hash, turn.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn try_write(&self, block: Block, bytes: &[u8], hash: u64) -> Result<bool> {
        let turn = match self.file_of(block).turn.try_lock() {
            Ok(turn) => turn,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        self.store(block, bytes, hash, turn).map(|()| true)
    }

    fn written(&self, job: usize, number: usize) -> Option<u64> {
        self.written.get(job, number)
    }

    fn knows_inputs(&self, job: usize) -> bool {
        self.known().contains_key(&job)
    }

    fn inputs_read(&self, job: usize, hash: u64) -> Result<()> {
        self.inputs.add(job, 0, hash)?;
        self.known().insert(job, hash);
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        for OutFile { file, .. } in &self.files {
            let failed = |source| Error::Io { path: file.path().into(), action: "sync", source };
            crate::fault::hit("sync").map_err(failed)?;
            file.open().and_then(|file| file.sync_all()).map_err(failed)?;
        }
        Ok(())
    }
}

/// The journal of what was read lies beside that of what was written.
fn inputs_beside(journal: &Path) -> PathBuf {
    journal.with_extension("inputs")
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
