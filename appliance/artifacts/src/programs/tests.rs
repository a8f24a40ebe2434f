//! What is taken for a program and what is not, and stories of the store: replacement, runs that need the old, damage.

use proptest::prelude::*;
use rackbar_trust::sha256;

use super::*;

const ROOM: u64 = 16 << 20;

/// A program header: kind, flags, offset, address, bytes in the file, bytes in memory.
type Part = (u32, u32, u64, u64, u64, u64);

/// The text of a small program: all of its first page.
const TEXT: Part = (1, 5, 0, 0x40_0000, 4096, 4096);

/// An ELF file of `length` bytes with these program headers, which begins at 0x40_0100.
fn elf_of(kind: u16, parts: &[Part], length: usize) -> Vec<u8> {
    let mut file = vec![0; length.max(4096)];
    file[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    let mut put = |at: usize, bytes: &[u8]| file[at..at + bytes.len()].copy_from_slice(bytes);
    put(16, &kind.to_le_bytes());
    put(18, &62u16.to_le_bytes());
    put(20, &1u32.to_le_bytes());
    put(24, &0x40_0100u64.to_le_bytes());
    put(32, &64u64.to_le_bytes());
    put(52, &64u16.to_le_bytes());
    put(54, &56u16.to_le_bytes());
    put(56, &u16::try_from(parts.len()).unwrap().to_le_bytes());
    for (index, (kind, flags, offset, address, in_file, in_memory)) in parts.iter().enumerate() {
        let at = 64 + index * 56;
        put(at, &kind.to_le_bytes());
        put(at + 4, &flags.to_le_bytes());
        for (field, value) in [(8, offset), (16, address), (32, in_file), (40, in_memory)] {
            put(at + field, &value.to_le_bytes());
        }
    }
    file.truncate(length);
    file
}

/// A program whose content tells it from others.
fn program(fill: u8) -> Vec<u8> {
    let mut file = elf_of(2, &[TEXT], 4096);
    file[4095] = fill;
    file
}

/// A position-independent program with a dynamic section of these entries.
fn dynamic(entries: &[(u64, u64)]) -> Vec<u8> {
    let bytes = entries.len() as u64 * 16;
    let mut file = elf_of(3, &[TEXT, (2, 6, 2048, 0x40_0800, bytes, bytes)], 4096);
    for (index, (tag, value)) in entries.iter().enumerate() {
        let at = 2048 + index * 16;
        file[at..at + 8].copy_from_slice(&tag.to_le_bytes());
        file[at + 8..at + 16].copy_from_slice(&value.to_le_bytes());
    }
    file
}

fn looked(content: &[u8]) -> Result<(), ElfError> {
    elf::examine(content.len() as u64, &|offset, into| {
        let from = usize::try_from(offset).unwrap();
        into.copy_from_slice(&content[from..from + into.len()]);
        Ok(())
    })
}

/// The same with one field written over.
fn with(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

#[test]
fn static_programs_are_taken() {
    let data: Part = (1, 6, 4096, 0x40_2000, 100, 5000);
    let stack: Part = (0x6474_e551, 6, 0, 0, 0, 0);
    for good in [
        elf_of(2, &[TEXT], 4096),
        elf_of(2, &[TEXT, data, stack], 4196),
        // Position-independent: what it has a dynamic section for is to move itself (DT_RELA, DT_NULL, then anything).
        dynamic(&[(7, 0x100), (0, 0), (1, 1)]),
        with(elf_of(2, &[TEXT], 4096), 7, &[3]),
        // What a packer of programs makes: the first part has nothing in the file.
        elf_of(2, &[(1, 6, 0, 0x30_0000, 0, 0x10_0000), TEXT], 4096),
    ] {
        looked(&good).unwrap();
    }
}

#[test]
fn what_is_no_static_program_is_refused_with_what_to_do() {
    let good = || elf_of(2, &[TEXT], 4096);
    let linked = elf_of(3, &[(3, 4, 512, 0x40_0200, 28, 28), TEXT], 4096);
    let table: &[(Vec<u8>, &str)] = &[
        (vec![], "empty"),
        (b"\x7fEL".to_vec(), "no ELF executable"),
        (b"plain text".to_vec(), "no ELF executable"),
        (b"#!/bin/sh\nexit\n".to_vec(), "`script` of a step"),
        (b"MZ\x90\0".to_vec(), "GOOS=linux"),
        (b"\xcf\xfa\xed\xfe....".to_vec(), "macOS"),
        (b"\x1f\x8b\x08..".to_vec(), "gunzip"),
        (b"PK\x03\x04..".to_vec(), "unpack it"),
        (b"\x7fELF\x02\x01\x01".to_vec(), "cut off"),
        (good()[..100].to_vec(), "cut off"),
        (good()[..4095].to_vec(), "copy or build it again"),
        (with(good(), 4, &[1]), "32-bit"),
        (with(good(), 5, &[2]), "big-endian"),
        (with(good(), 6, &[0]), "another version"),
        (with(good(), 7, &[9]), "OS ABI 9"),
        (with(good(), 18, &[183, 0]), "AArch64"),
        (with(good(), 18, &[8, 0]), "ELF machine 8"),
        (with(good(), 16, &[1, 0]), "link it"),
        (with(good(), 16, &[4, 0]), "core dump"),
        (with(good(), 16, &[9, 9]), "neither a program"),
        (with(good(), 52, &[52, 0]), "another size"),
        (with(good(), 54, &[32, 0]), "another size"),
        (with(good(), 56, &[0, 0]), "nothing of it"),
        (with(good(), 56, &[200, 0]), "more than 128"),
        (with(good(), 32, &[16]), "lie in its header"),
        (with(good(), 32, &[255; 8]), "beyond all files"),
        (linked, "CGO_ENABLED=0"),
        (dynamic(&[(1, 1), (0, 0)]), "x86_64-unknown-linux-musl"),
        (dynamic(&[(14, 1), (0, 0)]), "shared library"),
        (with(dynamic(&[(0, 0)]), 24, &[0; 8]), "no entry point"),
        (with(good(), 24, &[0; 8]), "entry point is in no part"),
        (
            elf_of(2, &[(1, 4, 0, 0x40_0000, 4096, 4096)], 4096),
            "entry point is in no part",
        ),
        (elf_of(2, &[(6, 5, 0, 0x40_0000, 4096, 4096)], 4096), "nothing of it"),
        (elf_of(2, &[(1, 5, 0, 0x40_0000, 4096, 100)], 4096), "than in memory"),
        (
            elf_of(2, &[(1, 5, 0, 0xffff_8000_0000_0000, 0, 4096)], 4096),
            "no process has memory",
        ),
        (
            elf_of(2, &[(1, 5, 0, u64::MAX, 0, 4096)], 4096),
            "no process has memory",
        ),
        (elf_of(2, &[TEXT, (1, 6, 0, 0x40_0800, 0, 16)], 4096), "overlap"),
        (
            elf_of(2, &[(1, 5, 1, 0x40_0000, 1000, 4096)], 4096),
            "as it lies in the file",
        ),
        (
            elf_of(2, &[TEXT, (2, 6, 0, 0x40_0000, 1 << 20, 1 << 20)], 2 << 20),
            "64 KiB",
        ),
    ];
    for (content, words) in table {
        let error = looked(content).expect_err(words).to_string();
        assert!(error.contains(words), "wanted {words:?}: {error}");
    }
}

proptest! {
    #[test]
    fn no_bytes_whatever_stop_the_look(noise in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = looked(&noise);
    }

    #[test]
    fn no_damage_to_a_program_stops_the_look_or_makes_it_read_beyond_the_end(
        spots in proptest::collection::vec((0usize..300, any::<u8>()), 1..8), cut in 0usize..=4096, kind in 2u16..4,
    ) {
        let mut file = elf_of(kind, &[TEXT, (2, 6, 2048, 0x40_0800, 64, 64)], 4096);
        for (at, byte) in spots {
            file[at] = byte;
        }
        file.truncate(cut);
        // Indexes of the reader in this file are checked: it would panic.
        let _ = looked(&file);
    }
}

fn open(folder: &Path) -> Programs {
    Programs::open(folder, ROOM).unwrap()
}

fn add(programs: &Programs, name: &str, content: &[u8]) -> Result<Placed, ProgramError> {
    let mut upload = programs.begin(name)?;
    for piece in content.chunks(1000) {
        upload.write(piece)?;
    }
    upload.finish(Some(Digest(sha256(content))))
}

fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn read(programs: &Programs, sha256: &Digest) -> Result<Vec<u8>, ProgramError> {
    let (mut file, bytes) = programs.content(sha256)?;
    let mut content = Vec::new();
    io::Read::read_to_end(&mut file, &mut content).unwrap();
    assert_eq!(content.len() as u64, bytes);
    Ok(content)
}

#[test]
fn a_program_is_there_at_once_and_after_a_restart_and_gone_when_removed() {
    let folder = tempfile::tempdir().unwrap();
    let content = program(1);
    let placed = {
        let programs = open(folder.path());
        let placed = add(&programs, "node-setup", &content).unwrap();
        assert_eq!((placed.entry.bytes, &placed.before), (4096, &None));
        let again = add(&programs, "node-setup", &content).unwrap();
        assert_eq!(again.before.as_ref(), Some(&placed.entry));
        assert_eq!(again.entry, placed.entry, "the same content came when it came");
        assert_eq!(programs.space(), (4096, ROOM));
        placed
    };
    let programs = open(folder.path());
    assert_eq!(programs.list(), std::slice::from_ref(&placed.entry));
    assert_eq!(programs.get("node-setup"), Some(placed.entry.clone()));
    assert_eq!(read(&programs, &placed.entry.sha256).unwrap(), content);
    assert!(matches!(
        programs.remove("other", &InUse::new()),
        Err(ProgramError::Unknown(_))
    ));
    programs.remove("node-setup", &InUse::new()).unwrap();
    programs.sweep(&InUse::new());
    assert_eq!((files(folder.path()), programs.space().0), (vec![], 0));
    assert!(matches!(
        programs.content(&placed.entry.sha256),
        Err(ProgramError::Gone(_))
    ));
}

#[test]
fn nothing_stays_of_what_was_refused_or_broke_off() {
    let folder = tempfile::tempdir().unwrap();
    let programs = open(folder.path());
    let refused = |name: &str, content: &[u8]| add(&programs, name, content).unwrap_err().to_string();
    assert!(refused("setup", b"#!/bin/sh\n").contains("program setup is not taken: it is a script"));
    for name in ["", "Setup", "../setup", "a/b", ".setup", &"x".repeat(65)] {
        assert!(refused(name, &program(1)).contains("lower-case"), "{name}");
    }
    let mut upload = programs.begin("setup").unwrap();
    upload.write(&program(1)).unwrap();
    let other = upload.finish(Some(Digest([7; 32]))).unwrap_err().to_string();
    assert!(other.contains("send it again"), "{other}");
    let mut upload = programs.begin("setup").unwrap();
    upload.write(&program(1)).unwrap();
    assert_eq!(programs.space().0, 4096);
    drop(upload);
    assert_eq!((files(folder.path()), programs.space().0), (vec![], 0));
    assert!(programs.list().is_empty());
}

#[test]
fn a_program_has_a_largest_size_and_all_have_a_budget() {
    let folder = tempfile::tempdir().unwrap();
    let programs = Programs::open(folder.path(), u64::MAX).unwrap();
    assert_eq!(programs.space().1, ALL);
    let mut upload = programs.begin("large").unwrap();
    let piece = vec![0; 1 << 20];
    for _ in 0..64 {
        upload.write(&piece).unwrap();
    }
    let error = upload.write(&[0]).unwrap_err().to_string();
    assert!(error.contains("64 MiB") && error.contains("strip"), "{error}");
    drop(upload);
    let small = Programs::open(folder.path(), 5000).unwrap();
    add(&small, "one", &program(1)).unwrap();
    let error = add(&small, "two", &program(2)).unwrap_err().to_string();
    assert!(error.contains("remove a program"), "{error}");
    assert_eq!(small.space().0, 4096);
}

#[test]
fn what_a_run_has_pinned_outlives_its_name_and_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let programs = open(folder.path());
    let old = add(&programs, "setup", &program(1)).unwrap().entry;
    let used = InUse::from([("setup".to_owned(), old.sha256)]);
    let placed = add(&programs, "setup", &program(2)).unwrap();
    assert_eq!(placed.before.as_ref(), Some(&old));
    programs.sweep(&used);
    assert_eq!(read(&programs, &old.sha256).unwrap(), program(1));
    assert_eq!(programs.get("setup").unwrap().sha256, placed.entry.sha256);
    let refused = programs.remove("setup", &used).unwrap_err().to_string();
    assert!(refused.contains("a run that has not ended"), "{refused}");
    drop(programs);
    // A restart knows of no run yet, and takes nothing away before it does.
    let programs = open(folder.path());
    assert_eq!(read(&programs, &old.sha256).unwrap(), program(1));
    programs.sweep(&InUse::new());
    assert!(matches!(programs.content(&old.sha256), Err(ProgramError::Gone(_))));
    assert_eq!(read(&programs, &placed.entry.sha256).unwrap(), program(2));
    assert_eq!(files(folder.path()).len(), 2);
}

#[test]
fn one_content_under_two_names_goes_with_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let programs = open(folder.path());
    let entry = add(&programs, "one", &program(1)).unwrap().entry;
    add(&programs, "two", &program(1)).unwrap();
    assert_eq!(programs.space().0, 4096);
    programs.remove("one", &InUse::new()).unwrap();
    programs.sweep(&InUse::new());
    assert_eq!(read(&programs, &entry.sha256).unwrap(), program(1));
}

