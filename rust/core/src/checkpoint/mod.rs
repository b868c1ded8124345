//! A checkpoint: one safetensors file, shards with an index, or tensors in memory. Headers are
//! checked in full when it is opened. Uses the models of `plan`, and what is below it.

mod entries;
#[doc(hidden)]
pub mod header;
#[doc(hidden)]
pub mod index;
mod memory;
mod opening;
mod reader;
mod tensors;

pub(crate) use header::MAX_HEADER;
pub use memory::MemoryTensor;
pub use opening::{Checkpoint, Headers, KnownHeaders};
pub use reader::{Identity, Reader};
pub use tensors::{Kind, TensorEntry, Tensors};
