//! A repository and a machine's apt.

use std::path::{Path, PathBuf};
use std::process::Command;

use rackbar_model::Digest;

use super::{Doc, Origin, bytes, doc};

pub fn hex(bytes: &[u8]) -> String {
    Digest(rackbar_trust::sha256(bytes)).to_string()
}

/// A package made by dpkg-deb, and a repository around it.
pub struct Repository {
    pub deb: Vec<u8>,
}

impl Repository {
    pub fn put(origin: &Origin, folder: &Path) -> Self {
        let root = folder.join("package");
        std::fs::create_dir_all(root.join("DEBIAN")).unwrap();
        let control =
            "Package: rackbar-probe\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n";
        std::fs::write(root.join("DEBIAN/control"), control).unwrap();
        std::fs::write(root.join("payload"), bytes(400_000, 11)).unwrap();
        let deb = folder.join("probe.deb");
        let made = Command::new("dpkg-deb")
            .args(["--root-owner-group", "-Znone", "-b"])
            .arg(&root)
            .arg(&deb)
            .output();
        assert!(made.unwrap().status.success());
        let deb = std::fs::read(deb).unwrap();
        let packages = format!(
            "{control}Filename: pool/rackbar-probe_1.0_all.deb\nSize: {}\nSHA256: {}\n\n",
            deb.len(),
            hex(&deb)
        );
        let release = format!(
            "Origin: x\nSuite: stable\nCodename: stable\nDate: Sat, 28 Nov 2026 00:00:00 UTC\nArchitectures: amd64 all\n\
             Components: main\nSHA256:\n {} {} main/binary-amd64/Packages\n",
            hex(packages.as_bytes()),
            packages.len()
        );
        let plain = |body: Vec<u8>| Doc {
            body,
            headers: vec![("ETag".into(), "\"1\"".into())],
            ..Doc::default()
        };
        origin.put("/debian/dists/stable/Release", plain(release.into_bytes()));
        origin.put(
            "/debian/dists/stable/main/binary-amd64/Packages",
            plain(packages.into_bytes()),
        );
        origin.put("/debian/pool/rackbar-probe_1.0_all.deb", doc(deb.clone()));
        Self { deb }
    }
}

/// A machine's apt, in a folder of its own.
pub struct Apt {
    pub folder: PathBuf,
    pub proxy: Option<String>,
}

impl Apt {
    pub fn new(folder: PathBuf, source: &str, proxy: Option<String>) -> Self {
        for name in ["state/lists/partial", "cache/archives/partial", "etc", "got"] {
            std::fs::create_dir_all(folder.join(name)).unwrap();
        }
        std::fs::write(
            folder.join("etc/sources.list"),
            format!("deb [trusted=yes] {source} stable main\n"),
        )
        .unwrap();
        std::fs::write(folder.join("state/status"), "").unwrap();
        Self { folder, proxy }
    }

    pub fn run(&self, arguments: &[&str]) -> (bool, String) {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let mut options = vec![
            format!("Dir::Etc::sourcelist={}", at("etc/sources.list")),
            "Dir::Etc::sourceparts=-".into(),
            format!("Dir::State={}", at("state")),
            format!("Dir::State::status={}", at("state/status")),
            format!("Dir::Cache={}", at("cache")),
            "APT::Architecture=amd64".into(),
            "APT::Architectures::=amd64".into(),
            "APT::Sandbox::User=root".into(),
            "Acquire::Languages=none".into(),
            "Acquire::Retries=0".into(),
        ];
        options.extend(self.proxy.iter().map(|proxy| format!("Acquire::http::Proxy={proxy}")));
        let mut apt = Command::new("apt-get");
        options.iter().for_each(|option| {
            apt.args(["-o", option]);
        });
        apt.args(arguments).current_dir(self.folder.join("got"));
        [
            "http_proxy",
            "https_proxy",
            "no_proxy",
            "HTTP_PROXY",
            "NO_PROXY",
            "all_proxy",
        ]
        .iter()
        .for_each(|name| {
            apt.env_remove(name);
        });
        let output = apt.output().expect("apt-get is missing");
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&text).into_owned())
    }

    pub fn update_and_download(&self) -> Vec<u8> {
        let (good, text) = self.run(&["update"]);
        assert!(good && !text.contains("W:") && !text.contains("E:"), "{text}");
        let (good, text) = self.run(&["download", "rackbar-probe"]);
        assert!(good, "{text}");
        std::fs::read(self.folder.join("got/rackbar-probe_1.0_all.deb")).unwrap()
    }
}
