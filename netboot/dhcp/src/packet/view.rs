//! A received message, as it is.

use std::borrow::Cow;
use std::fmt;
use std::net::Ipv4Addr;

use rackbar_model::{ClientArch, MacAddr};

use super::{BROADCAST_FLAG, COOKIE, HTYPE_ETHERNET, MessageType, Op, Text, code, field};

/// Why bytes are not a DHCP message at all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PacketError {
    /// Shorter than the fixed fields and the cookie.
    TooShort {
        /// Octets there were.
        len: usize,
    },
    /// `op` is neither 1 nor 2.
    BadOp(u8),
    /// No magic cookie: plain BOOTP, or not DHCP.
    NoCookie,
}

impl fmt::Display for PacketError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { len } => write!(f, "{len} octets are too few for a DHCP message (240 at least)"),
            Self::BadOp(op) => write!(f, "op field at offset 0 is {op}, not 1 or 2"),
            Self::NoCookie => f.write_str("no DHCP cookie at offset 236: a BOOTP client or another protocol"),
        }
    }
}

impl std::error::Error for PacketError {}

/// A view over a received message.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    bytes: &'a [u8],
    /// Where options are, in the order RFC 3396 joins them: the options field, then `file`, then `sname`.
    areas: [&'a [u8]; 3],
}

impl<'a> Packet<'a> {
    /// Looks at received bytes.
    ///
    /// # Errors
    /// Only when the fixed part is missing; damage in the options shortens what the accessors see.
    pub fn new(bytes: &'a [u8]) -> Result<Self, PacketError> {
        let Some(options) = bytes.get(field::OPTIONS..) else {
            return Err(PacketError::TooShort { len: bytes.len() });
        };
        if !matches!(bytes[field::OP], 1 | 2) {
            return Err(PacketError::BadOp(bytes[field::OP]));
        }
        if bytes[field::COOKIE] != COOKIE {
            return Err(PacketError::NoCookie);
        }
        let mut packet = Self {
            bytes,
            areas: [options, &[], &[]],
        };
        let overload = packet
            .first(code::OVERLOAD)
            .and_then(<[u8]>::first)
            .copied()
            .unwrap_or(0);
        if overload & 1 != 0 {
            packet.areas[1] = &bytes[field::FILE];
        }
        if overload & 2 != 0 {
            packet.areas[2] = &bytes[field::SNAME];
        }
        Ok(packet)
    }

