//! A whole rack in one process, from power-on to Ready: what it costs per machine, with few and with many.
//!
//! Real are the DHCP engine, the boot desk with its tokens, the agents' protocol over TLS, the HTTPS API, planner, executor
//! and store. Simulated are the machines behind the agents' connections, whose jobs are done at once, and what would go over
//! SSH. So the figures are the appliance's own share; disks, firmware and images come on top.

mod api;
mod dhcp;
mod hands;
mod node;

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rackbar_artifacts::Artifacts;
use rackbar_artifacts::images::{ImageMeta, Images};
use rackbar_boot::SpecFile;
use rackbar_model::Digest;
use rackbar_orchestrator::agents::{self, AgentOptions};
use rackbar_orchestrator::executor::{Executor, Parts, SETTINGS_LOOK};
use rackbar_orchestrator::hands::{Appliance, Reach};
use rackbar_orchestrator::{Desk, DeskOptions, Network, Options, Rack, Role, Settings};
use rackbar_plan::RunState;
use rackbar_plan::engine::Bounds;
use rackbar_store::Store;
use rackbar_trust::SigningKey;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::report::{OURS, Row};
use api::Api;
use node::World;

/// Address of the appliance on the rack's network.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 88, 0, 1);

/// Longest time for a step of a whole rack.
const PATIENCE: Duration = Duration::from_secs(300);

/// Every machine is bound by a rule, as in a real rack.
const SITE: &str = r#"
version = 1
ssh_keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f bench"]

[role.worker]
os = "debian-12"
root = { pick = "smallest", media = "ssd" }

[[rule]]
name = "every machine with a disk"
when = "disks | length > 0"
role = "worker"
"#;

/// What one rack took.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figures {
    nodes: u32,
    /// Until every machine was discovered, in seconds.
    discovered: f64,
    /// Plan and commit through the API, in seconds.
    committed: f64,
    /// From power-on until every machine was Ready, in seconds.
    ready: f64,
    /// Processor time of appliance and simulated machines together, in seconds.
    processor: f64,
    /// Highest resident size, in MiB.
    memory: f64,
}

/// Racks of 100, 500 and 1,000 machines, each in a process of its own.
pub(crate) fn measure() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    let mut all = Vec::new();
    for nodes in [100, 500, 1_000] {
        let output = Command::new(std::env::current_exe()?)
            .args(["--rack", &nodes.to_string()])
            .output()?;
        ensure!(
            output.status.success(),
            "a rack of {nodes} failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let figures: Figures = serde_json::from_slice(&output.stdout).context("the figures of a rack")?;
        let row = |what: &str, value, unit| Row::less(format!("{nodes} machines: {what}"), OURS, value, unit);
        rows.push(row("until all are discovered", figures.discovered, "s"));
        rows.push(row("plan and commit by the API", figures.committed, "s"));
        rows.push(row("power-on until all are Ready", figures.ready, "s"));
        rows.push(row(
            "processor time per machine",
            figures.processor * 1e3 / f64::from(nodes),
            "ms",
        ));
        rows.push(row("peak memory", figures.memory, "MiB"));
        all.push(figures);
    }
    if let [few, .., many] = all.as_slice() {
        let each = |one: &Figures| one.processor / f64::from(one.nodes);
        rows.push(Row::less(
            "processor time per machine, 1000 to 100",
            OURS,
            each(many) / each(few),
            "x",
        ));
        let memory = (many.memory - few.memory) * 1024.0 / f64::from(many.nodes - few.nodes);
        rows.push(Row::less("memory per further machine", OURS, memory, "KiB"));
    }
    Ok(rows)
}

/// One rack in this process; prints its figures as JSON.
pub(crate) fn print_one(nodes: u32) -> Result<()> {
    println!("{}", serde_json::to_string(&one(nodes)?)?);
    Ok(())
}

/// One rack in this process.
pub(crate) fn one(nodes: u32) -> Result<Figures> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let folder = tempfile::tempdir()?;
    let figures = runtime.block_on(from_power_on_to_ready(folder.path(), nodes))?;
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(figures)
}

