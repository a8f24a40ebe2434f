//! Bounds on what strangers make us send: source addresses of UDP can be anybody's.

use std::net::IpAddr;

/// Sources remembered. Two that share a place share its allowance.
const PLACES: usize = 1024;

/// A token bucket per /24 or /48 of sources, of fixed size whatever comes.
#[derive(Debug)]
pub struct Bucket {
    per_second: u32,
    /// Of each place: when it was filled last, in milliseconds, and thousandths of a token.
    places: Vec<(u64, u32)>,
}

impl Bucket {
    /// Allows each neighbourhood of sources `per_second` messages a second, and as many at once.
    pub fn new(per_second: u32) -> Self {
        let full = per_second.saturating_mul(1000);
        Self {
            per_second,
            places: vec![(0, full); PLACES],
        }
    }

    /// Takes a token for `source` at `now` (milliseconds); false when there is none left.
    pub fn take(&mut self, source: IpAddr, now: u64) -> bool {
        let near = match source {
            IpAddr::V4(v4) => u64::from(v4.to_bits() >> 8),
            IpAddr::V6(v6) => (v6.to_bits() >> 80) as u64,
        };
        let place = (near.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 54) as usize;
        let per_second = self.per_second;
        let Some((last, tokens)) = self.places.get_mut(place % PLACES) else {
            return false;
        };
        let fresh = now.saturating_sub(*last).min(1000) as u32;
        let filled = tokens.saturating_add(fresh.saturating_mul(per_second));
        *tokens = filled.min(per_second.saturating_mul(1000));
        *last = now;
        let taken = *tokens >= 1000;
        if taken {
            *tokens -= 1000;
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_gets_its_allowance_and_a_neighbour_network_its_own() {
        let mut bucket = Bucket::new(10);
        let (a, b) = ([192, 0, 2, 1].into(), [198, 51, 100, 1].into());
        let sent = |bucket: &mut Bucket, from, now| (0..100).filter(|_| bucket.take(from, now)).count();
        assert_eq!(sent(&mut bucket, a, 5000), 10);
        assert_eq!(sent(&mut bucket, [192, 0, 2, 200].into(), 5000), 0);
        assert_eq!(sent(&mut bucket, b, 5000), 10);
        assert_eq!(sent(&mut bucket, a, 5500), 5);
    }
}
