//! DNS, asked by dig and answered through a real Unbound and dnsmasq.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use common::netns::{Net, Running};
use common::{Sink, wait_until};
use rackbar_dns::{Data, Host, Name, SiteNames, SiteRecord};
use rackbar_services::Common;
use rackbar_services::dns::{DnsConfig, DnsHandle, start};

const US: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);

fn six(text: &str) -> IpAddr {
    IpAddr::V6(text.parse().unwrap())
}

fn site(hosts: &[(&str, IpAddr)]) -> SiteNames {
    let name = |text: &str| Name::parse(text).unwrap();
    SiteNames {
        domain: name("rack.example"),
        server: "rackbar".into(),
        addresses: vec![US.into()],
        aliases: vec!["ntp".into(), "syslog".into()],
        networks: vec![
            (US.into(), 24),
            (Ipv4Addr::new(10, 78, 0, 65).into(), 26),
            (six("2001:db8:0:4::"), 62),
        ],
        hosts: hosts
            .iter()
            .map(|(label, address)| Host {
                label: (*label).into(),
                domain: None,
                addresses: vec![*address],
            })
            .collect(),
        records: vec![
            SiteRecord {
                name: name("_ceph-mon._tcp.rack.example"),
                data: Data::Srv(10, 60, 6789, name("node-001.rack.example")),
            },
            SiteRecord {
                name: name("big.rack.example"),
                data: Data::Txt("rackbar ".repeat(400)),
            },
            alias("mirror", "deb.corp.example"),
            alias("nowhere", "nobody.corp.example"),
        ],
    }
}

/// An alias of the site for a name of somebody else.
fn alias(label: &str, target: &str) -> SiteRecord {
    SiteRecord {
        name: Name::parse("rack.example").unwrap().child(label).unwrap(),
        data: Data::Cname(Name::parse(target).unwrap()),
    }
}

fn config(upstreams: &[&str]) -> DnsConfig {
    DnsConfig {
        listen: vec![SocketAddrV4::new(US, 53)],
        served: vec![(US, 24)],
        upstreams: upstreams.iter().map(|text| text.parse().unwrap()).collect(),
    }
}

struct Case {
    net: Net,
    handle: DnsHandle,
    common: Common,
}

fn case(upstreams: &[&str]) -> Case {
    let net = Net::new();
    net.exec_ok("client", "ip", &["addr", "add", "10.77.0.20/24", "dev", "c0"]);
    let (_, common) = Sink::new();
    let zones = site(&[
        ("node-001", [10, 77, 0, 100].into()),
        ("node-001-bmc", [10, 78, 0, 70].into()),
        ("node-006", six("2001:db8:0:6::50")),
    ])
    .zones(1000);
    let handle = net.inside("server", || {
        start(config(upstreams), Arc::new(zones), common.clone()).unwrap()
    });
    Case { net, handle, common }
}

impl Case {
    /// What dig prints; retries are its own.
    fn dig(&self, args: &str) -> String {
        let mut all = vec!["@10.77.0.1", "+tries=3", "+timeout=5"];
        all.extend(args.split(' '));
        let output = self.net.exec_ok("client", "dig", &all);
        String::from_utf8(output.stdout).unwrap()
    }

    fn short(&self, args: &str) -> Vec<String> {
        self.dig(&format!("+short {args}")).lines().map(str::to_owned).collect()
    }
}

