//! Clients and what they really do, packet by packet.

#![allow(clippy::unwrap_used, reason = "a test's words may")]

use std::net::SocketAddr;
use std::time::Duration;

use rackbar_model::EventKind;
use rackbar_tftp::packet::{ack, read_request};
use rackbar_tftp::{FileTable, Limits, Opening, Outcome, Output, Server, Transfer, TransferId};

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn client(port: u16) -> SocketAddr {
    ([10, 0, 0, 9], port).into()
}

fn files() -> FileTable {
    let mut files = FileTable::default();
    files.insert("loader.efi", vec![7u8; 10_000]);
    files
}

fn begin(server: &mut Server, at: Duration, port: u16, request: &[u8]) -> (Box<Transfer>, Option<TransferId>) {
    match server.open(at, client(port), request, &files()) {
        Opening::Begins { transfer, replaces, .. } => (transfer, replaces),
        other => panic!("{other:?}"),
    }
}

/// What the transfer sent, in short: the OACK's text, first and last block of windows, how it ended.
fn said(out: &mut Vec<Output>) -> Vec<String> {
    out.drain(..)
        .map(|output| match output {
            Output::Send(bytes) => String::from_utf8_lossy(&bytes[2..])
                .replace('\0', " ")
                .trim()
                .to_owned(),
            Output::Blocks(w) => format!("{}-{}", w.first, w.first + u64::from(w.count) - 1),
            Output::Ended { outcome, .. } => format!("{outcome:?}"),
        })
        .collect()
}

fn refusal(request: &[u8]) -> (Option<Vec<u8>>, Option<EventKind>) {
    match Server::new(Limits::default()).open(ms(0), client(1), request, &files()) {
        Opening::Refused { reply, event } => (reply, event),
        other => panic!("{other:?}"),
    }
}

const EDK2: [(&str, &str); 3] = [("tsize", "0"), ("blksize", "1468"), ("windowsize", "4")];

#[test]
fn edk2_asks_for_the_size_gives_up_and_comes_again() {
    let (mut server, mut out) = (Server::new(Limits::default()), Vec::new());
    let (mut probe, _) = begin(&mut server, ms(0), 2000, &read_request("loader.efi", &EDK2));
    probe.start(ms(0), &mut out);
    assert_eq!(said(&mut out), ["tsize 10000 blksize 1468 windowsize 4"]);
    probe.handle(ms(1), b"\0\x05\0\x08User aborted the transfer\0", &mut out);
    assert!(matches!(
        &out[..],
        [Output::Ended {
            outcome: Outcome::SizeOnly,
            event: EventKind::Note { .. }
        }]
    ));
    server.close(probe.client(), probe.id());
    assert_eq!(server.running(), 0);
    out.clear();

    let (mut fetch, replaces) = begin(&mut server, ms(3), 2000, &read_request("loader.efi", &EDK2));
    assert_eq!(replaces, None);
    fetch.start(ms(3), &mut out);
    fetch.handle(ms(4), &ack(0), &mut out);
    fetch.handle(ms(5), &ack(4), &mut out);
    fetch.handle(ms(6), &ack(7), &mut out);
    assert_eq!(
        said(&mut out),
        ["tsize 10000 blksize 1468 windowsize 4", "1-4", "5-7", "Complete"]
    );
}

#[test]
fn an_old_rom_without_options_gets_blocks_of_512_in_lock_step() {
    let (mut server, mut out) = (Server::new(Limits::default()), Vec::new());
    let (mut transfer, _) = begin(&mut server, ms(0), 2070, b"\0\x01\\loader.efi\0OCTET\0");
    transfer.start(ms(0), &mut out);
    transfer.handle(ms(1), &ack(1), &mut out);
    assert_eq!(said(&mut out), ["1-1", "2-2"]);
}

#[test]
fn a_late_duplicate_ack_is_not_answered() {
    let (mut server, mut out) = (Server::new(Limits::default()), Vec::new());
    let (mut transfer, _) = begin(&mut server, ms(0), 2070, &read_request("loader.efi", &[]));
    transfer.start(ms(0), &mut out);
    transfer.handle(ms(1), &ack(1), &mut out);
    assert_eq!(said(&mut out), ["1-1", "2-2"]);
    transfer.handle(ms(2), &ack(1), &mut out);
    transfer.handle(ms(2), &ack(0), &mut out);
    transfer.handle(ms(2), &ack(9), &mut out);
    assert_eq!(said(&mut out), Vec::<String>::new());
    let due = transfer.deadline().unwrap();
    assert!(due >= ms(11), "{due:?}");
    transfer.tick(due, &mut out);
    assert_eq!(said(&mut out), ["2-2"]);
}

