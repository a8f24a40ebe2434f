//! A simulated machine: it asks for an address, takes its token from the boot manifest, and is an agent that does every
//! job at once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rackbar_messages::{
    Ask, BootManifest, FromAgent, Hello, JobReport, PROTOCOL_VERSION, Proof, SignedManifest, ToAgent, Work,
};
use rackbar_model::{Digest, Disk, DiskBus, EraseEvidence, Inventory, MacAddr, Nic, Timestamp};
use rackbar_orchestrator::Desk;
use rackbar_services::{BootDesk as _, BootReply};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::Interval;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::api::Certificate;
use super::dhcp::Dhcp;

/// Tries of a connection after the first, and the time between them.
const TRIES: u32 = 20;
const AGAIN: Duration = Duration::from_secs(2);

/// What machines are connected to.
pub(super) struct World {
    pub(super) dhcp: Dhcp,
    pub(super) desk: Desk,
    pub(super) agents: SocketAddr,
    pub(super) tls: TlsConnector,
}

pub(super) fn client(certificate: &Certificate) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate.ca.clone())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The machine's life until it restarts into its own system.
pub(super) async fn live(world: Arc<World>, number: u32) {
    if let Err(error) = boot(&world, number).await {
        // The rack then never becomes ready, and whoever waits for that says so.
        eprintln!("machine {number}: {error:#}");
    }
}

async fn boot(world: &World, number: u32) -> Result<()> {
    let [a, b, c, d] = number.to_be_bytes();
    let mac = MacAddr([0x52, 3, a, b, c, d]);
    let address = world.dhcp.lease(number).await?;
    let BootReply::Bytes { body, .. } = world.desk.manifest(mac, [7; 16], address.into()) else {
        bail!("the desk gives no manifest");
    };
    let signed: SignedManifest = rackbar_messages::decode(&body).context("the manifest")?;
    let manifest: BootManifest = rackbar_messages::decode(&signed.payload).context("the manifest's payload")?;
    let token = manifest.command_line.split("rackbar.token=").nth(1);
    let token = token.and_then(|rest| rest.split(' ').next()?.parse::<Digest>().ok());
    let token = token.context("the manifest has no token")?.0;

    let mut tries = 0;
    let (mut agent, heartbeat) = loop {
        match greet(world, number, mac, token).await {
            Ok(welcomed) => break welcomed,
            // As the real agent: a busy appliance closes the connection, and the token stays good.
            Err(_) if tries < TRIES => tries += 1,
            Err(error) => return Err(error),
        }
        tokio::time::sleep(AGAIN).await;
    };
    agent.facts().await?;
    agent.obey(heartbeat).await
}

/// Connects and says hello; gives the interval of heartbeats.
async fn greet(world: &World, number: u32, mac: MacAddr, token: [u8; 32]) -> Result<(Agent, Duration)> {
    let tcp = TcpStream::connect(world.agents).await?;
    let stream = world.tls.connect(ServerName::try_from("rackbar")?, tcp).await?;
    let (reader, writer) = tokio::io::split(stream);
    let mut agent = Agent {
        reader,
        writer,
        inventory: inventory(number, mac),
    };
    let hello = Hello {
        version: PROTOCOL_VERSION,
        agent: "bench".into(),
        proof: Proof::BootToken(token),
        boot_mac: mac,
        macs: vec![mac],
        uptime_millis: 5_000,
    };
    agent.say(&FromAgent::Hello(hello)).await?;
    let ToAgent::Welcome(welcome) = hear(&mut agent.reader).await? else {
        bail!("it was not welcome");
    };
    Ok((agent, Duration::from_millis(welcome.heartbeat_millis.into())))
}

struct Agent {
    reader: ReadHalf<TlsStream<TcpStream>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
    inventory: Inventory,
}

async fn say(writer: &mut WriteHalf<TlsStream<TcpStream>>, message: &FromAgent) -> Result<()> {
    writer.write_all(&rackbar_messages::encode(message)).await?;
    Ok(writer.flush().await?)
}

