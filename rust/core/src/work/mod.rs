//! How work is cut up, spread over threads, counted and stopped. Uses `error` alone.

mod control;
mod parallel;
mod segments;

pub use control::{Control, JobControl};
pub use parallel::{over_runs, pool, Parallel};
pub use segments::{is_large, pieces, segments, Segment, BLOCK, DEFAULT_CHUNK};
