//! Processor, memory, PCI functions, firmware mode and TPM, from `/proc` and `/sys`.

use std::collections::HashSet;

use rackbar_model::{CpuInfo, FirmwareMode, PciDevice, TpmInfo};

use crate::Root;

/// Flags an operator or a role decides on; the other two hundred are noise.
const FLAGS: [&str; 14] = [
    "lm",
    "vmx",
    "svm",
    "aes",
    "avx",
    "avx2",
    "avx512f",
    "amx_tile",
    "sha_ni",
    "rdrand",
    "ssse3",
    "sse4_2",
    "pdpe1gb",
    "hypervisor",
];

/// Processors.
pub fn cpu(root: &Root) -> CpuInfo {
    let text = std::fs::read_to_string(root.path("proc/cpuinfo")).unwrap_or_default();
    let mut info = cpuinfo(&text);
    info.arch = Some(std::env::consts::ARCH.to_owned());
    // cpuinfo_max_freq is in kHz and knows the turbo; without a cpufreq driver the current clock has to do.
    let max_khz: Option<u32> = root.number("sys/devices/system/cpu/cpu0/cpufreq/cpuinfo_max_freq");
    info.max_mhz = max_khz.map(|khz| khz / 1000).or(info.max_mhz);
    info
}

/// Reads `/proc/cpuinfo` of x86: one block of `key : value` lines per logical processor.
fn cpuinfo(text: &str) -> CpuInfo {
    let mut info = CpuInfo::default();
    let (mut sockets, mut cores) = (HashSet::new(), HashSet::new());
    for block in text.split("\n\n") {
        let value = |wanted: &str| {
            let mut pairs = block.lines().filter_map(|line| line.split_once(':'));
            pairs
                .find(|(key, _)| key.trim() == wanted)
                .map(|(_, value)| value.trim())
        };
        let Some(processor) = value("processor") else { continue };
        // Without topology (a single processor, or none reported) each logical processor is a core of socket 0.
        let socket = value("physical id").unwrap_or("0");
        sockets.insert(socket);
        cores.insert((socket, value("core id").unwrap_or(processor)));
        info.threads = info.threads.saturating_add(1);
        if info.threads == 1 {
            info.model = value("model name").map(|name| name.split_whitespace().collect::<Vec<_>>().join(" "));
            info.microcode = value("microcode").map(str::to_owned);
            info.max_mhz = value("cpu MHz").and_then(|mhz| mhz.split('.').next()?.parse().ok());
            let have: HashSet<&str> = value("flags").unwrap_or_default().split_whitespace().collect();
            info.flags = FLAGS
                .iter()
                .filter(|flag| have.contains(*flag))
                .map(|flag| (*flag).to_owned())
                .collect();
        }
    }
    info.sockets = u16::try_from(sockets.len()).unwrap_or(u16::MAX);
    info.cores = u16::try_from(cores.len()).unwrap_or(u16::MAX);
    info
}

