//! The chosen disks in an installer's own shell: found by everything that is known of them, and refused unless exactly
//! one fits each. Written for the smallest shell there is, busybox's in debian-installer.

use rackbar_model::{DiskRef, RootTarget};

use crate::quote::shell;

/// `rackbar_disk SERIAL WWN PATH SECTORS` prints the one disk that fits all that is not empty. Reads what our agent read
/// when the plan was made (initramfs/hardware). Every line ends so that all may be one line, and there is no backslash
/// in it, because that is how debconf takes it.
const FIND: &str = r#"rackbar_disk() {
  found='';
  for folder in /sys/block/*; do
    name="${folder##*/}";
    case "$name" in loop*|ram*|zram*|sr*|fd*|md*|dm-*|nbd*) continue;; esac;
    serial="$(cat "$folder/device/serial" 2>/dev/null | tr -cd '!-~')";
    if [ -z "$serial" ]; then serial="$(cat "$folder/serial" 2>/dev/null | tr -cd '!-~')"; fi;
    if [ -z "$serial" ]; then serial="$(dd if="$folder/device/vpd_pg80" bs=1 skip=4 2>/dev/null | tr -cd '!-~')"; fi;
    if [ -n "$1" ] && [ "$serial" != "$1" ]; then continue; fi;
    first="$(cat "$folder/wwid" 2>/dev/null | tr -cd '!-~')";
    second="$(cat "$folder/device/wwid" 2>/dev/null | tr -cd '!-~')";
    if [ -n "$2" ] && [ "$first" != "$2" ] && [ "$second" != "$2" ]; then continue; fi;
    if [ -n "$3" ] && [ "$(readlink -f "/dev/disk/by-path/$3")" != "/dev/$name" ]; then continue; fi;
    if [ -n "$4" ] && [ "$(cat "$folder/size")" != "$4" ]; then continue; fi;
    found="$found $name";
  done;
  set -- $found;
  if [ "$#" != 1 ]; then echo "rackbar: $# disks are the one that was planned for; nothing is touched:$found" >&2; return 1; fi;
  echo "/dev/$1";
};
"#;

/// Lines that leave the disks in `$disk0` and, of a mirror, `$disk1`, or end the shell with status 1.
pub(crate) fn find(target: &RootTarget) -> String {
    let mut text = FIND.to_owned();
    for (index, disk) in target.disks().iter().enumerate() {
        let arguments = arguments(disk);
        text.push_str(&format!("disk{index}=\"$(rackbar_disk {arguments})\" || exit 1;\n"));
    }
    if target.disks().len() > 1 {
        let twice = "echo 'rackbar: both halves of the mirror are one disk; nothing is touched' >&2; exit 1;";
        text.push_str(&format!("if [ \"$disk0\" = \"$disk1\" ]; then {twice} fi;\n"));
    }
    text
}

fn arguments(disk: &DiskRef) -> String {
    let graphic = |text: &Option<String>| -> String {
        let text = text.as_deref().unwrap_or_default();
        text.chars().filter(char::is_ascii_graphic).collect()
    };
    // The kernel counts in units of 512 bytes whatever the disk's own sectors are.
    let sectors = disk.size_bytes.map_or(String::new(), |bytes| (bytes / 512).to_string());
    let given = [
        graphic(&disk.serial),
        graphic(&disk.wwn),
        graphic(&disk.by_path),
        sectors,
    ];
    given.map(|text| shell(&text)).join(" ")
}

/// A stable name of the disk under `/dev`: the best that is known of it. A `*` stands for the model's name, which udev
/// puts before a serial number.
pub(crate) fn stable(disk: &DiskRef) -> String {
    let wwn = disk.wwn.as_deref().unwrap_or_default();
    if let Some(id) = wwn.strip_prefix("naa.") {
        format!("disk/by-id/wwn-0x{id}")
    } else if wwn.starts_with("eui.") || wwn.starts_with("uuid.") {
        format!("disk/by-id/nvme-{wwn}")
    } else if let Some(path) = &disk.by_path {
        format!("disk/by-path/{path}")
    } else {
        let serial = disk.serial.as_deref().unwrap_or_default();
        format!("disk/by-id/*{}", serial.trim().replace(' ', "_"))
    }
}

/// Lines that leave the disks in `$disk0` and `$disk1`, and end the shell unless the stable names that stand elsewhere in
/// the answer are these disks.
pub(crate) fn guard(target: &RootTarget) -> String {
    let mut lines = find(target);
    for (index, disk) in target.disks().iter().enumerate() {
        let name = stable(disk);
        // A `*`, for the model that udev puts before a serial number, must stay outside the quotes.
        let words: Vec<String> = name
            .split('*')
            .map(|part| if part.is_empty() { String::new() } else { shell(part) })
            .collect();
        lines.push_str(&format!(
            "for name in /dev/{}; do\n  if [ \"$(readlink -f \"$name\")\" != \"$disk{index}\" ]; then\n    echo \"rackbar: \
             $name is not $disk{index}; nothing is touched\" >&2;\n    exit 1;\n  fi;\ndone;\n",
            words.join("*")
        ));
    }
    lines
}

