//! NTP with chrony on either side. No test moves the clock of this machine: chronyd runs with -x, our clock is a free one.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::netns::{Net, Running};
use common::{Sink, wait_until};
use rackbar_model::EventKind;
use rackbar_ntp::{ClientConfig, Leap, ServerName};
use rackbar_services::ntp::{FreeClock, Lookup, NtpConfig, NtpLimits, start, start_with};

const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn serving(client: ClientConfig) -> NtpConfig {
    NtpConfig {
        listen: vec![SocketAddrV4::new(US, 123)],
        served: vec![(US, 24)],
        client,
        names: Vec::new(),
        limits: NtpLimits::default(),
    }
}

/// A chronyd in `part` with this configuration, which leaves the machine's clock alone.
fn chronyd(net: &Net, part: &str, conf: &str) -> Running {
    let path = net.path(&format!("chrony-{part}.conf"));
    let whole = format!(
        "{conf}\nbindcmdaddress 127.0.0.1\nbindcmdaddress /\npidfile {}\n",
        net.path(&format!("{part}.pid"))
    );
    std::fs::write(&path, whole).unwrap();
    net.spawn(part, "chronyd", &["-x", "-d", "-u", "root", "-f", &path])
}

fn chronyc(net: &Net, part: &str, args: &[&str]) -> String {
    let mut all = vec!["-h", "127.0.0.1"];
    all.extend(args);
    String::from_utf8_lossy(&net.exec(part, "chronyc", &all).stdout).into_owned()
}

#[test]
fn chronyd_follows_us_and_chronyd_q_reads_our_clock() {
    let net = Net::new();
    net.exec_ok("client", "ip", &["addr", "add", "10.77.0.20/24", "dev", "c0"]);
    let (_, common) = Sink::new();
    let (clock, _) = FreeClock::new(90_000_000_000);
    let local = ClientConfig {
        servers: Vec::new(),
        local_stratum: Some(8),
    };
    let handle = net.inside("server", || {
        start(serving(local), Box::new(clock), common.clone()).unwrap()
    });
    // -Q: ask once, print the offset, change nothing.
    let asked = net.exec(
        "client",
        "chronyd",
        &["-Q", "-t", "20", "server 10.77.0.1 iburst maxsamples 4"],
    );
    let text = String::from_utf8_lossy(&asked.stderr).into_owned() + &String::from_utf8_lossy(&asked.stdout);
    assert!(
        text.contains("System clock wrong by 90.0") || text.contains("System clock wrong by 89.99"),
        "{text}"
    );
    let _chronyd = chronyd(&net, "client", "server 10.77.0.1 iburst minpoll 0 maxpoll 1");
    wait_until("chronyd selects us", || {
        chronyc(&net, "client", &["-n", "sources"]).contains("^* 10.77.0.1")
    });
    let tracking = chronyc(&net, "client", &["tracking"]);
    assert!(
        tracking.contains("Stratum         : 9") && tracking.contains("Leap status     : Normal"),
        "{tracking}"
    );
    assert!(
        handle.status().state.contains("own clock is the reference (stratum 8)"),
        "{:?}",
        handle.status()
    );
    assert!(common.metrics.ntp_answered.get() > 4);
}

#[test]
fn an_unsynchronised_clock_says_so_and_chronyd_does_not_follow_it() {
    let net = Net::new();
    net.exec_ok("client", "ip", &["addr", "add", "10.77.0.20/24", "dev", "c0"]);
    let (_, common) = Sink::new();
    let (clock, _) = FreeClock::new(0);
    let handle = net.inside("server", || {
        start(serving(ClientConfig::default()), Box::new(clock), common.clone()).unwrap()
    });
    let asked = net.exec("client", "chronyd", &["-Q", "-t", "4", "server 10.77.0.1 iburst"]);
    assert!(!asked.status.success(), "{asked:?}");
    assert!(common.metrics.ntp_answered.get() >= 1);
    assert!(
        handle
            .status()
            .state
            .ends_with("the clock follows nobody: no server is named")
    );
}

