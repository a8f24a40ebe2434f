//! Servers by name: which names are to be looked up, when, and which addresses of theirs are asked.
//!
//! ```text
//!  no address ── looked up ──▶ asked ── all answer ──▶ asked, not looked up again
//!      ▲                         │ one is silent, after a pause that doubles
//!      └── none found, pause ◀───┴─ looked up: who answers stays, the silent make room for others
//! ```
//! A pool gives other addresses each time it is asked, so an address is kept for as long as it answers, whatever the name says
//! meanwhile. One lookup at a time.

use std::net::SocketAddr;

/// Addresses of one name that are asked: enough to outvote a wrong one.
pub const MOST_OF_A_NAME: usize = 4;
/// Milliseconds between two lookups of a name at first.
const PAUSE: u64 = 8_000;
/// And at most.
const LONGEST_PAUSE: u64 = 1_024_000;
/// Milliseconds after which a lookup counts as lost.
const PATIENCE: u64 = 120_000;

/// A server by name.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct ServerName {
    /// A host name (RFC 1123 section 2.1).
    pub name: String,
    /// UDP port, 123 usually.
    pub port: u16,
}

/// How a name is doing, for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NameSight {
    /// The name.
    pub name: String,
    /// Its addresses that are asked.
    pub addresses: Vec<SocketAddr>,
    /// Why the last lookup gave nothing; `None` when it gave something, or none has ended yet.
    pub trouble: Option<String>,
}

#[derive(Debug)]
struct Named {
    server: ServerName,
    addresses: Vec<SocketAddr>,
    trouble: Option<String>,
    /// Not looked up before.
    next: u64,
    pause: u64,
}

/// All names. Times are monotonic milliseconds.
#[derive(Debug, Default)]
pub struct Names {
    named: Vec<Named>,
    /// The lookup that is under way, and when it is given up.
    under_way: Option<(ServerName, u64)>,
}

impl Names {
    /// Takes other names; those that stay keep their addresses.
    pub fn configure(&mut self, servers: &[ServerName], now: u64) {
        let mut before = std::mem::take(&mut self.named);
        for server in servers {
            if self.named.iter().any(|one| one.server == *server) {
                continue;
            }
            let known = before.iter().position(|one| one.server == *server);
            self.named.push(match known {
                Some(at) => before.swap_remove(at),
                None => Named {
                    server: server.clone(),
                    addresses: Vec::new(),
                    trouble: None,
                    next: now,
                    pause: PAUSE,
                },
            });
        }
    }

    /// The name to look up now, if any; the caller looks it up and says [`Self::found`]. `answers` tells of an address
    /// whether it answers.
    pub fn due(&mut self, now: u64, answers: impl Fn(SocketAddr) -> bool) -> Option<ServerName> {
        for one in &mut self.named {
            if !one.wants(&answers) {
                one.pause = PAUSE;
            }
        }
        if self.under_way.as_ref().is_some_and(|(_, until)| now < *until) {
            return None;
        }
        // The one that has waited longest: a name that never resolves keeps no other from its turn.
        let waiting = self
            .named
            .iter_mut()
            .filter(|one| one.next <= now && one.wants(&answers));
        let one = waiting.min_by_key(|one| one.next)?;
        one.next = now.saturating_add(one.pause);
        one.pause = one.pause.saturating_mul(2).min(LONGEST_PAUSE);
        self.under_way = Some((one.server.clone(), now.saturating_add(PATIENCE)));
        Some(one.server.clone())
    }

    /// A lookup ended with addresses, or why there are none. The pause to the next begins.
    pub fn found(
        &mut self,
        server: &ServerName,
        result: Result<Vec<SocketAddr>, String>,
        answers: impl Fn(SocketAddr) -> bool,
    ) {
        if self.under_way.as_ref().is_some_and(|(one, _)| one == server) {
            self.under_way = None;
        }
        let Some(one) = self.named.iter_mut().find(|one| one.server == *server) else {
            return;
        };
        match result {
            Ok(list) if !list.is_empty() => {
                one.trouble = None;
                let before = std::mem::take(&mut one.addresses);
                let kept = before.into_iter().filter(|at| answers(*at));
                for at in kept.chain(list) {
                    if one.addresses.len() < MOST_OF_A_NAME && !one.addresses.contains(&at) {
                        one.addresses.push(at);
                    }
                }
            }
            // What was known stays: silence of a resolver must not cost a server.
            Ok(_) => one.trouble = Some("it has no address".into()),
            Err(why) => one.trouble = Some(why),
        }
    }

    /// When [`Self::due`] is to be asked by itself: for names without any address. Servers that fall silent are seen when they are
    /// asked.
    pub fn deadline(&self) -> Option<u64> {
        let without = self.named.iter().filter(|one| one.addresses.is_empty());
        let next = without.map(|one| one.next).min()?;
        Some(match &self.under_way {
            Some((_, until)) => next.max(*until),
            None => next,
        })
    }

