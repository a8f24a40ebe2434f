//! Digests that indexes of packages promise, by key. A million of them take some 60 MB, and of SHA-512 140; no more are kept: the
//! oldest lists go first, and nobody's lists take more than half of the room.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rackbar_upstream::Sum;

/// So many are kept.
const MOST: usize = 1_000_000;

/// More turns than a store has lists.
const STORED: u64 = 1 << 32;

pub(crate) struct Promises {
    state: Mutex<State>,
    /// Keys are known by their hash, with a seed that nobody outside knows: nobody can make two keys meet on purpose.
    seed: RandomState,
    most: usize,
}

/// A digest as it is kept. Most are SHA-256, and none of them takes the room of the longer ones.
enum Short {
    Sha256([u8; 32]),
    Sha512(Box<[u8; 64]>),
}

impl Short {
    fn of(sum: Sum) -> Self {
        match sum {
            Sum::Sha256(sum) => Self::Sha256(sum),
            Sum::Sha512(sum) => Self::Sha512(Box::new(sum)),
        }
    }

    fn sum(&self) -> Sum {
        match self {
            Self::Sha256(sum) => Sum::Sha256(*sum),
            Self::Sha512(sum) => Sum::Sha512(**sum),
        }
    }
}

#[derive(Default)]
struct State {
    /// Digests by keys, each with the list that said it last.
    all: HashMap<u64, (Short, u64)>,
    /// The lists that some are left of, in the order they were read in.
    lists: BTreeMap<u64, List>,
    /// How many each upstream promises.
    owners: HashMap<u64, usize>,
    next: u64,
}

struct List {
    owner: u64,
    count: usize,
}

/// When a list came, among all: of two that speak of one file the later one is believed, whichever is read first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn(u64);

/// A list that is being read.
pub(crate) struct Reading {
    list: u64,
    owner: u64,
    /// There is no room for more of it.
    full: bool,
}

impl Default for Promises {
    fn default() -> Self {
        Self::of(MOST)
    }
}

/// Whose a list is: the mirror's, or the origin's.
fn owner(key: &str) -> &str {
    let parts = if key.contains("://") { 3 } else { 1 };
    let end = key.match_indices('/').nth(parts - 1).map_or(key.len(), |(at, _)| at);
    key.get(..end).unwrap_or(key)
}

