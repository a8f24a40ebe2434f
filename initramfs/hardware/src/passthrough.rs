//! Commands handed straight to a disk: NVMe admin commands and SCSI commands (SG_IO). Here are only ones that read;
//! [`NvmeAdmin`] lets who erases disks send others. `unsafe` because no library offers these ioctls.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;

/// Longest wait for a disk, in milliseconds: one that spins up takes ten seconds, one that is dying takes for ever.
const TIMEOUT_MILLIS: u32 = 15_000;

/// `struct nvme_passthru_cmd` of linux/nvme_ioctl.h.
#[repr(C)]
#[derive(Default)]
struct NvmeCommand {
    opcode: u8,
    flags: u8,
    reserved: u16,
    namespace: u32,
    cdw2: u32,
    cdw3: u32,
    metadata: u64,
    address: u64,
    metadata_length: u32,
    data_length: u32,
    cdw10: u32,
    cdw11: u32,
    cdw12: u32,
    cdw13: u32,
    cdw14: u32,
    cdw15: u32,
    timeout_millis: u32,
    result: u32,
}

/// An NVMe admin command (NVMe Base 2.0, chapter 5).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NvmeAdmin {
    /// Opcode.
    pub opcode: u8,
    /// Namespace; `0xffff_ffff` for all.
    pub namespace: u32,
    /// Command dwords 10 and 11.
    pub cdw: [u32; 2],
    /// Longest wait in milliseconds.
    pub timeout_millis: u32,
}

impl NvmeAdmin {
    /// Sends the command; `data` takes what the controller answers.
    ///
    /// # Errors
    /// The status the controller refused it with, or the system's error.
    pub fn send(&self, disk: &File, data: &mut [u8]) -> io::Result<()> {
        // _IOWR('N', 0x41, struct nvme_passthru_cmd)
        const NVME_IOCTL_ADMIN_CMD: libc::c_ulong = 0xc048_4e41;
        let mut command = NvmeCommand {
            opcode: self.opcode,
            namespace: self.namespace,
            address: if data.is_empty() { 0 } else { data.as_mut_ptr() as u64 },
            data_length: data.len() as u32,
            cdw10: self.cdw[0],
            cdw11: self.cdw[1],
            timeout_millis: self.timeout_millis,
            ..NvmeCommand::default()
        };
        // SAFETY: the command and the bytes it points to live until the call returns.
        let status = Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), NVME_IOCTL_ADMIN_CMD as _, &mut command) })?;
        // A positive result is the NVMe status of a command the controller refused.
        if status == 0 {
            Ok(())
        } else {
            Err(io::Error::other(format!("NVMe status {status:#x}")))
        }
    }
}

/// Get Log Page (NVMe Base 2.0, 5.16), of the whole controller.
pub fn nvme_log(disk: &File, page: u8, bytes: usize) -> io::Result<Vec<u8>> {
    let mut log = vec![0u8; bytes.max(4)];
    let command = NvmeAdmin {
        opcode: 0x02,
        namespace: 0xffff_ffff,
        // Dwords to transfer less one, and the log's number.
        cdw: [(log.len() as u32 / 4 - 1) << 16 | u32::from(page), 0],
        timeout_millis: TIMEOUT_MILLIS,
    };
    command.send(disk, &mut log)?;
    Ok(log)
}

/// SMART / Health Information (5.16.1.3).
pub(crate) fn nvme_smart_log(disk: &File) -> io::Result<Vec<u8>> {
    nvme_log(disk, 0x02, 512)
}

/// `struct sg_io_hdr` of scsi/sg.h.
#[repr(C)]
struct SgHeader {
    interface: libc::c_int,
    direction: libc::c_int,
    command_length: u8,
    sense_room: u8,
    iovec_count: u16,
    data_length: u32,
    data: *mut u8,
    command: *const u8,
    sense: *mut u8,
    timeout_millis: u32,
    flags: u32,
    pack_id: libc::c_int,
    user: *mut libc::c_void,
    status: u8,
    masked_status: u8,
    message_status: u8,
    sense_length: u8,
    host_status: u16,
    driver_status: u16,
    residual: libc::c_int,
    duration: u32,
    info: u32,
}

