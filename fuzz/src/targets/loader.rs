//! What the UEFI loader reads on a machine: packets the firmware kept, answers of a server, its own image.

use rackbar_loader::command_line::{self, Parts};
use rackbar_loader::device_path::{NetworkPath, partition};
use rackbar_loader::http as loader_http;
use rackbar_loader::medium;
use rackbar_loader::packet::BootPacket;
use rackbar_loader::payload::Payload;
use rackbar_loader::server::Server;

pub(super) fn http(data: &[u8]) {
    if let Ok(Some((_, used))) = loader_http::head(data) {
        assert!(used <= data.len(), "took {used} of {} bytes", data.len());
    }
}

pub(super) fn packet(data: &[u8]) {
    let Some(packet) = BootPacket::parse(data) else { return };
    let _ = Server::from_packets([&packet]);
}

pub(super) fn device_path(data: &[u8]) {
    let _ = (NetworkPath::parse(data), partition(data));
}

pub(super) fn payload(data: &[u8]) {
    if let Ok(Some(payload)) = Payload::find(data) {
        let _ = payload.initrd();
    }
}

pub(super) fn text(data: &[u8]) {
    let servers = medium::servers(data);
    let _ = medium::ranked(&servers, servers.first().copied(), [192, 0, 2, 7].into(), 24);
    let load_options = command_line::load_options_text(data);
    let text = load_options.as_deref().or_else(|| std::str::from_utf8(data).ok());
    let Some(text) = text else { return };
    let _ = (
        command_line::key(text),
        Server::from_url(text),
        loader_http::is_path(text),
    );
    let parts = Parts {
        base: "rackbar.role=node",
        load_options: Some(text),
        signed: true,
        emulated: false,
    };
    if let Ok(line) = command_line::assemble(&parts) {
        let given = line
            .split_whitespace()
            .filter(|word| word.starts_with("rackbar."))
            .count();
        assert_eq!(
            given, 1,
            "the boot entry smuggled a word of ours into a signed line: {line}"
        );
    }
}
