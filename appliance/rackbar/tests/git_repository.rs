//! Git repositories: the real daemon and command line, an origin on loopback that is the real `git http-backend`, and the real
//! `git clone` of a machine; and origins that lie.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod apart;
mod forge;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use apart::{Appliance, OURS, WORDS, config};
use forge::{Forge, fed, git, well};
use serde_json::Value;

fn site(url: &str, reference: &str) -> String {
    format!(
        "version = 1\n[repository.ours]\nkind = \"git\"\nurl = \"{url}\"\n{reference}\n\
         [network.rack]\nsubnet = \"10.10.0.0/24\"\nproxy = \"own\"\n[role.web]\nos = \"d\"\nrepositories = [\"ours\"]\n\
         [[role.web.network]]\nname = \"lan\"\nnetwork = \"rack\"\n"
    )
}

fn with(appliance: &Appliance, url: &str, reference: &str) {
    let file = appliance.file("site.toml", site(url, reference));
    appliance.well(&["site", "set", &file]);
}

fn started() -> (Appliance, Forge) {
    let appliance = Appliance::start(&config(), "");
    let forge = Forge::start();
    forge.commit("site.toml", "version = 1\n");
    with(&appliance, &forge.url(), "ref = \"main\"");
    appliance.until("listening on 10.10.0.1:3128");
    (appliance, forge)
}

fn shown(appliance: &Appliance) -> Value {
    serde_json::from_str(&appliance.well(&["repository", "show", "ours", "--json"])).unwrap()
}

const SERVED: &str = "http://10.10.0.1:3128/repository/ours";

/// What a new machine's `git clone` gets: its commit and the name that is checked out, all of it sound.
fn clones(folder: &Path, machine: &str) -> Result<(String, String), String> {
    let output = git(folder, &["clone", "-q", SERVED, machine]);
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let at = folder.join(machine);
    well(&at, &["fsck", "--full", "--strict"]);
    Ok((
        well(&at, &["rev-parse", "HEAD"]),
        well(&at, &["rev-parse", "--abbrev-ref", "HEAD"]),
    ))
}