    /// Every address that is to be asked, each once, behind those that were named by address.
    pub fn servers(&self, by_address: &[SocketAddr]) -> Vec<SocketAddr> {
        let mut all = Vec::new();
        let named = self.named.iter().flat_map(|one| &one.addresses);
        for at in by_address.iter().chain(named) {
            if !all.contains(at) {
                all.push(*at);
            }
        }
        all
    }

    /// How each name is doing.
    pub fn sights(&self) -> Vec<NameSight> {
        let of = |one: &Named| NameSight {
            name: one.server.name.clone(),
            addresses: one.addresses.clone(),
            trouble: one.trouble.clone(),
        };
        self.named.iter().map(of).collect()
    }
}

impl Named {
    /// Whether another address would help.
    fn wants(&self, answers: impl Fn(SocketAddr) -> bool) -> bool {
        self.addresses.is_empty() || !self.addresses.iter().all(|at| answers(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(name: &str) -> ServerName {
        ServerName {
            name: name.into(),
            port: 123,
        }
    }

    fn at(last: u8) -> SocketAddr {
        ([192, 0, 2, last], 123).into()
    }

    fn names(all: &[&str]) -> Names {
        let mut names = Names::default();
        names.configure(&all.iter().map(|one| name(one)).collect::<Vec<_>>(), 0);
        names
    }

    #[test]
    fn a_name_that_answers_is_looked_up_once_and_one_that_falls_silent_again_after_a_pause() {
        let mut names = names(&["pool"]);
        assert_eq!(
            (names.deadline(), names.due(0, |_| false)),
            (Some(0), Some(name("pool")))
        );
        assert_eq!(names.due(1, |_| false), None, "one at a time");
        names.found(&name("pool"), Ok((1..9).map(at).collect()), |_| false);
        assert_eq!(names.servers(&[at(1), at(77)]), [at(1), at(77), at(2), at(3), at(4)]);
        for now in [PAUSE, LONGEST_PAUSE, 10 * LONGEST_PAUSE] {
            assert_eq!((names.due(now, |_| true), names.deadline()), (None, None));
        }
        // The second falls silent: it makes room, the others stay although the pool tells of none of them.
        let now = 20 * LONGEST_PAUSE;
        let answers = |one| one != at(2);
        assert_eq!(names.due(now, answers), Some(name("pool")));
        names.found(&name("pool"), Ok(vec![at(11), at(12)]), answers);
        assert_eq!(names.servers(&[]), [at(1), at(3), at(4), at(11)]);
        // And while it stays so, lookups have pauses that double.
        let mut last = now;
        for pause in [PAUSE, 2 * PAUSE, 4 * PAUSE] {
            assert_eq!(names.due(last + pause - 1, |_| false), None);
            last += pause;
            assert_eq!(names.due(last, |_| false), Some(name("pool")));
            names.found(&name("pool"), Err("no answer".into()), |_| false);
        }
        assert_eq!(names.servers(&[]).len(), 4, "a silent resolver costs no server");
        assert_eq!(names.sights()[0].trouble.as_deref(), Some("no answer"));
    }

    #[test]
    fn a_name_without_an_address_says_why_and_keeps_no_other_from_its_turn() {
        let mut names = names(&["typo", "time"]);
        assert_eq!(names.due(0, |_| false), Some(name("typo")));
        names.found(&name("typo"), Ok(Vec::new()), |_| false);
        assert_eq!(names.due(0, |_| false), Some(name("time")));
        // A lookup that never ends is given up.
        assert_eq!(names.deadline(), Some(PATIENCE));
        assert_eq!(names.due(PATIENCE, |_| false), Some(name("typo")));
        names.found(&name("typo"), Err("no such name".into()), |_| false);
        names.found(&name("time"), Ok(vec![at(1)]), |_| false);
        let sights = names.sights();
        assert_eq!(sights[0].trouble.as_deref(), Some("no such name"));
        assert_eq!((&sights[1].addresses, &sights[1].trouble), (&vec![at(1)], &None));
        // Names that stay keep what they have; what comes for one that went is nothing.
        names.configure(&[name("time"), name("new"), name("time")], 5);
        names.found(&name("typo"), Ok(vec![at(9)]), |_| false);
        assert_eq!(names.servers(&[]), [at(1)]);
        assert_eq!(names.sights().len(), 2);
    }

    proptest! {
        #[test]
        fn lookups_are_never_closer_than_the_pause(steps in proptest::collection::vec((0_u64..40_000, any::<u8>(), any::<bool>()), 1..200)) {
            let mut names = names(&["a", "b"]);
            let (mut now, mut last) = (0, std::collections::HashMap::new());
            for (pause, bits, fails) in steps {
                now += pause;
                let answers = |one: SocketAddr| bits & 1 << (one.port() % 8) != 0;
                if let Some(server) = names.due(now, answers) {
                    let before = last.insert(server.clone(), now);
                    prop_assert!(before.is_none_or(|before| now - before >= PAUSE));
                    let list = (0..u16::from(bits % 7)).map(|port| ([192, 0, 2, 1], port).into()).collect();
                    names.found(&server, if fails { Err("no".into()) } else { Ok(list) }, answers);
                }
                prop_assert!(names.sights().iter().all(|one| one.addresses.len() <= MOST_OF_A_NAME));
            }
        }
    }
}
