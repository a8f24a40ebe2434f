//! Logs from logger and rsyslog.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use common::netns::Net;
use common::{Sink, wait_until};
use rackbar_services::Common;
use rackbar_services::syslog::{LogStore, Start, SyslogConfig, SyslogHandle, start};
use rackbar_syslog::{Filter, Level, Record};

const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

struct Case {
    net: Net,
    store: Arc<LogStore>,
    handle: SyslogHandle,
    common: Common,
}

fn config() -> SyslogConfig {
    SyslogConfig {
        listen: vec![SocketAddrV4::new(US, 514)],
        served: vec![(US, 24)],
        ..SyslogConfig::default()
    }
}

fn case(config: SyslogConfig) -> Case {
    let net = Net::new();
    net.exec_ok("client", "ip", &["addr", "add", "10.77.0.20/24", "dev", "c0"]);
    let (_, common) = Sink::new();
    let store = Arc::new(LogStore::open(&net.folder.path().join("log"), 8 << 20).unwrap());
    let handle = net.inside("server", || start(config, store.clone(), common.clone()).unwrap());
    Case {
        net,
        store,
        handle,
        common,
    }
}

impl Case {
    fn records(&self) -> Vec<Record> {
        let found = self.store.search(&Filter::default(), Start::Before(None), 10_000);
        found.unwrap().records
    }

    fn logger(&self, args: &[&str]) {
        let all = [&["-n", "10.77.0.1", "-P", "514"], args].concat();
        self.net.exec_ok("client", "logger", &all);
    }

    fn wait_for(&self, text: &str) -> Record {
        wait_until(text, || self.records().iter().any(|record| record.text.contains(text)));
        self.records()
            .into_iter()
            .find(|record| record.text.contains(text))
            .unwrap()
    }
}

#[test]
fn logger_is_heard_in_both_formats_over_udp_and_tcp() {
    let case = case(config());
    let formats: [(&str, &[&str]); 4] = [
        ("old over datagrams", &["-d", "--rfc3164"]),
        ("new over datagrams", &["-d", "--rfc5424"]),
        ("new over a stream", &["-T", "--rfc5424"]),
        ("counted over a stream", &["-T", "--rfc5424", "--octet-count"]),
    ];
    for (text, args) in formats {
        case.logger(&[args, &["-t", "tool", "-i", "-p", "auth.err", text]].concat());
        let record = case.wait_for(text);
        assert_eq!(
            (record.level, record.facility.to_string()),
            (Level::Error, "auth".to_owned())
        );
        assert!(record.program.starts_with("tool["), "{record:?}");
        assert_eq!(record.source, std::net::IpAddr::from([10, 77, 0, 20]));
        assert!(!record.host.is_empty() && record.text.ends_with(text), "{record:?}");
    }
    assert_eq!(
        case.handle.status().state,
        "taking messages on 10.77.0.1:514, 256 MB at most"
    );
}

#[test]
fn rsyslog_forwards_over_tcp_with_counted_octets_and_lines() {
    for framing in ["octet-counted", "traditional"] {
        let case = case(config());
        let (socket, pid, work) = (case.net.path("in.sock"), case.net.path("pid"), case.net.path("."));
        let conf = format!(
            "global(workDirectory=\"{work}\")\nmodule(load=\"imuxsock\" SysSock.Use=\"off\")\ninput(type=\"imuxsock\" Socket=\"{socket}\")\n\
             action(type=\"omfwd\" target=\"10.77.0.1\" port=\"514\" protocol=\"tcp\" TCP_Framing=\"{framing}\" \
             template=\"RSYSLOG_SyslogProtocol23Format\")\n"
        );
        let path = case.net.path("rsyslog.conf");
        std::fs::write(&path, conf).unwrap();
        let _rsyslogd = case.net.spawn("client", "rsyslogd", &["-n", "-f", &path, "-i", &pid]);
        wait_until("rsyslogd listens", || std::path::Path::new(&socket).exists());
        for n in 0..200 {
            let text = format!("forwarded number {n:03}");
            case.net
                .exec_ok("client", "logger", &["-u", &socket, "-t", "app", &text]);
        }
        case.wait_for("forwarded number 199");
        let got: Vec<String> = case
            .records()
            .into_iter()
            .filter(|one| one.program == "app")
            .map(|one| one.text)
            .collect();
        let wanted: Vec<String> = (0..200).map(|n| format!("forwarded number {n:03}")).collect();
        assert_eq!(got, wanted, "{framing}");
    }
}

#[test]
fn a_flood_is_cut_and_counted_and_strangers_and_escape_codes_do_no_harm() {
    let case = case(SyslogConfig {
        per_second: 20,
        ..config()
    });
    case.net
        .exec_ok("client", "ip", &["addr", "add", "10.77.0.21/24", "dev", "c0"]);
    case.net
        .exec_ok("client", "ip", &["addr", "add", "192.0.2.9/24", "dev", "c0"]);
    case.net
        .exec_ok("server", "ip", &["route", "add", "192.0.2.0/24", "dev", "rack0"]);
    case.net.inside("client", || {
        let from = |address: &str| std::net::UdpSocket::bind((address, 0)).unwrap();
        let loud = from("10.77.0.20");
        for n in 0..1000 {
            loud.send_to(format!("<13>loud: {n}").as_bytes(), "10.77.0.1:514")
                .unwrap();
        }
        from("192.0.2.9")
            .send_to(b"<13>stranger: here", "10.77.0.1:514")
            .unwrap();
        from("10.77.0.21")
            .send_to(b"<11>quiet: \x1b[31mred\x07", "10.77.0.1:514")
            .unwrap();
    });
    assert_eq!(case.wait_for("red").text, "#033[31mred#007");
    // The record about the loss comes when some seconds have passed.
    let told = case.wait_for("messages of this sender were dropped");
    assert_eq!(
        (told.source, told.program.as_str()),
        ([10, 77, 0, 20].into(), "rackbar")
    );
    let lost: usize = told.text.split(' ').next().unwrap().parse().unwrap();
    let records = case.records();
    let kept = records.iter().filter(|one| one.program == "loud").count();
    assert_eq!(kept + lost, 1000);
    assert!((200..300).contains(&kept), "{kept}");
    assert!(!records.iter().any(|one| one.program == "stranger"));
    assert_eq!(case.common.metrics.syslog_received.get(), 1002);
    case.handle.stop();
}
