//! What commits, trees and tags name.

use std::cmp::Ordering;

use crate::Id;

/// What an object is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Kind {
    /// A state, with those it was made of.
    Commit,
    /// A folder.
    Tree,
    /// A file's content.
    Blob,
    /// A tag with a text of its own.
    Tag,
}

impl Kind {
    /// As it is written in the digest's text.
    pub fn word(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Tree => "tree",
            Self::Blob => "blob",
            Self::Tag => "tag",
        }
    }

    fn read(word: &[u8]) -> Option<Self> {
        [Self::Commit, Self::Tree, Self::Blob, Self::Tag]
            .into_iter()
            .find(|kind| kind.word().as_bytes() == word)
    }
}

/// Something in a folder.
pub(crate) struct TreeEntry<'a> {
    pub(crate) mode: u32,
    pub(crate) name: &'a [u8],
    pub(crate) id: Id,
}

/// A folder.
pub(crate) const FOLDER: u32 = 0o040_000;
/// A symbolic link.
pub(crate) const LINK: u32 = 0o120_000;
/// A commit of another repository, which is not in this one.
pub(crate) const OTHER: u32 = 0o160_000;
const FILES: [u32; 3] = [0o100_644, 0o100_755, 0o100_664];

/// Tells of every object that this one names, with its kind.
///
/// # Errors
/// When it makes no sense.
pub(crate) fn links(kind: Kind, data: &[u8], found: &mut dyn FnMut(Id, Kind)) -> Result<(), &'static str> {
    match kind {
        Kind::Blob => Ok(()),
        Kind::Commit => {
            let mut lines = data.split(|byte| *byte == b'\n');
            let tree = lines.next().and_then(|line| Id::read(line.strip_prefix(b"tree ")?));
            found(tree.ok_or("a commit without a tree")?, Kind::Tree);
            for line in lines {
                let Some(parent) = line.strip_prefix(b"parent ") else {
                    break;
                };
                found(Id::read(parent).ok_or("a parent that is none")?, Kind::Commit);
            }
            Ok(())
        }
        Kind::Tag => {
            let (id, kind) = tagged(data).ok_or("a tag of nothing")?;
            found(id, kind);
            Ok(())
        }
        Kind::Tree => entries(data, &mut |entry| {
            match entry.mode {
                FOLDER => found(entry.id, Kind::Tree),
                OTHER => {}
                _ => found(entry.id, Kind::Blob),
            }
            Ok(())
        }),
    }
}

/// What a tag is of.
fn tagged(data: &[u8]) -> Option<(Id, Kind)> {
    let mut lines = data.split(|byte| *byte == b'\n');
    let id = Id::read(lines.next()?.strip_prefix(b"object ")?)?;
    Some((id, Kind::read(lines.next()?.strip_prefix(b"type ")?)?))
}

/// The year 10000, in seconds since 1970: nobody writes or reads a date from then on.
const NEVER: u64 = 253_402_300_800;

/// When a commit was made, in seconds since 1970; `None` where it does not say it.
pub(crate) fn committed(data: &[u8]) -> Option<u64> {
    let lines = data.split(|byte| *byte == b'\n').take_while(|line| !line.is_empty());
    let line = lines.filter_map(|line| line.strip_prefix(b"committer ")).next()?;
    let time = line.rsplit(|byte| *byte == b' ').nth(1)?;
    let time = std::str::from_utf8(time).ok()?.parse().ok();
    time.filter(|time| *time < NEVER)
}

