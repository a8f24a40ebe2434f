//! Doors to the private parsers for the fuzz targets, and for nothing else. Not behind a feature: the tests of the workspace
//! link the targets, and the crate would be compiled twice. Programs that do not call it do not hold it.

use std::fs::File;

pub use crate::stream::fuzzing::{http_answer, is_url, qcow2};
use crate::{erase, kexec, probe};

/// Reads what an NVMe disk answers in every way that is known.
pub fn device_answer(bytes: &[u8]) {
    erase::nvme::any_answer(bytes);
}

/// Looks at a disk of so many bytes: its partitions, and what the disk itself holds.
pub fn disk_content(disk: &File, bytes: u64) {
    let _ = erase::signatures::mbr_partitions(disk);
    let contents = [probe::content(disk, bytes), probe::file_system(disk)];
    for content in contents.into_iter().flatten() {
        let _ = (content.name(), probe::size(disk, content).map(probe::Size::bytes));
    }
}

/// Reads the menu of a system that boots by GRUB: the arguments of its newest kernel, of the names that the text has.
pub fn boot_menu(text: &str) -> Option<String> {
    let _ = kexec::sourced(text).count();
    let words = text.split_whitespace();
    let names: Vec<String> = words
        .filter_map(|word| word.rsplit('/').next())
        .map(str::to_owned)
        .collect();
    let kernel = kexec::newest(&names).map_or_else(|| "vmlinuz".to_owned(), |(kernel, _)| kernel);
    kexec::of_grub(text, &kernel)
}
