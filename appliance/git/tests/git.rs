//! Packs that the real git makes, read and proven; and packs that somebody else made.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod real;

use std::collections::BTreeMap;
use std::path::Path;

use rackbar_git::{Found, GitError, Id, Limits, Pack, TreeFile, served};
use real::{fed, well};

fn id(folder: &Path, name: &str) -> Id {
    Id::read(well(folder, &["rev-parse", name]).as_bytes()).unwrap()
}

/// A repository with a history in which files change a little, a folder, a link, a file that can be run, and a tag.
fn history(commits: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    well(at, &["init", "-q"]);
    std::fs::create_dir_all(at.join("roles/web")).unwrap();
    std::os::unix::fs::symlink("../site.toml", at.join("roles/site")).unwrap();
    std::fs::write(at.join("run"), "#!/bin/sh\n").unwrap();
    std::fs::set_permissions(at.join("run"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut text: Vec<String> = (0..2000).map(|line| format!("line {line} of many")).collect();
    for number in 0..commits {
        text[number * 7 % 2000] = format!("changed by {number}");
        std::fs::write(at.join("site.toml"), text.join("\n")).unwrap();
        std::fs::write(at.join("roles/web/main"), format!("number {number}\n")).unwrap();
        well(at, &["add", "."]);
        well(at, &["commit", "-q", "-m", &format!("number {number}")]);
    }
    well(at, &["tag", "-a", "-m", "first", "v1"]);
    folder
}

/// What git packs of a name and all it stands for.
fn packed(folder: &Path, name: &str, more: &[&str]) -> Vec<u8> {
    let args = ["pack-objects", "--revs", "--stdout", "-q", "--window=50"];
    fed(folder, &[&args[..], more].concat(), format!("{name}\n").as_bytes())
}

#[test]
fn packs_of_git_are_proven_and_indexed_as_git_does_it() {
    let folder = history(40);
    let at = folder.path();
    for more in [&["--delta-base-offset"][..], &[]] {
        let bytes = packed(at, "v1", more);
        let pack = Pack::read(&bytes, Limits::default()).unwrap();
        let (tag, main) = (id(at, "v1"), id(at, "main"));
        assert_eq!(pack.commit(tag), Ok(main));
        assert_eq!(pack.committed(main), Ok(1_700_000_000));
        assert_eq!((pack.commits().count(), pack.history(main).unwrap().len()), (40, 40));
        let older = pack.history(id(at, "main~10")).unwrap();
        assert!(older.len() == 30 && !older.contains(&main));
        let path = at.join("x.pack");
        std::fs::write(&path, &bytes).unwrap();
        let name = well(at, &["index-pack", "x.pack"]);
        assert_eq!(name, pack.name().to_string());
        assert!(
            std::fs::read(at.join("x.idx")).unwrap() == pack.index().unwrap(),
            "git's index is another"
        );
        std::fs::remove_file(at.join("x.idx")).unwrap();
    }
}

#[test]
fn the_files_of_a_commit_are_what_git_checks_out() {
    let folder = history(12);
    let at = folder.path();
    let bytes = packed(at, "main", &[]);
    let pack = Pack::read(&bytes, Limits::default()).unwrap();
    let mut found = BTreeMap::new();
    let mut take = |path: &[u8], file| {
        let path = String::from_utf8(path.to_vec()).unwrap();
        let (what, data) = match file {
            TreeFile::Folder => ("folder", Vec::new()),
            TreeFile::File(data, run) => (if run { "run" } else { "file" }, data),
            TreeFile::Link(to) => ("link", to),
        };
        found.insert(path, (what, data));
        Ok(())
    };
    pack.files(id(at, "main"), 1 << 20, &mut take).unwrap();
    let names: Vec<(&str, &str)> = found.iter().map(|(path, file)| (path.as_str(), file.0)).collect();
    let wanted = [
        ("roles", "folder"),
        ("roles/site", "link"),
        ("roles/web", "folder"),
        ("roles/web/main", "file"),
        ("run", "run"),
        ("site.toml", "file"),
    ];
    assert_eq!(names, wanted);
    for path in ["roles/web/main", "site.toml", "run"] {
        assert!(found[path].1 == std::fs::read(at.join(path)).unwrap(), "{path}");
    }
    let large = pack.files(id(at, "main"), 100, &mut |_, _| Ok(()));
    assert!(matches!(large, Err(GitError::Large { .. })), "{large:?}");
}

#[test]
fn names_lead_to_branches_tags_and_commits() {
    let folder = history(2);
    let at = folder.path();
    let bytes = packed(at, "v1", &[]);
    let pack = Pack::read(&bytes, Limits::default()).unwrap();
    let (tag, main) = (id(at, "v1"), id(at, "main"));
    let of = |name: &str, id| {
        let name = name.to_owned();
        served(&pack, &Found { name, id }).map(|(served, commit)| (served.refs, served.head, commit))
    };
    let head = format!("{main}\n");
    let branch = (
        format!("{main}\trefs/heads/main\n"),
        "ref: refs/heads/main\n".to_owned(),
        main,
    );
    assert_eq!(of("refs/heads/main", main), Ok(branch));
    let refs = format!("{tag}\trefs/tags/v1\n{main}\trefs/tags/v1^{{}}\n");
    assert_eq!(of("refs/tags/v1", tag), Ok((refs, head.clone(), main)));
    assert_eq!(of("HEAD", main), Ok((String::new(), head, main)));
    assert!(matches!(
        of("HEAD", id(at, "main^{tree}")),
        Err(GitError::Object { .. })
    ));
    assert!(matches!(of("HEAD", Id([1; 20])), Err(GitError::Incomplete { .. })));
}

/// A pack with its own digest put right, so that what is wrong is within.
fn resealed(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.len() - 20;
    let sum = Sha1::of(&bytes[..end]);
    bytes.truncate(end);
    bytes.extend_from_slice(&sum);
    bytes
}

struct Sha1;

impl Sha1 {
    fn of(bytes: &[u8]) -> [u8; 20] {
        use sha1_checked::Digest as _;
        sha1_checked::Sha1::digest(bytes).into()
    }
}

/// Paths and contents of a commit, when its pack is taken.
fn files(bytes: &[u8], commit: Id) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let pack = Pack::read(bytes, Limits::default()).ok()?;
    let mut all = Vec::new();
    let mut take = |path: &[u8], file| {
        let content = match file {
            TreeFile::Folder => Vec::new(),
            TreeFile::File(data, _) | TreeFile::Link(data) => data,
        };
        all.push((path.to_vec(), content));
        Ok(())
    };
    pack.files(commit, 1 << 20, &mut take).ok()?;
    Some(all)
}

#[test]
fn what_is_missing_changed_or_too_much_is_refused() {
    let folder = history(6);
    let at = folder.path();
    let whole = packed(at, "main", &["--delta-base-offset"]);
    let tip = id(at, "main");
    let read = |bytes: &[u8]| Pack::read(bytes, Limits::default()).and_then(|pack| pack.commit(tip));
    assert!(read(&whole).is_ok());

    // All objects but one, whichever it is: nobody can leave anything out.
    let listed = well(at, &["rev-list", "--objects", "--no-object-names", "main"]);
    let all = || listed.lines();
    for left_out in all() {
        let ids: String = all().filter(|id| *id != left_out).map(|id| format!("{id}\n")).collect();
        let pack = fed(at, &["pack-objects", "--stdout", "-q"], ids.as_bytes());
        let id = Id::read(left_out.as_bytes()).unwrap();
        assert!(
            matches!(read(&pack), Err(GitError::Incomplete { id: said, .. }) if said == id),
            "{left_out}"
        );
    }
    let original = files(&whole, tip).unwrap();
    // Every byte counts, also for somebody who puts the digest right.
    for place in (0..whole.len() - 20).step_by(3) {
        let mut other = whole.clone();
        other[place] ^= 0x10;
        assert!(read(&other).is_err(), "{place}");
        // A stream may be written in two ways that say the same.
        assert!(
            files(&resealed(other), tip).is_none_or(|found| found == original),
            "{place}"
        );
    }
    for end in (0..whole.len()).step_by(17) {
        assert!(read(&whole[..end]).is_err(), "{end}");
    }
    let limits = [
        Limits {
            objects: 5,
            ..Limits::default()
        },
        Limits {
            object: 1000,
            ..Limits::default()
        },
        Limits {
            total: 60_000,
            ..Limits::default()
        },
        Limits {
            held: 10,
            ..Limits::default()
        },
    ];
    for limits in limits {
        let refused = Pack::read(&whole, limits).err();
        assert!(
            matches!(refused, Some(GitError::Large { .. })),
            "{limits:?}: {refused:?}"
        );
    }
}
