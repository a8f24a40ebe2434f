//! Options: their codes, and the values we send.

use std::net::Ipv4Addr;

use super::MessageType;

/// Option codes (RFC 2132 and the RFCs named).
#[allow(missing_docs, reason = "the names are the registry's")]
pub mod code {
    pub const PAD: u8 = 0;
    pub const SUBNET_MASK: u8 = 1;
    pub const ROUTER: u8 = 3;
    pub const DNS: u8 = 6;
    pub const LOG: u8 = 7;
    pub const HOST_NAME: u8 = 12;
    pub const DOMAIN_NAME: u8 = 15;
    pub const BROADCAST_ADDRESS: u8 = 28;
    pub const NTP: u8 = 42;
    pub const VENDOR_SPECIFIC: u8 = 43;
    pub const REQUESTED_ADDRESS: u8 = 50;
    pub const LEASE_TIME: u8 = 51;
    pub const OVERLOAD: u8 = 52;
    pub const MESSAGE_TYPE: u8 = 53;
    pub const SERVER_ID: u8 = 54;
    pub const PARAMETERS: u8 = 55;
    pub const MESSAGE: u8 = 56;
    pub const MAX_SIZE: u8 = 57;
    pub const RENEWAL_TIME: u8 = 58;
    pub const REBINDING_TIME: u8 = 59;
    pub const VENDOR_CLASS: u8 = 60;
    pub const CLIENT_ID: u8 = 61;
    pub const TFTP_SERVER_NAME: u8 = 66;
    pub const BOOT_FILE: u8 = 67;
    /// RFC 3004.
    pub const USER_CLASS: u8 = 77;
    /// RFC 3046.
    pub const RELAY_INFO: u8 = 82;
    /// RFC 4578: client system architectures, a list of 16-bit codes.
    pub const ARCH: u8 = 93;
    /// RFC 4578: network interface (UNDI) version.
    pub const INTERFACE_ID: u8 = 94;
    /// RFC 4578: machine identifier, type octet 0 and the SMBIOS UUID.
    pub const MACHINE_ID: u8 = 97;
    /// Etherboot's private space, used by iPXE.
    pub const IPXE: u8 = 175;
    pub const END: u8 = 255;
}

/// Sub-options of option 43 as PXE clients read it (PXE 2.1 table 2-3, RFC 4578 section 2.4 for the framing).
#[allow(missing_docs, reason = "the names are the specification's")]
pub mod pxe {
    pub const DISCOVERY_CONTROL: u8 = 6;
    pub const BOOT_ITEM: u8 = 71;
    /// Discovery control with bit 3 alone, then END: fetch the named boot file, look for no boot servers, show no
    /// menu. EDK2 fails with PXE-E16 when option 60 says `PXEClient` and this is missing.
    pub const USE_BOOT_FILE: &[u8] = &[DISCOVERY_CONTROL, 1, 8, 0xff];
}

/// Sub-options of option 175 (iPXE).
pub mod ipxe {
    /// Sub-option 176 = 1, "no-pxedhcp": do not wait up to 3 s for ProxyDHCP answers.
    pub const NO_PXEDHCP: &[u8] = &[176, 1, 1];
}

/// Sub-options of option 82.
#[allow(missing_docs, reason = "the names are the registry's")]
pub mod relay {
    pub const CIRCUIT_ID: u8 = 1;
    pub const REMOTE_ID: u8 = 2;
    /// RFC 3527: the subnet to choose, when it is not the one of `giaddr`.
    pub const LINK_SELECTION: u8 = 5;
}

/// Bytes of an option that is text for people; shown with anything unprintable replaced by a dot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text<'a>(pub &'a [u8]);

impl std::fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        use std::fmt::Write as _;
        // Several ROMs end their strings with a NUL.
        let end = self.0.iter().rposition(|b| *b != 0).map_or(0, |last| last + 1);
        self.0.iter().take(end).try_for_each(|b| {
            let shown = if b.is_ascii_graphic() || *b == b' ' {
                char::from(*b)
            } else {
                '.'
            };
            f.write_char(shown)
        })
    }
}

