//! A rack with an installer in its catalogue, up to the machine that was told to restart into it: the real executor, hands,
//! desk and boot HTTP service.
#![allow(dead_code, reason = "each test takes what it needs")]

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use rackbar_artifacts::Artifacts;
use rackbar_artifacts::images::{Complaint, ImageMeta, Images, PackedImage};
use rackbar_messages::{Ask, FromAgent, JobId, ToAgent};
use rackbar_model::{
    CheckResult, CheckStatus, Digest, EventKind, FirmwareMode, ImageEntry, ImageFormat, Lease, LeaseState, NodeId,
    Timestamp,
};
use rackbar_orchestrator::executor::{Executor, Parts, PlanRequest, SETTINGS_LOOK};
use rackbar_orchestrator::hands::{Appliance, Done, Hands, Learned, Reach, Task, Working};
use rackbar_orchestrator::{Rack, Settings};
use rackbar_plan::engine::Bounds;
use rackbar_plan::{ActionKind, RunId};
use rackbar_services::http::{self, HttpConfig, HttpHandle, HttpLimits};
use rackbar_services::{Common, LeaseLog as _};
use rackbar_store::Store;
use rackbar_trust::{SigningKey, sha256};
use rackbar_verify::NodeReport;

use crate::common::*;

/// What a rack of these tests has.
#[derive(Clone, Copy)]
pub struct Given<'a> {
    /// The site file.
    pub site: &'a str,
    /// The installer's name in the catalogue.
    pub name: &'a str,
    /// It lies in a data pack.
    pub packed: bool,
    /// Its file.
    pub content: &'a [u8],
    /// Its firmware.
    pub firmware: FirmwareMode,
}

/// The appliance's own hands, but for the disks of a machine that is none and for its SSH.
struct Simulated(Appliance);

impl Hands for Simulated {
    fn carry_out(&self, task: Task) -> Working<'_> {
        let action = task.action().unwrap();
        let done = match &action.kind {
            ActionKind::Erase { .. } => Done::well("erased"),
            ActionKind::Reachable { .. } => Done::well("it answers").and(Learned::Proved(address(&task))),
            ActionKind::Verify { .. } => Done::well("checked").and(Learned::Checked(Box::new(report(&task)))),
            _ => return self.0.carry_out(task),
        };
        Box::pin(std::future::ready(done))
    }

    fn noted(&self, node: NodeId, job: JobId) {
        self.0.noted(node, job);
    }
}

/// Where the machine was before, as one is that has its address by DHCP.
fn address(task: &Task) -> IpAddr {
    let known = task.node.as_ref().and_then(|node| node.address);
    known.unwrap_or(IpAddr::from([127, 0, 0, 1]))
}

fn report(task: &Task) -> NodeReport {
    let check = CheckResult {
        id: "disk.layout".into(),
        status: CheckStatus::Passed,
        wanted: "x".into(),
        observed: "x".into(),
        advice: String::new(),
        at: Timestamp(0),
        millis: 1,
    };
    NodeReport {
        node: task.node.as_ref().unwrap().id,
        name: "n".into(),
        role: None,
        serial: None,
        image: None,
        plan: None,
        run: Some(task.run.0),
        checks: vec![check],
        erased: Vec::new(),
        burned_in: Vec::new(),
        state: None,
    }
}

/// Puts it into the catalogue from the middle of a file, as out of a data pack.
fn mount(images: &Images, folder: &Path, given: Given<'_>) {
    let path = folder.join("a.pack");
    std::fs::write(&path, [&[1; 4096], given.content, &[2; 4096]].concat()).unwrap();
    let entry = ImageEntry {
        name: given.name.into(),
        format: ImageFormat::Raw,
        sha256: Digest(sha256(given.content)),
        bytes: given.content.len() as u64,
        disk_bytes: None,
        arch: "x86_64".into(),
        source: String::new(),
        licence: String::new(),
        user: "root".into(),
        added: Timestamp(1),
        installer: None,
    };
    let packed = PackedImage {
        entry: Arc::new(entry),
        file: Arc::new(std::fs::File::open(&path).unwrap()),
        path,
        offset: 4096,
    };
    let silent: Complaint = Arc::new(|why| panic!("{why}"));
    images.mount("kit", vec![packed], &silent).unwrap();
}

pub struct Stage {
    pub rack: Rack,
    pub executor: Executor,
    server: Server,
    site: Site,
    http: HttpHandle,
    pub address: SocketAddr,
    site_file: String,
    firmware: FirmwareMode,
}

