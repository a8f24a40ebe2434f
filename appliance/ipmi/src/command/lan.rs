//! LAN configuration parameters (sections 23.1 and 23.2): the BMC's own address.

use core::net::Ipv4Addr;

use crate::command::number;
use crate::read::{Malformed, Reader};
use crate::{NetFn, Request};

/// Parameter selectors (table 23-4), those that Rackbar reads or sets.
pub mod parameter {
    /// Set in progress.
    pub const SET_IN_PROGRESS: u8 = 0;
    /// Authentication types supported (IPMI 1.5).
    pub const AUTH_SUPPORT: u8 = 1;
    /// Authentication types enabled (IPMI 1.5).
    pub const AUTH_ENABLES: u8 = 2;
    /// IP address.
    pub const ADDRESS: u8 = 3;
    /// Where the address comes from.
    pub const SOURCE: u8 = 4;
    /// MAC address.
    pub const MAC: u8 = 5;
    /// Subnet mask.
    pub const MASK: u8 = 6;
    /// IPv4 header parameters.
    pub const IPV4_HEADER: u8 = 7;
    /// ARP control.
    pub const ARP_CONTROL: u8 = 10;
    /// Gratuitous ARP interval.
    pub const ARP_INTERVAL: u8 = 11;
    /// Default gateway.
    pub const GATEWAY: u8 = 12;
    /// MAC address of the default gateway.
    pub const GATEWAY_MAC: u8 = 13;
    /// Backup gateway.
    pub const BACKUP_GATEWAY: u8 = 14;
    /// MAC address of the backup gateway.
    pub const BACKUP_GATEWAY_MAC: u8 = 15;
    /// SNMP community.
    pub const COMMUNITY: u8 = 16;
    /// VLAN ID.
    pub const VLAN: u8 = 20;
    /// VLAN priority.
    pub const VLAN_PRIORITY: u8 = 21;
    /// Number of cipher suites.
    pub const SUITE_COUNT: u8 = 22;
    /// Cipher suites.
    pub const SUITES: u8 = 23;
    /// Highest privilege of each cipher suite.
    pub const SUITE_PRIVILEGES: u8 = 24;
}

/// Where the address comes from (parameter 4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum AddressSource {
    /// Unspecified.
    Unspecified = 0,
    /// Set by hand.
    Static = 1,
    /// DHCP.
    Dhcp = 2,
    /// The system's firmware.
    Firmware = 3,
    /// Another protocol.
    Other = 4,
}

impl AddressSource {
    /// The source a parameter byte names.
    pub const fn from_byte(byte: u8) -> Self {
        match byte & 0x0f {
            1 => Self::Static,
            2 => Self::Dhcp,
            3 => Self::Firmware,
            4 => Self::Other,
            _ => Self::Unspecified,
        }
    }
}

/// One parameter with its value.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LanParameter {
    /// IP address.
    Address(Ipv4Addr),
    /// Where it comes from.
    Source(AddressSource),
    /// MAC address.
    Mac([u8; 6]),
    /// Subnet mask.
    Mask(Ipv4Addr),
    /// Default gateway.
    Gateway(Ipv4Addr),
    /// VLAN ID, when tagging is on.
    Vlan(Option<u16>),
    /// Anything else.
    Other {
        /// Selector.
        selector: u8,
        /// Its bytes.
        data: Vec<u8>,
    },
}

impl LanParameter {
    /// Its selector.
    pub const fn selector(&self) -> u8 {
        match self {
            Self::Address(_) => parameter::ADDRESS,
            Self::Source(_) => parameter::SOURCE,
            Self::Mac(_) => parameter::MAC,
            Self::Mask(_) => parameter::MASK,
            Self::Gateway(_) => parameter::GATEWAY,
            Self::Vlan(_) => parameter::VLAN,
            Self::Other { selector, .. } => *selector,
        }
    }

    /// Asks for a parameter of a channel.
    pub fn get(channel: u8, selector: u8) -> Request {
        Request::new(NetFn::TRANSPORT, number::GET_LAN, [channel & 0x0f, selector, 0, 0])
    }

    /// Sets a parameter of a channel.
    pub fn set(&self, channel: u8) -> Request {
        let mut data = vec![channel & 0x0f, self.selector()];
        data.extend(self.value());
        Request::new(NetFn::TRANSPORT, number::SET_LAN, data)
    }

    /// The value's bytes.
    pub fn value(&self) -> Vec<u8> {
        match self {
            Self::Address(ip) | Self::Mask(ip) | Self::Gateway(ip) => ip.octets().to_vec(),
            Self::Source(source) => vec![*source as u8],
            Self::Mac(mac) => mac.to_vec(),
            Self::Vlan(None) => vec![0, 0],
            Self::Vlan(Some(id)) => (id & 0x0fff | 0x8000).to_le_bytes().to_vec(),
            Self::Other { data, .. } => data.clone(),
        }
    }

    /// Reads a value.
    ///
    /// # Errors
    /// When it is shorter than the parameter's.
    pub fn decode(selector: u8, data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("LAN parameter (table 23-4)", data);
        Ok(match selector {
            parameter::ADDRESS => Self::Address(reader.array::<4>()?.into()),
            parameter::SOURCE => Self::Source(AddressSource::from_byte(reader.u8()?)),
            parameter::MAC => Self::Mac(reader.array()?),
            parameter::MASK => Self::Mask(reader.array::<4>()?.into()),
            parameter::GATEWAY => Self::Gateway(reader.array::<4>()?.into()),
            parameter::VLAN => {
                let id = reader.u16()?;
                Self::Vlan((id & 0x8000 != 0).then_some(id & 0x0fff))
            }
            _ => Self::Other {
                selector,
                data: data.to_vec(),
            },
        })
    }

    /// Reads an answer's data: the revision, then the value.
    ///
    /// # Errors
    /// When it is shorter than the parameter's.
    pub fn decode_answer(selector: u8, data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Get LAN Configuration Parameters (23.2)", data);
        let _revision = reader.u8()?;
        Self::decode(selector, reader.rest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_what_it_writes(ip: [u8; 4], mac: [u8; 6], vlan in 0u16..4096) {
            for parameter in [
                LanParameter::Address(ip.into()), LanParameter::Mask(ip.into()), LanParameter::Gateway(ip.into()),
                LanParameter::Mac(mac), LanParameter::Source(AddressSource::Dhcp), LanParameter::Vlan(None),
                LanParameter::Vlan(Some(vlan)), LanParameter::Other { selector: 16, data: mac.to_vec() },
            ] {
                let mut answer = vec![0x11];
                answer.extend(parameter.value());
                prop_assert_eq!(LanParameter::decode_answer(parameter.selector(), &answer), Ok(parameter));
            }
        }

        #[test]
        fn any_bytes_are_survived(selector: u8, bytes in proptest::collection::vec(any::<u8>(), 0..10)) {
            let _ = LanParameter::decode_answer(selector, &bytes);
        }
    }
}
