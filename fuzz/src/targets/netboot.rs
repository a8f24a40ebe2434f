//! What machines and strangers send to the network services, and what the loader and the agents say.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rackbar_boot::{BootSpec, MAX_SITE_SCRIPT, SiteScript, SpecFile, fill_key_slot, key_in_slot, pe, verify_manifest};
use rackbar_dhcp::packet::{Message, Packet};
use rackbar_dhcp::{Config, Engine, Input, Interface, InterfaceId, Mode, Network, Output, Range};
use rackbar_messages::{BootManifest, BootReport, FromAgent, SignedManifest, ToAgent};
use rackbar_model::{Digest, MacAddr, Timestamp};
use rackbar_tftp::{FileTable, Limits, Opening, Server, normalise};

use crate::pieces::pieces;

// The services' own parser is private to their crate.
#[allow(dead_code, unused_imports, reason = "only the parser is called")]
#[path = "../../../appliance/services/src/http/request.rs"]
mod request;

const OWN: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

pub(super) fn dhcp_packet(data: &[u8]) {
    let Ok(packet) = Packet::new(data) else { return };
    let _ = (
        packet.message_type(),
        packet.mac(),
        packet.archs().count(),
        packet.size_limit(),
    );
    let _ = (packet.client_id(), packet.vendor_class(), packet.has_user_class("iPXE"));
    for (code, _) in packet.options() {
        let _ = (packet.option(code), packet.sub_options(code).get(1).map(<[u8]>::len));
    }
    // Whatever we were asked, an answer of ours must be a packet.
    let mut reply = Vec::new();
    let _ = Message::reply_to(&packet).encode(packet.size_limit(), &mut reply);
    assert!(Packet::new(&reply).is_ok(), "an answer that is no packet: {reply:02x?}");
}

/// A sequence of datagrams, each with a wait in front, at a server, a proxy, or a listener.
pub(super) fn dhcp_engine(data: &[u8]) {
    let Some((kind, data)) = data.split_first() else { return };
    let port = InterfaceId(1);
    let interface = Interface {
        id: port,
        mac: MacAddr([2, 0, 0, 0, 0, 1]),
    };
    let pool = Range {
        first: Ipv4Addr::new(10, 0, 0, 100),
        last: Ipv4Addr::new(10, 0, 0, 103),
    };
    let mut network = Network::new("rack", Some(interface), OWN, 24, pool);
    network.mode = [Mode::Own, Mode::Proxy, Mode::Auto][usize::from(kind % 3)];
    let config = Config {
        networks: vec![network],
        ..Config::default()
    };
    let mut engine = Engine::new(config, []);
    let (mut now, mut out) = (Timestamp(1_800_000_000_000), Vec::new());
    for piece in pieces(data) {
        let Some((wait, bytes)) = piece.split_first() else {
            continue;
        };
        now = Timestamp(now.0 + u64::from(*wait) * u64::from(*wait) * 10);
        let input = Input::Packet {
            interface: port,
            source: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 68),
            local_port: if wait % 5 == 4 { 4011 } else { 67 },
            bytes,
        };
        engine.handle(now, input, &mut out);
        for output in out.drain(..) {
            if let Output::Send { bytes, .. } = output {
                assert!(Packet::new(&bytes).is_ok(), "the engine sent no packet: {bytes:02x?}");
                engine.recycle(bytes);
            }
        }
        // A deadline that is past already would make the shell turn without end.
        if let Some(due) = engine.deadline().filter(|due| *due <= now) {
            engine.handle(now, Input::Tick, &mut out);
            assert!(
                engine.deadline().is_none_or(|next| next > due),
                "the deadline {due:?} stays after a tick"
            );
            out.clear();
        }
    }
}

pub(super) fn tftp_packet(data: &[u8]) {
    if let Some(name) = normalise(data) {
        let leads_out = name.starts_with('/') || name.split('/').any(|part| part == "..");
        assert!(!leads_out, "{name} leads out");
    }
    let _ = rackbar_tftp::packet::Packet::new(data).map(|packet| format!("{packet:?}"));
}