impl Stage {
    pub async fn on(folder: &Path, given: Given<'_>, address: Option<SocketAddr>, patience: [Duration; 2]) -> Self {
        let path = folder.join("rackbar.redb");
        let store = until("the store of the life before is closed", || Store::open(&path).ok()).await;
        let rack = rack(store.clone());
        let mut settings = Settings {
            kernel_arguments: "console=ttyS0,115200".into(),
            ..settings()
        };
        settings.networks[0].address = Some([127, 0, 0, 1].into());
        settings.networks[0].prefix = 8;
        rack.configure(settings);
        let artifacts = Arc::new(Artifacts::new());
        let images = Images::open(&folder.join("images"), 1 << 30, artifacts.clone()).unwrap();
        if given.packed {
            mount(&images, folder, given);
        } else {
            let meta = ImageMeta {
                name: given.name.into(),
                ..ImageMeta::default()
            };
            let mut upload = images.begin(meta).unwrap();
            upload.write(given.content).unwrap();
            upload.finish(None).unwrap();
        }
        let images = Arc::new(images);
        let free = || {
            std::net::TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
        };
        let address = address.unwrap_or_else(free);
        let config = HttpConfig {
            listen: vec![address],
            artifacts,
            desk: Arc::new(desk(&rack, address.port())),
            limits: HttpLimits::default(),
        };
        let http = http::start(config, Common::new(Arc::new(rack.clone()))).unwrap();
        let reach = Reach {
            http_port: address.port(),
            look: Duration::from_millis(10),
            installer_silent: patience[0],
            installer_refused: patience[1],
            ..Reach::default()
        };
        let hands = Appliance::new(rack.clone(), store.clone(), Some(images.clone()), reach).unwrap();
        let parts = Parts {
            hands: Arc::new(Simulated(hands)),
            images: Some(images),
            programs: None,
            services: Default::default(),
            bounds: Bounds::default(),
            settings_look: SETTINGS_LOOK,
            signer: Arc::new(SigningKey::generate().unwrap().0),
            site_name: "test".into(),
            put_in: false,
        };
        let executor = Executor::start(rack.clone(), store, parts).unwrap();
        rack.set_serving(rackbar_plan::OwnService::Proxy, [[127, 0, 0, 1].into()]);
        let site = site();
        let server = Server::start(&site, rack.clone(), Duration::from_secs(600)).await;
        Self {
            rack,
            executor,
            server,
            site,
            http,
            address,
            site_file: given.site.to_owned(),
            firmware: given.firmware,
        }
    }

    /// One machine, its installation committed, which was told to restart.
    pub async fn committed(&self) -> (NodeId, RunId) {
        let mut inventory = life::hardware(1, 20);
        inventory.firmware.mode = Some(self.firmware);
        inventory.boot.mac = Some(mac(1));
        let (mut agent, welcome) = boot(&self.site, &self.server, &[mac(1)], inventory).await;
        self.executor.set_site(&self.site_file, "test").unwrap();
        let plan = self.executor.plan(&PlanRequest::default()).unwrap();
        assert!(plan.refused.is_empty(), "{:#?}", plan.refused);
        let name = self.rack.node(&welcome.node.to_string()).unwrap().name.clone();
        let run = self.executor.commit(&plan.id, &[name], "test").unwrap();
        loop {
            if let ToAgent::Ask { id, ask: Ask::Reboot } = agent.hear().await.unwrap() {
                agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
                break;
            }
        }
        drop(agent);
        until_node(&self.rack, "gone down", |node| !node.agent_connected).await;
        (welcome.node, run)
    }

    pub fn script(&self, n: u8) -> String {
        let mac = mac(n).to_string().replace(':', "-");
        let (status, script) = self.get("127.0.0.1", &format!("/boot/v1/script.ipxe?mac={mac}"));
        assert_eq!(status, 200);
        String::from_utf8(script).unwrap()
    }

    /// Status and body of a path, asked for from an address.
    pub fn get(&self, from: &str, path: &str) -> (u16, Vec<u8>) {
        fetch(from, &format!("http://{}{path}", self.address))
    }

    pub fn timeline(&self, node: NodeId) -> Vec<EventKind> {
        self.rack.store().flush().unwrap();
        self.rack
            .timeline(node)
            .unwrap()
            .into_iter()
            .map(|event| event.kind)
            .collect()
    }

    pub async fn noted(&self, words: &str) {
        until_event(
            &self.rack,
            words,
            |kind| matches!(kind, EventKind::Note { text, .. } if text.contains(words)),
        )
        .await;
    }

    pub async fn end(self) {
        self.http.stop();
        self.server.stop().await;
    }
}

pub fn fetch(from: &str, url: &str) -> (u16, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    let curl = Command::new("curl")
        .args([
            "-sS",
            "--max-time",
            "20",
            "--interface",
            from,
            "-w",
            "%{http_code}",
            "-o",
        ])
        .arg(&body)
        .arg(url)
        .output()
        .unwrap();
    let status = String::from_utf8(curl.stdout).unwrap().parse().unwrap();
    (status, std::fs::read(body).unwrap_or_default())
}

/// The value of an argument on the kernel's command line.
pub fn argument<'s>(script: &'s str, name: &str) -> &'s str {
    let line = script.lines().find(|line| line.starts_with("kernel ")).unwrap();
    let word = line
        .split(' ')
        .find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    word.unwrap_or_else(|| panic!("no {name} in {line}"))
}

/// The machine is given back to its firmware, and nothing is booted from us.
pub fn is_local_disk(script: &str) -> bool {
    !script.contains("/boot/v1/files/") && !script.contains("token")
}

/// Longer than any of these tests takes.
pub const LONG: [Duration; 2] = [Duration::from_secs(600); 2];

/// A disc with a volume's name and files, as xorriso makes it.
pub fn disc(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    for (path, content) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let out = folder.path().join("disc.iso");
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-as", "mkisofs", "-quiet", "-R", "-V", label, "-o"]);
    assert!(xorriso.arg(&out).arg(&root).status().unwrap().success());
    std::fs::read(out).unwrap()
}

/// The files that a script has the machine boot.
pub fn booted(script: &str) -> Vec<(u16, Vec<u8>)> {
    let files = script.lines().filter(|line| line.contains("/boot/v1/files/"));
    let urls = files.filter_map(|line| line.split(' ').find(|word| word.starts_with("http://")));
    urls.map(|url| fetch("127.0.0.1", url)).collect()
}

/// The machine's own address.
pub fn leased(stage: &Stage) {
    let own = Lease {
        address: [127, 0, 0, 1].into(),
        network: "rack".into(),
        mac: mac(1),
        client_id: Vec::new(),
        hostname: None,
        state: LeaseState::Bound,
        expires: Timestamp(u64::MAX / 2),
    };
    stage.rack.commit(&[own]).unwrap();
}
