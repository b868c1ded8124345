//! Fuzzing of all that the core reads from outside: headers, indexes, plans, and files on disk.
//!
//! Each input is a valid one with some changes. Whatever it is, the core must return, without a
//! panic, without memory out of proportion, and soon; and what it accepts must hold together.
//! `docs/evidence/robustness.md` has the commands.

// The helpers below are part of the tests, which may unwrap.
#![allow(clippy::unwrap_used)]

mod bombs;
mod files;
mod header;
mod index;
mod json;
mod mutate;
mod plan;
mod run;
