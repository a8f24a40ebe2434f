//! The story of an operator with a repository of RPM packages: the real daemon, the real command line, an origin on loopback
//! with what real tools made and signed, and the real dnf and zypper of machines.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod apart;
#[path = "../../proxy/tests/common/mod.rs"]
mod common;
#[path = "../../upstream/tests/common/mod.rs"]
mod gnupg;
mod publisher;
#[path = "publisher/rpm.rs"]
mod rpm;
#[path = "../../proxy/tests/common/sums.rs"]
mod sums;

use std::process::Command;
use std::sync::atomic::Ordering;

use apart::{Appliance, OURS, WORDS, config};
use common::apt::hex;
use rackbar_os_files::rpm::{RpmSource, source};
use rackbar_upstream::Sum;
use rpm::{AT, Machine, RpmPublisher};
use serde_json::Value;

impl RpmPublisher {
    fn site(&self) -> String {
        let (url, keys) = (self.origin.url(AT), self.keys());
        format!(
            "version = 1\n[repository.ours]\nkind = \"rpm\"\nurl = \"{url}\"\nkeys = '''\n{keys}'''\n\
             [network.rack]\nsubnet = \"10.10.0.0/24\"\nproxy = \"own\"\n[role.web]\nos = \"d\"\nrepositories = [\"ours\"]\n\
             [[role.web.network]]\nname = \"lan\"\nnetwork = \"rack\"\n"
        )
    }

    /// A new machine, with the very files that plans give to systems.
    fn machine(&self, name: &str) -> Machine {
        let proxy = format!("http://{OURS}:3128");
        let files = source(&RpmSource {
            name: "ours",
            url: &format!("{proxy}/repository/ours"),
            keys: &self.keys(),
        });
        let files = files.unwrap().map(|file| (file.path, file.content));
        Machine::new(self.folder.path().join(name), &files, &proxy)
    }
}

/// A data file of which a lock has the digest alone: it has no room for it.
const LARGE: &str = "repodata/large.bin";

fn with_large(publisher: &RpmPublisher, repomd: &[u8], kind: fn(&[u8]) -> Sum) -> Vec<u8> {
    let large = vec![7; 65 << 20];
    let sum = kind(&large);
    let name = sum.kind().to_lowercase().replace('-', "");
    let data = format!(
        "<data type=\"large\"><checksum type=\"{name}\">{sum}</checksum><location href=\"{LARGE}\"/><size>{}</size></data>\
         </repomd>",
        large.len()
    );
    publisher.put(LARGE, large);
    let repomd = String::from_utf8_lossy(repomd).replace("</repomd>", &data).into_bytes();
    publisher.sign("publisher", &repomd);
    repomd
}

