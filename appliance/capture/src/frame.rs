//! What a frame is, as far as a capture needs to know: how much of it may be kept, and whom it concerns.

use std::net::IpAddr;

use rackbar_model::MacAddr;

/// Ethernet types (IEEE 802 numbers).
pub(crate) const IPV4: u16 = 0x0800;
pub(crate) const ARP: u16 = 0x0806;
pub(crate) const IPV6: u16 = 0x86dd;
pub(crate) const LLDP: u16 = 0x88cc;

/// Protocols over IP (IANA numbers).
pub(crate) const ICMP: u8 = 1;
pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
pub(crate) const ICMPV6: u8 = 58;

pub(crate) const TFTP: u16 = 69;
pub(crate) const DNS: u16 = 53;
/// DHCP server and client, PXE boot server, DHCPv6 client and server.
pub(crate) const DHCP: [u16; 5] = [67, 68, 4011, 546, 547];

/// Length of an Ethernet header, and of an IPv6 header.
pub(crate) const ETHERNET: usize = 14;
pub(crate) const IPV6_HEADER: usize = 40;

/// Most bytes of a frame that are ever kept: a whole Ethernet frame, which every DHCP packet fits into.
pub const SNAP: usize = 1_536;

/// Of an ICMP error: its header, and of the packet that it is about the IP header and 8 bytes.
const ICMP_ERROR: usize = 8 + 20 + 8;
const ICMPV6_ERROR: usize = 8 + IPV6_HEADER + 8;
/// Of an ICMPv6 redirect: its header and two addresses.
const ICMPV6_REDIRECT: usize = 8 + 2 * 16;
/// Of what looks like an option acknowledgement or an error of TFTP between two high ports.
const TFTP_ANSWER: usize = 8 + 128;

pub(crate) fn byte(frame: &[u8], at: usize) -> Option<u8> {
    frame.get(at).copied()
}

pub(crate) fn half(frame: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(frame.get(at..at.checked_add(2)?)?.try_into().ok()?))
}

