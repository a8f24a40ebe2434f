//! Setting a BMC up from inside: its own network (IPMI 2.0 section 23.1) and a user (22.26 to 22.30). What is as wanted is
//! not touched. Each setting is read back; a BMC that says yes and does nothing is found out here and not by the operator
//! at night. A user gets name, password and rights before it is enabled, so that whatever interrupts this leaves no account
//! open that is half made, and the accounts of others stay as they are.

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
    /// User slot, name and password. Slot 0: the one that has this name, else the first free one.
    pub user: Option<(u8, &'a str, &'a str)>,
}

/// Looks at a BMC that was set up, until it shows what it was told.
const LOOKS: u32 = 8;

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

/// As [`configure`], by a way of the caller's.
///
/// # Errors
/// As there.
pub fn configure_by(bmc: &mut impl Ask, wanted: &Wanted<'_>) -> Result<BmcInfo, String> {
    check(wanted)?;
    let before = read_from(bmc).ok_or("the BMC does not answer")?;
    let channel = lan_channel(bmc);
    if let Some((slot, name, password)) = wanted.user {
        let slot = match slot {
            0 => slot_for(bmc, channel, name, password)?,
            slot => slot,
        };
        user(bmc, channel, slot, name, password)?;
    }
    if compare(&before, wanted).is_ok() {
        return Ok(before);
    }
    // Last: a new address may take the BMC away from whoever else works on it.
    network(bmc, channel, wanted, before.vlan.is_some())?;
    let mut looks = 0;
    loop {
        let found = read_from(bmc).ok_or_else(|| "the BMC does not answer after it was set up".to_owned());
        let found = found.and_then(|info| compare(&info, wanted).map(|()| info));
        looks += 1;
        if found.is_ok() || looks >= LOOKS {
            return found;
        }
        bmc.rest();
    }
}

/// The slot of the user with this name, if it is ours; else the first that nobody has. Slot 1 is the anonymous user's.
fn slot_for(bmc: &mut impl Ask, channel: u8, name: &str, password: &str) -> Result<u8, String> {
    // Get User Access (22.27): how many slots there are; the top bits of the second byte say whether this one is enabled.
    let access = good(bmc.ask(APPLICATION, 0x44, &[channel, 1])).unwrap_or_default();
    let slots = access.first().map_or(0, |slots| slots & 0x3f);
    if slots < 2 {
        return Err("the BMC does not say how many users it has room for".to_owned());
    }
    let (mut free, mut others) = (None, Vec::new());
    for slot in 2..=slots {
        let answer = bmc.ask(APPLICATION, 0x46, &[slot]);
        let taken = match answer.as_deref() {
            Some([0, field @ ..]) => user_name(field),
            // Some makers refuse the name of a user that is not there (CCh).
            Some([0xcc, ..]) => String::new(),
            Some([code, ..]) => {
                return Err(format!(
                    "the BMC refuses the name of user {slot} (completion code {code:#04x})"
                ));
            }
            _ => {
                return Err(format!(
                    "the BMC does not answer when it is asked for the name of user {slot}"
                ));
            }
        };
        if taken == name {
            if is_in_use(bmc, channel, slot) && !is_its_password(bmc, slot, password) {
                return Err(format!(
                    "the BMC has a user {name:?} already, in slot {slot}, with another password: it is somebody's and stays as it \
                     is; give the account another name, or remove that user"
                ));
            }
            return Ok(slot);
        }
        if taken.is_empty() {
            const ENABLED: u8 = 0b01;
            let access = good(bmc.ask(APPLICATION, 0x44, &[channel, slot])).unwrap_or_default();
            let enabled = access.get(1).is_some_and(|status| status >> 6 == ENABLED);
            free = free.or((!enabled).then_some(slot));
        } else {
            others.push(taken);
        }
    }
    let full = || {
        format!(
            "all {slots} users of the BMC are taken: {}; remove one of them",
            others.join(", ")
        )
    };
    free.ok_or_else(full)
}