#[test]
fn damage_is_told_and_mended_by_putting_the_program_in_again() {
    let folder = tempfile::tempdir().unwrap();
    let entry = add(&open(folder.path()), "setup", &program(1)).unwrap().entry;
    let path = folder.path().join(format!("{}.program", entry.sha256));
    // One bit: the size is right, so only who reads it through finds out, which is whoever would run it.
    std::fs::write(&path, with(program(1), 2000, &[1])).unwrap();
    let programs = open(folder.path());
    assert!(programs.problems().is_empty());
    let error = programs.content(&entry.sha256).unwrap_err().to_string();
    assert!(error.contains("rackbar program add"), "{error}");
    add(&programs, "setup", &program(1)).unwrap();
    assert_eq!(read(&programs, &entry.sha256).unwrap(), program(1));
    drop(programs);
    std::fs::write(&path, b"short").unwrap();
    std::fs::write(folder.path().join("other.json"), b"{").unwrap();
    std::fs::write(folder.path().join("setup.3.part"), b"broken off").unwrap();
    let programs = open(folder.path());
    let problems = programs.problems().join("\n");
    assert!(programs.list().is_empty(), "{problems}");
    assert!(problems.contains("setup is out of use: it has 5 bytes"), "{problems}");
    assert!(
        problems.contains("other is out of use: its record makes no sense"),
        "{problems}"
    );
    assert!(!folder.path().join("setup.3.part").exists());
    add(&programs, "setup", &program(1)).unwrap();
    assert_eq!(read(&programs, &entry.sha256).unwrap(), program(1));
}

#[test]
fn what_compilers_make_is_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("own.c");
    std::fs::write(&source, "int main(void) { return 9; }\n").unwrap();
    for (flags, taken) in [
        (&["-static"][..], true),
        (&["-static-pie"], true),
        (&[], false),
        (&["-shared", "-fPIC"], false),
        (&["-c"], false),
    ] {
        let made = folder.path().join("own");
        let mut cc = std::process::Command::new("cc");
        let ran = cc.args(flags).arg("-o").arg(&made).arg(&source).output();
        let ran = ran.expect("cc; `cargo xtask setup` installs it");
        assert!(ran.status.success(), "{ran:?}");
        let found = looked(&std::fs::read(&made).unwrap());
        assert_eq!(found.is_ok(), taken, "{flags:?}: {found:?}");
    }
}
