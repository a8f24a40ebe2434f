//! Every target for a bounded time, over its kept inputs and over mutations of them: `RACKBAR_FUZZ_SECONDS` says how long
//! each is tried (1 when it is not set), as many at once as there are processors. With 0 only the kept inputs are: `cargo xtask
//! test` fuzzes with coverage counters afterwards.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_fuzz::{TARGETS, plain};

/// The program that tries one target.
const PROGRAM: &str = env!("CARGO_BIN_EXE_rackbar-fuzz-plain");

/// An input that takes longer than this is a finding. In the build of the tests, beside other work.
const SLOW_MILLIS: u64 = 20_000;

/// What one target is tried with.
struct Trial<'a> {
    name: &'a str,
    kept: PathBuf,
    /// Where a finding is written down.
    found: PathBuf,
    millis: u64,
    slow: u64,
    seed: u64,
}

impl Trial<'_> {
    fn current(&self) -> PathBuf {
        self.found.join("current")
    }

    /// Runs it; gives how many inputs were tried, or what was found and how to see it again.
    fn run(&self) -> Result<u64, String> {
        std::fs::create_dir_all(&self.found).map_err(|error| format!("{}: {error}", self.found.display()))?;
        let numbers = [self.millis, self.slow, self.seed].map(|number| number.to_string());
        let mut program = Command::new(PROGRAM);
        program.arg(self.name).arg(&self.kept).arg(self.current()).args(numbers);
        let output = program.output().map_err(|error| format!("{PROGRAM}: {error}"))?;
        if !output.status.success() {
            return Err(self.finding(&output));
        }
        let said = String::from_utf8_lossy(&output.stdout);
        said.trim()
            .parse()
            .map_err(|_| format!("{}: it said {said:?}", self.name))
    }

    /// Writes the input down under a name of its own.
    fn finding(&self, output: &Output) -> String {
        let name = self.name;
        let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let input = match plain::current(&self.current()) {
            Ok(input) => input,
            Err(error) => return format!("{name}: {} before it tried an input ({error}): {words}", output.status),
        };
        let path = self.found.join(format!("found-{:016x}", self.seed));
        if let Err(error) = std::fs::write(&path, &input) {
            return format!(
                "{name}: {words}; its input could not be written to {}: {error}",
                path.display()
            );
        }
        let path = path.display();
        format!(
            "{name}: {}: {words}\n  the input, {} bytes, is {path}\n  again: cargo run -p rackbar-fuzz --bin \
             rackbar-fuzz-plain -- {name} {path}\n  repaired: keep it in fuzz/corpus/{name}",
            output.status,
            input.len()
        )
    }
}

/// The folder that `cargo xtask fuzz` writes to as well.
fn found(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("cargo's target folder");
    target.join("fuzz").join(name)
}

fn corpus(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name)
}

#[test]
fn every_target_bears_its_kept_inputs_and_mutations_of_them() {
    let seconds = std::env::var("RACKBAR_FUZZ_SECONDS").map_or(1.0, |text| text.parse::<f64>().expect("seconds"));
    let millis = (seconds * 1000.0) as u64;
    // Another one each time: what is found does not depend on it, for the input itself is written down.
    let seed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock")
        .as_nanos() as u64;
    let (left, findings, tried) = (Mutex::new(TARGETS.iter()), Mutex::new(Vec::new()), AtomicU64::new(0));
    let work = || {
        loop {
            let next = left.lock().expect("no other thread panicked").next();
            let Some((name, _)) = next else { return };
            let (kept, found) = (corpus(name), found(name));
            let trial = Trial {
                name,
                kept,
                found,
                millis,
                slow: SLOW_MILLIS,
                seed,
            };
            match trial.run() {
                Ok(count) => {
                    println!("{name}: {count} inputs");
                    tried.fetch_add(count, Ordering::Relaxed);
                }
                Err(finding) => findings.lock().expect("no other thread panicked").push(finding),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(work);
        }
    });
    println!("{} inputs in all, seed {seed}", tried.load(Ordering::Relaxed));
    let findings = findings.into_inner().expect("no other thread panicked");
    assert!(
        findings.is_empty(),
        "{} targets found something\n{}",
        findings.len(),
        findings.join("\n")
    );
}

#[test]
fn every_target_has_kept_inputs_and_every_folder_of_them_a_target() {
    for (name, _) in TARGETS {
        let kept = plain::kept(&corpus(name)).expect("its kept inputs");
        assert!(!kept.is_empty(), "{name} has no kept inputs in fuzz/corpus/{name}");
    }
    for entry in std::fs::read_dir(corpus("")).expect("the folder of the kept inputs") {
        let name = entry.expect("a folder").file_name();
        assert!(
            name.to_str().is_some_and(|name| rackbar_fuzz::target(name).is_some()),
            "{name:?} is no target"
        );
    }
}

/// Tries a target that fails on mutations of `hello` and never on `hello` itself.
fn scratch(name: &str, slow: u64) -> (String, Vec<u8>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("kept");
    std::fs::create_dir(&kept).expect("a folder");
    std::fs::write(kept.join("one"), "hello").expect("a kept input");
    let trial = Trial {
        name,
        kept,
        found: folder.path().join("found"),
        millis: 20_000,
        slow,
        seed: 7,
    };
    let finding = trial.run().expect_err("a target that fails");
    let input = std::fs::read(trial.found.join("found-0000000000000007")).expect("the input is written down");
    (finding, input, folder)
}

#[test]
fn a_panic_is_found_written_down_and_repeated() {
    let (finding, input, folder) = scratch("scratch-panic", SLOW_MILLIS);
    assert!(finding.contains("the fifth byte is not what it was"), "{finding}");
    assert!(input.len() >= 5 && input[4] != b'o', "{input:?}");
    let path = folder.path().join("found/found-0000000000000007");
    assert!(
        finding.contains(&format!("rackbar-fuzz-plain -- scratch-panic {}", path.display())),
        "{finding}"
    );
    let again = Command::new(PROGRAM)
        .arg("scratch-panic")
        .arg(path)
        .output()
        .expect("the program");
    assert!(!again.status.success());
    assert!(
        String::from_utf8_lossy(&again.stderr).contains("the fifth byte is not what it was"),
        "{again:?}"
    );
}

#[test]
fn an_endless_loop_and_memory_without_bound_are_found() {
    let (finding, input, _folder) = scratch("scratch-endless", 500);
    assert!(
        finding.contains("an input takes longer than 500 ms") && input.len() > 5,
        "{finding}"
    );
    let (finding, input, _folder) = scratch("scratch-memory", SLOW_MILLIS);
    assert!(finding.contains("memory allocation of") && input.len() > 5, "{finding}");
}
