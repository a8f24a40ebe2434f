//! The story of an operator with a package repository of their own: the real daemon, the real command line, an origin on
//! loopback that signs with the real gpg, and the real apt of a machine.

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
use publisher::{LIST, Publisher};
use serde_json::Value;

fn config(proxy: &str) -> String {
    format!(
        "version = 1\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\naddress = \"{OURS}/24\"\n\
         dhcp = \"off\"\nproxy = \"{proxy}\"\n"
    )
}

impl Publisher {
    fn site(&self) -> String {
        let (url, keys) = (self.origin.url("/debian"), self.keys());
        format!(
            "version = 1\n[repository.ours]\nurl = \"{url}\"\nsuite = \"stable\"\nkeys = '''\n{keys}'''\n\
             [network.rack]\nsubnet = \"10.10.0.0/24\"\nproxy = \"own\"\n[role.web]\nos = \"d\"\nrepositories = [\"ours\"]\n\
             [[role.web.network]]\nname = \"lan\"\nnetwork = \"rack\"\n"
        )
    }

    /// What a new machine's apt says of the newest version of a package, and the package as it got it.
    fn installs(&self, machine: &str, name: &str) -> Result<(String, Vec<u8>), String> {
        let source = format!("http://{OURS}:3128/repository/ours");
        let apt = Apt::new(self.folder.path().join(machine), &source, None);
        let keys = apt.folder.join("etc/ours.asc");
        std::fs::write(&keys, self.keys()).unwrap();
        let line = format!("deb [signed-by={}] {source} stable main\n", keys.display());
        std::fs::write(apt.folder.join("etc/sources.list"), line).unwrap();
        let (good, text) = apt.run(&["update"]);
        if !good || text.contains("W:") || text.contains("E:") {
            return Err(text);
        }
        let (good, text) = apt.run(&["download", name]);
        if !good {
            return Err(text);
        }
        let got = std::fs::read_dir(apt.folder.join("got"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let file = got.file_name().into_string().unwrap();
        Ok((file, std::fs::read(got.path()).unwrap()))
    }

    fn deb(&self, name: &str, version: &str) -> Vec<u8> {
        std::fs::read(self.folder.path().join(format!("{name}-{version}.deb"))).unwrap()
    }
}

fn shown(appliance: &Appliance) -> Value {
    serde_json::from_str(&appliance.well(&["repository", "show", "ours", "--json"])).unwrap()
}

#[test]
fn machines_get_what_a_repository_is_locked_to_until_it_is_locked_again() {
    let appliance = Appliance::start(&config("own"), "");
    let mut publisher = Publisher::new();
    let first = publisher.publish("publisher", &[("tool", "1.0"), ("other", "1.0")]);
    let none = appliance.refused(&["repository", "lock", "ours"]);
    assert!(none.contains("has no repository \"ours\""), "{none}");
    let site = appliance.file("site.toml", publisher.site());
    appliance.well(&["site", "set", &site]);
    appliance.until("listening on 10.10.0.1:3128");
    let list = appliance.well(&["repository", "list"]);
    assert!(
        list.contains("ours") && list.contains("web") && list.contains("not locked"),
        "{list}"
    );
    let unlocked = publisher.installs("early", "tool").unwrap_err();
    assert!(unlocked.contains("404"), "{unlocked}");

    let locked = appliance.well(&["repository", "lock", "ours"]);
    assert!(
        locked.contains("ours is locked to stable") && locked.contains("2 packages"),
        "{locked}"
    );
    let entry = shown(&appliance);
    assert_eq!(entry["lock"]["release"], hex(&first), "{entry}");
    assert_eq!(entry["lock"]["signer"], entry["keys"][0], "{entry}");
    assert_eq!(entry["lock"]["indexes"][0]["path"], LIST, "{entry}");
    let got = publisher.installs("one", "tool").unwrap();
    assert_eq!(got, ("tool_1.0_all.deb".to_owned(), publisher.deb("tool", "1.0")));

    // The origin moves on: the old list and one of the old packages are gone there.
    publisher.publish("publisher", &[("tool", "2.0"), ("new", "1.0"), ("other", "1.0")]);
    publisher.take_away("pool/tool_1.0_all.deb");
    let got = publisher.installs("two", "tool").unwrap();
    assert_eq!(got, ("tool_1.0_all.deb".to_owned(), publisher.deb("tool", "1.0")));
    let check = appliance.well(&["repository", "check", "ours"]);
    assert!(check.contains("bring 1 packages, take away 0 and change 1"), "{check}");
    assert_eq!(
        shown(&appliance)["lock"]["release"],
        hex(&first),
        "a check changes nothing"
    );

    let again = appliance.well(&["repository", "lock", "ours"]);
    assert!(
        again.contains("in place of the state before") && again.contains("3 packages"),
        "{again}"
    );
    let got = publisher.installs("three", "tool").unwrap();
    assert_eq!(got, ("tool_2.0_all.deb".to_owned(), publisher.deb("tool", "2.0")));
    let check = appliance.well(&["repository", "check", "ours"]);
    assert!(check.contains("is locked to what its origin has"), "{check}");

    only_what_is_proven_is_locked(&appliance, &mut publisher, &first);
    what_is_locked_is_served_without_the_origin(&appliance, &publisher);
}

/// Each of these must leave the lock alone, and say URL, reason and what to do.
fn only_what_is_proven_is_locked(appliance: &Appliance, publisher: &mut Publisher, old: &[u8]) {
    let before = shown(appliance)["lock"]["release"].clone();
    let refused = |words: &[&str]| {
        let said = appliance.refused(&["repository", "lock", "ours"]);
        for words in [&["/debian/dists/stable"], words].concat() {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(shown(appliance)["lock"]["release"], before);
    };
    let was = publisher.at;
    publisher.publish("stranger", &[("tool", "3.0")]);
    refused(&["not among those that are trusted", "a new key"]);
    publisher.at = was;
    let signed = publisher.publish("publisher", &[("tool", "3.0")]);
    let text = String::from_utf8(signed.clone()).unwrap();
    publisher.put("dists/stable/InRelease", text.replace("Origin: x", "Origin: y"));
    refused(&["does not fit the text"]);
    publisher.put("dists/stable/InRelease", old);
    refused(&["an old one is being given out", "repository unlock ours"]);
    publisher.take_away("dists/stable/InRelease");
    refused(&["404"]);

    // The signed list is right and the list of packages is another, wherever it is asked for.
    publisher.put("dists/stable/InRelease", signed);
    let paths: Vec<String> = publisher.origin.docs.lock().unwrap().keys().cloned().collect();
    for path in paths.iter().filter(|path| path.contains("binary-amd64")) {
        publisher.put(path.trim_start_matches("/debian/"), "other");
    }
    refused(&["try again later"]);
}

/// Offline, after the proxy started anew, and with an origin that is gone; and a package that is not what was locked never.
fn what_is_locked_is_served_without_the_origin(appliance: &Appliance, publisher: &Publisher) {
    publisher.put("pool/other_1.0_all.deb", publisher.deb("tool", "2.0"));
    let wrong = publisher.installs("wrong", "other").unwrap_err();
    assert!(wrong.contains("E:"), "{wrong}");
    publisher.origin.down.store(true, Ordering::SeqCst);
    appliance.well(&["cache", "mode", "offline"]);
    let got = publisher.installs("offline", "tool").unwrap();
    assert_eq!(got.1, publisher.deb("tool", "2.0"));
    appliance.file("rackbar.toml", config("off"));
    appliance.until("no network wants it");
    let stopped = appliance.refused(&["repository", "lock", "ours"]);
    assert!(stopped.contains("the proxy does not run"), "{stopped}");
    appliance.file("rackbar.toml", config("own"));
    appliance.until("listening on 10.10.0.1:3128");
    let got = publisher.installs("anew", "tool").unwrap();
    assert_eq!(got.1, publisher.deb("tool", "2.0"));

    let site = publisher.site().replace("stable", "testing");
    let site = appliance.file("site.toml", site);
    appliance.well(&["site", "set", &site]);
    let list = appliance.well(&["repository", "list"]);
    assert!(list.contains("lock it again: its suite changed"), "{list}");
    appliance.well(&["repository", "unlock", "ours"]);
    assert!(publisher.installs("late", "tool").is_err());
    let gone = appliance.refused(&["repository", "unlock", "ours"]);
    assert!(gone.contains("is not locked"), "{gone}");
}

/// Keys of what is kept for the repository.
fn kept(appliance: &Appliance) -> Vec<String> {
    let all: Value = serde_json::from_str(&appliance.well(&["cache", "list", "--json"])).unwrap();
    let keys = all
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| entry["key"].as_str().unwrap().to_owned());
    keys.filter(|key| key.starts_with("locked:ours/")).collect()
}

#[test]
fn all_packages_of_a_lock_are_kept_on_demand_whatever_their_origin_deletes() {
    let appliance = Appliance::start(&config("own"), "");
    let mut publisher = Publisher::new();
    let names: Vec<String> = (0..16).map(|number| format!("p{number}")).collect();
    let packages: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1.0")).collect();
    publisher.publish("publisher", &packages);
    let site = appliance.file("site.toml", publisher.site());
    appliance.well(&["site", "set", &site]);
    // The smallest cache there is, and almost all of it is pinned.
    let url = publisher.origin.url("/debian");
    let mirror = format!("[proxy]\nmegabytes = 16\n[[proxy.mirror]]\nname = \"big\"\nupstream = [\"{url}\"]\n");
    appliance.file("rackbar.toml", config("own") + &mirror);
    publisher.put("big", vec![7; 15_500_000]);
    appliance.wait("the mirror is there", || {
        appliance.ask(&["cache", "pin", "mirror:big/big"]).status.success()
    });
    let fetch = ["repository", "lock", "ours", "--fetch"];
    let small = appliance.refused(&fetch);
    for words in ["have 2 MiB", "room for", "more `megabytes`", "Nothing was changed"] {
        assert!(small.contains(words), "{words}: {small}");
    }
    assert!(shown(&appliance)["lock"].is_null() && kept(&appliance).is_empty());

    appliance.well(&["cache", "unpin", "mirror:big/big"]);
    publisher.take_away("pool/p3_1.0_all.deb");
    let torn = appliance.refused(&fetch);
    assert!(
        torn.contains("15 of 16 files are kept") && torn.contains("p3_1.0_all.deb"),
        "{torn}"
    );
    publisher.put("pool/p3_1.0_all.deb", publisher.deb("p3", "1.0"));
    let lines = appliance.well(&[&fetch[..], &["--json"]].concat());
    let lines: Vec<Value> = lines
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    let last = lines.last().unwrap();
    assert_eq!(
        (&last["running"], &last["kept"], &last["failed"]),
        (&false.into(), &16.into(), &0.into())
    );
    assert_eq!(
        last["bytes"],
        publisher.deb("p3", "1.0").len(),
        "it went on where it ended"
    );
    assert_eq!(kept(&appliance).len(), 16);

    what_is_kept_follows_the_lock(&appliance, &mut publisher);
}

/// No machine has asked for any package, and their origin has nothing any more.
fn what_is_kept_follows_the_lock(appliance: &Appliance, publisher: &mut Publisher) {
    publisher.origin.down.store(true, Ordering::SeqCst);
    let got = publisher.installs("one", "p5").unwrap();
    assert_eq!(got, ("p5_1.0_all.deb".to_owned(), publisher.deb("p5", "1.0")));
    publisher.origin.down.store(false, Ordering::SeqCst);
    publisher.publish("publisher", &[("p5", "1.0"), ("p6", "2.0")]);
    appliance.well(&["repository", "lock", "ours"]);
    assert_eq!(
        kept(appliance),
        ["locked:ours/pool/p5_1.0_all.deb"],
        "of the new state alone"
    );
    // Unlocked while the proxy does not run: it lets go when it does.
    appliance.file("rackbar.toml", config("off"));
    appliance.until("no network wants it");
    appliance.well(&["repository", "unlock", "ours"]);
    appliance.file("rackbar.toml", config("own"));
    appliance.until("listening on 10.10.0.1:3128");
    assert!(kept(appliance).is_empty());
    let pins = appliance.well(&["cache", "mode"]);
    assert!(!pins.contains("locked:ours"), "{pins}");
}
