//! Walking over the records of a message that somebody else made, without believing its lengths.

use crate::message::field;
use crate::name::wire_length;
use crate::rtype;

/// One record's place and fixed fields.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record {
    /// Where it begins.
    pub(crate) at: usize,
    /// Whether its name is the root.
    pub(crate) root: bool,
    pub(crate) rtype: u16,
    pub(crate) class: u16,
    pub(crate) ttl: u32,
    /// Where its TTL is.
    pub(crate) ttl_at: usize,
    /// Where its data begin and end.
    pub(crate) data: (usize, usize),
}

impl Record {
    pub(crate) const fn is_opt(&self) -> bool {
        self.rtype == rtype::OPT && self.root
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    let part = bytes.get(at..at.checked_add(2)?)?;
    Some(u16::from_be_bytes(part.try_into().ok()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let part = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(part.try_into().ok()?))
}

/// Where the name at `at` ends in the message: after its root label or its pointer. Pointers are not followed, but
/// must point backwards, as all sound ones do.
fn name_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some(at + 1),
            1..=63 => at += length + 1,
            192.. => {
                let target = usize::from(u16_at(bytes, at)? & 0x3fff);
                return (target < start).then_some(at + 2);
            }
            _ => return None,
        }
        if at - start > 255 {
            return None;
        }
    }
}

/// Calls `each` with `count` records from `at` on; gives where they end, or none when they are not whole.
pub(crate) fn skip_records(bytes: &[u8], mut at: usize, count: u32, mut each: impl FnMut(&Record)) -> Option<usize> {
    for _ in 0..count {
        let fixed = name_end(bytes, at)?;
        let start = fixed.checked_add(10)?;
        let end = start.checked_add(usize::from(u16_at(bytes, fixed + 8)?))?;
        if end > bytes.len() {
            return None;
        }
        each(&Record {
            at,
            root: bytes.get(at) == Some(&0),
            rtype: u16_at(bytes, fixed)?,
            class: u16_at(bytes, fixed + 2)?,
            ttl: u32_at(bytes, fixed + 4)?,
            ttl_at: fixed + 4,
            data: (start, end),
        });
        at = end;
    }
    Some(at)
}

/// What must be known of an upstream's answer to hand it on and to keep it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Scan {
    /// Length of the message without its OPT record and whatever stood behind that.
    pub(crate) length: usize,
    /// Additional records that are left.
    pub(crate) additional: u16,
    /// Places of all TTLs before `length`.
    pub(crate) ttls: Vec<u16>,
    /// Seconds that the answer may be kept: the smallest TTL, for a negative answer the smaller of the SOA record's
    /// TTL and its MINIMUM (RFC 2308 section 5), nothing for a negative answer without SOA.
    pub(crate) keep: u32,
    /// The upper bits of the response code.
    pub(crate) upper: u8,
}

/// Reads an answer whose question ends at `from`.
pub(crate) fn scan(bytes: &[u8], from: usize) -> Option<Scan> {
    let [answers, authorities, additional] = [6, 8, 10].map(|at| u16_at(bytes, at));
    let (answers, authorities, additional) = (answers?, authorities?, additional?);
    let mut scan = Scan {
        length: 0,
        additional,
        ttls: Vec::new(),
        keep: u32::MAX,
        upper: 0,
    };
    let mut note = |record: &Record| {
        // The highest bit makes a TTL zero (RFC 2181 section 8).
        let ttl = if record.ttl > i32::MAX as u32 { 0 } else { record.ttl };
        scan.keep = scan.keep.min(ttl);
        scan.ttls.extend(u16::try_from(record.ttl_at));
    };
    let at = skip_records(bytes, from, u32::from(answers), &mut note)?;
    let mut negative = None;
    let at = skip_records(bytes, at, u32::from(authorities), |record| {
        note(record);
        if record.rtype == rtype::SOA {
            negative = record.data.1.checked_sub(4).and_then(|place| u32_at(bytes, place));
        }
    })?;
    let (mut seen, mut cut, mut upper) = (0u16, None, 0);
    let end = skip_records(bytes, at, u32::from(additional), |record| {
        if cut.is_some() {
            return;
        }
        if record.is_opt() {
            cut = Some(record.at);
            upper = (record.ttl >> 24) as u8;
        } else {
            note(record);
            seen += 1;
        }
    })?;
    scan.length = cut.unwrap_or(end);
    scan.additional = seen;
    scan.upper = upper;
    if answers == 0 {
        scan.keep = negative.map_or(0, |minimum| minimum.min(scan.keep));
    }
    Some(scan)
}

/// Where the one question of a message ends.
pub(crate) fn question_end(bytes: &[u8]) -> Option<usize> {
    let rest = bytes.get(field::HEADER..)?;
    let end = field::HEADER + wire_length(rest)? + 4;
    (end <= bytes.len()).then_some(end)
}
