//! The BMC as its own host sees it: device ID and LAN settings over the kernel's `/dev/ipmi0` (KCS, SSIF or BT).

mod device;
mod setup;

use std::net::{IpAddr, Ipv4Addr};

use rackbar_model::{BmcInfo, MacAddr};

use crate::Root;
use device::IpmiDevice;

pub use setup::{Static, Wanted, configure, configure_by};

const APPLICATION: u8 = 0x06;
const TRANSPORT: u8 = 0x0c;

/// A way to ask the BMC.
pub trait Ask {
    /// Network function, command and data in, completion code and data out; `None` without an answer.
    fn ask(&mut self, function: u8, command: u8, data: &[u8]) -> Option<Vec<u8>>;

    /// Waits a moment, while the BMC does what it was told.
    fn rest(&mut self) {}
}

/// Asks the first BMC; `None` when there is none or it does not answer.
pub fn read(root: &Root) -> Option<BmcInfo> {
    read_from(&mut IpmiDevice::open(&root.path("dev/ipmi0")).ok()?)
}

/// As [`read`], by a way of the caller's.
pub fn read_from(bmc: &mut impl Ask) -> Option<BmcInfo> {
    let mut info = device_id(&good(bmc.ask(APPLICATION, 0x01, &[]))?)?;
    let channel = lan_channel(bmc);
    // Get LAN Configuration Parameters (23.2): channel, parameter, set, block; the answer begins with a revision.
    let mut parameter =
        |number| good(bmc.ask(TRANSPORT, 0x02, &[channel, number, 0, 0])).and_then(|a| Some(a.get(1..)?.to_vec()));
    info.address = parameter(3).as_deref().and_then(address);
    info.dhcp = parameter(4).and_then(|v| v.first().map(|source| source & 0x0f == 2));
    info.mac = parameter(5)
        .and_then(|v| v.first_chunk().map(|octets| MacAddr(*octets)))
        .filter(|mac| !mac.is_zero());
    info.prefix = parameter(6).and_then(|v| v.first_chunk().and_then(|mask| prefix(*mask)));
    info.gateway = parameter(12).as_deref().and_then(address);
    info.vlan = parameter(20).and_then(|v| v.first_chunk().and_then(|id| vlan(*id)));
    Some(info)
}

/// The data behind completion code 0.
fn good(answer: Option<Vec<u8>>) -> Option<Vec<u8>> {
    let answer = answer?;
    let (code, data) = answer.split_first()?;
    (*code == 0).then(|| data.to_vec())
}

/// Get Device ID (20.1).
fn device_id(data: &[u8]) -> Option<BmcInfo> {
    let [_, _, major, minor, version, _, m0, m1, m2, p0, p1, ..] = *data else {
        return None;
    };
    Some(BmcInfo {
        // The minor revision and the version are BCD; the version has its digits swapped: 0x02 is 2.0.
        firmware: Some(format!("{}.{minor:02x}", major & 0x7f)),
        ipmi_version: Some(format!("{}.{}", version & 0x0f, version >> 4)),
        manufacturer_id: Some(u32::from_le_bytes([m0, m1, m2 & 0x0f, 0])).filter(|id| *id != 0 && *id != 0xf_ffff),
        product_id: Some(u16::from_le_bytes([p0, p1])),
        ..BmcInfo::default()
    })
}

/// The first channel whose medium is an 802.3 LAN (Get Channel Info, 22.24). Makers put it at 1, 2 or 8.
fn lan_channel(bmc: &mut impl Ask) -> u8 {
    const LAN: u8 = 4;
    let is_lan = |channel: &u8| {
        let info = good(bmc.ask(APPLICATION, 0x42, &[*channel]));
        info.is_some_and(|info| info.get(1).is_some_and(|medium| medium & 0x7f == LAN))
    };
    (1..=11).find(is_lan).unwrap_or(1)
}

fn address(data: &[u8]) -> Option<IpAddr> {
    let address = Ipv4Addr::from(*data.first_chunk::<4>()?);
    (!address.is_unspecified()).then_some(IpAddr::V4(address))
}

/// Length of a netmask; `None` when its ones are not all in front, or it is not set.
fn prefix(mask: [u8; 4]) -> Option<u8> {
    let mask = u32::from_be_bytes(mask);
    let length = mask.leading_ones();
    (length > 0 && mask.count_ones() == length).then_some(length as u8)
}

/// Parameter 20: twelve bits of ID, and the top bit for "in use".
fn vlan(bytes: [u8; 2]) -> Option<u16> {
    let value = u16::from_le_bytes(bytes);
    (value & 0x8000 != 0).then_some(value & 0x0fff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A BMC that answers what `0` says.
    struct Fake<F>(F);

    impl<F: FnMut(u8, u8, &[u8]) -> Option<Vec<u8>>> Ask for Fake<F> {
        fn ask(&mut self, function: u8, command: u8, data: &[u8]) -> Option<Vec<u8>> {
            (self.0)(function, command, data)
        }
    }

    const DEVICE: [u8; 12] = [0, 0x20, 0x81, 0x82, 0x45, 0x02, 0xbf, 0xa2, 0x02, 0x00, 0x00, 0x01];

    #[test]
    fn a_bmc_with_its_lan_on_channel_8() {
        let mut bmc = Fake(|function, command, data: &[u8]| {
            Some(match (function, command, data) {
                (6, 1, []) => DEVICE.to_vec(),
                (6, 0x42, [8]) => vec![0, 8, 4, 1, 0x80],
                (6, 0x42, _) => vec![0xcc],
                (12, 2, [8, 3, 0, 0]) => vec![0, 0x11, 10, 0, 9, 21],
                (12, 2, [8, 4, 0, 0]) => vec![0, 0x11, 2],
                (12, 2, [8, 5, 0, 0]) => vec![0, 0x11, 0x52, 0x54, 0, 1, 2, 3],
                (12, 2, [8, 6, 0, 0]) => vec![0, 0x11, 255, 255, 255, 0],
                (12, 2, [8, 12, 0, 0]) => vec![0, 0x11, 10, 0, 9, 1],
                (12, 2, [8, 20, 0, 0]) => vec![0, 0x11, 0x63, 0x80],
                _ => return None,
            })
        });
        let info = read_from(&mut bmc).unwrap();
        assert_eq!(info.address, Some("10.0.9.21".parse().unwrap()));
        assert_eq!((info.prefix, info.vlan, info.dhcp), (Some(24), Some(99), Some(true)));
        assert_eq!(info.firmware.as_deref(), Some("2.45"));
        assert_eq!((info.manufacturer_id, info.product_id), (Some(674), Some(256)));
        assert_eq!(info.mac.unwrap().to_string(), "52:54:00:01:02:03");
        assert_eq!(info.ipmi_version.as_deref(), Some("2.0"));
    }

    #[test]
    fn a_bmc_that_refuses_lan_questions_still_has_an_identity() {
        let mut bmc = Fake(|_, command, _: &[u8]| Some(if command == 1 { DEVICE.to_vec() } else { vec![0xc1] }));
        let info = read_from(&mut bmc).unwrap();
        assert_eq!(
            (info.address, info.mac, info.firmware.as_deref()),
            (None, None, Some("2.45"))
        );
        assert_eq!(read_from(&mut Fake(|_, _, _: &[u8]| None)), None);
    }

    proptest! {
        #[test]
        fn any_answers_are_read(answers in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..16), 20)) {
            let mut answers = answers.into_iter();
            let _ = read_from(&mut Fake(|_, command, _: &[u8]| if command == 1 { Some(DEVICE.to_vec()) } else { answers.next() }));
        }
    }
}