/// An Unbound in the hub, the authority of `corp.example`.
fn unbound(net: &Net) -> Running {
    let conf = "server:\n interface: 10.77.0.2\n port: 53\n access-control: 0.0.0.0/0 allow\n do-daemonize: no\n \
        username: \"\"\n chroot: \"\"\n directory: \"/\"\n pidfile: \"\"\n use-syslog: no\n do-ip6: no\n module-config: \"iterator\"\n \
        local-zone: \"corp.example.\" static\n local-data: \"www.corp.example. 300 IN A 198.51.100.80\"\n \
        local-data-ptr: \"2001:db8:0:8::50 300 next.corp.example\"\n \
        local-data: \"fat.corp.example. 300 IN TXT "
        .to_owned()
        + &"'0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789' "
            .repeat(20)
        + "\"\nremote-control:\n control-enable: no\n";
    let path = net.path("unbound.conf");
    std::fs::write(&path, conf).unwrap();
    let running = net.spawn("hub", "unbound", &["-d", "-c", &path]);
    wait_until("unbound answers", || {
        let output = net.exec(
            "hub",
            "dig",
            &["@10.77.0.2", "+short", "+tries=1", "+timeout=1", "www.corp.example"],
        );
        String::from_utf8_lossy(&output.stdout).contains("198.51.100.80")
    });
    running
}

#[test]
fn dig_reads_the_zones_both_ways_over_udp_and_tcp() {
    let case = case(&[]);
    assert_eq!(case.short("node-001.rack.example"), ["10.77.0.100"]);
    assert_eq!(case.short("+tcp Node-001-BMC.rack.example"), ["10.78.0.70"]);
    assert_eq!(case.short("-x 10.77.0.100"), ["node-001.rack.example."]);
    assert_eq!(case.short("-x 10.78.0.70"), ["node-001-bmc.rack.example."]);
    assert_eq!(
        case.short("70.64/26.0.78.10.in-addr.arpa PTR"),
        ["node-001-bmc.rack.example."]
    );
    assert_eq!(case.short("node-006.rack.example AAAA"), ["2001:db8:0:6::50"]);
    assert_eq!(case.short("-x 2001:db8:0:6::50"), ["node-006.rack.example."]);
    // Nobody has the next address; a network beside ours is not ours to deny, and there is nobody to ask.
    let none = case.dig("-x 2001:db8:0:6::51");
    assert!(
        none.contains("status: NXDOMAIN")
            && none.contains("flags: qr aa rd;")
            && none.contains("\n6.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa. 15 IN\tSOA"),
        "{none}"
    );
    assert!(case.dig("-x 2001:db8:0:8::50").contains("status: REFUSED"));
    assert_eq!(case.short("ntp.rack.example"), ["rackbar.rack.example.", "10.77.0.1"]);
    assert_eq!(
        case.short("_ceph-mon._tcp.rack.example SRV"),
        ["10 60 6789 node-001.rack.example."]
    );
    let missing = case.dig("nobody.rack.example");
    assert!(
        missing.contains("status: NXDOMAIN") && missing.contains("flags: qr aa rd;"),
        "{missing}"
    );
    assert!(missing.contains("rackbar.rack.example. hostmaster.rack.example. 1000 3600 600 86400 15"));
    let other = case.dig("node-001.rack.example AAAA");
    assert!(
        other.contains("status: NOERROR") && other.contains("ANSWER: 0, AUTHORITY: 1"),
        "{other}"
    );
    // Too long for UDP: dig sees the truncation and asks again over TCP.
    assert!(case.dig("+ignore big.rack.example TXT").contains("flags: qr aa tc rd;"));
    assert!(case.dig("big.rack.example TXT").contains("ANSWER: 1"));
    // Without an upstream, other names are refused at once, and nobody gets a zone as a whole.
    assert!(case.dig("www.example.org").contains("status: REFUSED"));
    assert!(case.dig("rack.example AXFR").contains("Transfer failed"));
    assert!(
        case.dig("+edns=1 +noednsneg node-001.rack.example")
            .contains("status: BADVERS")
    );
    assert_eq!(
        case.handle.status().state,
        "answering for 10 names on 10.77.0.1:53, refusing other names, as no upstream resolver is known"
    );
}

