//! The QEMU command line of a machine. Every flag here was tried; the reasons stand where a flag looks odd.

use std::ffi::OsString;
use std::path::Path;

use super::config::{Disk, DiskBus, Firmware, MachineConfig, NicModel, Processors, Wire};
use crate::seat::{BootDevice, BootEntry, BootOverride};

/// Debian's OVMF; the variables are copied per machine.
const OVMF_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// The pristine variable store.
pub(super) const OVMF_VARS: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// What changes from start to start.
pub(super) struct Start<'a> {
    pub(super) boot: Option<BootOverride>,
    /// The machine's own order, first device first.
    pub(super) order: &'a [BootEntry],
    pub(super) media: Option<&'a Path>,
    /// A saved state to continue from.
    pub(super) incoming: Option<&'a Path>,
}

/// Collects arguments.
#[derive(Default)]
struct Line(Vec<OsString>);

impl Line {
    fn add(&mut self, flag: &str, value: impl Into<OsString>) {
        self.0.push(flag.into());
        self.0.push(value.into());
    }
}

/// Builds the command line.
pub(super) fn arguments(config: &MachineConfig, start: &Start<'_>) -> Vec<OsString> {
    let mut line = Line::default();
    line.0.push("-nodefaults".into());
    line.0.push("-S".into());
    line.add("-display", "none");
    line.add("-name", config.name.clone());
    // graphics=off puts SeaBIOS and iPXE on the serial port.
    line.add(
        "-M",
        if config.firmware.is_uefi() {
            "q35"
        } else {
            "q35,graphics=off"
        },
    );
    // Memory for translated code, taken as it fills. A node that is only discovered fits into 32 MiB; an installed system
    // that starts does not, is translated over and over, and takes a quarter longer. More than this gains nothing.
    line.add("-accel", "tcg,tb-size=128");
    processors(&mut line, config);
    line.add("-m", config.memory_mib.to_string());
    if let Some(clock) = config.clock {
        // In whole seconds and without the zone, which QEMU takes for UTC.
        let shown: String = clock.to_string().chars().take("2001-09-09T01:46:40".len()).collect();
        line.add("-rtc", format!("base={shown}"));
    }
    line.add("-boot", "strict=on");
    line.add(
        "-qmp",
        format!("unix:{},server=on,wait=off", escaped(&config.path("qmp"))),
    );
    line.add("-chardev", "stdio,id=con,signal=off");
    line.add("-serial", "chardev:con");
    line.add("-device", "virtio-rng-pci");
    firmware(&mut line, config);
    smbios(&mut line, config);
    nics(&mut line, config, start);
    disks(&mut line, config, start);
    bays(&mut line, config);
    if let Some(socket) = &config.kcs {
        line.add(
            "-chardev",
            format!("socket,id=kcs,path={},reconnect=1", escaped(socket)),
        );
        line.add("-device", "ipmi-bmc-extern,id=bmc0,chardev=kcs");
        line.add("-device", "isa-ipmi-kcs,bmc=bmc0");
    }
    if config.tpm {
        line.add(
            "-chardev",
            format!("socket,id=tpm,path={}", escaped(&config.path("tpm.sock"))),
        );
        line.add("-tpmdev", "emulator,id=tpm0,chardev=tpm");
        line.add("-device", "tpm-crb,tpmdev=tpm0");
    }
    watchdog_and_display(&mut line, config);
    if let Some(state) = start.incoming {
        line.add("-incoming", format!("exec:cat '{}'", state.display()));
    }
    line.0
}

fn watchdog_and_display(line: &mut Line, config: &MachineConfig) {
    if config.watchdog {
        line.add("-device", "i6300esb");
        line.add("-action", "watchdog=reset");
    }
    // Last, so that no other device is in another slot for it. No window: it is read and typed on through QMP.
    if config.display {
        line.add("-device", "VGA");
    }
}

fn firmware(line: &mut Line, config: &MachineConfig) {
    match &config.firmware {
        Firmware::BiosIpxe => {}
        Firmware::UefiPxe | Firmware::UefiHttp => {
            line.add(
                "-drive",
                format!("if=pflash,format=raw,unit=0,readonly=on,file={OVMF_CODE}"),
            );
            line.add(
                "-drive",
                format!("if=pflash,format=raw,unit=1,file={}", escaped(&config.path("vars"))),
            );
            // OVMF takes the certificates it trusts for HTTPS from here at each start.
            let trust = config.path("trust");
            if trust.exists() {
                line.add(
                    "-fw_cfg",
                    format!("name=etc/edk2/https/cacerts,file={}", escaped(&trust)),
                );
            }
            if config.firmware == Firmware::UefiHttp {
                line.add("-fw_cfg", "name=opt/org.tianocore/IPv4PXESupport,string=n");
                line.add("-fw_cfg", "name=opt/org.tianocore/IPv6PXESupport,string=n");
            }
        }
        Firmware::Direct {
            kernel,
            initrd,
            cmdline,
        } => {
            line.add("-kernel", kernel);
            if let Some(initrd) = initrd {
                line.add("-initrd", initrd);
            }
            // The kernel's timer check fails now and then under an overloaded emulator and panics.
            line.add("-append", format!("{cmdline} no_timer_check"));
        }
    }
}

