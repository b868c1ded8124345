//! What tells one expert's tensor from another's: a hash of a fixed sample of its stored bytes.
//!
//! ```text
//! up to 1 MiB                 all bytes
//! above                       the first 1,024 of every 16,384 bytes, and the last 1,024
//! ```
//! It keys random masks, nothing else: two experts whose tensors agree on the whole sample share a
//! mask there. Manifests and `verify` hash every byte ([`super::content`]).
//!
//! To hash every byte for the key took 27 % of a DARE merge. A row of an embedding, some kilobytes,
//! has one chance in four or better to touch the sample, so that experts that differ in a dozen rows
//! are told apart; pieces of 4 KiB, one in sixteen, would read as little and see half as many rows.

use std::ops::Range;

use xxhash_rust::xxh3::Xxh3;

use crate::error::Result;

/// Tensors up to this many bytes are hashed whole.
const WHOLE: u64 = 1 << 20;
const EVERY: u64 = 1 << 14;
const PIECE: u64 = 1 << 10;

/// The fingerprint of a tensor of `length` bytes; `read` gives a range of them to `visit`.
///
/// # Errors
/// Whatever `read` gives.
pub(crate) fn fingerprint(
    length: u64,
    mut read: impl FnMut(Range<u64>, &mut dyn FnMut(&[u8])) -> Result<()>,
) -> Result<u64> {
    let mut hash = Xxh3::new();
    let mut add = |range| read(range, &mut |bytes| hash.update(bytes));
    if length <= WHOLE {
        add(0..length)?;
    } else {
        for start in (0..length).step_by(EVERY as usize) {
            add(start..(start + PIECE).min(length))?;
        }
        add(length - PIECE..length)?;
    }
    Ok(hash.digest())
}

/// The fingerprint of a tensor that is in memory.
pub fn of_bytes(bytes: &[u8]) -> u64 {
    let read = |range: Range<u64>, visit: &mut dyn FnMut(&[u8])| {
        visit(&bytes[range.start as usize..range.end as usize]);
        Ok(())
    };
    // Only reading can fail, and here nothing is read.
    fingerprint(bytes.len() as u64, read).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use xxhash_rust::xxh3::xxh3_64;

    fn changes(bytes: &mut [u8], index: usize) -> bool {
        let before = of_bytes(bytes);
        bytes[index] ^= 1;
        let after = of_bytes(bytes);
        bytes[index] ^= 1;
        before != after
    }

    #[test]
    fn every_byte_counts_up_to_a_mebibyte() {
        for length in [0, 1, 1000, 1 << 20] {
            let bytes: Vec<u8> = (0..length).map(|i: usize| (i * 7) as u8).collect();
            assert_eq!(of_bytes(&bytes), xxh3_64(&bytes));
        }
    }

    #[test]
    fn above_that_the_documented_sample_counts_and_nothing_else() {
        let mut bytes = vec![3; (1 << 20) + 5000];
        let last = bytes.len() - 1;
        for inside in [0, 1023, 16_384, 16_384 + 1023, 1 << 20, last - 1023, last] {
            assert!(changes(&mut bytes, inside), "{inside}");
        }
        for outside in [1024, 16_383, 16_384 + 1024, last - 1024] {
            assert!(!changes(&mut bytes, outside), "{outside}");
        }
    }
}
