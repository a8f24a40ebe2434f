//! Our services as a process of their own, with the appliance's store behind them.

use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, bail};
use rackbar_artifacts::Artifacts;
use rackbar_dhcp::{Config, Mode, Network, Range};
use rackbar_messages::BootReport;
use rackbar_model::{Event, EventKind, FirmwareHabit, Lease, MacAddr, Timestamp};
use rackbar_services::{BootDesk, BootReply, Common, EventSink, LeaseLog, LeaseLogError, dhcp, http, tftp};
use rackbar_store::Store;

/// Writes events and leases as the appliance does.
struct Journal(Store);

impl EventSink for Journal {
    fn event(&self, mac: Option<MacAddr>, kind: EventKind) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = Timestamp(now.as_millis() as u64);
        self.0.append(Event {
            seq: 0,
            at,
            node: None,
            mac,
            kind,
        });
    }
}

impl LeaseLog for Journal {
    fn load(&self) -> Result<Vec<Lease>, LeaseLogError> {
        self.0.leases().map_err(|error| LeaseLogError(error.to_string()))
    }
    fn commit(&self, batch: &[Lease]) -> Result<(), LeaseLogError> {
        self.0
            .commit_leases(batch)
            .map_err(|error| LeaseLogError(error.to_string()))
    }
    // The machines of the load do not boot: nothing is learnt.
    fn habits(&self) -> Result<Vec<FirmwareHabit>, LeaseLogError> {
        Ok(Vec::new())
    }
    fn learnt(&self, _: MacAddr, _: Option<&FirmwareHabit>) {}
}

/// Forgets events: nginx is measured without its access log.
struct Nowhere;

impl EventSink for Nowhere {
    fn event(&self, _: Option<MacAddr>, _: EventKind) {}
}

/// Renders a script of the usual length.
struct Desk;

impl BootDesk for Desk {
    fn script(&self, mac: MacAddr, client: IpAddr) -> BootReply {
        let body = format!(
            "#!ipxe\n# {mac} at {client}\n{}boot\n",
            "kernel http://10.88.0.1/boot/v1/files/x\n".repeat(9)
        );
        BootReply::Bytes {
            content_type: "text/plain",
            body: body.into(),
        }
    }
    fn manifest(&self, _: MacAddr, _: [u8; 16], _: IpAddr) -> BootReply {
        BootReply::Refused {
            status: 404,
            text: "not measured".into(),
        }
    }
    fn report(&self, _: BootReport, _: IpAddr) {}
}

/// Serves until killed.
pub(crate) fn run(service: &str, folder: &Path) -> Result<()> {
    let store = Store::open(folder.join(format!("{service}.redb")))?;
    let journal = Arc::new(Journal(store));
    let common = Common::new(Arc::clone(&journal) as Arc<dyn EventSink>);
    let files = || -> Result<Arc<Artifacts>> {
        let artifacts = Artifacts::new();
        for name in ["large", "boot"] {
            artifacts.add_file(name, &folder.join("files").join(name))?;
        }
        Ok(Arc::new(artifacts))
    };
    match service {
        "dhcp" => {
            let pool = Range {
                first: [10, 88, 16, 0].into(),
                last: [10, 88, 255, 254].into(),
            };
            // Reached through a relay, as in a data hall: no ARP probe, which the others are told to leave out too.
            let network = Network {
                mode: Mode::Own,
                ..Network::new("bench", None, [10, 88, 0, 1].into(), 16, pool)
            };
            let engine = Config {
                networks: vec![network],
                ..Config::default()
            };
            let config = dhcp::DhcpConfig {
                interfaces: vec!["rack0".into()],
                engine,
            };
            let _handle = dhcp::start(config, journal, common)?;
            wait()
        }
        "tftp" => {
            let config = tftp::TftpConfig {
                listen: vec!["10.88.0.1:69".parse()?],
                artifacts: files()?,
                names: vec!["boot".into()],
                limits: tftp::TftpLimits::default(),
            };
            let _handle = tftp::start(config, common)?;
            wait()
        }
        "http" => {
            let config = http::HttpConfig {
                listen: vec!["10.88.0.1:80".parse()?],
                artifacts: files()?,
                desk: Arc::new(Desk),
                limits: http::HttpLimits::default(),
            };
            let _handle = http::start(config, Common::new(Arc::new(Nowhere)))?;
            wait()
        }
        other => bail!("no service {other}"),
    }
}

fn wait() -> Result<()> {
    loop {
        std::thread::park();
    }
}
