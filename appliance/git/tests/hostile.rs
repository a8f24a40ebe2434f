//! Packs that no git would make: rows of deltas without end, folders that stand for more than any memory has, names that come
//! twice. Each is refused by a limit, not by patience.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

use std::io::Write as _;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use rackbar_git::{GitError, Id, Limits, Pack, TreeFile};
use sha1_checked::{Digest as _, Sha1};

const COMMIT: u8 = 1;
const TREE: u8 = 2;
const BLOB: u8 = 3;
const TO_OFFSET: u8 = 6;
const TO_NAME: u8 = 7;

/// A pack that is being made.
#[derive(Default)]
struct Maker {
    body: Vec<u8>,
    count: u32,
}

impl Maker {
    /// Adds an entry; gives its offset in the pack.
    fn entry(&mut self, kind: u8, base: &[u8], content: &[u8]) -> u64 {
        let at = self.body.len() as u64 + 12;
        let mut size = content.len() as u64;
        let mut byte = kind << 4 | (size & 15) as u8;
        size >>= 4;
        while size > 0 {
            self.body.push(byte | 0x80);
            byte = (size & 0x7f) as u8;
            size >>= 7;
        }
        self.body.push(byte);
        self.body.extend_from_slice(base);
        let mut zlib = ZlibEncoder::new(&mut self.body, Compression::fast());
        zlib.write_all(content).unwrap();
        zlib.finish().unwrap();
        self.count += 1;
        at
    }

    /// Adds an object as it is.
    fn object(&mut self, kind: u8, content: &[u8]) -> (Id, u64) {
        let at = self.entry(kind, b"", content);
        let word = ["commit", "tree", "blob"][usize::from(kind) - 1];
        (named(word, content), at)
    }

    /// Adds a delta to what lies at an offset.
    fn delta(&mut self, base: u64, delta: &[u8]) -> u64 {
        let mut back = self.body.len() as u64 + 12 - base;
        let mut digits = vec![(back & 0x7f) as u8];
        back >>= 7;
        while back > 0 {
            back -= 1;
            digits.insert(0, 0x80 | (back & 0x7f) as u8);
            back >>= 7;
        }
        self.entry(TO_OFFSET, &digits, delta)
    }

    /// Adds a blob of `size` bytes and a row of deltas upon it, each of which changes the first four bytes; gives the last one's
    /// name and the offsets.
    fn row(&mut self, size: usize, deltas: u32, by_name: bool) -> (Id, Vec<u64>) {
        let mut content = vec![b'.'; size];
        let (mut id, mut at) = self.object(BLOB, &content);
        let mut all = vec![at];
        for number in 1..=deltas {
            content[..4].copy_from_slice(&number.to_be_bytes());
            let mut delta = [length(size), length(size)].concat();
            delta.push(4);
            delta.extend_from_slice(&number.to_be_bytes());
            // Copy from offset 4, three bytes of length.
            delta.extend_from_slice(&[0xf1, 4]);
            delta.extend_from_slice(&((size - 4) as u32).to_le_bytes()[..3]);
            at = match by_name {
                true => self.entry(TO_NAME, &id.0, &delta),
                false => self.delta(at, &delta),
            };
            if by_name || number == deltas {
                id = named("blob", &content);
            }
            all.push(at);
        }
        (id, all)
    }

    fn sealed(&self) -> Vec<u8> {
        let mut out = b"PACK\0\0\0\x02".to_vec();
        out.extend_from_slice(&self.count.to_be_bytes());
        out.extend_from_slice(&self.body);
        let sum = Sha1::digest(&out);
        out.extend_from_slice(&sum);
        out
    }

    /// With a commit of this folder; gives the pack and the commit.
    fn committed(mut self, tree: Id) -> (Vec<u8>, Id) {
        let text = format!("tree {tree}\nauthor x <x> 1 +0000\ncommitter x <x> 1700000000 +0000\n\nx\n");
        let (commit, _) = self.object(COMMIT, text.as_bytes());
        (self.sealed(), commit)
    }
}

fn length(size: usize) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), size);
    while rest > 0x7f {
        out.push(0x80 | (rest & 0x7f) as u8);
        rest >>= 7;
    }
    out.push(rest as u8);
    out
}

fn named(word: &str, content: &[u8]) -> Id {
    let mut sum = Sha1::new();
    sum.update(format!("{word} {}\0", content.len()).as_bytes());
    sum.update(content);
    Id(sum.finalize().into())
}

fn folder(entries: &[(&str, &str, Id)]) -> Vec<u8> {
    let entry = |(mode, name, id): &(&str, &str, Id)| [mode.as_bytes(), b" ", name.as_bytes(), b"\0", &id.0].concat();
    entries.iter().flat_map(entry).collect()
}

/// Counts what a commit has; the first refusal otherwise.
fn walked(bytes: &[u8], commit: Id, limits: Limits) -> Result<usize, GitError> {
    let mut count = 0;
    let mut take = |_: &[u8], _: TreeFile| {
        count += 1;
        Ok(())
    };
    Pack::read(bytes, limits)?.files(commit, 1 << 30, &mut take)?;
    Ok(count)
}

#[test]
fn a_row_of_deltas_is_read_up_to_gits_own_most_and_refused_behind_it() {
    for by_name in [false, true] {
        let mut maker = Maker::default();
        maker.row(64, 4095, by_name);
        let pack = maker.sealed();
        assert_eq!(Pack::read(&pack, Limits::default()).unwrap().len(), 4096);
        let mut maker = Maker::default();
        let (_, at) = maker.row(64, 20_000, by_name);
        let refused = Pack::read(&maker.sealed(), Limits::default()).err();
        let deep = GitError::Deep {
            at: at[4096],
            most: 4095,
        };
        assert_eq!(refused, Some(deep), "by name: {by_name}");
    }
}

