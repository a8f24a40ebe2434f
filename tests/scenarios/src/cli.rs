//! The command line as an operator has it on a laptop: the static program from the media, and nothing else.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;
use tokio::process::Command;

use crate::{Stage, media};

/// `rackbar`, logged in to the appliance of a stage as admin.
pub struct Cli {
    program: PathBuf,
    endpoint: String,
    pin: String,
    folder: TempDir,
}

impl Cli {
    /// The command line for this stage; its token lies in a file that only we may read.
    ///
    /// # Errors
    /// When the appliance does not answer or the file cannot be written.
    pub async fn new(stage: &Stage) -> Result<Self> {
        // The pin is what the first answer came with.
        stage.api.ready().await?;
        let folder = tempfile::tempdir().context("a folder for the command line")?;
        std::fs::write(folder.path().join("token"), stage.api.token()).context("writing the token")?;
        Ok(Self {
            program: media()?.join("rackbar"),
            endpoint: stage.api.address().to_string(),
            pin: stage.api.pin().context("the appliance showed no certificate")?,
            folder,
        })
    }

    /// A folder for what the story writes.
    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Runs a command and gives what it printed on both outputs.
    ///
    /// # Errors
    /// With what it printed, when it fails or does not end in time.
    pub async fn run(&self, arguments: &[&str], limit: Duration) -> Result<String> {
        let mut command = Command::new(&self.program);
        self.login(&mut command);
        let ended = tokio::time::timeout(limit, command.args(arguments).kill_on_drop(true).output());
        let output = ended
            .await
            .with_context(|| format!("rackbar {arguments:?} did not end within {} s", limit.as_secs()))?
            .with_context(|| format!("running {}", self.program.display()))?;
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        let said = said.concat();
        ensure!(
            output.status.success(),
            "rackbar {arguments:?}: {}: {said}",
            output.status
        );
        Ok(said)
    }

    /// Sets what the program reads from its environment, also for a tool that runs it.
    pub fn login(&self, command: &mut Command) {
        command
            .env("RACKBAR_ENDPOINT", &self.endpoint)
            .env("RACKBAR_FINGERPRINT", &self.pin)
            .env("RACKBAR_TOKEN_FILE", self.folder.path().join("token"))
            // What a person remembered with `rackbar login` on this machine is not for us.
            .env("HOME", self.folder.path());
    }

    /// The address of the page, without a path.
    pub fn home(&self) -> String {
        format!("https://{}", self.endpoint)
    }

    /// The token it logs in with.
    ///
    /// # Errors
    /// When its file is gone.
    pub fn token(&self) -> Result<String> {
        std::fs::read_to_string(self.folder.path().join("token")).context("reading the token")
    }

    /// Where the program lies.
    pub fn program(&self) -> &std::path::Path {
        &self.program
    }
}