/// An option with a value that makes sense for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DhcpOption<'a> {
    /// 53.
    MessageType(MessageType),
    /// 54.
    ServerId(Ipv4Addr),
    /// 50.
    RequestedAddress(Ipv4Addr),
    /// 51, seconds.
    LeaseTime(u32),
    /// 58, seconds.
    RenewalTime(u32),
    /// 59, seconds.
    RebindingTime(u32),
    /// 1.
    SubnetMask(Ipv4Addr),
    /// 28.
    BroadcastAddress(Ipv4Addr),
    /// 3.
    Routers(&'a [Ipv4Addr]),
    /// 6.
    Dns(&'a [Ipv4Addr]),
    /// 42.
    Ntp(&'a [Ipv4Addr]),
    /// Log servers (option 7).
    Log(&'a [Ipv4Addr]),
    /// 12.
    HostName(&'a str),
    /// 15.
    DomainName(&'a str),
    /// 56.
    Message(&'a str),
    /// 57.
    MaxSize(u16),
    /// 60.
    VendorClass(&'a str),
    /// 66.
    TftpServerName(&'a str),
    /// 67.
    BootFile(&'a str),
    /// 93, the first architecture only.
    Arch(u16),
    /// Any other, as bytes.
    Other(u8, &'a [u8]),
}

impl DhcpOption<'_> {
    /// The option's code.
    pub const fn code(&self) -> u8 {
        match self {
            Self::MessageType(_) => code::MESSAGE_TYPE,
            Self::ServerId(_) => code::SERVER_ID,
            Self::RequestedAddress(_) => code::REQUESTED_ADDRESS,
            Self::LeaseTime(_) => code::LEASE_TIME,
            Self::RenewalTime(_) => code::RENEWAL_TIME,
            Self::RebindingTime(_) => code::REBINDING_TIME,
            Self::SubnetMask(_) => code::SUBNET_MASK,
            Self::BroadcastAddress(_) => code::BROADCAST_ADDRESS,
            Self::Routers(_) => code::ROUTER,
            Self::Dns(_) => code::DNS,
            Self::Ntp(_) => code::NTP,
            Self::Log(_) => code::LOG,
            Self::HostName(_) => code::HOST_NAME,
            Self::DomainName(_) => code::DOMAIN_NAME,
            Self::Message(_) => code::MESSAGE,
            Self::MaxSize(_) => code::MAX_SIZE,
            Self::VendorClass(_) => code::VENDOR_CLASS,
            Self::TftpServerName(_) => code::TFTP_SERVER_NAME,
            Self::BootFile(_) => code::BOOT_FILE,
            Self::Arch(_) => code::ARCH,
            Self::Other(code, _) => *code,
        }
    }

    /// Appends the option; values longer than 255 octets become several fragments (RFC 3396). Empty values are left
    /// out: an option of length zero is an error to many clients.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::MessageType(kind) => put(out, self.code(), &[*kind as u8]),
            Self::ServerId(ip) | Self::RequestedAddress(ip) | Self::SubnetMask(ip) | Self::BroadcastAddress(ip) => {
                put(out, self.code(), &ip.octets());
            }
            Self::LeaseTime(seconds) | Self::RenewalTime(seconds) | Self::RebindingTime(seconds) => {
                put(out, self.code(), &seconds.to_be_bytes());
            }
            // 63 addresses fill one fragment; nobody reads more, and none is cut in half.
            Self::Routers(list) | Self::Dns(list) | Self::Ntp(list) | Self::Log(list) if !list.is_empty() => {
                let list = list.get(..63).unwrap_or(list);
                out.extend([self.code(), (list.len() * 4) as u8]);
                list.iter().for_each(|ip| out.extend(ip.octets()));
            }
            Self::Routers(_) | Self::Dns(_) | Self::Ntp(_) | Self::Log(_) => {}
            Self::HostName(text)
            | Self::DomainName(text)
            | Self::Message(text)
            | Self::VendorClass(text)
            | Self::TftpServerName(text)
            | Self::BootFile(text) => put(out, self.code(), text.as_bytes()),
            Self::MaxSize(value) | Self::Arch(value) => put(out, self.code(), &value.to_be_bytes()),
            // These two would end or shift everything behind them.
            Self::Other(code::PAD | code::END, _) => {}
            Self::Other(code, bytes) => put(out, *code, bytes),
        }
    }
}

fn put(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    for fragment in value.chunks(255) {
        out.extend([code, fragment.len() as u8]);
        out.extend_from_slice(fragment);
    }
}
