//! Discs that xorriso made, and our own, read back: names, places, contents; and what hostile bytes do to the reader.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may unwrap")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use proptest::prelude::*;
use rackbar_boot_media::iso::{self, Disc};
use rackbar_boot_media::tree::{DiscError, Place, Tree};

type Files = BTreeMap<String, Vec<u8>>;

/// A disc as xorriso makes it of these files, by its emulation of mkisofs.
fn disc(files: &Files, options: &[&str]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    for (path, content) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    made(folder.path(), &root, options)
}

fn made(folder: &Path, root: &Path, options: &[&str]) -> Vec<u8> {
    let out = folder.join("disc.iso");
    let output = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-V", "Rocky-9-4-x86_64-dvd"])
        .args(options)
        .arg("-o")
        .arg(&out)
        .arg(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(out).unwrap()
}

fn read(disc: &[u8]) -> Result<Tree, DiscError> {
    Tree::read(disc, disc.len() as u64)
}

fn content(disc: &[u8], place: Place) -> Vec<u8> {
    let from = usize::try_from(place.offset).unwrap();
    disc[from..from + usize::try_from(place.bytes).unwrap()].to_vec()
}

fn all(disc: &[u8]) -> Files {
    let tree = read(disc).unwrap();
    let file = |(path, place): (&str, Place)| (path.to_owned(), content(disc, place));
    tree.files().map(file).collect()
}

fn sample() -> Files {
    let long = format!("BaseOS/Packages/l/{}.rpm", "libstdc++-11.4.1-3.el9~rc^1".repeat(8));
    let deep = "a/b/c/d/e/f/g/h/i/j/k/l/deep.txt";
    [
        (".treeinfo", &b"[general]\n"[..]),
        ("images/pxeboot/vmlinuz", &[0x4b; 9000]),
        ("images/pxeboot/initrd.img", &[0x49; 2048]),
        ("BaseOS/repodata/repomd.xml", b"<repomd/>"),
        ("empty", b""),
        ("Mixed Case/\u{e4}\u{f6}.Txt", b"umlauts"),
        (long.as_str(), b"long"),
        (deep, b"deep"),
    ]
    .map(|(path, content)| (path.to_owned(), content.to_vec()))
    .into()
}

#[test]
fn a_disc_of_xorriso_is_read_with_the_names_of_rock_ridge() {
    let files = sample();
    for options in [
        &["-R"][..],
        &["-R", "-J"],
        &["-r", "-iso-level", "3"],
        &["-R", "-D"],
        &["-R", "-rr_reloc_dir", "moved"],
    ] {
        let disc = disc(&files, options);
        assert_eq!(all(&disc), files, "{options:?}");
        assert_eq!(read(&disc).unwrap().label(), "Rocky-9-4-x86_64-dvd");
    }
}

#[test]
fn many_files_in_a_folder_and_links_among_them() {
    let mut files: Files = (0..3000)
        .map(|n| {
            (
                format!("Packages/package-with-a-long-name-{n}.x86_64.rpm"),
                vec![n as u8; 3],
            )
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir_all(root.join("Packages")).unwrap();
    for (path, content) in &files {
        std::fs::write(root.join(path), content).unwrap();
    }
    std::os::unix::fs::symlink("/etc/shadow", root.join("link")).unwrap();
    std::fs::write(root.join("TRANS.TBL"), "t").unwrap();
    files.insert("TRANS.TBL".into(), b"t".to_vec());
    assert_eq!(all(&made(folder.path(), &root, &["-R"])), files);
}

#[test]
fn a_file_beyond_what_a_record_can_say_lies_in_one_piece() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    let bytes = (4 << 30) + 5000;
    let large = std::fs::File::create(root.join("install.img")).unwrap();
    large.set_len(bytes).unwrap();
    std::fs::write(root.join("beside"), "beside").unwrap();
    // A stream into a file of holes: four gigabytes of zeros need no room.
    let out = folder.path().join("disc.iso");
    let mut xorriso = Command::new("xorriso")
        .args(["-as", "mkisofs", "-quiet", "-R", "-iso-level", "3", "-o", "-"])
        .arg(&root)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let made = Command::new("dd")
        .args(["bs=1M", "iflag=fullblock", "conv=sparse", "status=none"])
        .arg(format!("of={}", out.display()))
        .stdin(xorriso.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(made.success() && xorriso.wait().unwrap().success());
    let file = std::fs::File::open(&out).unwrap();
    let tree = Tree::read(&file, file.metadata().unwrap().len()).unwrap();
    assert_eq!(tree.get("install.img").unwrap().bytes, bytes);
    let beside = tree.get("beside").unwrap();
    let mut found = [0; 6];
    std::os::unix::fs::FileExt::read_exact_at(&file, &mut found, beside.offset).unwrap();
    assert_eq!((beside.bytes, &found), (6, b"beside"));
}

/// A disc of our own writer has no Rock Ridge.
fn own() -> Vec<u8> {
    let disc = Disc {
        efi: &[0x45; 5000],
        beside: Some(("rackbar.url", b"http://10.0.0.1")),
        behind: &[],
        least: iso::FAT16,
        serial: 7,
    };
    iso::bytes(&disc).unwrap()
}

#[test]
fn without_rock_ridge_names_are_the_disc_s_own_in_lower_case() {
    let files = all(&own());
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(names, ["efi/boot/bootx64.efi", "rackbar.url"]);
    assert_eq!(files["efi/boot/bootx64.efi"], [0x45; 5000]);
    let plain = disc(&sample(), &["--norock"]);
    assert_eq!(all(&plain)["images/pxeboot/initrd.img"], [0x49; 2048]);
}

#[test]
fn what_is_no_disc_cut_off_or_odd_is_refused_in_words() {
    let whole = disc(&sample(), &["-R"]);
    assert!(matches!(read(&[]), Err(DiscError::NoDisc)));
    assert!(matches!(read(&[0; 100_000]), Err(DiscError::NoDisc)));
    let last = read(&whole)
        .unwrap()
        .files()
        .map(|(_, place)| place.offset + place.bytes)
        .max();
    let cut = &whole[..usize::try_from(last.unwrap()).unwrap() - 1];
    let error = read(cut).unwrap_err().to_string();
    assert!(error.contains("it is cut off"), "{error}");
    // A folder that is its own child.
    let mut looped = whole.clone();
    let root = u32::from_le_bytes(looped[16 * 2048 + 158..][..4].try_into().unwrap());
    let at = root as usize * 2048;
    let first = (0..20).scan(at, |at, _| {
        let here = *at;
        *at += usize::from(whole[here]);
        Some(here)
    });
    let child = first.skip(2).find(|at| whole[*at + 25] & 2 != 0).unwrap();
    looped[child + 2..child + 6].copy_from_slice(&root.to_le_bytes());
    let error = read(&looped).unwrap_err().to_string();
    assert!(error.contains("twice, or in itself"), "{error}");
    let mut blocks = whole;
    blocks[16 * 2048 + 128] = 1;
    let error = read(&blocks).unwrap_err().to_string();
    assert!(error.contains("another size than 2048"), "{error}");
}

/// Nothing of a tree lies outside of its disc, and no name leads out of it.
fn sound(disc: &[u8]) {
    if let Ok(tree) = read(disc) {
        for (path, place) in tree.files() {
            assert!(place.offset + place.bytes <= disc.len() as u64, "{path}");
            assert!(path.split('/').all(|name| !matches!(name, "" | "." | "..")), "{path}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(12) })]

    #[test]
    fn whatever_tree_is_written_is_read(files in prop::collection::btree_map(
        "[a-zA-Z0-9_][a-zA-Z0-9+~^._-]{0,60}(/[a-zA-Z0-9+~^_-]{1,100}){0,4}x", "[a-z]{0,4}", 1..12,
    )) {
        // A path that is another's folder cannot be a file as well.
        let folder = |path: &str| files.keys().any(|other| other.starts_with(&format!("{path}/")));
        let files: Files = files.iter().filter(|(path, _)| !folder(path)).map(|(path, text)| (path.clone(), text.as_bytes().to_vec())).collect();
        prop_assert_eq!(all(&disc(&files, &["-R"])), files);
    }
}

#[test]
fn changed_bytes_never_lead_out_of_the_disc() {
    let (rock, plain) = (disc(&sample(), &["-R"]), own());
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(3000));
    // What matters lies in the descriptors and folders: at the front, but for the first 32 KiB.
    let changes = prop::collection::vec((0usize..90_000, any::<u8>()), 1..12);
    let case = |(changes, ours): (Vec<(usize, u8)>, bool)| {
        let mut disc = if ours { plain.clone() } else { rock.clone() };
        for (at, byte) in changes {
            if let Some(place) = disc.get_mut(32_768 + at) {
                *place = byte;
            }
        }
        sound(&disc);
        Ok(())
    };
    runner.run(&(changes, any::<bool>()), case).unwrap();
}
