//! Contents that are promised by a SHA-512: what is stored has another name, and is compared once.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;
#[path = "common/sums.rs"]
mod sums;

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use rackbar_proxy::{Locked, Mode, Pick, Promised};
use rackbar_upstream::Sum;
use sums::{long, short};

const RPM: &str = "Packages/a.rpm";

fn locked(origin: &Origin, sum: Sum) -> Locked {
    Locked {
        name: "ours".into(),
        url: origin.url("/own"),
        promises: [(RPM.to_owned(), sum)].into(),
        ..Locked::default()
    }
}

/// As dnf asks: the status and the content.
fn direct(under: &Under) -> (u16, Vec<u8>) {
    let target = format!("/repository/ours/{RPM}");
    let head = under.raw(&format!(
        "HEAD {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ));
    let text = String::from_utf8_lossy(&head).into_owned();
    let status = text.split(' ').nth(1).and_then(|word| word.parse().ok()).unwrap_or(0);
    (status, under.get(&target))
}

/// Where the proxy keeps a content.
fn object(folder: &Path, content: &[u8]) -> PathBuf {
    let name = short(content).to_string();
    folder.join("objects").join(&name[..2]).join(&name)
}

#[test]
fn what_is_stored_already_is_taken_for_what_a_sha_512_promises_when_it_is_that() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let threads = tokio::runtime::Runtime::new().unwrap();
    let (rpm, other) = (bytes(200_000, 5), bytes(200_000, 7));
    let (at, url) = (format!("/own/{RPM}"), origin.url(&format!("/own/{RPM}")));
    origin.put(&at, doc(rpm.clone()));
    {
        let under = under(folder.path(), settings(&[&origin]));
        // Nothing is promised of it when it comes.
        assert!(under.get(&url) == rpm);
        wait("it is stored", || under.stored(&url));
        under.handle.proxy().set_repositories([locked(&origin, long(&rpm))]);
        // What the origin has by now would be refused.
        origin.put(&at, doc(other.clone()));
        assert!(direct(&under) == (200, rpm.clone()));
        // It was compared: it is not read for that again, but to be sent.
        assert!(direct(&under) == (200, rpm.clone()));
        assert_eq!(origin.requests(&at), 1);
        under.handle.proxy().set_mode(Mode::Offline);
        assert!(direct(&under) == (200, rpm.clone()));
        under.handle.proxy().set_repositories([locked(&origin, long(&other))]);
        assert_eq!(direct(&under).0, 504, "what there is is another");
    }
    // After a restart it is compared once more, and is not what it was.
    let path = object(folder.path(), &rpm);
    assert!(std::fs::read(&path).unwrap() == rpm);
    for content in [&rpm, &other] {
        std::fs::write(&path, content).unwrap();
        let under = under(folder.path(), settings(&[&origin]));
        under.handle.proxy().set_repositories([locked(&origin, long(&rpm))]);
        under.handle.proxy().set_mode(Mode::Offline);
        let proxy = under.handle.proxy();
        // As a lock has it; before any client came.
        let had = threads.block_on(proxy.fetched(&origin.url("/own"), RPM, long(&rpm), u64::MAX));
        assert_eq!(had.ok(), (content == &rpm).then_some(200_000));
        assert_eq!(direct(&under).0, if content == &rpm { 200 } else { 504 });
        // Under its own name neither: it is gone.
        assert_eq!(under.stored(&url), content == &rpm);
    }
}

#[test]
fn many_who_ask_at_once_have_it_fetched_once_and_each_gets_what_was_promised() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    // Shorter than what is held back, and longer; with its length, and without.
    for (size, chunked) in [(1_000, false), (1_000, true), (300_000, false), (300_000, true)] {
        let (rpm, gate) = (bytes(size, 11 + u64::from(chunked)), Arc::new(AtomicBool::new(false)));
        let at = format!("/own/{RPM}");
        let before = origin.requests(&at);
        origin.put(
            &at,
            Doc {
                chunked,
                gate: Some(gate.clone()),
                ..doc(rpm.clone())
            },
        );
        under.handle.proxy().set_repositories([locked(&origin, long(&rpm))]);
        let url = format!("http://{}/repository/ours/{RPM}", under.address);
        let got = || under.curl(&["--noproxy", "*"], &url).2 == rpm;
        std::thread::scope(|scope| {
            let all: Vec<_> = (0..8).map(|_| scope.spawn(got)).collect();
            wait("it is asked for", || origin.requests(&at) > before);
            gate.store(true, Ordering::SeqCst);
            assert!(all.into_iter().all(|one| one.join().unwrap()), "{size} {chunked}");
        });
        assert!(got());
        assert_eq!(origin.requests(&at), before + 1, "{size} {chunked}");
    }
}

