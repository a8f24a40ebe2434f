//! Which Ethernet frames the DHCP client may see.
//!
//! The kernel runs its own IP stack on the same interface. A second stack that saw everything would answer ARP
//! requests, pings and unknown ports beside it, so it is shown DHCP replies and ARP replies only. The filter runs in
//! the kernel: on the appliance's uplink a wake-up per packet would cost real throughput.

use socket2::SockFilter;

// Classic BPF, linux/bpf_common.h.
const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
const LOAD_HALF_INDEXED: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
const LOAD_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT: frames of a VLAN also pass the parent interface, tag already taken off.
const VLAN_TAG_PRESENT: u32 = (-0x1000i32 + 48) as u32;

/// ARP replies, and first fragments of IPv4 UDP to port 68; nothing that carries a VLAN tag.
pub(crate) const FILTER: [SockFilter; 16] = [
    /* 0 */ SockFilter::new(LOAD_BYTE, 0, 0, VLAN_TAG_PRESENT),
    /* 1 */ SockFilter::new(JUMP_EQUAL, 0, 12, 0), // else 14
    /* 2 */ SockFilter::new(LOAD_HALF, 0, 0, 12), // EtherType
    /* 3 */ SockFilter::new(JUMP_EQUAL, 0, 2, 0x0806), // ARP, else 6
    /* 4 */ SockFilter::new(LOAD_HALF, 0, 0, 20), // operation
    /* 5 */ SockFilter::new(JUMP_EQUAL, 9, 8, 2), // reply: 15, else 14
    /* 6 */ SockFilter::new(JUMP_EQUAL, 0, 7, 0x0800), // IPv4, else 14
    /* 7 */ SockFilter::new(LOAD_BYTE, 0, 0, 23), // protocol
    /* 8 */ SockFilter::new(JUMP_EQUAL, 0, 5, 17), // UDP, else 14
    /* 9 */ SockFilter::new(LOAD_HALF, 0, 0, 20), // flags and fragment offset
    /* 10 */ SockFilter::new(JUMP_ANY_BIT, 3, 0, 0x1fff), // a later fragment: 14
    /* 11 */ SockFilter::new(LOAD_HEADER_LENGTH, 0, 0, 14),
    /* 12 */ SockFilter::new(LOAD_HALF_INDEXED, 0, 0, 16), // destination port
    /* 13 */ SockFilter::new(JUMP_EQUAL, 1, 0, 68), // 15, else 14
    /* 14 */ SockFilter::new(RETURN, 0, 0, 0),
    /* 15 */ SockFilter::new(RETURN, 0, 0, 0xffff),
];

#[cfg(test)]
mod tests {
    use super::*;
    use socket2::{Domain, Socket, Type};
    use std::io::{Read, Write};

    /// Runs the filter in the kernel, on a pair of local sockets: offsets count from the start of the message there
    /// too, so only the VLAN check (which asks for the frame's metadata) is answered "no tag".
    fn passes(frame: &[u8]) -> bool {
        let (mut near, mut far) = Socket::pair(Domain::UNIX, Type::DGRAM, None).unwrap();
        near.attach_filter(&FILTER).unwrap();
        near.set_nonblocking(true).unwrap();
        far.write_all(frame).unwrap();
        near.read(&mut [0; 2048]).is_ok()
    }

    fn frame(ethertype: u16, offset: usize, bytes: &[u8]) -> Vec<u8> {
        let mut frame = vec![0u8; 60];
        frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame[14] = 0x45;
        frame[offset..offset + bytes.len()].copy_from_slice(bytes);
        frame
    }

    fn udp(port: u16, fragment: u16, header: u8) -> Vec<u8> {
        let mut frame = frame(0x0800, 23, &[17]);
        frame[14] = 0x40 | header;
        frame[20..22].copy_from_slice(&fragment.to_be_bytes());
        let at = 14 + usize::from(header) * 4 + 2;
        frame[at..at + 2].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn only_replies_meant_for_a_dhcp_client_pass() {
        assert!(passes(&udp(68, 0, 5)));
        assert!(passes(&udp(68, 0x2000, 6)), "a first fragment, header with options");
        assert!(passes(&frame(0x0806, 20, &[0, 2])), "an ARP reply");
        assert!(!passes(&udp(67, 0, 5)));
        assert!(!passes(&udp(68, 100, 5)), "a later fragment");
        assert!(
            !passes(&frame(0x0806, 20, &[0, 1])),
            "an ARP request is the kernel's to answer"
        );
        assert!(!passes(&frame(0x0800, 23, &[1])), "ICMP");
        assert!(!passes(&frame(0x86dd, 23, &[17])), "IPv6");
        assert!(!passes(&[0; 20]), "too short");
    }
}
