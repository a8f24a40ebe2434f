//! A verb that runs beside the next step, its words kept aside until it has ended.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use crate::project::Project;

/// A verb of this program under way in a process of its own. It shares our process group: Ctrl-C ends both.
pub(crate) struct Beside {
    name: &'static str,
    child: Child,
    log: std::path::PathBuf,
    start: Instant,
}

impl Beside {
    /// Starts a verb; `name` says for people what it does.
    ///
    /// # Errors
    /// When it cannot be started or its log cannot be written.
    pub(crate) fn start(name: &'static str, verb: &'static str) -> Result<Self> {
        let log = Project::find()?.target.join(format!("{verb}.log"));
        println!(
            "== {name}: begun beside the next step; its words go to {}",
            log.display()
        );
        let file = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
        let child = Command::new(std::env::current_exe().context("where this program lies")?)
            .arg(verb)
            .stdin(Stdio::null())
            .stdout(file.try_clone().context("its second output")?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("starting `cargo xtask {verb}`"))?;
        Ok(Self {
            name,
            child,
            log,
            start: Instant::now(),
        })
    }

    /// Waits for its end and shows what it said.
    ///
    /// # Errors
    /// When it failed.
    pub(crate) fn finish(mut self) -> Result<()> {
        let status = self
            .child
            .wait()
            .with_context(|| format!("waiting for {}", self.name))?;
        let said = std::fs::read_to_string(&self.log).with_context(|| format!("reading {}", self.log.display()))?;
        println!("{}", said.trim_end());
        ensure!(status.success(), "{} failed ({status})", self.name);
        println!("== {}: ok, {:.0} s", self.name, self.start.elapsed().as_secs_f64());
        Ok(())
    }
}
