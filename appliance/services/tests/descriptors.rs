//! Out of file descriptors: who connects waits, and the thread of the service does not spin meanwhile. One test alone in
//! its process, as the limit is the whole process's.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{Sink, wait_until};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use rackbar_dns::Zones;
use rackbar_services::dns::{self, DnsConfig};
use rackbar_services::syslog::{self, LogStore, SyslogConfig};
use rackbar_syslog::Filter;
use socket2::{Domain, Socket, Type};

/// A port of loopback that nobody has.
fn free() -> SocketAddrV4 {
    let socket = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    SocketAddrV4::new(Ipv4Addr::LOCALHOST, socket.local_addr().unwrap().port())
}

/// Processor time of this process.
fn used() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    let all = [usage.user_time(), usage.system_time()];
    all.iter()
        .map(|time| Duration::new(time.tv_sec() as u64, time.tv_usec() as u32 * 1000))
        .sum()
}

/// Connects when no descriptor is left to take the connection; gives the client's end and the processor time that two
/// seconds of waiting for an answer took.
fn wait_in_vain(at: SocketAddrV4, question: &[u8]) -> (TcpStream, Duration) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    // The lowest number that is free is the first that the limit forbids.
    let next = std::os::fd::AsRawFd::as_raw_fd(&File::open("/dev/null").unwrap());
    setrlimit(Resource::RLIMIT_NOFILE, next as u64, hard).unwrap();
    socket.connect(&at.into()).unwrap();
    let mut client = TcpStream::from(socket);
    client.write_all(question).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    let (before, begun) = (used(), Instant::now());
    let heard = client.read(&mut [0; 2]);
    let took = used() - before;
    assert!(
        heard
            .as_ref()
            .is_err_and(|error| matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)),
        "{heard:?} after {:?}",
        begun.elapsed()
    );
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    (client, took)
}

#[test]
fn services_rest_when_there_is_no_descriptor_and_take_who_waited_when_there_is() {
    let (_, common) = Sink::new();
    let local = vec![(Ipv4Addr::LOCALHOST, 8)];
    let at = free();
    let config = DnsConfig {
        listen: vec![at],
        served: local.clone(),
        upstreams: Vec::new(),
    };
    let dns = dns::start(config, Arc::new(Zones::default()), common.clone()).unwrap();
    // An A question for `a.`, in a frame for TCP (RFC 1035 section 4.2.2).
    let question = [0, 19, 0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1];
    let (mut client, took) = wait_in_vain(at, &question);
    assert!(took < Duration::from_millis(500), "DNS used the processor for {took:?}");
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut head = [0; 4];
    client.read_exact(&mut head).unwrap();
    assert_eq!(head[2..], [0, 7]);
    dns.stop();

    let at = free();
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(LogStore::open(folder.path(), 8 << 20).unwrap());
    let config = SyslogConfig {
        listen: vec![at],
        served: local,
        ..SyslogConfig::default()
    };
    let collector = syslog::start(config, store.clone(), common).unwrap();
    let (_client, took) = wait_in_vain(at, b"<13>it waited\n");
    assert!(
        took < Duration::from_millis(500),
        "syslog used the processor for {took:?}"
    );
    let kept = || store.read(&Filter::default(), None, 10).unwrap();
    wait_until("the line that waited", || {
        kept().iter().any(|line| line.text.contains("it waited"))
    });
    collector.stop();
}
