//! What reads checkpoints and writes none: content hashes, the distances between two, and what the
//! deltas of a pool have in common. Beside `execute`, of which it uses nothing.

mod buffers;
mod diff;
mod similarity;
mod verify;

pub use buffers::differing_copies;
pub use diff::{distances, Distance, ValueDistance};
pub use similarity::{similarities, Pool, Similarity};
pub use verify::content_hashes;