fn processors(line: &mut Line, config: &MachineConfig) {
    let are = config.processors;
    // RDRAND: without it the guest's first random number waits a second for jitter. The usual one is AMD's, which tells of
    // threads by an extension that QEMU does not emulate; Linux would take them for cores.
    line.add(
        "-cpu",
        if are.threads > 1 {
            "Nehalem,+rdrand,+aes,+pclmulqdq"
        } else {
            "qemu64,+rdrand,+ssse3,+sse4.1,+sse4.2,+popcnt,+aes,+pclmulqdq"
        },
    );
    line.add("-smp", smp(are));
}

fn smp(are: Processors) -> String {
    // A machine of one processor gets the place for a second one, which stays empty. Without it QEMU 7.2 leaves the
    // guest's memory barriers out (`tcg_gen_mb`), although the devices run beside it in threads of their own: now and then a
    // driver and its device both miss that the other wrote (NVMe's shadow doorbells, virtio's suppressed notifications), and
    // a disk or NIC stands still until the driver's timeout, again and again. The place is a second die, because sockets show
    // in SMBIOS and cores in CPUID; of dies an AMD processor without TOPOEXT tells nothing.
    let place = if are.logical() == 1 { ",dies=2,maxcpus=2" } else { "" };
    format!(
        "{},sockets={},cores={},threads={}{place}",
        are.logical(),
        are.sockets,
        are.cores,
        are.threads
    )
}

fn smbios(line: &mut Line, config: &MachineConfig) {
    let (id, uefi) = (&config.identity, config.firmware.is_uefi());
    let text = |value: &str| value.replace(',', ",,");
    let maker = text(&id.manufacturer);
    line.add(
        "-smbios",
        format!(
            "type=0,vendor={maker},version={},uefi={}",
            text(&id.firmware_version),
            if uefi { "on" } else { "off" }
        ),
    );
    line.add(
        "-smbios",
        format!(
            "type=1,manufacturer={maker},product={},serial={},uuid={}",
            text(&id.product),
            text(&id.serial),
            text(&id.uuid)
        ),
    );
    line.add(
        "-smbios",
        format!("type=2,manufacturer={maker},serial={}", text(&id.board_serial)),
    );
    line.add(
        "-smbios",
        format!(
            "type=3,manufacturer={maker},serial={},asset={}",
            text(&id.serial),
            text(&id.asset_tag)
        ),
    );
    if let Some(modules) = &config.modules {
        line.add(
            "-smbios",
            format!(
                "type=17,manufacturer={},part={},serial={},speed={}",
                text(&modules.manufacturer),
                text(&modules.part),
                text(&modules.serial),
                modules.speed_mts
            ),
        );
    }
}

fn nics(line: &mut Line, config: &MachineConfig, start: &Start<'_>) {
    for (at, nic) in config.nics.iter().enumerate() {
        let boots = matches!(nic.wire, Wire::Switch(_));
        line.add(
            "-netdev",
            match &nic.wire {
                // QEMU listens: as a client, 7.2 would never dial again after a lost connection.
                Wire::Switch(socket) => {
                    format!(
                        "stream,id=net{at},server=on,addr.type=unix,addr.path={}",
                        escaped(socket)
                    )
                }
                Wire::Uplink { host_port, guest_port } => {
                    format!("user,id=net{at},hostfwd=tcp:127.0.0.1:{host_port}-:{guest_port}")
                }
            },
        );
        let (driver, rom) = match nic.model {
            // An empty romfile leaves a virtio NIC to EDK2's own driver and PXE; otherwise QEMU's iPXE ROM takes over.
            // Linux's bonding driver takes no part in LACP on a NIC that names neither its speed nor its duplex.
            NicModel::Virtio if config.firmware.is_uefi() => ("virtio-net-pci", ",speed=10000,duplex=full,romfile="),
            NicModel::Virtio => ("virtio-net-pci", ",speed=10000,duplex=full"),
            NicModel::E1000e => ("e1000e", ""),
        };
        let boot = if boots {
            format!(
                ",bootindex={}",
                boot_index(
                    start.order,
                    start.boot,
                    BootEntry {
                        device: BootDevice::Network,
                        at
                    }
                )
            )
        } else {
            String::new()
        };
        line.add(
            "-device",
            format!("{driver},id=nic{at},netdev=net{at},mac={}{boot}{rom}", nic.mac),
        );
    }
}

