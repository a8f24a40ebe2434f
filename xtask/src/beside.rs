//! Verbs that run beside the next step, one after the other, their words kept aside until they have ended.

use std::fs::File;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};

use crate::project::Project;

/// Verbs of this program under way in processes of their own. They share our process group: Ctrl-C ends them too.
pub(crate) struct Beside {
    name: &'static str,
    work: JoinHandle<Result<()>>,
    log: PathBuf,
    start: Instant,
}

impl Beside {
    /// Starts verbs; `name` says for people what they do. The first that fails is the last.
    ///
    /// # Errors
    /// When their log cannot be written.
    pub(crate) fn start(name: &'static str, verbs: Vec<Vec<String>>) -> Result<Self> {
        let log = Project::find()?.target.join("beside.log");
        println!(
            "== {name}: begun beside the next step; its words go to {}",
            log.display()
        );
        let file = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        let work = std::thread::spawn(move || verbs.iter().try_for_each(|verb| run(verb, &file)));
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

fn run(verb: &[String], log: &File) -> Result<()> {
    let words = verb.join(" ");
    let status = Command::new(std::env::current_exe().context("where this program lies")?)
        .args(verb)
        .stdin(Stdio::null())
        .stdout(log.try_clone().context("its output")?)
        .stderr(log.try_clone().context("its second output")?)
        .status()
        .with_context(|| format!("starting `cargo xtask {words}`"))?;
    ensure!(status.success(), "`cargo xtask {words}` failed ({status})");
    Ok(())
}
