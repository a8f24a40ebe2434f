//! Aliases of ours that lead out of our zones: what we say of the way there, and an upstream's answer behind it.
//!
//! The client asked for the alias and the upstream for its target, so the two messages have different questions. Records
//! are moved as bytes: a compressed name in them (RFC 1035 section 4.1.4) points to a place that is shifted, and so the
//! pointer is. Types made after RFC 1035 compress no names (RFC 3597 section 4), so only the data of old ones are looked at.
//!
//! ```text
//! theirs: header, target, type, class │ records ─────────────┐
//!                   └──────────────────────────────┐         ▼
//! ours:   header, alias, type, class │ CNAME … to target │ records
//! ```

use crate::message::{field, put_u16};
use crate::name::Name;
use crate::rtype;
use crate::scan::{question_end, skip_records, u16_at};

/// The way out of our zones.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lead {
    /// The first name that is not ours.
    pub(crate) target: Name,
    /// The CNAME records on the way, as they follow the question. They end with the target, written out.
    pub(crate) records: Vec<u8>,
    /// How many these are.
    pub(crate) count: u16,
}

/// What a pointer has in its two highest bits; the others are the place.
const POINTER: u16 = 0xc000;

impl Lead {
    /// The first name that is not ours: what an upstream is asked for.
    pub const fn target(&self) -> &Name {
        &self.target
    }

    /// A header without counts but those of `question` and of our own records, and these.
    pub(crate) fn begin(&self, question: &[u8]) -> Vec<u8> {
        let mut out = vec![0; field::HEADER];
        out.extend_from_slice(question);
        out.extend_from_slice(&self.records);
        put_u16(&mut out, field::COUNTS, 1);
        put_u16(&mut out, 6, self.count);
        out
    }

    /// The answer to `question` that begins with our records and goes on with those of `theirs`, an answer for the target
    /// without OPT. Its number and flags are theirs. None when a name in it points to where no name can be, or when it
    /// cannot point to where the name is now.
    pub(crate) fn join(&self, question: &[u8], theirs: &[u8]) -> Option<Vec<u8>> {
        let mut out = self.begin(question);
        let shift = Shift {
            target: self.target.wire().len(),
            from: question_end(theirs)?,
            to: out.len(),
        };
        out.extend_from_slice(theirs.get(shift.from..)?);
        out.get_mut(..field::COUNTS)?
            .copy_from_slice(theirs.get(..field::COUNTS)?);
        let counts = [6, 8, 10].map(|at| u16_at(theirs, at));
        let [answers, authorities, additional] = [counts[0]?, counts[1]?, counts[2]?];
        let all = u32::from(answers) + u32::from(authorities) + u32::from(additional);
        let mut sound = Some(());
        skip_records(theirs, shift.from, all, |record| {
            sound = sound.and_then(|()| {
                shift.name(theirs, record.at, &mut out)?;
                let (before, names) = names_in(record.rtype);
                let mut at = record.data.0.checked_add(before)?;
                for _ in 0..names {
                    at = shift.name(theirs, at, &mut out)?;
                }
                (names == 0 || at <= record.data.1).then_some(())
            });
        })?;
        sound?;
        put_u16(&mut out, 6, self.count.checked_add(answers)?);
        put_u16(&mut out, 8, authorities);
        put_u16(&mut out, 10, additional);
        Some(out)
    }
}

/// Where names are in the data of a type that may compress them: bytes before, and how many follow each other
/// (RFC 1035 section 3.3, and those that RFC 3597 section 4 says may come compressed; NAPTR, which nobody compresses, is
/// left as it is).
const fn names_in(rtype: u16) -> (usize, usize) {
    match rtype {
        // NS, MD, MF, CNAME, MB, MG, MR, PTR, NXT and DNAME.
        rtype::NS | 3 | 4 | rtype::CNAME | 7..=9 | rtype::PTR | 30 | 39 => (0, 1),
        // SOA, MINFO and RP.
        rtype::SOA | 14 | 17 => (0, 2),
        // MX, AFSDB, RT and KX.
        rtype::MX | 18 | 21 | 36 => (2, 1),
        // PX.
        26 => (2, 2),
        rtype::SRV => (6, 1),
        // SIG.
        24 => (18, 1),
        _ => (0, 0),
    }
}

/// How places in their message become places in ours.
struct Shift {
    /// Length of the target's name, which follows their header.
    target: usize,
    /// Where their records begin, and where these are in ours, right behind the target's name.
    from: usize,
    to: usize,
}

impl Shift {
    fn place(&self, theirs: usize) -> Option<usize> {
        let behind = theirs.checked_sub(field::HEADER)?;
        if behind < self.target {
            return (self.to + behind).checked_sub(self.target);
        }
        Some(self.to + theirs.checked_sub(self.from)?)
    }

    /// Moves the pointer of the name at `start`, if it has one; gives where the name ends in their message.
    fn name(&self, theirs: &[u8], start: usize, out: &mut [u8]) -> Option<usize> {
        let mut at = start;
        loop {
            match *theirs.get(at)? {
                0 => return Some(at + 1),
                length @ 1..=63 => at += usize::from(length) + 1,
                192.. => {
                    let before = usize::from(u16_at(theirs, at)? & !POINTER);
                    let to = self.place(Some(before).filter(|to| *to < start)?)?;
                    let to = u16::try_from(to).ok().filter(|to| to & POINTER == 0)?;
                    put_u16(out, self.place(at)?, POINTER | to);
                    return Some(at + 2);
                }
                _ => return None,
            }
        }
    }
}

#[cfg(test)]
#[path = "lead_tests.rs"]
mod tests;
