//! Disks with every kind of old content, as plain files.

use super::*;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

const BYTES: u64 = 400 << 20;

fn run(program: &str, arguments: &[&str], path: &Path) {
    let output = Command::new(program).args(arguments).arg(path).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup test` installs it"));
    assert!(output.status.success(), "{program}: {output:?}");
}

fn disk() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::File::create(&path).unwrap().set_len(BYTES).unwrap();
    (folder, path)
}

fn chosen(path: &Path) -> Chosen {
    Chosen {
        info: rackbar_model::Disk {
            name: "disk".to_owned(),
            size_bytes: BYTES,
            ..rackbar_model::Disk::default()
        },
        path: path.to_owned(),
    }
}

fn wipefs(path: &Path) -> String {
    let output = Command::new("wipefs").arg("--no-act").arg(path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn whole_disk_signatures_are_gone_as_wipefs_sees_it() {
    for (program, arguments) in [
        ("mkfs.ext4", &["-q", "-F"][..]),
        ("mkfs.xfs", &["-q", "-f"]),
        ("mkfs.vfat", &["-F", "32", "-I"]),
        ("mkswap", &["-q"]),
    ] {
        let (_folder, path) = disk();
        run(program, arguments, &path);
        assert_ne!(wipefs(&path), "", "{program}");
        let steps = erase_one(&chosen(&path), &[], EraseMethod::Signatures, &Control::default()).unwrap();
        assert!(steps.iter().any(|step| step.contains("held")), "{steps:?}");
        assert_eq!(wipefs(&path), "", "{program}");
    }
}

#[test]
fn signatures_inside_old_partitions_do_not_come_back() {
    let (_folder, path) = disk();
    run("sgdisk", &["-n", "1:2048:+100M", "-n", "2:0:+100M"], &path);
    let file = std::fs::File::options().write(true).read(true).open(&path).unwrap();
    // LVM in the first one; md 1.0 at the end of the second; ZFS-like bytes in the last 256 KiB of the disk.
    file.write_all_at(b"LABELONE", (1 << 20) + 512).unwrap();
    let second = 101 << 20;
    file.write_all_at(&crate::probe::MD_MAGIC, second + crate::probe::md_at_end(100 << 20)[0])
        .unwrap();
    file.write_all_at(&[7; 4096], BYTES - (200 << 10)).unwrap();
    let steps = erase_one(&chosen(&path), &[], EraseMethod::Signatures, &Control::default()).unwrap();
    let text = steps.join("\n");
    assert!(
        text.contains("old partition 1 (LVM2_member)") && text.contains("old partition 2 (linux_raid_member)"),
        "{text}"
    );
    // The same table again would show what a reinstalled disk with the same layout shows.
    run("sgdisk", &["-n", "1:2048:+100M", "-n", "2:0:+100M"], &path);
    for (start, bytes) in [(1u64 << 20, 100u64 << 20), (second, 100 << 20)] {
        let mut all = vec![0; bytes as usize];
        file.read_exact_at(&mut all, start).unwrap();
        assert!(crate::disk::is_zero(&all[..1 << 20]) && crate::disk::is_zero(&all[all.len() - (1 << 20)..]));
    }
}

#[test]
fn an_overwritten_disk_is_all_zero() {
    let (_folder, path) = disk();
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    for place in 0..400 {
        file.write_all_at(&[0x5a; 5000], place << 20 | 0x777).unwrap();
    }
    let steps = erase_one(&chosen(&path), &[], EraseMethod::Overwrite, &Control::default()).unwrap();
    assert!(
        steps.iter().any(|step| step.contains("read back, all zero")),
        "{steps:?}"
    );
    assert!(crate::disk::is_zero(&std::fs::read(&path).unwrap()));
}

#[test]
fn what_a_disk_cannot_do_is_refused_and_not_replaced() {
    let (_folder, path) = disk();
    for method in [EraseMethod::Sanitize, EraseMethod::Crypto, EraseMethod::Discard] {
        let failure = erase_one(&chosen(&path), &[], method, &Control::default()).unwrap_err();
        assert!(failure.advice.contains("overwrite"), "{failure:?}");
    }
}

#[test]
fn a_disk_that_still_has_what_it_had_is_not_taken_for_erased() {
    let (_folder, path) = disk();
    let file = std::fs::File::options().write(true).read(true).open(&path).unwrap();
    let data: Vec<u8> = (0..4096u32).flat_map(u32::to_le_bytes).collect();
    for mib in [50, 200] {
        file.write_all_at(&data, mib << 20).unwrap();
    }
    let disk = Disk::open(&path).unwrap();
    let control = Control::default();
    let before = Remembered::of(&disk, "disk", &control).unwrap();
    assert_eq!(
        before.0.iter().map(|(offset, _)| offset >> 20).collect::<Vec<_>>(),
        [50, 200]
    );
    file.write_all_at(&vec![0; data.len()], 50 << 20).unwrap();
    let failure = before.is_gone(&disk, "disk", &control).unwrap_err();
    assert!(
        failure.reason.contains("still has what was at byte 209715200"),
        "{}",
        failure.reason
    );
    // What comes back is the disk's affair, as long as it is something else.
    file.write_all_at(&vec![0xff; data.len()], 200 << 20).unwrap();
    let gone = before.is_gone(&disk, "disk", &control).unwrap();
    assert!(gone.contains("2 places"), "{gone}");
}
