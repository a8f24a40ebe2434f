//! Addresses nobody has ever had: a bitmap with a second level, so that finding one costs the same in a pool of ten
//! and in a pool of a million.

use std::net::Ipv4Addr;

use crate::Range;

/// The addresses of some ranges, numbered through, each free or taken.
#[derive(Clone, Debug, Default)]
pub(crate) struct FreeMap {
    /// First address of each range, how many, and the number of the first.
    ranges: Vec<(u32, u32, u32)>,
    len: u32,
    /// One bit an address; set is free.
    bits: Vec<u64>,
    /// One bit a word of `bits`; set when that word is not zero.
    summary: Vec<u64>,
    free: u32,
}

impl FreeMap {
    /// All addresses of `ranges` that pass `wanted`, free; at most `limit` are considered. Overlaps count once.
    pub(crate) fn new(ranges: &[Range], limit: usize, wanted: impl Fn(Ipv4Addr) -> bool) -> Self {
        let mut sorted: Vec<_> = ranges.iter().map(|r| (r.first.to_bits(), r.last.to_bits())).collect();
        sorted.retain(|(first, last)| first <= last);
        sorted.sort_unstable();
        let mut map = Self::default();
        let mut next = 0u64;
        for (first, last) in sorted {
            let first = u64::from(first).max(next);
            let room = (limit as u64).saturating_sub(u64::from(map.len));
            let count = (u64::from(last) + 1).saturating_sub(first).min(room);
            if count > 0 {
                map.ranges.push((first as u32, count as u32, map.len));
                map.len += count as u32;
                next = first + count;
            }
        }
        map.bits = vec![0; (map.len as usize).div_ceil(64)];
        map.summary = vec![0; map.bits.len().div_ceil(64)];
        for index in 0..map.len {
            let address = map.address(index);
            if wanted(address) {
                map.give(address);
            }
        }
        map
    }

    /// Addresses in the ranges.
    pub(crate) fn len(&self) -> u32 {
        self.len
    }

    /// Free ones among them.
    pub(crate) fn free(&self) -> u32 {
        self.free
    }

    /// True when the address belongs to the ranges.
    pub(crate) fn contains(&self, address: Ipv4Addr) -> bool {
        self.index(address).is_some()
    }

    /// True when it is free.
    pub(crate) fn is_free(&self, address: Ipv4Addr) -> bool {
        self.index(address)
            .is_some_and(|i| self.bits[i as usize / 64] >> (i % 64) & 1 == 1)
    }

    /// Marks it taken.
    pub(crate) fn take(&mut self, address: Ipv4Addr) {
        if self.is_free(address)
            && let Some(i) = self.index(address)
        {
            let word = i as usize / 64;
            self.bits[word] &= !(1 << (i % 64));
            if self.bits[word] == 0 {
                self.summary[word / 64] &= !(1 << (word % 64));
            }
            self.free -= 1;
        }
    }

    /// Marks it free; nothing for addresses outside the ranges.
    pub(crate) fn give(&mut self, address: Ipv4Addr) {
        if !self.is_free(address)
            && let Some(i) = self.index(address)
        {
            let word = i as usize / 64;
            self.bits[word] |= 1 << (i % 64);
            self.summary[word / 64] |= 1 << (word % 64);
            self.free += 1;
        }
    }

    /// The first free address at or after the place `hint` points to, going round.
    pub(crate) fn pick(&self, hint: u64) -> Option<Ipv4Addr> {
        if self.free == 0 {
            return None;
        }
        let start = (hint % u64::from(self.len)) as usize;
        let word = start / 64;
        let here = self.bits[word] & (u64::MAX << (start % 64));
        let found = if here != 0 {
            word * 64 + here.trailing_zeros() as usize
        } else {
            let word = self.word_after(word + 1).or_else(|| self.word_after(0))?;
            word * 64 + self.bits[word].trailing_zeros() as usize
        };
        Some(self.address(found as u32))
    }

    /// The first word at or after `from` with a free address in it.
    fn word_after(&self, from: usize) -> Option<usize> {
        let group = from / 64;
        let first = self.summary.get(group)? & (u64::MAX << (from % 64));
        std::iter::once(first)
            .chain(self.summary[group + 1..].iter().copied())
            .enumerate()
            .find(|(_, bits)| *bits != 0)
            .map(|(offset, bits)| (group + offset) * 64 + bits.trailing_zeros() as usize)
    }

    fn index(&self, address: Ipv4Addr) -> Option<u32> {
        let bits = address.to_bits();
        self.ranges.iter().find_map(|(first, count, base)| {
            bits.checked_sub(*first)
                .filter(|o| o < count)
                .map(|offset| base + offset)
        })
    }

    fn address(&self, index: u32) -> Ipv4Addr {
        let range = self.ranges.iter().rev().find(|(_, _, base)| *base <= index);
        Ipv4Addr::from_bits(range.map_or(0, |(first, _, base)| first + (index - base)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn range(first: u32, last: u32) -> Range {
        Range {
            first: Ipv4Addr::from_bits(first),
            last: Ipv4Addr::from_bits(last),
        }
    }

    #[test]
    fn empty_and_backward_ranges_hold_nothing() {
        assert_eq!(FreeMap::new(&[], 10, |_| true).pick(5), None);
        assert_eq!(FreeMap::new(&[range(9, 3)], 10, |_| true).len(), 0);
    }

    #[test]
    fn the_whole_address_space_stays_within_the_limit() {
        let map = FreeMap::new(&[range(0, u32::MAX)], 1000, |_| true);
        assert_eq!((map.len(), map.free()), (1000, 1000));
    }

    proptest! {
        #[test]
        fn behaves_like_a_set(
            bounds in prop::collection::vec((0u32..9000, 0u32..5000), 1..4),
            steps in prop::collection::vec((any::<bool>(), 0u32..14_000, any::<u64>()), 1..200),
        ) {
            let ranges: Vec<_> = bounds.iter().map(|(first, len)| range(*first, first + len)).collect();
            let mut set: BTreeSet<u32> = bounds.iter().flat_map(|(first, len)| *first..=first + len).collect();
            let all = set.clone();
            let mut map = FreeMap::new(&ranges, 1 << 20, |_| true);
            for (give, at, hint) in steps {
                let address = Ipv4Addr::from_bits(at);
                prop_assert_eq!(map.contains(address), all.contains(&at));
                if give && all.contains(&at) { map.give(address); set.insert(at); }
                if !give { map.take(address); set.remove(&at); }
                prop_assert_eq!(map.free() as usize, set.len());
                match map.pick(hint) {
                    Some(picked) => {
                        prop_assert!(set.contains(&picked.to_bits()));
                        map.take(picked);
                        set.remove(&picked.to_bits());
                    }
                    None => prop_assert!(set.is_empty()),
                }
            }
        }
    }
}
