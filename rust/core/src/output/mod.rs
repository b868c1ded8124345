//! Where output goes: every byte's place, decided first, and the files or memory that take the
//! blocks. Uses `plan`, the bounds of `checkpoint`'s headers, and what is below them.

mod early_sync;
mod exchange;
mod file_sink;
mod handles;
mod journal;
mod layout;
mod memory_sink;
mod product_sink;
mod rename_new;
mod sink;

pub use early_sync::syncing_early;
pub use exchange::exchange;
pub use file_sink::FileSink;
pub use handles::Handles;
pub use layout::{FileLayout, Layout, Place};
pub use memory_sink::{MemorySink, Region};
pub use product_sink::{ProductSink, Vector};
pub use rename_new::rename_new;
pub use sink::{Block, Sink};
