//! `cargo xtask fuzz`: coverage-guided fuzzing of everything that reads bytes from outside.
//!
//! libFuzzer on the stable compiler: LLVM's coverage pass is asked for by flags, and the fuzzer itself is C++, so g++ is
//! needed and nothing else. New inputs and crashes go to `target/fuzz/TARGET`; `fuzz/corpus/TARGET` holds the seeds that
//! are kept. As many targets run at once as there are processors. `cargo xtask test` does this for a bounded time, and
//! `cargo xtask test --quick` runs the same targets without counters: see `fuzz/src/plain.rs`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};
use comfy_table::{Table, presets};

use crate::project::{Project, cargo};
use crate::setup::{self, Need};

/// The flags that `cargo fuzz --sanitizer none` uses too. They must not reach build scripts, hence a target of its own.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
                        -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
                        -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// The target it runs on.
const HOST: &str = "x86_64-unknown-linux-gnu";
/// An input that takes longer than this is a finding.
const SLOW_SECONDS: u32 = 10;
/// A target that needs more memory than this is a finding.
const MEMORY_MIB: u32 = 1024;

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The targets to run; all when none is named
    targets: Vec<String>,
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Where the random choices start: the same number makes the same ones again; without it they differ each time
    #[arg(long, value_name = "N")]
    seed: Option<u32>,
    /// Only run the kept inputs once, as a check
    #[arg(long)]
    corpus: bool,
    /// Print the names of the targets
    #[arg(long)]
    list: bool,
}

/// What one target came to.
#[derive(Clone)]
struct Run {
    name: String,
    executions: String,
    covered: String,
    crash: Option<PathBuf>,
    /// Why it ended, in the words of its log.
    words: String,
}

/// How many lines of its log are shown of a target that found something.
const SHOWN: usize = 12;

/// Builds the targets and runs them.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    setup::ensure(Need::Fuzz)?;
    let project = Project::find()?;
    let program = build(&project)?;
    let all = names(&project, &program)?;
    if arguments.list {
        all.iter().for_each(|name| println!("{name}"));
        return Ok(());
    }
    for name in &arguments.targets {
        ensure!(
            all.contains(name),
            "there is no target {name}: `cargo xtask fuzz --list`"
        );
    }
    let chosen = if arguments.targets.is_empty() {
        &all
    } else {
        &arguments.targets
    };
    report(&together(&project, &program, chosen, arguments)?)
}

/// The words of the verb that fuzzes every target for so long, as `cargo xtask test` does beside its tests: with the same random
/// choices each time, so that a commit that passed does not fail by chance. What nobody has found yet is looked for by the verb
/// without a seed.
pub(crate) fn words(seconds: u32) -> Vec<String> {
    ["fuzz", "--seed", "1", "--seconds"]
        .map(str::to_owned)
        .into_iter()
        .chain([seconds.to_string()])
        .collect()
}

/// Runs targets, as many at once as there are processors; gives what they came to in their own order.
fn together(project: &Project, program: &Path, chosen: &[String], arguments: &Arguments) -> Result<Vec<Run>> {
    let left = Mutex::new(chosen.iter().enumerate());
    let work = || {
        let mut runs = Vec::new();
        loop {
            let next = left.lock().ok().and_then(|mut left| left.next());
            let Some((place, name)) = next else { return Ok(runs) };
            let run = one(project, program, name, arguments)?;
            println!("{name}: {} executions, {} places covered", run.executions, run.covered);
            runs.push((place, run));
        }
    };
    let ended: Vec<Result<_>> = thread::scope(|scope| {
        let count = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(work)).collect();
        let ends = workers.into_iter().map(|worker| worker.join());
        ends.map(|end| end.unwrap_or_else(|_| bail!("a thread that watches a target ended")))
            .collect()
    });
    let mut runs = ended.into_iter().collect::<Result<Vec<_>>>()?.concat();
    runs.sort_by_key(|(place, _)| *place);
    Ok(runs.into_iter().map(|(_, run)| run).collect())
}

