//! The check of packages over a real SSH server: a real apt, with settings of its own, fetches through a proxy that is made here.
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../../ssh/tests/sshd/mod.rs"]
mod sshd;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rackbar_model::{CheckResult, CheckStatus, Timestamp};
use rackbar_ssh::Session;
use rackbar_verify::{Context, OverSsh, run};

/// A host that no name server knows: what asks for it got there by the proxy.
const ARCHIVE: &str = "http://archive.invalid/debian";

/// A proxy that has one small repository, and what was asked of it.
struct Proxy {
    url: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let heard = heard.clone();
                std::thread::spawn(move || {
                    let mut reader = BufReader::new(stream.try_clone().unwrap());
                    let mut stream = stream;
                    while let Some(target) = request(&mut reader) {
                        let body = document(&target);
                        heard.lock().unwrap().push(target);
                        let status = if body.is_some() { "200 OK" } else { "404 Not Found" };
                        let body = body.unwrap_or_default();
                        let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n", body.len());
                        if stream
                            .write_all(head.as_bytes())
                            .and_then(|()| stream.write_all(body.as_bytes()))
                            .is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        Self { url, asked }
    }
}

/// The target of the next request on a connection.
fn request(reader: &mut impl std::io::BufRead) -> Option<String> {
    let mut lines = reader.lines();
    let target = lines.next()?.ok()?.split(' ').nth(1)?.to_owned();
    for line in lines {
        if line.ok()?.is_empty() {
            return Some(target);
        }
    }
    None
}

fn document(target: &str) -> Option<String> {
    let packages = "Package: probe\nVersion: 1\nArchitecture: all\nFilename: pool/probe.deb\nSize: 1\n\n";
    let digest = rackbar_model::Digest(rackbar_trust::sha256(packages.as_bytes()));
    match target.strip_prefix(ARCHIVE)? {
        "/dists/stable/Release" => Some(format!(
            "Origin: x\nSuite: stable\nCodename: stable\nDate: Sat, 28 Nov 2026 00:00:00 UTC\nArchitectures: amd64\n\
             Components: main\nSHA256:\n {digest} {} main/binary-amd64/Packages\n",
            packages.len()
        )),
        "/dists/stable/main/binary-amd64/Packages" => Some(packages.to_owned()),
        _ => None,
    }
}

/// An installed system whose apt has these settings, and which would do something after each update.
struct System {
    sshd: sshd::Sshd,
    changed: PathBuf,
}

impl System {
    fn new(folder: &Path, proxy: &str) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let (list, conf) = (folder.join("sources.list"), folder.join("apt.conf"));
        let changed = folder.join("changed");
        std::fs::write(&list, format!("deb [trusted=yes] {ARCHIVE} stable main\n")).unwrap();
        let text = format!(
            "Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"-\";\nAPT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; }};\nAcquire::Languages \"none\";\nAcquire::http::Proxy \"{proxy}\";\n\
             APT::Update::Pre-Invoke {{ \"touch {1}\"; }};\nAPT::Update::Post-Invoke {{ \"touch {1}\"; }};\n\
             APT::Update::Post-Invoke-Success {{ \"touch {1}\"; }};\n",
            list.display(),
            changed.display()
        );
        std::fs::write(&conf, text).unwrap();
        let sshd = sshd::Sshd::with(&format!("SetEnv APT_CONFIG={}", conf.display()));
        Self { sshd, changed }
    }

    async fn checked(&self, proxy: Option<&str>) -> CheckResult {
        let sshd = &self.sshd;
        let limit = Duration::from_secs(60);
        let session = Session::connect(sshd.addr, &sshd.user, &sshd.key, &sshd.host.public, limit);
        let session = session.await.unwrap();
        let clock = || Timestamp(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64);
        let reach = OverSsh {
            session: &session,
            clock: &clock,
        };
        let mut context = Context::default();
        context.wanted.setup.proxy = proxy.map(str::to_owned);
        let mut results = run(&context, &["proxy.packages".to_owned()], &reach).await;
        assert_eq!(results.len(), 1);
        results.remove(0)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_systems_apt_is_seen_to_fetch_through_the_proxy_and_the_system_stays_as_it_is() {
    assert!(
        Path::new("/usr/bin/apt-get").exists(),
        "apt is missing: this is for Debian"
    );
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::start();
    let system = System::new(&folder.path().join("good"), &proxy.url);
    let lists = || -> Vec<_> {
        let entries = std::fs::read_dir("/var/lib/apt/lists").into_iter().flatten().flatten();
        entries.map(|entry| entry.file_name()).collect()
    };
    let before = lists();
    let good = system.checked(Some(&proxy.url)).await;
    assert_eq!(good.status, CheckStatus::Passed, "{good:?}");
    assert_eq!(
        (good.id.as_str(), good.observed.as_str()),
        ("proxy.packages", "apt fetched through it")
    );
    let asked = proxy.asked.lock().unwrap().clone();
    let index = format!("{ARCHIVE}/dists/stable/main/binary-amd64/Packages");
    assert!(asked.contains(&index), "the index did not come by the proxy: {asked:?}");
    assert!(
        !system.changed.exists(),
        "what the system does after an update was done"
    );
    assert_eq!(lists(), before, "the system's own lists were touched");

    // Another proxy is wanted than the one that is set.
    let other = system.checked(Some("http://10.9.9.9:3128")).await;
    assert_eq!(other.status, CheckStatus::Failed, "{other:?}");
    assert!(
        other.observed.contains(&format!("set to use {}", proxy.url)),
        "{other:?}"
    );
    let none = system.checked(None).await;
    assert_eq!(none.status, CheckStatus::Skipped, "{none:?}");
    assert!(none.advice.contains("the role has no proxy"), "{none:?}");

    // Nothing listens where apt looks for its proxy.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let closed = format!("http://{closed}");
    let gone = System::new(&folder.path().join("gone"), &closed)
        .checked(Some(&closed))
        .await;
    assert_eq!(gone.status, CheckStatus::Failed, "{gone:?}");
    assert!(
        gone.observed.contains("archive.invalid") || gone.observed.contains("127.0.0.1"),
        "{gone:?}"
    );
    assert!(!gone.advice.is_empty());
}
