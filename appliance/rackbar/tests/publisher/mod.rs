//! A publisher of Debian packages: an origin on loopback whose lists the real gpg signs.
#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::Write as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use super::common::apt::hex;
use super::common::{Doc, Origin, bytes};
use super::gnupg::Gpg;

pub const DAY: u64 = 86_400;
pub const LIST: &str = "main/binary-amd64/Packages.gz";

pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// As a Release writes it.
pub fn date(at: u64) -> String {
    let mut said = Command::new("date");
    said.args(["-u", "-d", &format!("@{at}"), "+%a, %d %b %Y %H:%M:%S UTC"])
        .env("LC_ALL", "C");
    let said = String::from_utf8(said.output().unwrap().stdout).unwrap();
    said.trim_end().to_owned()
}

/// A package made by dpkg-deb: its control text and its bytes.
pub fn package(folder: &Path, name: &str, version: &str) -> (String, Vec<u8>) {
    let deb = folder.join(format!("{name}-{version}.deb"));
    let root = folder.join(format!("{name}-{version}"));
    std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    );
    std::fs::write(root.join("DEBIAN/control"), &control).unwrap();
    // Two packages with one file of the same path could not be installed together.
    std::fs::write(
        root.join(format!("payload-of-{name}")),
        bytes(100_000, version.len() as u64 + 11),
    )
    .unwrap();
    // A version is made once: made again it would have other times in it.
    if deb.exists() {
        return (control, std::fs::read(deb).unwrap());
    }
    let made = Command::new("dpkg-deb")
        .args(["--root-owner-group", "-Znone", "-b"])
        .arg(&root)
        .arg(&deb)
        .output();
    assert!(made.unwrap().status.success());
    (control, std::fs::read(deb).unwrap())
}

/// A publisher with a key that the site file names, and another.
pub struct Publisher {
    pub gpg: Gpg,
    pub origin: Origin,
    pub folder: tempfile::TempDir,
    /// When it published last.
    pub at: u64,
}

impl Publisher {
    pub fn new() -> Self {
        let (gpg, at) = (Gpg::new(), now() - 30 * DAY);
        gpg.key(at - DAY, "publisher", "ed25519", "sign", "never", &[]);
        gpg.key(at - DAY, "stranger", "ed25519", "sign", "never", &[]);
        let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
        Self {
            gpg,
            origin,
            folder,
            at,
        }
    }

    pub fn keys(&self) -> String {
        String::from_utf8(self.gpg.export(self.at, "publisher")).unwrap()
    }

    pub fn put(&self, path: &str, body: impl Into<Vec<u8>>) {
        let body = body.into();
        let doc = Doc {
            headers: vec![("ETag".into(), format!("\"{}\"", hex(&body)))],
            body,
            ..Doc::default()
        };
        self.origin.put(&format!("/debian/{path}"), doc);
    }

    pub fn take_away(&self, path: &str) {
        self.origin.docs.lock().unwrap().remove(&format!("/debian/{path}"));
    }

    /// Publishes these packages, and no others, a day later than before; gives the signed list.
    pub fn publish(&mut self, key: &str, packages: &[(&str, &str)]) -> Vec<u8> {
        self.at += DAY;
        let mut list = String::new();
        for (name, version) in packages {
            let (control, deb) = package(self.folder.path(), name, version);
            let path = format!("pool/{name}_{version}_all.deb");
            list.push_str(&format!(
                "{control}Filename: {path}\nSize: {}\nSHA256: {}\n\n",
                deb.len(),
                hex(&deb)
            ));
            self.put(&path, deb);
        }
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(list.as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        // The plain list is named and not there, as in most archives.
        let release = format!(
            "Origin: x\nSuite: stable\nCodename: stable\nDate: {}\nArchitectures: amd64 all\nComponents: main\n\
             Acquire-By-Hash: yes\nSHA256:\n {} {} {LIST}\n {} {} main/binary-amd64/Packages\n",
            date(self.at),
            hex(&packed),
            packed.len(),
            hex(list.as_bytes()),
            list.len()
        );
        let signed = self.gpg.clearsign(self.at, &[key], &[], &release);
        self.put(&format!("dists/stable/{LIST}"), packed.clone());
        let hashed = format!("dists/stable/main/binary-amd64/by-hash/SHA256/{}", hex(&packed));
        self.put(&hashed, packed);
        self.put("dists/stable/InRelease", signed.clone());
        signed
    }
}
