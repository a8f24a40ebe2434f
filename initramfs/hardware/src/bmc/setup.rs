//! Setting a BMC up from inside: its own network (IPMI 2.0 section 23.1) and a user (22.26 to 22.30). Each setting is
//! read back; a BMC that says yes and does nothing is found out here and not by the operator at night.

use std::net::Ipv4Addr;

use rackbar_model::BmcInfo;

use super::device::IpmiDevice;
use super::{APPLICATION, Ask, TRANSPORT, good, lan_channel, read_from};
use crate::Root;

/// A static IPv4 address: address, prefix length, gateway.
pub type Static = (Ipv4Addr, u8, Option<Ipv4Addr>);

/// What to set; `None` leaves a thing as it is.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// True for DHCP, false for a static address.
    pub dhcp: Option<bool>,
    /// The static address.
    pub address: Option<Static>,
    /// 802.1Q VLAN ID; 0 switches tagging off.
    pub vlan: Option<u16>,
    /// User slot, name and password.
    pub user: Option<(u8, &'a str, &'a str)>,
}

/// Sets up the first BMC and reads it back.
///
/// # Errors
/// In words, with the completion code where the BMC gave one. Never with the password.
pub fn configure(root: &Root, wanted: &Wanted<'_>) -> Result<BmcInfo, String> {
    let device = IpmiDevice::open(&root.path("dev/ipmi0"));
    let mut bmc = device.map_err(|error| format!("there is no BMC to speak to: {error}"))?;
    configure_by(&mut bmc, wanted)
}

fn order(bmc: &mut impl Ask, what: &str, function: u8, command: u8, data: &[u8]) -> Result<(), String> {
    match bmc.ask(function, command, data).as_deref() {
        Some([0, ..]) => Ok(()),
        Some([code, ..]) => Err(format!("the BMC refuses {what} (completion code {code:#04x})")),
        _ => Err(format!("the BMC does not answer when it is told {what}")),
    }
}

fn configure_by(bmc: &mut impl Ask, wanted: &Wanted<'_>) -> Result<BmcInfo, String> {
    check(wanted)?;
    let channel = lan_channel(bmc);
    if wanted.dhcp.is_some() || wanted.address.is_some() || wanted.vlan.is_some() {
        network(bmc, channel, wanted)?;
    }
    if let Some((slot, name, password)) = wanted.user {
        user(bmc, channel, slot, name, password)?;
    }
    let info = read_from(bmc).ok_or("the BMC does not answer after it was set up")?;
    compare(&info, wanted)?;
    Ok(info)
}

fn check(wanted: &Wanted<'_>) -> Result<(), String> {
    if let Some((slot, name, password)) = wanted.user {
        // Slot 1 is the anonymous user (22.28), and a slot has six bits.
        if !(2..=63).contains(&slot) {
            return Err(format!("user slot {slot} is not between 2 and 63"));
        }
        if name.is_empty() || name.len() > 16 || !name.is_ascii() {
            return Err(format!("the user name {name:?} is not 1 to 16 ASCII characters"));
        }
        if password.is_empty() || password.len() > 20 || !password.is_ascii() {
            return Err("the password is not 1 to 20 ASCII characters, which is all IPMI has room for".to_owned());
        }
    }
    if wanted.vlan.is_some_and(|vlan| vlan > 4094) {
        return Err("the VLAN ID is above 4094".to_owned());
    }
    if wanted.address.is_some_and(|(_, prefix, _)| !(1..=32).contains(&prefix)) {
        return Err("the prefix length is not between 1 and 32".to_owned());
    }
    Ok(())
}

