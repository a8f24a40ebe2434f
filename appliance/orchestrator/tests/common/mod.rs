//! The words of these tests: a rack in process, and a fake agent that speaks real TLS and real frames.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]
#![allow(unreachable_pub, reason = "shared by test files")]
#![allow(dead_code, reason = "each test file uses its part")]

pub mod bmcs;
pub mod inside;
pub mod life;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rackbar_boot::SpecFile;
use rackbar_messages::{BootManifest, FromAgent, Hello, PROTOCOL_VERSION, Proof, SignedManifest, ToAgent, Welcome};
use rackbar_model::{Digest, Event, EventKind, Inventory, MacAddr, Nic, Node, NodeId};
use rackbar_orchestrator::agents::{self, AgentOptions};
use rackbar_orchestrator::{Desk, DeskOptions, Network, Options, Rack, Role, Settings};
use rackbar_services::{BootDesk as _, BootReply};
use rackbar_store::Store;
use rackbar_trust::SigningKey;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;

/// Longest wait for anything here; a loaded machine takes seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub fn mac(n: u8) -> MacAddr {
    MacAddr([0x52, 0x54, 0, 0, 0, n])
}

/// Mirrors, each had from one place.
pub fn mirrors() -> std::collections::BTreeMap<String, Vec<String>> {
    let one = |name: &str| (name.to_owned(), vec![format!("http://upstream.example/{name}")]);
    ["debian", "rocky", "ubuntu"].map(one).into()
}

pub fn settings() -> Settings {
    let network = |name: &str, role, third| Network {
        name: name.into(),
        role,
        address: Some([10, 10, third, 1].into()),
        prefix: 24,
        subnet: None,
    };
    Settings {
        networks: vec![network("rack", Role::Rack, 0), network("bmc", Role::Bmc, 1)],
        mirrors: mirrors(),
        ..Settings::default()
    }
}

pub fn rack(store: Store) -> Rack {
    Rack::start(
        store,
        Options {
            settings: settings(),
            ..Options::default()
        },
    )
    .unwrap()
}

/// Waits until `look` gives something.
pub async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub async fn until_node(rack: &Rack, what: &str, holds: impl Fn(&Node) -> bool) -> Arc<Node> {
    until(what, || rack.nodes().into_iter().find(|node| holds(node))).await
}

pub async fn until_event(rack: &Rack, what: &str, is: impl Fn(&EventKind) -> bool) -> Event {
    until(what, || {
        rack.events(0, usize::MAX)
            .unwrap()
            .into_iter()
            .find(|event| is(&event.kind))
    })
    .await
}

pub fn discover(network: &str) -> EventKind {
    EventKind::DhcpDiscover {
        network: network.into(),
        arch: Some(rackbar_model::ClientArch::X64Uefi),
        vendor_class: Some("PXEClient:Arch:00007".into()),
        user_class: None,
        relay: None,
        circuit_id: None,
        remote_id: None,
    }
}

/// The certificate of a site, the way the daemon makes it.
pub struct Site {
    pub ca: rustls::pki_types::CertificateDer<'static>,
    pub server: Arc<rustls::ServerConfig>,
}

pub fn site() -> Site {
    let ca_key = rcgen::KeyPair::generate().unwrap();
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let ca = params.self_signed(&ca_key).unwrap();
    let issuer = rcgen::Issuer::new(params, ca_key);
    let key = rcgen::KeyPair::generate().unwrap();
    let leaf = rcgen::CertificateParams::new(vec!["rackbar".into()])
        .unwrap()
        .signed_by(&key, &issuer)
        .unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone(), ca.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        )
        .unwrap();
    Site {
        ca: ca.der().clone(),
        server: Arc::new(server),
    }
}

/// A running agents' server.
pub struct Server {
    pub address: SocketAddr,
    pub rack: Rack,
    stop: watch::Sender<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    pub async fn start(site: &Site, rack: Rack, heartbeat: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(agents::run(
            rack.clone(),
            listener,
            site.server.clone(),
            AgentOptions {
                heartbeat,
                ..AgentOptions::default()
            },
            stopped,
        ));
        Self {
            address,
            rack,
            stop,
            task,
        }
    }

    pub async fn stop(self) {
        self.stop.send(true).unwrap();
        self.task.await.unwrap();
    }
}

/// A desk with boot files that nobody reads.
pub fn desk(rack: &Rack, http_port: u16) -> Desk {
    let (signer, _) = SigningKey::generate().unwrap();
    let file = |name| SpecFile::new(name, 1, Digest([1; 32])).unwrap();
    let options = DeskOptions {
        kernel: Some(file("vmlinuz")),
        initrds: vec![file("base.cpio.zst")],
        pin: Digest([2; 32]),
        signer: Arc::new(signer),
        agent_port: 4917,
        http_port,
    };
    Desk::new(rack.clone(), options)
}

