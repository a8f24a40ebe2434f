//! Ethernet frames we make and read ourselves, over smoltcp's wire types: replies to clients that have no address yet,
//! ARP probes, overheard DHCP replies of other servers, IPv6 router solicitations and advertisements.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4};

use rackbar_model::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Packet,
    Icmpv6Repr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, Ipv6Packet, Ipv6Repr, NdiscRepr, NdiscRouterFlags,
    UdpPacket, UdpRepr,
};

const ETHERNET: usize = 14;

/// An Ethernet frame that carries `payload` by UDP, checksums filled in.
pub(crate) fn udp(
    from: MacAddr,
    to: MacAddr,
    source: SocketAddrV4,
    destination: SocketAddrV4,
    payload: &[u8],
) -> Vec<u8> {
    let caps = ChecksumCapabilities::default();
    let udp = UdpRepr {
        src_port: source.port(),
        dst_port: destination.port(),
    };
    let ip = Ipv4Repr {
        src_addr: *source.ip(),
        dst_addr: *destination.ip(),
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + payload.len(),
        hop_limit: 64,
    };
    let mut frame = ethernet(from, to, EthernetProtocol::Ipv4, ip.buffer_len() + ip.payload_len);
    let (_, body) = frame.split_at_mut(ETHERNET);
    let mut packet = Ipv4Packet::new_unchecked(body);
    ip.emit(&mut packet, &caps);
    udp.emit(
        &mut UdpPacket::new_unchecked(packet.payload_mut()),
        &IpAddress::Ipv4(ip.src_addr),
        &IpAddress::Ipv4(ip.dst_addr),
        payload.len(),
        |buffer| buffer.copy_from_slice(payload),
        &caps,
    );
    frame
}

/// An ARP probe (RFC 5227 section 1.1): who has `address`, asked with sender address 0 so that no cache learns it.
pub(crate) fn arp_probe(from: MacAddr, address: Ipv4Addr) -> Vec<u8> {
    let arp = ArpRepr::EthernetIpv4 {
        operation: ArpOperation::Request,
        source_hardware_addr: EthernetAddress(from.0),
        source_protocol_addr: Ipv4Addr::UNSPECIFIED,
        target_hardware_addr: EthernetAddress([0; 6]),
        target_protocol_addr: address,
    };
    let mut frame = ethernet(from, MacAddr::BROADCAST, EthernetProtocol::Arp, arp.buffer_len());
    let (_, body) = frame.split_at_mut(ETHERNET);
    arp.emit(&mut ArpPacket::new_unchecked(body));
    frame
}

fn ethernet(from: MacAddr, to: MacAddr, ethertype: EthernetProtocol, payload: usize) -> Vec<u8> {
    let mut frame = vec![0; ETHERNET + payload];
    let repr = EthernetRepr {
        src_addr: EthernetAddress(from.0),
        dst_addr: EthernetAddress(to.0),
        ethertype,
    };
    repr.emit(&mut EthernetFrame::new_unchecked(&mut frame));
    frame
}

/// Who says in an ARP packet that it has which address. A probe of another host (sender address 0) claims its target:
/// it is about to use it (RFC 5227 section 2.1.1).
pub(crate) fn arp_claim(frame: &[u8]) -> Option<(Ipv4Addr, MacAddr)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    (frame.ethertype() == EthernetProtocol::Arp).then_some(())?;
    let packet = ArpPacket::new_checked(frame.payload()).ok()?;
    let ArpRepr::EthernetIpv4 {
        operation,
        source_hardware_addr,
        source_protocol_addr,
        target_protocol_addr,
        ..
    } = ArpRepr::parse(&packet).ok()?
    else {
        return None;
    };
    let claimed = match (operation, source_protocol_addr.is_unspecified()) {
        (ArpOperation::Request, true) => target_protocol_addr,
        _ => source_protocol_addr,
    };
    Some((claimed, MacAddr(source_hardware_addr.0)))
}

/// Source, destination and payload of a UDP datagram in a frame. Checksums are not looked at: a frame from another
/// process of this host or from a virtual NIC has none yet.
pub(crate) fn read_udp(frame: &[u8]) -> Option<(SocketAddrV4, SocketAddrV4, &[u8])> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    (frame.ethertype() == EthernetProtocol::Ipv4).then_some(())?;
    let ip = Ipv4Packet::new_checked(frame.payload()).ok()?;
    // A header that is said to be shorter than one would put the UDP header into it.
    (ip.version() == 4 && ip.header_len() >= 20).then_some(())?;
    (ip.next_header() == IpProtocol::Udp && ip.frag_offset() == 0 && !ip.more_frags()).then_some(())?;
    let udp = UdpPacket::new_checked(ip.payload()).ok()?;
    let source = SocketAddrV4::new(ip.src_addr(), udp.src_port());
    let destination = SocketAddrV4::new(ip.dst_addr(), udp.dst_port());
    Some((source, destination, udp.payload()))
}

