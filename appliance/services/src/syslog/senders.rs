//! How much each sender sent lately, and what it lost.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Senders remembered; beyond that the quiet ones are forgotten, then everybody.
const MOST: usize = 4096;
/// Between two records about what a sender lost.
const TELL: Duration = Duration::from_secs(5);

struct Sender {
    tokens: f64,
    at: Instant,
    lost: u64,
    told: Instant,
}

#[derive(Default)]
pub(super) struct Senders {
    known: HashMap<IpAddr, Sender>,
}

impl Senders {
    /// Whether a message of this sender is kept.
    pub(super) fn take(&mut self, from: IpAddr, per_second: u32, now: Instant) -> bool {
        let full = f64::from(per_second) * 10.0;
        if self.known.len() >= MOST && !self.known.contains_key(&from) {
            self.known
                .retain(|_, sender| sender.lost > 0 || now.duration_since(sender.at) < Duration::from_secs(10));
            if self.known.len() >= MOST {
                self.known.clear();
            }
        }
        let sender = self.known.entry(from).or_insert(Sender {
            tokens: full,
            at: now,
            lost: 0,
            told: now,
        });
        let fresh = now.duration_since(sender.at).as_secs_f64() * f64::from(per_second);
        sender.tokens = (sender.tokens + fresh).min(full);
        sender.at = now;
        if sender.tokens >= 1.0 {
            sender.tokens -= 1.0;
            return true;
        }
        if sender.lost == 0 {
            sender.told = now;
        }
        sender.lost += 1;
        false
    }

    /// Who lost messages and was not told of for a while, and how many.
    pub(super) fn losers(&mut self, now: Instant, all: bool) -> Vec<(IpAddr, u64)> {
        let due = |sender: &Sender| sender.lost > 0 && (all || now.duration_since(sender.told) >= TELL);
        let mut out = Vec::new();
        for (address, sender) in self.known.iter_mut().filter(|(_, sender)| due(sender)) {
            out.push((*address, std::mem::take(&mut sender.lost)));
            sender.told = now;
        }
        out
    }

    /// When [`Self::losers`] has something to say.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let losers = self.known.values().filter(|sender| sender.lost > 0);
        losers.map(|sender| sender.told + TELL).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loud_sender_loses_the_rest_and_it_is_counted() {
        let (mut senders, now) = (Senders::default(), Instant::now());
        let (loud, quiet) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let kept = (0..150).filter(|_| senders.take(loud, 10, now)).count();
        assert_eq!((kept, senders.take(quiet, 10, now)), (100, true));
        assert_eq!(senders.losers(now, false), []);
        let later = now + TELL;
        assert_eq!(senders.deadline(), Some(later));
        assert_eq!(senders.losers(later, false), [(loud, 50)]);
        assert_eq!((senders.losers(later, true), senders.deadline()), (vec![], None));
        assert!(senders.take(loud, 10, later));
    }
}