fn disks(line: &mut Line, config: &MachineConfig, start: &Start<'_>) {
    if config.usb || config.disks.iter().any(|disk| disk.bus == DiskBus::Usb) {
        line.add("-device", "qemu-xhci,id=usb");
    }
    let mut sata = 0;
    for (at, disk) in config.disks.iter().enumerate() {
        // cache=unsafe: what the guest flushed is in the host's page cache, which outlives the process; only a crash of
        // this whole machine would lose it.
        let image = escaped(&disk.image);
        line.add(
            "-drive",
            format!("if=none,id=drive{at},format=raw,cache=unsafe,discard=unmap,file={image}"),
        );
        let mut device = device(disk, at, &mut sata);
        device.push_str(&format!(
            ",bootindex={}",
            boot_index(
                start.order,
                start.boot,
                BootEntry {
                    device: BootDevice::Disk,
                    at
                }
            )
        ));
        line.add("-device", device);
    }
    if config.cdrom {
        let media = start
            .media
            .map(|path| format!(",format=raw,readonly=on,file={}", escaped(path)))
            .unwrap_or_default();
        line.add("-drive", format!("if=none,id=media0,media=cdrom{media}"));
        let index = boot_index(
            start.order,
            start.boot,
            BootEntry {
                device: BootDevice::Cdrom,
                at: 0,
            },
        );
        line.add(
            "-device",
            format!("ide-cd,id=cd0,drive=media0,bus=ide.5,bootindex={index}"),
        );
    }
}

/// Ports of the root complex that a device may be plugged into later: on q35's own bus there is no hot-plug.
fn bays(line: &mut Line, config: &MachineConfig) {
    for at in 0..config.bays {
        line.add(
            "-device",
            format!("pcie-root-port,id=bay{at},chassis={0},slot={0}", at + 1),
        );
    }
}

fn device(disk: &Disk, at: usize, sata: &mut u32) -> String {
    let serial = disk.serial.replace(',', ",,");
    match disk.bus {
        DiskBus::Nvme => format!("nvme,id=disk{at},drive=drive{at},serial={serial}"),
        DiskBus::Virtio => format!("virtio-blk-pci,id=disk{at},drive=drive{at},serial={serial}"),
        DiskBus::Usb => format!("usb-storage,id=disk{at},bus=usb.0,drive=drive{at},serial={serial},removable=on"),
        DiskBus::Sata => {
            let bus = *sata;
            *sata += 1;
            let model = disk
                .model
                .as_ref()
                .map(|model| format!(",model={}", model.replace(',', ",,")));
            let wwn = disk.wwn().map(|wwn| format!(",wwn={wwn:#x}"));
            format!(
                "ide-hd,id=disk{at},bus=ide.{bus},drive=drive{at},serial={serial}{}{}",
                model.unwrap_or_default(),
                wwn.unwrap_or_default()
            )
        }
    }
}

/// The devices that can boot, in the order a machine comes with: its classes as configured, then the others.
pub(super) fn usual_order(config: &MachineConfig) -> Vec<BootEntry> {
    let classes = [BootDevice::Network, BootDevice::Disk, BootDevice::Cdrom];
    let left = classes.iter().filter(|class| !config.boot_order.contains(class));
    let wired = |at: &usize| matches!(config.nics[*at].wire, Wire::Switch(_));
    let devices = |device: BootDevice| -> Vec<usize> {
        match device {
            BootDevice::Network => (0..config.nics.len()).filter(wired).collect(),
            BootDevice::Disk => (0..config.disks.len()).collect(),
            BootDevice::Cdrom => (0..usize::from(config.cdrom)).collect(),
        }
    };
    let entries = |device: BootDevice| devices(device).into_iter().map(move |at| BootEntry { device, at });
    config
        .boot_order
        .iter()
        .chain(left)
        .flat_map(|device| entries(*device))
        .collect()
}

/// The boot order number of a device: unique in a machine, lower goes first. 0 is left to `-kernel`, 1 to 9 to an
/// override, 10 and above to the machine's own order.
pub(super) fn boot_index(order: &[BootEntry], boot: Option<BootOverride>, entry: BootEntry) -> usize {
    if boot.is_some_and(|boot| boot.device == entry.device) {
        return 1 + entry.at;
    }
    let place = order.iter().position(|known| *known == entry);
    // A device the order does not name still needs a number of its own.
    10 + place.unwrap_or(order.len() + 32 * (entry.device as usize + 1) + entry.at)
}

/// A path as part of a QEMU option: commas are doubled.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_of_one_processor_has_a_place_for_another_so_that_qemu_keeps_its_memory_barriers() {
        assert_eq!(
            smp(Processors::one_socket(1)),
            "1,sockets=1,cores=1,threads=1,dies=2,maxcpus=2"
        );
        let two = Processors {
            sockets: 2,
            cores: 3,
            threads: 2,
        };
        assert_eq!(smp(two), "12,sockets=2,cores=3,threads=2");
    }
}
