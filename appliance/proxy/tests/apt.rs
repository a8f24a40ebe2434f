//! Real apt-get against a small repository, through the proxy and through a mirror.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use common::apt::{Apt, Repository};
use common::*;
use rackbar_model::{CheckResult, CheckStatus, Timestamp};
use rackbar_verify::{Asked, Context, Reach};

const POOL: &str = "/debian/pool/rackbar-probe_1.0_all.deb";

#[test]
fn apt_installs_through_proxy_and_mirror_with_one_fetch_and_then_offline() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let repository = Repository::put(&origin, folder.path());
    let under = under(&folder.path().join("cache"), settings(&[&origin]));
    let proxy = format!("http://{}", under.address);
    let mirror = format!("{proxy}/mirror/debian");
    let first = Apt::new(folder.path().join("one"), &origin.url("/debian"), Some(proxy));
    assert!(first.update_and_download() == repository.deb);
    wait("it is stored", || {
        under.stored("mirror:debian/pool/rackbar-probe_1.0_all.deb")
    });
    let second = Apt::new(folder.path().join("two"), &mirror, None);
    assert!(second.update_and_download() == repository.deb);
    assert_eq!(origin.requests(POOL), 1);
    under.handle.proxy().set_mode(rackbar_proxy::Mode::Offline);
    origin.down.store(true, Ordering::SeqCst);
    let third = Apt::new(folder.path().join("three"), &mirror, None);
    assert!(third.update_and_download() == repository.deb);
}

#[test]
fn what_is_promised_is_asked_for_as_it_is_also_for_those_who_take_it_packed() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(&folder.path().join("cache"), settings(&[&origin]));
    let list = b"Package: x\n".to_vec();
    let promised = format!(
        "/debian/dists/x/main/binary-amd64/by-hash/SHA256/{}",
        common::apt::hex(&list)
    );
    let head = |path: &str| {
        origin.put(path, doc(list.clone()));
        let (status, _, body) = under.curl(&["-H", "Accept-Encoding: gzip"], &origin.url(path));
        assert!(status == 200 && body == list, "{path}: {status}");
        origin.heads(path).concat().to_lowercase()
    };
    let asked = head(&promised);
    assert!(
        asked.contains("accept-encoding: identity") && !asked.contains("gzip"),
        "{asked}"
    );
    let asked = head("/debian/dists/x/main/Contents");
    assert!(asked.contains("accept-encoding: gzip"), "{asked}");
}

#[test]
fn what_is_promised_comes_once_for_all_also_where_the_origin_chooses_by_what_clients_take() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(&folder.path().join("cache"), settings(&[&origin]));
    for (name, take) in [("one", &[][..]), ("two", &["-H", "Accept-Encoding: gzip"])] {
        let list = format!("Package: {name}\n").into_bytes();
        let path = format!("/debian/dists/x/main/by-hash/SHA256/{}", common::apt::hex(&list));
        let mut content = doc(list.clone());
        content.headers.push(("Vary".into(), "Accept-Encoding".into()));
        origin.put(&path, content);
        for _ in 0..2 {
            let (status, _, body) = under.curl(take, &origin.url(&path));
            assert!(status == 200 && body == list, "{name}: {status}");
        }
        assert_eq!(origin.requests(&path), 1, "{name}");
    }
}

#[test]
fn a_package_that_is_not_what_its_index_promises_is_refused_told_and_fetched_once_more() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let repository = Repository::put(&origin, folder.path());
    let under = under(&folder.path().join("cache"), settings(&[&origin]));
    let apt = Apt::new(
        folder.path().join("one"),
        &format!("http://{}/mirror/debian", under.address),
        None,
    );
    let (good, text) = apt.run(&["update"]);
    assert!(good, "{text}");
    let mut wrong = repository.deb.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    origin.put(POOL, doc(wrong.clone()));
    // The index is read in the background.
    wait("the promise is known", || {
        under.get(&origin.url(POOL)).len() < wrong.len()
    });
    let told = |end: &str| {
        under
            .told
            .lock()
            .unwrap()
            .iter()
            .filter(|text| text.ends_with(end))
            .count()
    };
    wait("the first is refused for good", || told("promised: it is refused") == 1);
    let before = origin.requests(POOL);
    let (status, _, body) = under.curl(&[], &origin.url(POOL));
    assert!(
        status != 200 && body.len() < wrong.len(),
        "{status}, {} bytes",
        body.len()
    );
    wait("the second is refused for good", || {
        told("promised: it is refused") == 2
    });
    assert_eq!(origin.requests(POOL), before + 2, "refused, and fetched once more");
    assert_eq!(told("it is refused and fetched once more"), 2);
    let (good, _) = apt.run(&["download", "rackbar-probe"]);
    assert!(!good);
    // The origin is right again: nothing wrong was kept.
    origin.put(POOL, doc(repository.deb.clone()));
    assert!(apt.update_and_download() == repository.deb);
}

/// A machine whose apt has settings of its own; what is asked of it is run here.
struct Settings(PathBuf);

impl Settings {
    fn new(folder: &Path, source: &str, proxy: Option<&str>) -> Self {
        std::fs::create_dir_all(folder).unwrap();
        let list = folder.join("sources.list");
        std::fs::write(&list, format!("deb [trusted=yes] {source} stable main\n")).unwrap();
        let mut text = format!(
            "Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"-\";\nAPT::Architecture \"amd64\";\n\
             APT::Architectures {{ \"amd64\"; }};\nAcquire::Languages \"none\";\n",
            list.display()
        );
        if let Some(proxy) = proxy {
            text.push_str(&format!("Acquire::http::Proxy \"{proxy}\";\n"));
        }
        let file = folder.join("apt.conf");
        std::fs::write(&file, text).unwrap();
        Self(file)
    }

