//! The sliding window of accepted session sequence numbers (section 6.12.13): late packets count once, replayed and
//! far-off ones not at all.

/// How far behind the newest packet a late one may be, and how far ahead a new one (section 6.12.13: eight).
const BEHIND: u32 = 8;
/// The specification says 8 ahead for authenticated sessions, but serial-over-LAN bursts that lose a few datagrams
/// would then stall the session for good; real consoles accept more. 16 bits of numbers are never reused in a session.
const AHEAD: u32 = 64;

/// Which sequence numbers were seen. Numbers start at 1; 0 marks a packet outside any session.
#[derive(Clone, Copy, Debug, Default)]
pub struct Window {
    newest: u32,
    /// Bit `n` set: `newest - n` was seen.
    seen: u32,
}

impl Window {
    /// True when `number` is new and near enough; it is then remembered. Call only after the packet's authentication
    /// code was checked, or a forger could push the window away.
    pub fn accept(&mut self, number: u32) -> bool {
        if number == 0 {
            return false;
        }
        if number > self.newest {
            let step = number - self.newest;
            if step > AHEAD {
                return false;
            }
            self.seen = self.seen.checked_shl(step).unwrap_or(0) | 1;
            self.newest = number;
            return true;
        }
        let age = self.newest - number;
        let bit = 1u32.checked_shl(age).unwrap_or(0);
        if age > BEHIND || self.seen & bit != 0 {
            return false;
        }
        self.seen |= bit;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn takes_late_packets_once() {
        let mut window = Window::default();
        assert!(!window.accept(0));
        assert!(window.accept(1) && window.accept(3) && window.accept(2));
        assert!(!window.accept(2) && !window.accept(3));
        assert!(window.accept(20) && !window.accept(11) && window.accept(12));
        assert!(!window.accept(20 + AHEAD + 1), "a jump is not followed");
        assert!(window.accept(20 + AHEAD));
    }

    proptest! {
        #[test]
        fn no_number_counts_twice(numbers in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut window = Window::default();
            let mut taken = std::collections::HashSet::new();
            for number in numbers {
                if window.accept(u32::from(number)) {
                    prop_assert!(taken.insert(number));
                }
            }
        }
    }
}
