//! Reading DHCPv4 packets that the firmware kept or that our own client got (RFC 2131 section 2, RFC 2132).

use alloc::string::String;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use rackbar_model::MacAddr;

/// Offsets of the fixed part (RFC 2131 figure 1).
mod at {
    pub(super) const HARDWARE_LENGTH: usize = 2;
    pub(super) const YOUR_ADDRESS: usize = 16;
    pub(super) const NEXT_SERVER: usize = 20;
    pub(super) const HARDWARE: usize = 28;
    pub(super) const SERVER_NAME: usize = 44;
    pub(super) const FILE: usize = 108;
    pub(super) const COOKIE: usize = 236;
    pub(super) const OPTIONS: usize = 240;
}

/// What the loader wants to know of a DHCP packet.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootPacket {
    /// `yiaddr`: the client's address; unspecified in a proxy's offer.
    pub your_address: Ipv4Addr,
    /// `siaddr`.
    pub next_server: Ipv4Addr,
    /// `chaddr`.
    pub mac: MacAddr,
    /// Option 1 as the length of a prefix.
    pub prefix: Option<u8>,
    /// First address of option 3.
    pub router: Option<Ipv4Addr>,
    /// Option 54.
    pub server_id: Option<Ipv4Addr>,
    /// Option 67, else the field `file`.
    pub boot_file: Option<String>,
}

impl Default for BootPacket {
    fn default() -> Self {
        Self {
            your_address: Ipv4Addr::UNSPECIFIED,
            next_server: Ipv4Addr::UNSPECIFIED,
            mac: MacAddr::default(),
            prefix: None,
            router: None,
            server_id: None,
            boot_file: None,
        }
    }
}

impl BootPacket {
    /// Reads a packet; what follows its end option is ignored. `None` when it is no DHCP packet for Ethernet.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        if bytes.get(at::COOKIE..at::OPTIONS)? != [99, 130, 83, 99] || bytes.get(at::HARDWARE_LENGTH) != Some(&6) {
            return None;
        }
        let mut packet = Self {
            your_address: address(bytes.get(at::YOUR_ADDRESS..)?)?,
            next_server: address(bytes.get(at::NEXT_SERVER..)?)?,
            mac: MacAddr(*bytes.get(at::HARDWARE..)?.first_chunk()?),
            ..Self::default()
        };
        let file = bytes.get(at::FILE..at::COOKIE)?;
        let server_name = bytes.get(at::SERVER_NAME..at::FILE)?;
        let overload = packet.options(bytes.get(at::OPTIONS..)?);
        // Option 52: the two fixed fields may hold options instead of text.
        if overload & 1 != 0 {
            packet.options(file);
        } else if packet.boot_file.is_none() {
            packet.boot_file = text(file);
        }
        if overload & 2 != 0 {
            packet.options(server_name);
        }
        Some(packet)
    }

    /// Takes what it wants from a field of options; gives option 52.
    fn options(&mut self, field: &[u8]) -> u8 {
        let mut overload = 0;
        let mut boot_file = Vec::new();
        for (code, value) in options(field) {
            match code {
                1 => self.prefix = address(value).and_then(prefix),
                3 => self.router = address(value),
                52 => overload = value.first().copied().unwrap_or(0),
                54 => self.server_id = address(value),
                // RFC 3396: a long option comes in several pieces.
                67 => boot_file.extend_from_slice(value),
                _ => {}
            }
        }
        if let Some(name) = text(&boot_file) {
            self.boot_file = Some(name);
        }
        overload
    }
}

/// Code and value of each option, up to the end option or the first that is cut off.
fn options(mut field: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    core::iter::from_fn(move || {
        loop {
            match field {
                [0, rest @ ..] => field = rest,
                [255, ..] | [] | [_] => return None,
                [code, length, rest @ ..] => {
                    let (value, rest) = rest.split_at_checked(usize::from(*length))?;
                    field = rest;
                    return Some((*code, value));
                }
            }
        }
    })
}

