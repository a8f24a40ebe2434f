//! Flat repositories of Debian packages: the real daemon and command line, an origin on loopback that signs with the real gpg in
//! a file of its own or within, and the real apt of a machine.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod apart;
#[path = "../../proxy/tests/common/mod.rs"]
mod common;
#[path = "../../upstream/tests/common/mod.rs"]
mod gnupg;
mod publisher;

use std::sync::atomic::Ordering;

use apart::{Appliance, OURS};
use common::apt::{Apt, hex};
use publisher::{DAY, Publisher, date, package};
use serde_json::Value;

/// Publishes these packages in a folder below the URL, empty or with a slash at its end; the signature lies beside the list, or
/// within.
fn publish(publisher: &mut Publisher, folder: &str, key: &str, beside: bool, packages: &[(&str, &str)]) -> Vec<u8> {
    publisher.at += DAY;
    let (mut list, at) = (String::new(), publisher.at);
    for (name, version) in packages {
        let (control, deb) = package(publisher.folder.path(), name, version);
        let path = format!("./{folder}{name}_{version}_all.deb");
        let (bytes, digest) = (deb.len(), hex(&deb));
        list.push_str(&format!(
            "{control}Filename: {path}\nSize: {bytes}\nSHA256: {digest}\n\n"
        ));
        publisher.put(path.trim_start_matches("./"), deb);
    }
    let (bytes, digest) = (list.len(), hex(list.as_bytes()));
    // apt warns where a folder is called otherwise.
    let name = if folder.is_empty() {
        String::new()
    } else {
        format!("Codename: {folder}\n")
    };
    let release = format!(
        "Origin: x\n{name}Date: {}\nSHA256:\n {digest} {bytes} Packages\n",
        date(at)
    );
    publisher.put(&format!("{folder}Packages"), list);
    for name in ["InRelease", "Release", "Release.gpg"] {
        publisher.take_away(&format!("{folder}{name}"));
    }
    if beside {
        let signature = publisher.gpg.detach(at, key, &[], release.as_bytes());
        publisher.put(&format!("{folder}Release.gpg"), signature);
        publisher.put(&format!("{folder}Release"), release.clone());
        return release.into_bytes();
    }
    let signed = publisher.gpg.clearsign(at, &[key], &[], &release);
    publisher.put(&format!("{folder}InRelease"), signed.clone());
    signed
}

fn site(publisher: &Publisher, suite: &str) -> String {
    let (url, keys) = (publisher.origin.url("/debian"), publisher.keys());
    format!(
        "version = 1\n[repository.ours]\nurl = \"{url}\"\nsuite = \"{suite}\"\nkeys = '''\n{keys}'''\n\
         [network.rack]\nsubnet = \"10.10.0.0/24\"\nproxy = \"own\"\n"
    )
}

/// The package as a new machine's apt gets it, or what apt says.
fn installs(publisher: &Publisher, machine: &str, suite: &str, name: &str) -> Result<Vec<u8>, String> {
    let source = format!("http://{OURS}:3128/repository/ours");
    let apt = Apt::new(publisher.folder.path().join(machine), &source, None);
    let keys = apt.folder.join("etc/ours.asc");
    std::fs::write(&keys, publisher.keys()).unwrap();
    let line = format!("deb [signed-by={}] {source} {suite}\n", keys.display());
    std::fs::write(apt.folder.join("etc/sources.list"), line).unwrap();
    for arguments in [["update", "-q"], ["download", name]] {
        let (good, text) = apt.run(&arguments);
        if !good || text.contains("W:") || text.contains("E:") {
            return Err(text);
        }
    }
    let mut got = std::fs::read_dir(apt.folder.join("got")).unwrap();
    Ok(std::fs::read(got.next().unwrap().unwrap().path()).unwrap())
}

fn deb(publisher: &Publisher, name: &str, version: &str) -> Vec<u8> {
    std::fs::read(publisher.folder.path().join(format!("{name}-{version}.deb"))).unwrap()
}

#[test]
fn flat_repositories_are_locked_and_served_as_others() {
    let config = format!(
        "version = 1\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\naddress = \"{OURS}/24\"\n\
         dhcp = \"off\"\nproxy = \"own\"\n"
    );
    let appliance = Appliance::start(&config, "");
    let mut publisher = Publisher::new();
    let file = appliance.file("site.toml", site(&publisher, "./"));
    appliance.well(&["site", "set", &file]);
    appliance.until("listening on 10.10.0.1:3128");
    let none = appliance.refused(&["repository", "lock", "ours"]);
    for words in [
        "/debian/InRelease",
        "/debian/Release",
        "404",
        "whether the repository is signed",
    ] {
        assert!(none.contains(words), "{words}: {none}");
    }
    publish(&mut publisher, "", "stranger", true, &[("tool", "0.9")]);
    let strange = appliance.refused(&["repository", "lock", "ours"]);
    assert!(strange.contains("not among those that are trusted"), "{strange}");

    let first = publish(&mut publisher, "", "publisher", true, &[("tool", "1.0")]);
    let locked = appliance.well(&["repository", "lock", "ours", "--fetch"]);
    assert!(
        locked.contains("1 packages") && locked.contains("all 1 files"),
        "{locked}"
    );
    let entry: Value = serde_json::from_str(&appliance.well(&["repository", "show", "ours", "--json"])).unwrap();
    assert_eq!(entry["lock"]["release"], hex(&first), "{entry}");
    assert_eq!(entry["lock"]["indexes"][0]["path"], "Packages", "{entry}");

    // It moves on, to a list with its signature within, and what is locked stays.
    publish(&mut publisher, "", "publisher", false, &[("tool", "2.0")]);
    publisher.take_away("tool_1.0_all.deb");
    assert_eq!(
        installs(&publisher, "one", "./", "tool").unwrap(),
        deb(&publisher, "tool", "1.0")
    );
    let check = appliance.well(&["repository", "check", "ours"]);
    assert!(check.contains("bring 0 packages, take away 0 and change 1"), "{check}");
    appliance.well(&["repository", "lock", "ours"]);
    assert_eq!(
        installs(&publisher, "two", "./", "tool").unwrap(),
        deb(&publisher, "tool", "2.0")
    );
    publish(&mut publisher, "", "publisher", false, &[("tool", "2.5")]);
    publisher.put("Packages", "other");
    let torn = appliance.refused(&["repository", "lock", "ours"]);
    assert!(torn.contains("Packages") && torn.contains("try again later"), "{torn}");

    // One in a folder, and with an origin that is gone then.
    publish(&mut publisher, "amd64/", "publisher", true, &[("tool", "3.0")]);
    let file = appliance.file("site.toml", site(&publisher, "amd64/"));
    appliance.well(&["site", "set", &file]);
    let list = appliance.well(&["repository", "list"]);
    assert!(list.contains("lock it again: its suite changed"), "{list}");
    appliance.well(&["repository", "lock", "ours", "--fetch"]);
    publisher.origin.down.store(true, Ordering::SeqCst);
    let got = installs(&publisher, "three", "amd64/", "tool").unwrap();
    assert_eq!(got, deb(&publisher, "tool", "3.0"));
    assert!(
        installs(&publisher, "four", "./", "tool").is_err(),
        "another state is not to be had"
    );
}