/// Tells of everything in a folder.
///
/// # Errors
/// When it makes no sense, has a name that would lead out of the folder or into Git's own, or has a name twice: what is written
/// to a file's name could then go through a link of that name.
pub(crate) fn entries<'a, E: From<&'static str>>(
    mut data: &'a [u8],
    found: &mut dyn FnMut(TreeEntry<'a>) -> Result<(), E>,
) -> Result<(), E> {
    const TORN: &str = "a folder that is torn";
    let mut order = Order::default();
    while !data.is_empty() {
        let space = data.iter().take(8).position(|byte| *byte == b' ').ok_or(TORN)?;
        let (mode, rest) = data.split_at_checked(space).ok_or(TORN)?;
        let end = rest.iter().position(|byte| *byte == 0).ok_or(TORN)?;
        let name = rest.get(1..end).ok_or(TORN)?;
        let rest = rest.get(end.saturating_add(1)..).ok_or(TORN)?;
        let (id, rest) = rest.split_first_chunk::<20>().ok_or(TORN)?;
        let digits = std::str::from_utf8(mode).ok().filter(|mode| !mode.starts_with('+'));
        let mode = digits.and_then(|mode| u32::from_str_radix(mode, 8).ok()).ok_or(TORN)?;
        if ![FOLDER, LINK, OTHER].contains(&mode) && !FILES.contains(&mode) {
            return Err("a folder with something that is neither file, link nor folder".into());
        }
        let outside = [&b""[..], b".", b".."].contains(&name) || name.eq_ignore_ascii_case(b".git");
        if outside || name.contains(&b'/') {
            return Err("a folder with a name that leads out of it or into Git's own".into());
        }
        order.next(name, mode == FOLDER)?;
        found(TreeEntry {
            mode,
            name,
            id: Id(*id),
        })?;
        data = rest;
    }
    Ok(())
}

/// Names of a folder as they come: in Git's order, in which a folder's name ends with `/`, and each once.
#[derive(Default)]
struct Order<'a> {
    last: Option<(&'a [u8], bool)>,
    /// Names of files that all those behind them begin with: of a folder with a file's name the order alone does not tell.
    files: Vec<&'a [u8]>,
}

impl<'a> Order<'a> {
    fn next(&mut self, name: &'a [u8], folder: bool) -> Result<(), &'static str> {
        const TWICE: &str = "a folder that has a name twice";
        let whole = |(name, folder): (&'a [u8], bool)| name.iter().copied().chain(folder.then_some(b'/'));
        if let Some(last) = self.last.replace((name, folder)) {
            match whole(last).cmp(whole((name, folder))) {
                Ordering::Less => {}
                Ordering::Equal => return Err(TWICE),
                Ordering::Greater => return Err("a folder whose names are not in Git's order"),
            }
        }
        while self.files.pop_if(|file| !name.starts_with(file)).is_some() {}
        if folder {
            return match self.files.last() {
                Some(file) if *file == name => Err(TWICE),
                Some(_) | None => Ok(()),
            };
        }
        self.files.push(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(kind: Kind, data: &[u8]) -> Result<Vec<(Id, Kind)>, &'static str> {
        let mut all = Vec::new();
        links(kind, data, &mut |id, kind| all.push((id, kind)))?;
        Ok(all)
    }

    #[test]
    fn commits_tags_and_folders_name_others() {
        let (a, b) = (Id([0x11; 20]), Id([0x22; 20]));
        let commit =
            format!("tree {a}\nparent {b}\nauthor x <x> 1 +0000\ncommitter x y <x> 1700000000 +0100\n\nparent {a}\n");
        assert_eq!(
            named(Kind::Commit, commit.as_bytes()),
            Ok(vec![(a, Kind::Tree), (b, Kind::Commit)])
        );
        assert_eq!(committed(commit.as_bytes()), Some(1_700_000_000));
        for (time, read) in [
            ("253402300799", Some(253_402_300_799)),
            ("253402300800", None),
            ("-1", None),
        ] {
            assert_eq!(committed(commit.replace("1700000000", time).as_bytes()), read, "{time}");
        }
        let tag = format!("object {b}\ntype commit\ntag v1\n");
        assert_eq!(named(Kind::Tag, tag.as_bytes()), Ok(vec![(b, Kind::Commit)]));
        let entry = |mode: &str, name: &str| [mode.as_bytes(), b" ", name.as_bytes(), b"\0", &a.0].concat();
        let tree = [
            entry("40000", "d"),
            entry("100644", "f"),
            entry("120000", "l"),
            entry("160000", "m"),
        ]
        .concat();
        let found = [(a, Kind::Tree), (a, Kind::Blob), (a, Kind::Blob)];
        assert_eq!(named(Kind::Tree, &tree), Ok(found.to_vec()));
        for (mode, name) in [
            ("100644", ".."),
            ("40000", ".GIT"),
            ("100644", "a/b"),
            ("100644", ""),
            ("140000", "s"),
        ] {
            assert!(named(Kind::Tree, &entry(mode, name)).is_err(), "{mode} {name}");
        }
        assert!(named(Kind::Tree, &tree[..tree.len() - 1]).is_err());
        let folder = |of: &[(&str, &str)]| {
            let all: Vec<Vec<u8>> = of.iter().map(|(mode, name)| entry(mode, name)).collect();
            named(Kind::Tree, &all.concat()).map(|found| found.len())
        };
        let (file, link, other) = ("100644", "120000", "40000");
        assert_eq!(
            folder(&[(file, "a"), (file, "a-b"), (file, "a.b"), (other, "ab"), (file, "b")]),
            Ok(5)
        );
        assert_eq!(
            folder(&[(file, "a-b"), (other, "a"), (file, "a0"), (other, "a0b")]),
            Ok(4)
        );
        for (bad, words) in [
            (&[(link, "a"), (file, "a")][..], "twice"),
            (&[(other, "a"), (other, "a")], "twice"),
            (&[(link, "a"), (other, "a")], "twice"),
            (&[(link, "a"), (file, "a-b"), (file, "a.b"), (other, "a")], "twice"),
            (&[(file, "b"), (file, "a")], "order"),
            (&[(other, "a"), (file, "a.b")], "order"),
            (&[(link, "a"), (file, "b"), (other, "a")], "order"),
        ] {
            assert!(folder(bad).is_err_and(|why| why.contains(words)), "{bad:?}");
        }
        assert!(named(Kind::Commit, b"tree 11\n").is_err() && named(Kind::Tag, b"object x\n").is_err());
    }
}
