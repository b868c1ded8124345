//! A hash of a tensor's stored bytes, over fixed blocks, so that blocks can be hashed in any order:
//! xxh3 of the little-endian xxh3 hashes of all blocks of 65,536 elements.

use xxhash_rust::xxh3::xxh3_64;

/// Combine the hashes of all blocks, in order.
pub(crate) fn combine(blocks: &[u64]) -> u64 {
    let bytes: Vec<u8> = blocks.iter().flat_map(|hash| hash.to_le_bytes()).collect();
    xxh3_64(&bytes)
}

/// Hash a tensor that is in memory.
pub fn hash(bytes: &[u8], element_bytes: usize) -> u64 {
    let blocks: Vec<u64> = bytes.chunks(crate::work::BLOCK * element_bytes).map(xxh3_64).collect();
    combine(&blocks)
}
