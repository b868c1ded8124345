//! Where output goes: positional writes of finished blocks, in any order, from any thread.

use crate::error::Result;

/// Where a block belongs.
#[derive(Debug, Clone, Copy)]
pub struct Block {
    /// Number of the job whose tensor it is part of.
    pub job: usize,
    /// Number of the block in that tensor.
    pub number: usize,
    /// Its first byte, from the start of the tensor.
    pub offset: u64,
}

/// Takes the blocks of output tensors.
pub trait Sink: Sync {
    /// Store a block, whose xxh3 is `hash`. No two calls overlap.
    ///
    /// # Errors
    /// [`crate::Error::Io`]
    fn write(&self, block: Block, bytes: &[u8], hash: u64) -> Result<()>;

    /// The same, unless it would have to wait for another thread's block: then nothing is stored, and
    /// the answer is false.
    ///
    /// # Errors
    /// [`crate::Error::Io`]
    fn try_write(&self, block: Block, bytes: &[u8], hash: u64) -> Result<bool> {
        self.write(block, bytes, hash).map(|()| true)
    }

    /// The hash of a block that is stored already, from an earlier run.
    fn written(&self, _job: usize, _number: usize) -> Option<u64> {
        None
    }

    /// Whether the hash of all that a job reads is known, or of no use.
    fn knows_inputs(&self, _job: usize) -> bool {
        true
    }

    /// All that a job reads was read, and has this hash.
    ///
    /// # Errors
    /// [`crate::Error::Io`]
    fn inputs_read(&self, _job: usize, _hash: u64) -> Result<()> {
        Ok(())
    }

    /// Everything was written: make it durable.
    ///
    /// # Errors
    /// [`crate::Error::Io`]
    fn finish(&self) -> Result<()>;
}
