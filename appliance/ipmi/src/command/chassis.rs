//! Power and boot device: Get Chassis Status, Chassis Control, System Boot Options (sections 28.2, 28.3, 28.12, 28.13).

use crate::command::number;
use crate::read::{Malformed, Reader};
use crate::{NetFn, Request};

/// Answer to Get Chassis Status (table 28-3).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ChassisStatus {
    /// Power is on.
    pub on: bool,
    /// The last power-down came from a fault of the supply.
    pub power_fault: bool,
    /// What happens after mains returns: 0 stay off, 1 as before, 2 on, 3 unknown.
    pub restore_policy: u8,
}

impl ChassisStatus {
    /// Asks for it.
    pub fn request() -> Request {
        Request::new(NetFn::CHASSIS, number::CHASSIS_STATUS, [])
    }

    /// The answer's data.
    pub fn encode(&self) -> Vec<u8> {
        let power = u8::from(self.on) | u8::from(self.power_fault) << 3 | (self.restore_policy & 3) << 5;
        vec![power, 0, 0, 0]
    }

    /// Reads the answer's data.
    ///
    /// # Errors
    /// When it is shorter than three bytes.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let [power, ..] = Reader::new("Get Chassis Status (28.2)", data).array::<3>()?;
        Ok(Self {
            on: power & 1 != 0,
            power_fault: power & 8 != 0,
            restore_policy: power >> 5 & 3,
        })
    }
}

/// What Chassis Control can do (table 28-4).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum ChassisControl {
    /// Off at once.
    PowerDown = 0,
    /// On.
    PowerUp = 1,
    /// Off for at least a second, then on. Refused by many BMCs when the machine is off.
    PowerCycle = 2,
    /// Hard reset.
    HardReset = 3,
    /// Diagnostic interrupt (NMI).
    Diagnostic = 4,
    /// Ask the operating system to shut down, by emulating over-temperature or the power button.
    SoftShutdown = 5,
}

impl ChassisControl {
    /// Asks for it.
    pub fn request(self) -> Request {
        Request::new(NetFn::CHASSIS, number::CHASSIS_CONTROL, [self as u8])
    }

    /// Reads the request's data.
    ///
    /// # Errors
    /// When it is empty or the action is reserved.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Chassis Control (28.3)", data);
        Ok(match reader.u8()? & 0x0f {
            0 => Self::PowerDown,
            1 => Self::PowerUp,
            2 => Self::PowerCycle,
            3 => Self::HardReset,
            4 => Self::Diagnostic,
            5 => Self::SoftShutdown,
            _ => return Err(reader.bad("reserved action")),
        })
    }
}

/// Where the next boot comes from (table 28-14, parameter 5, data 2, bits 5:2).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum BootDevice {
    /// As the firmware is set up.
    #[default]
    None = 0,
    /// Network (PXE).
    Pxe = 1,
    /// Default hard disk.
    Disk = 2,
    /// Default hard disk, safe mode.
    SafeMode = 3,
    /// Diagnostic partition.
    Diagnostic = 4,
    /// Default CD or DVD.
    Cd = 5,
    /// Firmware set-up.
    Setup = 6,
    /// Remotely connected floppy or USB.
    RemoteFloppy = 7,
    /// Remotely connected CD or DVD.
    RemoteCd = 8,
    /// Primary floppy or removable medium.
    Floppy = 15,
}

impl BootDevice {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits & 0x0f {
            0 => Self::None,
            1 => Self::Pxe,
            2 => Self::Disk,
            3 => Self::SafeMode,
            4 => Self::Diagnostic,
            5 => Self::Cd,
            6 => Self::Setup,
            7 => Self::RemoteFloppy,
            8 => Self::RemoteCd,
            15 => Self::Floppy,
            _ => return None,
        })
    }
}

/// The boot flags (table 28-14, parameter 5).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct BootFlags {
    /// The rest counts. Clear means: no override.
    pub valid: bool,
    /// For every boot; clear means only the next.
    pub persistent: bool,
    /// UEFI; clear means PC BIOS. Firmware without a BIOS mode ignores a device asked for with this bit clear.
    pub uefi: bool,
    /// From where.
    pub device: BootDevice,
}