#[test]
fn a_content_that_breaks_off_is_gone_on_with_and_compared_as_a_whole() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let rpm = bytes(2_000_000, 13);
    let broken = Doc {
        breaks_at: Some(1_000_000),
        ..doc(rpm.clone())
    };
    origin.put(&format!("/own/{RPM}"), broken);
    under.handle.proxy().set_repositories([locked(&origin, long(&rpm))]);
    assert!(under.get(&format!("/repository/ours/{RPM}")) == rpm);
    assert_eq!(origin.requests(&format!("/own/{RPM}")), 2);
}

#[test]
fn a_pack_has_what_a_sha_512_promises_and_one_with_another_content_has_not() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let rpm = bytes(200_000, 5);
    let url = origin.url(&format!("/own/{RPM}"));
    origin.put(&format!("/own/{RPM}"), doc(rpm.clone()));
    let first = under(&folder.path().join("first"), settings(&[&origin]));
    assert!(first.get(&url) == rpm);
    wait("it is stored", || first.stored(&url));
    let (mut all, mut answers) = (vec![7; 100], Vec::new());
    for picked in first.handle.proxy().pick(&Pick::default()) {
        answers.push((picked.record, all.len() as u64));
        picked.object.reader().unwrap().read_to_end(&mut all).unwrap();
    }
    let pack = folder.path().join("a.pack");
    std::fs::write(&pack, &all).unwrap();
    origin.down.store(true, Ordering::SeqCst);

    let second = under(&folder.path().join("second"), settings(&[&origin]));
    let proxy = second.handle.proxy();
    proxy.set_mode(Mode::Offline);
    proxy.set_repositories([locked(&origin, long(&rpm))]);
    assert_eq!(direct(&second).0, 504);
    proxy.mount("a", &Arc::new(File::open(&pack).unwrap()), answers.clone());
    assert!(direct(&second) == (200, rpm.clone()));
    proxy.set_repositories([locked(&origin, long(b"other"))]);
    assert_eq!(direct(&second).0, 504);
    // A pack that is damaged: its content is compared before any of it is served.
    all[150] ^= 1;
    std::fs::write(&pack, &all).unwrap();
    proxy.set_repositories([locked(&origin, long(&all[100..]))]);
    proxy.mount("a", &Arc::new(File::open(&pack).unwrap()), answers);
    assert_eq!(
        direct(&second).0,
        504,
        "it is what is promised, and not what the pack's index says"
    );
}

#[test]
fn what_indexes_promise_by_a_sha_512_is_held_to_without_a_lock_too() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let under = under(folder.path(), settings(&[&origin]));
    let (rpm, wrong) = (bytes(200_000, 5), bytes(200_000, 7));
    let primary = format!(
        "<metadata><package type='rpm'><name>a</name><arch>noarch</arch><version epoch='0' ver='1' rel='1'/><checksum \
         type='sha512' pkgid='YES'>{}</checksum><location href='{RPM}'/></package></metadata>",
        long(&rpm)
    );
    let repomd = format!(
        "<repomd><data type='primary'><checksum type='sha512'>{}</checksum><location href='repodata/primary.xml'/>\
         <timestamp>1700000000</timestamp></data></repomd>",
        long(primary.as_bytes())
    );
    let mirror = |path: &str| format!("http://{}/mirror/debian/{path}", under.address);
    let put = |path: &str, body: &[u8]| origin.put(&format!("/debian/{path}"), doc(body.to_vec()));
    let ask = |path: &str| {
        let (status, _, body) = under.curl(&["--noproxy", "*"], &mirror(path));
        (status, body)
    };
    put("repodata/repomd.xml", repomd.as_bytes());
    put("repodata/primary.xml", b"<metadata></metadata>");
    assert!(ask("repodata/repomd.xml") == (200, repomd.into_bytes()));
    assert_eq!(ask("repodata/primary.xml").0, 502, "another than was promised");
    put("repodata/primary.xml", primary.as_bytes());
    assert!(ask("repodata/primary.xml") == (200, primary.into_bytes()));
    // Learnt in the background: until it is, anything may be the package.
    wait("a wrong package is refused", || {
        put(RPM, &wrong);
        let (status, body) = ask(RPM);
        status == 0 && body.len() < wrong.len()
    });
    put(RPM, &rpm);
    // Whoever comes while the second try ends gets what became of that.
    wait("the right one comes", || ask(RPM) == (200, rpm.clone()));
    let key = format!("mirror:debian/{RPM}");
    wait("it is stored", || under.stored(&key));
    under.handle.stop();
    // After a restart the origin is asked whether it still holds, and not for all of it: it is what is promised.
    let again = common::under(folder.path(), settings(&[&origin]));
    let proxy = again.handle.proxy();
    proxy.learn_all();
    again.handle.block_on(proxy.refresh(&key)).unwrap();
    let asked = origin.heads(&format!("/debian/{RPM}")).pop().unwrap();
    assert!(asked.to_ascii_lowercase().contains("if-none-match"), "{asked}");
}

