//! Debian's Squid as a parent proxy on loopback, with a login.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part")]

use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::common::wait;

pub const USER: &str = "rack";
pub const PASSWORD: &str = "word for the parent";

/// A name of this machine that Squid alone knows.
pub const NAME: &str = "deb.behind.example";

pub struct Squid {
    pub address: SocketAddr,
    folder: tempfile::TempDir,
    child: Child,
}

impl Squid {
    /// Lets through who logs in as [`USER`], except to paths that begin with `/forbidden`.
    pub fn start() -> Self {
        // Another test may take the port in between.
        let free = || TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let started = (0..5).find_map(|_| Self::begin(free()));
        started.expect("Squid ends at once, at every port")
    }

    /// The same at this address.
    pub fn at(address: SocketAddr) -> Self {
        Self::begin(address).expect("Squid ends at once")
    }

    /// `None` when it ends before it listens.
    fn begin(address: SocketAddr) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let f = folder.path().display().to_string();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let script = folder.path().join("login");
        let known = PASSWORD.replace(' ', "%20");
        let lines = format!(
            "#!/bin/sh\nwhile read -r user word; do\n[ \"$user $word\" = '{USER} {known}' ] && echo OK || echo ERR\ndone\n"
        );
        std::fs::write(&script, lines).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        let text = format!(
            "http_port {address}\nauth_param basic program {f}/login\nauth_param basic realm parent\n\
             acl known proxy_auth REQUIRED\nacl forbidden urlpath_regex ^/forbidden\nhttp_access deny forbidden\n\
             http_access allow known\nhttp_access deny all\ncache deny all\nlogfile_rotate 0\n\
             access_log stdio:{f}/access.log\ncache_log {f}/cache.log\ncache_store_log none\npid_filename {f}/squid.pid\n\
             coredump_dir {f}\nvisible_hostname parent\npinger_enable off\nshutdown_lifetime 0 seconds\n\
             forward_timeout 5 seconds\nconnect_timeout 3 seconds\nforward_max_tries 1\n\
             dns_nameservers 127.0.0.1\ndns_timeout 1 second\nhosts_file {f}/hosts\n"
        );
        std::fs::write(folder.path().join("hosts"), format!("127.0.0.1 {NAME} localhost\n")).unwrap();
        let configuration = folder.path().join("squid.conf");
        std::fs::write(&configuration, text).unwrap();
        give(folder.path());
        let mut command = Command::new("squid");
        command.args(["-N", "-f"]).arg(&configuration);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let child = child.expect("squid is missing; `cargo xtask setup test` installs it");
        let mut squid = Self { address, folder, child };
        let mut ended = false;
        wait("Squid listens, or ends", || {
            ended = squid.child.try_wait().unwrap().is_some();
            ended || squid.read("cache.log").contains("Accepting HTTP Socket connections")
        });
        (!ended).then_some(squid)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lines of its log with method and URL; a request is in it once it is over.
    pub fn log(&self) -> String {
        self.read("access.log")
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default()
    }

    pub fn told_of(&self, what: &str) {
        wait(&format!("{what} is in the parent's log"), || self.log().contains(what));
    }
}

/// Started by root it becomes another user, who has to write there.
fn give(folder: &Path) {
    if nix::unistd::geteuid().is_root() {
        let user = nix::unistd::User::from_name("proxy").unwrap().unwrap();
        nix::unistd::chown(folder, Some(user.uid), Some(user.gid)).unwrap();
    }
}

impl Drop for Squid {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