/// Parameter selectors of System Boot Options (table 28-14).
pub mod boot_parameter {
    /// Set in progress.
    pub const SET_IN_PROGRESS: u8 = 0;
    /// Which boot flags the BMC clears by itself.
    pub const FLAG_VALID_CLEARING: u8 = 3;
    /// Which consumers took the boot info: written before the flags so that firmware sees them as new.
    pub const INFO_ACKNOWLEDGE: u8 = 4;
    /// Boot flags.
    pub const FLAGS: u8 = 5;
}

impl BootFlags {
    /// Asks for the flags.
    pub fn get() -> Request {
        Request::new(NetFn::CHASSIS, number::GET_BOOT_OPTIONS, [boot_parameter::FLAGS, 0, 0])
    }

    /// Sets the flags.
    pub fn set(self) -> Request {
        let mut data = vec![boot_parameter::FLAGS];
        data.extend_from_slice(&self.encode());
        Request::new(NetFn::CHASSIS, number::SET_BOOT_OPTIONS, data)
    }

    /// Tells the BMC that no consumer has seen the coming flags yet; sent before [`Self::set`].
    pub fn announce() -> Request {
        let data = [boot_parameter::INFO_ACKNOWLEDGE, 0x01, 0x01];
        Request::new(NetFn::CHASSIS, number::SET_BOOT_OPTIONS, data)
    }

    /// The five bytes of the parameter.
    pub fn encode(self) -> [u8; 5] {
        let head = u8::from(self.valid) << 7 | u8::from(self.persistent) << 6 | u8::from(self.uefi) << 5;
        [head, (self.device as u8) << 2, 0, 0, 0]
    }

    /// Reads the five bytes of the parameter, as Set System Boot Options carries them after the selector.
    ///
    /// # Errors
    /// When they are too few or the device is reserved.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("boot flags (28.13, parameter 5)", data);
        let [head, device] = reader.array()?;
        let device = BootDevice::from_bits(device >> 2).ok_or(reader.bad("reserved boot device"))?;
        Ok(Self {
            valid: head & 0x80 != 0,
            persistent: head & 0x40 != 0,
            uefi: head & 0x20 != 0,
            device,
        })
    }

    /// Reads the data of an answer to Get System Boot Options: version, selector, flags.
    ///
    /// # Errors
    /// When they are too few, or of another parameter.
    pub fn decode_answer(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Get System Boot Options (28.13)", data);
        let [_version, selector] = reader.array()?;
        if selector & 0x7f != boot_parameter::FLAGS {
            return Err(reader.bad("another parameter than asked for"));
        }
        if selector & 0x80 != 0 {
            // "Parameter invalid/locked": nothing set, whatever the bytes say.
            return Ok(Self::default());
        }
        Self::decode(reader.rest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn has_the_bytes_of_ipmitool_bootdev_pxe() {
        let flags = BootFlags {
            valid: true,
            device: BootDevice::Pxe,
            ..BootFlags::default()
        };
        assert_eq!(flags.set().to_kcs(), [0, 8, 5, 0x80, 0x04, 0, 0, 0]);
        let efi = BootFlags {
            uefi: true,
            persistent: true,
            ..flags
        };
        assert_eq!(efi.encode(), [0xe0, 0x04, 0, 0, 0]);
        assert_eq!(BootFlags::decode_answer(&[1, 5, 0xe0, 0x04, 0, 0, 0]), Ok(efi));
        assert!(!BootFlags::decode_answer(&[1, 0x85, 0xe0, 0x04, 0, 0, 0]).unwrap().valid);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..10)) {
            let _ = ChassisStatus::decode(&bytes);
            let _ = ChassisControl::decode(&bytes);
            let _ = BootFlags::decode(&bytes);
            let _ = BootFlags::decode_answer(&bytes);
        }

        #[test]
        fn reads_what_it_writes(on: bool, power_fault: bool, restore_policy in 0u8..4) {
            let status = ChassisStatus { on, power_fault, restore_policy };
            prop_assert_eq!(ChassisStatus::decode(&status.encode()), Ok(status));
        }
    }
}