pub(crate) fn word(frame: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(frame.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn mac(frame: &[u8], at: usize) -> Option<MacAddr> {
    Some(MacAddr(frame.get(at..at.checked_add(6)?)?.try_into().ok()?))
}

/// An IP packet in a frame.
pub(crate) struct Ip {
    pub(crate) protocol: u8,
    /// Where what it carries begins.
    pub(crate) payload: usize,
    /// It is a fragment that is not the first, so nothing says what it carries.
    pub(crate) later: bool,
}

/// The IP packet in a frame; `None` when there is none.
pub(crate) fn ip(frame: &[u8]) -> Option<Ip> {
    match half(frame, 12)? {
        IPV4 => Some(Ip {
            later: half(frame, 20)? & 0x1fff != 0,
            protocol: byte(frame, 23)?,
            payload: ETHERNET + 4 * usize::from(byte(frame, ETHERNET)? & 0xf),
        }),
        IPV6 => Some(Ip {
            later: false,
            protocol: byte(frame, 20)?,
            payload: ETHERNET + IPV6_HEADER,
        }),
        _ => None,
    }
}

/// How many bytes of a frame are kept. Whole are ARP, LLDP, DHCP, DNS, requests of TFTP, and ICMP but for what errors quote;
/// of everything else only the headers, as payloads may hold tokens, passwords and keys.
pub fn kept(frame: &[u8]) -> usize {
    let most = match half(frame, 12) {
        Some(ARP | LLDP) => SNAP,
        Some(IPV4 | IPV6) => ip(frame).map_or(ETHERNET, |ip| kept_of_ip(frame, &ip)),
        _ => ETHERNET,
    };
    most.min(SNAP).min(frame.len())
}

fn kept_of_ip(frame: &[u8], ip: &Ip) -> usize {
    let begin = ip.payload;
    if ip.later {
        return begin;
    }
    match ip.protocol {
        ICMP => match byte(frame, begin) {
            Some(3 | 4 | 5 | 11 | 12) => begin + ICMP_ERROR,
            _ => SNAP,
        },
        // RFC 4443 section 2.1: below 128 they are errors.
        ICMPV6 => match byte(frame, begin) {
            Some(0..128) => begin + ICMPV6_ERROR,
            // A redirect quotes the packet that it is about, behind two addresses (RFC 4861 section 4.5).
            Some(137) => begin + ICMPV6_REDIRECT,
            _ => SNAP,
        },
        UDP => begin + kept_of_udp(frame, begin).unwrap_or(8),
        TCP => begin + byte(frame, begin + 12).map_or(20, |offset| 4 * usize::from(offset >> 4).max(5)),
        _ => begin,
    }
}

fn kept_of_udp(frame: &[u8], at: usize) -> Option<usize> {
    let ports = [half(frame, at)?, half(frame, at + 2)?];
    if ports.iter().any(|port| DHCP.contains(port) || *port == DNS) {
        return Some(SNAP);
    }
    let code = half(frame, at + 8)?;
    let high = ports.iter().all(|port| *port >= 1_024);
    Some(match code {
        // Data and acknowledgements: their number, not what they carry.
        3 | 4 if high || ports.contains(&TFTP) => 12,
        _ if ports.contains(&TFTP) => 8 + 512,
        _ if is_tftp_answer(frame, at)? => TFTP_ANSWER,
        _ => 8,
    })
}

/// True when a UDP datagram between two high ports begins like the beginning of a TFTP transfer: the first block, its
/// acknowledgement, that of options, or an error (RFC 1350 section 5, RFC 2347).
pub(crate) fn is_tftp_answer(frame: &[u8], at: usize) -> Option<bool> {
    if half(frame, at)? < 1_024 || half(frame, at + 2)? < 1_024 {
        return Some(false);
    }
    let begin = word(frame, at + 8)?;
    Some(matches!(begin, 0x0003_0001 | 0x0004_0000 | 0x0004_0001) || matches!(begin >> 16, 5 | 6))
}

/// Whose frames are wanted: a machine's MAC addresses, and the IP addresses it has or had.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Machine {
    /// Of its interfaces and of its BMC.
    pub macs: Vec<MacAddr>,
    /// Of both.
    pub addresses: Vec<IpAddr>,
}

impl Machine {
    /// True when a frame is to it, from it or about it: by its MAC addresses, also in DHCP and ARP, or its IP addresses.
    pub fn concerned(&self, frame: &[u8]) -> bool {
        let ours = |at: usize| mac(frame, at).is_some_and(|mac| self.macs.contains(&mac));
        if ours(0) || ours(6) {
            return true;
        }
        let of = |at: usize, length: usize| self.has(frame.get(at..at + length));
        match half(frame, 12) {
            // RFC 826: sender and target, each with both addresses.
            Some(ARP) => ours(22) || ours(32) || of(28, 4) || of(38, 4),
            // RFC 2131 section 2: the client's hardware address.
            Some(IPV4) => of(26, 4) || of(30, 4) || dhcp(frame).is_some_and(|at| ours(at + 28)),
            Some(IPV6) => of(22, 16) || of(38, 16),
            _ => false,
        }
    }

    fn has(&self, address: Option<&[u8]>) -> bool {
        let address = address.and_then(|bytes| match bytes.len() {
            4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
            _ => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        });
        address.is_some_and(|address| self.addresses.contains(&address))
    }
}

/// Where a DHCPv4 message begins.
fn dhcp(frame: &[u8]) -> Option<usize> {
    let ip = ip(frame).filter(|ip| ip.protocol == UDP && !ip.later)?;
    let ports = [half(frame, ip.payload)?, half(frame, ip.payload + 2)?];
    ports
        .iter()
        .any(|port| [67, 68, 4_011].contains(port))
        .then_some(ip.payload + 8)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) const CLIENT: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

    /// A frame between two strangers.
    pub(crate) fn ethernet(kind: u16, payload: &[u8]) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 9];
        frame.extend_from_slice(&kind.to_be_bytes());
        frame.extend_from_slice(payload);
        frame
    }

    /// An IPv4 packet from 10.0.0.1 to 10.0.0.9.
    pub(crate) fn ipv4(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 9];
        packet.extend_from_slice(payload);
        ethernet(IPV4, &packet)
    }

    pub(crate) fn ipv6(protocol: u8, payload: &[u8]) -> Vec<u8> {
        let mut packet = vec![0x60, 0, 0, 0, 0, 0, protocol, 64];
        packet.extend_from_slice(&[0xfd; 32]);
        packet.extend_from_slice(payload);
        ethernet(IPV6, &packet)
    }

    pub(crate) fn udp(from: u16, to: u16, payload: &[u8]) -> Vec<u8> {
        let mut datagram = [from.to_be_bytes(), to.to_be_bytes(), [0; 2], [0; 2]].concat();
        datagram.extend_from_slice(payload);
        datagram
    }

    pub(crate) fn tcp(from: u16, to: u16, flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut segment = [from.to_be_bytes(), to.to_be_bytes()].concat();
        segment.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0x60, flags, 0, 0, 0, 0, 0, 0, 2, 4, 5, 0xb4]);
        segment.extend_from_slice(payload);
        segment
    }

    fn has(frame: &[u8], what: &[u8]) -> bool {
        let kept = &frame[..kept(frame)];
        kept.windows(what.len()).any(|part| part == what)
    }

    #[test]
    fn payloads_that_may_hold_secrets_are_cut_off() {
        let secret = b"a-token-4711";
        let data = [&[0, 3, 0, 1][..], secret].concat();
        let quoted = [&[3, 3, 0, 0, 0, 0, 0, 0][..], &[0x45; 28], secret].concat();
        let quoted6 = [&[1, 4, 0, 0, 0, 0, 0, 0][..], &[0x60; 48], secret].concat();
        let redirect = [&[137, 0, 0, 0, 0, 0, 0, 0][..], &[0xfe; 32], secret].concat();
        for frame in [
            ipv4(TCP, &tcp(40_000, 80, 0x18, secret)),
            ipv4(TCP, &tcp(40_000, 80, 2, secret)),
            ipv6(TCP, &tcp(443, 40_000, 0x18, secret)),
            ipv4(UDP, &udp(2_000, 40_000, &data)),
            ipv4(UDP, &udp(69, 40_000, &data)),
            ipv6(UDP, &udp(2_000, 40_000, &data)),
            ipv4(UDP, &udp(514, 514, secret)),
            ipv4(UDP, &udp(623, 40_000, secret)),
            ipv4(ICMP, &quoted),
            ipv6(ICMPV6, &quoted6),
            ipv6(ICMPV6, &redirect),
            ipv4(50, secret),
            ethernet(0x88a2, secret),
        ] {
            assert!(!has(&frame, secret), "{frame:02x?}");
            assert!(kept(&frame) >= ETHERNET);
        }
        let mut fragment = ipv4(UDP, secret);
        fragment[21] = 1;
        assert!(!has(&fragment, secret));
    }

    #[test]
    fn what_tells_of_a_boot_is_kept_whole() {
        let told = b"pxelinux.0";
        let request = [&[0, 1][..], told].concat();
        let error = [&[0, 5, 0, 1][..], told].concat();
        for frame in [
            ethernet(ARP, told),
            ethernet(LLDP, told),
            ipv4(UDP, &udp(67, 68, told)),
            ipv4(UDP, &udp(4_011, 40_000, told)),
            ipv6(UDP, &udp(547, 546, told)),
            ipv4(UDP, &udp(40_000, 53, told)),
            ipv4(UDP, &udp(40_000, 69, &request)),
            ipv4(UDP, &udp(2_000, 40_000, &error)),
            ipv4(ICMP, &[&[8, 0, 0, 0, 0, 0, 0, 0][..], told].concat()),
            ipv6(ICMPV6, &[&[134, 0, 0, 0][..], told].concat()),
        ] {
            assert!(has(&frame, told), "{frame:02x?}");
        }
        // TCP keeps its options.
        assert_eq!(kept(&ipv4(TCP, &tcp(1, 2, 2, b"body"))), ETHERNET + 20 + 24);
    }

    #[test]
    fn a_machine_is_found_by_what_is_about_it() {
        let machine = Machine {
            macs: vec![CLIENT],
            addresses: vec!["10.0.0.9".parse().unwrap(), "fd00::9".parse().unwrap()],
        };
        let stranger = Machine {
            macs: vec![MacAddr([2; 6])],
            addresses: vec!["10.0.0.7".parse().unwrap()],
        };
        let mut offer = vec![0; 240];
        offer[28..34].copy_from_slice(&CLIENT.0);
        let mut broadcast = ipv4(UDP, &udp(67, 68, &offer));
        broadcast[30..34].copy_from_slice(&[255; 4]);
        let mut asked = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        asked.extend_from_slice(&[10, 0, 0, 9]);
        let mut sent = ethernet(LLDP, b"");
        sent[6..12].copy_from_slice(&CLIENT.0);
        let mut six = ipv6(UDP, &udp(547, 546, b""));
        let address: std::net::Ipv6Addr = "fd00::9".parse().unwrap();
        six[38..54].copy_from_slice(&address.octets());
        for frame in [broadcast, ethernet(ARP, &asked), sent, six, ipv4(TCP, &[])] {
            assert!(machine.concerned(&frame), "{frame:02x?}");
            assert!(!stranger.concerned(&frame), "{frame:02x?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_a_stranger_sends_breaks_it(frame in proptest::collection::vec(any::<u8>(), 0..200), kind in 0usize..5) {
            let mut frame = frame;
            if let (Some(kind), Some(place)) = ([IPV4, IPV6, ARP, LLDP].get(kind), frame.get_mut(12..14)) {
                place.copy_from_slice(&kind.to_be_bytes());
            }
            prop_assert!(kept(&frame) <= frame.len());
            let machine = Machine { macs: vec![CLIENT], addresses: vec!["10.0.0.9".parse().unwrap()] };
            machine.concerned(&frame);
        }
    }
}