/// Who sent a router solicitation (RFC 4861 section 4.1): its MAC and its address, unspecified when it has none.
pub(crate) fn read_solicitation(frame: &[u8]) -> Option<(MacAddr, Ipv6Addr)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    (frame.ethertype() == EthernetProtocol::Ipv6).then_some(())?;
    let ip = Ipv6Packet::new_checked(frame.payload()).ok()?;
    (ip.version() == 6).then_some(())?;
    // Section 6.1.1: a hop limit other than 255 means that a router let it in from elsewhere.
    (ip.next_header() == IpProtocol::Icmpv6 && ip.hop_limit() == 255).then_some(())?;
    let icmp = Icmpv6Packet::new_checked(ip.payload()).ok()?;
    let caps = ChecksumCapabilities::default();
    match Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &caps).ok()? {
        Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { .. }) => Some((MacAddr(frame.src_addr().0), ip.src_addr())),
        _ => None,
    }
}

/// A router advertisement to one client that says: there is no IPv6 router here (lifetime 0, no prefix).
///
/// The Ethernet destination is the client alone even when the IP destination is all nodes (RFC 6085): nobody else on
/// the network needs to hear it.
pub(crate) fn no_router(from: MacAddr, to: MacAddr, client: Ipv6Addr) -> Vec<u8> {
    let source = link_local(from);
    let target = if client.is_unspecified() {
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1)
    } else {
        client
    };
    let advert = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: Duration::ZERO,
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: Some(EthernetAddress(from.0).into()),
        mtu: None,
        prefix_info: None,
    });
    let ip = Ipv6Repr {
        src_addr: source,
        dst_addr: target,
        next_header: IpProtocol::Icmpv6,
        payload_len: advert.buffer_len(),
        hop_limit: 255,
    };
    let mut frame = ethernet(from, to, EthernetProtocol::Ipv6, ip.buffer_len() + ip.payload_len);
    let (_, body) = frame.split_at_mut(ETHERNET);
    let mut packet = Ipv6Packet::new_unchecked(body);
    ip.emit(&mut packet);
    let caps = ChecksumCapabilities::default();
    advert.emit(
        &source,
        &target,
        &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
        &caps,
    );
    frame
}