#[test]
fn our_clock_is_set_by_chronyd_once_and_then_serves_at_the_next_stratum() {
    let net = Net::new();
    let conf = "local stratum 5\nallow all\nbindaddress 10.77.0.2\n";
    let _chronyd = chronyd(&net, "hub", conf);
    let (sink, common) = Sink::new();
    let (clock, error) = FreeClock::new(-3_723_000_000_000);
    let client = ClientConfig {
        servers: vec!["10.77.0.2:123".parse().unwrap(), "10.77.0.66:123".parse().unwrap()],
        local_stratum: None,
    };
    let handle = net.inside("server", || start(serving(client), Box::new(clock), common).unwrap());
    assert_eq!(handle.tracking().system.leap, Leap::Unsynchronised);
    wait_until("the clock is right", || error.load(Ordering::SeqCst).abs() < 20_000_000);
    let words = sink.wait_for("the step is told", |_, kind| match kind {
        EventKind::Note { text, .. } => Some(text.clone()),
        _ => None,
    });
    assert!(
        words.starts_with("the appliance's clock was off and has been set: forward by 1 h 2 min"),
        "{words}"
    );
    wait_until("we say that we follow it", || {
        handle
            .status()
            .state
            .contains("the clock follows 10.77.0.2 (stratum 6)")
    });
    let tracking = handle.tracking();
    assert_eq!(
        (tracking.system.stratum, tracking.system.reference_id),
        (6, [10, 77, 0, 2])
    );
    assert_eq!(tracking.sources[1].state, "does not answer");
}

#[test]
fn control_messages_and_strangers_get_nothing_that_helps_them() {
    let net = Net::new();
    net.exec_ok("client", "ip", &["addr", "add", "10.77.0.20/24", "dev", "c0"]);
    net.exec_ok("client", "ip", &["addr", "add", "192.0.2.9/24", "dev", "c0"]);
    net.exec_ok("server", "ip", &["route", "add", "192.0.2.0/24", "dev", "rack0"]);
    let (_, common) = Sink::new();
    let (clock, _) = FreeClock::new(0);
    let local = ClientConfig {
        servers: Vec::new(),
        local_stratum: Some(8),
    };
    let _handle = net.inside("server", || {
        start(serving(local), Box::new(clock), common.clone()).unwrap()
    });
    net.inside("client", || {
        let near = std::net::UdpSocket::bind("10.77.0.20:0").unwrap();
        near.set_read_timeout(Some(common::DEADLINE)).unwrap();
        // Mode 7 MON_GETLIST and mode 6 READVAR, the amplifiers of old, then an honest request.
        let mut monlist = [0; 48];
        monlist[..4].copy_from_slice(&[0x17, 0, 3, 0x2a]);
        near.send_to(&monlist, "10.77.0.1:123").unwrap();
        near.send_to(&[0x16, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0], "10.77.0.1:123")
            .unwrap();
        near.send_to(&rackbar_ntp::request(77), "10.77.0.1:123").unwrap();
        let mut buffer = [0; 2048];
        let length = near.recv(&mut buffer).unwrap();
        assert_eq!((length, buffer[0] & 7, buffer[1]), (48, 4, 8));
        let far = std::net::UdpSocket::bind("192.0.2.9:0").unwrap();
        far.set_read_timeout(Some(common::DEADLINE)).unwrap();
        far.send_to(&rackbar_ntp::request(78), "10.77.0.1:123").unwrap();
        let length = far.recv(&mut buffer).unwrap();
        assert_eq!((length, buffer[1], &buffer[12..16]), (48, 0, &b"DENY"[..]));
    });
    assert_eq!(common.metrics.ntp_dropped.get(), 2);
}

