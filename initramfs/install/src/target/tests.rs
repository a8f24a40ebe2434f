//! A whole disk image onto a loop device: streamed, grown, and looked at by the tools of others.

use super::*;
use crate::testing::serve;
use rackbar_model::{Digest, ImageFormat};
use std::process::Command;

/// Runs a command, which must succeed; gives its output.
#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// A loop device over a file, detached in the end.
struct Loop(String);

impl Loop {
    fn new(file: &Path) -> Option<Self> {
        let output = Command::new("losetup")
            .args(["-f", "-P", "--show"])
            .arg(file)
            .output()
            .ok()?;
        let name = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        output.status.success().then_some(Self(name))
    }

    fn chosen(&self) -> Chosen {
        let name = self.0.trim_start_matches("/dev/").to_owned();
        let info = rackbar_model::Disk {
            name,
            ..rackbar_model::Disk::default()
        };
        Chosen {
            info,
            path: PathBuf::from(&self.0),
        }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        if let Ok(file) = File::open(&self.0) {
            for number in 1..4 {
                let _ = rackbar_hardware::block::remove_partition(&file, number);
            }
        }
        let _ = Command::new("losetup").args(["-d", &self.0]).status();
    }
}

/// An image as distributions make them: an ESP, then the root, whose partition ends with the image.
fn make_image(folder: &Path, kind: &str, megabytes: u64) -> PathBuf {
    let (image, root, content) = (folder.join("image"), folder.join("root"), folder.join("content"));
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    std::fs::create_dir_all(content.join("etc")).unwrap();
    std::fs::write(content.join("etc/passwd"), "root:x:0:0::/root:/bin/sh\n").unwrap();
    let noise: Vec<u8> = (0..5_000_000u64)
        .map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8)
        .collect();
    std::fs::write(content.join("data"), noise).unwrap();
    File::create(&root).unwrap().set_len((megabytes - 10) << 20).unwrap();
    match kind {
        "ext4" => run("mkfs.ext4", &["-q", "-F", "-d", &text(&content), &text(&root)]),
        _ => run("mkfs.xfs", &["-q", "-f", &text(&root)]),
    };
    File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
    let layout = ["-n", "1:2048:+8M", "-t", "1:ef00", "-n", "2:0:0", "-t", "2:8304"];
    run("sgdisk", &[&layout[..], &[&text(&image)]].concat());
    let bytes = std::fs::read(&root).unwrap();
    let file = File::options().write(true).open(&image).unwrap();
    // The partition is what is left less the backup table; the file system is made to be no larger.
    file.write_all_at(&bytes[..bytes.len()], 9 << 20).unwrap();
    image
}

fn install(kind: &str, megabytes: u64, check: impl FnOnce(&str, &Path)) {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: loop devices need root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let image = make_image(folder.path(), kind, megabytes);
    let packed = folder.path().join("image.zst");
    run("zstd", &["-q", image.to_str().unwrap(), "-o", packed.to_str().unwrap()]);
    let file = std::fs::read(&packed).unwrap();
    let disk = folder.path().join("disk");
    std::fs::write(&disk, vec![0xaa; 2 * megabytes as usize * MIB as usize + 512 * 7]).unwrap();
    let Some(device) = Loop::new(&disk) else {
        println!("skipped: no loop device can be made");
        return;
    };
    let source = ImageSource {
        name: "debian".into(),
        url: serve(file.clone(), 400_000),
        format: ImageFormat::Zstd,
        sha256: Digest(rackbar_trust::sha256(&file)),
        bytes: file.len() as u64,
        disk_bytes: Some(megabytes << 20),
    };
    let machine = Machine::default();
    let report = write_to(&machine, &[device.chosen()], Vec::new(), &source, &Control::default()).unwrap();
    let JobReport::Written { steps, holes, .. } = report else {
        panic!()
    };
    println!("{steps:#?}, {holes} bytes of holes");
    let text = steps.join("\n");
    assert!(text.contains("grown from") && text.contains("grew from"), "{text}");
    let verdict = run("sgdisk", &["-v", disk.to_str().unwrap()]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let name = device.0.trim_start_matches("/dev/").to_owned();
    check(
        &format!("/dev/{}", crate::disk::partition_name(&name, 2)),
        folder.path(),
    );
}

/// Growing ext4 takes CAP_SYS_RESOURCE (bit 24), which some containers keep from their root.
fn may_grow_ext4() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    let may = u64::from_str_radix(bits.trim(), 16).unwrap() >> 24 & 1 == 1;
    if !may {
        println!("skipped: growing ext4 needs CAP_SYS_RESOURCE");
    }
    may
}

#[test]
fn an_ext4_image_fills_a_larger_disk_and_is_clean() {
    if !may_grow_ext4() {
        return;
    }
    install("ext4", 64, |part, folder| {
        run("e2fsck", &["-f", "-n", part]);
        let device = File::open(part).unwrap();
        let size = probe::size(&device, probe::file_system(&device).unwrap()).unwrap();
        assert!(size.bytes() > 115 << 20, "{} bytes", size.bytes());
        let mounted = Mounted::new(&Machine::default(), Path::new(part)).unwrap();
        let (ours, theirs) = (mounted.path().join("data"), folder.join("content/data"));
        assert!(std::fs::read(ours).unwrap() == std::fs::read(theirs).unwrap());
        mounted.unmount().unwrap();
    });
}

#[test]
fn an_xfs_image_fills_a_larger_disk_and_is_clean() {
    install("xfs", 512, |part, _| {
        run("xfs_repair", &["-n", part]);
        let device = File::open(part).unwrap();
        let size = probe::size(&device, probe::file_system(&device).unwrap()).unwrap();
        assert!(size.bytes() > 1000 << 20, "{} bytes", size.bytes());
    });
}

/// The image was written and is right, and still makes no mirror: its disks start nothing then.
#[test]
fn a_mirror_that_cannot_be_made_leaves_disks_that_start_nothing() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: loop devices need root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let disks = ["first", "second"].map(|name| {
        let path = folder.path().join(name);
        std::fs::write(&path, vec![0xaa; 16 << 20]).unwrap();
        path
    });
    let loops = disks.each_ref().map(|path| Loop::new(path));
    let [Some(first), Some(second)] = &loops else {
        println!("skipped: no loop device can be made");
        return;
    };
    let file = vec![0x55; 4 << 20];
    let source = ImageSource {
        name: "no-gpt".into(),
        url: serve(file.clone(), 400_000),
        format: ImageFormat::Raw,
        sha256: Digest(rackbar_trust::sha256(&file)),
        bytes: file.len() as u64,
        disk_bytes: None,
    };
    let chosen = [first.chosen(), second.chosen()];
    let failure = write_to(&Machine::default(), &chosen, Vec::new(), &source, &Control::default()).unwrap_err();
    assert!(failure.reason.contains("GPT"), "{failure:?}");
    for path in &disks {
        let bytes = std::fs::read(path).unwrap();
        assert!(bytes[..1 << 20].iter().all(|byte| *byte == 0), "the beginning is gone");
        assert_eq!(bytes[2 << 20], 0x55, "it had been written");
    }
}
