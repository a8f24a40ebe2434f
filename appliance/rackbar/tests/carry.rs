//! The whole state as one file with programs and images, put into a second appliance: the real daemons and command line.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Appliance, rackbar};
use rackbar_model::{Digest, Timestamp};
use rackbar_store::{Attached, Options, Outgoing, Store};
use serde_json::Value;

const WORDS: &str = "correct horse battery";

/// Large enough that one who held it in memory would be seen.
const IMAGE: usize = 160 << 20;

/// More than the appliance may grow by while that passes through it.
const GROWTH: u64 = 64 << 20;

fn program(folder: &Path) -> String {
    let (source, made) = (folder.join("tool.c"), folder.join("tool"));
    std::fs::write(&source, "int main(void) { return 0; }\n").unwrap();
    let ran = Command::new("cc")
        .args(["-static", "-o"])
        .arg(&made)
        .arg(&source)
        .output();
    let ran = ran.expect("cc; `cargo xtask setup` installs it");
    assert!(ran.status.success(), "{ran:?}");
    made.display().to_string()
}

/// What a firmware could boot as far as the catalogue can tell, with a content of its own.
fn disk(bytes: usize, seed: u64) -> Vec<u8> {
    let mut state = seed;
    let words = (0..bytes / 8).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()
    });
    let mut disk: Vec<u8> = words.collect();
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    disk
}

fn json(appliance: &Appliance, token: &Path, what: &[&str]) -> Value {
    let arguments = [what, &["--json"]].concat();
    serde_json::from_str(&appliance.by(token, &arguments, "").well()).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect()
}

/// A file that is whole up to an image that nobody has room for.
fn too_large() -> Vec<u8> {
    let store = Store::in_memory(Options::default()).unwrap();
    let file = Attached {
        name: "images/vast.image".into(),
        bytes: 1 << 60,
        sha256: Digest([1; 32]),
    };
    let content = Box::new(std::io::empty());
    let mut out = Vec::new();
    let cut = store.export(&mut out, WORDS, "0.1.0", Timestamp(7), vec![Outgoing { file, content }]);
    assert!(cut.is_err(), "there is no such image");
    out
}

/// Two appliances, and what the first one saved.
struct Move {
    first: Appliance,
    second: Appliance,
    words: String,
    tool: String,
    // Behind the daemons, which it outlives so.
    folder: tempfile::TempDir,
}

impl Move {
    /// The first has a program and a pinned image; the second another image of that name, and one of its own.
    fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let first = Appliance::start(&folder.path().join("first"));
        let (words, tool) = (first.file("pass", WORDS), program(folder.path()));
        let tiny = first.file("tiny.raw", disk(IMAGE, 1));
        first.ask(&["program", "add", &tool]).well();
        first
            .ask(&["os", "add", &tiny, "--name", "tiny", "--user", "anna"])
            .well();
        first.ask(&["os", "pin", "tiny"]).well();
        let second = Appliance::start(&folder.path().join("second"));
        let other = second.file("other.raw", disk(1 << 20, 2));
        for name in ["tiny", "other"] {
            second.ask(&["os", "add", &other, "--name", name]).well();
        }
        Self {
            folder,
            first,
            second,
            words,
            tool,
        }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Saves the first one's state as this file; gives what was said before.
    fn save(&self, name: &str, more: &[&str]) -> (String, String) {
        let file = self.at(name).display().to_string();
        let arguments = [&["export", &file, "--passphrase-file", &self.words], more].concat();
        let said = self.first.ask(&arguments);
        let words = said.err.clone();
        said.well();
        (file, words)
    }

    /// Puts a file into the second one.
    fn put(&self, file: &str, token: &Path) -> common::Said {
        self.second
            .by(token, &["import", file, "--passphrase-file", &self.words], "")
    }

    fn lists(&self, token: &Path) -> [Value; 2] {
        [["os", "list"], ["program", "list"]].map(|what| json(&self.second, token, &what))
    }
}

