//! What the switch says about itself on each port: LLDP (IEEE 802.1AB-2016).

use std::time::Duration;

use super::fabric::PortId;
use super::{PortConfig, PortMode};

/// The nearest-bridge group address (802.1AB-2016, table 7-1).
const DESTINATION: [u8; 6] = [0x01, 0x80, 0xc2, 0x00, 0x00, 0x0e];
const ETHERTYPE: [u8; 2] = [0x88, 0xcc];
/// The switch's own address; ports count up from it.
pub(super) const CHASSIS: [u8; 6] = [0x02, 0x52, 0x42, 0x53, 0x57, 0x00];

/// The hardware address of a port, counted from 0: its frames to neighbours come from there.
pub(super) fn port_address(port: u32) -> [u8; 6] {
    let [a, b, c, d, _, _] = CHASSIS;
    let [.., high, low] = port.wrapping_add(1).to_be_bytes();
    [a, b, c, d, CHASSIS[4].wrapping_add(high), low]
}

/// True for an LLDP frame.
pub(super) fn is_lldp(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&ETHERTYPE)
}

/// Builds one LLDPDU with its Ethernet header.
pub(super) fn frame(system: &str, id: PortId, config: &PortConfig, interval: Duration) -> Vec<u8> {
    let source = port_address(id.0);
    let mut out = [&DESTINATION[..], &source, &ETHERTYPE].concat();
    // Four intervals, the standard's msgTxHold, and at least two minutes so that a busy host forgets nobody.
    let ttl = u16::try_from((interval.as_secs() * 4).max(120)).unwrap_or(u16::MAX);
    tlv(&mut out, 1, &[&[4], &CHASSIS[..]].concat());
    tlv(&mut out, 2, &[&[5], config.name.as_bytes()].concat());
    tlv(&mut out, 3, &ttl.to_be_bytes());
    tlv(&mut out, 4, config.description.as_bytes());
    tlv(&mut out, 5, system.as_bytes());
    tlv(&mut out, 6, b"Rackbar virtual rack switch");
    // Capabilities: bridge, enabled.
    tlv(&mut out, 7, &[0, 4, 0, 4]);
    let pvid = match &config.mode {
        PortMode::Access { vlan } => *vlan,
        // 0: the port has no port VLAN (802.1Q-2018, D.2.1.1).
        PortMode::Trunk { native, .. } => native.unwrap_or(0),
    };
    tlv(
        &mut out,
        127,
        &[&[0x00, 0x80, 0xc2, 0x01][..], &pvid.to_be_bytes()].concat(),
    );
    tlv(&mut out, 0, &[]);
    out.resize(out.len().max(60), 0);
    out
}

/// Appends a TLV: 7 bits of type, 9 bits of length.
fn tlv(out: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let value = &value[..value.len().min(511)];
    out.extend_from_slice(&(kind << 9 | u16::try_from(value.len()).unwrap_or(511)).to_be_bytes());
    out.extend_from_slice(value);
}