/// The answer to a GET of the repository: its head and body.
fn served(path: &str) -> (String, Vec<u8>) {
    let mut stream = TcpStream::connect((OURS, 3128)).unwrap();
    let question = format!("GET /repository/ours/{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(question.as_bytes()).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let body = answer.split_off(end + 4);
    (String::from_utf8(answer).unwrap(), body)
}

#[test]
fn machines_clone_the_commit_that_a_git_repository_is_locked_to_and_no_other() {
    let (mut appliance, forge) = started();
    let machines = tempfile::tempdir().unwrap();
    let early = clones(machines.path(), "early").unwrap_err();
    assert!(early.contains("not found"), "{early}");
    let check = appliance.well(&["repository", "check", "ours"]);
    assert!(
        check.contains("is not locked") && check.contains("1 commits"),
        "{check}"
    );
    let first = forge.commit("roles/web/run", "#!/bin/sh\necho ready\n");
    let locked = appliance.well(&["repository", "lock", "ours"]);
    assert!(locked.contains(&first) && locked.contains("2 commits"), "{locked}");
    let entry = shown(&appliance);
    assert_eq!(entry["lock"]["revision"], first, "{entry}");
    assert_eq!(
        (&entry["reference"], &entry["lock"]["signer"]),
        (&"main".into(), &"".into())
    );
    let list = appliance.well(&["repository", "list"]);
    assert!(list.contains(&format!("locked to {}", &first[..12])), "{list}");
    let at = |machine: &str| clones(machines.path(), machine).unwrap();
    assert_eq!(at("one"), (first.clone(), "main".to_owned()));

    // The origin moves on; machines do not, until it is locked again.
    let second = forge.commit("site.toml", "version = 1\n# more\n");
    let check = appliance.well(&["repository", "check", "ours"]);
    for words in [&*first, &second, "bring 1 commits"] {
        assert!(check.contains(words), "{words}: {check}");
    }
    assert_eq!(at("two").0, first);
    let other = git(&machines.path().join("two"), &["fetch", "-q", SERVED, &second]);
    assert!(!other.status.success(), "another commit is not to be had");
    let push = git(
        &machines.path().join("two"),
        &["push", "-q", SERVED, "HEAD:refs/heads/x"],
    );
    assert!(!push.status.success(), "nobody writes");
    let again = appliance.well(&["repository", "lock", "ours"]);
    assert!(
        again.contains("in place of the state before") && again.contains("3 commits"),
        "{again}"
    );
    let same = appliance.well(&["repository", "lock", "ours"]);
    assert!(same.contains("as it was") && same.contains("3 commits"), "{same}");
    let check = appliance.well(&["repository", "check", "ours"]);
    assert!(check.contains("is locked to what its origin has"), "{check}");
    assert_eq!(at("three").0, second);
    well(&machines.path().join("one"), &["pull", "-q"]);
    assert_eq!(well(&machines.path().join("one"), &["rev-parse", "HEAD"]), second);

    a_history_that_was_written_anew_is_refused(&appliance, &forge, &second);
    let fetch = appliance.refused(&["repository", "lock", "ours", "--fetch"]);
    assert!(fetch.contains("kept whole with each lock"), "{fetch}");

    // Without the origin, and after a restart.
    drop(forge);
    appliance.well(&["cache", "mode", "offline"]);
    appliance.restart();
    appliance.until("listening on 10.10.0.1:3128");
    assert_eq!(at("four"), (second, "main".to_owned()));
    files_are_had_without_git(machines.path());
    appliance.well(&["repository", "unlock", "ours"]);
    assert!(clones(machines.path(), "late").is_err());
}

fn a_history_that_was_written_anew_is_refused(appliance: &Appliance, forge: &Forge, second: &str) {
    well(&forge.work(), &["commit", "-q", "--amend", "-m", "otherwise"]);
    let anew = appliance.refused(&["repository", "lock", "ours"]);
    for words in [second, "written anew", "repository unlock ours"] {
        assert!(anew.contains(words), "{words}: {anew}");
    }
    assert_eq!(shown(appliance)["lock"]["revision"], second, "nothing was changed");
}

/// The files alone, as an archive.
fn files_are_had_without_git(folder: &Path) {
    let (head, archive) = served("tree.tar.gz");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let tree = folder.join("tree");
    std::fs::create_dir(&tree).unwrap();
    let mut tar = Command::new("tar")
        .args(["-xz", "-C"])
        .arg(&tree)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(tar.wait().unwrap().success());
    for path in ["site.toml", "roles/web/run"] {
        assert_eq!(
            std::fs::read(tree.join(path)).unwrap(),
            std::fs::read(folder.join("four").join(path)).unwrap()
        );
    }
}

#[test]
fn tags_commits_and_what_is_checked_out_are_locked_too() {
    let (appliance, forge) = started();
    let machines = tempfile::tempdir().unwrap();
    let first = well(&forge.work(), &["rev-parse", "HEAD"]);
    well(&forge.work(), &["tag", "-a", "-m", "one", "v1"]);
    well(&forge.work(), &["tag", "light"]);
    well(&forge.work(), &["tag", "twice"]);
    well(&forge.work(), &["branch", "twice"]);
    let second = forge.commit("site.toml", "version = 1\n# more\n");
    let table = [
        ("ref = \"v1\"".to_owned(), &first, "HEAD"),
        ("ref = \"light\"".to_owned(), &first, "HEAD"),
        ("ref = \"refs/heads/main\"".to_owned(), &second, "main"),
        (String::new(), &second, "main"),
        (format!("ref = \"{first}\""), &first, "HEAD"),
        ("ref = \"refs/heads/twice\"".to_owned(), &first, "twice"),
    ];
    for (number, (reference, commit, name)) in table.into_iter().enumerate() {
        with(&appliance, &forge.url(), &reference);
        let locked = appliance.well(&["repository", "lock", "ours"]);
        assert!(locked.contains(commit), "{reference}: {locked}");
        let got = clones(machines.path(), &format!("machine-{number}"));
        assert_eq!(got, Ok((commit.clone(), name.to_owned())), "{reference}");
    }
    assert_eq!(well(&machines.path().join("machine-0"), &["tag"]), "v1");
    with(&appliance, &forge.url(), "ref = \"v1\"");
    let list = appliance.well(&["repository", "list"]);
    assert!(list.contains("lock it again: its ref changed"), "{list}");
    let none = "1".repeat(40);
    for (reference, words) in [
        ("twice", "a branch and a tag of the name twice"),
        ("nothing", "it has no branch or tag nothing"),
        ("refs/heads/nothing", "it has no refs/heads/nothing"),
        (none.as_str(), "the server says"),
    ] {
        with(&appliance, &forge.url(), &format!("ref = \"{reference}\""));
        let refused = appliance.refused(&["repository", "lock", "ours"]);
        assert!(
            refused.contains(words) && refused.contains("in the site file"),
            "{words}: {refused}"
        );
    }
}

#[test]
fn a_lock_of_git_travels_with_the_saved_state_to_where_there_is_no_origin() {
    let (appliance, forge) = started();
    // More than is written in one go where it is put in, and nothing that could be packed.
    let mut state = 1_u64;
    let noise = (0..(20 << 20) / 8).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state ^ state >> 29).to_le_bytes()
    });
    let noise: Vec<u8> = noise.collect();
    std::fs::write(forge.work().join("noise"), noise).unwrap();
    let commit = forge.commit("roles/web/run", "#!/bin/sh\necho ready\n");
    appliance.well(&["repository", "lock", "ours"]);
    let machines = tempfile::tempdir().unwrap();
    let (file, token) = (machines.path().join("state"), machines.path().join("token"));
    let file = file.display().to_string();
    let words = appliance.file("pass", WORDS);
    appliance.well(&["export", &file, "--passphrase-file", &words]);
    // A lock is in the state, and no part of what the proxy stored.
    let none = appliance.refused(&["cache", "export", &format!("{file}.pack")]);
    assert!(none.contains("nothing that the proxy has stored"), "{none}");
    std::fs::copy(appliance.path("run/admin-token"), &token).unwrap();
    let there = shown(&appliance);
    let bytes = |index: &Value| index["bytes"].as_u64().unwrap();
    let largest = there["lock"]["indexes"].as_array().unwrap().iter().map(bytes).max();
    assert!(largest > Some(16 << 20), "{there}");
    let (_, archive) = served("tree.tar.gz");

    let moved = Appliance::moved(&file, &token);
    assert_eq!(shown(&moved), there, "all that is kept of it came along");
    let got = clones(machines.path(), "machine");
    assert_eq!(got, Ok((commit, "main".to_owned())));
    let (head, same) = served("tree.tar.gz");
    assert!(head.starts_with("HTTP/1.1 200") && same == archive, "{head}");
    moved.well(&["repository", "unlock", "ours"]);
    assert!(clones(machines.path(), "late").is_err());
}

