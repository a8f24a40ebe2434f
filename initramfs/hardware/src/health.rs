//! A disk's own word on its health: NVMe's SMART log, ATA's SMART status and attributes, SCSI's informational
//! exceptions. All are questions; none changes or wears the disk.

use std::fs::File;

use rackbar_model::{DiskBus, DiskHealth};

use crate::{Root, passthrough};

/// Asks the disk called `name`; `None` when it has nothing to say or may not be asked.
pub(crate) fn read(root: &Root, name: &str, bus: DiskBus) -> Option<DiskHealth> {
    let disk = File::open(root.path(format!("dev/{name}"))).ok()?;
    match bus {
        DiskBus::Nvme => nvme(&passthrough::nvme_smart_log(&disk).ok()?),
        DiskBus::Sata => ata(&disk),
        DiskBus::Sas => exceptions(&passthrough::scsi_exceptions(&disk).ok()?),
        _ => None,
    }
}

fn little(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.first_chunk::<8>().copied()?))
}

/// Reads a page as each of those that disks answer with.
pub(crate) fn any_page(page: &[u8]) {
    let _ = (nvme(page), attributes(page), exceptions(page));
}

/// NVMe Base 2.0, figure 207. The 128-bit counters never leave their lower half.
fn nvme(log: &[u8]) -> Option<DiskHealth> {
    let kelvin = i16::from_le_bytes([*log.get(1)?, *log.get(2)?]);
    Some(DiskHealth {
        ok: *log.first()? == 0,
        percent_used: log.get(5).map(|v| u16::from(*v)),
        celsius: (kelvin > 0).then(|| kelvin.saturating_sub(273)),
        power_on_hours: little(log.get(128..)?),
        media_errors: little(log.get(160..)?),
    })
}

fn ata(disk: &File) -> Option<DiskHealth> {
    let ok = passthrough::ata_smart_status(disk).ok()??;
    let data = passthrough::ata_smart_data(disk).unwrap_or_default();
    let (celsius, power_on_hours, media_errors) = attributes(&data);
    Some(DiskHealth {
        ok,
        percent_used: None,
        celsius,
        power_on_hours,
        media_errors,
    })
}

/// The SMART attribute table: thirty entries of twelve bytes from offset 2. Numbers 194 (temperature), 9 (hours) and
/// 187 (reported uncorrectable errors) mean the same with all makers; the others do not.
fn attributes(data: &[u8]) -> (Option<i16>, Option<u64>, Option<u64>) {
    let raw = |wanted: u8| {
        let entries = data.get(2..362)?.chunks_exact(12);
        let entry = entries.into_iter().find(|entry| entry.first() == Some(&wanted))?;
        Some(
            entry
                .get(5..11)?
                .iter()
                .rev()
                .fold(0u64, |sum, byte| sum << 8 | u64::from(*byte)),
        )
    };
    // Above the value itself some makers pack minimum and maximum, or minutes.
    let celsius = raw(194).map(|raw| i16::from(raw as u8 as i8));
    (
        celsius,
        raw(9).map(|raw| raw & 0xffff_ffff),
        raw(187).map(|raw| raw & 0xffff),
    )
}

/// Log page 0x2f (SPC-4, 7.3.10): header of four bytes, parameter header of four, then ASC, ASCQ and temperature.
/// ASC 0x5d is "failure prediction threshold exceeded".
fn exceptions(page: &[u8]) -> Option<DiskHealth> {
    if page.first()? & 0x3f != 0x2f {
        return None;
    }
    let celsius = page
        .get(10)
        .filter(|value| **value != 0xff && **value != 0)
        .map(|value| i16::from(*value));
    Some(DiskHealth {
        ok: *page.get(8)? != 0x5d,
        celsius,
        ..DiskHealth::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nvme_log() {
        let mut log = [0u8; 512];
        log[1..3].copy_from_slice(&315u16.to_le_bytes());
        log[5] = 7;
        log[128] = 99;
        log[160] = 2;
        let health = nvme(&log).unwrap();
        let wanted = DiskHealth {
            ok: true,
            percent_used: Some(7),
            celsius: Some(42),
            power_on_hours: Some(99),
            media_errors: Some(2),
        };
        assert_eq!(health, wanted);
        log[0] = 4;
        assert!(!nvme(&log).unwrap().ok);
    }

    #[test]
    fn ata_attributes_and_scsi_exceptions() {
        let mut data = [0u8; 512];
        data[2] = 194;
        data[2 + 5..2 + 9].copy_from_slice(&[31, 0, 18, 0]);
        data[14] = 9;
        data[14 + 5..14 + 8].copy_from_slice(&[0x10, 0x27, 0]);
        assert_eq!(attributes(&data), (Some(31), Some(10_000), None));
        let page = [0x2f, 0, 0, 8, 0, 0, 3, 4, 0x5d, 0x10, 40, 0];
        assert_eq!(
            exceptions(&page),
            Some(DiskHealth {
                ok: false,
                celsius: Some(40),
                ..DiskHealth::default()
            })
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(bytes: Vec<u8>) {
            let _ = (nvme(&bytes), attributes(&bytes), exceptions(&bytes));
        }
    }
}
