//! Who the BMC is: Get Device ID and Get System GUID (sections 20.1 and 20.8).

use crate::command::number;
use crate::read::{Malformed, Reader};
use crate::{NetFn, Request};

/// Answer to Get Device ID (table 20-2).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DeviceId {
    /// Device ID, of the maker's choosing.
    pub device: u8,
    /// Device revision, 0 to 15.
    pub revision: u8,
    /// True while the device is updating its firmware or initialising.
    pub busy: bool,
    /// Major firmware revision, 0 to 127.
    pub firmware_major: u8,
    /// Minor firmware revision, 0 to 99 (BCD on the wire).
    pub firmware_minor: u8,
    /// IPMI version: major, minor.
    pub ipmi: (u8, u8),
    /// Bits of table 20-2, byte 7: sensor, SDR, SEL, FRU, event receiver and generator, bridge, chassis.
    pub support: u8,
    /// IANA enterprise number of the maker; 20 bits.
    pub manufacturer: u32,
    /// Product ID, of the maker's choosing.
    pub product: u16,
}

impl DeviceId {
    /// Asks for it.
    pub fn request() -> Request {
        Request::new(NetFn::APP, number::GET_DEVICE_ID, [])
    }

    /// The answer's data.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![
            self.device,
            self.revision & 0x0f,
            (self.firmware_major & 0x7f) | u8::from(self.busy) << 7,
            to_bcd(self.firmware_minor),
            (self.ipmi.1 & 0x0f) << 4 | self.ipmi.0 & 0x0f,
            self.support,
        ];
        out.extend(self.manufacturer.to_le_bytes().iter().take(3));
        out.extend_from_slice(&self.product.to_le_bytes());
        out
    }

    /// Reads the answer's data; the auxiliary revision that may follow is left alone.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Get Device ID (20.1)", data);
        let [device, revision, major, minor, version, support] = reader.array()?;
        let [a, b, c] = reader.array()?;
        Ok(Self {
            device,
            revision: revision & 0x0f,
            busy: major & 0x80 != 0,
            firmware_major: major & 0x7f,
            firmware_minor: from_bcd(minor),
            ipmi: (version & 0x0f, version >> 4),
            support,
            manufacturer: u32::from_le_bytes([a, b, c & 0x0f, 0]),
            product: reader.u16()?,
        })
    }
}

fn to_bcd(value: u8) -> u8 {
    ((value / 10 % 10) << 4) | (value % 10)
}

/// Some BMCs write the minor revision in plain binary: nibbles above 9 are kept as they are.
fn from_bcd(value: u8) -> u8 {
    let (high, low) = (value >> 4, value & 0x0f);
    if high > 9 || low > 9 { value } else { high * 10 + low }
}

/// Asks for the system GUID.
pub fn system_guid_request() -> Request {
    Request::new(NetFn::APP, number::GET_SYSTEM_GUID, [])
}

/// The UUID in an answer to Get System GUID, in the order it is written in text.
///
/// IPMI (section 20.8) sends RFC 4122 order with its least significant byte first; most BMCs instead copy the SMBIOS
/// record, whose first three fields are little-endian and whose last two are in text order. The version nibble tells
/// which: it is the high one of byte 7 in SMBIOS order and of byte 9 in IPMI order.
///
/// # Errors
/// When it is shorter than 16 bytes.
pub fn decode_guid(data: &[u8]) -> Result<[u8; 16], Malformed> {
    let mut reader = Reader::new("Get System GUID (20.8)", data);
    let raw: [u8; 16] = reader.array()?;
    let mut reversed = raw;
    reversed.reverse();
    let sound = |uuid: &[u8; 16]| (1..=8).contains(&(uuid[6] >> 4)) && uuid[8] >> 6 == 0b10;
    let smbios = swap_smbios(raw);
    Ok(if sound(&reversed) && !sound(&smbios) {
        reversed
    } else {
        smbios
    })
}

/// The bytes of Get System GUID in SMBIOS order, from a UUID in text order.
pub fn encode_guid(uuid: [u8; 16]) -> [u8; 16] {
    swap_smbios(uuid)
}

fn swap_smbios(b: [u8; 16]) -> [u8; 16] {
    [
        b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15],
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn tells_both_orders_of_a_guid_apart() {
        let uuid = 0x4c4c_4544_0042_4410_8056_b4c0_4f36_3132_u128.to_be_bytes();
        // "4410": version nibble 4; "8056": variant 10.
        assert_eq!(decode_guid(&encode_guid(uuid)), Ok(uuid));
        let mut ipmi = uuid;
        ipmi.reverse();
        assert_eq!(decode_guid(&ipmi), Ok(uuid));
    }

    proptest! {
        #[test]
        fn reads_what_it_writes(device: u8, major in 0u8..128, minor in 0u8..100, manufacturer in 0u32..1 << 20, product: u16) {
            let id = DeviceId {
                device, revision: 1, busy: false, firmware_major: major, firmware_minor: minor, ipmi: (2, 0),
                support: 0xbf, manufacturer, product,
            };
            prop_assert_eq!(DeviceId::decode(&id.encode()), Ok(id));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..24)) {
            let _ = DeviceId::decode(&bytes);
            let _ = decode_guid(&bytes);
        }
    }
}
