//! A message to send.

use std::net::Ipv4Addr;

use rackbar_model::MacAddr;

use super::{BROADCAST_FLAG, COOKIE, DhcpOption, HTYPE_ETHERNET, MIN_MESSAGE, Op, Packet, code, field};

/// Hardware type, length and address, copied as the client sent them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chaddr {
    /// Hardware type.
    pub htype: u8,
    len: u8,
    octets: [u8; 16],
}

impl Chaddr {
    /// An Ethernet address.
    pub fn ethernet(mac: MacAddr) -> Self {
        let mut octets = [0; 16];
        octets[..6].copy_from_slice(&mac.0);
        Self {
            htype: HTYPE_ETHERNET,
            len: 6,
            octets,
        }
    }

    /// What a received message has.
    pub fn of(packet: &Packet<'_>) -> Self {
        let mut octets = [0; 16];
        let chaddr = packet.chaddr();
        octets[..chaddr.len()].copy_from_slice(chaddr);
        Self {
            htype: packet.htype(),
            len: chaddr.len() as u8,
            octets,
        }
    }
}

/// What happened to options that did not fit the options field.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Fit {
    /// Options moved to `file` or `sname`.
    pub overloaded: u8,
    /// Options left out.
    pub dropped: u8,
}

/// A message to send. Options are written in the order given, the most important first; a relay's option 82 goes
/// last as RFC 3046 section 2.2 wants, wherever it stands in the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message<'a> {
    /// Direction.
    pub op: Op,
    /// Transaction.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// The broadcast flag.
    pub broadcast: bool,
    /// The client's own address.
    pub ciaddr: Ipv4Addr,
    /// The address given.
    pub yiaddr: Ipv4Addr,
    /// Next server.
    pub siaddr: Ipv4Addr,
    /// Relay agent.
    pub giaddr: Ipv4Addr,
    /// Hardware address.
    pub chaddr: Chaddr,
    /// Server name field; at most 63 octets are used.
    pub sname: &'a str,
    /// Boot file field; left empty when longer than 127 octets (half a name is worse than none; option 67 has it).
    pub file: &'a str,
    /// Options.
    pub options: Vec<DhcpOption<'a>>,
}

impl<'a> Message<'a> {
    /// A message from a client with nothing in it yet.
    pub fn request(xid: u32, mac: MacAddr) -> Self {
        let zero = Ipv4Addr::UNSPECIFIED;
        Self {
            op: Op::Request,
            xid,
            secs: 0,
            broadcast: false,
            ciaddr: zero,
            yiaddr: zero,
            siaddr: zero,
            giaddr: zero,
            chaddr: Chaddr::ethernet(mac),
            sname: "",
            file: "",
            options: Vec::new(),
        }
    }

    /// A server's answer to a client's message: transaction, flags, relay and hardware address are taken over.
    pub fn reply_to(packet: &Packet<'_>) -> Self {
        let zero = Ipv4Addr::UNSPECIFIED;
        Self {
            op: Op::Reply,
            xid: packet.xid(),
            secs: 0,
            broadcast: packet.broadcast(),
            ciaddr: zero,
            yiaddr: zero,
            siaddr: zero,
            giaddr: packet.giaddr(),
            chaddr: Chaddr::of(packet),
            sname: "",
            file: "",
            options: Vec::with_capacity(20),
        }
    }

