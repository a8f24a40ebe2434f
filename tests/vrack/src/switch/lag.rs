//! Bundles of ports: which member a frame leaves at, and what the fabric must know of a bundle.

use std::sync::{Mutex, RwLock};

use super::fabric::PortId;
use super::lacp::Aggregator;

/// A bundle at work. To the table of addresses it is its first member.
pub(super) struct Lag {
    pub(super) members: Vec<PortId>,
    pub(super) engine: Mutex<Aggregator>,
    /// Members that forward now; kept beside the engine so that frames do not wait for it.
    pub(super) active: RwLock<Vec<PortId>>,
}

impl Lag {
    /// The member for a frame; `None` while none forwards.
    pub(super) fn choose(&self, frame: &[u8]) -> Option<PortId> {
        let active = super::port::read(&self.active);
        let count = u32::try_from(active.len()).ok().filter(|count| *count > 0)?;
        active.get((hash(frame) % count) as usize).copied()
    }

    /// True while a member forwards.
    pub(super) fn is_active(&self, port: PortId) -> bool {
        super::port::read(&self.active).contains(&port)
    }
}

/// Hashes what makes a conversation: addresses, and of IP also protocol and ports, so that its frames keep their order.
/// A fragment has no ports to look at, so a fragmented datagram is spread by its addresses alone.
fn hash(frame: &[u8]) -> u32 {
    let mut state = 0x811c_9dc5;
    let mut mix = |bytes: Option<&[u8]>| {
        for byte in bytes.unwrap_or_default() {
            // FNV-1a.
            state = (state ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    };
    mix(frame.get(..12));
    let ip = frame.get(14..).unwrap_or_default();
    match frame.get(12..14) {
        Some([0x08, 0x00]) => {
            mix(ip.get(12..20));
            mix(ip.get(9..10));
            let header = usize::from(ip.first().copied().unwrap_or(0) & 0x0f) * 4;
            let fragment = ip.get(6..8).is_some_and(|word| word[0] & 0x3f != 0 || word[1] != 0);
            if matches!(ip.get(9), Some(6 | 17)) && !fragment {
                mix(ip.get(header..header + 4));
            }
        }
        Some([0x86, 0xdd]) => {
            mix(ip.get(8..40));
            mix(ip.get(6..7));
            if matches!(ip.get(6), Some(6 | 17)) {
                mix(ip.get(40..44));
            }
        }
        _ => {}
    }
    // FNV's low bits are weak in short input; fold the high ones in.
    state ^ (state >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn udp(last: u8, port: u16, fragment: u8) -> Vec<u8> {
        let mut frame = vec![0; 14 + 20 + 8];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[14 + 7] = fragment;
        frame[14 + 9] = 17;
        frame[14 + 19] = last;
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame
    }

    #[test]
    fn a_conversation_keeps_its_link_and_many_use_all() {
        assert_eq!(hash(&udp(1, 5000, 0)), hash(&udp(1, 5000, 0)));
        let spread = |frames: Vec<Vec<u8>>| {
            let first = frames.iter().filter(|frame| hash(frame).is_multiple_of(2)).count();
            (frames.len() / 4..frames.len() * 3 / 4 + 1).contains(&first)
        };
        assert!(spread((0..200).map(|port| udp(1, port, 0)).collect()), "by port");
        assert!(spread((0..200).map(|last| udp(last, 7, 0)).collect()), "by address");
        // Only the first fragment has ports, and all fragments must take one way.
        assert_eq!(hash(&udp(1, 1, 9)), hash(&udp(1, 2, 9)));
        for length in 0..42 {
            hash(&udp(1, 1, 0)[..length]);
        }
    }
}
