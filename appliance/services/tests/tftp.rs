//! The TFTP server against Debian's clients, in network namespaces.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

use common::netns::Net;
use common::{DEADLINE, Sink, wait_until};
use rackbar_artifacts::Artifacts;
use rackbar_model::EventKind;
use rackbar_services::Common;
use rackbar_services::tftp::{TftpConfig, TftpHandle, TftpLimits, start};

/// More blocks of 512 bytes than block numbers: 65536 * 512 is 32 MiB.
const LARGE: usize = (33 << 20) + 77;

struct Service {
    net: Net,
    handle: TftpHandle,
    config: TftpConfig,
    sink: Arc<Sink>,
    common: Common,
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect()
}

fn serve() -> Service {
    let net = Net::new();
    net.exec_ok("client", "ip", &["addr", "add", "10.77.0.90/24", "dev", "c0"]);
    let artifacts = Artifacts::new();
    artifacts.add_bytes("loader.efi", pattern(174_000)).unwrap();
    // A file that fills its last block ends with an empty one.
    artifacts.add_bytes("even.bin", pattern(512 * 20)).unwrap();
    let large = net.folder.path().join("large");
    std::fs::write(&large, pattern(LARGE)).unwrap();
    artifacts.add_file("large.bin", &large).unwrap();
    artifacts.add_bytes("secret", pattern(10)).unwrap();
    let config = TftpConfig {
        listen: vec!["0.0.0.0:69".parse().unwrap()],
        artifacts: Arc::new(artifacts),
        names: ["loader.efi", "even.bin", "large.bin"].map(str::to_owned).to_vec(),
        limits: TftpLimits::default(),
    };
    let (sink, common) = Sink::new();
    let handle = net.inside("server", || start(config.clone(), common.clone()).unwrap());
    Service {
        net,
        handle,
        config,
        sink,
        common,
    }
}

impl Service {
    fn atftp(&self, name: &str, options: &[&str]) -> std::process::Output {
        let out = self.net.path("out");
        let _ = std::fs::remove_file(&out);
        let options = options.iter().flat_map(|option| ["--option", option]);
        let args: Vec<&str> = ["--get", "-r", name, "-l", &out]
            .into_iter()
            .chain(options)
            .chain(["10.77.0.1"])
            .collect();
        self.net.exec("client", "atftp", &args)
    }

    fn got(&self) -> Vec<u8> {
        std::fs::read(self.net.path("out")).unwrap()
    }
}

#[test]
fn tftp_hpa_and_atftp_get_files_with_every_option() {
    let service = serve();
    let out = service.net.path("hpa");
    service.net.exec_ok(
        "client",
        "tftp",
        &["-m", "binary", "10.77.0.1", "-c", "get", "/loader.efi", &out],
    );
    assert_eq!(std::fs::read(&out).unwrap(), pattern(174_000));
    for options in [
        &[][..],
        &["blksize 1468"],
        &["blksize 1468", "windowsize 4"],
        &["windowsize 64", "tsize 0", "timeout 1"],
    ] {
        for (name, length) in [("loader.efi", 174_000), ("even.bin", 512 * 20)] {
            let output = service.atftp(name, options);
            assert!(output.status.success(), "{options:?}: {output:?}");
            assert!(service.got() == pattern(length), "{name} {options:?}");
        }
    }
    let request = service
        .sink
        .wait_for("a request with a window", |mac, kind| match kind {
            EventKind::TftpRequest {
                block_size: 1468,
                window_size: 4,
                client,
                ..
            } => Some((mac, *client)),
            _ => None,
        });
    assert_eq!(request, (Some(service.net.client_mac()), [10, 77, 0, 90].into()));
    wait_until("no transfer is left", || {
        service.common.metrics.tftp_transfers.get() == 0
    });
    let done = service.sink.count(|kind| matches!(kind, EventKind::TftpDone { .. }));
    assert_eq!(done as u64, service.common.metrics.tftp_done.get());
    service.handle.stop();
}

