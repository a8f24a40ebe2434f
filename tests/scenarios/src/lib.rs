//! The stage of the scenarios: a virtual rack with the real appliance in it, built from `tests/racks`, and the few words
//! the stories are told in. The same pieces run `cargo xtask rack`.
//!
//! A wait is for a condition, with a deadline, and a failure tells the last state seen and what the consoles said.

pub mod api;
pub mod between;
pub mod cli;
pub mod install;
pub mod inventory;
pub mod site;
mod snapshot;
pub mod stages;
pub mod telling;
pub mod times;

use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rackbar_image::packs::MediumPack;
use rackbar_model::{Node, NodeState};
use rackbar_vrack::rack::{Appliance, Rack, RackFile, RackOptions};
use rackbar_vrack::seat::{MachinePower, PowerAction};

use api::Api;

/// How long an appliance may take to serve, emulated, on a machine that does other things too.
pub const SERVING: Duration = Duration::from_secs(180);
/// How long a machine may take from power-on to discovered.
pub const DISCOVERED: Duration = Duration::from_secs(240);
/// How long an inventory may take to be complete after the first one: switches announce themselves every 30 s.
pub const COMPLETE: Duration = Duration::from_secs(45);
/// The least that anything may take: machines are emulated beside others, on a machine that may be shared, and a wait that
/// ends well costs no more for having been allowed longer.
const PATIENCE: Duration = Duration::from_secs(180);
/// Between two looks at a condition.
const LOOK: Duration = Duration::from_millis(200);
/// What a failure shows of each console.
const TAIL: usize = 3_000;

/// The folder of the boot media: `RACKBAR_MEDIA`, which `cargo xtask test` sets.
///
/// # Errors
/// When it is not set.
pub fn media() -> Result<PathBuf> {
    let folder = std::env::var_os("RACKBAR_MEDIA").map(PathBuf::from);
    folder.context("RACKBAR_MEDIA is not set: run the scenarios with `cargo xtask test`, which builds the media first")
}

/// A rack file that ships, by name.
///
/// # Errors
/// When there is none or it is wrong.
pub fn rack_file(name: &str) -> Result<RackFile> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .context("the folder of the tests")?;
    Ok(RackFile::load(&folder.join("racks").join(format!("{name}.toml")))?)
}

