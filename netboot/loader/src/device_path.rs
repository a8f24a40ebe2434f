//! Reading the device path we were loaded from (UEFI 2.10 section 10.3): firmware that booted by HTTP leaves its
//! network settings and the URL there, firmware that booted from a disk the partition.

use alloc::string::String;
use core::net::Ipv4Addr;

use rackbar_model::MacAddr;

use crate::packet::prefix;

/// Media device path nodes.
const MEDIA: u8 = 4;
const HARD_DRIVE: u8 = 1;

/// Messaging device path nodes.
const MESSAGING: u8 = 3;
const MAC: u8 = 11;
const IPV4: u8 = 12;
const URI: u8 = 24;

/// What a device path says of a network boot.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NetworkPath {
    /// The interface.
    pub mac: Option<MacAddr>,
    /// Address, prefix length, gateway.
    pub address: Option<(Ipv4Addr, u8, Option<Ipv4Addr>)>,
    /// The URL the firmware fetched us from.
    pub uri: Option<String>,
}

impl NetworkPath {
    /// Reads the nodes of a path; stops at its end or at the first that makes no sense.
    pub fn parse(mut path: &[u8]) -> Self {
        let mut found = Self::default();
        while let Some((kind, subtype, data, rest)) = next(path) {
            if kind == MESSAGING {
                found.node(subtype, data);
            }
            path = rest;
        }
        found
    }

    fn node(&mut self, subtype: u8, data: &[u8]) {
        match subtype {
            MAC => self.mac = data.first_chunk().map(|mac| MacAddr(*mac)),
            IPV4 => self.address = ipv4(data),
            URI => {
                let uri = core::str::from_utf8(data).unwrap_or_default();
                self.uri = (!uri.is_empty()).then(|| uri.trim_end_matches('\0').into());
            }
            _ => {}
        }
    }
}

/// Type, subtype and data of the first node, and the path behind it.
fn next(path: &[u8]) -> Option<(u8, u8, &[u8], &[u8])> {
    let [kind, subtype, low, high, ..] = *path else {
        return None;
    };
    let length = usize::from(u16::from_le_bytes([low, high]));
    let (node, rest) = path.split_at_checked(length)?;
    Some((kind, subtype, node.get(4..)?, rest))
}

/// The unique GUID of the GPT partition a path leads to, as it stands in the table (section 10.3.5.1). A CD has none.
pub fn partition(mut path: &[u8]) -> Option<[u8; 16]> {
    const GPT: u8 = 2;
    let mut found = None;
    while let Some((kind, subtype, data, rest)) = next(path) {
        if (kind, subtype) == (MEDIA, HARD_DRIVE) && data.get(37) == Some(&GPT) {
            found = data.get(20..36).and_then(|guid| guid.try_into().ok());
        }
        path = rest;
    }
    found
}

/// Local address, gateway and mask of an IPv4 node. The two last were added in UEFI 2.4 and may be missing.
fn ipv4(data: &[u8]) -> Option<(Ipv4Addr, u8, Option<Ipv4Addr>)> {
    let at = |offset: usize| -> Option<Ipv4Addr> {
        let octets = data.get(offset..)?.first_chunk::<4>()?;
        Some(Ipv4Addr::from(*octets)).filter(|address| !address.is_unspecified())
    };
    Some((at(0)?, prefix(at(19)?)?, at(15)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn node(kind: u8, subtype: u8, data: &[u8]) -> Vec<u8> {
        let length = (data.len() as u16 + 4).to_le_bytes();
        [&[kind, subtype, length[0], length[1]], data].concat()
    }

    fn http_boot() -> Vec<u8> {
        let mut mac = [0u8; 33];
        mac[..6].copy_from_slice(&[0x52, 0x54, 0, 1, 2, 3]);
        let mut ip = [0u8; 23];
        ip[..4].copy_from_slice(&[192, 0, 2, 50]);
        ip[15..19].copy_from_slice(&[192, 0, 2, 254]);
        ip[19..].copy_from_slice(&[255, 255, 255, 0]);
        [
            node(2, 1, &[0xd0, 0x41, 3, 0x0a, 0, 0, 0, 0]),
            node(MESSAGING, MAC, &mac),
            node(MESSAGING, IPV4, &ip),
            node(MESSAGING, URI, b"http://192.0.2.1/boot/v1/loader.efi"),
            node(0x7f, 0xff, &[]),
        ]
        .concat()
    }

    #[test]
    fn a_path_of_http_boot_is_read() {
        let path = NetworkPath::parse(&http_boot());
        assert_eq!(path.mac, Some(MacAddr([0x52, 0x54, 0, 1, 2, 3])));
        let (address, gateway) = (Ipv4Addr::new(192, 0, 2, 50), Ipv4Addr::new(192, 0, 2, 254));
        assert_eq!(path.address, Some((address, 24, Some(gateway))));
        assert_eq!(path.uri.as_deref(), Some("http://192.0.2.1/boot/v1/loader.efi"));
    }

    #[test]
    fn the_partition_of_a_disk_is_known_and_a_disc_has_none() {
        let mut drive = [0u8; 38];
        drive[20..36].copy_from_slice(&[7; 16]);
        (drive[36], drive[37]) = (2, 2);
        let end = node(0x7f, 0xff, &[]);
        assert_eq!(
            partition(&[node(MEDIA, HARD_DRIVE, &drive), end.clone()].concat()),
            Some([7; 16])
        );
        drive[37] = 1; // an MBR's signature
        assert_eq!(
            partition(&[node(MEDIA, HARD_DRIVE, &drive), end.clone()].concat()),
            None
        );
        let disc = node(MEDIA, 2, &[0; 20]);
        assert_eq!(partition(&[disc, end].concat()), None);
    }

    #[test]
    fn an_address_the_firmware_did_not_fill_in_is_none() {
        let path = node(MESSAGING, IPV4, &[0; 23]);
        assert_eq!(NetworkPath::parse(&path).address, None);
    }

    proptest::proptest! {
        #[test]
        fn hostile_paths_never_panic(bytes: Vec<u8>, at: usize, byte: u8, cut: usize) {
            let _ = (NetworkPath::parse(&bytes), partition(&bytes));
            let mut path = http_boot();
            let length = path.len();
            path[at % length] = byte;
            path.truncate(cut % (length + 1));
            let _ = NetworkPath::parse(&path);
        }
    }
}
