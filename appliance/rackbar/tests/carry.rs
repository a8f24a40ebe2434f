//! The whole state as one file with programs and images, put into a second appliance: the real daemons and command line.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;

use std::path::Path;
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

#[test]
fn programs_and_images_travel_with_the_state_and_are_used_where_it_is_put_in() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let first = Appliance::start(&at("first"));
    let words = first.file("pass", WORDS);
    let tool = program(folder.path());
    let tiny = first.file("tiny.raw", disk(IMAGE, 1));
    first.ask(&["program", "add", &tool]).well();
    first
        .ask(&["os", "add", &tiny, "--name", "tiny", "--user", "anna"])
        .well();
    first.ask(&["os", "pin", "tiny"]).well();
    let saved = at("saved").display().to_string();
    let before = first.memory();
    let said = first.ask(&["export", &saved, "--passphrase-file", &words]);
    assert!(
        said.err.contains("1 programs") && said.err.contains("1 images (168 MB)"),
        "{said:?}"
    );
    said.well();
    assert!(first.memory() < before + GROWTH, "{} from {before}", first.memory());
    let whole = std::fs::read(&saved).unwrap();
    assert!(whole.len() > IMAGE);
    let small = at("small").display().to_string();
    let said = first.ask(&["export", &small, "--passphrase-file", &words, "--without-images"]);
    assert!(said.err.contains("are left out"), "{said:?}");
    said.well();
    assert!(std::fs::metadata(&small).unwrap().len() < IMAGE as u64 / 4);

    let mut second = Appliance::start(&at("second"));
    let (own, token) = (second.fingerprint().to_owned(), second.run_folder().join("admin-token"));
    let other = second.file("other.raw", disk(1 << 20, 2));
    for name in ["tiny", "other"] {
        second.ask(&["os", "add", &other, "--name", name]).well();
    }
    let was = json(&second, &token, &["os", "list"]);
    // Damaged in the image and in the program, cut off, too large, and no state at all: each changes nothing.
    let tried = second.file("tried", "");
    let mut last = whole.clone();
    let end = last.len() - (1 << 20);
    last[end] ^= 1;
    let mut middle = whole.clone();
    let elf = std::fs::read(&tool).unwrap();
    let start = middle.windows(64).position(|part| part == &elf[..64]).unwrap();
    middle[start + 100] ^= 1;
    for (file, code, complaint) in [
        (&last[..], 1, "damaged: its digest does not fit"),
        (&middle, 1, "damaged: its digest does not fit"),
        (&whole[..IMAGE / 2], 1, "ends too early"),
        (&too_large(), 6, "can be used here"),
        (b"no state at all, but a letter", 1, "no export of Rackbar"),
    ] {
        std::fs::write(&tried, file).unwrap();
        let said = second
            .ask(&["import", &tried, "--passphrase-file", &words])
            .failed(code);
        assert!(said.contains(complaint), "{complaint}: {said}");
        assert_eq!(json(&second, &token, &["os", "list"]), was, "{complaint}");
        assert_eq!(
            json(&second, &token, &["program", "list"]),
            serde_json::json!([]),
            "{complaint}"
        );
        assert!(!at("second/data/import").exists(), "{complaint}");
    }
    assert_eq!(second.fingerprint(), own);

    let before = second.memory();
    let said = second.ask(&["import", &saved, "--passphrase-file", &words]);
    assert!(said.err.contains("with 1 program and 1 image"), "{said:?}");
    said.well();
    assert!(second.memory() < before + GROWTH, "{} from {before}", second.memory());
    second.await_service();
    assert_eq!(second.fingerprint(), first.fingerprint());
    let token = first.run_folder().join("admin-token");
    let (list, there) = (
        json(&second, &token, &["os", "list"]),
        json(&first, &token, &["os", "list"]),
    );
    assert_eq!(names(&list), ["other", "tiny"]);
    assert_eq!(list[1], there[0], "all that is kept of it came along");
    assert!(list[1]["pinned"].is_string() && list[1]["user"] == "anna", "{list}");
    assert_eq!(
        json(&second, &token, &["program", "list"]),
        json(&first, &token, &["program", "list"])
    );
    let sha256 = json(&second, &token, &["program", "list"])[0]["sha256"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        std::fs::read(at("second/data/programs").join(format!("{sha256}.program"))).unwrap(),
        elf
    );
    // Put to use: a pack is made of the image, which is read through for that.
    let pack = at("tiny.pack").display().to_string();
    second
        .by(
            &token,
            &["pack", "create", "moved", "--image", "tiny", "--to", &pack],
            "",
        )
        .well();
    rackbar(folder.path(), &["pack", "verify", &pack], "").well();
    assert!(!at("second/data/import").exists());

    // A state without images leaves those alone that are there.
    second
        .by(&token, &["import", &small, "--passphrase-file", &words], "")
        .well();
    second.await_service();
    assert_eq!(names(&json(&second, &token, &["os", "list"])), ["other", "tiny"]);
}