#[test]
fn nobody_is_answered_at_an_address_on_an_uplink() {
    let service = serve();
    service
        .net
        .exec_ok("server", "ip", &["addr", "add", "10.77.0.3/24", "dev", "rack0"]);
    service.common.outside.set(vec!["10.77.0.3".parse().unwrap()]);
    let socket = service
        .net
        .inside("client", || UdpSocket::bind(("10.77.0.90", 0)).unwrap());
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    // One thread takes requests in the order in which they came: an answer to the first one would be there first.
    for ours in ["10.77.0.3:69", "10.77.0.1:69"] {
        socket.send_to(b"\0\x01nobody\0octet\0", ours).unwrap();
    }
    let (_, from) = socket.recv_from(&mut [0; 600]).unwrap();
    assert_eq!(from.ip().to_string(), "10.77.0.1");
    service.handle.stop();
}

#[test]
fn machines_beyond_the_limit_of_transfers_wait_and_all_get_through() {
    let service = serve();
    let limits = TftpLimits {
        transfers: 3,
        per_client: 64,
        ..TftpLimits::default()
    };
    let config = TftpConfig {
        limits,
        ..service.config.clone()
    };
    service
        .net
        .inside("server", || service.handle.reconfigure(config))
        .unwrap();
    // Three that ask and then say nothing have all places.
    let holders = service.net.inside("client", || {
        [(); 3].map(|()| {
            let socket = UdpSocket::bind("10.77.0.90:0").unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket.send_to(b"\0\x01loader.efi\0octet\0", "10.77.0.1:69").unwrap();
            let (_, from) = socket.recv_from(&mut [0; 1024]).unwrap();
            (socket, from)
        })
    });
    let outs: Vec<String> = (0..6).map(|number| service.net.path(&format!("out{number}"))).collect();
    std::thread::scope(|scope| {
        let service = &service;
        for out in &outs {
            scope.spawn(move || {
                // Without options: atftp gives up when it hears the answer to them twice.
                let args = ["--get", "-r", "loader.efi", "-l", out, "10.77.0.1"];
                let output = service.net.exec("client", "atftp", &args);
                assert!(output.status.success(), "{output:?}");
                assert!(std::fs::read(out).unwrap() == pattern(174_000));
            });
        }
        // Who looks sees how full it is, and who waits, in turn. One that asks again is told nothing again, so that the number of
        // refusals alone says little.
        let metrics = &service.common.metrics;
        wait_until("all six wait", || {
            metrics.tftp_waiting.get() == 6 && service.common.busy.waiting().len() == 6
        });
        assert!(metrics.tftp_refused.get() >= 6);
        assert_eq!(metrics.tftp_done.get(), 0);
        let places = [metrics.tftp_transfers.get(), metrics.tftp_places.get()];
        assert_eq!(places, [3, 3]);
        let waiting = service.common.busy.waiting();
        assert!(
            waiting
                .iter()
                .all(|one| one.client.ip() == std::net::IpAddr::from([10, 77, 0, 90]))
        );
        assert!(waiting.windows(2).all(|pair| pair[0].since >= pair[1].since));
        for (socket, from) in holders {
            socket.send_to(b"\0\x05\0\0enough\0", from).unwrap();
        }
    });
    wait_until("nobody waits", || {
        service.common.metrics.tftp_waiting.get() == 0 && service.common.busy.waiting().is_empty()
    });
}

#[test]
fn a_place_that_becomes_free_goes_to_who_asked_first() {
    let service = serve();
    let limits = TftpLimits {
        transfers: 1,
        ..TftpLimits::default()
    };
    let config = TftpConfig {
        limits,
        ..service.config.clone()
    };
    service
        .net
        .inside("server", || service.handle.reconfigure(config))
        .unwrap();
    let [holder, first, second] = service.net.inside("client", || {
        [(); 3].map(|()| {
            let socket = UdpSocket::bind("10.77.0.90:0").unwrap();
            socket.set_read_timeout(Some(DEADLINE)).unwrap();
            socket
        })
    });
    let ask = |socket: &UdpSocket| socket.send_to(b"\0\x01loader.efi\0octet\0", "10.77.0.1:69").unwrap();
    let heard = |socket: &UdpSocket| {
        let mut block = [0; 1024];
        let (count, from) = socket.recv_from(&mut block).unwrap();
        assert_eq!((count, &block[..4]), (516, &[0, 3, 0, 1][..]));
        from
    };
    ask(&holder);
    let mut from = heard(&holder);
    for (number, waiting) in [(1, &first), (2, &second)] {
        ask(waiting);
        wait_until("it waits", || service.common.metrics.tftp_refused.get() == number);
    }
    // Who repeats more often is not served sooner.
    for _ in 0..20 {
        ask(&second);
    }
    let abort = b"\0\x05\0\0enough\0";
    holder.send_to(abort, from).unwrap();
    from = heard(&first);
    second.set_nonblocking(true).unwrap();
    assert!(second.recv_from(&mut [0; 1024]).is_err(), "it is not its turn");
    second.set_nonblocking(false).unwrap();
    first.send_to(abort, from).unwrap();
    heard(&second);
    assert_eq!(service.common.metrics.tftp_refused.get(), 2, "each was told of once");
}

