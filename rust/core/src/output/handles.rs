//! Files that stay open while they are written: as many as there may be, whatever is written at once.
//!
//! A hundred merges of models of a hundred shards are ten thousand files, and many systems let a
//! process have a thousand open. Beyond what is allowed the one that was opened first is closed, and
//! opened again by its next block: microseconds beside the milliseconds of a block. Where no file
//! has to be closed, none is: only a handle that was open all the while is certain to tell of a
//! write that failed on its way to the disk.

use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::positional::open_again;

/// The files that several outputs have open.
#[derive(Debug)]
pub struct Handles {
    most: usize,
    open: Mutex<VecDeque<Arc<Slot>>>,
}

/// One file, open or not.
#[derive(Debug)]
struct Slot {
    path: PathBuf,
    file: Mutex<Option<Arc<File>>>,
}

/// One file of an output.
#[derive(Debug)]
pub(super) struct OutputFile {
    slot: Arc<Slot>,
    handles: Arc<Handles>,
}

impl Handles {
    /// Let so many files be open, one at the least; each thread may hold one more for a moment.
    pub fn new(most: usize) -> Self {
        Self { most: most.max(1), open: Mutex::default() }
    }

    fn opened(&self, slot: &Arc<Slot>) {
        let first = {
            let mut open = lock(&self.open);
            open.push_back(slot.clone());
            if open.len() > self.most {
                open.pop_front()
            } else {
                None
            }
        };
        if let Some(first) = first {
            lock(&first.file).take();
        }
    }
}

impl Default for Handles {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl OutputFile {
    /// A file that was just opened.
    pub(super) fn new(path: PathBuf, file: File, handles: &Arc<Handles>) -> Self {
        let slot = Arc::new(Slot { path, file: Mutex::new(Some(Arc::new(file))) });
        handles.opened(&slot);
        Self { slot, handles: handles.clone() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.slot.path
    }

    /// The file, opened again where it had to be closed.
    pub(super) fn open(&self) -> std::io::Result<Arc<File>> {
        let opened = {
            let mut file = lock(&self.slot.file);
            if let Some(file) = &*file {
                return Ok(file.clone());
            }
            file.insert(Arc::new(open_again(&self.slot.path)?)).clone()
        };
        self.handles.opened(&self.slot);
        Ok(opened)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::positional::write_all_at;

    #[test]
    fn no_more_files_are_open_than_allowed_and_each_can_be_written() {
        let folder = tempfile::tempdir().unwrap();
        let handles = Arc::new(Handles::new(3));
        let files: Vec<OutputFile> = (0..10)
            .map(|number| {
                let path = folder.path().join(number.to_string());
                OutputFile::new(path.clone(), File::create_new(&path).unwrap(), &handles)
            })
            .collect();
        let open = || files.iter().filter(|file| lock(&file.slot.file).is_some()).count();
        for turn in 0..3_u8 {
            for file in &files {
                write_all_at(&file.open().unwrap(), &[turn], turn.into()).unwrap();
                assert_eq!(open(), 3);
            }
        }
        for file in &files {
            assert_eq!(std::fs::read(file.path()).unwrap(), [0, 1, 2]);
        }
        std::fs::remove_file(files[0].path()).unwrap();
        assert!(files[0].open().is_err());
    }
}
