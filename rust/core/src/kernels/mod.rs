//! The arithmetic, on slices that fit the second-level cache. Nothing here knows files or threads.

pub mod combine;
pub mod distance;
pub mod drop;
pub mod elementwise;
pub mod fused;
pub mod linear;
pub mod similar;
pub mod trim;