/// Waits until `look` gives a value, for three minutes or for `limit` if that is longer; its `Err` is the last state
/// seen, for the failure's words.
///
/// # Errors
/// When the deadline passes first.
pub async fn eventually<T, E, F>(what: &str, limit: Duration, mut look: impl FnMut() -> F) -> Result<T>
where
    E: Debug,
    F: Future<Output = Result<T, E>>,
{
    let limit = limit.max(PATIENCE);
    let end = Instant::now() + limit;
    loop {
        match look().await {
            Ok(value) => return Ok(value),
            Err(last) if Instant::now() >= end => {
                bail!("{what}: not within {} s; last seen: {last:?}", limit.as_secs())
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// A rack with its appliance.
pub struct Stage {
    /// The rack.
    pub rack: Arc<Rack>,
    /// The appliance's machine.
    pub appliance: Arc<Appliance>,
    /// The appliance's API.
    pub api: Api,
    told: bool,
    _time: times::Told,
}

impl Stage {
    /// A rack from its file, the appliance's medium made, everything powered off.
    ///
    /// # Errors
    /// When something is missing on this machine; the message says what.
    pub async fn set(file: RackFile) -> Result<Self> {
        Self::set_with(file, |configuration| configuration).await
    }

    /// As [`Stage::set`], with the appliance's configuration changed by the story.
    ///
    /// # Errors
    /// As there.
    pub async fn set_with(file: RackFile, change: impl FnOnce(String) -> String) -> Result<Self> {
        Self::build(file, change, &media()?, &[], site::token()?).await
    }

    /// As [`Stage::set_with`], with an appliance out of another folder of media, and with data packs on its medium.
    ///
    /// # Errors
    /// As there.
    pub async fn set_with_packs(
        file: RackFile,
        change: impl FnOnce(String) -> String,
        media: &Path,
        packs: &[MediumPack<'_>],
    ) -> Result<Self> {
        Self::build(file, change, media, packs, site::token()?).await
    }

    async fn build(
        file: RackFile,
        change: impl FnOnce(String) -> String,
        media: &Path,
        packs: &[MediumPack<'_>],
        token: String,
    ) -> Result<Self> {
        let options = RackOptions {
            bmc: Some(Arc::new(rackbar_vrack::bmc::start)),
            // A run to look at afterwards: its folder stays, with captures and the timeline.
            keep: std::env::var_os("RACKBAR_KEEP").is_some(),
            ..RackOptions::default()
        };
        let rack = Arc::new(Rack::build(file, options).await.context("building the rack")?);
        let configuration = change(site::configuration(&rack, &token));
        let medium = site::medium(&rack, media, &configuration, packs)?;
        let appliance = rack
            .add_appliance(&medium)
            .await
            .context("putting the appliance into the rack")?;
        let events = Api::new(appliance.api, token.clone())?;
        tokio::spawn(telling::tell_events(Arc::downgrade(&rack), events));
        let api = Api::new(appliance.api, token)?;
        Ok(Self {
            rack,
            appliance,
            api,
            told: false,
            _time: times::Told::begin(),
        })
    }

    /// What a machine of the rack has written to its serial console.
    ///
    /// # Errors
    /// When there is no such machine or it has written nothing.
    pub fn console(&self, name: &str) -> Result<String> {
        let machine = self
            .rack
            .node(name)
            .with_context(|| format!("the rack has no machine {name}"))?;
        let log = std::fs::read(machine.machine.console().log_path())?;
        Ok(String::from_utf8_lossy(&log).into_owned())
    }

    /// A rack that ships, by name, its appliance serving: for stories that do not tell of the appliance's boot.
    ///
    /// # Errors
    /// As [`Stage::serving_with`].
    pub async fn serving(name: &str) -> Result<Self> {
        Self::serving_with(rack_file(name)?, |configuration| configuration).await
    }

    /// A rack whose appliance serves, continued within a second from one that was booted and saved earlier, when there
    /// is one with the same program and configuration (`target/image/snapshots`).
    ///
    /// # Errors
    /// As [`Stage::set`], or when the appliance does not come up.
    pub async fn serving_with(file: RackFile, change: impl Fn(String) -> String) -> Result<Self> {
        let Some(saved) = Box::pin(snapshot::saved(&file, &change)).await? else {
            let stage = Self::set_with(file, change).await?;
            stage.start_appliance().await?;
            return Ok(stage);
        };
        let stage = Self::build(file, change, &media()?, &[], saved.token).await?;
        let start = Instant::now();
        let restored = stage.appliance.machine.restore(&saved.snapshot).await;
        restored.context("continuing the saved appliance")?;
        stage.until_serving().await?;
        println!("appliance continued after {:.1} s", start.elapsed().as_secs_f64());
        Ok(stage)
    }

    /// Switches the appliance on and waits until it serves.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn start_appliance(&self) -> Result<Duration> {
        let start = Instant::now();
        self.appliance
            .machine
            .act(PowerAction::On)
            .await
            .context("switching the appliance on")?;
        self.until_serving().await?;
        Ok(start.elapsed())
    }

    /// Waits until the appliance serves.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until_serving(&self) -> Result<()> {
        let lives = tokio::time::timeout(SERVING, self.api.lives()).await;
        lives.with_context(|| format!("the appliance serves: not within {} s", SERVING.as_secs()))?;
        self.appliance.machine.booted();
        Ok(())
    }

    /// The appliance's word on one of the rack's machines; `None` until it knows it.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn node(&self, name: &str) -> Result<Option<Node>> {
        let machine = self
            .rack
            .node(name)
            .with_context(|| format!("the rack has no machine {name}"))?;
        let bmc = machine
            .bmc
            .as_ref()
            .and_then(|host| host.bound())
            .map(|bound| bound.address.into());
        let is_it = |node: &Node| {
            node.macs.iter().any(|mac| machine.macs.contains(mac)) || (bmc.is_some() && node.bmc_address == bmc)
        };
        Ok(self.api.nodes().await?.into_iter().find(is_it))
    }

    /// Waits until the appliance has found a machine's BMC.
    ///
    /// # Errors
    /// When it does not in time.
    pub async fn until_bmc_found(&self, name: &str) -> Result<Node> {
        let found = || async {
            match self.node(name).await {
                Ok(Some(node)) if node.bmc_address.is_some() => Ok(node),
                other => Err(format!("{:?}", other.map(|node| node.map(|node| node.verdict)))),
            }
        };
        eventually(&format!("the BMC of {name} is found"), Duration::from_secs(90), found).await
    }

    /// Switches a machine on through its BMC, as an operator would; by its button when nobody knows its BMC's password.
    ///
    /// # Errors
    /// When its BMC is not found, or does not take it.
    pub async fn power_on(&self, name: &str) -> Result<()> {
        let nodes = &self.rack.file().nodes;
        if nodes
            .iter()
            .any(|node| node.name == name && node.bmc_password.is_some())
        {
            return Ok(self.rack.power(name, PowerAction::On).await?);
        }
        let node = self.until_bmc_found(name).await?;
        self.api.power(node.id, "on").await
    }

    /// Waits until a machine is discovered, with its inventory.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn until_discovered(&self, name: &str) -> Result<Node> {
        let discovered = || async {
            match self.node(name).await {
                Ok(Some(node)) if node.state == NodeState::Discovered && node.inventory.is_some() => Ok(node),
                Ok(Some(node)) => Err(format!("{}: {}", node.state.name(), node.verdict)),
                Ok(None) => Err("never seen".to_owned()),
                Err(error) => Err(format!("{error:#}")),
            }
        };
        let node = eventually(&format!("{name} is discovered"), DISCOVERED, discovered).await?;
        if let Some(machine) = self.rack.node(name) {
            machine.machine.booted();
        }
        Ok(node)
    }

    /// Waits until a machine's inventory holds what the machine has ([`inventory::complete`]): links settle, LLDP speaks
    /// up and sticks are found a few seconds after the first one was sent.
    ///
    /// # Errors
    /// When it does not in time; names what is missing.
    pub async fn until_complete(&self, name: &str) -> Result<Node> {
        let machine = self
            .rack
            .node(name)
            .with_context(|| format!("the rack has no machine {name}"))?;
        let whole = || async {
            let node = self.node(name).await?.context("not known")?;
            inventory::complete(node.inventory.as_ref().context("no inventory")?, machine)?;
            anyhow::Ok(node)
        };
        eventually(&format!("the inventory of {name} is complete"), COMPLETE, whole).await
    }

    /// Waits until a machine's agent is connected.
    ///
    /// # Errors
    /// When it is not in time.
    pub async fn until_connected(&self, name: &str) -> Result<Node> {
        let connected = || async {
            match self.node(name).await {
                Ok(Some(node)) if node.agent_connected => Ok(node),
                other => Err(format!("{:?}", other.map(|node| node.map(|node| node.verdict)))),
            }
        };
        eventually(&format!("the agent of {name} is connected"), DISCOVERED, connected).await
    }

    /// The wording of every event of a machine's timeline, oldest first.
    ///
    /// # Errors
    /// When the API does not answer.
    pub async fn timeline(&self, node: &Node) -> Result<Vec<api::Worded>> {
        Ok(self.api.timeline(node.id).await?.items)
    }

    /// Ends the story: everything is switched off, and the consoles stay quiet because it ended well.
    pub async fn end(mut self) {
        self.told = true;
        if std::env::var_os("RACKBAR_KEEP").is_some() {
            println!("kept: {}", self.rack.directory().display());
        }
        self.rack.shut_down().await;
    }
}

impl Drop for Stage {
    // A story that did not reach its end shows what the machines said last.
    fn drop(&mut self) {
        if self.told {
            return;
        }
        let machines = self.rack.nodes().iter().map(|node| (node.name.as_str(), &node.machine));
        for (name, machine) in machines.chain([("appliance", &self.appliance.machine)]) {
            let log = std::fs::read(machine.console().log_path()).unwrap_or_default();
            let text = String::from_utf8_lossy(&log[log.len().saturating_sub(TAIL)..]).into_owned();
            eprintln!("==== console of {name}, last words ====\n{text}\n");
        }
    }
}
