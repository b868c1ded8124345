//! A block of each input in a buffer of the worker's, for kernels that go over it chunk by chunk.
//!
//! ```text
//! first chunk of a block -> read the whole block from the file into the input's window
//! other chunks, its hash -> the window
//! ```
//! 1. A map costs a fault for every 64 KiB, and the pages are given back: to copy a block from the page
//!    cache costs less, and the copy lies in the second-level cache. `linear` of four experts takes
//!    0.83 s for 1.01, task arithmetic 1.07 for 1.18 (docs/evidence/speed.md).
//! 2. Only where one pass goes over the inputs. A second one finds a small tensor's pages mapped, so
//!    that windows in both passes of TIES took 3.5 CPU seconds for 3.2, and windows for its large
//!    tensors alone 1.91 s for 1.91.
//! 3. Only while all windows fit the second-level cache, and no memory limit is near.
//!
//! Lost: chunks of 8 KiB, since a call costs as much as its copy; windows of 32 and 64 KiB (`linear`
//! 0.83 s for 0.75), whose blocks are read once more to be hashed; of 256 KiB, no better.

use std::ops::{Deref, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::checkpoint::Reader;
use crate::error::Result;
use crate::source::{Source, Tensor};
use crate::work::{BLOCK, DEFAULT_CHUNK};

/// Bytes of all windows of a worker: beyond, they fall out of the cache.
const MOST: usize = 1 << 20;

/// One window for each input of a pass over some elements of them; or none.
#[derive(Debug)]
pub(crate) struct Windows(Vec<Option<Window>>);

impl Windows {
    /// For inputs of `len` elements that are gone over in chunks of `chunk`.
    pub(crate) fn new(inputs: &[&Tensor], len: usize, chunk: usize) -> Self {
        let there = Self::bytes(inputs, len, chunk) > 0;
        let one = |input: &&Tensor| {
            there.then(|| Window { length: block_bytes(input, len), filled: Mutex::default() })
        };
        Self(inputs.iter().map(one).collect())
    }

    /// For a pass that finds its pages mapped.
    pub(crate) fn none(inputs: &[&Tensor]) -> Self {
        Self(inputs.iter().map(|_| None).collect())
    }

    /// Bytes of the windows.
    pub(crate) fn bytes(inputs: &[&Tensor], len: usize, chunk: usize) -> usize {
        let all: usize = inputs.iter().map(|input| block_bytes(input, len)).sum();
        // A smaller chunk means that memory is short.
        if chunk >= DEFAULT_CHUNK && all <= MOST {
            all
        } else {
            0
        }
    }

    /// The same inputs, read through the windows.
    pub(crate) fn over<'a>(&'a self, inputs: &[&Tensor<'a>]) -> Vec<Tensor<'a>> {
        let one = |(input, window): (&&Tensor<'a>, &'a Option<Window>)| match (input, window) {
            (Tensor::Stored(tensor), Some(window)) => Tensor::Stored(tensor.through(window)),
            _ => (*input).clone(),
        };
        inputs.iter().zip(&self.0).map(one).collect()
    }
}

fn block_bytes(input: &Tensor, len: usize) -> usize {
    match input {
        Tensor::Stored(_) => BLOCK.min(len) * input.dtype().size(),
        Tensor::Made(..) => 0,
    }
}

/// Part of a file, of up to a block.
#[derive(Debug)]
pub(crate) struct Window {
    length: usize,
    /// Its first byte, and the bytes. One worker uses it, so that nobody waits.
    filled: Mutex<(u64, Vec<u8>)>,
}

/// Bytes of an input.
pub(super) enum Bytes<'a> {
    /// Of a map, of memory or of a buffer of the caller's.
    Plain(&'a [u8]),
    /// Part of what a window holds.
    Window(MutexGuard<'a, (u64, Vec<u8>)>, Range<usize>),
}

impl Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Window(filled, part) => &filled.1[part.clone()],
        }
    }
}

impl Window {
    /// `length` bytes from `offset` of a file, in which the tensor ends at `end`.
    ///
    /// # Errors
    /// [`crate::error::Error::Io`]
    pub(super) fn read<'a>(
        &'a self,
        reader: &'a Reader,
        offset: u64,
        length: usize,
        end: u64,
        scratch: &'a mut Vec<u8>,
    ) -> Result<Bytes<'a>> {
        if length > self.length || reader.is_memory() {
            return reader.read(offset, length, scratch).map(Bytes::Plain);
        }
        let mut filled = self.filled.lock().unwrap_or_else(PoisonError::into_inner);
        let (start, bytes) = &mut *filled;
        if offset < *start || offset + length as u64 > *start + bytes.len() as u64 {
            let wanted = (self.length as u64).min(end - offset) as usize;
            bytes.resize(wanted, 0);
            if let Err(error) = reader.copy(offset, bytes) {
                bytes.clear();
                return Err(error);
            }
            *start = offset;
        }
        let at = (offset - *start) as usize;
        Ok(Bytes::Window(filled, at..at + length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_gives_the_bytes_of_the_file_and_ends_with_its_tensor() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let reader = Reader::open(&path).unwrap();
        let window = Window { length: 4, filled: Mutex::default() };
        let mut scratch = Vec::new();
        for (offset, length) in [(1, 2), (3, 2), (6, 2), (6, 3), (2, 1), (0, 9)] {
            let expected = &b"0123456789"[offset..offset + length];
            let found = window.read(&reader, offset as u64, length, 9, &mut scratch).unwrap();
            assert_eq!(&*found, expected);
        }
        drop(window.read(&reader, 8, 1, 9, &mut scratch).unwrap());
        assert_eq!(&*window.filled.lock().unwrap(), &(8, b"8".to_vec()));
    }

    #[test]
    fn a_file_that_was_cut_is_told_and_nothing_stays_of_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        std::fs::write(&path, b"0123456789").unwrap();
        let reader = Reader::open(&path).unwrap();
        let window = Window { length: 4, filled: Mutex::default() };
        let mut scratch = Vec::new();
        drop(window.read(&reader, 0, 2, 10, &mut scratch).unwrap());
        std::fs::write(&path, b"01").unwrap();
        for _ in 0..2 {
            let error = window.read(&reader, 4, 2, 10, &mut scratch).map(drop).unwrap_err();
            assert!(matches!(error, crate::error::Error::Io { action: "read", .. }));
        }
    }
}