#[test]
fn names_change_while_clients_ask_and_the_serial_rises() {
    let case = case(&[]);
    assert!(case.dig("node-002.rack.example").contains("NXDOMAIN"));
    let zones = site(&[("node-002", [10, 77, 0, 101].into())]).zones(1001);
    case.handle.set_zones(Arc::new(zones));
    wait_until("the new name is there", || {
        case.short("node-002.rack.example") == ["10.77.0.101"]
    });
    assert!(case.dig("node-001.rack.example").contains("NXDOMAIN"));
    assert!(case.short("rack.example SOA")[0].contains(" 1001 "));
    // Other addresses are listened on and left while it runs.
    case.net
        .exec_ok("server", "ip", &["addr", "add", "10.77.0.9/24", "dev", "rack0"]);
    let moved = DnsConfig {
        listen: vec![SocketAddrV4::new([10, 77, 0, 9].into(), 53)],
        ..config(&[])
    };
    case.net.inside("server", || case.handle.reconfigure(moved).unwrap());
    wait_until("the old address is closed", || {
        let old = case.net.exec(
            "client",
            "dig",
            &["@10.77.0.1", "+tries=1", "+timeout=1", "+tcp", "rack.example"],
        );
        !old.status.success()
    });
    let new = case
        .net
        .exec_ok("client", "dig", &["@10.77.0.9", "+short", "node-002.rack.example"]);
    assert_eq!(new.stdout, b"10.77.0.101\n");
}

#[test]
fn other_names_are_forwarded_to_unbound_and_a_dead_upstream_is_passed_over() {
    // The first upstream is an address where nobody is: its question times out.
    let case = case(&["10.77.0.3:53", "10.77.0.2:53"]);
    let _unbound = unbound(&case.net);
    assert_eq!(case.short("www.corp.example"), ["198.51.100.80"]);
    assert!(case.common.metrics.dns_upstream_timeouts.get() >= 1);
    // The name of an address in the network beside ours.
    assert_eq!(case.short("-x 2001:db8:0:8::50"), ["next.corp.example."]);
    let sent = case.common.metrics.dns_forwarded.get();
    // From the cache, also over TCP; the dead one is not asked first again.
    assert_eq!(case.short("+tcp WWW.corp.example"), ["198.51.100.80"]);
    assert_eq!(case.common.metrics.dns_forwarded.get(), sent);
    assert!(case.dig("nobody.corp.example").contains("status: NXDOMAIN"));
    assert_eq!(case.common.metrics.dns_forwarded.get(), sent + 1);
    // Longer than a datagram: asked again over TCP, at the upstream too.
    let fat = case.dig("fat.corp.example TXT");
    assert!(
        fat.contains(";; Truncated, retrying in TCP mode.") && fat.contains("ANSWER: 1"),
        "{fat}"
    );
    // A stranger gets our names, but no recursion.
    case.net
        .exec_ok("client", "ip", &["addr", "add", "192.0.2.9/24", "dev", "c0"]);
    case.net
        .exec_ok("server", "ip", &["route", "add", "192.0.2.0/24", "dev", "rack0"]);
    let refused = case.dig("-b 192.0.2.9 www.corp.example");
    assert!(
        refused.contains("status: REFUSED") && !refused.contains(" ra"),
        "{refused}"
    );
    assert_eq!(case.short("-b 192.0.2.9 node-001.rack.example"), ["10.77.0.100"]);
}