impl Promises {
    fn of(most: usize) -> Self {
        Self {
            state: Mutex::default(),
            seed: RandomState::new(),
            most,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The turn of a list that comes now.
    pub(crate) fn turn(&self) -> Turn {
        let mut state = self.state();
        state.next = state.next.saturating_add(1);
        Turn(state.next)
    }

    /// Turns of the lists that are there now, one after the other: reading all of them takes a while, and what comes meanwhile
    /// is later than any.
    pub(crate) fn turns_of_stored(&self) -> impl Iterator<Item = Turn> {
        let mut state = self.state();
        let first = state.next.saturating_add(1);
        state.next = state.next.saturating_add(STORED);
        (first..=state.next).map(Turn)
    }

    /// Begins a list with this key.
    pub(crate) fn read(&self, key: &str, turn: Turn) -> Reading {
        let owner = self.seed.hash_one(owner(key));
        let (list, full) = (turn.0, false);
        Reading { list, owner, full }
    }

    /// Keeps what a list says of a key, unless a later one spoke of it. False when there is no room for it: the list alone has all that one may have.
    pub(crate) fn add(&self, reading: &mut Reading, key: &str, sum: Sum) -> bool {
        let hash = self.seed.hash_one(crate::rules::target::plain(key));
        let mut state = self.state();
        let known = state.all.get(&hash).map(|(_, list)| *list);
        if known.is_some_and(|later| later > reading.list) {
            return true;
        }
        if known.is_none() && !reading.full {
            reading.full = !state.make_room(reading, self.most);
        }
        if known.is_none() && reading.full {
            return false;
        }
        if let Some(old) = known {
            state.take_from(old, 1);
        }
        let (list, owner) = (reading.list, reading.owner);
        state.lists.entry(list).or_insert(List { owner, count: 0 }).count += 1;
        *state.owners.entry(owner).or_default() += 1;
        state.all.insert(hash, (Short::of(sum), list));
        true
    }

    pub(crate) fn of_key(&self, key: &str) -> Option<Sum> {
        let state = self.state();
        if state.all.is_empty() {
            return None;
        }
        let hash = self.seed.hash_one(crate::rules::target::plain(key));
        state.all.get(&hash).map(|(short, _)| short.sum())
    }
}

impl State {
    /// Notes that so many are a list's no longer.
    fn take_from(&mut self, list: u64, count: usize) {
        let Some(one) = self.lists.get_mut(&list) else { return };
        one.count = one.count.saturating_sub(count);
        let (owner, empty) = (one.owner, one.count == 0);
        if empty {
            self.lists.remove(&list);
        }
        if let Some(all) = self.owners.get_mut(&owner) {
            *all = all.saturating_sub(count);
            if *all == 0 {
                self.owners.remove(&owner);
            }
        }
    }

    /// Has lists go until there is room for one more; false when only the list that is being read could.
    fn make_room(&mut self, reading: &Reading, most: usize) -> bool {
        let each = self.owners.get(&reading.owner).copied().unwrap_or(0);
        let from = if each >= most / 2 {
            reading.owner
        } else if self.all.len() >= most {
            let largest = self.owners.iter().max_by_key(|(_, count)| **count);
            largest.map_or(reading.owner, |(owner, _)| *owner)
        } else {
            return true;
        };
        let (mut going, mut freed) = (Vec::new(), 0);
        let others = self
            .lists
            .iter()
            .filter(|(number, list)| list.owner == from && **number != reading.list);
        for (number, list) in others {
            // Some more than is necessary: all there are are looked through for them.
            if freed > most / 16 {
                break;
            }
            going.push(*number);
            freed += list.count;
        }
        if going.is_empty() {
            return false;
        }
        self.all.retain(|_, (_, list)| going.binary_search(list).is_err());
        for number in going {
            let count = self.lists.get(&number).map_or(0, |list| list.count);
            self.take_from(number, count);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(promises: &Promises, root: &str, names: std::ops::Range<u32>) -> usize {
        let mut reading = promises.read(&format!("{root}Packages"), promises.turn());
        names
            .filter(|name| promises.add(&mut reading, &format!("{root}{name}"), Sum::Sha256([7; 32])))
            .count()
    }

    fn left(promises: &Promises, root: &str, names: std::ops::Range<u32>) -> usize {
        names
            .filter(|name| promises.of_key(&format!("{root}{name}")).is_some())
            .count()
    }

    #[test]
    fn old_lists_make_room_for_new_ones_and_nobody_takes_that_of_others() {
        let promises = Promises::of(160);
        let (mirror, other) = ("mirror:debian/", "http://a.example/x/");
        assert_eq!(list(&promises, other, 0..20), 20);
        // What is said again is the newest list's.
        for turn in 0..50 {
            assert_eq!(list(&promises, mirror, turn * 10..turn * 10 + 30), 30, "{turn}");
        }
        assert_eq!(left(&promises, other, 0..20), 20);
        let kept = left(&promises, mirror, 0..520);
        assert!((60..=80).contains(&kept), "{kept}");
        assert_eq!(left(&promises, mirror, 490..520), 30, "the newest are there");
        assert_eq!(left(&promises, mirror, 0..400), 0, "the oldest are not");
        // One list has no more than half, and keeps what it has.
        assert_eq!(list(&promises, other, 1000..1200), 80);
        assert_eq!(left(&promises, other, 1000..1080), 80);
        let state = promises.state();
        assert!(state.all.len() <= 160);
        assert_eq!(
            state.lists.values().map(|list| list.count).sum::<usize>(),
            state.all.len()
        );
        assert_eq!(state.owners.values().sum::<usize>(), state.all.len());
    }

    #[test]
    fn a_list_that_was_there_before_is_not_believed_against_one_that_came_while_it_waited() {
        let promises = Promises::of(160);
        let (root, old, new) = ("mirror:debian/", Sum::Sha256([1; 32]), Sum::Sha512([2; 64]));
        let stored: Vec<Turn> = promises.turns_of_stored().take(2).collect();
        let says = |turn: Turn, sum| {
            let mut reading = promises.read(root, turn);
            assert!(promises.add(&mut reading, "mirror:debian/main/Packages", sum));
            promises.of_key("mirror:debian/main/Packages")
        };
        assert_eq!(says(stored[0], new), Some(new));
        assert_eq!(says(stored[1], old), Some(old), "of what was stored the later counts");
        let (first, second) = (promises.turn(), promises.turn());
        assert_eq!(says(second, new), Some(new));
        assert_eq!(says(stored[1], old), Some(new));
        assert_eq!(says(first, old), Some(new));
        let state = promises.state();
        assert_eq!((state.all.len(), state.lists.len()), (1, 1));
        drop(state);
        // All is read anew when a pack came: what is stored by then is as new as anything.
        let again = promises.turns_of_stored().next().unwrap();
        assert_eq!(says(again, old), Some(old));
    }

    #[test]
    fn lists_are_their_mirrors_or_origins() {
        assert_eq!(owner("mirror:debian/dists/x/InRelease"), "mirror:debian");
        assert_eq!(owner("http://a.example:8080/x/y"), "http://a.example:8080");
        assert_eq!(owner("http://a.example"), "http://a.example");
    }
}
