//! The arithmetic, on slices that fit the second-level cache. Nothing here knows files or threads.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
pub(crate) mod bracket;
pub(crate) mod combine;
pub(crate) mod distance;
pub(crate) mod dot;
pub(crate) mod draw;
pub(crate) mod drop;
pub(crate) mod elementwise;
pub(crate) mod fused;
pub(crate) mod gram;
pub(crate) mod linear;
pub(crate) mod masked;
pub(crate) mod similar;
pub(crate) mod slope;
pub(crate) mod trim;