    /// The octets looked at.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn array<const N: usize>(&self, at: std::ops::Range<usize>) -> [u8; N] {
        self.bytes.get(at).and_then(|b| b.try_into().ok()).unwrap_or([0; N])
    }

    fn address(&self, at: std::ops::Range<usize>) -> Ipv4Addr {
        Ipv4Addr::from(self.array::<4>(at))
    }

    /// Direction.
    pub fn op(&self) -> Op {
        if self.bytes[field::OP] == 1 {
            Op::Request
        } else {
            Op::Reply
        }
    }

    /// Hardware type; 1 is Ethernet.
    pub fn htype(&self) -> u8 {
        self.bytes[field::HTYPE]
    }

    /// Relays passed.
    pub fn hops(&self) -> u8 {
        self.bytes[field::HOPS]
    }

    /// Transaction.
    pub fn xid(&self) -> u32 {
        u32::from_be_bytes(self.array(field::XID))
    }

    /// Seconds since the client began.
    pub fn secs(&self) -> u16 {
        u16::from_be_bytes(self.array(field::SECS))
    }

    /// True when the client can only hear broadcasts.
    pub fn broadcast(&self) -> bool {
        u16::from_be_bytes(self.array(field::FLAGS)) & BROADCAST_FLAG != 0
    }

    /// The client's address, when it has one and can answer ARP.
    pub fn ciaddr(&self) -> Ipv4Addr {
        self.address(field::CIADDR)
    }

    /// "Your" address, given by a server.
    pub fn yiaddr(&self) -> Ipv4Addr {
        self.address(field::YIADDR)
    }

    /// Next server.
    pub fn siaddr(&self) -> Ipv4Addr {
        self.address(field::SIADDR)
    }

    /// Relay agent.
    pub fn giaddr(&self) -> Ipv4Addr {
        self.address(field::GIADDR)
    }

    /// Hardware address as far as `hlen` says, at most 16 octets.
    pub fn chaddr(&self) -> &'a [u8] {
        let len = usize::from(self.bytes[field::HLEN]).min(16);
        &self.bytes[field::CHADDR][..len]
    }

    /// The Ethernet address one station can own; `None` for other media, all zero or a group address.
    pub fn mac(&self) -> Option<MacAddr> {
        let octets: [u8; 6] = self.chaddr().try_into().ok()?;
        Some(MacAddr(octets)).filter(|mac| self.htype() == HTYPE_ETHERNET && mac.is_unicast())
    }

    /// `sname` as text, when it does not hold options.
    pub fn sname(&self) -> &'a [u8] {
        if self.areas[2].is_empty() {
            until_nul(&self.bytes[field::SNAME])
        } else {
            &[]
        }
    }

    /// `file` as text, when it does not hold options.
    pub fn file(&self) -> &'a [u8] {
        if self.areas[1].is_empty() {
            until_nul(&self.bytes[field::FILE])
        } else {
            &[]
        }
    }

    /// Options as they stand, fragments not joined. Ends at the first damage of each area.
    pub fn options(&self) -> impl Iterator<Item = (u8, &'a [u8])> + use<'a> {
        self.areas.into_iter().flat_map(|rest| Walk { rest, end_octet: true })
    }

    /// The first fragment of an option: right for all whose value is of fixed size.
    pub fn first(&self, code: u8) -> Option<&'a [u8]> {
        self.options().find(|(c, _)| *c == code).map(|(_, value)| value)
    }

    /// An option's value with its fragments joined (RFC 3396).
    pub fn option(&self, code: u8) -> Option<Cow<'a, [u8]>> {
        let mut fragments = self.options().filter(|(c, _)| *c == code).map(|(_, value)| value);
        let first = fragments.next()?;
        let Some(second) = fragments.next() else {
            return Some(Cow::Borrowed(first));
        };
        let mut joined = [first, second].concat();
        fragments.for_each(|fragment| joined.extend_from_slice(fragment));
        Some(Cow::Owned(joined))
    }

    fn option_address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.first(code)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets)).filter(|ip| !ip.is_unspecified())
    }

    /// Option 53.
    pub fn message_type(&self) -> Option<MessageType> {
        MessageType::from_code(*self.first(code::MESSAGE_TYPE)?.first()?)
    }

    /// Option 50; zero counts as absent.
    pub fn requested_address(&self) -> Option<Ipv4Addr> {
        self.option_address(code::REQUESTED_ADDRESS)
    }

    /// Option 54; zero counts as absent.
    pub fn server_id(&self) -> Option<Ipv4Addr> {
        self.option_address(code::SERVER_ID)
    }

    /// Option 51, seconds.
    pub fn lease_time(&self) -> Option<u32> {
        self.first(code::LEASE_TIME)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// Octets of UDP payload the client takes: option 57 read as an IP datagram, within what makes sense.
    pub fn size_limit(&self) -> usize {
        let asked = self
            .first(code::MAX_SIZE)
            .and_then(|b| b.try_into().ok())
            .map_or(576, u16::from_be_bytes);
        usize::from(asked)
            .saturating_sub(28)
            .clamp(super::DEFAULT_LIMIT, super::MAX_MESSAGE)
    }

    /// Option 60.
    pub fn vendor_class(&self) -> Option<Cow<'a, [u8]>> {
        self.option(code::VENDOR_CLASS)
    }

    /// Option 61, when it is long enough to mean anything (RFC 2132 section 9.14: two octets).
    pub fn client_id(&self) -> Option<Cow<'a, [u8]>> {
        self.option(code::CLIENT_ID).filter(|id| id.len() >= 2)
    }

    /// All architectures of option 93, in the client's order.
    pub fn archs(&self) -> impl Iterator<Item = ClientArch> + use<'a> {
        let list = self.first(code::ARCH).unwrap_or(&[]);
        list.chunks_exact(2)
            .map(|pair| ClientArch::from_code(u16::from_be_bytes([pair[0], pair[1]])))
    }

    /// True when the client is of this user class (option 77). Reads both spellings: RFC 3004's counted strings, and
    /// the bare text that iPXE and dhclient configurations send.
    pub fn has_user_class(&self, class: &str) -> bool {
        let Some(data) = self.option(code::USER_CLASS) else {
            return false;
        };
        let bare = until_nul(&data) == class.as_bytes();
        let mut rest = &data[..];
        let mut counted = false;
        while let Some((len, tail)) = rest.split_first() {
            let Some(item) = tail.get(..usize::from(*len)) else {
                break;
            };
            counted |= item == class.as_bytes();
            rest = &tail[item.len()..];
        }
        bare || counted
    }

    /// Sub-options of option 82 or 175: no END octet among them.
    pub fn sub_options(&self, code: u8) -> SubOptions<'a> {
        SubOptions(self.option(code).unwrap_or_default())
    }
}

impl fmt::Debug for Packet<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} xid {:08x}", self.op(), self.message_type(), self.xid())?;
        if let Some(mac) = self.mac() {
            write!(f, " {mac}")?;
        }
        for (name, ip) in [
            ("ci", self.ciaddr()),
            ("yi", self.yiaddr()),
            ("si", self.siaddr()),
            ("gi", self.giaddr()),
        ] {
            if !ip.is_unspecified() {
                write!(f, " {name} {ip}")?;
            }
        }
        if !self.file().is_empty() {
            write!(f, " file {}", Text(self.file()))?;
        }
        for (code, value) in self.options() {
            match code {
                code::HOST_NAME | code::VENDOR_CLASS | code::USER_CLASS | code::BOOT_FILE | code::TFTP_SERVER_NAME => {
                    write!(f, " {code}={}", Text(value))?;
                }
                _ => write!(f, " {code}={value:02x?}")?,
            }
        }
        Ok(())
    }
}

/// Sub-options inside one option.
#[derive(Clone, Debug)]
pub struct SubOptions<'a>(Cow<'a, [u8]>);

impl SubOptions<'_> {
    /// The value of a sub-option.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        Walk {
            rest: &self.0,
            end_octet: false,
        }
        .find(|(c, _)| *c == code)
        .map(|(_, value)| value)
    }

    /// The whole option.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Walks code, length, value triples.
struct Walk<'a> {
    rest: &'a [u8],
    /// Whether code 255 ends the list and 0 is padding, as in the main options; sub-option lists know neither.
    end_octet: bool,
}

impl<'a> Iterator for Walk<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (code, tail) = self.rest.split_first()?;
            match *code {
                code::PAD if self.end_octet => self.rest = tail,
                code::END if self.end_octet => return None,
                code => {
                    let (len, tail) = tail.split_first()?;
                    let value = tail.get(..usize::from(*len))?;
                    self.rest = &tail[value.len()..];
                    return Some((code, value));
                }
            }
        }
    }
}

fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or(&[])
}
