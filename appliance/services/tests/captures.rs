//! Captures of a real client's boot, read by tshark and tcpdump: what is in them, what is not, and their bounds.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]
#![allow(dead_code, reason = "the other tests' words are here too")]

mod common;

use std::net::UdpSocket;
use std::process::Command;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use common::netns::Net;
use common::{Desk, Leases, Sink, wait_until};
use rackbar_artifacts::Artifacts;
use rackbar_dhcp::{Config, Interface, InterfaceId, Mode, Network, Range};
use rackbar_services::capture::{self, CaptureConfig, CaptureError, CaptureHandle, CaptureLink, Given, Machine, Order};
use rackbar_services::dhcp::{self, DhcpConfig, DhcpHandle};
use rackbar_services::http::{self, HttpConfig, HttpHandle, HttpLimits};
use rackbar_services::tftp::{self, TftpConfig, TftpHandle, TftpLimits};
use rackbar_services::{Common, Link};

/// In the first block of a boot file, and in an answer of boot HTTP.
const SECRET: &str = "one-time-token-4711";
/// In a request of boot HTTP.
const URL_SECRET: &str = "installer-token-0815";

/// An appliance on `rack0`.
struct Appliance {
    net: Net,
    common: Common,
    captures: CaptureHandle,
    _services: (DhcpHandle, TftpHandle, HttpHandle),
}

fn config(net: &Net, memory: usize) -> CaptureConfig {
    let index = net.inside("server", || Link::find("test", "rack0").unwrap().index);
    let link = CaptureLink {
        name: "rack0".into(),
        index,
    };
    CaptureConfig {
        links: vec![link],
        memory,
        on_demand: true,
        tcp: vec![80],
    }
}

fn dhcp_config() -> DhcpConfig {
    let link = Link::find("test", "rack0").unwrap();
    let (id, mac) = (InterfaceId(link.index), link.mac);
    let pool = Range {
        first: [10, 77, 0, 100].into(),
        last: [10, 77, 0, 109].into(),
    };
    let network = Network {
        mode: Mode::Own,
        ..Network::new("rack", Some(Interface { id, mac }), [10, 77, 0, 1].into(), 24, pool)
    };
    DhcpConfig {
        interfaces: vec!["rack0".into()],
        engine: Config {
            networks: vec![network],
            ..Config::default()
        },
    }
}

fn appliance(memory: usize) -> Appliance {
    let net = Net::new();
    let artifacts = Artifacts::new();
    let mut loader = format!("MZ {SECRET} ").repeat(40_000);
    loader.truncate(500_000);
    artifacts.add_bytes("loader.efi", loader.into_bytes()).unwrap();
    let artifacts = Arc::new(artifacts);
    let (_, common) = Sink::new();
    let config = config(&net, memory);
    let (captures, services) = net.inside("server", || {
        let captures = capture::start(config, common.clone()).unwrap();
        let dhcp = dhcp::start(dhcp_config(), Arc::new(Leases::default()), common.clone()).unwrap();
        let tftp = TftpConfig {
            listen: vec!["0.0.0.0:69".parse().unwrap()],
            artifacts: artifacts.clone(),
            names: vec!["loader.efi".into()],
            limits: TftpLimits::default(),
        };
        let http = HttpConfig {
            listen: vec!["0.0.0.0:80".parse().unwrap()],
            artifacts,
            desk: Arc::new(Desk::default()),
            limits: HttpLimits::default(),
        };
        let tftp = tftp::start(tftp, common.clone()).unwrap();
        let http = http::start(http, common.clone()).unwrap();
        (captures, (dhcp, tftp, http))
    });
    Appliance {
        net,
        common,
        captures,
        _services: services,
    }
}

impl Appliance {
    /// The client boots: an address, a file by TFTP, a script by HTTP.
    fn boot(&self) {
        let script = self.net.script(
            "udhcpc-script",
            "#!/bin/sh\n[ \"$1\" = bound ] && exec ip addr add $ip/$mask dev $interface\nexit 0\n",
        );
        let args = [
            "udhcpc", "-i", "c0", "-n", "-q", "-f", "-t", "5", "-T", "1", "-s", &script,
        ];
        self.net.exec_ok("client", "busybox", &args);
        self.fetch();
        let url = format!("http://10.77.0.1/boot/v1/script.ipxe?mac=52-54-00-00-00-01&x={URL_SECRET}");
        self.net
            .exec_ok("client", "curl", &["-sS", "-m", "20", "-o", "/dev/null", &url]);
    }

