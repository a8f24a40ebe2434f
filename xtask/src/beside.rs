//! Programs that run beside the next step, one after the other, their words kept aside until they have ended.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};

use crate::project::Project;

/// Programs under way, this one's own verbs among them. They share our process group: Ctrl-C ends them too.
pub(crate) struct Beside {
    name: &'static str,
    work: JoinHandle<Result<()>>,
    log: PathBuf,
    start: Instant,
}

impl Beside {
    /// Starts programs; `name` says for people what they do. The first that fails is the last.
    ///
    /// # Errors
    /// When their log cannot be written.
    pub(crate) fn start(name: &'static str, programs: Vec<Command>) -> Result<Self> {
        let log = Project::find()?.target.join("beside.log");
        println!(
            "== {name}: begun beside the next step; its words go to {}",
            log.display()
        );
        let file = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        let work = std::thread::spawn(move || programs.into_iter().try_for_each(|program| run(program, &file)));
        Ok(Self {
            name,
            work,
            log,
            start: Instant::now(),
        })
    }

    /// Waits for their end and shows what they said.
    ///
    /// # Errors
    /// When one failed.
    pub(crate) fn finish(self) -> Result<()> {
        let ended = self.work.join();
        let said = std::fs::read_to_string(&self.log).with_context(|| format!("reading {}", self.log.display()))?;
        println!("{}", said.trim_end());
        ended.map_err(|_| anyhow!("the thread that watches {} ended", self.name))??;
        println!("== {}: ok, {:.0} s", self.name, self.start.elapsed().as_secs_f64());
        Ok(())
    }
}

/// A verb of this program, in a process of its own.
///
/// # Errors
/// When it is not known where this program lies.
pub(crate) fn verb(words: &[String]) -> Result<Command> {
    let mut program = Command::new(std::env::current_exe().context("where this program lies")?);
    program.args(words);
    Ok(program)
}

fn run(mut program: Command, log: &File) -> Result<()> {
    program
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("its output")?)
        .stderr(log.try_clone().context("its second output")?);
    // Not as `Debug` writes it, which names the environment too.
    let words: Vec<_> = std::iter::once(program.get_program())
        .chain(program.get_args())
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    let words = words.join(" ");
    let status = program.status().with_context(|| format!("starting {words}"))?;
    ensure!(status.success(), "`{words}` failed ({status})");
    Ok(())
}