#[test]
fn an_alias_that_leads_out_of_the_site_is_resolved_for_those_who_cannot() {
    let case = case(&["10.77.0.2:5353"]);
    let args = [
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--port=5353",
        "--listen-address=10.77.0.2",
        "--bind-interfaces",
        "--local=/corp.example/",
        "--host-record=www.corp.example,198.51.100.80,300",
        "--cname=deb.corp.example,www.corp.example,300",
    ];
    let dnsmasq = case.net.spawn("hub", "dnsmasq", &args);
    wait_until("dnsmasq answers through us", || {
        case.short("www.corp.example") == ["198.51.100.80"]
    });
    // What the C library does for every program that asks for a host.
    let file = case.net.path("resolv.conf");
    std::fs::write(&file, "nameserver 10.77.0.1\noptions timeout:5 attempts:3\n").unwrap();
    let script = format!("mount --bind {file} /etc/resolv.conf && exec getent ahostsv4 mirror.rack.example");
    let found = case.net.exec("client", "unshare", &["--mount", "sh", "-c", &script]);
    let text = String::from_utf8_lossy(&found.stdout).into_owned();
    assert!(text.contains("198.51.100.80"), "{found:?}");
    let words = |text: String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let answer = words(case.dig("Mirror.rack.example"));
    for part in [
        "status: NOERROR",
        "flags: qr aa rd ra;",
        "ANSWER: 3,",
        "Mirror.rack.example. 60 IN CNAME deb.corp.example. deb.corp.example. ",
        " IN CNAME www.corp.example. www.corp.example. ",
        " IN A 198.51.100.80",
    ] {
        assert!(answer.contains(part), "{part}: {answer}");
    }
    // Over TCP from what is kept, and what it leads to by its own name.
    let sent = case.common.metrics.dns_forwarded.get();
    let whole = ["deb.corp.example.", "www.corp.example.", "198.51.100.80"];
    assert_eq!(case.short("+tcp mirror.rack.example"), whole);
    assert_eq!(case.short("deb.corp.example"), whole[1..]);
    assert_eq!(case.common.metrics.dns_forwarded.get(), sent);
    // Without "recursion desired", the way alone.
    assert_eq!(case.short("+norecurse mirror.rack.example"), whole[..1]);
    // That there is no such name is said of the target.
    let none = words(case.dig("nowhere.rack.example"));
    assert!(
        none.contains("status: NXDOMAIN") && none.contains("IN CNAME nobody.corp.example."),
        "{none}"
    );
    // The upstream is gone: the way is told with the failure.
    drop(dnsmasq);
    let lost = words(case.dig("+timeout=15 mirror.rack.example AAAA"));
    assert!(
        lost.contains("status: SERVFAIL") && lost.contains("IN CNAME deb.corp.example."),
        "{lost}"
    );
}

#[test]
fn signatures_pass_the_forwarder_whole() {
    let case = case(&["10.77.0.2:5353"]);
    // A dnsmasq that says the answer is sound, with a signature record made up for the test.
    let args = [
        "--no-daemon",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--port=5353",
        "--listen-address=10.77.0.2",
        "--bind-interfaces",
        "--host-record=signed.corp.example,198.51.100.81,300",
        "--dns-rr=signed.corp.example,46,00010D0200000E106A000000690000003039047465737400AABBCCDD",
    ];
    let _dnsmasq = case.net.spawn("hub", "dnsmasq", &args);
    wait_until("dnsmasq answers through us", || {
        case.short("signed.corp.example") == ["198.51.100.81"]
    });
    let answer = case.dig("+dnssec +cdflag signed.corp.example TYPE46");
    assert!(
        answer.contains("qr rd ra cd") || answer.contains("qr aa rd ra cd") || answer.contains(" cd"),
        "{answer}"
    );
    assert!(
        answer.contains("RRSIG\tA 13 2 3600") && answer.contains("flags: do; udp: 1232"),
        "{answer}"
    );
}

#[test]
fn a_flood_from_strangers_is_answered_with_less_than_it_sent() {
    let case = case(&[]);
    case.net
        .exec_ok("client", "ip", &["addr", "add", "192.0.2.9/24", "dev", "c0"]);
    case.net
        .exec_ok("server", "ip", &["route", "add", "192.0.2.0/24", "dev", "rack0"]);
    let query = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03big\x04rack\x07example\0\0\x10\0\x01";
    let got = case.net.inside("client", || {
        let socket = std::net::UdpSocket::bind("192.0.2.9:0").unwrap();
        for _ in 0..2000 {
            socket.send_to(query, "10.77.0.1:53").unwrap();
        }
        wait_until("all came", || case.common.metrics.dns_queries.get() >= 2000);
        socket
            .set_read_timeout(Some(std::time::Duration::from_millis(300)))
            .unwrap();
        let mut buffer = [0; 4096];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok()).sum::<usize>()
    });
    assert!(got > 0 && got < 2000 * query.len() / 10, "{got}");
}
