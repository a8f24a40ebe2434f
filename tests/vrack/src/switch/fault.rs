//! How a link misbehaves. Loss is drawn from a seeded generator, so a run can be repeated.

use std::sync::Arc;
use std::time::Duration;

use super::flip;

/// What is wrong with a link, both directions alike.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Fault {
    /// Part of the frames lost, 0.0 to 1.0.
    pub loss: f64,
    /// Seed of the loss: the same seed and the same frames lose the same frames.
    pub seed: u64,
    /// Time every frame is held back, once in each direction.
    pub delay: Duration,
    /// Nothing passes and the port counts as down: a pulled cable. A guest's carrier stays up on its own; drop it too
    /// with `set_link` of [`crate::qmp`].
    pub cut: bool,
    /// DHCP answers without an address (ProxyDHCP) do not reach the device: firmware that ignores them.
    pub no_proxy_offers: bool,
    /// One bit of what the device gets from web servers over plain HTTP (TCP port 80, IPv4) is another, once: of the octet
    /// after so many. Checksums fit all the same.
    pub flips_after: Option<u64>,
}

impl Fault {
    /// A link that loses this part of its frames.
    pub fn loss(part: f64, seed: u64) -> Self {
        Self {
            loss: part,
            seed,
            ..Self::default()
        }
    }

    /// A link that holds every frame back.
    pub fn delay(delay: Duration) -> Self {
        Self {
            delay,
            ..Self::default()
        }
    }

    /// Firmware that ignores ProxyDHCP.
    pub fn no_proxy_offers() -> Self {
        Self {
            no_proxy_offers: true,
            ..Self::default()
        }
    }

    /// A line on which one bit is another, after so many octets from web servers.
    pub fn flips_after(octets: u64) -> Self {
        Self {
            flips_after: Some(octets),
            ..Self::default()
        }
    }

    /// A pulled cable.
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }
}

impl Fault {
    /// What is wrong, for a timeline.
    pub(super) fn in_words(&self) -> String {
        let mut words = Vec::new();
        if self.cut {
            words.push("its cable pulled".to_owned());
        }
        if self.loss > 0.0 {
            words.push(format!("{} % loss", self.loss * 100.0));
        }
        if !self.delay.is_zero() {
            words.push(format!("{} ms of delay", self.delay.as_millis()));
        }
        if self.no_proxy_offers {
            words.push("no proxy offers".to_owned());
        }
        if let Some(octets) = self.flips_after {
            words.push(format!("one bit another after {octets} octets by HTTP"));
        }
        if words.is_empty() {
            words.push("no fault".to_owned());
        }
        words.join(", ")
    }
}

/// A fault at work.
#[derive(Default)]
pub(super) struct FaultState {
    pub(super) fault: Fault,
    random: u64,
    /// Octets from web servers that passed while one bit of them was still to be another.
    passed: u64,
    flipped: bool,
}

impl FaultState {
    pub(super) fn new(fault: Fault) -> Self {
        Self {
            fault,
            random: fault.seed,
            passed: 0,
            flipped: false,
        }
    }

    /// What arrives in place of a frame to the device, where that is not what was sent.
    pub(super) fn garbles(&mut self, frame: &[u8]) -> Option<Arc<[u8]>> {
        let after = self.fault.flips_after.filter(|_| !self.flipped)?;
        let at = usize::try_from(after.saturating_sub(self.passed)).ok()?;
        self.passed = self.passed.saturating_add(flip::carried(frame) as u64);
        let arrived = flip::flipped(frame, at)?;
        self.flipped = true;
        Some(arrived.into())
    }

    /// Draws whether this frame is lost.
    pub(super) fn loses(&mut self) -> bool {
        self.fault.loss > 0.0 && unit(splitmix(&mut self.random)) < self.fault.loss
    }
}

/// True for a DHCP answer over IPv4 that gives no address (RFC 2131 section 2: `op` 2, `yiaddr` zero).
pub(super) fn is_proxy_offer(frame: &[u8]) -> bool {
    const ETHERNET: usize = 14;
    let Some(ip) = frame.get(ETHERNET..).filter(|_| frame.get(12..14) == Some(&[8, 0])) else {
        return false;
    };
    let header = usize::from(ip.first().copied().unwrap_or(0) & 0x0f) * 4;
    let udp = ip.get(header..).filter(|_| ip.get(9) == Some(&17)).unwrap_or_default();
    let from = udp.first_chunk().copied().map(u16::from_be_bytes);
    let bootp = udp.get(8..).unwrap_or_default();
    matches!(from, Some(67 | 4011)) && bootp.first() == Some(&2) && bootp.get(16..20) == Some(&[0; 4])
}

/// SplitMix64 (Steele, Lea, Flood 2014): good enough to drop frames, and seedable with any value including zero.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A number in 0.0..1.0 from the upper 53 bits.
fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_offer_is_told_from_all_else() {
        let mut frame = vec![0; 14 + 20 + 8 + 240];
        frame[12] = 8;
        frame[14] = 0x45;
        frame[14 + 9] = 17;
        frame[34..36].copy_from_slice(&67u16.to_be_bytes());
        frame[42] = 2;
        assert!(is_proxy_offer(&frame));
        for (at, value) in [(12, 0x86), (23, 6), (35, 69), (42, 1), (42 + 16, 10)] {
            let mut other = frame.clone();
            other[at] = value;
            assert!(!is_proxy_offer(&other), "octet {at}");
        }
        assert!((0..60).all(|len| !is_proxy_offer(&frame[..len])), "cut short");
    }

    #[test]
    fn loses_about_the_part_it_was_told_and_the_same_frames_again() {
        let draw = |seed| {
            let mut state = FaultState::new(Fault::loss(0.2, seed));
            (0..10_000).map(|_| state.loses()).collect::<Vec<_>>()
        };
        let lost = draw(7).iter().filter(|lost| **lost).count();
        assert!((1_800..2_200).contains(&lost), "{lost}");
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7), draw(8));
    }
}