    fn fetch(&self) {
        let out = self.net.path("loader");
        let args = ["-sS", "-m", "20", "-o", &out, "tftp://10.77.0.1/loader.efi"];
        self.net.exec_ok("client", "curl", &args);
    }

    fn client(&self) -> Machine {
        Machine {
            macs: vec![self.net.client_mac()],
            addresses: Vec::new(),
        }
    }

    fn read(&self, file: &[u8]) -> Vec<String> {
        let path = self.net.path("file.pcapng");
        std::fs::write(&path, file).unwrap();
        let tcpdump = Command::new("tcpdump").args(["-nr", &path]).output();
        let tcpdump = tcpdump.expect("tcpdump: `cargo xtask setup test` installs it");
        assert!(tcpdump.status.success(), "{tcpdump:?}");
        let fields = [
            "frame.interface_name",
            "frame.packet_flags_direction",
            "frame.protocols",
            "_ws.col.Info",
        ];
        let fields = fields.iter().flat_map(|field| ["-e", field]);
        let read = Command::new("tshark")
            .args(["-n", "-r", &path, "-T", "fields"])
            .args(fields)
            .output();
        let read = read.expect("tshark: `cargo xtask setup test` installs it");
        assert!(read.status.success(), "{read:?}");
        let text = String::from_utf8(read.stdout).unwrap();
        text.lines().map(str::to_owned).collect()
    }
}

