//! What becomes of one query.

use std::net::IpAddr;

use crate::lead::Lead;
use crate::message::{OPT_LENGTH, Query, QueryError, field, flag, push_opt, put_u16};
use crate::name::Name;
use crate::zone::{Authority, Found, RecordSet, Zones};
use crate::{UDP_SIZE, rcode, rtype};

/// Aliases followed inside our zones.
const LONGEST_CHAIN: usize = 8;

/// How a query came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// UDP: the answer has the size that the client takes, or is truncated.
    Udp,
    /// TCP.
    Tcp,
}

/// Who asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Client {
    /// From where.
    pub address: IpAddr,
    /// How.
    pub transport: Transport,
    /// It is on a network that we serve and that has resolvers: what is not ours is forwarded for it.
    pub recursion: bool,
}

/// What becomes of a query.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Decision<'a> {
    /// Nothing is sent.
    Drop,
    /// The reply is in the buffer that was given.
    Reply,
    /// The [`Forwarder`](crate::Forwarder) is to answer it ([`ask`](crate::Forwarder::ask)).
    Forward(Query<'a>),
    /// An alias of ours leads out of our zones: the forwarder is to answer what comes behind it
    /// ([`chase`](crate::Forwarder::chase)). Stub resolvers do not follow aliases themselves (RFC 1034 section 5.3.1).
    Chase(Query<'a>, Lead),
}

/// Decides on the message `bytes` of `client`. A reply is written to `out`, whose former content goes away.
///
/// Refused are zone transfers, other classes than IN, and recursion for strangers. ANY gets the short answer of RFC 8482.
pub fn decide<'a>(bytes: &'a [u8], zones: &Zones, client: &Client, out: &mut Vec<u8>) -> Decision<'a> {
    out.clear();
    let query = match Query::read(bytes) {
        Ok(query) => query,
        Err(QueryError::Silence) => return Decision::Drop,
        Err(QueryError::Answer(code)) => {
            bare(bytes, code, out);
            return Decision::Reply;
        }
    };
    let mut reply = Reply::begin(&query, client, out);
    if query.edns.is_some_and(|edns| edns.version > 0) {
        // BADVERS is 16: 1 in the upper part, 0 in the header.
        reply.upper = 1;
        reply.end(rcode::NOERROR);
        return Decision::Reply;
    }
    if query.class != 1 || matches!(query.rtype, rtype::AXFR | rtype::IXFR | rtype::OPT) {
        reply.end(rcode::REFUSED);
        return Decision::Reply;
    }
    let forwarded = client.recursion && query.recursion();
    match reply.answer(zones) {
        Said::All(code) => reply.end(code),
        Said::Nothing if forwarded => return Decision::Forward(query),
        Said::Nothing => reply.end(rcode::REFUSED),
        Said::Way(target) if forwarded => {
            let lead = reply.lead(target);
            return Decision::Chase(query, lead);
        }
        // Who wants no recursion, or gets none, asks on by itself.
        Said::Way(_) => reply.end(rcode::NOERROR),
    }
    Decision::Reply
}

/// What our zones say.
enum Said<'z> {
    /// The whole answer, with this response code.
    All(u8),
    /// No zone of ours has the name.
    Nothing,
    /// Aliases that lead to this name, which no zone of ours has.
    Way(&'z Name),
}

/// Bytes that a reply to `query` may have.
pub(crate) fn limit(query: &Query<'_>, transport: Transport) -> usize {
    match (transport, query.edns) {
        (Transport::Tcp, _) => usize::from(u16::MAX),
        (Transport::Udp, Some(edns)) => usize::from(edns.size.clamp(512, UDP_SIZE)),
        (Transport::Udp, None) => 512,
    }
}

/// An error without a question, for a message that has none we could repeat.
fn bare(bytes: &[u8], code: u8, out: &mut Vec<u8>) {
    out.extend_from_slice(bytes.get(..2).unwrap_or(&[0, 0]));
    let kept = bytes.get(2).copied().unwrap_or(0) & 0b0111_1001;
    out.extend_from_slice(&[0x80 | kept, code]);
    out.extend_from_slice(&[0; 8]);
}

struct Reply<'a, 'q> {
    query: &'a Query<'q>,
    out: &'a mut Vec<u8>,
    limit: usize,
    flags: u16,
    /// Upper part of the response code.
    upper: u8,
    answers: u16,
    authorities: u16,
}

