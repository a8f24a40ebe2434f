//! DNS without sockets (RFC 1034, 1035, 2181, 2308, 6891): the site's zones, answers from them, and the forwarding of
//! everything else.
//!
//! [`decide`] takes one query and says what becomes of it: a reply from [`Zones`], a question for the [`Forwarder`] (also
//! behind an alias of ours, a [`Lead`]), or nothing. [`SiteNames`] makes zones of what is known about the rack. Messages of other servers pass the forwarder as
//! the bytes they came in, but for their TTLs and the OPT record, so signatures (RRSIG) stay what they were.
//!
//! Terms: a *name* is kept in wire format and lower case; a *node* of the tree of names has record sets; an *upstream*
//! is a resolver that we forward to; a *waiter* is a client that waits for a forwarded answer.

mod answer;
mod cache;
mod forward;
mod lead;
mod limit;
mod message;
mod name;
mod scan;
mod site;
mod zone;

pub use answer::{Client, Decision, Transport, decide};
pub use forward::{Counters, Forwarder, Limits, Output, Waiter};
pub use lead::Lead;
pub use limit::Bucket;
pub use message::{Edns, Query, QueryError};
pub use name::{Name, NameError};
pub use site::{Host, SiteNames, SiteRecord};
pub use zone::{Data, Zones};

/// Record types that we know by name (RFC 1035 section 3.2.2 and later).
pub mod rtype {
    /// IPv4 address.
    pub const A: u16 = 1;
    /// Authoritative server.
    pub const NS: u16 = 2;
    /// Alias.
    pub const CNAME: u16 = 5;
    /// Start of authority.
    pub const SOA: u16 = 6;
    /// Name of an address.
    pub const PTR: u16 = 12;
    /// Host information; also the answer to ANY (RFC 8482).
    pub const HINFO: u16 = 13;
    /// Mail exchange.
    pub const MX: u16 = 15;
    /// Text.
    pub const TXT: u16 = 16;
    /// IPv6 address.
    pub const AAAA: u16 = 28;
    /// Service (RFC 2782).
    pub const SRV: u16 = 33;
    /// EDNS (RFC 6891).
    pub const OPT: u16 = 41;
    /// Incremental zone transfer.
    pub const IXFR: u16 = 251;
    /// Zone transfer.
    pub const AXFR: u16 = 252;
    /// Any type.
    pub const ANY: u16 = 255;
}

/// Response codes (RFC 1035 section 4.1.1).
pub mod rcode {
    /// Fine.
    pub const NOERROR: u8 = 0;
    /// The query cannot be read.
    pub const FORMERR: u8 = 1;
    /// We failed.
    pub const SERVFAIL: u8 = 2;
    /// There is no such name.
    pub const NXDOMAIN: u8 = 3;
    /// We do not do that.
    pub const NOTIMP: u8 = 4;
    /// Not for you.
    pub const REFUSED: u8 = 5;
}

/// Most bytes of a UDP message that we send or promise to take: what passes every usual path unfragmented.
pub const UDP_SIZE: u16 = 1232;
