//! Stand-ins for what a build takes in: a small PE image, kernel modules and a Debian package made of them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::io::Write;
use std::path::Path;
use std::process::Command;

/// A 64-bit PE image with one section. `table_room` is how many further section headers fit before the data.
pub fn pe(table_room: usize) -> Vec<u8> {
    // The table ends, with exactly that room, where the data begins: a DOS stub of the right length sees to it.
    let optional = 240;
    let after_stub = 24 + optional + 40 * (1 + table_room);
    let headers = (0x40 + after_stub).next_multiple_of(512);
    let pe = headers - after_stub;
    let mut image = vec![0u8; headers + 512];
    let mut put = |at: usize, bytes: &[u8]| image[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3C, &(pe as u32).to_le_bytes());
    put(pe, b"PE\0\0");
    put(pe + 4, &0x8664u16.to_le_bytes());
    put(pe + 6, &1u16.to_le_bytes());
    put(pe + 20, &(optional as u16).to_le_bytes());
    put(pe + 22, &0x22u16.to_le_bytes());
    let at = pe + 24;
    put(at, &0x20Bu16.to_le_bytes());
    put(at + 16, &0x1000u32.to_le_bytes()); // entry point
    put(at + 24, &0x1_4000_0000u64.to_le_bytes()); // image base
    put(at + 32, &4096u32.to_le_bytes());
    put(at + 36, &512u32.to_le_bytes());
    put(at + 56, &0x2000u32.to_le_bytes()); // size of image
    put(at + 60, &(headers as u32).to_le_bytes());
    put(at + 68, &10u16.to_le_bytes()); // EFI application
    put(at + 108, &16u32.to_le_bytes());
    let row = at + optional;
    put(row, b".text\0\0\0");
    put(row + 8, &4u32.to_le_bytes());
    put(row + 12, &0x1000u32.to_le_bytes());
    put(row + 16, &512u32.to_le_bytes());
    put(row + 20, &(headers as u32).to_le_bytes());
    put(row + 36, &0x6000_0020u32.to_le_bytes());
    put(headers, &[0xC3, 1, 2, 3]);
    image
}

/// A kernel module that says `modinfo` about itself.
pub fn module(modinfo: &str) -> Vec<u8> {
    let names = b"\0.modinfo\0.shstrtab\0";
    let mut file = vec![0u8; 64];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let mut sections = vec![[0u64; 3]];
    for (name, content) in [(1u64, modinfo.as_bytes()), (10, &names[..])] {
        sections.push([name, file.len() as u64, content.len() as u64]);
        file.extend_from_slice(content);
    }
    let table = file.len() as u64;
    for [name, at, size] in sections {
        let mut header = [0u8; 64];
        header[..4].copy_from_slice(&(name as u32).to_le_bytes());
        header[0x18..0x20].copy_from_slice(&at.to_le_bytes());
        header[0x20..0x28].copy_from_slice(&size.to_le_bytes());
        file.extend_from_slice(&header);
    }
    file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
    file[0x3A] = 64;
    file[0x3C] = 3;
    file[0x3E] = 2;
    file
}

/// Writes a Debian package with these files.
pub fn deb(path: &Path, files: &[(&str, Vec<u8>)]) {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, format!("./{name}"), &content[..]).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let mut xz = lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).unwrap();
    xz.write_all(&tar).unwrap();
    let xz = xz.finish().unwrap();
    let mut archive = ar::Builder::new(std::fs::File::create(path).unwrap());
    for (name, content) in [("debian-binary", &b"2.0\n"[..]), ("data.tar.xz", &xz[..])] {
        archive
            .append(&ar::Header::new(name.into(), content.len() as u64), content)
            .unwrap();
    }
}

/// Runs a program that must succeed, and gives what it said.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .output()
        .unwrap_or_else(|error| panic!("running {program}: {error}; `cargo xtask setup test` installs it"));
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{program} {arguments:?} failed:\n{text}");
    text
}

/// Bytes that no compressor or sparse file would treat as nothing.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

/// Copies a piece of a file into a file of its own.
pub fn cut(from: &Path, start: u64, length: u64, to: &Path) {
    use std::os::unix::fs::FileExt;
    let mut piece = vec![0; length as usize];
    std::fs::File::open(from)
        .unwrap()
        .read_exact_at(&mut piece, start)
        .unwrap();
    std::fs::write(to, piece).unwrap();
}