/// A request, then datagrams to the transfer that it began.
pub(super) fn tftp_server(data: &[u8]) {
    let mut files = FileTable::default();
    files.insert("loader.efi", vec![7; 5000]);
    let client = SocketAddr::from(([10, 0, 0, 9], 2000));
    let mut server = Server::new(Limits::default());
    let mut transfer = None;
    let (mut now, mut out) = (Duration::ZERO, Vec::new());
    for piece in pieces(data) {
        let Some((wait, bytes)) = piece.split_first() else {
            continue;
        };
        now += Duration::from_millis(u64::from(*wait) * 20);
        match &mut transfer {
            None => {
                if let Opening::Begins { transfer: begun, .. } = server.open(now, client, bytes, &files) {
                    transfer.insert(begun).start(now, &mut out);
                }
            }
            Some(transfer) => {
                transfer.handle(now, bytes, &mut out);
                if transfer.deadline().is_some_and(|due| due <= now) {
                    transfer.tick(now, &mut out);
                }
            }
        }
        out.clear();
    }
}

pub(super) fn http_request(data: &[u8]) {
    if let request::Parsed::Whole(_, used) = request::parse(data) {
        assert!(used <= data.len(), "took {used} of {} bytes", data.len());
    }
}

pub(super) fn manifest(data: &[u8]) {
    let believed = verify_manifest(data, &[7; 32], &[9; 16], MacAddr([2, 0, 0, 0, 0, 1]));
    assert!(believed.is_err(), "nobody signed that");
    let _ = postcard::take_from_bytes::<SignedManifest>(data).map(|(signed, _)| format!("{signed:?}"));
    let _ = postcard::take_from_bytes::<BootManifest>(data).map(|(manifest, _)| format!("{manifest:?}"));
}

pub(super) fn image(data: &[u8]) {
    for section in pe::sections(data).into_iter().flatten() {
        let _ = (section.in_file(), section.in_memory());
    }
    let _ = (pe::section(data, ".linux"), key_in_slot(data));
    let mut image = data.to_vec();
    if fill_key_slot(&mut image, &[5; 32]).is_ok() {
        assert_eq!(image.len(), data.len());
    }
}

pub(super) fn messages(data: &[u8]) {
    let _ = rackbar_messages::decode::<FromAgent>(data).map(|message| format!("{message:?}"));
    let _ = rackbar_messages::decode::<ToAgent>(data).map(|message| format!("{message:?}"));
    let _ = rackbar_messages::decode::<BootReport>(data).map(|message| format!("{message:?}"));
    let _ = rackbar_messages::read_frame::<FromAgent, _>(&mut &*data);
}

pub(super) fn site_script(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(script) = SiteScript::new(None, text) else {
        return;
    };
    assert!(text.len() <= MAX_SITE_SCRIPT);
    let Ok(kernel) = SpecFile::new("vmlinuz", 1, Digest([1; 32])) else {
        return;
    };
    let spec = BootSpec {
        kernel,
        initrds: Vec::new(),
        command_line: String::new(),
    };
    let rendered = script.render(&spec, "http://10.0.0.1", MacAddr([2, 0, 0, 0, 0, 1]));
    assert!(rendered.starts_with("#!ipxe\n"), "iPXE would not take it");
}

/// A frame as captures see it. What a TCP segment carries is never kept, whatever its headers say of their lengths.
pub(super) fn boot_frame(data: &[u8]) {
    use rackbar_capture::frame::{Machine, SNAP, kept};
    let kept = kept(data);
    assert!(kept <= data.len().min(SNAP));
    if data.get(12..15) == Some(&[8, 0, 0x45][..]) && data.get(23) == Some(&6) {
        assert!(kept <= 14 + 20 + 60, "beyond the longest header");
    }
    let machine = Machine {
        macs: vec![MacAddr([2, 0, 0, 0, 0, 1])],
        addresses: vec![[10, 0, 0, 9].into()],
    };
    machine.concerned(data);
    let filter = rackbar_capture::Filter {
        tcp: vec![80],
        names: true,
        rest: rackbar_capture::Rest::Of(machine.macs),
    };
    filter.takes(data);
}
