//! Requests that wait for a place: who asked first is served first.
//!
//! A TFTP client repeats its request until it is answered, so an answer to one that it sent some seconds ago still reaches
//! it. Without a queue a place would go to whoever happens to repeat first, and a slow repeater could wait for ever.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A client that did not repeat its request for so long has given up: iPXE's waits grow to 16 s, EDK2 waits 4 s.
const GIVEN_UP: Duration = Duration::from_secs(20);

/// Requests that wait, in the order in which they first came. `T` is what the caller wants to know of each.
#[derive(Debug)]
pub struct Queue<T> {
    most: usize,
    per_client: usize,
    next: u64,
    waiting: BTreeMap<u64, Waiting<T>>,
    tickets: HashMap<SocketAddr, u64>,
    of_client: HashMap<IpAddr, usize>,
}

/// A request that waits.
#[derive(Debug)]
pub struct Waiting<T> {
    /// Who asked.
    pub client: SocketAddr,
    /// The datagram.
    pub request: Vec<u8>,
    /// What the caller gave with it.
    pub about: T,
    asked: Duration,
    heard: Duration,
}

/// What became of a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Queued {
    /// It waits from now on.
    New,
    /// It waited already, and keeps its turn.
    Again,
    /// There is no room, or its address has its share of it.
    Full,
}

impl<T> Queue<T> {
    /// An empty queue for up to `most` requests, `per_client` of them of one address.
    pub fn new(most: usize, per_client: usize) -> Self {
        Self {
            most,
            per_client,
            next: 0,
            waiting: BTreeMap::new(),
            tickets: HashMap::new(),
            of_client: HashMap::new(),
        }
    }

    /// Requests that wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// True when none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Who waits and since when, the next one first.
    pub fn iter(&self) -> impl Iterator<Item = (SocketAddr, Duration)> + '_ {
        self.waiting.values().map(|waiting| (waiting.client, waiting.asked))
    }

    /// Lets a request wait. One from the same port takes the place of the one before, and its turn.
    pub fn push(&mut self, now: Duration, client: SocketAddr, request: &[u8], about: T) -> Queued {
        let mut waiting = Waiting {
            client,
            request: request.to_vec(),
            about,
            asked: now,
            heard: now,
        };
        if let Some(before) = self
            .tickets
            .get(&client)
            .and_then(|ticket| self.waiting.get_mut(ticket))
        {
            waiting.asked = before.asked;
            std::mem::swap(before, &mut waiting);
            return Queued::Again;
        }
        if self.waiting.len() >= self.most {
            self.drop_gone(now);
        }
        let own = self.of_client.get(&client.ip()).copied().unwrap_or(0);
        if self.waiting.len() >= self.most || own >= self.per_client {
            return Queued::Full;
        }
        self.next += 1;
        self.waiting.insert(self.next, waiting);
        self.tickets.insert(client, self.next);
        *self.of_client.entry(client.ip()).or_default() += 1;
        Queued::New
    }

    /// Takes out the request whose turn it is; those whose client has given up are passed over.
    pub fn pop(&mut self, now: Duration) -> Option<Waiting<T>> {
        loop {
            let ticket = *self.waiting.first_key_value()?.0;
            let first = self.take(ticket)?;
            if now.saturating_sub(first.heard) < GIVEN_UP {
                return Some(first);
            }
        }
    }

    /// Room is made only where nobody waits behind it any more: from the front, as far as clients have given up.
    fn drop_gone(&mut self, now: Duration) {
        while let Some((&ticket, first)) = self.waiting.first_key_value()
            && now.saturating_sub(first.heard) >= GIVEN_UP
        {
            self.take(ticket);
        }
    }

    fn take(&mut self, ticket: u64) -> Option<Waiting<T>> {
        let waiting = self.waiting.remove(&ticket)?;
        self.tickets.remove(&waiting.client);
        if let Some(own) = self.of_client.get_mut(&waiting.client.ip()) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                self.of_client.remove(&waiting.client.ip());
            }
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn client(host: u8, port: u16) -> SocketAddr {
        ([10, 0, 0, host], port).into()
    }

    fn turns(queue: &mut Queue<()>, now: Duration) -> Vec<(SocketAddr, Vec<u8>)> {
        std::iter::from_fn(|| queue.pop(now))
            .map(|waiting| (waiting.client, waiting.request))
            .collect()
    }

    #[test]
    fn who_asked_first_is_served_first_and_keeps_its_turn_when_it_repeats() {
        let mut queue = Queue::new(9, 9);
        assert_eq!(queue.push(at(0), client(1, 1), b"a", ()), Queued::New);
        assert_eq!(queue.push(at(1), client(2, 1), b"b", ()), Queued::New);
        assert_eq!(queue.push(at(2), client(1, 1), b"c", ()), Queued::Again);
        let waiting: Vec<_> = queue.iter().collect();
        assert_eq!(waiting, [(client(1, 1), at(0)), (client(2, 1), at(1))]);
        assert_eq!(
            turns(&mut queue, at(3)),
            [(client(1, 1), b"c".to_vec()), (client(2, 1), b"b".to_vec())]
        );
        assert!(queue.is_empty() && queue.tickets.is_empty() && queue.of_client.is_empty());
    }

    #[test]
    fn a_client_that_gave_up_is_passed_over() {
        let mut queue = Queue::new(9, 9);
        for host in [1, 2] {
            assert_eq!(queue.push(at(0), client(host, 1), b"a", ()), Queued::New);
        }
        assert_eq!(queue.push(at(15), client(2, 1), b"a", ()), Queued::Again);
        assert_eq!(turns(&mut queue, at(21)), [(client(2, 1), b"a".to_vec())]);
    }

    #[test]
    fn nobody_takes_more_than_its_share_and_those_who_gave_up_make_room() {
        let mut queue = Queue::new(3, 2);
        let mut push = |seconds, host, port| queue.push(at(seconds), client(host, port), b"a", ());
        assert_eq!(
            (push(0, 1, 1), push(0, 1, 2), push(0, 1, 3)),
            (Queued::New, Queued::New, Queued::Full)
        );
        assert_eq!((push(1, 2, 1), push(1, 3, 1)), (Queued::New, Queued::Full));
        assert_eq!((push(20, 3, 1), push(20, 1, 3)), (Queued::New, Queued::New));
    }

    proptest! {
        #[test]
        fn it_stays_within_its_bounds_and_forgets_nobody_it_counts(
            asks in proptest::collection::vec((0u8..6, 0u16..6, 0u64..3, any::<bool>()), 0..200)
        ) {
            let (mut queue, mut now) = (Queue::new(8, 3), 0);
            for (host, port, seconds, pop) in asks {
                now += seconds;
                if pop {
                    queue.pop(at(now));
                } else {
                    let _ = queue.push(at(now), client(host, port), &[host], ());
                }
                prop_assert!(queue.len() <= 8 && queue.of_client.values().all(|own| (1..=3).contains(own)));
                prop_assert_eq!(queue.of_client.values().sum::<usize>(), queue.len());
                prop_assert_eq!(queue.tickets.len(), queue.len());
            }
        }
    }
}
