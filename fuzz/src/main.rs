//! Coverage-guided fuzzing of everything that reads bytes from outside, by libFuzzer, on the stable compiler.
//!
//! One program for all targets: `RACKBAR_FUZZ_TARGET` names the one to run, and without it the names are printed. It is
//! built with LLVM's coverage counters (`cargo xtask fuzz` gives the flags), without a sanitizer for memory errors: that
//! needs the nightly compiler, and what is fuzzed here is safe Rust. What is found: panics, overflows, endless loops,
//! memory without bound, and broken promises that the targets check.
#![no_main]

mod pieces;
mod targets;

use std::sync::OnceLock;

// Parsers that are private to a program or a crate are read from their own files, and find here what they name.
#[allow(unused_imports, reason = "what they name is for them to say")]
pub(crate) use rackbar_devices::*;

use targets::{TARGETS, Target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

/// The target named in the environment; prints all names and ends the program when there is none of that name.
fn chosen() -> Target {
    let name = std::env::var("RACKBAR_FUZZ_TARGET").unwrap_or_default();
    match TARGETS.iter().find(|target| target.0 == name) {
        Some(target) => target.1,
        None => {
            TARGETS.iter().for_each(|target| println!("{}", target.0));
            std::process::exit(2)
        }
    }
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| CHOSEN.get_or_init(chosen)(data));
