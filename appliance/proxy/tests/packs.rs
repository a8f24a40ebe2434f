//! Answers in data packs: served where they lie, with the origin gone and however old they are.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::apt::{Apt, Repository};
use common::*;
use rackbar_proxy::store::Record;
use rackbar_proxy::{Mode, Pick};

const POOL: &str = "mirror:debian/pool/rackbar-probe_1.0_all.deb";

/// A file with contents one behind the other, as a pack has them, and what they answer.
struct Made {
    path: PathBuf,
    answers: Vec<(Record, u64)>,
}

impl Made {
    /// Everything the proxy has stored, asked for so many seconds ago.
    fn of(under: &Under, folder: &Path, wanted: &Pick, seconds_ago: u64) -> Self {
        let (mut all, mut answers) = (vec![7; 100], Vec::new());
        for picked in under.handle.proxy().pick(wanted) {
            let mut record = picked.record;
            record.request_time -= seconds_ago;
            record.response_time -= seconds_ago;
            answers.push((record, all.len() as u64));
            picked.object.reader().unwrap().read_to_end(&mut all).unwrap();
        }
        let path = folder.join("a.pack");
        std::fs::write(&path, &all).unwrap();
        Self { path, answers }
    }

    fn mount(&self, under: &Under) {
        let file = Arc::new(File::open(&self.path).unwrap());
        under.handle.proxy().mount("a", &file, self.answers.clone());
        under.handle.proxy().learn_all();
    }

    fn spoil(&self, key_end: &str) {
        let (record, offset) = self
            .answers
            .iter()
            .find(|(record, _)| record.key.ends_with(key_end))
            .unwrap();
        let file = File::options().write(true).open(&self.path).unwrap();
        file.write_all_at(b"spoilt", offset + record.size / 2).unwrap();
    }
}

/// A month ago, when nothing of today's configuration was in force.
const MONTH: u64 = 30 * 24 * 3600;

/// What apt fetched through one proxy, for another; the repository's package; and the folder of all.
fn recorded(origin: &Origin) -> (tempfile::TempDir, Made, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let repository = Repository::put(origin, folder.path());
    let first = under(&folder.path().join("recorded"), settings(&[origin]));
    first.handle.proxy().set_mode(Mode::Recording);
    let mirror = format!("http://{}/mirror/debian", first.address);
    let apt = Apt::new(folder.path().join("recording"), &mirror, None);
    assert!(apt.update_and_download() == repository.deb);
    wait("it is stored", || first.stored(POOL));
    // What was fetched now is pinned when it is served from the store.
    let again = Apt::new(folder.path().join("recording-again"), &mirror, None);
    assert!(again.update_and_download() == repository.deb);
    wait("it is pinned", || {
        first.handle.proxy().pins().iter().any(|pin| pin == POOL)
    });
    let wanted = Pick {
        pinned: true,
        ..Pick::default()
    };
    let made = Made::of(&first, folder.path(), &wanted, MONTH);
    first.handle.stop();
    (folder, made, repository.deb)
}

#[test]
fn apt_installs_from_a_pack_alone_offline_and_with_the_origin_gone() {
    let origin = Origin::start();
    let (folder, made, deb) = recorded(&origin);
    origin.down.store(true, Ordering::SeqCst);
    for (mode, name) in [(Mode::Offline, "offline"), (Mode::Online, "cut")] {
        let second = under(&folder.path().join(name), settings(&[&origin]));
        second.handle.proxy().set_mode(mode);
        made.mount(&second);
        let proxy = format!("http://{}", second.address);
        let by_mirror = Apt::new(
            folder.path().join(format!("{name}-mirror")),
            &format!("{proxy}/mirror/debian"),
            None,
        );
        assert!(by_mirror.update_and_download() == deb, "{name}");
        let by_url = Apt::new(
            folder.path().join(format!("{name}-url")),
            &origin.url("/debian"),
            Some(proxy),
        );
        assert!(by_url.update_and_download() == deb, "{name}");
        assert_eq!(second.handle.proxy().usage().0, 0, "a pack takes no room of the cache");
        second.handle.stop();
    }
}

#[test]
fn a_miss_offline_names_what_to_pin() {
    let origin = Origin::start();
    let (folder, made, _) = recorded(&origin);
    let second = under(&folder.path().join("second"), settings(&[&origin]));
    second.handle.proxy().set_mode(Mode::Offline);
    made.mount(&second);
    let (status, _, body) = second.curl(&[], &origin.url("/debian/pool/other.deb"));
    let text = String::from_utf8_lossy(&body);
    assert!(
        status == 504 && text.contains("rackbar cache pin mirror:debian/pool/other.deb"),
        "{status} {text}"
    );
    assert!(text.contains("data pack"), "{text}");
    // Taken out, nothing of it is left.
    assert!(second.handle.proxy().unmount("a") > 0);
    assert_eq!(second.curl(&[], &origin.url("/debian/dists/stable/Release")).0, 504);
}

