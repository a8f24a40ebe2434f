//! Coverage-guided fuzzing by libFuzzer, on the stable compiler.
//!
//! One program for all targets: `RACKBAR_FUZZ_TARGET` names the one to run, and without it the names are printed. It is
//! built with LLVM's coverage counters (`cargo xtask fuzz` gives the flags), without a sanitizer for memory errors: that
//! needs the nightly compiler, and what is fuzzed here is safe Rust.
#![no_main]

use std::sync::OnceLock;

use rackbar_fuzz::{TARGETS, Target, target};

static CHOSEN: OnceLock<Target> = OnceLock::new();

/// The target named in the environment; prints all names and ends the program when there is none of that name.
fn chosen() -> Target {
    let name = std::env::var("RACKBAR_FUZZ_TARGET").unwrap_or_default();
    target(&name).unwrap_or_else(|| {
        TARGETS.iter().for_each(|target| println!("{}", target.0));
        std::process::exit(2)
    })
}

libfuzzer_sys::fuzz_target!(|data: &[u8]| CHOSEN.get_or_init(chosen)(data));