    /// Writes the message into `out` (cleared first): at least [`MIN_MESSAGE`] octets, at most `limit`, where a limit
    /// below [`super::DEFAULT_LIMIT`] counts as that.
    pub fn encode(&self, limit: usize, out: &mut Vec<u8>) -> Fit {
        out.clear();
        out.reserve(MIN_MESSAGE.max(limit.min(super::MAX_MESSAGE)));
        self.write_fixed(out);

        // The relay's own option must come back whole; END and option 52 need room as well.
        let is_relay = |o: &&DhcpOption<'_>| o.code() == code::RELAY_INFO;
        let start = out.len();
        self.options.iter().filter(is_relay).for_each(|o| o.write(out));
        let relay_len = out.len() - start;
        out.truncate(start);
        let budget = limit
            .clamp(super::DEFAULT_LIMIT, super::MAX_MESSAGE)
            .saturating_sub(4 + relay_len);

        let mut spill = Spill::new(self.file.is_empty(), self.sname.is_empty());
        for option in self.options.iter().filter(|o| !is_relay(o)) {
            let start = out.len();
            option.write(out);
            if out.len() > budget {
                spill.take(out, start);
            }
        }
        spill.finish(out);
        if relay_len > 0 && out.len() + relay_len < limit.max(super::DEFAULT_LIMIT) {
            self.options.iter().filter(is_relay).for_each(|o| o.write(out));
        }
        out.push(code::END);
        if out.len() < MIN_MESSAGE {
            out.resize(MIN_MESSAGE, 0);
        }
        spill.fit
    }

    fn write_fixed(&self, out: &mut Vec<u8>) {
        out.resize(field::OPTIONS, 0);
        out[field::OP] = if self.op == Op::Request { 1 } else { 2 };
        out[field::HTYPE] = self.chaddr.htype;
        out[field::HLEN] = self.chaddr.len;
        out[field::XID].copy_from_slice(&self.xid.to_be_bytes());
        out[field::SECS].copy_from_slice(&self.secs.to_be_bytes());
        let flags = if self.broadcast { BROADCAST_FLAG } else { 0 };
        out[field::FLAGS].copy_from_slice(&flags.to_be_bytes());
        out[field::CIADDR].copy_from_slice(&self.ciaddr.octets());
        out[field::YIADDR].copy_from_slice(&self.yiaddr.octets());
        out[field::SIADDR].copy_from_slice(&self.siaddr.octets());
        out[field::GIADDR].copy_from_slice(&self.giaddr.octets());
        out[field::CHADDR].copy_from_slice(&self.chaddr.octets);
        let sname = self.sname.as_bytes();
        let sname = sname.get(..63).unwrap_or(sname);
        out[field::SNAME][..sname.len()].copy_from_slice(sname);
        if let Some(room) = out[field::FILE]
            .get_mut(..self.file.len())
            .filter(|room| room.len() < 128)
        {
            room.copy_from_slice(self.file.as_bytes());
        }
        out[field::COOKIE].copy_from_slice(&COOKIE);
    }
}

/// Options that did not fit, on their way to the `file` and `sname` fields (RFC 2131 section 4.1, option 52).
struct Spill {
    file: Option<usize>,
    sname: Option<usize>,
    fit: Fit,
}

impl Spill {
    fn new(file_free: bool, sname_free: bool) -> Self {
        Self {
            file: file_free.then_some(0),
            sname: sname_free.then_some(0),
            fit: Fit::default(),
        }
    }

    /// Moves what stands in `out` from `start` on to the first field with room for it and for an END octet.
    fn take(&mut self, out: &mut Vec<u8>, start: usize) {
        let len = out.len() - start;
        for (used, area) in [(&mut self.file, field::FILE), (&mut self.sname, field::SNAME)] {
            if let Some(used) = used
                && *used + len < area.len()
            {
                out.copy_within(start.., area.start + *used);
                *used += len;
                out.truncate(start);
                self.fit.overloaded += 1;
                return;
            }
        }
        out.truncate(start);
        self.fit.dropped += 1;
    }

    /// Ends the fields that hold options and says so in option 52.
    fn finish(&self, out: &mut Vec<u8>) {
        let mut overload = 0;
        for (used, area, bit) in [(self.file, field::FILE, 1), (self.sname, field::SNAME, 2)] {
            if let Some(used) = used.filter(|used| *used > 0) {
                out[area.start + used] = code::END;
                overload |= bit;
            }
        }
        if overload != 0 {
            out.extend([code::OVERLOAD, 1, overload]);
        }
    }
}