/// Runs one command that reads `data.len()` bytes; gives status and sense.
fn scsi(disk: &File, command: &[u8], data: &mut [u8]) -> io::Result<(u8, [u8; 32])> {
    const SG_IO: libc::c_ulong = 0x2285;
    const FROM_DEVICE: libc::c_int = -3;
    const NO_DATA: libc::c_int = -1;
    let mut sense = [0u8; 32];
    let mut header = SgHeader {
        interface: i32::from(b'S'),
        direction: if data.is_empty() { NO_DATA } else { FROM_DEVICE },
        command_length: command.len() as u8,
        sense_room: sense.len() as u8,
        iovec_count: 0,
        data_length: data.len() as u32,
        data: data.as_mut_ptr(),
        command: command.as_ptr(),
        sense: sense.as_mut_ptr(),
        timeout_millis: TIMEOUT_MILLIS,
        flags: 0,
        pack_id: 0,
        user: std::ptr::null_mut(),
        status: 0,
        masked_status: 0,
        message_status: 0,
        sense_length: 0,
        host_status: 0,
        driver_status: 0,
        residual: 0,
        duration: 0,
        info: 0,
    };
    // SAFETY: header, command, data and sense live until the call returns, and the header holds their true lengths.
    Errno::result(unsafe { libc::ioctl(disk.as_raw_fd(), SG_IO as _, &mut header) })?;
    if header.host_status != 0 {
        return Err(io::Error::other(format!(
            "the controller gave host status {:#x}",
            header.host_status
        )));
    }
    Ok((header.status, sense))
}

/// ATA PASS-THROUGH (16) (SAT-3, 12.2.2) of a SMART command (ACS-3, 7.48).
fn smart(feature: u8, protocol: u8, flags: u8, count: u8) -> [u8; 16] {
    let mut command = [0u8; 16];
    command[0] = 0x85;
    command[1] = protocol << 1;
    command[2] = flags;
    command[4] = feature;
    command[6] = count;
    // The signature that tells SMART commands from accidents.
    command[10] = 0x4f;
    command[12] = 0xc2;
    command[14] = 0xb0;
    command
}

/// SMART RETURN STATUS: `Some(false)` means the disk expects to fail; `None`, that it did not say.
pub(crate) fn ata_smart_status(disk: &File) -> io::Result<Option<bool>> {
    const NO_DATA: u8 = 3;
    const CHECK_CONDITION: u8 = 0x20;
    let (_, sense) = scsi(disk, &smart(0xda, NO_DATA, CHECK_CONDITION, 0), &mut [])?;
    Ok(smart_verdict(&sense))
}

/// The registers come back in an ATA status return descriptor (SAT-3, 12.2.2.7) behind descriptor sense.
pub(crate) fn smart_verdict(sense: &[u8; 32]) -> Option<bool> {
    if sense[0] & 0x7f != 0x72 || sense[8] != 0x09 {
        return None;
    }
    match (sense[17], sense[19]) {
        (0x4f, 0xc2) => Some(true),
        (0xf4, 0x2c) => Some(false),
        _ => None,
    }
}

/// SMART READ DATA: 512 bytes with the attribute table.
pub(crate) fn ata_smart_data(disk: &File) -> io::Result<Vec<u8>> {
    const PIO_IN: u8 = 4;
    // Transfer direction from the device, length in blocks, block count in the count field.
    const ONE_BLOCK_IN: u8 = 0x0e;
    let mut data = vec![0u8; 512];
    let (status, _) = scsi(disk, &smart(0xd0, PIO_IN, ONE_BLOCK_IN, 1), &mut data)?;
    if status == 0 {
        Ok(data)
    } else {
        Err(io::Error::other(format!("SCSI status {status:#x}")))
    }
}

/// LOG SENSE of page 0x2f, informational exceptions, current cumulative values (SPC-4, 6.8).
pub(crate) fn scsi_exceptions(disk: &File) -> io::Result<Vec<u8>> {
    let mut data = vec![0u8; 64];
    let command = [0x4d, 0, 0x40 | 0x2f, 0, 0, 0, 0, 0, 64, 0];
    let (status, _) = scsi(disk, &command, &mut data)?;
    if status == 0 {
        Ok(data)
    } else {
        Err(io::Error::other(format!("SCSI status {status:#x}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_size_the_kernel_expects() {
        assert_eq!(size_of::<NvmeCommand>(), 72);
        assert_eq!(size_of::<SgHeader>(), 88);
    }

    #[test]
    fn the_verdict_is_in_the_registers() {
        let mut sense = [0u8; 32];
        sense[0] = 0x72;
        sense[8] = 0x09;
        (sense[17], sense[19]) = (0x4f, 0xc2);
        assert_eq!(smart_verdict(&sense), Some(true));
        (sense[17], sense[19]) = (0xf4, 0x2c);
        assert_eq!(smart_verdict(&sense), Some(false));
        assert_eq!(smart_verdict(&[0; 32]), None);
    }
}