#[test]
fn what_is_kept_of_two_states_is_told_apart_by_both_kinds_of_digest() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let threads = tokio::runtime::Runtime::new().unwrap();
    let all: Vec<(String, Vec<u8>)> = (0..4)
        .map(|number| (format!("Packages/{number}.rpm"), bytes(10_000, 21 + 2 * number)))
        .collect();
    let of = |at: usize, sum: Sum| Promised {
        path: all[at].0.clone(),
        sum,
        bytes: Some(10_000),
    };
    let (by_short, by_long) = (
        |at: usize| of(at, short(&all[at].1)),
        |at: usize| of(at, long(&all[at].1)),
    );
    {
        let under = under(folder.path(), settings(&[&origin]));
        let proxy = under.handle.proxy();
        for (path, content) in &all {
            origin.put(&format!("/own/{path}"), doc(content.clone()));
        }
        proxy.pin_held("ours").unwrap();
        for one in [by_short(0), by_long(1), by_long(2)] {
            assert_eq!(
                threads.block_on(proxy.hold("ours", &origin.url("/own"), &one)).unwrap(),
                10_000
            );
        }
        let elsewhere = origin.url(&format!("/own/{}", all[3].0));
        assert_eq!(threads.block_on(proxy.pin(&elsewhere)).unwrap(), 1);
    }
    // After a restart nobody knows any SHA-512.
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy();
    // The next state says the same of the first two in the other words, has another third, and a fourth.
    let next = [by_long(0), by_short(1), of(2, long(b"another")), by_long(3)];
    let need = proxy.need("ours", &next);
    // The fourth is pinned already, by another name.
    assert_eq!((need.missing.as_slice(), need.bytes), (&next[2..], 10_000));
    proxy
        .let_go("ours", &next.iter().map(|one| (one.path.clone(), one.sum)).collect())
        .unwrap();
    let held = || {
        let all = proxy.list().into_iter().map(|item| item.key);
        all.filter(|key| key.starts_with("locked:")).collect::<Vec<_>>()
    };
    assert_eq!(held(), ["locked:ours/Packages/0.rpm", "locked:ours/Packages/1.rpm"]);
    origin.down.store(true, Ordering::SeqCst);
    for one in &next[..2] {
        let kept = threads.block_on(proxy.hold("ours", &origin.url("/own"), one));
        assert_eq!(kept.unwrap(), 10_000, "without the origin");
    }
    assert!(
        threads
            .block_on(proxy.hold("ours", &origin.url("/own"), &next[2]))
            .is_err()
    );
}

#[test]
fn what_cannot_be_read_just_now_is_neither_taken_for_right_nor_for_wrong() {
    let (origin, folder) = (Origin::start(), tempfile::tempdir().unwrap());
    let threads = tokio::runtime::Runtime::new().unwrap();
    let rpm = bytes(200_000, 5);
    let one = Promised {
        path: RPM.into(),
        sum: long(&rpm),
        bytes: None,
    };
    origin.put(&format!("/own/{RPM}"), doc(rpm.clone()));
    {
        let under = under(folder.path(), settings(&[&origin]));
        let proxy = under.handle.proxy();
        proxy.pin_held("ours").unwrap();
        threads.block_on(proxy.hold("ours", &origin.url("/own"), &one)).unwrap();
    }
    let under = under(folder.path(), settings(&[&origin]));
    let proxy = under.handle.proxy();
    proxy.set_repositories([locked(&origin, one.sum)]);
    // A folder that leads to itself: an error of the disk that says nothing of what is in it.
    let object = object(folder.path(), &rpm);
    let (at, aside) = (object.parent().unwrap(), folder.path().join("aside"));
    std::fs::rename(at, &aside).unwrap();
    std::os::unix::fs::symlink(at, at).unwrap();
    proxy.set_mode(Mode::Offline);
    let (status, text) = direct(&under);
    let text = String::from_utf8(text).unwrap();
    assert!(
        status == 504 && text.contains("cannot be read to be compared"),
        "{status} {text}"
    );
    assert_eq!(proxy.need("ours", std::slice::from_ref(&one)).missing.len(), 1);
    proxy.let_go("ours", &[(one.path.clone(), one.sum)].into()).unwrap();
    std::fs::remove_file(at).unwrap();
    std::fs::rename(&aside, at).unwrap();
    assert!(direct(&under) == (200, rpm), "it was not let go of");
    assert!(proxy.need("ours", &[one]).missing.is_empty());
}
