//! `rackbar media check` over releases that minisign itself signed.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// A folder with two media, their list and its signature, made by sha256sum and minisign, and the key's file elsewhere.
struct Release {
    folder: tempfile::TempDir,
    keys: tempfile::TempDir,
}

impl Release {
    fn new() -> Self {
        let (folder, keys) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, content) in [("rackbar.img", "a disk"), ("rackbar.iso", "a disc")] {
            fs::write(folder.path().join(name), content).unwrap();
        }
        ran("minisign", &["-G", "-W", "-p", "pub", "-s", "key"], keys.path());
        let new = Self { folder, keys };
        new.list();
        new.sign();
        new
    }

    /// Writes the list anew.
    fn list(&self) {
        let sums = ran("sha256sum", &["rackbar.img", "rackbar.iso"], self.folder.path());
        fs::write(self.folder.path().join("SHA256SUMS"), sums.stdout).unwrap();
    }

    fn sign(&self) {
        let key = self.keys.path().join("key");
        let key = key.to_str().unwrap();
        let said = ["-S", "-W", "-s", key, "-m", "SHA256SUMS", "-t", "Rackbar 1.2.3"];
        ran("minisign", &said, self.folder.path());
    }

    /// Exit code, and both outputs one behind the other.
    fn check(&self, path: &str, key: &str) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_rackbar"))
            .args(["media", "check", path, "--key", key])
            .current_dir(self.folder.path())
            .output()
            .unwrap();
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    fn key(&self) -> String {
        self.keys.path().join("pub").to_str().unwrap().to_owned()
    }

    /// It is refused, with these words.
    fn refused(&self, path: &str, words: &[&str]) {
        let (code, text) = self.check(path, &self.key());
        assert_eq!(code, Some(1), "{text}");
        for word in words {
            assert!(text.contains(word), "no {word:?} in: {text}");
        }
    }
}

fn ran(program: &str, arguments: &[&str], folder: &Path) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program}: {said}");
    output
}

#[test]
fn a_downloaded_release_is_checked_by_its_makers_key_and_what_differs_is_named() {
    let release = Release::new();
    let line = fs::read_to_string(release.key())
        .unwrap()
        .lines()
        .nth(1)
        .unwrap()
        .to_owned();
    for (path, key) in [(".", release.key()), (".", line.clone()), ("rackbar.iso", line.clone())] {
        let (code, text) = release.check(path, &key);
        assert_eq!(code, Some(0), "{path}: {text}");
        assert!(
            text.contains("rackbar.iso: ok") && text.contains("Rackbar 1.2.3"),
            "{text}"
        );
        assert_eq!(text.contains("rackbar.img"), path == ".", "{text}");
    }
    // Changed, added and missing, each by its name; the one that is whole may be used alone.
    let file = |name: &str| release.folder.path().join(name);
    fs::write(file("rackbar.img"), "a disK").unwrap();
    fs::write(file("rackbar.exe"), "").unwrap();
    release.refused(
        ".",
        &[
            "rackbar.img differs",
            "\"rackbar.exe\" is not on the list",
            "rackbar.iso: ok",
        ],
    );
    release.refused("rackbar.img", &["rackbar.img differs"]);
    release.refused("rackbar.exe", &["SHA256SUMS says nothing of rackbar.exe"]);
    assert_eq!(release.check("rackbar.iso", &line).0, Some(0));
    fs::remove_file(file("rackbar.iso")).unwrap();
    release.refused(".", &["rackbar.iso is missing"]);
}

#[test]
fn a_release_whose_list_was_changed_or_is_of_somebody_else_is_not_believed() {
    let release = Release::new();
    let file = |name: &str| release.folder.path().join(name);
    fs::write(file("rackbar.img"), "a disK").unwrap();
    release.list();
    release.refused(
        ".",
        &[
            "SHA256SUMS.minisig",
            "the signature does not fit the file",
            "get them anew",
        ],
    );
    let stranger = Release::new();
    let (code, text) = stranger.check(".", &release.key());
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("it was signed with key"), "{text}");
    // The list that is signed is read strictly.
    fs::write(file("SHA256SUMS"), "no list\n").unwrap();
    release.sign();
    release.refused(".", &["SHA256SUMS, line 1"]);
    fs::remove_file(file("SHA256SUMS.minisig")).unwrap();
    release.refused(".", &["SHA256SUMS.minisig", "download them too"]);
    let secret = release.keys.path().join("key");
    let (_, text) = release.check(".", secret.to_str().unwrap());
    assert!(text.contains("this is a secret key"), "{text}");
}