fn holds(file: &[u8], text: &str) -> bool {
    file.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn boot_packets_of_a_client_are_kept_without_what_its_files_hold() {
    let appliance = appliance(4 << 20);
    let status = appliance.captures.status().state;
    assert_eq!(status, "keeping the newest boot packets of rack0, 4 MiB of them");
    appliance.boot();
    let machine = appliance.client();
    let wanted = [
        ("DHCP Discover", "1"),
        ("DHCP ACK", "2"),
        ("Read Request, File: loader.efi", "1"),
        ("80 [SYN]", "1"),
        ("[FIN, ACK]", "2"),
    ];
    let mut told = Vec::new();
    wait_until("all of the boot is in the capture", || {
        told = appliance.read(&appliance.common.captures.recent(None, Some(&machine)).unwrap());
        let has = |(what, way): &(&str, &str)| {
            let way = format!("rack0\t0x0000000{way}");
            told.iter().any(|line| line.contains(what) && line.starts_with(&way))
        };
        wanted.iter().all(has)
    });
    let all = appliance.common.captures.recent(Some("rack0"), None).unwrap();
    assert!(holds(&all, "loader.efi"), "requests are whole");
    for secret in [SECRET, URL_SECRET, "#!ipxe"] {
        assert!(!holds(&all, secret), "{secret} is in it");
    }
    // The first block is in it, the hundreds behind it are not.
    let blocks = told.iter().filter(|line| line.contains("Data Packet")).count();
    assert!((1..4).contains(&blocks), "{blocks} blocks: {told:#?}");
    assert!(told.len() < 60, "{told:#?}");

    let stranger = Machine {
        macs: vec![rackbar_model::MacAddr([2, 9, 9, 9, 9, 9])],
        addresses: Vec::new(),
    };
    let none = appliance.common.captures.recent(None, Some(&stranger)).unwrap();
    assert!(appliance.read(&none).is_empty());
    let unknown = appliance
        .common
        .captures
        .recent(Some("eth9"), None)
        .unwrap_err()
        .to_string();
    assert!(unknown.contains("eth9") && unknown.contains("rack0"), "{unknown}");
}

fn order(bytes: u64, seconds: u32) -> Order {
    Order {
        interface: None,
        machine: None,
        everything: true,
        seconds,
        bytes,
    }
}

#[test]
fn a_capture_on_demand_ends_where_its_file_is_full_or_nobody_reads_it() {
    let appliance = appliance(0);
    appliance
        .net
        .exec_ok("client", "ip", &["addr", "add", "10.77.0.90/24", "dev", "c0"]);
    let live = |bytes: u64| {
        let order = Order {
            machine: Some(appliance.client()),
            ..order(bytes, 3_600)
        };
        appliance
            .net
            .inside("server", || appliance.common.captures.open(order).unwrap())
    };
    // Every packet of a transfer, and of each the headers alone; far more of them than there is room for.
    let (send, pieces) = channel();
    let full = live(20_000);
    let running = std::thread::spawn(move || {
        full.run(|piece| match send.send(piece) {
            Ok(()) => Given::Taken,
            Err(_) => Given::Gone,
        });
    });
    appliance.fetch();
    let file: Vec<u8> = pieces.iter().flatten().collect();
    running.join().unwrap();
    assert!(file.len() <= 20_000 && file.len() > 15_000, "{}", file.len());
    let told = appliance.read(&file);
    let blocks = told.iter().filter(|line| line.contains("Data Packet")).count();
    assert!(blocks > 20, "{told:#?}");
    assert!(holds(&file, "loader.efi"));
    assert!(!holds(&file, SECRET));
    // Interface statistics (section 4.6) close it: the last block's type, found by its length at the very end.
    let length = u32::from_le_bytes(file[file.len() - 4..].try_into().unwrap()) as usize;
    assert_eq!(file[file.len() - length], 5);

    let begun = Instant::now();
    live(1 << 20).run(|_| Given::Gone);
    assert!(begun.elapsed() < Duration::from_secs(60), "it went on for nobody");
}

#[test]
fn captures_are_refused_where_they_are_not_wanted_and_beyond_a_few_at_a_time() {
    let appliance = appliance(1 << 20);
    let captures = &appliance.common.captures;
    let open = || appliance.net.inside("server", || captures.open(order(1 << 20, 1)));
    let mut running: Vec<_> = (0..4).map(|_| open().unwrap()).collect();
    let Err(busy) = open() else { panic!("a fifth one runs") };
    assert!(busy.to_string().contains("4 captures run already"), "{busy}");
    running.pop();
    running.push(open().unwrap());
    drop(running);
    let off = CaptureConfig {
        memory: 0,
        on_demand: false,
        ..config(&appliance.net, 0)
    };
    appliance.net.inside("server", || appliance.captures.reconfigure(off));
    assert!(matches!(open().err(), Some(CaptureError::Off(_))));
    assert!(matches!(captures.recent(None, None), Err(CaptureError::Off(_))));
    assert!(appliance.captures.status().state.starts_with("keeping no boot packets"));
    let gone = CaptureConfig {
        links: vec![CaptureLink {
            name: "gone0".into(),
            index: 9_999,
        }],
        ..config(&appliance.net, 1 << 20)
    };
    appliance.net.inside("server", || appliance.captures.reconfigure(gone));
    let status = appliance.captures.status().state;
    assert!(status.contains("cannot listen on gone0"), "{status}");
}

#[test]
fn a_flood_of_boot_packets_takes_no_more_memory_than_it_may() {
    let appliance = appliance(1 << 20);
    let received = &appliance.common.metrics.captured;
    let socket = appliance.net.inside("hub", || UdpSocket::bind("10.77.0.2:0").unwrap());
    // On a busy machine most of it is lost before it is received: it goes on until much of it came.
    wait_until("much of it came", || {
        for _ in 0..1_000 {
            // A full queue on the way is part of a flood.
            let _ = socket.send_to(&[7; 1_000], "10.77.0.1:4011");
        }
        received.get() > 4_000
    });
    // In it the client is served, and its packets are the newest.
    appliance.boot();
    let machine = appliance.client();
    wait_until("the boot is in the capture", || {
        holds(
            &appliance.common.captures.recent(None, Some(&machine)).unwrap(),
            "loader.efi",
        )
    });
    let file = appliance.common.captures.recent(None, None).unwrap();
    assert!(file.len() < (1 << 20) + 4_096, "{} bytes", file.len());
    assert!(appliance.read(&file).len() > 500);
}
