//! mergeplan-core merges safetensors checkpoints in bounded memory. It knows no Python.
//!
//! # How a merge runs
//! A [`plan::Plan`] lists one job for each output tensor. [`execute::Prepared`] opens the inputs and
//! checks every job against their headers, so that nothing fails after the first output byte that
//! could have failed before it. [`output::Layout`] then fixes every output header and offset, the
//! [`output::Sink`] reserves the space, and workers stream: read a chunk of every input from its
//! source, compute in `f32` registers rounded to the working dtype, write the block at its place,
//! note it in the journal. Another thread asks for input ahead of them.
//!
//! ```
//! use std::sync::Arc;
//!
//! use mergeplan_core::execute::{Options, Prepared};
//! use mergeplan_core::output::{FileSink, Layout, Sink};
//! use mergeplan_core::plan::Plan;
//! use mergeplan_core::work::{Control, DEFAULT_CHUNK};
//! use safetensors::{serialize_to_file, tensor::TensorView, Dtype, SafeTensors};
//!
//! let folder = tempfile::tempdir()?;
//! let [a, b] = ["a", "b"].map(|name| folder.path().join(name).with_extension("safetensors"));
//! for (path, value) in [(&a, 1.0_f32), (&b, 5.0)] {
//!     let bytes = value.to_le_bytes();
//!     serialize_to_file([("x", TensorView::new(Dtype::F32, vec![1], &bytes)?)], None, path)?;
//! }
//!
//! let plan = serde_json::json!({
//!     "version": 1, "seed": 0, "allow_nonfinite": false, "max_shard_bytes": 1_000_000,
//!     "models": [a, b],
//!     "jobs": [{"tensor": "x", "shape": [1], "out_dtype": "F32", "merge": {
//!         "kind": "linear", "dtype": "float32", "normalize": true,
//!         "inputs": [{"model": 0, "tensor": "x", "weight": 1.0},
//!                    {"model": 1, "tensor": "x", "weight": 3.0}]}}],
//! });
//! let prepared = Prepared::new(Plan::from_json(&plan.to_string())?)?;
//! let layout = Arc::new(Layout::new(&prepared.plans()[0])?);
//! let files = FileSink::create(folder.path(), &layout, &folder.path().join("journal"))?;
//! let options = Options::new(2, DEFAULT_CHUNK, 64 << 20)?;
//! prepared.run(&[prepared.target(0, &files)], options, &Control::default())?;
//! files.finish()?;
//!
//! let written = std::fs::read(folder.path().join("model.safetensors"))?;
//! assert_eq!(SafeTensors::deserialize(&written)?.tensor("x")?.data(), 4.0_f32.to_le_bytes());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Why layout first
//! Output dtypes and shapes follow from the plan. With every offset known, workers fill disjoint
//! ranges in any order, and memory holds chunks, never tensors or shards.
//!
//! # Why two passes
//! Trimming keeps the largest magnitudes of a *tensor*, and DARE restores the norm of a *tensor*:
//! [`statistics`] goes over the blocks once, all experts side by side so that the base is read once,
//! and leaves a small state; the second pass applies it. States know nothing of the other experts.
//!
//! # How many merges share a pass
//! A family of plans opens each input once. Jobs of one tensor that read the same inputs in the same
//! way form a bundle: sums over the same tensors, or mixes of deltas that are taken and thinned alike.
//! Its statistics are found once for each expert and kept, each block of a delta is made once, and as
//! many mixes as memory allows are computed from it before the next. A merge of its own is a family of
//! one, so there is one way through the code, and no merge can see what runs beside it.
//!
//! # Why Philox
//! A random mask must not depend on threads, chunks or the order of work, and must be the same in
//! every subset that an expert takes part in. [`number::philox`] computes the word for element `i`
//! from the seed, the tensor's name, a [fingerprint](statistics::fingerprint) of the expert's tensor
//! and `i` alone.
//!
//! # How memory is bounded
//! What a run needs is known before it begins: chunks of every input for each worker, and tables for
//! the statistics of one tensor. What makes it faster beyond that (masks kept between passes, several
//! experts counted at once, magnitudes set aside) gets what the limit leaves, and nothing else
//! changes. Mapped pages are given back behind the cursor, so that resident memory is bounded too.
//!
//! # What never changes a byte
//! Threads, chunk size, memory limit, CPU, being stopped and resumed, and the order of files. Ties at
//! a threshold break by index, sums over a tensor run over fixed blocks in float64, sums over experts
//! run in the order of the config.
//!
//! # When not to use it
//! Inputs are memory-mapped: they must not change during a merge. A change that leaves the length is
//! noticed at the end, by size and time of modification; a file that is truncated while it is mapped
//! ends the process with SIGBUS, which leaves what a kill leaves. Files on network file systems are
//! read, not mapped, for that reason.
//!
//! Beside merging, [`compare`] hashes a checkpoint as the merge did, to hold it against a manifest, and
//! measures how far two checkpoints are apart, and what the deltas of a pool have in common.

// Only what the binding and the tests use is `pub`, so that the compiler finds what nobody does.
#![warn(unreachable_pub)]

pub mod checkpoint;
pub mod compare;
mod error;
pub mod execute;
pub mod fault;
mod kernels;
pub mod lent;
pub mod number;
pub mod output;
pub mod plan;
mod positional;
mod source;
pub mod statistics;
pub mod work;

pub use error::{Error, Result};
