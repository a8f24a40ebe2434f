//! Targets for fuzzing: everything that reads bytes from outside, by name, and two ways to try them.
//!
//! `cargo test` runs each for a bounded time over its kept inputs and over mutations of them, in the ordinary build
//! ([`plain`]). `cargo xtask fuzz`, which is a part of `cargo xtask test`, builds the same targets with LLVM's coverage counters
//! and lets libFuzzer look for inputs that reach further. What both find: panics, overflows, endless loops, memory without bound, and broken promises that the
//! targets check.

pub mod mutation;
mod pieces;
pub mod plain;
mod targets;

// Parsers that are private to a program or a crate are read from their own files, and find here what they name.
#[allow(unused_imports, reason = "what they name is for them to say")]
pub(crate) use rackbar_devices::*;

pub use targets::{TARGETS, Target};

/// The target of this name.
pub fn target(name: &str) -> Option<Target> {
    TARGETS.iter().find(|target| target.0 == name).map(|target| target.1)
}
