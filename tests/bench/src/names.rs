//! DNS: names of the site and their reverse names, asked for by dnsperf, with 200 questions in flight.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rackbar_dns::{Host, Name, SiteNames};

use crate::net::Net;
use crate::peers::{self, Answers, Peer, Start};
use crate::report::Row;
use crate::tftp::installed;

/// Machines with names.
const HOSTS: u32 = 2_000;

const DOMAIN: &str = "rack.example";

fn address(number: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(u32::from(Ipv4Addr::new(10, 88, 16, 0)) + number)
}

fn reverse(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("{d}.{c}.{b}.{a}.in-addr.arpa")
}

/// What we serve, as the appliance makes it of its machines.
pub(crate) fn site() -> Result<SiteNames> {
    let hosts = (0..HOSTS).map(|number| Host {
        label: format!("node-{number:04}"),
        domain: None,
        addresses: vec![address(number).into()],
    });
    Ok(SiteNames {
        domain: Name::parse(DOMAIN)?,
        server: "rackbar".into(),
        addresses: vec![Ipv4Addr::new(10, 88, 0, 1).into()],
        aliases: Vec::new(),
        networks: vec![(Ipv4Addr::new(10, 88, 0, 0).into(), 16)],
        hosts: hosts.collect(),
        records: Vec::new(),
    })
}

pub(crate) fn measure(net: &Net, seconds: u64, rounds: usize) -> Result<Vec<Row>> {
    ensure!(
        installed("dnsperf"),
        "dnsperf is missing, which asks the questions: `cargo xtask setup bench` installs it"
    );
    let questions = net.path("questions");
    std::fs::write(&questions, self::questions())?;
    let mut starts = vec![Start::ours(net, "dns", "10.88.0.1:53")?];
    if installed("dnsmasq") {
        starts.push(dnsmasq(net)?);
    }
    if installed("unbound") {
        starts.push(unbound(net)?);
    }
    let answers = |at: &str| net.load(|| probe(at)).is_ok();
    let mut peers: Vec<Peer<Answers>> = peers::start(starts, answers)?;
    for peer in &mut peers {
        peer.seen.idle = peer.server.memory_mib();
    }
    peers::take_turns("DNS", &mut peers, rounds, |peer, _| {
        let (server, port) = peer.at.split_once(':').context("a port")?;
        peer.seen.load.measure(&peer.server, || {
            let mut command = net.client_command("dnsperf");
            command.args(["-s", server, "-p", port, "-q", "200", "-l", &seconds.to_string(), "-d"]);
            let output = command.arg(&questions).output().context("running dnsperf")?;
            completed(&String::from_utf8_lossy(&output.stdout))
        })
    })?;
    Ok(peers::rows("DNS", &peers))
}

/// Of four questions two ask for an address, one for a name, and one for a name that is not there every second time.
fn questions() -> String {
    let mut text = String::new();
    for number in 0..HOSTS {
        let other = (number * 7 + 3) % HOSTS;
        let _ = writeln!(text, "node-{number:04}.{DOMAIN} A");
        let _ = writeln!(text, "{} PTR", reverse(address(other)));
        let _ = writeln!(text, "node-{other:04}.{DOMAIN} A");
        let letter = if number % 2 == 0 { "node" } else { "none" };
        let _ = writeln!(text, "{letter}-{number:04}.{DOMAIN} A");
    }
    text
}

/// How many questions were answered, by dnsperf's own word.
fn completed(text: &str) -> Result<f64> {
    let count = |label: &str| {
        let line = text.lines().find_map(|line| line.trim().strip_prefix(label))?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    let done = count("Queries completed:").with_context(|| format!("dnsperf says {text:?}"))?;
    let lost = count("Queries lost:").unwrap_or(0.0);
    ensure!(lost * 100.0 <= done, "{lost} of {done} questions were lost");
    let good = ["NOERROR", "NXDOMAIN"];
    ensure!(
        good.iter().all(|code| text.contains(code)),
        "other answers than expected: {text}"
    );
    Ok(done)
}

/// Asks for one address, and is an error when it does not come.
fn probe(at: &str) -> Result<()> {
    let socket = UdpSocket::bind("10.88.0.2:0")?;
    socket.set_read_timeout(Some(Duration::from_millis(200)))?;
    socket.connect(at)?;
    let mut question = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in ["node-0001", "rack", "example", ""] {
        question.push(u8::try_from(label.len())?);
        question.extend_from_slice(label.as_bytes());
    }
    question.extend_from_slice(&[0, 1, 0, 1]);
    socket.send(&question)?;
    let mut answer = [0; 512];
    let count = socket.recv(&mut answer)?;
    // One answer, no error.
    ensure!(
        count > 12 && answer.get(3..8).is_some_and(|part| part[0] & 15 == 0 && part[4] == 1),
        "no answer yet"
    );
    Ok(())
}

/// dnsmasq with a hosts file; what is not in it is not there.
fn dnsmasq(net: &Net) -> Result<Start> {
    let hosts = net.path("hosts");
    let lines = (0..HOSTS).map(|number| format!("{} node-{number:04}.{DOMAIN}\n", address(number)));
    std::fs::write(&hosts, lines.collect::<String>())?;
    let mut command = net.server_command("dnsmasq");
    command.args([
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--no-resolv",
        "--no-hosts",
        "--user=root",
    ]);
    command.args([
        "--port=5301",
        "--listen-address=10.88.0.1",
        "--bind-interfaces",
        "--pid-file=",
    ]);
    command.arg(format!("--local=/{DOMAIN}/"));
    command.arg(format!("--addn-hosts={}", hosts.display()));
    Ok(Start {
        name: "dnsmasq",
        at: "10.88.0.1:5301",
        command,
    })
}

/// Unbound with local data, one thread as is its default.
fn unbound(net: &Net) -> Result<Start> {
    let configuration = net.path("unbound.conf");
    let mut text = format!(
        "server:\n interface: 10.88.0.1@5302\n access-control: 10.88.0.0/16 allow\n chroot: \"\"\n username: \"\"\n\
         do-daemonize: no\n use-syslog: no\n logfile: \"\"\n pidfile: \"\"\n directory: \"{}\"\n\
         local-zone: \"{DOMAIN}.\" static\n local-zone: \"88.10.in-addr.arpa.\" static\n",
        net.folder().display()
    );
    for number in 0..HOSTS {
        let address = address(number);
        let _ = writeln!(text, " local-data: \"node-{number:04}.{DOMAIN}. 60 IN A {address}\"");
        let _ = writeln!(
            text,
            " local-data: \"{}. 60 IN PTR node-{number:04}.{DOMAIN}.\"",
            reverse(address)
        );
    }
    text.push_str("remote-control:\n control-enable: no\n");
    std::fs::write(&configuration, text)?;
    let mut command = net.server_command("unbound");
    command.args(["-d", "-c"]).arg(&configuration);
    Ok(Start {
        name: "unbound",
        at: "10.88.0.1:5302",
        command,
    })
}
