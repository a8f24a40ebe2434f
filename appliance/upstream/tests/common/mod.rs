//! Keys and signatures by the real `gpg`, in a folder of their own.
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// A GNUPGHOME.
pub struct Gpg {
    home: tempfile::TempDir,
}

impl Gpg {
    /// An empty one.
    pub fn new() -> Self {
        let home = tempfile::Builder::new().prefix("gpg").tempdir().unwrap();
        Self { home }
    }

    /// Runs gpg at a time (seconds since 1970) with something on its standard input; gives its standard output.
    pub fn run(&self, at: u64, args: &[&str], input: &[u8]) -> Vec<u8> {
        let mut child = Command::new("gpg")
            .args([
                "--batch",
                "--quiet",
                "--no-tty",
                "--yes",
                "--passphrase",
                "",
                "--pinentry-mode",
                "loopback",
            ])
            .args(["--allow-weak-digest-algos", "--faked-system-time", &format!("{at}!")])
            .args(args)
            .env("GNUPGHOME", self.home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("gpg of Debian's package gnupg");
        child.stdin.take().unwrap().write_all(input).unwrap();
        let done = child.wait_with_output().unwrap();
        assert!(
            done.status.success(),
            "gpg {args:?}: {}",
            String::from_utf8_lossy(&done.stderr)
        );
        done.stdout
    }

    /// Makes a key that only its primary key has; gives its fingerprint. `lasts` as gpg takes it, `never` for ever.
    pub fn key(&self, at: u64, name: &str, algorithm: &str, usage: &str, lasts: &str, more: &[&str]) -> String {
        let mut args = more.to_vec();
        args.extend(["--quick-gen-key", name, algorithm, usage, lasts]);
        self.run(at, &args, b"");
        self.fingerprints(at, name).remove(0)
    }

    /// Fingerprints of a certificate: the primary key's, then those of subkeys.
    pub fn fingerprints(&self, at: u64, name: &str) -> Vec<String> {
        let listed = String::from_utf8(self.run(at, &["--with-colons", "--list-keys", name], b"")).unwrap();
        let prints = listed.lines().filter_map(|line| line.strip_prefix("fpr:"));
        prints.map(|line| line.trim_matches(':').to_owned()).collect()
    }

    /// The certificate in ASCII armor.
    pub fn export(&self, at: u64, name: &str) -> Vec<u8> {
        self.run(at, &["--armor", "--export", name], b"")
    }

    /// A text signed in the clear by each of these keys.
    pub fn clearsign(&self, at: u64, keys: &[&str], more: &[&str], text: &str) -> Vec<u8> {
        let mut args = more.to_vec();
        keys.iter().for_each(|key| args.extend(["--local-user", key]));
        args.push("--clear-sign");
        self.run(at, &args, text.as_bytes())
    }

    /// A signature that lies beside its text, in ASCII armor.
    pub fn detach(&self, at: u64, key: &str, more: &[&str], text: &[u8]) -> Vec<u8> {
        let mut args = more.to_vec();
        args.extend(["--local-user", key, "--armor", "--detach-sign"]);
        self.run(at, &args, text)
    }

    /// The certificate's own word that it is not to be trusted, which gpg made together with the key, taken in. gpg writes a
    /// colon in front so that nobody does by mistake.
    pub fn revoke(&self, at: u64, print: &str) {
        let path = self.home.path().join(format!("openpgp-revocs.d/{print}.rev"));
        let text = std::fs::read_to_string(path)
            .unwrap()
            .replace(":-----BEGIN", "-----BEGIN");
        self.run(at, &["--import"], text.as_bytes());
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        self.home.path()
    }
}

impl Drop for Gpg {
    fn drop(&mut self) {
        let agent = Command::new("gpgconf")
            .args(["--kill", "all"])
            .env("GNUPGHOME", self.home.path())
            .output();
        // An agent that is left ends by itself when its folder is gone.
        drop(agent);
    }
}