#[test]
fn what_the_deltas_of_a_commit_cost_is_counted_over_all_of_its_files() {
    let mut maker = Maker::default();
    let (last, _) = maker.row(1 << 16, 300, false);
    let names: Vec<String> = (0..20_000).map(|number| format!("{number:06}")).collect();
    let all: Vec<_> = names.iter().map(|name| ("100644", name.as_str(), last)).collect();
    let (tree, _) = maker.object(TREE, &folder(&all));
    let (bytes, commit) = maker.committed(tree);
    let limits = |work| Limits {
        work,
        ..Limits::default()
    };
    // Within a pack of less than a megabyte: each of the files is 19 MiB of work, and all of them 370 GiB.
    assert!(bytes.len() < 1 << 20, "{}", bytes.len());
    let most = 100 << 20;
    assert_eq!(
        walked(&bytes, commit, limits(most)),
        Err(GitError::Work { id: last, most })
    );
    // Its history costs nothing, since it was read with the rest.
    let pack = Pack::read(&bytes, limits(0)).unwrap();
    assert_eq!(pack.history(commit).unwrap(), [commit].into());
    assert_eq!(
        (pack.commit(commit), pack.committed(commit)),
        (Ok(commit), Ok(1_700_000_000))
    );
    assert!(matches!(walked(&bytes, commit, limits(0)), Err(GitError::Work { .. })));

    // One of them is no more than its row.
    let mut maker = Maker::default();
    let (last, _) = maker.row(1 << 16, 300, false);
    let (tree, _) = maker.object(TREE, &folder(&[("100644", "one", last)]));
    let (bytes, commit) = maker.committed(tree);
    assert_eq!(walked(&bytes, commit, limits(25 << 20)), Ok(1));
    let refused = walked(&bytes, commit, limits(15 << 20));
    assert!(matches!(refused, Err(GitError::Work { .. })), "{refused:?}");
}

#[test]
fn deltas_count_as_what_they_make_does() {
    // What a delta inserts byte by byte has two bytes of it for each.
    let mut maker = Maker::default();
    let (_, base) = maker.object(BLOB, b"x");
    let inserts: Vec<u8> = (0..1 << 20).flat_map(|_| [1, b'y']).collect();
    let delta = [length(1), length(1 << 20), inserts].concat();
    maker.delta(base, &delta);
    let bytes = maker.sealed();
    let limits = |total| Limits {
        total,
        ..Limits::default()
    };
    let read = |total| Pack::read(&bytes, limits(total)).map(|pack| pack.len());
    assert_eq!(read(4 << 20), Ok(2));
    assert!(matches!(
        read(2 << 20),
        Err(GitError::Large {
            what: "bytes unpacked",
            ..
        })
    ));
}

#[test]
fn folders_within_each_other_are_not_all_in_memory() {
    let mut maker = Maker::default();
    let (file, _) = maker.object(BLOB, b"x");
    let names: Vec<String> = (0..5_000).map(|number| format!("{number:06}")).collect();
    let mut tree = None;
    for _ in 0..50 {
        let mut all: Vec<_> = names.iter().map(|name| ("100644", name.as_str(), file)).collect();
        if let Some(tree) = tree {
            all.insert(0, ("40000", "!", tree));
        }
        tree = Some(maker.object(TREE, &folder(&all)).0);
    }
    let (bytes, commit) = maker.committed(tree.unwrap());
    let limits = |held| Limits {
        held,
        ..Limits::default()
    };
    let most = 5 << 20;
    let what = "bytes in folders within each other";
    assert_eq!(
        walked(&bytes, commit, limits(most)),
        Err(GitError::Large { what, most })
    );
    assert_eq!(
        walked(&bytes, commit, limits(20 << 20)),
        Ok(50 * 5_000 + 49),
        "one after the other"
    );
}

#[test]
fn a_name_that_comes_twice_and_a_link_that_leads_nowhere_are_refused() {
    let with = |link: &[u8], entries: &dyn Fn(Id, Id, Id) -> Vec<u8>| {
        let mut maker = Maker::default();
        let (link, _) = maker.object(BLOB, link);
        let (file, _) = maker.object(BLOB, b"x");
        let (below, _) = maker.object(TREE, &folder(&[("100644", "passwd", file)]));
        let (tree, _) = maker.object(TREE, &entries(link, file, below));
        let (bytes, commit) = maker.committed(tree);
        walked(&bytes, commit, Limits::default())
    };
    let sound = |link, file, _| folder(&[("120000", "link", link), ("100644", "other", file)]);
    assert_eq!(with(b"../other", &sound), Ok(2));
    for link in [&b""[..], b"a\0b", &[b'a'; 4096]] {
        let refused = with(link, &sound);
        assert!(
            matches!(&refused, Err(GitError::Object { why, .. }) if why.contains("leads nowhere")),
            "{refused:?}"
        );
    }
    // Unpacked one after the other, the file would be written to where the link leads.
    let twice = with(b"/etc", &|link, _, below| {
        folder(&[("120000", "a", link), ("40000", "a", below)])
    });
    assert!(
        matches!(&twice, Err(GitError::Object { why, .. }) if why.contains("twice")),
        "{twice:?}"
    );
}
