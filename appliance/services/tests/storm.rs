//! A storm of malformed TFTP requests: what it may cost in memory, and that others are served in it. Alone in its program,
//! whose memory is then the server's.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]
#![allow(dead_code, reason = "the other tests' words are here too")]

mod common;

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use common::netns::Net;
use common::storm::{Storm, mutate, resident_kib};
use common::{Sink, wait_until};
use rackbar_artifacts::Artifacts;
use rackbar_model::EventKind;
use rackbar_services::tftp::{TftpConfig, TftpLimits, start};

const PACKETS: u64 = 100_000;

#[test]
fn machines_are_served_in_a_storm_of_malformed_requests_which_costs_little_memory() {
    let net = Net::new();
    net.exec_ok("client", "ip", &["addr", "add", "10.77.0.90/24", "dev", "c0"]);
    let content: Vec<u8> = (0..174_000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
        .collect();
    let artifacts = Artifacts::new();
    artifacts.add_bytes("loader.efi", content.clone()).unwrap();
    let config = TftpConfig {
        listen: vec!["0.0.0.0:69".parse().unwrap()],
        artifacts: Arc::new(artifacts),
        names: vec!["loader.efi".into()],
        limits: TftpLimits::default(),
    };
    let (sink, common) = Sink::new();
    let handle = net.inside("server", || start(config, common.clone()).unwrap());
    let out = net.path("out");
    let served = || {
        let args = ["-s", "-m", "120", "-o", &out, "tftp://10.77.0.1/loader.efi"];
        net.exec_ok("client", "curl", &args);
        assert!(std::fs::read(&out).unwrap() == content);
    };
    served();
    let (before, began) = (resident_kib(), Instant::now());
    let sent = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let storm = Storm::default();
        let (blows, sent, net) = (storm.blows(), &sent, &net);
        scope.spawn(move || {
            net.inside("hub", || {
                // Many ports: a request from a port that has a transfer takes its place.
                let sockets: Vec<UdpSocket> = (0..64).map(|_| UdpSocket::bind("10.77.0.2:0").unwrap()).collect();
                let template = b"\0\x01loader.efi\0octet\0blksize\x001468\0tsize\x000\0windowsize\x004\0";
                let mut seed = 0x0dd_ba11_u64;
                for socket in sockets.iter().cycle().take_while(|_| blows.go_on()) {
                    // A full queue on the way is part of a storm.
                    let _ = socket.send_to(&mutate(&mut seed, template, 6, 1), "10.77.0.1:69");
                    sent.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        wait_until("the storm blows", || sent.load(Ordering::Relaxed) > 1000);
        for _ in 0..5 {
            served();
        }
        wait_until("enough of it arrived", || {
            sent.load(Ordering::Relaxed) >= PACKETS && common.metrics.tftp_refused.get() > PACKETS / 10
        });
        // Eight transfers of the storm's address, and one whose last acknowledgement lies behind the storm.
        let running = common.metrics.tftp_transfers.get();
        assert!(running <= 9, "{running} transfers at once");
    });
    let grown = resident_kib().saturating_sub(before);
    println!("{} packets, {grown} KiB more", sent.load(Ordering::Relaxed));
    // Of requests and refusals so many a second are told, in any second that was begun.
    let most = (1024 + 32) * (began.elapsed().as_secs() as usize + 2);
    let told = sink.count(|kind| matches!(kind, EventKind::TftpFailed { .. } | EventKind::TftpRequest { .. }));
    assert!(told <= most, "{told} events: the journal is filled");
    // What is told this test remembers, 1 KiB each at most.
    assert!(grown < (16 << 10) + told as u64, "{grown} KiB more after the storm");
    wait_until("its transfers ended", || common.metrics.tftp_transfers.get() == 0);
    handle.stop();
}
