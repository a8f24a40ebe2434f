//! A query as clients send it. Read once, without copying, and never trusted.

use crate::name::{Name, wire_length};
use crate::rcode;
use crate::scan::{Record, skip_records, u16_at};

/// Where fields are (RFC 1035 section 4.1.1).
pub(crate) mod field {
    pub(crate) const FLAGS: usize = 2;
    pub(crate) const COUNTS: usize = 4;
    pub(crate) const HEADER: usize = 12;
}

/// Bits of the two flag bytes.
pub(crate) mod flag {
    pub(crate) const QR: u16 = 1 << 15;
    pub(crate) const AA: u16 = 1 << 10;
    pub(crate) const TC: u16 = 1 << 9;
    pub(crate) const RD: u16 = 1 << 8;
    pub(crate) const RA: u16 = 1 << 7;
    pub(crate) const AD: u16 = 1 << 5;
    pub(crate) const CD: u16 = 1 << 4;
}

/// What a client said in its OPT record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Edns {
    /// Bytes of UDP message it takes.
    pub size: u16,
    /// Version it speaks; we speak 0.
    pub version: u8,
    /// DO: it wants signatures (RFC 3225).
    pub dnssec: bool,
}

/// A readable query with one question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Query<'a> {
    /// Its number.
    pub id: u16,
    /// The flag bytes as they came.
    pub flags: u16,
    /// The question as it came, in the client's upper and lower case: name, type, class.
    pub question: &'a [u8],
    /// Its name in lower case.
    pub name: Name,
    /// Its type.
    pub rtype: u16,
    /// Its class.
    pub class: u16,
    /// EDNS, when the client speaks it.
    pub edns: Option<Edns>,
}

/// Why a message is not answered from its content.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum QueryError {
    /// Nothing may be answered: too short, or itself an answer.
    Silence,
    /// To be answered with this response code.
    Answer(u8),
}

impl<'a> Query<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// When it is not one whole query with one question (RFC 9619).
    pub fn read(bytes: &'a [u8]) -> Result<Self, QueryError> {
        let head = |at| u16_at(bytes, at).ok_or(QueryError::Silence);
        let (id, flags) = (head(0)?, head(field::FLAGS)?);
        let counts = [4, 6, 8, 10].map(|at| u16_at(bytes, at));
        let [Some(questions), Some(answers), Some(authorities), Some(additional)] = counts else {
            return Err(QueryError::Silence);
        };
        if flags & flag::QR != 0 {
            return Err(QueryError::Silence);
        }
        if flags >> 11 & 15 != 0 {
            return Err(QueryError::Answer(rcode::NOTIMP));
        }
        const BAD: QueryError = QueryError::Answer(rcode::FORMERR);
        if questions != 1 {
            return Err(BAD);
        }
        let rest = bytes.get(field::HEADER..).ok_or(BAD)?;
        let length = wire_length(rest).ok_or(BAD)?;
        let question = rest.get(..length + 4).ok_or(BAD)?;
        let mut edns = None;
        let mut doubled = false;
        let records = u32::from(answers) + u32::from(authorities) + u32::from(additional);
        skip_records(bytes, field::HEADER + question.len(), records, |record| {
            if record.is_opt() {
                doubled |= edns.is_some();
                edns = Some(Edns::of(record));
            }
        })
        .ok_or(BAD)?;
        if doubled {
            return Err(BAD);
        }
        Ok(Self {
            id,
            flags,
            question,
            name: Name::read(rest).ok_or(BAD)?,
            rtype: u16_at(question, length).ok_or(BAD)?,
            class: u16_at(question, length + 2).ok_or(BAD)?,
            edns,
        })
    }

    /// Recursion desired.
    pub const fn recursion(&self) -> bool {
        self.flags & flag::RD != 0
    }

    /// The client wants signatures (DO).
    pub fn dnssec(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec)
    }

    /// Checking disabled (CD).
    pub const fn unchecked(&self) -> bool {
        self.flags & flag::CD != 0
    }
}

impl Edns {
    fn of(record: &Record) -> Self {
        Self {
            size: record.class,
            version: (record.ttl >> 16 & 0xff) as u8,
            dnssec: record.ttl & 0x8000 != 0,
        }
    }
}

/// Appends our OPT record. `upper` is the upper part of the response code.
pub(crate) fn push_opt(out: &mut Vec<u8>, upper: u8, dnssec: bool) {
    out.push(0);
    out.extend_from_slice(&crate::rtype::OPT.to_be_bytes());
    out.extend_from_slice(&crate::UDP_SIZE.to_be_bytes());
    out.extend_from_slice(&[upper, 0, if dnssec { 0x80 } else { 0 }, 0, 0, 0]);
}

/// Bytes of our OPT record.
pub(crate) const OPT_LENGTH: usize = 11;

/// Writes a number over two bytes.
pub(crate) fn put_u16(out: &mut [u8], at: usize, value: u16) {
    if let Some(place) = out.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}
