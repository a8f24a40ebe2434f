//! A publisher of RPM packages: an origin on loopback with what the real rpmbuild, rpmsign, createrepo_c and gpg make; and the
//! real dnf and zypper of machines.
#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::path::{Path, PathBuf};
use std::process::Command;

use super::common::apt::hex;
use super::common::{Doc, Origin, bytes};
use super::gnupg::Gpg;
use super::publisher::{DAY, now};

/// Where the publisher's folder lies on the origin.
pub const AT: &str = "/rpm";

fn ran(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}; `cargo xtask setup test` installs what the tests need"));
    let text = [output.stdout.as_slice(), &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert!(output.status.success(), "{command:?}: {text}");
    text
}

/// A publisher with a key that the site file names, and another.
pub struct RpmPublisher {
    pub gpg: Gpg,
    pub origin: Origin,
    pub folder: tempfile::TempDir,
    /// When it published last.
    pub at: u64,
}

impl RpmPublisher {
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
        self.origin.put(&format!("{AT}/{path}"), doc);
    }

    /// What it has put at a path.
    pub fn got(&self, path: &str) -> Vec<u8> {
        self.origin.docs.lock().unwrap()[&format!("{AT}/{path}")].body.clone()
    }

    /// What it has put where.
    pub fn paths(&self) -> Vec<String> {
        let docs = self.origin.docs.lock().unwrap();
        let paths = docs.keys().filter_map(|path| path.strip_prefix(&format!("{AT}/")));
        paths.map(str::to_owned).collect()
    }

    pub fn take_away(&self, path: &str) {
        self.origin.docs.lock().unwrap().remove(&format!("{AT}/{path}"));
    }

    /// What a package of this name and version installs.
    pub fn payload(name: &str, version: &str) -> Vec<u8> {
        bytes(
            100_000,
            (name.len() + 7 * version.len()) as u64 + u64::from(version.as_bytes()[0]),
        )
    }

    /// A signed package, made once: made again it would be another.
    fn package(&self, name: &str, version: &str) -> PathBuf {
        let top = self.folder.path().join("build");
        let made = top.join(format!("RPMS/noarch/{name}-{version}-1.noarch.rpm"));
        if made.exists() {
            return made;
        }
        std::fs::create_dir_all(&top).unwrap();
        let (spec, payload) = (top.join("one.spec"), top.join("payload"));
        std::fs::write(&payload, Self::payload(name, version)).unwrap();
        let text = format!(
            "Name: {name}\nVersion: {version}\nRelease: 1\nSummary: x\nLicense: MIT\nBuildArch: noarch\n%description\nx\n\
             %install\nmkdir -p %{{buildroot}}/usr/share/{name}\ncp {} %{{buildroot}}/usr/share/{name}/payload\n\
             %files\n/usr/share/{name}/payload\n",
            payload.display()
        );
        std::fs::write(&spec, text).unwrap();
        let top = format!("_topdir {}", top.display());
        let home = self.folder.path();
        ran(Command::new("rpmbuild")
            .args(["-bb", "--define", &top])
            .arg(&spec)
            .env("HOME", home));
        ran(Command::new("rpmsign")
            .args([
                "--addsign",
                "--define",
                "_gpg_name publisher",
                "--define",
                "__gpg /usr/bin/gpg",
            ])
            .arg(&made)
            .env("HOME", home)
            .env("GNUPGHOME", self.gpg.path()));
        made
    }

    /// Publishes these packages, and no others, a day later than before; gives the signed `repomd.xml`.
    pub fn publish(&mut self, key: &str, packages: &[(&str, &str)], more: &[&str]) -> Vec<u8> {
        self.at += DAY;
        let folder = self.folder.path().join(format!("state-{}", self.at));
        std::fs::create_dir_all(folder.join("Packages")).unwrap();
        for (name, version) in packages {
            let made = self.package(name, version);
            std::fs::copy(&made, folder.join("Packages").join(made.file_name().unwrap())).unwrap();
        }
        ran(Command::new("createrepo_c")
            .args([
                "--quiet",
                "--revision",
                &self.at.to_string(),
                "--set-timestamp-to-revision",
            ])
            .args(more)
            .arg(&folder));
        self.put_folder(&folder, "Packages");
        self.put_folder(&folder, "repodata");
        let repomd = std::fs::read(folder.join("repodata/repomd.xml")).unwrap();
        self.sign(key, &repomd);
        repomd
    }

    /// Puts a head with a signature beside it.
    pub fn sign(&self, key: &str, repomd: &[u8]) {
        self.put("repodata/repomd.xml", repomd);
        let signature = self.gpg.detach(self.at, key, &[], repomd);
        self.put("repodata/repomd.xml.asc", signature);
    }

    fn put_folder(&self, folder: &Path, name: &str) {
        for file in std::fs::read_dir(folder.join(name)).unwrap() {
            let file = file.unwrap();
            let path = format!("{name}/{}", file.file_name().into_string().unwrap());
            self.put(&path, std::fs::read(file.path()).unwrap());
        }
    }
}