#[test]
fn block_numbers_go_round_and_large_files_come_from_disk() {
    let service = serve();
    for options in [&["blksize 512"][..], &["windowsize 32"]] {
        let output = service.atftp("large.bin", options);
        assert!(output.status.success(), "{output:?}");
        let (got, wanted) = (service.got(), pattern(LARGE));
        let differs = got.iter().zip(&wanted).position(|(a, b)| a != b);
        assert!(
            got == wanted,
            "{options:?}: {} of {LARGE} octets, first difference at {differs:?}",
            got.len()
        );
    }
}

#[test]
fn names_outside_the_table_are_refused_and_told() {
    let service = serve();
    for name in ["secret", "../../../etc/passwd", "/etc/passwd", "nosuch"] {
        service.atftp(name, &[]);
        assert!(
            std::fs::read(service.net.path("out")).map_or(0, |content| content.len()) == 0,
            "{name}"
        );
    }
    service.sink.wait_for("the refusal", |_, kind| match kind {
        EventKind::TftpFailed { file, .. } if file == "secret" => Some(()),
        _ => None,
    });
}

#[test]
fn a_client_that_loses_packets_is_sent_again_quickly_and_only_once() {
    let service = serve();
    service.net.inside("client", || {
        let socket = UdpSocket::bind("10.77.0.90:0").unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
            .send_to(b"\0\x01even.bin\0octet\0", (Ipv4Addr::new(10, 77, 0, 1), 69))
            .unwrap();
        let mut buffer = [0; 600];
        let (mut content, mut wanted) = (Vec::new(), 1u16);
        loop {
            let (count, from) = socket.recv_from(&mut buffer).unwrap();
            let block = u16::from_be_bytes([buffer[2], buffer[3]]);
            assert_eq!(buffer[..2], [0, 3]);
            if block != wanted {
                continue;
            }
            if block % 5 == 0 && content.len() == usize::from(block - 1) * 512 {
                // As if the first copy was lost: wait for the repetition, then acknowledge twice.
                let (again, _) = socket.recv_from(&mut buffer).unwrap();
                assert_eq!((again, u16::from_be_bytes([buffer[2], buffer[3]])), (count, block));
                socket.send_to(&[0, 4, buffer[2], buffer[3]], from).unwrap();
            }
            content.extend_from_slice(&buffer[4..count]);
            socket.send_to(&[0, 4, buffer[2], buffer[3]], from).unwrap();
            if count < 516 {
                break;
            }
            wanted += 1;
        }
        assert_eq!(content, pattern(512 * 20));
    });
    let (resent, millis) = service.sink.wait_for("the end", |_, kind| match kind {
        EventKind::TftpDone { resent, millis, .. } => Some((*resent, *millis)),
        _ => None,
    });
    assert!((4..=8).contains(&resent), "{resent} blocks sent again");
    assert!(millis < 3000, "{millis} ms");
}

#[test]
fn names_and_addresses_change_while_it_runs() {
    let service = serve();
    let other: SocketAddr = "10.77.0.1:69".parse().unwrap();
    let config = TftpConfig {
        listen: vec![other],
        names: vec!["secret".into()],
        ..service.config.clone()
    };
    // Both sockets on port 69 cannot be open at once: first close the one on all addresses.
    service
        .handle
        .reconfigure(TftpConfig {
            listen: Vec::new(),
            ..config.clone()
        })
        .unwrap();
    assert!(service.handle.status().state.starts_with("listening nowhere"));
    wait_until("the port is free", || {
        service
            .net
            .inside("server", || service.handle.reconfigure(config.clone()).is_ok())
    });
    let output = service.atftp("secret", &[]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(service.got(), pattern(10));
}
