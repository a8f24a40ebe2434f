//! The story of a data pack: recorded at one appliance by real apt, carried to another without any uplink, and there the
//! only source of an operating system and of packages. The real daemon, the real command line, real apt.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod apart;
#[path = "../../proxy/tests/common/mod.rs"]
mod common;

use std::path::Path;
use std::process::Command;

use apart::{Appliance, OURS};
use common::apt::{Apt, Repository, hex};
use common::{Origin, bytes};
use serde_json::Value;

const WORDS: &str = "correct horse battery";

fn config(upstream: &str, more: &str) -> String {
    format!(
        "version = 1\nname = \"home\"\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\n\
         address = \"{OURS}/24\"\ndhcp = \"off\"\nproxy = \"own\"\n[[proxy.mirror]]\nname = \"debian\"\n\
         upstream = [\"{upstream}\"]\n{more}"
    )
}

/// A disk that could boot, as far as anybody looks.
fn image() -> Vec<u8> {
    let mut disk = bytes(200_000 / 512 * 512, 5);
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk
}

fn curl(url: &str) -> (u16, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let body = folder.path().join("body");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "30", "--noproxy", "*", "-w", "%{http_code}", "-o"])
        .arg(&body)
        .arg(url);
    let output = curl
        .output()
        .expect("curl is missing; `cargo xtask setup test` installs it");
    let status = String::from_utf8(output.stdout).unwrap().parse().unwrap();
    (status, std::fs::read(body).unwrap_or_default())
}

fn json(appliance: &Appliance, arguments: &[&str]) -> Value {
    serde_json::from_str(&appliance.well(&[arguments, &["--json"]].concat())).unwrap()
}

fn mirror() -> String {
    format!("http://{OURS}:3128/mirror/debian")
}

/// Records what apt fetched, with an image, as the file of a pack: the upstream, the recording appliance's key, the package.
fn recorded(folder: &Path, file: &Path) -> (String, String, Vec<u8>) {
    // The origin is in the namespace, so the configuration that names it comes second.
    let without = config("http://127.0.0.1:9/debian", "").replace("proxy = \"own\"", "proxy = \"off\"");
    let home = Appliance::start(&without, "");
    let origin = Origin::start();
    let upstream = origin.url("/debian");
    let repository = Repository::put(&origin, folder);
    home.file("rackbar.toml", config(&upstream, ""));
    home.until("listening on 10.10.0.1:3128, online");
    home.well(&["cache", "mode", "recording"]);
    for name in ["one", "two"] {
        let apt = Apt::new(folder.join(name), &mirror(), None);
        assert!(apt.update_and_download() == repository.deb);
    }
    // What is served is pinned beside serving it, all of it: that there is no InRelease as much as the package.
    home.wait("all is pinned", || {
        let stored = json(&home, &["cache", "list"]);
        let stored = stored.as_array().unwrap();
        let named = |name: &str| stored.iter().any(|one| one["key"].as_str().unwrap().contains(name));
        named("InRelease") && named("pool/rackbar-probe") && stored.iter().all(|one| one["pinned"] == true)
    });
    let raw = home.file("tiny.img", image());
    home.well(&[
        "os",
        "add",
        &raw,
        "--name",
        "tiny",
        "--user",
        "debian",
        "--licence",
        "free",
    ]);
    let empty = home.refused(&["pack", "create", "kit"]);
    assert!(empty.contains("--from-cache"), "{empty}");
    let unknown = home.refused(&["pack", "create", "kit", "--image", "other"]);
    assert!(unknown.contains("os list"), "{unknown}");
    let file = file.display().to_string();
    let create = [
        "pack",
        "create",
        "kit",
        "--image",
        "tiny",
        "--from-cache",
        "--pinned",
        "--note",
        "for a test",
    ];
    let made = home.well(&[&create[..], &["--to", &file]].concat());
    assert!(made.contains("1 image, "), "{made}");
    assert!(home.refused(&create).contains("choose another name"));
    let whole = home.well(&["pack", "verify", "kit"]);
    assert!(whole.contains("is whole"), "{whole}");
    let stored = file_beside(&file, "stored.pack");
    home.well(&["cache", "export", &stored]);
    let key = json(&home, &["pack", "list"])["key"].as_str().unwrap().to_owned();
    let packs = json(&home, &["pack", "list"])["packs"].as_array().unwrap().len();
    assert_eq!(packs, 1, "what the cache had is in the file alone");
    let twice = home.refused(&["cache", "export", &file]);
    assert!(twice.contains("has a data pack \"kit\" already"), "{twice}");
    let words = home.file("pass", WORDS);
    let state = file_beside(&file, "state");
    let told = home.well(&["export", &state, "--passphrase-file", &words]);
    assert!(
        told.contains("1 image (") && told.contains("1 data pack (") && told.contains(" stored answers ("),
        "{told}"
    );
    std::fs::copy(home.path("run/admin-token"), file_beside(&file, "token")).unwrap();
    (upstream, key, repository.deb)
}