#[test]
fn programs_and_images_travel_with_the_state_and_are_used_where_it_is_put_in() {
    let mut both = Move::begin();
    let before = both.first.memory();
    let (saved, said) = both.save("saved", &[]);
    assert!(
        said.contains("1 program (") && said.contains("1 image (168 MB)"),
        "{said}"
    );
    let grown = both.first.memory().saturating_sub(before);
    assert!(grown < GROWTH, "{grown}");
    assert!(std::fs::metadata(&saved).unwrap().len() > IMAGE as u64);
    let (small, said) = both.save("small", &["--without-images"]);
    assert!(said.contains("left out: 1 image (168 MB), 0 data packs"), "{said}");
    assert!(std::fs::metadata(&small).unwrap().len() < IMAGE as u64 / 4);

    let (before, own) = (both.second.memory(), both.second.run_folder().join("admin-token"));
    let said = both.put(&saved, &own);
    assert!(
        said.err
            .contains("with 1 program, 1 image, 0 data packs and 0 stored contents"),
        "{said:?}"
    );
    said.well();
    let grown = both.second.memory().saturating_sub(before);
    assert!(grown < GROWTH, "{grown}");
    both.second.await_service();
    assert_eq!(both.second.fingerprint(), both.first.fingerprint());
    let token = both.first.run_folder().join("admin-token");
    let [images, programs] = both.lists(&token);
    assert_eq!(names(&images), ["other", "tiny"]);
    let there = json(&both.first, &token, &["os", "list"]);
    assert_eq!(images[1], there[0], "all that is kept of it came along");
    assert!(
        images[1]["pinned"].is_string() && images[1]["user"] == "anna",
        "{images}"
    );
    assert_eq!(programs, json(&both.first, &token, &["program", "list"]));
    let content = format!(
        "second/data/programs/{}.program",
        programs[0]["sha256"].as_str().unwrap()
    );
    let elf = std::fs::read(&both.tool).unwrap();
    assert_eq!(std::fs::read(both.at(&content)).unwrap(), elf);
    // Put to use: a pack is made of the image, which is read through for that.
    let pack = both.at("tiny.pack").display().to_string();
    let making = ["pack", "create", "moved", "--image", "tiny", "--to", &pack];
    both.second.by(&token, &making, "").well();
    rackbar(both.folder.path(), &["pack", "verify", &pack], "").well();
    assert!(!both.at("second/data/import").exists());

    // A state without images leaves those alone that are there.
    both.put(&small, &token).well();
    both.second.await_service();
    assert_eq!(both.lists(&token)[0], images);
}

#[test]
fn a_state_that_is_damaged_cut_or_has_no_room_changes_nothing_here() {
    let both = Move::begin();
    let (saved, _) = both.save("saved", &[]);
    let (whole, elf) = (std::fs::read(&saved).unwrap(), std::fs::read(&both.tool).unwrap());
    let (own, was) = (both.second.fingerprint(), both.second.run_folder().join("admin-token"));
    let before = both.lists(&was);
    let flipped = |at: usize| {
        let mut file = whole.clone();
        file[at] ^= 1;
        file
    };
    let program = whole.windows(64).position(|part| part == &elf[..64]).unwrap();
    let tried = both.at("tried").display().to_string();
    for (file, code, complaint) in [
        (flipped(whole.len() - (1 << 20)), 1, "damaged: its digest does not fit"),
        (flipped(program + 100), 1, "damaged: its digest does not fit"),
        (whole[..IMAGE / 2].to_vec(), 1, "ends too early"),
        (too_large(), 6, "can be used here"),
        (b"no state at all, but a letter".to_vec(), 1, "no export of Rackbar"),
    ] {
        std::fs::write(&tried, file).unwrap();
        let said = both.put(&tried, &was).failed(code);
        assert!(said.contains(complaint), "{complaint}: {said}");
        assert_eq!(both.lists(&was), before, "{complaint}");
        assert!(!both.at("second/data/import").exists(), "{complaint}");
    }
    assert_eq!(both.second.fingerprint(), own);
    assert!(!both.at("second/data/rackbar.before-import").exists());
}