fn address(bytes: &[u8]) -> Option<Ipv4Addr> {
    bytes.first_chunk::<4>().map(|octets| Ipv4Addr::from(*octets))
}

/// The prefix of a netmask; `None` for masks with holes.
pub(crate) fn prefix(mask: Ipv4Addr) -> Option<u8> {
    let bits = mask.to_bits();
    (bits.leading_ones() + bits.trailing_zeros() >= 32).then(|| bits.leading_ones() as u8)
}

/// Printable text up to a zero byte, if there is any.
fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = core::str::from_utf8(bytes.get(..end)?).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn packet(options: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0u8; at::OPTIONS];
        bytes[at::HARDWARE_LENGTH] = 6;
        bytes[at::YOUR_ADDRESS..at::YOUR_ADDRESS + 4].copy_from_slice(&[192, 0, 2, 50]);
        bytes[at::NEXT_SERVER..at::NEXT_SERVER + 4].copy_from_slice(&[192, 0, 2, 1]);
        bytes[at::HARDWARE..at::HARDWARE + 6].copy_from_slice(&[0x52, 0x54, 0, 1, 2, 3]);
        bytes[at::FILE..at::FILE + 10].copy_from_slice(b"loader.efi");
        bytes[at::COOKIE..].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend_from_slice(options);
        bytes
    }

    #[test]
    fn an_acknowledgement_is_read() {
        let options = [
            0, 53, 1, 5, 1, 4, 255, 255, 254, 0, 3, 8, 192, 0, 2, 254, 1, 1, 1, 1, 54, 4, 192, 0, 2, 2, 255, 9,
        ];
        let packet = BootPacket::parse(&packet(&options)).unwrap();
        assert_eq!(packet.your_address, Ipv4Addr::new(192, 0, 2, 50));
        assert_eq!(packet.next_server, Ipv4Addr::new(192, 0, 2, 1));
        assert_eq!(packet.mac.0, [0x52, 0x54, 0, 1, 2, 3]);
        assert_eq!(packet.prefix, Some(23));
        assert_eq!(packet.router, Some(Ipv4Addr::new(192, 0, 2, 254)));
        assert_eq!(packet.server_id, Some(Ipv4Addr::new(192, 0, 2, 2)));
        assert_eq!(packet.boot_file.as_deref(), Some("loader.efi"));
    }

    #[test]
    fn option_67_wins_over_the_field_and_comes_in_pieces() {
        let parsed = BootPacket::parse(&packet(b"\x43\x07http://\x43\x092.2.2.2/a\xff")).unwrap();
        assert_eq!(parsed.boot_file.as_deref(), Some("http://2.2.2.2/a"));
    }

    #[test]
    fn overloaded_fields_are_read_as_options() {
        let mut bytes = packet(&[52, 1, 1, 255]);
        bytes[at::FILE..at::FILE + 7].copy_from_slice(&[54, 4, 192, 0, 2, 7, 255]);
        let packet = BootPacket::parse(&bytes).unwrap();
        assert_eq!(packet.server_id, Some(Ipv4Addr::new(192, 0, 2, 7)));
        assert_eq!(packet.boot_file, None);
    }

    #[test]
    fn other_bytes_are_no_packet() {
        assert_eq!(BootPacket::parse(&[0; 300]), None);
        assert_eq!(BootPacket::parse(&packet(&[])[..239]), None);
        assert_eq!(prefix(Ipv4Addr::new(255, 0, 255, 0)), None);
        assert_eq!(prefix(Ipv4Addr::new(0, 0, 0, 0)), Some(0));
        assert_eq!(prefix(Ipv4Addr::new(255, 255, 255, 255)), Some(32));
    }

    proptest::proptest! {
        #[test]
        fn hostile_packets_never_panic(options: Vec<u8>, damage: Vec<(u16, u8)>, cut in 0usize..600) {
            let mut bytes = packet(&options);
            for (at, byte) in damage {
                let at = usize::from(at) % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(cut);
            let _ = BootPacket::parse(&bytes);
        }
    }
}
