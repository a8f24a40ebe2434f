//! The text beside a loader that came from a medium: where its appliance is.
//!
//! A BMC's virtual drive holds a disc that the appliance made ([`rackbar_boot::MEDIUM_FILE`] beside the program). The machine's own network may
//! have a DHCP server that knows nothing of us, so the disc says it: one URL a line, each of an address the appliance has
//! on a network of the rack. What is fetched from there is verified by signature, as always.

use alloc::vec::Vec;
use core::net::Ipv4Addr;

use crate::server::Server;

/// Most servers taken: each costs time when it does not answer.
const MOST: usize = 16;

/// The boot servers a text names, in its order. Empty lines, lines that begin with `#` and those that are no URL of an
/// IPv4 address are passed over.
pub fn servers(text: &[u8]) -> Vec<Server> {
    let text = core::str::from_utf8(text).unwrap_or_default();
    let mut servers = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Ok(server) = Server::from_url(line)
            && !servers.contains(&server)
            && servers.len() < MOST
        {
            servers.push(server);
        }
    }
    servers
}

/// Servers to try from `address/prefix`, best first: those of the medium on the same network, what DHCP or the firmware
/// said, the others of the medium.
pub fn ranked(medium: &[Server], said: impl IntoIterator<Item = Server>, address: Ipv4Addr, prefix: u8) -> Vec<Server> {
    let mask = u32::MAX
        .checked_shl(32u32.saturating_sub(u32::from(prefix)))
        .unwrap_or(0);
    let near = |server: &&Server| server.address.to_bits() & mask == address.to_bits() & mask;
    let mut ranked: Vec<Server> = Vec::new();
    let all = medium
        .iter()
        .filter(near)
        .copied()
        .chain(said)
        .chain(medium.iter().copied());
    for server in all {
        if !ranked.contains(&server) {
            ranked.push(server);
        }
    }
    ranked
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn words(servers: &[Server]) -> Vec<alloc::string::String> {
        servers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_line_is_a_server_and_anything_else_is_passed_over() {
        let text = b"# written by the appliance\r\nhttp://192.0.2.1\r\n\r\nrubbish\nhttp://198.51.100.1:8080/x\nhttp://192.0.2.1\n";
        assert_eq!(words(&servers(text)), ["http://192.0.2.1", "http://198.51.100.1:8080"]);
        assert!(servers(b"\xff\xfe").is_empty());
    }

    #[test]
    fn the_own_network_goes_first_and_strangers_before_far_ones() {
        let medium = servers(b"http://192.0.2.1\nhttp://198.51.100.1\n");
        let said = servers(b"http://203.0.113.9\nhttp://192.0.2.1\n");
        let from = |address: [u8; 4], prefix| words(&ranked(&medium, said.clone(), address.into(), prefix));
        assert_eq!(
            from([198, 51, 100, 7], 24),
            ["http://198.51.100.1", "http://203.0.113.9", "http://192.0.2.1"]
        );
        assert_eq!(
            from([10, 0, 0, 7], 8),
            ["http://203.0.113.9", "http://192.0.2.1", "http://198.51.100.1"]
        );
        assert_eq!(from([10, 0, 0, 7], 0).len(), 3);
        assert_eq!(words(&ranked(&[], said, [10, 0, 0, 7].into(), 99)).len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn hostile_texts_never_panic(bytes: Vec<u8>, address: u32, prefix: u8) {
            let found = servers(&bytes);
            let _ = ranked(&found, found.clone(), address.into(), prefix);
        }
    }
}