#[test]
fn what_the_origin_confirms_is_not_written_as_ours_and_what_it_changed_is() {
    let origin = Origin::start();
    let (folder, made, _) = recorded(&origin);
    let cache = folder.path().join("second");
    let second = under(&cache, settings(&[&origin]));
    made.mount(&second);
    let release = "/debian/dists/stable/Release";
    let (status, head, _) = second.curl(&[], &origin.url(release));
    assert!(status == 200 && head.contains("fwd-status=304"), "{head}");
    let items = second.handle.proxy().list();
    assert!(items.iter().all(|item| item.pack.as_deref() == Some("a")), "{items:?}");
    origin.put(
        release,
        Doc {
            body: b"Origin: new\n".to_vec(),
            headers: vec![("ETag".into(), "\"2\"".into())],
            ..Doc::default()
        },
    );
    let (status, _, body) = second.curl(&["-H", "Cache-Control: no-cache"], &origin.url(release));
    assert!(status == 200 && body == b"Origin: new\n");
    wait("it is stored", || {
        second.handle.proxy().list().iter().any(|item| item.pack.is_none())
    });
    second.handle.stop();
    // After a restart our own is there, whole, and nothing that points into a pack.
    let third = under(&cache, settings(&[&origin]));
    assert_eq!(third.handle.proxy().list().len(), 1);
    assert!(
        third.told.lock().unwrap().is_empty(),
        "{:?}",
        third.told.lock().unwrap()
    );
    made.mount(&third);
    third.handle.proxy().set_mode(Mode::Offline);
    assert!(
        third.curl(&[], &origin.url(release)).2 == b"Origin: new\n",
        "the newer one counts"
    );
}

#[test]
fn a_content_that_is_in_pack_and_cache_is_counted_once_and_each_copy_stands_alone() {
    let origin = Origin::start();
    let (folder, made, deb) = recorded(&origin);
    let second = under(&folder.path().join("second"), settings(&[&origin]));
    let pool = origin.url("/debian/pool/rackbar-probe_1.0_all.deb");
    assert!(second.curl(&[], &pool).2 == deb);
    wait("it is stored", || second.stored(POOL));
    let used = second.handle.proxy().usage().0;
    assert_eq!(used, deb.len() as u64);
    made.mount(&second);
    assert_eq!(second.handle.proxy().usage().0, used);
    // The pack's copy rots: ours is served on, and nothing of ours is lost.
    made.spoil("_all.deb");
    let verified = second.handle.proxy().verify();
    assert_eq!(verified.damaged, 1);
    assert!(
        second
            .told
            .lock()
            .unwrap()
            .iter()
            .any(|text| text.contains("in the data pack a"))
    );
    assert_eq!(second.handle.proxy().usage().0, used);
    origin.down.store(true, Ordering::SeqCst);
    assert!(second.curl(&[], &pool).2 == deb);
    second.handle.proxy().unmount("a");
    assert_eq!(second.handle.proxy().usage().0, used);
    assert!(second.curl(&[], &pool).2 == deb);
}

#[test]
fn a_rotten_content_of_a_pack_is_never_served() {
    let origin = Origin::start();
    let (folder, made, _) = recorded(&origin);
    made.spoil("_all.deb");
    origin.down.store(true, Ordering::SeqCst);
    let second = under(&folder.path().join("second"), settings(&[&origin]));
    second.handle.proxy().set_mode(Mode::Offline);
    made.mount(&second);
    let (status, _, _) = second.curl(&[], &origin.url("/debian/pool/rackbar-probe_1.0_all.deb"));
    assert_eq!(status, 504);
    assert_eq!(
        second.curl(&[], &origin.url("/debian/dists/stable/Release")).0,
        200,
        "the rest of it is served"
    );
}

#[test]
fn verifying_looks_at_each_copy_of_a_content() {
    let origin = Origin::start();
    let (folder, made, deb) = recorded(&origin);
    let cache = folder.path().join("second");
    let second = under(&cache, settings(&[&origin]));
    let pool = origin.url("/debian/pool/rackbar-probe_1.0_all.deb");
    assert!(second.curl(&[], &pool).2 == deb);
    wait("it is stored", || second.stored(POOL));
    made.mount(&second);
    let digest = common::apt::hex(&deb);
    let mut rotten = deb.clone();
    rotten[1000] ^= 1;
    std::fs::write(cache.join("objects").join(&digest[..2]).join(&digest), rotten).unwrap();
    assert_eq!(second.handle.proxy().verify().damaged, 1);
    let told = second.told.lock().unwrap();
    assert!(told.iter().any(|text| text.contains("is damaged on disk")), "{told:?}");
}
