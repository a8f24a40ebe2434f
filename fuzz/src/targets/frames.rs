//! Ethernet frames that the network services read by themselves, past the kernel's own stack.

use rackbar_model::MacAddr;
use smoltcp::wire::{Icmpv6Packet, Ipv6Packet};

// Private to its crate.
#[allow(dead_code, reason = "only the reading, and what makes frames to compare with")]
#[path = "../../../appliance/services/src/frame.rs"]
mod frame;

const OWN: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);
const ETHERNET: usize = 14;

/// A frame as DHCP, the address probe and the router advertisements read it. What was understood comes back the same from
/// a frame of ours.
pub(super) fn service_frame(data: &[u8]) {
    if let Some((source, destination, payload)) = frame::read_udp(data) {
        assert!(payload.len() + 42 <= data.len(), "more was read than there is");
        let ours = frame::udp(OWN, OWN, source, destination, payload);
        assert_eq!(frame::read_udp(&ours), Some((source, destination, payload)));
    }
    if let Some((address, owner)) = frame::arp_claim(data) {
        let ours = frame::arp_probe(owner, address);
        assert_eq!(frame::arp_claim(&ours), Some((address, owner)));
    }
    solicitation(data);
    // Few changed bytes have the right checksum by themselves.
    if let Some(summed) = summed(data) {
        solicitation(&summed);
    }
}

fn solicitation(data: &[u8]) {
    let Some((mac, client)) = frame::read_solicitation(data) else {
        return;
    };
    let ours = frame::no_router(OWN, mac, client);
    assert_eq!(ours.get(..6), Some(&mac.0[..]), "somebody else is told");
    assert_eq!(frame::read_solicitation(&ours), None, "our answer asks");
}

/// The frame with the checksum that its ICMPv6 message is to have.
fn summed(data: &[u8]) -> Option<Vec<u8>> {
    let mut frame = data.to_vec();
    let mut ip = Ipv6Packet::new_checked(frame.get_mut(ETHERNET..)?).ok()?;
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    Icmpv6Packet::new_checked(ip.payload_mut())
        .ok()?
        .fill_checksum(&from, &to);
    Some(frame)
}