/// Set LAN Configuration Parameters (23.1); parameter numbers of table 23-4.
fn network(bmc: &mut impl Ask, channel: u8, wanted: &Wanted<'_>) -> Result<(), String> {
    let mut set = |what: &str, parameter: u8, value: &[u8]| {
        order(bmc, what, TRANSPORT, 0x01, &[&[channel, parameter], value].concat())
    };
    if let Some(dhcp) = wanted.dhcp.or(wanted.address.map(|_| false)) {
        set("where its address comes from", 4, &[if dhcp { 2 } else { 1 }])?;
    }
    if let Some((address, prefix, gateway)) = wanted.address {
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        set("its address", 3, &address.octets())?;
        set("its netmask", 6, &mask.to_be_bytes())?;
        if let Some(gateway) = gateway {
            set("its gateway", 12, &gateway.octets())?;
        }
    }
    if let Some(vlan) = wanted.vlan {
        let value = if vlan == 0 { 0 } else { vlan | 0x8000 };
        set("its VLAN", 20, &value.to_le_bytes())?;
    }
    Ok(())
}

/// Name (22.28), password (22.30), access as administrator on the LAN channel (22.26), then enabling it (22.30).
fn user(bmc: &mut impl Ask, channel: u8, slot: u8, name: &str, password: &str) -> Result<(), String> {
    let padded = |text: &str, length: usize| {
        let mut bytes = text.as_bytes().to_vec();
        bytes.resize(length, 0);
        bytes
    };
    order(
        bmc,
        "a user's name",
        APPLICATION,
        0x45,
        &[&[slot][..], &padded(name, 16)].concat(),
    )?;
    // Bit 7 of the slot says that the password has 20 bytes and not 16.
    let (flag, length) = if password.len() > 16 { (0x80, 20) } else { (0, 16) };
    let secret = padded(password, length);
    let operation = |kind: u8| [&[slot | flag, kind][..], &secret].concat();
    order(bmc, "a user's password", APPLICATION, 0x47, &operation(2))?;
    const ADMINISTRATOR: u8 = 4;
    const CHANGE: u8 = 0x80;
    const MESSAGING: u8 = 0x10;
    let access = [CHANGE | MESSAGING | channel, slot, ADMINISTRATOR, 0];
    order(bmc, "a user's rights", APPLICATION, 0x43, &access)?;
    order(bmc, "to enable a user", APPLICATION, 0x47, &[slot, 1])?;
    order(bmc, "to test a user's password", APPLICATION, 0x47, &operation(3))?;
    let told = good(bmc.ask(APPLICATION, 0x46, &[slot])).unwrap_or_default();
    if told.get(..16) != Some(padded(name, 16).as_slice()) {
        return Err(format!(
            "the BMC does not call user {slot} {name:?} after it was told to"
        ));
    }
    // Get User Access (22.27): the fourth byte has the privilege limit, and that IPMI messaging is on.
    let told = good(bmc.ask(APPLICATION, 0x44, &[channel, slot])).unwrap_or_default();
    match told.get(3) {
        Some(rights) if rights & 0x0f == ADMINISTRATOR && rights & MESSAGING != 0 => Ok(()),
        _ => Err(format!(
            "the BMC does not let user {slot} administrate over its network after it was told to"
        )),
    }
}