/// An answer with a pack in it.
fn with_pack(pack: &[u8]) -> Vec<u8> {
    let mut out = b"000dpackfile\n".to_vec();
    for piece in pack.chunks(60_000) {
        out.extend_from_slice(format!("{:04x}\x01", piece.len() + 5).as_bytes());
        out.extend_from_slice(piece);
    }
    out.extend_from_slice(b"0000");
    out
}

/// A pack of these objects, one name in a line.
fn packed(folder: &Path, args: &[&str], names: &str) -> Vec<u8> {
    let all = ["pack-objects", "--stdout", "-q"];
    fed(folder, &[&all[..], args].concat(), names.as_bytes())
}

#[test]
fn an_origin_that_lies_is_refused_and_the_lock_is_as_it_was() {
    let (appliance, forge) = started();
    let machines = tempfile::tempdir().unwrap();
    let first = well(&forge.work(), &["rev-parse", "HEAD"]);
    appliance.well(&["repository", "lock", "ours"]);
    let second = forge.commit("site.toml", "version = 1\n# more\n");
    let refused = |words: &[&str]| {
        let said = appliance.refused(&["repository", "lock", "ours"]);
        for words in words {
            assert!(said.contains(words), "{words}: {said}");
        }
        assert_eq!(shown(&appliance)["lock"]["revision"], first);
    };
    let post = |path: &str| path.ends_with("git-upload-pack");
    let is_pack = move |path: &str, body: &[u8]| post(path) && body.windows(8).any(|eight| eight == b"packfile");
    let instead = |pack: Vec<u8>| {
        forge.lie(move |path, head, body| match is_pack(path, &body) {
            true => (head, with_pack(&pack)),
            false => (head, body),
        });
    };

    // The state before, whole and sound, in place of the one that was named.
    instead(packed(&forge.work(), &["--revs"], &format!("{first}\n")));
    refused(&[&second, "is missing"]);
    // A history that was written anew, with the commit that is locked thrown in.
    well(&forge.work(), &["checkout", "-q", "--orphan", "anew"]);
    let anew = forge.commit("site.toml", "version = 3\n");
    well(&forge.work(), &["branch", "-f", "main", "anew"]);
    instead(packed(&forge.work(), &["--revs"], &format!("{anew}\n{first}\n")));
    refused(&[&anew, "written anew"]);
    well(&forge.work(), &["branch", "-f", "main", &second]);
    well(&forge.work(), &["checkout", "-q", "main"]);
    // Everything but one object.
    let all = well(&forge.work(), &["rev-list", "--objects", "--no-object-names", "main"]);
    let blob = well(&forge.work(), &["rev-parse", "main:site.toml"]);
    let but: String = all
        .lines()
        .filter(|id| *id != blob)
        .map(|id| format!("{id}\n"))
        .collect();
    instead(packed(&forge.work(), &[], &but));
    refused(&["it is not whole", &format!("blob {blob} is missing")]);
    // The content of a file changed, and the pack put right around it: it is another object then.
    let other = machines.path().join("other");
    std::fs::write(&other, "version = 2\n").unwrap();
    let other = well(&forge.work(), &["hash-object", "-w", &other.display().to_string()]);
    instead(packed(&forge.work(), &[], &format!("{but}{other}\n")));
    refused(&["it is not whole", &format!("blob {blob} is missing")]);

    // Cut short, within the connection or by the server's own count.
    forge.lie(move |path, head, body| match is_pack(path, &body) {
        true => (
            head + &format!("Content-Length: {}\r\n", body.len()),
            body[..body.len() / 2].to_vec(),
        ),
        false => (head, body),
    });
    refused(&["broke off"]);
    forge.lie(move |path, head, body| match is_pack(path, &body) {
        true => (head, body[..body.len() / 2].to_vec()),
        false => (head, body),
    });
    refused(&["cut short", "try again later"]);
    // More than there may be.
    instead(vec![0; 70 << 20]);
    refused(&["longer than", "64 MiB"]);
    // Somewhere else.
    forge.lie(|_, _, _| {
        let head = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/ours\r\n".to_owned();
        (head, Vec::new())
    });
    refused(&["leads to http://127.0.0.1:1/ours", "not followed"]);
    // No Git at all, an older one, and one that says no.
    forge.lie(|_, head, _| (head, b"<html>hello</html>".to_vec()));
    refused(&["none of Git's smart HTTP", "`git clone` takes"]);
    forge.lie(move |path, head, body| match post(path) {
        true => (head, body),
        false => (
            head,
            format!(
                "001e# service=git-upload-pack\n00000034{first_ref} HEAD\0x\n",
                first_ref = "1".repeat(40)
            )
            .into_bytes(),
        ),
    });
    refused(&["does not speak version 2"]);
    forge.lie(|_, head, _| (head, b"0012ERR no access\n".to_vec()));
    refused(&["the server says: no access"]);
    forge.lie(|_, _, _| ("HTTP/1.1 401 Unauthorized\r\n".to_owned(), Vec::new()));
    refused(&["401", "read without a login"]);

    assert_eq!(clones(machines.path(), "machine").unwrap().0, first);
    forge.tell_the_truth();
    let locked = appliance.well(&["repository", "lock", "ours"]);
    assert!(locked.contains(&second), "{locked}");
}
