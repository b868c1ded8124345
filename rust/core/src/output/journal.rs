//! Which blocks of the output are written: one record each, appended after the block's own bytes.
//!
//! A record is 24 bytes, little-endian: job (u32), block (u32), xxh3 of the block (u64), and the xxh3
//! of these 16 bytes. A record that is cut short or does not match its own hash ends the journal:
//! it was being written when the run stopped. The order of bytes reaching the disk does not matter,
//! since whoever resumes checks every block against its hash.
//!
//! A second file of the same records says of each job that is done what it read: block 0, and a hash
//! over all of its inputs.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use xxhash_rust::xxh3::xxh3_64;

use crate::error::{Error, Result};
use crate::positional::{open_again, open_to_append, read_exact_at};

/// Bytes of a record.
const RECORD: usize = 24;

/// A journal that is being written.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

/// Blocks that are written, with their hashes.
#[derive(Debug, Default)]
pub(super) struct Written {
    blocks: HashMap<(u32, u32), u64>,
}

impl Journal {
    /// Begin a journal with room for `blocks` records.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(super) fn create(path: &Path, blocks: u64) -> Result<Self> {
        let failed = |action, source| Error::Io { path: path.into(), action, source };
        let file = OpenOptions::new()
            .append(true)
            .create_new(true)
            .open(path)
            .map_err(|source| failed("create", source))?;
        #[cfg(target_os = "linux")]
        {
            use rustix::fs::{fallocate, FallocateFlags};
            // Room without length, so that a disk that fills up cannot stop the journal alone. Where
            // the file system has no such thing, a full disk shows at the write.
            let room = blocks * RECORD as u64;
            if let Err(error @ rustix::io::Errno::NOSPC) =
                fallocate(&file, FallocateFlags::KEEP_SIZE, 0, room.max(1))
            {
                return Err(failed("reserve space for", error.into()));
            }
        }
        #[cfg(not(target_os = "linux"))]
        let _ = blocks;
        Ok(Self { path: path.into(), file: Mutex::new(file) })
    }

    /// Read a journal and go on with it.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(super) fn resume(path: &Path) -> Result<(Self, Written)> {
        let failed = |action, source| Error::Io { path: path.into(), action, source };
        let file = open_to_append(path).map_err(|source| Error::Resume {
            path: path.into(),
            reason: format!("cannot open it: {source}"),
        })?;
        let (whole, written) = records(&file).map_err(|source| failed("read", source))?;
        file.set_len(whole).map_err(|source| failed("write", source))?;
        Ok((Self { path: path.into(), file: Mutex::new(file) }, written))
    }

    /// Leave out of a journal what does not belong to some jobs. It is written anew and renamed, so
    /// that whoever is killed here leaves the old one or the new one.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(super) fn keep(path: &Path, jobs: &HashSet<usize>) -> Result<()> {
        let failed = |source| Error::Io { path: path.into(), action: "write", source };
        let kept = Self::read(path)
            .blocks
            .into_iter()
            .filter(|((job, _), _)| jobs.contains(&(*job as usize)));
        let records: Vec<u8> =
            kept.flat_map(|((job, number), hash)| encode(job, number, hash)).collect();
        let new = path.with_extension("new");
        let write = || {
            match std::fs::remove_file(&new) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
            file.write_all(&records)?;
            file.sync_all()?;
            std::fs::rename(&new, path)
        };
        write().map_err(failed)
    }

    /// The blocks that a journal lists; none where it cannot be read.
    pub(super) fn read(path: &Path) -> Written {
        let listed = open_again(path).and_then(|file| records(&file));
        listed.map(|(_, written)| written).unwrap_or_default()
    }

    /// A block's bytes were written.
    ///
    /// # Errors
    /// [`Error::Io`]
    pub(super) fn add(&self, job: usize, number: usize, hash: u64) -> Result<()> {
        let failed = |source| Error::Io { path: self.path.clone(), action: "write", source };
        let record = encode(job as u32, number as u32, hash);
        let mut file = self.file.lock().unwrap_or_else(|e| e.into_inner());
        file.write_all(&record).map_err(failed)
    }
}

/// The length of a journal's whole records, and what they say.
fn records(file: &File) -> std::io::Result<(u64, Written)> {
    let length = file.metadata()?.len();
    let mut written = Written::default();
    let mut whole = 0;
    let mut records = [[0; RECORD]; 512];
    while whole + RECORD as u64 <= length {
        let some = records.len().min(((length - whole) / RECORD as u64) as usize);
        let records = &mut records[..some];
        read_exact_at(file, records.as_flattened_mut(), whole)?;
        for record in &*records {
            let Some((job, number, hash)) = decode(record) else { return Ok((whole, written)) };
            written.blocks.insert((job, number), hash);
            whole += RECORD as u64;
        }
    }
    Ok((whole, written))
}

impl Written {
    /// Number of blocks.
    pub(super) fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Hash of a block.
    pub(super) fn get(&self, job: usize, number: usize) -> Option<u64> {
        self.blocks.get(&(job as u32, number as u32)).copied()
    }

    /// Every job with the hash of its block 0.
    pub(super) fn of_jobs(&self) -> HashMap<usize, u64> {
        let first = self.blocks.iter().filter(|((_, number), _)| *number == 0);
        first.map(|((job, _), hash)| (*job as usize, *hash)).collect()
    }

    /// Keep the blocks for which `whole(job, number, hash)` holds; asked in the order of the output.
    pub(super) fn retain(&mut self, mut whole: impl FnMut(usize, usize, u64) -> bool) {
        let mut order: Vec<_> = self.blocks.iter().map(|(&key, &hash)| (key, hash)).collect();
        order.sort_unstable();
        for ((job, number), hash) in order {
            if !whole(job as usize, number as usize, hash) {
                self.blocks.remove(&(job, number));
            }
        }
    }
}

fn encode(job: u32, number: u32, hash: u64) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    record[..4].copy_from_slice(&job.to_le_bytes());
    record[4..8].copy_from_slice(&number.to_le_bytes());
    record[8..16].copy_from_slice(&hash.to_le_bytes());
    let own = xxh3_64(&record[..16]);
    record[16..].copy_from_slice(&own.to_le_bytes());
    record
}

fn decode(record: &[u8; RECORD]) -> Option<(u32, u32, u64)> {
    let word = |at: usize| {
        u32::from_le_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
    };
    let long = |at: usize| u64::from(word(at)) | u64::from(word(at + 4)) << 32;
    (xxh3_64(&record[..16]) == long(16)).then(|| (word(0), word(4), long(8)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_that_was_cut_short_keeps_its_whole_records() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("journal");
        let journal = Journal::create(&path, 3).unwrap();
        for (job, number) in [(0, 0), (0, 1), (7, 3)] {
            journal.add(job, number, 11 * number as u64 + 5).unwrap();
        }
        drop(journal);
        let whole = std::fs::read(&path).unwrap();
        for cut in 0..=whole.len() {
            std::fs::write(&path, &whole[..cut]).unwrap();
            let (journal, written) = Journal::resume(&path).unwrap();
            assert_eq!(written.len(), cut / RECORD);
            journal.add(9, 9, 1).unwrap();
            let (_, written) = Journal::resume(&path).unwrap();
            assert_eq!(written.len(), cut / RECORD + 1);
            assert_eq!(written.get(9, 9), Some(1));
        }
        for byte in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[byte] ^= 0x10;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(Journal::resume(&path).unwrap().1.len(), byte / RECORD);
        }
    }
}