async fn from_power_on_to_ready(folder: &Path, nodes: u32) -> Result<Figures> {
    let store = Store::open(folder.join("rackbar.redb"))?;
    let network = Network {
        name: "rack".into(),
        role: Role::Rack,
        address: Some(OWN),
        prefix: 16,
        subnet: None,
    };
    let settings = Settings {
        networks: vec![network],
        ..Settings::default()
    };
    let options = Options {
        settings,
        ..Options::default()
    };
    let rack = Rack::start(store.clone(), options)?;
    let executor = start_executor(folder, &rack, store)?;
    let tls = api::Certificate::new()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let agents = listener.local_addr()?;
    let (_stop, stopped) = watch::channel(false);
    let options = AgentOptions {
        heartbeat: Duration::from_secs(10),
        ..AgentOptions::default()
    };
    tokio::spawn(agents::run(
        rack.clone(),
        listener,
        tls.server.clone(),
        options,
        stopped,
    ));
    let api = Api::start(rack.clone(), executor.clone(), &tls).await?;
    let world = Arc::new(World {
        dhcp: dhcp::start(rack.clone())?,
        desk: desk(&rack)?,
        agents,
        tls: node::client(&tls)?,
    });

    let began = Instant::now();
    for number in 0..nodes {
        tokio::spawn(node::live(world.clone(), number));
    }
    let discovered = |rack: &Rack| {
        let seen = rack.nodes().iter().filter(|node| node.role.is_some()).count();
        (seen == nodes as usize).then_some(())
    };
    wait("every machine is discovered and has its role", &rack, discovered).await?;
    let discovered = began.elapsed().as_secs_f64();
    let run = api.plan_and_commit(nodes).await?;
    let committed = began.elapsed().as_secs_f64() - discovered;
    wait("the run has ended", &rack, |_| {
        executor.run(run).filter(|run| run.ended.is_some())
    })
    .await?;
    let ready = began.elapsed().as_secs_f64();
    let ended = executor.run(run).context("the run is kept")?;
    ensure!(ended.state == RunState::Done, "the run ended {:?}", ended.state);
    let states: BTreeSet<&str> = rack.nodes().iter().map(|node| node.state.name()).collect();
    ensure!(states == BTreeSet::from(["ready"]), "states are {states:?}");
    Ok(Figures {
        nodes,
        discovered,
        committed,
        ready,
        processor: processor()?,
        memory: memory()?,
    })
}

fn start_executor(folder: &Path, rack: &Rack, store: Store) -> Result<Executor> {
    let path = folder.join("images");
    std::fs::create_dir_all(&path)?;
    let images = Arc::new(Images::open(&path, 1 << 30, Arc::new(Artifacts::new()))?);
    let meta = ImageMeta {
        name: "debian-12".into(),
        ..ImageMeta::default()
    };
    let mut upload = images.begin(meta)?;
    let mut disk = vec![0; 1 << 20];
    // The mark of a boot sector, which an image of a disk must have.
    disk.splice(510..512, [0x55, 0xaa]);
    upload.write(&disk)?;
    upload.finish(None)?;
    let reach = Reach {
        look: Duration::from_millis(100),
        ..Reach::default()
    };
    let appliance = Appliance::new(rack.clone(), store.clone(), Some(images.clone()), reach)?;
    let (signer, _) = SigningKey::generate()?;
    let parts = Parts {
        hands: Arc::new(hands::Simulated(appliance)),
        images: Some(images),
        programs: None,
        services: BTreeSet::new(),
        bounds: Bounds::default(),
        settings_look: SETTINGS_LOOK,
        signer: Arc::new(signer),
        site_name: "bench".into(),
        put_in: false,
    };
    Ok(Executor::start(rack.clone(), store, parts)?)
}

fn desk(rack: &Rack) -> Result<Desk> {
    let file = |name| SpecFile::new(name, 1, Digest([1; 32]));
    let (signer, _) = SigningKey::generate()?;
    let options = DeskOptions {
        kernel: Some(file("vmlinuz")?),
        initrds: vec![file("base.cpio.zst")?],
        pin: Digest([2; 32]),
        signer: Arc::new(signer),
        agent_port: 4917,
        http_port: 80,
    };
    Ok(Desk::new(rack.clone(), options))
}

async fn wait<T>(what: &str, rack: &Rack, look: impl Fn(&Rack) -> Option<T>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look(rack) {
            return Ok(found);
        }
        if Instant::now() > deadline {
            let mut states = std::collections::BTreeMap::<String, usize>::new();
            for node in rack.nodes() {
                let doing = node.doing.as_deref().unwrap_or("nothing");
                *states.entry(format!("{}, {doing}", node.state.name())).or_default() += 1;
            }
            bail!("waited in vain for: {what}; {states:?}");
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Processor time of this process in seconds.
fn processor() -> Result<f64> {
    use nix::sys::time::TimeValLike as _;
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF)?;
    let micros = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    Ok(micros as f64 / 1e6)
}

/// The highest resident size of this process in MiB.
fn memory() -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line
        .and_then(|line| line.split_whitespace().next())
        .context("VmHWM of /proc/self/status")?;
    Ok(kib.parse::<f64>()? / 1024.0)
}

/// Where the API listens.
fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_hundred_machines_come_from_power_on_to_ready() {
        let figures = super::one(100).expect("the rack becomes ready");
        assert_eq!(figures.nodes, 100);
        println!("{figures:?}");
    }
}