fn build(project: &Project) -> Result<PathBuf> {
    let target = project.target.join("fuzz-build");
    let status = cargo()
        .args(["build", "--quiet", "--profile", "fuzz", "--target", HOST])
        .args(["-p", "rackbar-fuzz", "--bin", "rackbar-fuzz", "--features", "libfuzzer"])
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", COVERAGE)
        .status()
        .context("starting cargo")?;
    ensure!(status.success(), "building the fuzz targets failed ({status})");
    Ok(target.join(HOST).join("fuzz/rackbar-fuzz"))
}

/// The program prints its targets when it is given none.
fn names(project: &Project, program: &Path) -> Result<Vec<String>> {
    let folder = project.target.join("fuzz");
    std::fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    // libFuzzer takes a program that ends by itself for a crash and writes the input down, an empty one here.
    let output = Command::new(program)
        .args(["-runs=1", "-artifact_prefix=no-target-"])
        .current_dir(&folder)
        .env_remove("RACKBAR_FUZZ_TARGET")
        .output()
        .context("asking for the targets")?;
    let names: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .map(str::to_owned)
        .collect();
    ensure!(!names.is_empty(), "{} names no targets", program.display());
    Ok(names)
}

fn one(project: &Project, program: &Path, name: &str, arguments: &Arguments) -> Result<Run> {
    let folder = project.target.join("fuzz").join(name);
    let found = folder.join("corpus");
    std::fs::create_dir_all(&found).with_context(|| format!("creating {}", found.display()))?;
    let crashes = format!("{}/", folder.display());
    let mut command = Command::new(program);
    command
        .env("RACKBAR_FUZZ_TARGET", name)
        .args([
            format!("-timeout={SLOW_SECONDS}"),
            format!("-rss_limit_mb={MEMORY_MIB}"),
        ])
        .args([format!("-artifact_prefix={crashes}"), "-print_final_stats=1".into()]);
    if let Some(seed) = arguments.seed {
        // To libFuzzer a seed of 0 is none.
        command.arg(format!("-seed={}", seed.max(1)));
    }
    if arguments.corpus {
        command.arg("-runs=0");
    } else {
        command
            .arg(format!("-max_total_time={}", arguments.seconds))
            .arg(&found);
    }
    let kept = project.root.join("fuzz/corpus").join(name);
    if kept.is_dir() {
        command.arg(&kept);
    }
    let output = command.output().with_context(|| format!("running {name}"))?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let log = folder.join("log");
    std::fs::write(&log, &said).with_context(|| format!("writing {}", log.display()))?;
    let crash = said.lines().find_map(|line| line.split("Test unit written to ").nth(1));
    let run = Run {
        name: name.into(),
        executions: after(&said, "stat::number_of_executed_units:"),
        covered: after(&said, " cov:"),
        crash: crash.map(PathBuf::from),
        words: reason(&said),
    };
    if !output.status.success() && run.crash.is_none() {
        bail!(
            "{name} ended ({}) without an input to show; its log is {}:\n{}",
            output.status,
            log.display(),
            run.words
        );
    }
    Ok(run)
}

/// Why a target ended: the lines of its log from the panic on, or from libFuzzer's own complaint, or its last ones.
fn reason(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    let tells = |line: &&str| line.contains(" panicked at ") || line.contains("ERROR: libFuzzer");
    let from = lines.iter().position(tells);
    let from = from.unwrap_or(lines.len().saturating_sub(SHOWN));
    lines
        .iter()
        .skip(from)
        .take(SHOWN)
        .copied()
        .collect::<Vec<_>>()
        .join("\n")
}

/// The word behind the last `mark`.
fn after(text: &str, mark: &str) -> String {
    let rest = text.rsplit_once(mark).map_or("", |(_, rest)| rest);
    rest.split_whitespace().next().unwrap_or("?").to_owned()
}

fn report(runs: &[Run]) -> Result<()> {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["target", "executions", "covered", "found"]);
    for run in runs {
        let found = run.crash.as_ref().map_or("-".into(), |path| path.display().to_string());
        table.add_row([&run.name, &run.executions, &run.covered, &found]);
    }
    println!("{table}");
    let found: Vec<&Run> = runs.iter().filter(|run| run.crash.is_some()).collect();
    for Run { name, words, .. } in &found {
        println!("\n{name}: {words}");
    }
    ensure!(
        found.is_empty(),
        "{} targets found something: the log beside each input says what. An input whose cause is repaired belongs in \
         fuzz/corpus/TARGET",
        found.len()
    );
    Ok(())
}
