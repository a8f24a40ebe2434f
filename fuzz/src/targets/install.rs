//! What the agent reads from a machine's firmware, and of the images that it fetches, while it installs.

use std::cell::OnceCell;
use std::fs::File;
use std::os::unix::fs::FileExt;

// Private to its crate: the firmware's boot entries.
#[allow(dead_code, reason = "only what is called here")]
#[path = "../../../initramfs/install/src/efi/option.rs"]
mod option;

use option::LoadOption;
use rackbar_install::fuzzing;
use rackbar_os_files::again;

/// A `Boot####` variable. An entry that was understood must come back the same from what would be written for it.
pub(super) fn load_option(data: &[u8]) {
    let Some(option) = LoadOption::parse(data) else { return };
    let _ = option.starts().name();
    assert_eq!(
        LoadOption::parse(&option.bytes()).as_ref(),
        Some(&option),
        "an entry changes when it is written back"
    );
}

/// How much of a guest's disk is read.
const MOST: usize = 1 << 20;

pub(super) fn qcow2(data: &[u8]) {
    let Ok((have, size)) = fuzzing::qcow2(data, MOST) else {
        return;
    };
    let expected = usize::try_from(size).unwrap_or(usize::MAX).min(MOST);
    assert_eq!(have, expected, "a disk of {size} bytes was read short without a word");
}

pub(super) fn image_fetch(data: &[u8]) {
    if let Some(end) = fuzzing::http_answer(data) {
        assert!(end <= data.len(), "the body begins behind what came");
    }
    let text = String::from_utf8_lossy(data);
    if fuzzing::is_url(&text) {
        assert!(
            !text.contains(['\r', '\n', ' ']),
            "an address could end the request's line"
        );
    }
}

/// A disk with what somebody left on it: partitions, file systems, arrays.
pub(super) fn disk_content(data: &[u8]) {
    thread_local!(static DISK: OnceCell<File> = const { OnceCell::new() });
    DISK.with(|file| {
        let file = file.get_or_init(|| {
            let path = std::env::temp_dir().join(format!("rackbar-fuzz-disk-{}", std::process::id()));
            let mut open = File::options();
            let file = open.read(true).write(true).create_new(true).open(&path);
            let _ = std::fs::remove_file(path);
            file.expect("a file in the folder for temporary files")
        });
        file.set_len(0).expect("a file that can be cut");
        file.write_all_at(data, 0).expect("room for the disk");
        fuzzing::disk_content(file, data.len() as u64);
    });
}

/// The boot menu of an installed system. What is taken of it becomes one line of arguments.
pub(super) fn boot_menu(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(line) = fuzzing::boot_menu(&text) {
        assert!(!line.contains('\n'), "{line:?} is more than a line of arguments");
    }
}

/// Files of an installed system that a change in place reads: what is written once is left as it is the second time.
pub(super) fn system_files(data: &[u8]) {
    // One carriage return before a line's end goes each time that lines are written anew.
    let text = String::from_utf8_lossy(data).replace('\r', "");
    let (old, seed) = text.split_once('\0').unwrap_or((&text, ""));
    let keys = ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f a".to_owned()];
    for seed in [None, Some(seed)] {
        if let Ok(once) = again::authorized_keys_in(old, seed, &keys) {
            assert!(once.contains(&keys[0]), "whoever may log in cannot");
            assert_eq!(again::authorized_keys_in(&once, seed, &keys).ok(), Some(once));
        }
    }
    let wanted = "[Match]\nMACAddress=52:54:00:00:00:01\n[Network]\nDHCP=yes\nDNS=10.0.0.1\nDomains=a.example\n";
    let once = again::networkd(old, wanted);
    assert_eq!(again::networkd(&once, wanted), once);
    let wanted = "auto eth0\niface eth0 inet dhcp\n    dns-nameservers 10.0.0.1\n    dns-search a.example\n";
    let once = again::interfaces(old, wanted);
    assert_eq!(again::interfaces(&once, wanted), once);
    assert!(again::same_resolvers(old, old));
}