async fn hear(reader: &mut ReadHalf<TlsStream<TcpStream>>) -> Result<ToAgent> {
    let mut header = [0; 4];
    reader.read_exact(&mut header).await?;
    let length = usize::try_from(u32::from_be_bytes(header))?;
    ensure!(length <= 1 << 20, "a frame of {length} bytes");
    let mut body = vec![0; length];
    reader.read_exact(&mut body).await?;
    rackbar_messages::decode(&body).context("a message")
}

impl Agent {
    async fn say(&mut self, message: &FromAgent) -> Result<()> {
        say(&mut self.writer, message).await
    }

    async fn facts(&mut self) -> Result<()> {
        let facts = FromAgent::Facts(Box::new(self.inventory.clone()));
        self.say(&facts).await
    }

    /// The next message; heartbeats go out meanwhile.
    async fn next(&mut self, beat: &mut Interval) -> Result<ToAgent> {
        let heard = hear(&mut self.reader);
        tokio::pin!(heard);
        loop {
            tokio::select! {
                message = &mut heard => return message,
                _ = beat.tick() => say(&mut self.writer, &FromAgent::Heartbeat { uptime_millis: 9_000 }).await?,
            }
        }
    }

    /// Does what it is asked until it is told to restart.
    async fn obey(&mut self, heartbeat: Duration) -> Result<()> {
        let mut beat = tokio::time::interval(heartbeat);
        loop {
            let ToAgent::Ask { id, ask } = self.next(&mut beat).await? else {
                continue;
            };
            self.say(&FromAgent::Done { id, result: Ok(()) }).await?;
            match ask {
                Ask::Facts => self.facts().await?,
                Ask::Begin { job, work } => {
                    let result = Ok(report(*work));
                    self.say(&FromAgent::Ended { job, result }).await?;
                }
                Ask::GiveUp(_) => {}
                Ask::Reboot | Ask::PowerOff => return Ok(()),
            }
        }
    }
}

fn report(work: Work) -> JobReport {
    match work {
        Work::Erase { disks, method } => {
            let evidence = disks.into_iter().map(|disk| EraseEvidence {
                disk,
                model: Some("SIM SSD".into()),
                asked: method,
                steps: vec!["signatures wiped, read back as zeros".into()],
                began: Timestamp(1),
                ended: Timestamp(2),
            });
            JobReport::Erased(evidence.collect())
        }
        Work::Write { image, .. } => JobReport::Written {
            sha256: image.sha256,
            fetched: image.bytes,
            disk_bytes: image.disk_bytes.unwrap_or(image.bytes),
            holes: 0,
            millis: 1_000,
            steps: vec!["GPT moved to the end of the disk".into()],
        },
        Work::Setup { .. } | Work::Adjust { .. } => JobReport::SetUp(vec!["/etc/hostname".into()]),
        Work::Kexec { .. } => JobReport::Jumping,
        Work::BurnIn(_) => JobReport::BurnedIn(Vec::new()),
        Work::Layout => JobReport::Layout(Vec::new()),
        Work::BootOrder { .. } | Work::BmcSetup(_) => JobReport::BootOrder(Vec::new()),
        Work::Condition => JobReport::Condition(String::new()),
        Work::Rescue { .. } => JobReport::Rescued {
            status: 0,
            output: String::new(),
        },
    }
}

/// A server as the agent would see it, of the usual length.
fn inventory(number: u32, mac: MacAddr) -> Inventory {
    let mut inventory = Inventory::default();
    inventory.system.serial = Some(format!("SIM{number:06}"));
    inventory.system.uuid = Some(format!("4c4c4544-0001-0001-8001-{number:012}"));
    inventory.memory.total_bytes = 64 << 30;
    inventory.nics.push(Nic {
        name: "eth0".into(),
        mac,
        boot: true,
        ..Nic::default()
    });
    inventory.disks.push(Disk {
        name: "nvme0n1".into(),
        size_bytes: 480_000_000_000,
        model: Some("SIM SSD".into()),
        serial: Some(format!("DISK{number:06}")),
        bus: DiskBus::Nvme,
        sector_bytes: 512,
        ..Disk::default()
    });
    inventory
}