#[test]
fn a_window_starts_again_behind_the_block_that_was_lost() {
    let (mut server, mut out) = (Server::new(Limits::default()), Vec::new());
    let (mut transfer, _) = begin(
        &mut server,
        ms(0),
        2070,
        &read_request("loader.efi", &[("windowsize", "4")]),
    );
    transfer.start(ms(0), &mut out);
    transfer.handle(ms(1), &ack(0), &mut out);
    transfer.handle(ms(2), &ack(2), &mut out);
    transfer.handle(ms(3), &ack(6), &mut out);
    assert_eq!(said(&mut out), ["windowsize 4", "1-4", "3-6", "7-10"]);
}

#[test]
fn a_forged_source_hears_little() {
    let (mut server, mut out) = (Server::new(Limits::default()), Vec::new());
    let (mut transfer, _) = begin(&mut server, ms(0), 2070, &read_request("loader.efi", &[]));
    transfer.start(ms(0), &mut out);
    while let Some(due) = transfer.deadline() {
        transfer.tick(due, &mut out);
    }
    assert_eq!(said(&mut out), ["1-1", "1-1", "1-1", "1-1", "1-1", "Failed"]);
}

#[test]
fn a_request_repeated_is_one_transfer_and_a_new_one_on_the_same_port_replaces_it() {
    let mut server = Server::new(Limits::default());
    let request = read_request("loader.efi", &[]);
    let (first, _) = begin(&mut server, ms(0), 2070, &request);
    assert!(matches!(
        server.open(ms(900), client(2070), &request, &files()),
        Opening::Repeated
    ));
    let (second, replaces) = begin(&mut server, ms(1000), 2070, &read_request("loader.efi", &EDK2));
    assert_eq!((replaces, server.running()), (Some(first.id()), 1));
    server.close(first.client(), first.id());
    assert_eq!(server.running(), 1, "the old one's end must not close the new one");
    server.close(second.client(), second.id());
    assert_eq!(server.running(), 0);
}

#[test]
fn too_many_transfers_of_one_client_are_met_with_silence_and_of_all_may_wait() {
    let mut server = Server::new(Limits {
        transfers: 3,
        per_client: 2,
        ..Limits::default()
    });
    let request = read_request("loader.efi", &[]);
    let _two = [
        begin(&mut server, ms(0), 1, &request),
        begin(&mut server, ms(0), 2, &request),
    ];
    let third = server.open(ms(0), client(3), &request, &files());
    assert!(
        matches!(
            third,
            Opening::Refused {
                reply: None,
                event: Some(_)
            }
        ),
        "{third:?}"
    );
    let other: SocketAddr = ([10, 0, 0, 10], 1).into();
    assert!(matches!(
        server.open(ms(0), other, &request, &files()),
        Opening::Begins { .. }
    ));
    let other: SocketAddr = ([10, 0, 0, 11], 1).into();
    assert!(matches!(
        server.open(ms(0), other, &request, &files()),
        Opening::Busy { .. }
    ));
    assert!(server.is_full());
}

#[test]
fn refusals_say_why() {
    let (reply, event) = refusal(b"\0\x02loader.efi\0octet\0");
    assert_eq!(reply.unwrap()[..4], [0, 5, 0, 2]);
    assert!(event.is_some());
    assert_eq!(refusal(b"\0\x01nothing\0octet\0").0.unwrap()[..4], [0, 5, 0, 1]);
    assert_eq!(refusal(b"\0\x01../loader.efi\0octet\0").0.unwrap()[..4], [0, 5, 0, 1]);
    assert_eq!(refusal(b"\0\x01loader.efi\0netascii\0").0.unwrap()[..4], [0, 5, 0, 0]);
    assert_eq!(refusal(&ack(3)), (None, None));
    assert_eq!(refusal(b"\0\x05\0\0x\0"), (None, None));
}

#[test]
fn options_are_taken_lowered_or_left_out() {
    let (mut server, mut out) = (Server::new(Limits::default()), Vec::new());
    let options = [
        ("blksize", "65464"),
        ("multicast", ""),
        ("windowsize", "0"),
        ("TIMEOUT", "2"),
        ("blksize", "8"),
        ("tsize", "x"),
    ];
    let (mut transfer, _) = begin(&mut server, ms(0), 1, &read_request("loader.efi", &options));
    transfer.start(ms(0), &mut out);
    assert_eq!(said(&mut out), ["blksize 1468 timeout 2"]);
}
