//! Signed media, checked by minisign and sha256sum.
#![allow(clippy::unwrap_used, reason = "a test that cannot set up has failed")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Output};

use rackbar_image::digest::sha256;
use rackbar_image::sbom;
use rackbar_image::sign::{self, ReleaseKey};
use tempfile::TempDir;

/// A folder as `cargo xtask image` leaves it, with less in it.
fn media() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let bill = sbom::cyclonedx("1.2.3", &[]);
    let mut sums = String::new();
    for (name, content) in [("rackbar.img", "a disk"), ("rackbar.cdx.json", &bill)] {
        fs::write(folder.path().join(name), content).unwrap();
        sums.push_str(&format!("{}  {name}\n", sha256(content.as_bytes())));
    }
    fs::write(folder.path().join("SHA256SUMS"), sums).unwrap();
    folder
}

fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
    Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .output()
        .unwrap()
}

fn succeeds(folder: &Path, program: &str, arguments: &[&str]) -> bool {
    run(folder, program, arguments).status.success()
}

/// minisign checks by the key's line, as a person has it from a page.
fn minisign(folder: &Path, key: &str) -> bool {
    succeeds(folder, "minisign", &["-Vm", "SHA256SUMS", "-P", key])
}

#[test]
fn minisign_and_sha256sum_check_signed_media_and_refuse_a_flipped_bit() {
    let (folder, keys) = (media(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let key = ReleaseKey::make(&keys.path().join("key")).unwrap();
    assert_eq!(sign::folder(folder, &key).unwrap(), "Rackbar 1.2.3");
    let public = key.public().to_string();
    assert!(minisign(folder, &public) && succeeds(folder, "sha256sum", &["-c", "SHA256SUMS"]));
    assert!(succeeds(
        folder,
        "minisign",
        &["-Vm", "SHA256SUMS", "-p", "rackbar-release.pub"]
    ));
    let said = run(folder, "minisign", &["-QVm", "SHA256SUMS", "-P", &public]).stdout;
    assert_eq!(String::from_utf8_lossy(&said).trim(), "Rackbar 1.2.3");

    for name in ["SHA256SUMS", "SHA256SUMS.minisig"] {
        let good = fs::read(folder.join(name)).unwrap();
        let mut flipped = good.clone();
        // In a digest, or in the signature below its comment.
        let at = if name == "SHA256SUMS" { 5 } else { 80 };
        flipped[at] ^= 1;
        fs::write(folder.join(name), flipped).unwrap();
        assert!(!minisign(folder, &public), "{name}");
        fs::write(folder.join(name), good).unwrap();
    }
    assert!(minisign(folder, &public));
    fs::write(folder.join("rackbar.img"), "a disK").unwrap();
    assert!(!succeeds(folder, "sha256sum", &["-c", "SHA256SUMS"]));
}

#[test]
fn the_same_media_and_key_give_the_same_signature() {
    let (one, two, keys) = (media(), media(), tempfile::tempdir().unwrap());
    let path = keys.path().join("key");
    sign::folder(one.path(), &ReleaseKey::make(&path).unwrap()).unwrap();
    sign::folder(two.path(), &ReleaseKey::read(&path).unwrap()).unwrap();
    for name in ["SHA256SUMS.minisig", "rackbar-release.pub"] {
        let [one, two] = [&one, &two].map(|folder| fs::read(folder.path().join(name)).unwrap());
        assert_eq!(one, two, "{name}");
    }
    // Signed media are signed again without a word.
    sign::folder(one.path(), &ReleaseKey::read(&path).unwrap()).unwrap();
}

#[test]
fn media_that_are_not_what_their_list_says_are_not_signed() {
    let (folder, keys) = (media(), tempfile::tempdir().unwrap());
    let folder = folder.path();
    let key = ReleaseKey::make(&keys.path().join("key")).unwrap();
    fs::write(folder.join("rackbar.img"), "a disK").unwrap();
    fs::write(folder.join("notes.txt"), "").unwrap();
    let refused = format!("{:#}", sign::folder(folder, &key).unwrap_err());
    for word in [
        "rackbar.img differs",
        "\"notes.txt\" is not on the list",
        "is not signed",
    ] {
        assert!(refused.contains(word), "{refused}");
    }
    fs::remove_file(folder.join("notes.txt")).unwrap();
    fs::remove_file(folder.join("rackbar.img")).unwrap();
    let refused = format!("{:#}", sign::folder(folder, &key).unwrap_err());
    assert!(refused.contains("rackbar.img is missing"), "{refused}");
    assert!(!folder.join("SHA256SUMS.minisig").exists() && !folder.join("rackbar-release.pub").exists());
}

#[test]
fn a_key_is_its_owners_alone_and_goes_both_ways_with_minisign() {
    let (folder, keys) = (media(), tempfile::tempdir().unwrap());
    let (folder, path) = (folder.path(), keys.path().join("key"));
    let ours = ReleaseKey::make(&path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(ReleaseKey::make(&path).is_err(), "a key was replaced");
    assert_eq!(ReleaseKey::read(&path).unwrap().public(), ours.public());
    assert!(!format!("{ours:?}").contains(&fs::read_to_string(&path).unwrap()[80..]));

    // minisign signs with ours.
    assert!(succeeds(
        folder,
        "minisign",
        &["-S", "-W", "-s", path.to_str().unwrap(), "-m", "SHA256SUMS"]
    ));
    assert!(minisign(folder, &ours.public().to_string()));
    // And we with one of minisign's, once nobody else may read it.
    assert!(succeeds(
        keys.path(),
        "minisign",
        &["-G", "-W", "-p", "pub", "-s", "theirs"]
    ));
    let theirs = keys.path().join("theirs");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o644)).unwrap();
    let refused = ReleaseKey::read(&theirs).unwrap_err().to_string();
    assert!(refused.contains("chmod 600"), "{refused}");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o600)).unwrap();
    sign::folder(folder, &ReleaseKey::read(&theirs).unwrap()).unwrap();
    let public = keys.path().join("pub");
    assert!(succeeds(
        folder,
        "minisign",
        &["-Vm", "SHA256SUMS", "-p", public.to_str().unwrap()]
    ));
}

#[test]
fn a_key_with_a_passphrase_or_damage_is_refused_with_what_to_do() {
    let keys = tempfile::tempdir().unwrap();
    let path = keys.path().join("key");
    ReleaseKey::make(&path).unwrap();
    let text = fs::read_to_string(&path).unwrap();
    let (comment, line) = text.trim_end().split_once('\n').unwrap();
    let refused = |line: &str| {
        fs::write(&path, format!("{comment}\n{line}\n")).unwrap();
        ReleaseKey::read(&path).unwrap_err().to_string()
    };
    // The kind of derivation stands in the third and fourth octet: `Sc` is scrypt.
    let locked = format!("RWRTY0Iy{}", &line[8..]);
    assert!(refused(&locked).contains("minisign -S -s"), "{}", refused(&locked));
    assert!(refused(&line[4..]).contains("--make-key"));
    let (head, tail) = line.split_at(100);
    let other = if tail.starts_with('A') { 'B' } else { 'A' };
    assert!(refused(&format!("{head}{other}{}", &tail[1..])).contains("damaged"));
}
