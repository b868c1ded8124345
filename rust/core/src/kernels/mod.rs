//! The arithmetic, on slices that fit the second-level cache. Nothing here knows files or threads.

pub(crate) mod bracket;
pub(crate) mod combine;
pub(crate) mod distance;
pub(crate) mod drop;
pub(crate) mod elementwise;
pub(crate) mod fused;
pub(crate) mod gram;
pub(crate) mod linear;
pub(crate) mod similar;
pub(crate) mod trim;
