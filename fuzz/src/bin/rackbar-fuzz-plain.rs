//! Runs one target without coverage counters: over its kept inputs and mutations of them for a bounded time, or over one
//! file, to repeat a finding.
//!
//! ```text
//! rackbar-fuzz-plain                                            the names of the targets
//! rackbar-fuzz-plain TARGET FILE                                one input
//! rackbar-fuzz-plain TARGET KEPT CURRENT MILLIS SLOW-MILLIS SEED
//! ```
//! `KEPT` is a folder of inputs, and `CURRENT` the file that says which input is being tried.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rackbar_fuzz::plain::{self, Bounds};
use rackbar_fuzz::{TARGETS, Target, target};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(words) => {
            println!("{words}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &[&str]) -> Result<String, String> {
    match arguments {
        [] => Ok(TARGETS.iter().map(|target| target.0).collect::<Vec<_>>().join("\n")),
        [name, file] => {
            let input = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
            named(name)?(&input);
            Ok(format!("{name} bears the {} bytes of {file}", input.len()))
        }
        [name, kept, current, millis, slow, seed] => {
            let number = |text: &str| text.parse::<u64>().map_err(|error| format!("{text:?}: {error}"));
            let bounds = Bounds {
                time: Duration::from_millis(number(millis)?),
                slow: Duration::from_millis(number(slow)?),
                seed: number(seed)?,
            };
            let words = |error: std::io::Error| format!("{name}: {error}");
            let kept = plain::kept(Path::new(kept)).map_err(words)?;
            let tried = plain::run(named(name)?, kept, bounds, Path::new(current)).map_err(words)?;
            Ok(tried.to_string())
        }
        _ => Err("give no arguments, TARGET FILE, or TARGET KEPT CURRENT MILLIS SLOW-MILLIS SEED".into()),
    }
}

fn named(name: &str) -> Result<Target, String> {
    let of_test = SCRATCH.iter().find(|one| one.0 == name).map(|one| one.1);
    target(name)
        .or(of_test)
        .ok_or_else(|| format!("there is no target {name:?}"))
}

/// Targets that fail, by which a test shows that failures are found. In no list.
const SCRATCH: &[(&str, Target)] = &[
    ("scratch-panic", |data| {
        assert!(
            data.len() < 5 || data.get(4) == Some(&b'o'),
            "the fifth byte is not what it was"
        );
    }),
    ("scratch-endless", |data| {
        while data.len() > 5 {
            std::hint::spin_loop();
        }
    }),
    ("scratch-memory", |data| {
        let length = if data.len() > 5 { 1 << 40 } else { 1 };
        std::hint::black_box(vec![1_u8; length]);
    }),
];
