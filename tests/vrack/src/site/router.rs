//! An IPv6 router that has nothing to offer: iPXE waits 13 s for one before it tries IPv4, and any answer ends that.

use rackbar_model::MacAddr;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::time::Duration;
use smoltcp::wire::{
    EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr, Icmpv6Message, Icmpv6Packet, Icmpv6Repr,
    IpProtocol, Ipv6Address, Ipv6Packet, Ipv6Repr, NdiscRepr, NdiscRouterFlags,
};

use crate::switch::{Port, Tasks};

const ALL_NODES: Ipv6Address = Ipv6Address::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// Answers every Router Solicitation with an advertisement of lifetime 0 ("I am no default router", RFC 4861, 4.2).
pub struct RouterAdvertiser {
    _tasks: Tasks,
}

impl RouterAdvertiser {
    /// Listens on a port of its own.
    pub fn start(port: Port, mac: MacAddr) -> Self {
        let tasks = Tasks::default();
        tasks.spawn(async move {
            loop {
                if is_solicitation(&port.receive().await) {
                    port.send(&advertisement(mac));
                }
            }
        });
        Self { _tasks: tasks }
    }
}

fn is_solicitation(frame: &[u8]) -> bool {
    let Ok(frame) = EthernetFrame::new_checked(frame) else {
        return false;
    };
    let Ok(packet) = Ipv6Packet::new_checked(frame.payload()) else {
        return false;
    };
    frame.ethertype() == EthernetProtocol::Ipv6
        && packet.next_header() == IpProtocol::Icmpv6
        && Icmpv6Packet::new_checked(packet.payload())
            .is_ok_and(|message| message.msg_type() == Icmpv6Message::RouterSolicit)
}

fn advertisement(mac: MacAddr) -> Vec<u8> {
    let [a, b, c, d, e, f] = mac.0;
    let [high, low] = [u16::from_be_bytes([a ^ 2, b]), u16::from_be_bytes([c, 0xff])];
    let us = Ipv6Address::new(
        0xfe80,
        0,
        0,
        0,
        high,
        low,
        u16::from_be_bytes([0xfe, d]),
        u16::from_be_bytes([e, f]),
    );
    let message = Icmpv6Repr::Ndisc(NdiscRepr::RouterAdvert {
        hop_limit: 64,
        flags: NdiscRouterFlags::empty(),
        router_lifetime: Duration::ZERO,
        reachable_time: Duration::ZERO,
        retrans_time: Duration::ZERO,
        lladdr: Some(EthernetAddress(mac.0).into()),
        mtu: None,
        prefix_info: None,
    });
    let ip = Ipv6Repr {
        src_addr: us,
        dst_addr: ALL_NODES,
        next_header: IpProtocol::Icmpv6,
        payload_len: message.buffer_len(),
        hop_limit: 255,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(mac.0),
        dst_addr: EthernetAddress([0x33, 0x33, 0, 0, 0, 1]),
        ethertype: EthernetProtocol::Ipv6,
    };
    let mut out = vec![0; ethernet.buffer_len() + ip.buffer_len() + message.buffer_len()];
    let mut frame = EthernetFrame::new_unchecked(&mut out[..]);
    ethernet.emit(&mut frame);
    let mut packet = Ipv6Packet::new_unchecked(frame.payload_mut());
    ip.emit(&mut packet);
    let mut body = Icmpv6Packet::new_unchecked(packet.payload_mut());
    message.emit(&us, &ALL_NODES, &mut body, &ChecksumCapabilities::default());
    out
}