    /// The check of packages, for a role that wants `proxy`.
    fn checked(&self, proxy: &str) -> CheckResult {
        let mut context = Context::default();
        context.wanted.setup.proxy = Some(proxy.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let checks = ["proxy.packages".to_owned()];
        let mut results = runtime.block_on(rackbar_verify::run(&context, &checks, self));
        results.pop().unwrap()
    }
}

impl Reach for Settings {
    fn ask<'a>(&'a self, _: &'a str, script: &'a str, _: Duration) -> Asked<'a> {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script]).env("APT_CONFIG", &self.0).env("LC_ALL", "C");
        for name in ["http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY", "all_proxy"] {
            shell.env_remove(name);
        }
        let output = shell.output().map_err(|error| error.to_string());
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        Box::pin(std::future::ready(text))
    }

    fn now(&self) -> Timestamp {
        Timestamp(1)
    }
}

#[test]
fn the_check_of_packages_sees_a_real_apt_fetch_through_the_proxy_and_why_it_cannot() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    Repository::put(&origin, folder.path());
    let under = under(&folder.path().join("cache"), settings(&[&origin]));
    let (proxy, source) = (format!("http://{}", under.address), origin.url("/debian"));
    let packages = "/debian/dists/stable/main/binary-amd64/Packages";
    let at = |name: &str, proxy: Option<&str>| Settings::new(&folder.path().join(name), &source, proxy);

    let good = at("good", Some(&proxy)).checked(&proxy);
    assert_eq!(good.status, CheckStatus::Passed, "{good:?}");
    wait("it is stored", || {
        under.stored("mirror:debian/dists/stable/main/binary-amd64/Packages")
    });
    let before = origin.requests(packages);
    assert_eq!(before, 1, "it came by the proxy, once");

    // The lists can be fetched, but beside the proxy.
    let beside = at("beside", None).checked(&proxy);
    assert_eq!(beside.status, CheckStatus::Failed, "{beside:?}");
    assert!(beside.observed.contains("set to use no proxy"), "{beside:?}");
    assert_eq!(origin.requests(packages), before + 1);

    // There is no proxy where apt looks for it.
    let closed = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let closed = format!("http://{closed}");
    let gone = at("gone", Some(&closed)).checked(&closed);
    assert_eq!(gone.status, CheckStatus::Failed, "{gone:?}");
    assert!(
        gone.observed.contains("127.0.0.1") && !gone.advice.is_empty(),
        "{gone:?}"
    );
}

#[test]
fn whoever_has_a_new_release_gets_the_lists_it_names_at_once() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(&folder.path().join("cache"), settings(&[&origin]));
    let (release, list) = (
        "/debian/dists/x/InRelease",
        "/debian/dists/x/main/binary-amd64/Packages",
    );
    let never_fresh = |body: Vec<u8>| Doc {
        headers: vec![
            ("Cache-Control".into(), "max-age=0".into()),
            ("ETag".into(), format!("\"{}\"", body.len())),
        ],
        ..doc(body)
    };
    for number in 1..30_usize {
        let packages = format!("Package: x\n{}", "\n".repeat(number)).into_bytes();
        let hex = common::apt::hex(&packages);
        // Longer than what is held back of a content that is promised.
        let padding = format!("X: {}\n", "y".repeat(1000)).repeat(100);
        let text = format!(
            "SHA256:\n {hex} {} main/binary-amd64/Packages\n{padding}{}",
            packages.len(),
            "\n".repeat(number)
        );
        origin.put(release, never_fresh(text.clone().into_bytes()));
        origin.put(list, never_fresh(packages.clone()));
        assert!(under.get(&origin.url(release)) == text.as_bytes());
        assert!(
            under.get(&origin.url(list)) == packages,
            "round {number}: it was held to what the last release said"
        );
    }
}

#[test]
fn the_end_of_a_release_is_not_given_out_before_it_is_read() {
    use std::io::{ErrorKind, Read as _, Write as _};
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let (size, release) = (200_000, "/debian/dists/x/InRelease");
    let head = format!("HTTP/1.1 200 OK\r\nETag: \"x\"\r\nCache-Control: max-age=60\r\nContent-Length: {size}\r\n\r\n");
    // All but its last byte, and then nothing.
    let begun = Doc {
        raw: Some((head + &"x".repeat(size - 1), true)),
        ..Doc::default()
    };
    origin.put(release, begun);
    let mut stream = std::net::TcpStream::connect(under.address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {} HTTP/1.1\r\nHost: x\r\n\r\n", origin.url(release)).unwrap();
    let (mut got, mut one) = (Vec::new(), [0]);
    while !got.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut one).unwrap();
        got.extend(one);
    }
    let held = usize::try_from(rackbar_proxy::fetch::HELD_BACK).unwrap();
    stream.read_exact(&mut vec![0; size - held]).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let more = stream.read(&mut one).map_err(|error| error.kind());
    assert!(
        matches!(more, Err(ErrorKind::WouldBlock | ErrorKind::TimedOut)),
        "{more:?}"
    );
}