fn compare(info: &BmcInfo, wanted: &Wanted<'_>) -> Result<(), String> {
    let differs = |what: &str| Err(format!("the BMC's {what} is not what it was set to"));
    if let Some((address, prefix, gateway)) = wanted.address {
        if info.address != Some(address.into()) || info.prefix != Some(prefix) {
            return differs("address");
        }
        if gateway.is_some_and(|gateway| info.gateway != Some(gateway.into())) {
            return differs("gateway");
        }
    }
    if wanted.dhcp.is_some_and(|dhcp| info.dhcp != Some(dhcp)) {
        return differs("source of its address");
    }
    if wanted
        .vlan
        .is_some_and(|vlan| info.vlan != Some(vlan).filter(|vlan| *vlan != 0))
    {
        return differs("VLAN");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    /// A BMC that keeps what it is told, but for the parameters in `deaf`.
    #[derive(Default)]
    struct Memory {
        lan: HashMap<u8, Vec<u8>>,
        name: Vec<u8>,
        password: Vec<u8>,
        access: u8,
        deaf: Option<u8>,
    }

    impl Ask for Memory {
        fn ask(&mut self, function: u8, command: u8, data: &[u8]) -> Option<Vec<u8>> {
            Some(match (function, command, data) {
                (6, 1, []) => vec![0, 0x20, 0x81, 0x82, 0x45, 0x02, 0xbf, 0xa2, 0x02, 0x00, 0x00, 0x01],
                (6, 0x42, [1]) => vec![0, 1, 4, 1, 0x80],
                (6, 0x42, _) => vec![0xcc],
                (12, 1, [1, parameter, value @ ..]) => {
                    if self.deaf != Some(*parameter) {
                        self.lan.insert(*parameter, value.to_vec());
                    }
                    vec![0]
                }
                (12, 2, [1, parameter, ..]) => match self.lan.get(parameter) {
                    Some(value) => [&[0, 0x11][..], value].concat(),
                    None => vec![0x80],
                },
                (6, 0x45, [3, name @ ..]) => {
                    self.name = name.to_vec();
                    vec![0]
                }
                (6, 0x46, [3]) => [&[0][..], &self.name].concat(),
                (6, 0x47, [slot, 2, password @ ..]) if slot & 0x3f == 3 => {
                    self.password = password.to_vec();
                    vec![0]
                }
                (6, 0x47, [_, 3, password @ ..]) => vec![if password == self.password { 0 } else { 0x80 }],
                (6, 0x47, [3, 1]) => vec![0],
                (6, 0x43, [flags, 3, limit, 0]) => {
                    self.access = flags & 0x70 | limit;
                    vec![0]
                }
                (6, 0x44, [1, 3]) => vec![0, 10, 1, 1, self.access],
                _ => vec![0xc1],
            })
        }
    }

    fn wanted() -> Wanted<'static> {
        Wanted {
            dhcp: Some(false),
            address: Some((Ipv4Addr::new(10, 0, 9, 21), 22, Some(Ipv4Addr::new(10, 0, 9, 1)))),
            vlan: Some(300),
            user: Some((3, "rackbar", "a-password-of-19-ch")),
        }
    }

    #[test]
    fn a_bmc_is_set_up_and_read_back() {
        let mut bmc = Memory::default();
        let info = configure_by(&mut bmc, &wanted()).unwrap();
        assert_eq!((info.prefix, info.vlan, info.dhcp), (Some(22), Some(300), Some(false)));
        assert_eq!(bmc.lan[&6], [255, 255, 252, 0]);
        assert_eq!((bmc.password.len(), bmc.access), (20, 0x14));
        let off = Wanted {
            vlan: Some(0),
            ..Wanted::default()
        };
        assert_eq!(configure_by(&mut bmc, &off).unwrap().vlan, None);
    }

    #[test]
    fn a_bmc_that_says_yes_and_does_nothing_is_found_out() {
        for (deaf, word) in [(3, "address"), (12, "gateway"), (20, "VLAN"), (4, "source")] {
            let mut bmc = Memory {
                deaf: Some(deaf),
                ..Memory::default()
            };
            let error = configure_by(&mut bmc, &wanted()).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn what_ipmi_has_no_room_for_is_refused_without_the_password() {
        let long = "a-password-of-more-than-twenty";
        let mut bmc = Memory::default();
        for user in [
            (1, "a", "b"),
            (64, "a", "b"),
            (3, "", "b"),
            (3, "a", ""),
            (3, "a", long),
            (3, "a-name-of-17-char", "b"),
        ] {
            let error = configure_by(
                &mut bmc,
                &Wanted {
                    user: Some(user),
                    ..Wanted::default()
                },
            )
            .unwrap_err();
            assert!(!error.contains(long), "{error}");
        }
        assert!(bmc.name.is_empty());
    }
}
