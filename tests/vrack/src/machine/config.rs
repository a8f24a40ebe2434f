//! What a machine is made of.

use std::path::PathBuf;

use rackbar_model::{MacAddr, Timestamp};

use crate::seat::{BootDevice, Identity};

/// What runs first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Firmware {
    /// SeaBIOS with the iPXE option ROMs of QEMU's NICs.
    BiosIpxe,
    /// OVMF with EDK2's own network stack: PXE over TFTP.
    UefiPxe,
    /// OVMF with PXE switched off: HTTP Boot.
    UefiHttp,
    /// A kernel started by QEMU itself, for machines that only have to be there.
    Direct {
        /// bzImage or EFI program.
        kernel: PathBuf,
        /// Initramfs archives, joined by QEMU's `-initrd` as one file.
        initrd: Option<PathBuf>,
        /// Kernel command line; `no_timer_check` is added.
        cmdline: String,
    },
}

impl Firmware {
    /// True when it is OVMF.
    pub fn is_uefi(&self) -> bool {
        matches!(self, Self::UefiPxe | Self::UefiHttp)
    }
}

/// A NIC's emulated hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NicModel {
    /// virtio-net.
    #[default]
    Virtio,
    /// Intel 82574. OVMF has no driver for it: under UEFI it boots with QEMU's iPXE ROM.
    E1000e,
}

/// Where a NIC leads.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wire {
    /// A unix socket QEMU listens at; the switch dials it.
    Switch(PathBuf),
    /// QEMU's user-mode network, with 127.0.0.1:`host_port` of this machine leading to `guest_port`.
    Uplink {
        /// Port on this machine.
        host_port: u16,
        /// Port of the guest.
        guest_port: u16,
    },
}

/// One network card.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Nic {
    /// Hardware address.
    pub mac: MacAddr,
    /// Emulated hardware.
    pub model: NicModel,
    /// Other end of the cable.
    pub wire: Wire,
}

/// How a disk is attached.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskBus {
    /// NVMe controller with one namespace.
    #[default]
    Nvme,
    /// AHCI, at most five per machine.
    Sata,
    /// virtio-blk.
    Virtio,
    /// A USB stick.
    Usb,
}

/// One disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Disk {
    /// Attachment.
    pub bus: DiskBus,
    /// Raw image.
    pub image: PathBuf,
    /// Size in bytes to create the image with when it does not exist.
    pub size: u64,
    /// Serial number the guest sees.
    pub serial: String,
    /// Model the guest sees; only SATA can be told one.
    pub model: Option<String>,
}

impl Disk {
    /// The world-wide name the guest sees: NAA 5 (T10 SPC-4, 7.8.6.6.5) under a company number that no maker has, the
    /// rest from the serial number. Only SATA: QEMU's other disks have none, or make their own, and Linux
    /// believes no name that an NVMe controller of QEMU tells (`NVME_QUIRK_BOGUS_NID`).
    pub fn wwn(&self) -> Option<u64> {
        // FNV-1a: the same serial number gives the same name in every run.
        let fold = |sum: u64, octet: u8| (sum ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3);
        let sum = self.serial.bytes().fold(0xcbf2_9ce4_8422_2325, fold);
        (self.bus == DiskBus::Sata).then_some(0x5525_4000_0000_0000 | (sum & 0xf_ffff_ffff))
    }
}

/// Processors: sockets with cores with threads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Processors {
    /// Sockets, all with a processor in them.
    pub sockets: u32,
    /// Cores of each socket.
    pub cores: u32,
    /// Threads of each core; two are what makers call Hyper-Threading or SMT.
    pub threads: u32,
}

impl Processors {
    /// One socket with `cores` cores of one thread each.
    pub fn one_socket(cores: u32) -> Self {
        Self {
            sockets: 1,
            cores,
            threads: 1,
        }
    }

    /// Logical processors, all sockets.
    pub fn logical(&self) -> u32 {
        self.sockets * self.cores * self.threads
    }
}

/// What is printed on the memory modules, and how fast they are (SMBIOS 3.6, section 7.18).
#[derive(Clone, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MemoryModules {
    /// Maker.
    pub manufacturer: String,
    /// Part number.
    pub part: String,
    /// Serial number.
    pub serial: String,
    /// Speed in MT/s.
    pub speed_mts: u16,
}

/// A machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineConfig {
    /// Short name: part of socket paths.
    pub name: String,
    /// The rack's run directory.
    pub directory: PathBuf,
    /// RAM in MiB.
    pub memory_mib: u32,
    /// What its memory modules say of themselves; `None`: nothing.
    pub modules: Option<MemoryModules>,
    /// Processors.
    pub processors: Processors,
    /// Firmware.
    pub firmware: Firmware,
    /// What SMBIOS says.
    pub identity: Identity,
    /// Network cards in PCI order.
    pub nics: Vec<Nic>,
    /// Disks in order.
    pub disks: Vec<Disk>,
    /// Empty drive bays that take an NVMe disk while the machine runs: PCIe root ports.
    pub bays: u8,
    /// A USB socket that takes a stick while the machine runs.
    pub usb: bool,
    /// A virtual CD drive exists.
    pub cdrom: bool,
    /// In-band IPMI: the unix socket where the BMC listens.
    pub kcs: Option<PathBuf>,
    /// A TPM 2.0, by swtpm.
    pub tpm: bool,
    /// A VGA display and its keyboard, for [`crate::machine::Machine::text_screen`]; the firmware speaks on it and on the
    /// serial port.
    pub display: bool,
    /// A watchdog, Intel's 6300ESB, which resets the machine.
    pub watchdog: bool,
    /// What its clock shows when it is switched on; `None`: the time.
    pub clock: Option<Timestamp>,
    /// Order of the boot device classes.
    pub boot_order: Vec<BootDevice>,
}

impl MachineConfig {
    /// A path in the run directory that belongs to this machine.
    pub(crate) fn path(&self, suffix: &str) -> PathBuf {
        self.directory.join(format!("{}.{suffix}", self.name))
    }
}