impl<'a, 'q> Reply<'a, 'q> {
    fn begin(query: &'a Query<'q>, client: &Client, out: &'a mut Vec<u8>) -> Self {
        out.extend_from_slice(&[0; field::HEADER]);
        out.extend_from_slice(query.question);
        let available = if client.recursion { flag::RA } else { 0 };
        Self {
            flags: flag::QR | query.flags & (flag::RD | flag::CD) | available,
            limit: limit(query, client.transport),
            upper: 0,
            answers: 0,
            authorities: 0,
            query,
            out,
        }
    }

    /// Writes what our zones say.
    fn answer<'z>(&mut self, zones: &'z Zones) -> Said<'z> {
        let query = self.query;
        let mut name: &[u8] = query.name.wire();
        // The question's name, which follows the header.
        let mut owner = Owner::At(field::HEADER);
        for _ in 0..LONGEST_CHAIN {
            match zones.find(name, query.rtype) {
                Found::Elsewhere => {
                    return match owner {
                        Owner::At(_) => Said::Nothing,
                        Owner::Name(target) => Said::Way(target),
                    };
                }
                Found::Records(set) => {
                    self.set(&owner, set);
                    return Said::All(rcode::NOERROR);
                }
                Found::Alias(set, target) => {
                    self.set(&owner, set);
                    owner = Owner::Name(target);
                    name = target.wire();
                }
                Found::NoData(_) if query.rtype == rtype::ANY => {
                    self.any(&owner);
                    return Said::All(rcode::NOERROR);
                }
                Found::NoData(authority) => {
                    self.negative(&authority);
                    return Said::All(rcode::NOERROR);
                }
                Found::NoName(authority) => {
                    self.negative(&authority);
                    return Said::All(rcode::NXDOMAIN);
                }
            }
        }
        Said::All(rcode::SERVFAIL)
    }

    /// The aliases that were written, for the answer of somebody else to follow them.
    fn lead(self, target: &Name) -> Lead {
        let records = self.out.split_off(field::HEADER + self.query.question.len());
        self.out.clear();
        Lead {
            target: target.clone(),
            records,
            count: self.answers,
        }
    }

    fn set(&mut self, owner: &Owner<'_>, set: &RecordSet) {
        self.flags |= flag::AA;
        for data in &set.data {
            self.record(owner, set.rtype, set.ttl, data);
            self.answers = self.answers.saturating_add(1);
        }
    }

    fn any(&mut self, owner: &Owner<'_>) {
        self.flags |= flag::AA;
        self.record(owner, rtype::HINFO, 3600, b"\x07RFC8482\0");
        self.answers = self.answers.saturating_add(1);
    }

    fn negative(&mut self, authority: &Authority<'_>) {
        self.flags |= flag::AA;
        let owner = Owner::Name(authority.apex);
        self.record(&owner, rtype::SOA, authority.ttl, authority.soa);
        self.authorities = self.authorities.saturating_add(1);
    }

    fn record(&mut self, owner: &Owner<'_>, rtype: u16, ttl: u32, data: &[u8]) {
        match owner {
            Owner::At(place) => self.out.extend_from_slice(&(0xc000 | *place as u16).to_be_bytes()),
            Owner::Name(name) => self.out.extend_from_slice(name.wire()),
        }
        self.out.extend_from_slice(&rtype.to_be_bytes());
        self.out.extend_from_slice(&1u16.to_be_bytes());
        self.out.extend_from_slice(&ttl.to_be_bytes());
        let length = u16::try_from(data.len()).unwrap_or(u16::MAX);
        self.out.extend_from_slice(&length.to_be_bytes());
        self.out
            .extend_from_slice(data.get(..usize::from(length)).unwrap_or_default());
    }

    /// Fills in the header and appends OPT; cuts everything behind the question when it is too long (RFC 2181 section 9).
    fn end(&mut self, code: u8) {
        let opt = if self.query.edns.is_some() { OPT_LENGTH } else { 0 };
        if self.out.len() + opt > self.limit {
            self.out.truncate(field::HEADER + self.query.question.len());
            self.flags |= flag::TC;
            (self.answers, self.authorities) = (0, 0);
        }
        if self.query.edns.is_some() {
            push_opt(self.out, self.upper, self.query.dnssec());
        }
        let additional = u16::from(self.query.edns.is_some());
        let head = [
            self.query.id,
            self.flags | u16::from(code & 15),
            1,
            self.answers,
            self.authorities,
            additional,
        ];
        for (n, value) in head.into_iter().enumerate() {
            put_u16(self.out, n * 2, value);
        }
    }
}

/// The name of a record: a place in the message, or written out.
enum Owner<'a> {
    At(usize),
    Name(&'a Name),
}

#[cfg(test)]
#[path = "answer_tests.rs"]
pub(crate) mod tests;