fn file_beside(file: &str, name: &str) -> String {
    Path::new(file).with_file_name(name).display().to_string()
}

/// What a pack brings is there: the image over boot HTTP, packages for apt, and a clear answer for what it has not.
fn serves(away: &Appliance, folder: &Path, deb: &[u8], name: &str) {
    let images = json(away, &["os", "list"]);
    assert!(images[0]["name"] == "tiny" && images[0]["pack"] == "kit", "{images}");
    let sha256 = images[0]["sha256"].as_str().unwrap();
    assert_eq!(sha256, hex(&image()));
    let (status, body) = curl(&format!("http://{OURS}/boot/v1/files/{sha256}/tiny.img"));
    assert!(status == 200 && body == image(), "{status}, {} bytes", body.len());
    let apt = Apt::new(folder.join(name), &mirror(), None);
    assert!(apt.update_and_download() == deb);
    let (status, body) = curl(&format!("{}/pool/other.deb", mirror()));
    let text = String::from_utf8_lossy(&body);
    assert!(
        status == 504 && text.contains("rackbar cache pin mirror:debian/pool/other.deb"),
        "{status} {text}"
    );
}

/// A saved state brings what the proxy had stored, its pins and the data packs, where there is no uplink.
fn state_serves(config: &str, file: &str, folder: &Path, deb: &[u8]) {
    let moved = Appliance::start(config, "");
    moved.until("listening on 10.10.0.1:3128, offline");
    assert_eq!(curl(&format!("{}/dists/stable/Release", mirror())).0, 504);
    let words = moved.file("pass", WORDS);
    let state = file_beside(file, "state");
    let taken = moved.well(&["import", &state, "--passphrase-file", &words]);
    assert!(
        taken.contains("1 data pack and ") && taken.contains(" stored contents of the proxy"),
        "{taken}"
    );
    moved.wait("it starts anew", || {
        let out = std::fs::read_to_string(moved.path("out")).unwrap();
        out.matches("rackbar: serving").count() == 2
    });
    std::fs::copy(file_beside(file, "token"), moved.path("run/admin-token")).unwrap();
    moved.until("listening on 10.10.0.1:3128, offline");
    // The image of the catalogue itself came too, so the pack's is not the one that counts.
    moved.wait("the pack is in use", || {
        json(&moved, &["pack", "list"])["packs"][0]["in_use"] == true
    });
    moved.well(&["pack", "remove", "kit"]);
    let apt = Apt::new(folder.join("moved"), &mirror(), None);
    assert!(apt.update_and_download() == deb);
    let stored = json(&moved, &["cache", "list"]);
    let stored = stored.as_array().unwrap();
    assert!(!stored.is_empty() && stored.iter().all(|one| one["pinned"] == true && one["pack"].is_null()));
    assert!(!moved.path("data/import").exists() && !moved.path("data/cache/leaving/0").exists());
}

#[test]
fn a_pack_recorded_by_apt_is_the_only_source_of_another_appliance_without_an_uplink() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kit.pack");
    let (upstream, key, deb) = recorded(folder.path(), &file);
    let file = file.display().to_string();

    let stick = folder.path().join("stick");
    std::fs::create_dir(&stick).unwrap();
    let offline = "[proxy]\nmode = \"offline\"\n";
    let untrusting = config(&upstream, "").replace("[[proxy.mirror]]", &format!("{offline}[[proxy.mirror]]"));
    state_serves(&untrusting, &file, folder.path(), &deb);
    let away = Appliance::start(&untrusting, &format!("--packs {}", stick.display()));
    away.until("listening on 10.10.0.1:3128, offline");
    let verified = away.well(&["pack", "verify", &file]);
    assert!(
        verified.contains("is data pack kit, whole") && verified.contains(&key),
        "{verified}"
    );

    // A stranger's pack is refused by the key that could be trusted, and nothing of it stays.
    let foreign = away.refused(&["pack", "import", &file]);
    assert!(foreign.contains(&key) && foreign.contains("[packs]"), "{foreign}");
    assert!(std::fs::read_dir(away.path("data/packs")).unwrap().next().is_none());
    away.file("rackbar.toml", format!("{untrusting}[packs]\ntrust = [\"{key}\"]\n"));
    away.wait("the key is trusted", || {
        away.well(&["pack", "list"]).contains("named in rackbar.toml")
    });
    let taken = away.well(&["pack", "import", &file]);
    assert!(taken.contains("in use"), "{taken}");
    serves(&away, folder.path(), &deb, "imported");
    let kept = away.refused(&["os", "remove", "tiny"]);
    assert!(kept.contains("data pack kit"), "{kept}");
    away.well(&["pack", "remove", "kit"]);
    assert_eq!(json(&away, &["os", "list"]).as_array().unwrap().len(), 0);
    assert_eq!(curl(&format!("{}/dists/stable/Release", mirror())).0, 504);

    // What the proxy had stored, saved and put in as such.
    let stored = file_beside(&file, "stored.pack");
    assert!(away.well(&["cache", "import", &stored]).contains("in use"));
    let apt = Apt::new(folder.path().join("stored"), &mirror(), None);
    assert!(apt.update_and_download() == deb);
    away.well(&["pack", "remove", "stored"]);

    // On a stick it needs no import; damaged, it is not used, and says why.
    let mut content = std::fs::read(&file).unwrap();
    std::fs::write(stick.join("kit.pack"), &content).unwrap();
    away.wait("the stick is seen", || {
        json(&away, &["pack", "list"])["packs"][0]["in_use"] == true
    });
    serves(&away, folder.path(), &deb, "stick");
    let elsewhere = away.refused(&["pack", "remove", "kit"]);
    assert!(elsewhere.contains("take it out there"), "{elsewhere}");
    std::fs::remove_file(stick.join("kit.pack")).unwrap();
    away.wait("the stick is gone", || {
        json(&away, &["os", "list"]).as_array().unwrap().is_empty()
    });
    content[200] ^= 1;
    std::fs::write(stick.join("kit.pack"), &content).unwrap();
    away.wait("it is refused", || {
        let pack = &json(&away, &["pack", "list"])["packs"][0];
        pack["in_use"] == false && pack["why_not"].as_str().unwrap().contains("signature")
    });
    let broken = folder.path().join("broken.pack");
    std::fs::write(&broken, &content[..content.len() - 4096]).unwrap();
    assert!(
        away.refused(&["pack", "verify", &broken.display().to_string()])
            .contains("cut off")
    );
    let events = away.well(&["events", "--limit", "100"]);
    assert!(
        events.contains("data pack kit") && events.contains("is no longer in use"),
        "{events}"
    );
}

