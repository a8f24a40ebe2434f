//! A state in memory onto a loop device, as a real disk would take it; what is on the disk is read by the tools of others.
//! Each story has a mount namespace of its own.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rackbar_hardware::{Root, block, gpt};
use rackbar_install::{Machine, own};
use rackbar_model::Disk;

use super::*;

const BYTES: u64 = 2 << 30;

/// Runs a command, which must succeed; gives its output.
#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}");
    text
}

/// A disk: a loop device over a sparse file.
struct Loop {
    name: String,
    file: PathBuf,
}

impl Loop {
    fn new(folder: &Path) -> Self {
        let file = folder.join("disk");
        File::create(&file).unwrap().set_len(BYTES).unwrap();
        let device = run("losetup", &["-f", "-P", "--show", file.to_str().unwrap()]);
        let name = device.trim().trim_start_matches("/dev/").to_owned();
        Self { name, file }
    }

    fn own(&self) -> OwnDisk {
        OwnDisk {
            disk: Disk {
                name: self.name.clone(),
                size_bytes: BYTES,
                sector_bytes: 512,
                ..Disk::default()
            },
            ..OwnDisk::default()
        }
    }

    fn holds(&self) -> Vec<String> {
        own::contents(&Machine::default(), &self.name).unwrap()
    }

    /// The disk as a boot after a power cut at this moment finds it: the names of its partitions.
    fn after_a_cut(&self, folder: &Path) -> (PathBuf, Vec<String>) {
        let copy = folder.join("after-a-cut");
        run(
            "cp",
            &["--sparse=always", self.file.to_str().unwrap(), copy.to_str().unwrap()],
        );
        let file = File::open(&copy).unwrap();
        let found = gpt::find(&file, 512, BYTES / 512);
        let names = found.map(|found| found.table.partitions().into_iter().map(|part| part.name).collect());
        (copy, names.unwrap_or_default())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let device = format!("/dev/{}", self.name);
        if let Ok(file) = File::open(&device) {
            let _ = block::remove_partition(&file, 1);
        }
        let _ = Command::new("losetup").args(["-d", &device]).status();
    }
}

/// A thread of its own whose mounts nobody else sees.
fn apart(story: impl FnOnce(&Path) + Send + 'static) {
    let told = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNS).expect("these tests need root, as `cargo xtask setup` says");
        mount(
            None::<&str>,
            "/",
            None::<&str>,
            MsFlags::MS_REC | MsFlags::MS_PRIVATE,
            None::<&str>,
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        story(folder.path());
    });
    told.join().unwrap();
}

/// A state in memory, mounted as init does.
fn state(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    fs::create_dir(&data).unwrap();
    mount(Some("tmpfs"), &data, Some("tmpfs"), MsFlags::empty(), Some("mode=0700")).unwrap();
    fs::write(data.join("rackbar.redb"), "as the daemon left it").unwrap();
    fs::create_dir(data.join("images")).unwrap();
    fs::write(data.join("images/debian-12"), vec![5; 20 << 20]).unwrap();
    data
}

/// Growing ext4 takes CAP_SYS_RESOURCE (bit 24), which some containers keep from their root.
fn may_grow() -> bool {
    let status = fs::read_to_string("/proc/thread-self/status").unwrap();
    let bits = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap();
    u64::from_str_radix(bits.trim(), 16).unwrap() >> 24 & 1 == 1
}

fn prepared(disk: &Loop, folder: &Path) -> Prepared {
    let how = if may_grow() { prepare } else { prepare::make };
    how(&Root::default(), &disk.own(), &folder.join("new")).unwrap()
}