/// A name from its zero-padded field, for people to read.
fn user_name(field: &[u8]) -> String {
    let name = field.iter().take(16).take_while(|byte| **byte != 0);
    name.map(|byte| char::from(*byte))
        .map(|letter| if letter.is_ascii_graphic() { letter } else { '?' })
        .collect()
}

fn check(wanted: &Wanted<'_>) -> Result<(), String> {
    if let Some((slot, name, password)) = wanted.user {
        // Slot 1 is the anonymous user (22.28), and a slot has six bits.
        if slot != 0 && !(2..=63).contains(&slot) {
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
fn network(bmc: &mut impl Ask, channel: u8, wanted: &Wanted<'_>, has_vlan: bool) -> Result<(), String> {
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
    match wanted.vlan {
        // Many BMCs have no such parameter, which is as good as off.
        Some(0) if !has_vlan => Ok(()),
        Some(0) => set("its VLAN", 20, &[0, 0]),
        Some(vlan) => set("its VLAN", 20, &(vlan | 0x8000).to_le_bytes()),
        None => Ok(()),
    }
}

const ADMINISTRATOR: u8 = 4;
const MESSAGING: u8 = 0x10;

/// True when the user has this name and is enabled as administrator over the LAN channel.
fn is_there(bmc: &mut impl Ask, channel: u8, slot: u8, name: &[u8]) -> bool {
    let named = good(bmc.ask(APPLICATION, 0x46, &[slot])).is_some_and(|told| told.get(..16) == Some(name));
    let access = good(bmc.ask(APPLICATION, 0x44, &[channel, slot])).unwrap_or_default();
    // 10b is "disabled"; 00b is what BMCs older than errata 3 say of an enabled one.
    let enabled = access.get(1).is_some_and(|status| status >> 6 == 0b01);
    let rights = access.get(3).copied().unwrap_or_default();
    named && enabled && rights & 0x0f == ADMINISTRATOR && rights & MESSAGING != 0
}

/// Somebody can log in as this user. One that we began to make cannot: it is enabled last.
fn is_in_use(bmc: &mut impl Ask, channel: u8, slot: u8) -> bool {
    let access = good(bmc.ask(APPLICATION, 0x44, &[channel, slot])).unwrap_or_default();
    let rights = access.get(3).copied().unwrap_or_default();
    match access.get(1).map(|status| status >> 6) {
        Some(0b01) => true,
        Some(0b10) => false,
        // BMCs older than errata 3 do not say.
        _ => rights & 0x0f == ADMINISTRATOR && rights & MESSAGING != 0,
    }
}

/// A user's slot and an operation on the password (22.30), with it. Bit 7 of the slot says that it has 20 bytes and not 16.
fn operation(slot: u8, kind: u8, password: &str) -> Vec<u8> {
    let (flag, length) = if password.len() > 16 { (0x80, 20) } else { (0, 16) };
    [&[slot | flag, kind][..], &padded(password, length)].concat()
}

fn padded(text: &str, length: usize) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(length, 0);
    bytes
}

/// The test of a password (22.30, operation 11b).
fn is_its_password(bmc: &mut impl Ask, slot: u8, password: &str) -> bool {
    good(bmc.ask(APPLICATION, 0x47, &operation(slot, 3, password))).is_some()
}

/// Name (22.28), password (22.30), access as administrator on the LAN channel (22.26), then enabling it (22.30).
fn user(bmc: &mut impl Ask, channel: u8, slot: u8, name: &str, password: &str) -> Result<(), String> {
    let operation = |kind: u8| operation(slot, kind, password);
    if is_there(bmc, channel, slot, &padded(name, 16)) && is_its_password(bmc, slot, password) {
        return Ok(());
    }
    let named = [&[slot][..], &padded(name, 16)].concat();
    order(bmc, "a user's name", APPLICATION, 0x45, &named)?;
    order(bmc, "a user's password", APPLICATION, 0x47, &operation(2))?;
    const CHANGE: u8 = 0x80;
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
mod tests;