/// The link-local address an interface makes from its MAC (RFC 4291 appendix A): a router advertisement must come from
/// one (RFC 4861 section 6.1.2), also when the kernel gave the interface none.
pub(crate) fn link_local(mac: MacAddr) -> Ipv6Addr {
    let [a, b, c, d, e, f] = mac.0;
    let word = |high: u8, low: u8| u16::from_be_bytes([high, low]);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        word(a ^ 2, b),
        word(c, 0xff),
        word(0xfe, d),
        word(e, f),
    )
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    const US: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
    const CLIENT: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 2]);

    #[test]
    fn udp_frames_hold_what_was_put_in_with_good_checksums() {
        let (source, destination) = ("10.0.0.1:67".parse().unwrap(), "10.0.0.9:68".parse().unwrap());
        let frame = udp(US, CLIENT, source, destination, b"odd");
        assert_eq!(read_udp(&frame), Some((source, destination, &b"odd"[..])));
        let ip = Ipv4Packet::new_checked(&frame[14..]).unwrap();
        assert!(ip.verify_checksum());
        let (from, to) = (IpAddress::Ipv4(ip.src_addr()), IpAddress::Ipv4(ip.dst_addr()));
        assert!(
            UdpPacket::new_checked(ip.payload())
                .unwrap()
                .verify_checksum(&from, &to)
        );
    }

    #[test]
    fn arp_answers_and_foreign_probes_claim_an_address() {
        let address = Ipv4Addr::new(10, 0, 0, 9);
        assert_eq!(arp_claim(&arp_probe(CLIENT, address)), Some((address, CLIENT)));
        assert_eq!(
            arp_claim(&udp(
                US,
                CLIENT,
                "1.1.1.1:1".parse().unwrap(),
                "1.1.1.2:2".parse().unwrap(),
                b""
            )),
            None
        );
    }

    /// A solicitation as iPXE sends it, before it has an address.
    pub(crate) fn solicitation(from: MacAddr, source: Ipv6Addr) -> Vec<u8> {
        let target = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
        let solicit = Icmpv6Repr::Ndisc(NdiscRepr::RouterSolicit { lladdr: None });
        let ip = Ipv6Repr {
            src_addr: source,
            dst_addr: target,
            next_header: IpProtocol::Icmpv6,
            payload_len: solicit.buffer_len(),
            hop_limit: 255,
        };
        let all_routers = MacAddr([0x33, 0x33, 0, 0, 0, 2]);
        let mut frame = ethernet(
            from,
            all_routers,
            EthernetProtocol::Ipv6,
            ip.buffer_len() + ip.payload_len,
        );
        let mut packet = Ipv6Packet::new_unchecked(&mut frame[14..]);
        ip.emit(&mut packet);
        let caps = ChecksumCapabilities::default();
        solicit.emit(
            &source,
            &target,
            &mut Icmpv6Packet::new_unchecked(packet.payload_mut()),
            &caps,
        );
        frame
    }

    #[test]
    fn a_solicitation_is_answered_with_lifetime_zero() {
        let frame = solicitation(CLIENT, Ipv6Addr::UNSPECIFIED);
        assert_eq!(read_solicitation(&frame), Some((CLIENT, Ipv6Addr::UNSPECIFIED)));
        let reply = no_router(US, CLIENT, Ipv6Addr::UNSPECIFIED);
        assert_eq!(reply[..6], CLIENT.0);
        let ip = Ipv6Packet::new_checked(&reply[14..]).unwrap();
        assert_eq!(
            (ip.hop_limit(), ip.src_addr()),
            (255, "fe80::ff:fe00:1".parse().unwrap())
        );
        let icmp = Icmpv6Packet::new_checked(ip.payload()).unwrap();
        let caps = ChecksumCapabilities::default();
        let Ok(Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
            router_lifetime,
            prefix_info,
            ..
        })) = Icmpv6Repr::parse(&ip.src_addr(), &ip.dst_addr(), &icmp, &caps)
        else {
            panic!("no advertisement");
        };
        assert_eq!((router_lifetime, prefix_info), (Duration::ZERO, None));
    }

    #[test]
    fn a_header_that_is_none_is_not_read() {
        let (a, b) = ("10.0.0.1:67".parse().unwrap(), "10.0.0.9:68".parse().unwrap());
        let good = udp(US, CLIENT, a, b, &[0; 40]);
        // Version 4 with room for nothing, with less than its fields, and another version.
        for first in [0x40, 0x44, 0x55] {
            let mut bad = good.clone();
            bad[14] = first;
            assert_eq!(read_udp(&bad), None, "{first:#x}");
        }
        let mut bad = solicitation(CLIENT, Ipv6Addr::UNSPECIFIED);
        bad[14] = 0x40;
        assert_eq!(read_solicitation(&bad), None);
    }

    proptest! {
        #[test]
        fn what_is_made_is_read_whatever_follows_it(
            from: [u8; 4], to: [u8; 4], ports: [u16; 2], payload in proptest::collection::vec(any::<u8>(), 0..300),
            mac: [u8; 6], padding in 0usize..20,
        ) {
            let (source, destination) = (SocketAddrV4::new(from.into(), ports[0]), SocketAddrV4::new(to.into(), ports[1]));
            // Short frames are padded on the way.
            let padded = |mut frame: Vec<u8>| {
                frame.resize(frame.len() + padding, 0xaa);
                frame
            };
            let frame = padded(udp(US, CLIENT, source, destination, &payload));
            prop_assert_eq!(read_udp(&frame), Some((source, destination, &payload[..])));
            prop_assert_eq!((arp_claim(&frame), read_solicitation(&frame)), (None, None));
            let frame = padded(arp_probe(MacAddr(mac), to.into()));
            prop_assert_eq!(arp_claim(&frame), Some((to.into(), MacAddr(mac))));
            prop_assert_eq!((read_udp(&frame), read_solicitation(&frame)), (None, None));
        }

        #[test]
        fn never_panics(frame in proptest::collection::vec(any::<u8>(), 0..120)) {
            let _ = (read_udp(&frame), arp_claim(&frame), read_solicitation(&frame));
        }

        #[test]
        fn never_panics_on_damaged_frames(kind in 0usize..3, at: prop::sample::Index, value: u8, cut: prop::sample::Index) {
            let (a, b) = ("10.0.0.1:67".parse().unwrap(), "10.0.0.9:68".parse().unwrap());
            let mut frame = match kind {
                0 => udp(US, CLIENT, a, b, &[1; 300]),
                1 => arp_probe(US, *b.ip()),
                _ => solicitation(CLIENT, Ipv6Addr::LOCALHOST),
            };
            let position = at.index(frame.len());
            frame[position] = value;
            frame.truncate(cut.index(frame.len()) + 1);
            let _ = (read_udp(&frame), arp_claim(&frame), read_solicitation(&frame));
        }
    }
}