/// Memory the kernel manages, in bytes.
pub fn memory_bytes(root: &Root) -> u64 {
    let text = root.text("proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: Option<u64> = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0).saturating_mul(1024)
}

/// PCI functions, in the order of their addresses.
pub fn pci(root: &Root) -> Vec<PciDevice> {
    let folder = "sys/bus/pci/devices";
    let function = |address: String| {
        let id = |name: &str| root.hex(format!("{folder}/{address}/{name}")).unwrap_or(0);
        PciDevice {
            vendor: id("vendor") as u16,
            device: id("device") as u16,
            subsystem_vendor: id("subsystem_vendor") as u16,
            subsystem: id("subsystem_device") as u16,
            class: id("class"),
            driver: root.link_name(format!("{folder}/{address}/driver")),
            name: None,
            address,
        }
    };
    root.names(folder).into_iter().map(function).collect()
}

/// The interface the system was started through.
pub fn firmware_mode(root: &Root) -> FirmwareMode {
    if root.exists("sys/firmware/efi") {
        FirmwareMode::Uefi
    } else {
        FirmwareMode::Bios
    }
}

/// The `SecureBoot` variable of the global namespace (UEFI 2.10, section 3.3): four bytes of attributes, then 1 or 0.
pub fn secure_boot(root: &Root) -> Option<bool> {
    let file = "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
    root.bytes(file)?.get(4).map(|value| *value == 1)
}

/// The first TPM.
pub fn tpm(root: &Root) -> Option<TpmInfo> {
    let name = root.names("sys/class/tpm").into_iter().next()?;
    let folder = format!("sys/class/tpm/{name}");
    // tpm_version_major came with Linux 5.6; older kernels show `caps` for version 1 only.
    let version = root
        .number(format!("{folder}/tpm_version_major"))
        .unwrap_or(if root.exists(format!("{folder}/caps")) { 1 } else { 2 });
    let device = format!("{folder}/device");
    let description = root
        .text(format!("{device}/description"))
        .or_else(|| root.text(format!("{device}/firmware_node/hid")))
        .or_else(|| root.link_name(format!("{device}/driver")));
    Some(TpmInfo {
        version,
        description,
        endorsement_key_sha256: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;
    use proptest::prelude::*;

    #[test]
    fn sockets_cores_and_threads_are_told_apart() {
        let mut text = String::new();
        for (processor, socket, core) in [
            (0, 0, 0),
            (1, 0, 1),
            (2, 1, 0),
            (3, 1, 1),
            (4, 0, 0),
            (5, 0, 1),
            (6, 1, 0),
            (7, 1, 1),
        ] {
            text += &format!(
                "processor\t: {processor}\nmodel name\t: Maker  CPU   9000\ncpu MHz\t\t: 2900.123\nphysical id\t: {socket}\ncore id\t\t: {core}\nflags\t\t: fpu vmx aes avx2\nmicrocode\t: 0x2b\n\n"
            );
        }
        let info = cpuinfo(&text);
        assert_eq!((info.sockets, info.cores, info.threads), (2, 4, 8));
        assert_eq!(info.model.as_deref(), Some("Maker CPU 9000"));
        assert_eq!(info.flags, ["vmx", "aes", "avx2"]);
        assert_eq!((info.max_mhz, info.microcode.as_deref()), (Some(2900), Some("0x2b")));
    }

    #[test]
    fn pci_memory_and_firmware_come_from_the_tree() {
        let tree = Tree::new(&[
            ("proc/meminfo", "MemTotal:         500000 kB\nMemFree: 1 kB\n"),
            ("sys/bus/pci/devices/0000:03:00.0/vendor", "0x8086\n"),
            ("sys/bus/pci/devices/0000:03:00.0/device", "0x10d3\n"),
            ("sys/bus/pci/devices/0000:03:00.0/class", "0x020000\n"),
            (
                "sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
                "\x06\0\0\0\x01",
            ),
            ("sys/class/tpm/tpm0/tpm_version_major", "2\n"),
        ])
        .link("sys/bus/pci/devices/0000:03:00.0/driver", "sys/bus/pci/drivers/e1000e");
        let root = tree.root();
        assert_eq!(memory_bytes(root), 512_000_000);
        let function = pci(root).remove(0);
        assert_eq!(
            (function.vendor, function.device, function.class),
            (0x8086, 0x10d3, 0x02_0000)
        );
        assert_eq!(function.driver.as_deref(), Some("e1000e"));
        assert_eq!(
            (firmware_mode(root), secure_boot(root)),
            (FirmwareMode::Uefi, Some(true))
        );
        assert_eq!(tpm(root).map(|tpm| tpm.version), Some(2));
    }

    #[test]
    fn an_empty_tree_gives_an_empty_machine() {
        let tree = Tree::new(&[]);
        let root = tree.root();
        assert_eq!(
            (memory_bytes(root), pci(root).len(), tpm(root), secure_boot(root)),
            (0, 0, None, None)
        );
        assert_eq!(cpu(root).threads, 0);
    }

    proptest! {
        #[test]
        fn any_cpuinfo_is_read(text in "((processor|core id|physical id|flags)\t: [0-9a-z]{0,3}\n|\n|.{0,9}\n){0,12}") {
            let info = cpuinfo(&text);
            prop_assert!(info.cores <= info.threads);
        }
    }
}