/// A new machine, with the files that an installed system gets and a proxy for everything.
pub struct Machine {
    root: PathBuf,
    proxy: String,
}

impl Machine {
    /// `files` by their paths on the machine.
    pub fn new(root: PathBuf, files: &[(String, String)], proxy: &str) -> Self {
        for (path, content) in files {
            let at = root.join(path.trim_start_matches('/'));
            std::fs::create_dir_all(at.parent().unwrap()).unwrap();
            // Both read keys by their paths outside of the root that they install into.
            let content = content.replace("file:///", &format!("file://{}/", root.display()));
            std::fs::write(at, content).unwrap();
        }
        let proxy = proxy.to_owned();
        Self { root, proxy }
    }

    fn run(&self, command: &mut Command) -> Result<String, String> {
        for name in [
            "HTTP_PROXY",
            "https_proxy",
            "HTTPS_PROXY",
            "no_proxy",
            "NO_PROXY",
            "all_proxy",
            "ALL_PROXY",
        ] {
            command.env_remove(name);
        }
        // Neither writes a log or a database outside of the machine.
        command
            .env("HOME", &self.root)
            .env("ZYPP_LOGFILE", self.root.join("zypper.log"));
        let output = command.env("http_proxy", &self.proxy).output();
        let output =
            output.unwrap_or_else(|error| panic!("{command:?}: {error}; `cargo xtask setup test` installs it"));
        let text = [output.stdout.as_slice(), &output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        if output.status.success() { Ok(text) } else { Err(text) }
    }

    fn installed(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.root.join(format!("usr/share/{name}/payload"))).unwrap()
    }

    /// Installs a package with dnf, and gives what it installed.
    pub fn dnf(&self, name: &str) -> Result<Vec<u8>, String> {
        let at = |path: &str| self.root.join(path).display().to_string();
        let config = format!(
            "[main]\nreposdir={}\ncachedir={}\nlogdir={}\npersistdir={}\nretries=1\n",
            at("etc/yum.repos.d"),
            at("dnf-cache"),
            at("dnf-log"),
            at("dnf-state")
        );
        std::fs::write(at("dnf.conf"), config).unwrap();
        let mut dnf = Command::new("dnf");
        dnf.args(["-y", "--noplugins", "--releasever=1", "--config", &at("dnf.conf")]);
        self.run(dnf.args(["--installroot", &at(""), "install", name]))?;
        Ok(self.installed(name))
    }

    /// Installs a package with zypper, and gives what it installed.
    pub fn zypper(&self, name: &str) -> Result<Vec<u8>, String> {
        let root = self.root.display().to_string();
        for arguments in [
            &["--gpg-auto-import-keys", "refresh"][..],
            &["install", "--no-recommends", name],
        ] {
            let mut zypper = Command::new("zypper");
            self.run(zypper.args(["--root", &root, "--non-interactive"]).args(arguments))?;
        }
        Ok(self.installed(name))
    }
}