/// The boot token that the machine `mac` finds in its manifest, read as the machine would.
pub fn token_for(rack: &Rack, mac: MacAddr) -> [u8; 32] {
    let desk = desk(rack, 80);
    let BootReply::Bytes { body, .. } = desk.manifest(mac, [7; 16], "10.10.0.50".parse().unwrap()) else {
        panic!("no manifest");
    };
    let signed: SignedManifest = rackbar_messages::decode(&body).unwrap();
    let manifest: BootManifest = rackbar_messages::decode(&signed.payload).unwrap();
    assert!(
        manifest.command_line.contains("rackbar.server="),
        "{}",
        manifest.command_line
    );
    let hex = manifest
        .command_line
        .split("rackbar.token=")
        .nth(1)
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    hex.parse::<Digest>().unwrap().0
}

/// A fake agent.
pub struct Agent {
    stream: TlsStream<TcpStream>,
}

impl Agent {
    /// Connects and greets; `Err` is what it was told instead of a welcome.
    pub async fn connect(
        site: &Site,
        address: SocketAddr,
        mac: MacAddr,
        proof: Proof,
    ) -> Result<(Self, Welcome), ToAgent> {
        let mut agent = Self::greet(site, address, mac, proof).await;
        match agent.hear().await.unwrap() {
            ToAgent::Welcome(welcome) => Ok((agent, welcome)),
            other => Err(other),
        }
    }

    /// Connects and greets, and reads no answer.
    pub async fn greet(site: &Site, address: SocketAddr, mac: MacAddr, proof: Proof) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(site.ca.clone()).unwrap();
        let config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let tcp = TcpStream::connect(address).await.unwrap();
        let stream = connector
            .connect(ServerName::try_from("rackbar").unwrap(), tcp)
            .await
            .unwrap();
        let mut agent = Self { stream };
        let hello = Hello {
            version: PROTOCOL_VERSION,
            agent: "test".into(),
            proof,
            boot_mac: mac,
            macs: vec![mac],
            uptime_millis: 5_000,
        };
        agent.say(&FromAgent::Hello(hello)).await.unwrap();
        agent
    }

    /// Waits until the appliance has read what was said: it tells of what an agent says it could not do.
    pub async fn until_read(&mut self, rack: &Rack, node: NodeId) {
        let done = FromAgent::Done {
            id: 77,
            result: Err("marker".into()),
        };
        self.say(&done).await.unwrap();
        until_event(
            rack,
            "the marker",
            |kind| matches!(kind, EventKind::Note { text, .. } if text.contains("marker")),
        )
        .await;
        assert!(rack.node(&node.to_string()).is_some());
    }

    pub async fn say(&mut self, message: &FromAgent) -> io::Result<()> {
        self.stream.write_all(&rackbar_messages::encode(message)).await?;
        self.stream.flush().await
    }

    pub async fn hear(&mut self) -> io::Result<ToAgent> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await?;
        let mut body = vec![0; u32::from_be_bytes(header) as usize];
        self.stream.read_exact(&mut body).await?;
        Ok(rackbar_messages::decode(&body).unwrap())
    }

    pub async fn facts(&mut self, inventory: Inventory) {
        self.say(&FromAgent::Facts(Box::new(inventory))).await.unwrap();
    }
}

/// The inventory of a machine with the NICs `macs`, a serial and a UUID.
pub fn machine(macs: &[MacAddr], serial: &str, uuid: &str) -> Inventory {
    let mut inventory = Inventory::default();
    inventory.system.serial = Some(serial.into());
    inventory.system.uuid = Some(uuid.into());
    for (n, mac) in macs.iter().enumerate() {
        inventory.nics.push(Nic {
            name: format!("eth{n}"),
            mac: *mac,
            boot: n == 0,
            ..Nic::default()
        });
    }
    inventory
}

/// Boots a machine as far as its inventory.
pub async fn boot(site: &Site, server: &Server, macs: &[MacAddr], inventory: Inventory) -> (Agent, Welcome) {
    let token = token_for(&server.rack, macs[0]);
    let (mut agent, welcome) = Agent::connect(site, server.address, macs[0], Proof::BootToken(token))
        .await
        .expect("a good token");
    agent.facts(inventory).await;
    until_node(&server.rack, "discovered", |node| {
        node.state.name() == "discovered" && node.macs.contains(&macs[0]) && node.inventory.is_some()
    })
    .await;
    (agent, welcome)
}

/// An archive laid out like Debian's netboot.tar.
pub fn netboot(kernel: &[u8], initrd: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content) in [
        ("./debian-installer/amd64/linux", kernel),
        ("./debian-installer/amd64/initrd.gz", initrd),
        ("./version.info", b"Debian version:  12 (bookworm)\n".as_slice()),
    ] {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Names of what happened to a node. Flushed first: the view is ahead of the journal by some milliseconds.
pub fn kinds(rack: &Rack, id: NodeId) -> Vec<String> {
    let name = |event: &Event| {
        let json = serde_json::to_value(&event.kind).unwrap();
        json.as_object()
            .map_or_else(String::new, |object| object.keys().next().cloned().unwrap_or_default())
    };
    rack.store().flush().unwrap();
    rack.timeline(id).unwrap().iter().map(name).collect()
}