/// Shell text in one line, for files that have no others.
pub(crate) fn one_line(script: &str) -> String {
    let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Puts a made-up machine's files into a folder and runs the script there, with Debian's shell and with busybox's.
    fn run(target: &RootTarget, shell: &[&str]) -> (bool, String) {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().to_str().unwrap();
        let disks = [
            (
                "sda",
                "device/vpd_pg80",
                "\0\x01\0\x08  SER 01 ",
                "device/wwid",
                "naa.5000c500a1b2c3d4\n",
                "2048",
            ),
            (
                "sdb",
                "device/vpd_pg80",
                "\0\x01\0\x08  SER 02 ",
                "device/wwid",
                "naa.5000c500a1b2c3d5\n",
                "2048",
            ),
            (
                "nvme0n1",
                "device/serial",
                "NVME1   \n",
                "wwid",
                "eui.0025385b01234567\n",
                "4096",
            ),
            ("vda", "serial", "VIRT1", "none", "", "2048"),
            ("vdb", "serial", "VIRT1", "none", "", "8192"),
        ];
        for (name, serial_file, serial, wwid_file, wwid, size) in disks {
            let at = folder.path().join("sys/block").join(name);
            std::fs::create_dir_all(at.join("device")).unwrap();
            std::fs::write(at.join(serial_file), serial).unwrap();
            std::fs::write(at.join(wwid_file), wwid).unwrap();
            std::fs::write(at.join("size"), format!("{size}\n")).unwrap();
        }
        std::fs::create_dir_all(folder.path().join("dev/disk/by-path")).unwrap();
        std::fs::write(folder.path().join("dev/vda"), "").unwrap();
        let link = folder.path().join("dev/disk/by-path/pci-0000:00:05.0");
        std::os::unix::fs::symlink("../../vda", link).unwrap();
        let script = one_line(&find(target)) + " echo \"$disk0 ${disk1:-}\"";
        let script = script
            .replace("/sys/", &format!("{root}/sys/"))
            .replace("\"/dev/", &format!("\"{root}/dev/"));
        let output = Command::new(shell[0]).args(&shell[1..]).arg(&script).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.success(), text.replace(root, "").trim().to_owned())
    }

    fn disk(serial: Option<&str>, wwn: Option<&str>, by_path: Option<&str>, size_bytes: Option<u64>) -> DiskRef {
        let own = |text: Option<&str>| text.map(str::to_owned);
        DiskRef {
            serial: own(serial),
            wwn: own(wwn),
            by_path: own(by_path),
            size_bytes,
        }
    }

    #[test]
    fn only_the_one_disk_that_was_planned_for_is_found() {
        let one = |disk: &DiskRef| RootTarget::Disk(disk.clone());
        let first = disk(Some("SER 01"), None, None, None);
        let cases = [
            (one(&first), Some("/dev/sda")),
            (
                one(&disk(None, Some("naa.5000c500a1b2c3d5"), None, None)),
                Some("/dev/sdb"),
            ),
            (
                one(&disk(Some("NVME1"), Some("eui.0025385b01234567"), None, Some(2 << 20))),
                Some("/dev/nvme0n1"),
            ),
            (one(&disk(None, None, Some("pci-0000:00:05.0"), None)), Some("/dev/vda")),
            // The same serial number twice: the size tells them apart, and without it nothing is chosen.
            (one(&disk(Some("VIRT1"), None, None, Some(4 << 20))), Some("/dev/vdb")),
            (one(&disk(Some("VIRT1"), None, None, None)), None),
            // Another disk in the same slot.
            (one(&disk(Some("SER 01"), None, None, Some(1 << 30))), None),
            (one(&disk(Some("SER 09"), None, None, None)), None),
            (
                RootTarget::Mirror([first.clone(), disk(Some("SER 02"), None, None, None)]),
                Some("/dev/sda /dev/sdb"),
            ),
            (RootTarget::Mirror([first.clone(), first.clone()]), None),
        ];
        for (target, wanted) in cases {
            for shell in [&["dash", "-c"][..], &["busybox", "sh", "-c"], &["bash", "-c"]] {
                let (good, text) = run(&target, shell);
                assert_eq!(good.then_some(text.as_str()), wanted, "{target:?} in {shell:?}");
            }
        }
    }

    #[test]
    fn a_disk_is_named_by_the_best_that_is_known_of_it() {
        assert_eq!(
            stable(&disk(Some("S"), Some("naa.5000c5"), Some("p"), None)),
            "disk/by-id/wwn-0x5000c5"
        );
        assert_eq!(
            stable(&disk(Some("S"), Some("eui.0025"), Some("p"), None)),
            "disk/by-id/nvme-eui.0025"
        );
        assert_eq!(stable(&disk(Some("S"), None, Some("p"), None)), "disk/by-path/p");
        assert_eq!(stable(&disk(Some("S 1"), None, None, None)), "disk/by-id/*S_1");
    }
}