/// An archive laid out like Debian's netboot.tar.
fn netboot(kernel: &[u8], initrd: &[u8]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let members = [
        ("debian-installer/amd64/linux", kernel),
        ("debian-installer/amd64/initrd.gz", initrd),
        ("version.info", b"Debian version:  12 (bookworm)\n"),
    ];
    for (path, content) in members {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content).unwrap();
    }
    archive.into_inner().unwrap()
}

#[test]
fn an_installer_is_booted_from_a_pack_of_another_appliance_and_not_when_a_bit_of_it_flipped() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("kit.pack").display().to_string();
    let stick = folder.path().join("stick");
    std::fs::create_dir(&stick).unwrap();
    let (kernel, initrd) = (bytes(70_000, 3), bytes(9_000, 4));
    let config = config("http://127.0.0.1:9/debian", "").replace("proxy = \"own\"", "proxy = \"off\"");
    let home = Appliance::start(&config, "");
    let archive = home.file("netboot.tar", netboot(&kernel, &initrd));
    home.well(&["os", "add", &archive, "--name", "debian-12-installer"]);
    home.well(&["pack", "create", "kit", "--image", "debian-12-installer", "--to", &file]);
    let key = json(&home, &["pack", "list"])["key"].as_str().unwrap().to_owned();
    drop(home);

    let trusting = format!("{config}[packs]\ntrust = [\"{key}\"]\n");
    let away = Appliance::start(&trusting, &format!("--packs {}", stick.display()));
    away.well(&["pack", "import", &file]);
    let images = json(&away, &["os", "list"]);
    assert!(
        images[0]["name"] == "debian-12-installer" && images[0]["pack"] == "kit",
        "{images}"
    );
    assert_eq!(images[0]["installer"]["release"], "bookworm", "{images}");
    let url = |content: &[u8], name: &str| format!("http://{OURS}/boot/v1/files/{}/{name}", hex(content));
    for (content, name) in [(&kernel, "linux"), (&initrd, "initrd.gz")] {
        let (status, body) = curl(&url(content, name));
        assert!(
            status == 200 && body == *content,
            "{name}: {status}, {} bytes",
            body.len()
        );
    }
    away.well(&["pack", "remove", "kit"]);
    assert_eq!(curl(&url(&kernel, "linux")).0, 404);

    // One bit of the kernel: the pack is signed and its index good, and the installer is left out.
    let mut content = std::fs::read(&file).unwrap();
    let at = content.windows(64).position(|window| window == &kernel[..64]).unwrap();
    content[at + 7] ^= 1;
    std::fs::write(stick.join("kit.pack"), &content).unwrap();
    away.wait("the damage is told", || {
        away.well(&["events", "--limit", "100"])
            .contains("debian-12-installer in")
    });
    let told = away.well(&["events", "--limit", "100"]);
    assert!(told.contains("is not used: it is damaged"), "{told}");
    assert!(json(&away, &["os", "list"]).as_array().unwrap().is_empty());
    for (content, name) in [(&kernel, "linux"), (&initrd, "initrd.gz")] {
        assert_eq!(curl(&url(content, name)).0, 404, "{name}");
    }
    let flipped = folder.path().join("flipped.pack");
    std::fs::write(&flipped, &content).unwrap();
    away.refused(&["pack", "import", &flipped.display().to_string()]);
}
