//! Zones in memory: every name with its record sets, data already in wire format.

use std::collections::HashMap;
use std::net::IpAddr;

use crate::name::{Name, ancestors};
use crate::rtype;

/// What a record says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// PTR.
    Ptr(Name),
    /// CNAME. A name that has one has nothing else (RFC 1034 section 3.6.2).
    Cname(Name),
    /// NS.
    Ns(Name),
    /// TXT, in strings of at most 255 bytes.
    Txt(String),
    /// MX: preference and host.
    Mx(u16, Name),
    /// SRV: priority, weight, port, host.
    Srv(u16, u16, u16, Name),
}

/// Records of one type at one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct RecordSet {
    pub(crate) rtype: u16,
    pub(crate) ttl: u32,
    pub(crate) data: Vec<Box<[u8]>>,
    /// The alias's target.
    pub(crate) target: Option<Name>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Apex {
    /// The SOA record's data and the seconds that a negative answer may be kept.
    soa: Box<[u8]>,
    negative: u32,
}

/// All zones that we are the authority of. Immutable; a change makes new ones.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Zones {
    apexes: HashMap<Name, Apex>,
    names: HashMap<Name, Vec<RecordSet>>,
    serial: u32,
}

/// What the zones know of a name and type.
pub(crate) enum Found<'a> {
    /// No zone of ours has the name in it.
    Elsewhere,
    /// Records.
    Records(&'a RecordSet),
    /// An alias; its target is asked for next.
    Alias(&'a RecordSet, &'a Name),
    /// The name exists, but has no such records.
    NoData(Authority<'a>),
    /// There is no such name.
    NoName(Authority<'a>),
}

/// The SOA record of a negative answer.
pub(crate) struct Authority<'a> {
    pub(crate) apex: &'a Name,
    pub(crate) soa: &'a [u8],
    pub(crate) ttl: u32,
}

impl Zones {
    /// No zones yet, with the serial number that all will have.
    pub(crate) fn new(serial: u32) -> Self {
        Self {
            serial,
            ..Self::default()
        }
    }

    /// The serial number of every zone (RFC 1982 arithmetic).
    pub const fn serial(&self) -> u32 {
        self.serial
    }

    /// Names that people ask for: those that have records beside those of every zone and of reverse names.
    pub fn len(&self) -> usize {
        let plain = [rtype::SOA, rtype::NS, rtype::PTR];
        let told = |sets: &&Vec<RecordSet>| sets.iter().any(|set| !plain.contains(&set.rtype));
        self.names.values().filter(told).count()
    }

    /// Whether there is no zone.
    pub fn is_empty(&self) -> bool {
        self.apexes.is_empty()
    }

    /// Begins a zone with its SOA and NS records. `negative` is the SOA record's MINIMUM in seconds.
    pub(crate) fn begin(&mut self, apex: &Name, server: &Name, person: &Name, negative: u32, ttl: u32) {
        let mut soa = Vec::with_capacity(64);
        soa.extend_from_slice(server.wire());
        soa.extend_from_slice(person.wire());
        // Refresh, retry and expire are for secondary servers, which we have none of.
        for number in [self.serial, 3600, 600, 86_400, negative] {
            soa.extend_from_slice(&number.to_be_bytes());
        }
        let soa: Box<[u8]> = soa.into();
        let zone = Apex {
            soa: soa.clone(),
            negative,
        };
        if self.apexes.insert(apex.clone(), zone).is_none() {
            self.put(apex, rtype::SOA, ttl, soa, None);
            self.add(apex, &Data::Ns(server.clone()), ttl);
        }
    }

    /// Adds a record. One that is outside of every zone, that is there already, or that would stand beside an alias is
    /// not taken: gives false.
    pub(crate) fn add(&mut self, name: &Name, data: &Data, ttl: u32) -> bool {
        let Some(apex) = self.apex_of(name.wire()).cloned() else {
            return false;
        };
        let sets = self.names.get(name).map(Vec::as_slice).unwrap_or_default();
        let alias = matches!(data, Data::Cname(_));
        if (alias && !sets.is_empty()) || sets.iter().any(|set| set.rtype == rtype::CNAME) {
            return false;
        }
        let (rtype, wire, target) = encode(data);
        self.put(name, rtype, ttl, wire, target);
        // Names in between exist without records of their own (empty non-terminals, RFC 8020).
        let between: Vec<Name> = ancestors(name.wire())
            .skip(1)
            .take_while(|wire| *wire != apex.wire())
            .filter_map(|wire| Name::read(wire).filter(|name| !self.names.contains_key(name)))
            .collect();
        self.names.extend(between.into_iter().map(|name| (name, Vec::new())));
        true
    }

    fn put(&mut self, name: &Name, rtype: u16, ttl: u32, data: Box<[u8]>, target: Option<Name>) {
        let sets = self.names.entry(name.clone()).or_default();
        match sets.iter_mut().find(|set| set.rtype == rtype) {
            Some(set) if set.data.contains(&data) => {}
            Some(set) => set.data.push(data),
            None => sets.push(RecordSet {
                rtype,
                ttl,
                data: vec![data],
                target,
            }),
        }
    }

    fn apex_of(&self, wire: &[u8]) -> Option<&Name> {
        ancestors(wire).find_map(|wire| self.apexes.get_key_value(wire).map(|(name, _)| name))
    }

    /// What is known of `name`.
    pub(crate) fn find(&self, name: &[u8], rtype: u16) -> Found<'_> {
        let apex = ancestors(name).find_map(|wire| self.apexes.get_key_value(wire));
        let Some((apex, zone)) = apex else {
            return Found::Elsewhere;
        };
        let authority = Authority {
            apex,
            soa: &zone.soa,
            ttl: zone.negative,
        };
        let Some(sets) = self.names.get(name) else {
            return Found::NoName(authority);
        };
        if let Some(set) = sets.iter().find(|set| set.rtype == rtype) {
            return Found::Records(set);
        }
        match sets.first() {
            Some(set) if rtype != rtype::ANY => match &set.target {
                Some(target) => Found::Alias(set, target),
                None => Found::NoData(authority),
            },
            _ => Found::NoData(authority),
        }
    }
}

fn encode(data: &Data) -> (u16, Box<[u8]>, Option<Name>) {
    let wire = |name: &Name| Box::from(name.wire());
    let numbered = |numbers: &[u16], name: &Name| {
        let head = numbers.iter().flat_map(|number| number.to_be_bytes());
        head.chain(name.wire().iter().copied()).collect::<Box<[u8]>>()
    };
    match data {
        Data::Address(IpAddr::V4(address)) => (rtype::A, Box::new(address.octets()), None),
        Data::Address(IpAddr::V6(address)) => (rtype::AAAA, Box::new(address.octets()), None),
        Data::Ptr(name) => (rtype::PTR, wire(name), None),
        Data::Ns(name) => (rtype::NS, wire(name), None),
        Data::Cname(name) => (rtype::CNAME, wire(name), Some(name.clone())),
        Data::Txt(text) => {
            let mut out = Vec::with_capacity(text.len() + 1);
            for part in text.as_bytes().chunks(255) {
                out.push(part.len() as u8);
                out.extend_from_slice(part);
            }
            if out.is_empty() {
                out.push(0);
            }
            (rtype::TXT, out.into(), None)
        }
        Data::Mx(preference, name) => (rtype::MX, numbered(&[*preference], name), None),
        Data::Srv(priority, weight, port, name) => (rtype::SRV, numbered(&[*priority, *weight, *port], name), None),
    }
}