#[test]
fn state_moves_to_a_disk_and_a_cut_at_any_step_leaves_the_old_or_the_whole() {
    apart(|folder| {
        let (disk, data) = (Loop::new(folder), state(folder));
        assert_eq!(disk.holds(), Vec::<String>::new());
        let prepared = prepared(&disk, folder);
        // The template alone is too small for the state and what it is to be used with.
        match prepared.has_room_for(&data) {
            Err(error) => assert!(!may_grow() && error.to_string().contains("larger disk"), "{error}"),
            Ok(()) => assert!(may_grow()),
        }
        assert_eq!(disk.after_a_cut(folder).1, [MOVING]);
        let began = SystemTime::now();
        copy(&data, prepared.path(), None).unwrap();
        fs::write(data.join("rackbar.redb"), "as the daemon left it at the very last").unwrap();
        copy(&data, prepared.path(), Some(began)).unwrap();
        assert_eq!(disk.after_a_cut(folder).1, [MOVING]);
        prepared.settle(&data, &folder.join("aside")).unwrap();
        // Now, without another word to the disk.
        let (copied, names) = disk.after_a_cut(folder);
        assert_eq!(names, [DATA]);
        run("sgdisk", &["--verify", copied.to_str().unwrap()]);
        let (start, end) = (1 << 20, BYTES);
        let part = folder.join("part");
        run(
            "dd",
            &[
                &format!("if={}", copied.display()),
                &format!("of={}", part.display()),
                "bs=1M",
                &format!("skip={}", start >> 20),
                &format!("count={}", (end - start) >> 20),
                "conv=sparse",
            ],
        );
        // Mounted when the power went: its journal is replayed first, which e2fsck counts as a repair.
        let _ = Command::new("e2fsck")
            .args(["-E", "journal_only"])
            .arg(&part)
            .status()
            .unwrap();
        run("e2fsck", &["-fn", part.to_str().unwrap()]);
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let at_data: Vec<&str> = mounts.lines().filter(|line| line.contains("/data ")).collect();
        assert!(at_data.len() == 1 && at_data[0].contains(" ext4 "), "{at_data:?}");
        assert!(!mounts.contains("/aside "), "{mounts}");
        let kept = fs::read_to_string(data.join("rackbar.redb")).unwrap();
        assert_eq!(kept, "as the daemon left it at the very last");
        assert_eq!(fs::metadata(data.join("images/debian-12")).unwrap().len(), 20 << 20);
        let room = nix::sys::statvfs::statvfs(&data).unwrap();
        let grown = room.blocks() * room.fragment_size() > BYTES - (128 << 20);
        assert_eq!(grown, may_grow(), "{room:?}");
        // In use now: what takes disks finds it taken.
        let error = prepare(&Root::default(), &disk.own(), &folder.join("again")).unwrap_err();
        assert!(error.to_string().contains("busy"), "{error}");
        assert_eq!(
            disk.holds(),
            [format!("partition 1 {DATA:?} (ext4, {} MiB)", (BYTES >> 20) - 2)]
        );
        nix::mount::umount(&data).unwrap();
    });
}

#[test]
fn what_cannot_be_settled_leaves_the_state_in_memory() {
    apart(|folder| {
        let (disk, data) = (Loop::new(folder), state(folder));
        let prepared = prepared(&disk, folder);
        copy(&data, prepared.path(), None).unwrap();
        // Somebody else gave the disk another table meanwhile.
        run("sgdisk", &["-U", "R", &format!("/dev/{}", disk.name)]);
        let error = prepared.settle(&data, &folder.join("aside")).unwrap_err();
        assert!(error.to_string().contains("not the one"), "{error}");
        assert_eq!(disk.after_a_cut(folder).1, [MOVING]);
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let at_data: Vec<&str> = mounts.lines().filter(|line| line.contains("/data ")).collect();
        assert!(at_data.len() == 1 && at_data[0].contains("tmpfs"), "{at_data:?}");
        assert_eq!(
            fs::read_to_string(data.join("rackbar.redb")).unwrap(),
            "as the daemon left it"
        );
    });
}

#[test]
fn a_disk_with_anything_on_it_is_not_blank() {
    apart(|folder| {
        let disk = Loop::new(folder);
        let device = format!("/dev/{}", disk.name);
        run("mkfs.ext4", &["-q", "-F", &device]);
        assert_eq!(disk.holds(), ["ext4 on the whole disk"]);
        own::empty(&Machine::default(), &disk.name).unwrap();
        assert!(disk.holds().is_empty(), "{:?}", disk.holds());
        run("sgdisk", &["-o", &device]);
        assert_eq!(disk.holds(), ["an empty partition table"]);
        own::empty(&Machine::default(), &disk.name).unwrap();
        // A raw database, say.
        let file = File::options().write(true).open(&device).unwrap();
        std::os::unix::fs::FileExt::write_all_at(&file, b"pages", 12_345).unwrap();
        file.sync_all().unwrap();
        assert_eq!(disk.holds(), ["data of a kind that is not known"]);
    });
}

#[test]
fn the_disks_of_this_machine_are_surveyed() {
    for own in survey(&Root::default()) {
        assert!(own.disk.size_bytes > 0 && !own.disk.name.starts_with("loop"), "{own:?}");
    }
}
