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
use rackbar_ntp::ClientConfig;
use rackbar_proxy::rules::destination::Destinations;
use rackbar_services::{BootDesk, BootReply, Common, EventSink, LeaseLog, LeaseLogError, dhcp, dns, http, ntp, tftp};
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
        BootReply::Bytes {
            content_type: "application/octet-stream",
            body: vec![0; 700].into(),
        }
    }
    fn report(&self, _: BootReport, _: IpAddr) {}
}

/// Serves until killed.
pub(crate) fn run(service: &str, folder: &Path) -> Result<()> {
    if service == "http" {
        return boot_http(folder);
    }
    let store = Store::open(folder.join(format!("{service}.redb")))?;
    let journal = Arc::new(Journal(store));
    let common = Common::new(Arc::clone(&journal) as Arc<dyn EventSink>);
    match service {
        "dhcp" => {
            let _handle = dhcp::start(addresses(), journal, common)?;
            wait()
        }
        "boot" => {
            let artifacts = Artifacts::new();
            for (name, _) in crate::boot::FILES {
                artifacts.add_file(name, &folder.join("files").join(name))?;
            }
            let artifacts = Arc::new(artifacts);
            let _dhcp = dhcp::start(addresses(), journal, common.clone())?;
            let config = tftp::TftpConfig {
                listen: vec!["10.88.0.1:69".parse()?],
                artifacts: artifacts.clone(),
                names: vec!["loader.efi".into()],
                limits: tftp::TftpLimits::default(),
            };
            let _tftp = tftp::start(config, common.clone())?;
            let config = http::HttpConfig {
                listen: vec!["10.88.0.1:80".parse()?],
                artifacts,
                desk: Arc::new(Desk),
                limits: http::HttpLimits::default(),
            };
            let _http = http::start(config, common)?;
            wait()
        }
        "tftp" => {
            let config = tftp::TftpConfig {
                listen: vec!["10.88.0.1:69".parse()?],
                artifacts: files(folder)?,
                names: vec!["boot".into()],
                limits: tftp::TftpLimits::default(),
            };
            let _handle = tftp::start(config, common)?;
            wait()
        }
        "cache" => {
            let rule = Destinations {
                forbidden: vec!["10.88.0.1/32".parse()?],
                ..Destinations::default()
            };
            let settings = rackbar_proxy::Settings {
                listen: vec!["10.88.0.1:3128".parse()?],
                rule,
                ..rackbar_proxy::Settings::default()
            };
            let tell = Arc::new(|_, text| eprintln!("{text}"));
            let _handle = rackbar_proxy::start(&folder.join("cache-rackbar"), settings, tell)?;
            wait()
        }
        "dns" => {
            let config = dns::DnsConfig {
                listen: vec!["10.88.0.1:53".parse()?],
                served: vec![([10, 88, 0, 0].into(), 16)],
                upstreams: Vec::new(),
            };
            let zones = Arc::new(crate::names::site()?.zones(1));
            let _handle = dns::start(config, zones, common)?;
            wait()
        }
        "ntp" => {
            // One client stands for many here: it may ask as often as it likes.
            let limits = ntp::NtpLimits {
                per_second: 1_000_000,
                burst: 1_000_000,
            };
            let config = ntp::NtpConfig {
                listen: vec!["10.88.0.1:123".parse()?],
                served: vec![([10, 88, 0, 0].into(), 16)],
                client: ClientConfig {
                    local_stratum: Some(8),
                    ..ClientConfig::default()
                },
                names: Vec::new(),
                limits,
            };
            // This machine's clock is read and left alone.
            let (clock, _) = ntp::FreeClock::new(0);
            let _handle = ntp::start(config, Box::new(clock), common)?;
            wait()
        }
        other => bail!("no service {other}"),
    }
}

/// Boot HTTP alone: events are dropped, and nothing else of it is stored.
fn boot_http(folder: &Path) -> Result<()> {
    let config = http::HttpConfig {
        listen: vec!["10.88.0.1:80".parse()?],
        artifacts: files(folder)?,
        desk: Arc::new(Desk),
        limits: http::HttpLimits::default(),
    };
    let _handle = http::start(config, Common::new(Arc::new(Nowhere)))?;
    wait()
}

fn files(folder: &Path) -> Result<Arc<Artifacts>> {
    let artifacts = Artifacts::new();
    for name in ["large", "boot"] {
        artifacts.add_file(name, &folder.join("files").join(name))?;
    }
    Ok(Arc::new(artifacts))
}

/// Reached through a relay, as in a data hall: no ARP probe, which the others are told to leave out too.
fn addresses() -> dhcp::DhcpConfig {
    let pool = Range {
        first: [10, 88, 16, 0].into(),
        last: [10, 88, 255, 254].into(),
    };
    let network = Network {
        mode: Mode::Own,
        ..Network::new("bench", None, [10, 88, 0, 1].into(), 16, pool)
    };
    let engine = Config {
        networks: vec![network],
        ..Config::default()
    };
    dhcp::DhcpConfig {
        interfaces: vec!["rack0".into()],
        engine,
    }
}

fn wait() -> ! {
    loop {
        std::thread::park();
    }
}
