//! New inputs out of kept ones: what breaks parsers again and again, without looking at what they do with it.

use fastrand::Rng;

/// An input grows to at most this many bytes, or to twice the longest kept one.
const LONGEST: usize = 4096;

/// Changes made to one input, at most.
const CHANGES: u32 = 6;

/// Numbers at which lengths, offsets and counts go wrong.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    i64::MAX as u64,
    u64::MAX,
];

/// Bytes that end or nest something in most texts and packets.
const BYTES: &[u8] = b"\0\x01\x7f\x80\xff \t\r\n\"'\\/.:;,=-+%#&<>[](){}0 9";

/// Gives inputs without end.
#[derive(Debug)]
pub struct Mutator {
    kept: Vec<Vec<u8>>,
    rng: Rng,
    longest: usize,
}

impl Mutator {
    /// A mutator of `kept` inputs; with the same `seed` the same inputs come.
    pub fn new(kept: Vec<Vec<u8>>, seed: u64) -> Self {
        let longest = kept.iter().map(Vec::len).max().unwrap_or_default();
        Self {
            kept,
            rng: Rng::with_seed(seed),
            longest: LONGEST.max(longest.saturating_mul(2)),
        }
    }

    /// The next input. Now and then it is random all through, and else a kept one after some changes.
    pub fn next_input(&mut self) -> Vec<u8> {
        let mut input = self.a_kept_one();
        for _ in 0..self.rng.u32(1..=CHANGES) {
            self.change(&mut input);
        }
        input.truncate(self.longest);
        input
    }

    fn a_kept_one(&mut self) -> Vec<u8> {
        if self.kept.is_empty() || self.rng.u8(..) == 0 {
            return self.random(64);
        }
        let at = self.rng.usize(..self.kept.len());
        self.kept.get(at).cloned().unwrap_or_default()
    }

    fn random(&mut self, most: usize) -> Vec<u8> {
        let length = self.rng.usize(1..=most);
        std::iter::repeat_with(|| self.rng.u8(..)).take(length).collect()
    }

    /// Some place in `input`, its end included.
    fn place(&mut self, input: &[u8]) -> usize {
        self.rng.usize(..=input.len())
    }

    /// Some part of `input`, seldom a long one.
    fn part(&mut self, input: &[u8]) -> std::ops::Range<usize> {
        let from = self.place(input);
        let most = if self.rng.u8(..8) == 0 { usize::MAX } else { 16 };
        let length = self.rng.usize(..=most.min(input.len().saturating_sub(from)));
        from..from.saturating_add(length)
    }

    fn change(&mut self, input: &mut Vec<u8>) {
        match self.rng.u8(..11) {
            0 => self.byte(input, |byte, rng| byte ^ (1 << rng.u8(..8))),
            1 => self.byte(input, |_, rng| rng.u8(..)),
            2 => self.byte(input, |byte, rng| byte.wrapping_add(rng.u8(..9)).wrapping_sub(4)),
            3 => self.byte(input, |_, rng| {
                BYTES.get(rng.usize(..BYTES.len())).copied().unwrap_or_default()
            }),
            4 => self.number(input),
            5 => self.digits(input),
            6 => {
                let part = self.part(input);
                input.drain(part);
            }
            7 => {
                let at = self.place(input);
                input.truncate(at);
            }
            8 => {
                let (part, at) = (self.part(input), self.place(input));
                let again = input.get(part).unwrap_or_default().to_vec();
                input.splice(at..at, again);
            }
            9 => {
                let (new, at) = (self.random(16), self.place(input));
                input.splice(at..at, new);
            }
            _ => {
                let other = self.a_kept_one();
                let (from, part) = (self.part(&other), self.part(input));
                input.splice(part, other.get(from).unwrap_or_default().iter().copied());
            }
        }
    }

    fn byte(&mut self, input: &mut [u8], new: impl Fn(u8, &mut Rng) -> u8) {
        if input.is_empty() {
            return;
        }
        let at = self.rng.usize(..input.len());
        if let Some(byte) = input.get_mut(at) {
            *byte = new(*byte, &mut self.rng);
        }
    }

    /// Puts a number of one, two, four or eight bytes in place of what is there, in either order.
    fn number(&mut self, input: &mut [u8]) {
        let wanted = NUMBERS
            .get(self.rng.usize(..NUMBERS.len()))
            .copied()
            .unwrap_or_default();
        // Around the edge lies what a check with `<` in place of `<=` lets through.
        let number = wanted.wrapping_add(self.rng.u64(..5)).wrapping_sub(2);
        let width = 1 << self.rng.u32(..4);
        let mut bytes = number.to_le_bytes();
        let bytes = bytes.get_mut(..width).unwrap_or_default();
        if self.rng.bool() {
            bytes.reverse();
        }
        let at = self.place(input);
        if let Some(room) = input.get_mut(at..at.saturating_add(width)) {
            room.copy_from_slice(bytes);
        }
    }

    /// Puts another decimal number in place of one that is there.
    fn digits(&mut self, input: &mut Vec<u8>) {
        let at = self.place(input);
        let digit = |byte: &u8| byte.is_ascii_digit();
        let Some(from) = input
            .iter()
            .skip(at)
            .position(digit)
            .map(|more| at.saturating_add(more))
        else {
            return;
        };
        let length = input.iter().skip(from).take_while(|byte| digit(byte)).count();
        let number = NUMBERS
            .get(self.rng.usize(..NUMBERS.len()))
            .copied()
            .unwrap_or_default();
        let text = number.wrapping_add(self.rng.u64(..3)).to_string();
        input.splice(from..from.saturating_add(length), text.into_bytes());
    }
}