/// A file of the locked state as the appliance gives it: its length, or the status.
fn served(path: &str) -> Result<usize, String> {
    let url = format!("http://{OURS}:3128/repository/ours/{path}");
    let output = Command::new("curl")
        .args(["-sSf", "--noproxy", "*", &url])
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(output.stdout.len()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

fn shown(appliance: &Appliance) -> Value {
    serde_json::from_str(&appliance.well(&["repository", "show", "ours", "--json"])).unwrap()
}

#[test]
fn dnf_and_zypper_get_what_an_rpm_repository_is_locked_to_while_its_origin_moves_on() {
    let appliance = Appliance::start(&config(), "");
    let mut publisher = RpmPublisher::new();
    let first = publisher.publish("publisher", &[("tool", "1.0"), ("other", "1.0")], &["--database"]);
    let first = with_large(&publisher, &first, sums::short);
    let site = appliance.file("site.toml", publisher.site());
    appliance.well(&["site", "set", &site]);
    appliance.until("listening on 10.10.0.1:3128");
    let unlocked = publisher.machine("early").dnf("tool").unwrap_err();
    assert!(unlocked.contains("404"), "{unlocked}");

    let locked = appliance.well(&["repository", "lock", "ours"]);
    let revision = format!("ours is locked to revision {}", publisher.at);
    assert!(locked.contains(&revision) && locked.contains("2 packages"), "{locked}");
    let entry = shown(&appliance);
    assert_eq!(entry["lock"]["release"], hex(&first), "{entry}");
    assert_eq!(entry["lock"]["signer"], entry["keys"][0], "{entry}");
    assert_eq!(entry["lock"]["date"], publisher.at, "{entry}");
    // Lists for dnf and for yum, of packages, of files and of changes.
    assert_eq!(entry["lock"]["indexes"].as_array().unwrap().len(), 6, "{entry}");
    assert!(publisher.machine("one").dnf("tool").unwrap() == RpmPublisher::payload("tool", "1.0"));

    the_origin_moves_on(&appliance, &mut publisher, &first);
    only_what_is_proven_is_locked(&appliance, &mut publisher, &first);
    what_is_locked_is_served_without_the_origin(&appliance, &mut publisher);
}

/// Nothing of the old state is there any more, but for a package that no machine asked for yet.
fn the_origin_moves_on(appliance: &Appliance, publisher: &mut RpmPublisher, first: &[u8]) {
    let (one, two) = (
        RpmPublisher::payload("tool", "1.0"),
        RpmPublisher::payload("tool", "2.0"),
    );
    let old = publisher.paths();
    for path in old.iter().filter(|path| !path.contains("other")) {
        publisher.take_away(path);
    }
    publisher.publish(
        "publisher",
        &[("tool", "2.0"), ("new", "1.0"), ("other", "1.0")],
        &["--xz"],
    );
    assert!(publisher.machine("two").dnf("tool").unwrap() == one);
    assert_eq!(served(LARGE), Ok(65 << 20));
    let other = served("repodata/comps.xml").unwrap_err();
    assert!(other.contains("404"), "{other}");
    assert!(publisher.machine("three").zypper("tool").unwrap() == one);
    assert!(publisher.machine("four").dnf("new").is_err(), "no part of the lock");
    let check = appliance.well(&["repository", "check", "ours"]);
    assert!(check.contains("bring 1 packages, take away 0 and change 1"), "{check}");
    assert_eq!(
        shown(appliance)["lock"]["release"],
        hex(first),
        "a check changes nothing"
    );

    let again = appliance.well(&["repository", "lock", "ours"]);
    assert!(
        again.contains("in place of the state before") && again.contains("3 packages"),
        "{again}"
    );
    assert!(publisher.machine("five").dnf("tool").unwrap() == two);
    let check = appliance.well(&["repository", "check", "ours"]);
    assert!(check.contains("is locked to what its origin has"), "{check}");
}

/// Each of these must leave the lock alone, and say URL, reason and what to do.
fn only_what_is_proven_is_locked(appliance: &Appliance, publisher: &mut RpmPublisher, old: &[u8]) {
    let before = shown(appliance)["lock"]["release"].clone();
    let refused = |words: &[&str]| {
        let said = appliance.refused(&["repository", "lock", "ours"]);
        for words in words {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(shown(appliance)["lock"]["release"], before);
    };
    let head = "/rpm/repodata/repomd.xml";
    let packages = [("tool", "3.0")];
    let good = publisher.publish("stranger", &packages, &[]);
    refused(&[head, "not among those that are trusted", "a new key"]);
    publisher.sign("publisher", &good);
    let text = String::from_utf8(good.clone()).unwrap();
    publisher.put("repodata/repomd.xml", text.replacen("<size>", "<size>1", 1));
    refused(&[head, "does not fit the text", "publishing right now"]);
    publisher.sign("publisher", old);
    refused(&[head, "an old one is being given out", "repository unlock ours"]);
    publisher.take_away("repodata/repomd.xml.asc");
    refused(&["404", "gpg --armor --detach-sign"]);

    // Signed well, and not what is taken: weak digests, packages elsewhere, a data file that is another.
    publisher.publish("publisher", &packages, &["--checksum", "sha"]);
    refused(&[
        head,
        "its data file \"primary\"",
        "only SHA-256",
        "SHA-512",
        "createrepo_c",
    ]);
    publisher.publish(
        "publisher",
        &packages,
        &["--repomd-checksum", "sha256", "--checksum", "md5"],
    );
    refused(&["package \"tool\"", "\"md5\"", "only SHA-256"]);
    publisher.publish("publisher", &packages, &["--baseurl", "http://elsewhere.example/"]);
    refused(&["package \"tool\"", "xml:base", "outside of the repository"]);
    publisher.publish("publisher", &packages, &["--location-prefix", "../../etc"]);
    refused(&["package \"tool\"", "leads out of the repository"]);
    publisher.publish("publisher", &[("tool", "3.1")], &[]);
    let lists = publisher.paths();
    for path in lists.iter().filter(|path| path.contains("filelists.xml")) {
        publisher.put(path, "other");
    }
    refused(&["filelists.xml", "try again later"]);
}

/// Offline and with an origin that is gone; and a package that is not what was locked never.
fn what_is_locked_is_served_without_the_origin(appliance: &Appliance, publisher: &mut RpmPublisher) {
    publisher.put("Packages/other-1.0-1.noarch.rpm", RpmPublisher::payload("other", "1.0"));
    let wrong = publisher.machine("wrong").dnf("other").unwrap_err();
    assert!(wrong.contains("other-1.0-1.noarch"), "{wrong}");
    // With all of its packages the lock needs nobody any more.
    publisher.publish("publisher", &[("tool", "2.0"), ("unasked", "1.0")], &[]);
    let all = appliance.well(&["repository", "lock", "ours", "--fetch"]);
    assert!(all.contains("all 2 files are kept"), "{all}");
    publisher.origin.down.store(true, Ordering::SeqCst);
    let unasked = publisher.machine("unasked").dnf("unasked");
    assert!(unasked.unwrap() == RpmPublisher::payload("unasked", "1.0"));
    appliance.well(&["cache", "mode", "offline"]);
    let two = RpmPublisher::payload("tool", "2.0");
    assert!(publisher.machine("offline").dnf("tool").unwrap() == two);
    assert!(publisher.machine("offline-zypper").zypper("tool").unwrap() == two);
    appliance.well(&["repository", "unlock", "ours"]);
    assert!(publisher.machine("late").dnf("tool").is_err());
}

/// The same repository as openSUSE's publishers make theirs, and with digests of one kind in one list and of the other in the
/// other.
#[test]
fn dnf_and_zypper_get_what_a_repository_with_sha_512_is_locked_to_also_elsewhere_and_after_a_restart() {
    let mut appliance = Appliance::start(&config(), "");
    let mut publisher = RpmPublisher::new();
    let packages = [("tool", "1.0"), ("other", "1.0")];
    let first = publisher.publish("publisher", &packages, &["--database", "--checksum", "sha512"]);
    let text = String::from_utf8(first.clone()).unwrap();
    assert!(text.contains("\"sha512\"") && !text.contains("\"sha256\""), "{text}");
    let first = with_large(&publisher, &first, sums::long);
    let site = appliance.file("site.toml", publisher.site());
    appliance.well(&["site", "set", &site]);
    appliance.until("listening on 10.10.0.1:3128");
    let locked = appliance.well(&["repository", "lock", "ours"]);
    assert!(locked.contains("2 packages"), "{locked}");
    let release = shown(&appliance)["lock"]["release"].clone();
    assert_eq!(release, hex(&first));
    let one = RpmPublisher::payload("tool", "1.0");
    assert!(publisher.machine("one").dnf("tool").unwrap() == one);

    both_kinds_in_turn(&appliance, &mut publisher);
    what_is_not_what_a_sha_512_promises_is_refused(&appliance, &mut publisher);
    // All of it is kept, and read once more after a restart, whatever the origin has.
    let all = appliance.well(&["repository", "lock", "ours", "--fetch"]);
    assert!(all.contains("all 3 files are kept"), "{all}");
    let lock = shown(&appliance)["lock"].clone();
    publisher.origin.down.store(true, Ordering::SeqCst);
    appliance.restart();
    appliance.until("listening on 10.10.0.1:3128");
    appliance.well(&["cache", "mode", "offline"]);
    assert_eq!(shown(&appliance)["lock"], lock);
    all_is_there(&publisher, "restarted");
    let again = appliance.well(&["repository", "lock", "ours", "--fetch"]);
    assert!(again.contains("0 of 3 files are fetched"), "{again}");

    let (file, words) = (appliance.path("state"), appliance.file("pass", WORDS));
    let file = file.display().to_string();
    appliance.well(&["export", &file, "--passphrase-file", &words]);
    let moved = Appliance::moved(&file, &appliance.path("run/admin-token"));
    let there = shown(&moved)["lock"].clone();
    assert_eq!(there["release"], lock["release"]);
    all_is_there(&publisher, "moved");
}

/// Each list may have digests of its own kind.
fn both_kinds_in_turn(appliance: &Appliance, publisher: &mut RpmPublisher) {
    for (head, list, version) in [("sha256", "sha512", "2.0"), ("sha512", "sha256", "3.0")] {
        let kinds = ["--repomd-checksum", head, "--checksum", list];
        publisher.publish("publisher", &[("tool", version)], &kinds);
        let again = appliance.well(&["repository", "lock", "ours"]);
        assert!(again.contains("in place of the state before"), "{again}");
        let payload = RpmPublisher::payload("tool", version);
        let machine = |name: &str| publisher.machine(&format!("{name}-{version}"));
        assert!(machine("dnf").dnf("tool").unwrap() == payload);
        assert!(machine("zypper").zypper("tool").unwrap() == payload);
    }
}

/// Neither a data file nor a package; and of a package nothing is told but by whom it is refused.
fn what_is_not_what_a_sha_512_promises_is_refused(appliance: &Appliance, publisher: &mut RpmPublisher) {
    let packages = [("tool", "4.0"), ("other", "1.0"), ("unasked", "1.0")];
    publisher.publish("publisher", &packages, &["--checksum", "sha512"]);
    let lists = publisher.paths();
    let filelists = |path: &&String| path.contains("filelists.xml");
    let right: Vec<_> = lists
        .iter()
        .filter(filelists)
        .map(|path| (path, publisher.got(path)))
        .collect();
    right.iter().for_each(|(path, _)| publisher.put(path, "other"));
    let before = shown(appliance)["lock"].clone();
    let said = appliance.refused(&["repository", "lock", "ours"]);
    assert!(said.contains("filelists.xml") && said.contains("SHA-512"), "{said}");
    assert_eq!(shown(appliance)["lock"], before);
    right.into_iter().for_each(|(path, body)| publisher.put(path, body));
    appliance.well(&["repository", "lock", "ours"]);

    let path = "Packages/other-1.0-1.noarch.rpm";
    let rpm = publisher.got(path);
    let mut wrong = rpm.clone();
    let middle = wrong.len() / 2;
    wrong[middle] ^= 1;
    publisher.put(path, wrong);
    assert!(served(path).is_err());
    let words = format!("where {} was promised", sums::long(&rpm));
    appliance.wait("it is told", || {
        appliance
            .well(&["events"])
            .lines()
            .any(|line| line.contains("has SHA-512") && line.contains(&words))
    });
    publisher.put(path, rpm.clone());
    // Whoever comes while the second try ends gets what became of that.
    appliance.wait("the right one comes", || served(path) == Ok(rpm.len()));
}

fn all_is_there(publisher: &RpmPublisher, machine: &str) {
    let all = |name: &str, package: &str| {
        let (dnf, zypper) = (format!("{machine}-{name}"), format!("{machine}-{name}-zypper"));
        (
            publisher.machine(&dnf).dnf(package),
            publisher.machine(&zypper).zypper(package),
        )
    };
    for (package, version) in [("tool", "4.0"), ("unasked", "1.0")] {
        let payload = RpmPublisher::payload(package, version);
        assert!(all(package, package) == (Ok(payload.clone()), Ok(payload)), "{package}");
    }
}