/// A resolver that tells of a server that is silent, then of one that answers.
#[derive(Default)]
struct Resolver(AtomicUsize);

impl Lookup for Resolver {
    fn addresses(&self, name: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
        assert_eq!((name, port), ("time.example.org", 123));
        match self.0.fetch_add(1, Ordering::SeqCst) {
            0 => Ok(vec![([10, 77, 0, 66], 123).into()]),
            // Our own address among them would be a loop.
            _ => Ok(vec![(US, 123).into(), ([10, 77, 0, 2], 123).into()]),
        }
    }
}

#[test]
fn a_server_by_name_is_looked_up_again_until_one_answers_and_then_left_alone() {
    let net = Net::new();
    let _chronyd = chronyd(&net, "hub", "local stratum 5\nallow all\nbindaddress 10.77.0.2\n");
    let (_, common) = Sink::new();
    let (clock, error) = FreeClock::new(-3_723_000_000_000);
    let resolver = Arc::new(Resolver::default());
    let mut config = serving(ClientConfig::default());
    config.names = vec![ServerName {
        name: "time.example.org".into(),
        port: 123,
    }];
    let handle = net.inside("server", || {
        start_with(config, Box::new(clock), resolver.clone(), common).unwrap()
    });
    wait_until("its first address is told", || {
        handle.status().state.ends_with("time.example.org is 10.77.0.66")
    });
    wait_until("it is looked up again", || resolver.0.load(Ordering::SeqCst) == 2);
    wait_until("the clock is right", || error.load(Ordering::SeqCst).abs() < 20_000_000);
    wait_until("we say whom we follow, and its name", || {
        let state = handle.status().state;
        state.contains("the clock follows 10.77.0.2 (stratum 6)") && state.ends_with("time.example.org is 10.77.0.2")
    });
    let tracking = handle.tracking();
    assert_eq!(tracking.sources.len(), 1, "{tracking:?}");
    assert_eq!(tracking.names[0].addresses, ["10.77.0.2:123".parse().unwrap()]);
    assert_eq!(resolver.0.load(Ordering::SeqCst), 2);
}

/// A resolver that never answers.
struct Silent(Mutex<std::sync::mpsc::Receiver<()>>);

impl Lookup for Silent {
    fn addresses(&self, _: &str, _: u16) -> std::io::Result<Vec<SocketAddr>> {
        let _ = self.0.lock().unwrap().recv();
        Err(std::io::Error::other("nobody answered"))
    }
}

#[test]
fn a_resolver_that_says_nothing_holds_up_neither_clients_nor_the_end() {
    let net = Net::new();
    net.exec_ok("client", "ip", &["addr", "add", "10.77.0.20/24", "dev", "c0"]);
    let (_, common) = Sink::new();
    let (clock, _) = FreeClock::new(0);
    let (never, heard) = std::sync::mpsc::channel();
    let mut config = serving(ClientConfig {
        servers: Vec::new(),
        local_stratum: Some(8),
    });
    config.names = vec![ServerName {
        name: "time.example.org".into(),
        port: 123,
    }];
    let lookup = Arc::new(Silent(Mutex::new(heard)));
    let handle = net.inside("server", || {
        start_with(config, Box::new(clock), lookup, common).unwrap()
    });
    // Dropped before the service, should this fail: a service that waits for it would never end.
    let never = never;
    wait_until("the lookup is under way", || {
        handle.status().state.ends_with("time.example.org is being looked up")
    });
    net.inside("client", || {
        let socket = std::net::UdpSocket::bind("10.77.0.20:0").unwrap();
        socket.set_read_timeout(Some(common::DEADLINE)).unwrap();
        socket.send_to(&rackbar_ntp::request(77), "10.77.0.1:123").unwrap();
        let mut buffer = [0; 64];
        assert_eq!(socket.recv(&mut buffer).unwrap(), 48);
    });
    handle.stop();
    drop(never);
}
