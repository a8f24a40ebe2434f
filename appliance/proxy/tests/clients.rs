//! Who may ask, how often at a time, and how slowly.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use common::*;
use rackbar_proxy::Settings;

/// An address of this machine that is none of the loopback; no packet leaves it.
fn own_address() -> Option<std::net::IpAddr> {
    let all = nix::ifaddrs::getifaddrs().unwrap();
    let addresses = all.filter_map(|one| Some(std::net::IpAddr::from(one.address?.as_sockaddr_in()?.ip())));
    addresses.into_iter().find(|address| !address.is_loopback())
}

#[test]
fn whoever_is_in_no_network_that_is_served_is_told_so_and_led_nowhere() {
    let Some(own) = own_address() else {
        eprintln!("skipped: this machine has no address but those of loopback");
        return;
    };
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.put("/debian/a", doc(b"a".to_vec()));
    let strict = |served: &str| Settings {
        listen: vec![format!("{own}:0").parse().unwrap()],
        served: Some(vec![served.parse().unwrap()]),
        ..settings(&[&origin])
    };
    let near = under(&folder.path().join("near"), strict(&format!("{own}/32")));
    assert_eq!(near.curl(&[], &origin.url("/debian/a")).0, 200);
    let far = under(&folder.path().join("far"), strict("198.51.100.9/32"));
    for target in [
        origin.url("/debian/a"),
        format!("http://{}/mirror/debian/a", far.address),
    ] {
        let (status, _, text) = far.curl(&[], &target);
        let text = String::from_utf8(text).unwrap();
        assert!(
            status == 403 && text.contains("in no network that this proxy serves"),
            "{status} {text}"
        );
    }
    let tunnel = far.raw(&format!("CONNECT {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.address));
    assert!(
        tunnel.starts_with(b"HTTP/1.1 403"),
        "{}",
        String::from_utf8_lossy(&tunnel)
    );
    assert_eq!(origin.requests("/debian/a"), 1);
}

#[test]
fn whoever_is_not_served_has_few_connections_to_be_told_so_by() {
    let Some(own) = own_address() else {
        eprintln!("skipped: this machine has no address but those of loopback");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let strict = Settings {
        listen: vec![format!("{own}:0").parse().unwrap()],
        served: Some(Vec::new()),
        mirrors: Vec::new(),
        ..settings(&[])
    };
    let far = under(folder.path(), strict);
    let refused = || {
        let all = far.handle.proxy().samples();
        let one = all.iter().find(|one| one.name == "rackbar_proxy_refused_total");
        one.unwrap().value
    };
    // None of them asks for anything: one that is counted had no place.
    let held: Vec<_> = (0..20).map(|_| TcpStream::connect(far.address).unwrap()).collect();
    wait("one is refused a place", || refused() > 0);
    drop(held);
}

#[test]
fn loopback_is_served_whatever_networks_are() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    origin.put("/debian/a", doc(b"a".to_vec()));
    let served = Settings {
        served: Some(Vec::new()),
        ..settings(&[&origin])
    };
    assert_eq!(under(folder.path(), served).curl(&[], &origin.url("/debian/a")).0, 200);
}

#[test]
fn a_request_that_comes_byte_by_byte_is_not_waited_for_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let slow = Settings {
        head_within: Duration::from_secs(2),
        ..settings(&[])
    };
    let under = under(
        folder.path(),
        Settings {
            mirrors: Vec::new(),
            ..slow
        },
    );
    let mut stream = TcpStream::connect(under.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    let began = Instant::now();
    loop {
        assert!(began.elapsed() < Duration::from_secs(60), "it is still waited for");
        match stream.read(&mut [0]) {
            Ok(count) => break assert_eq!(count, 0, "half a request was answered"),
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
                ) => {}
            Err(_) => break,
        }
        if stream.write_all(b"x").is_err() {
            break;
        }
    }
}

#[test]
fn one_client_has_no_more_connections_than_one_may_have() {
    let folder = tempfile::tempdir().unwrap();
    let few = Settings {
        connections_each: 3,
        mirrors: Vec::new(),
        ..settings(&[])
    };
    let under = under(folder.path(), few);
    let open = || {
        let mut stream = TcpStream::connect(under.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n");
        let mut some = [0; 12];
        let answered = sent.is_ok() && stream.read_exact(&mut some).is_ok() && some == *b"HTTP/1.1 400";
        (stream, answered)
    };
    let held: Vec<_> = (0..3).map(|_| open()).collect();
    assert!(held.iter().all(|(_, answered)| *answered));
    assert!(!open().1, "a fourth was served");
    drop(held);
    wait("there is room again", || open().1);
}
