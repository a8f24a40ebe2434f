//! A real `sshd` of Debian, one process per connection, as inetd would start it: no port to guess, nothing to wait for,
//! and no right but the caller's own.
#![allow(
    clippy::unwrap_used,
    dead_code,
    reason = "a helper of tests, each of which uses some of it"
)]

use std::io;
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};

use rackbar_ssh::{ClientKey, HostKeyPair};

const SSHD: &str = "/usr/sbin/sshd";

/// A server that knows one host key and lets one client key in, as whoever runs the test.
pub struct Sshd {
    pub addr: SocketAddr,
    pub host: HostKeyPair,
    pub key: ClientKey,
    pub user: String,
    /// Its connections, and the process number of each server.
    served: Arc<Mutex<Vec<(TcpStream, u32)>>>,
    _home: tempfile::TempDir,
}

/// Servers that are stopped until this is dropped.
pub struct Frozen(Vec<u32>);

impl Drop for Frozen {
    fn drop(&mut self) {
        signal("-CONT", &self.0);
    }
}

fn signal(name: &str, processes: &[u32]) {
    for process in processes {
        // One that has ended meanwhile needs none.
        let _ = Command::new("kill").arg(name).arg(process.to_string()).status();
    }
}

impl Sshd {
    pub fn start() -> Self {
        Self::with("")
    }

    /// With more lines of `sshd_config`.
    pub fn with(settings: &str) -> Self {
        assert!(
            Path::new(SSHD).exists(),
            "{SSHD} is missing: Debian package openssh-server; `cargo xtask setup test` installs it"
        );
        let home = tempfile::tempdir().unwrap();
        let (host, key) = (HostKeyPair::generate("host").unwrap(), ClientKey::generate().unwrap());
        let config = write_files(home.path(), &host, &key, settings).unwrap();
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let addr = listener.local_addr().unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let known = served.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let begun = stream.and_then(|stream| {
                    let mut sshd = serve(&config, &stream)?;
                    known.lock().unwrap().push((stream, sshd.id()));
                    std::thread::spawn(move || sshd.wait());
                    Ok(())
                });
                if let Err(error) = begun {
                    eprintln!("sshd could not be started: {error}");
                }
            }
        });
        let user = Command::new("id").arg("-un").output().unwrap();
        Self {
            addr,
            host,
            key,
            user: String::from_utf8(user.stdout).unwrap().trim().to_owned(),
            served,
            _home: home,
        }
    }

    /// Breaks all connections, as a cable does that both ends see.
    pub fn cut(&self) {
        for (stream, _) in self.served.lock().unwrap().iter() {
            // Fails where the other end was first.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Stops the servers of all connections: to either side it looks as if the network in between were gone.
    pub fn freeze(&self) -> Frozen {
        let processes: Vec<u32> = self
            .served
            .lock()
            .unwrap()
            .iter()
            .map(|(_, process)| *process)
            .collect();
        signal("-STOP", &processes);
        Frozen(processes)
    }
}

fn write_files(home: &Path, host: &HostKeyPair, key: &ClientKey, settings: &str) -> io::Result<PathBuf> {
    let private = |name: &str, text: &str| {
        let path = home.join(name);
        let mut file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        io::Write::write_all(&mut file, text.as_bytes()).map(|()| path)
    };
    let host = private("host", &host.private.0)?;
    let keys = private("keys", &key.public_openssh().unwrap())?;
    if Command::new("id").arg("-u").output()?.stdout == b"0\n" {
        // What systemd or the init script makes: as root, sshd wants its empty directory.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create("/run/sshd")?;
    }
    private(
        "config",
        &format!(
            "HostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n{settings}\n",
            host.display(),
            keys.display()
        ),
    )
}

fn serve(config: &Path, stream: &TcpStream) -> io::Result<Child> {
    let end = || -> io::Result<OwnedFd> { stream.as_fd().try_clone_to_owned() };
    Command::new(SSHD)
        .arg("-i")
        .arg("-f")
        .arg(config)
        .stdin(Stdio::from(end()?))
        .stdout(Stdio::from(end()?))
        .stderr(Stdio::null())
        .spawn()
}

/// A static program: it prints what it was started with, where it lies before that, and ends with 9.
pub fn program(folder: &Path) -> Vec<u8> {
    let source = folder.join("own.c");
    std::fs::write(
        &source,
        "#include <stdio.h>\n#include <unistd.h>\nint main(int n, char **a) { if (n > 1 && a[1][0] == 'w') pause(); \
         for (int i = 0; i < n; i++) printf(\"%s|\", a[i]); return getchar() == EOF ? 9 : 1; }\n",
    )
    .unwrap();
    let made = folder.join("own");
    let ran = Command::new("cc")
        .arg("-static")
        .arg("-o")
        .arg(&made)
        .arg(&source)
        .output();
    let ran = ran.expect("cc; `cargo xtask setup` installs it");
    assert!(ran.status.success(), "{ran:?}");
    std::fs::read(made).unwrap()
}
