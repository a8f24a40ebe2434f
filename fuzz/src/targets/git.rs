//! What servers of Git repositories answer, and packs.

use rackbar_git::{GitError, Limits, Pack, TreeFile, Wanted, advertised, ask_refs, read_pack, read_refs};
use sha1_checked::{Digest as _, Sha1};

/// What a server can do, the names it has, a pack in its pieces.
pub(super) fn answer(data: &[u8]) {
    let _ = advertised(data);
    for wanted in ["HEAD", "main", "refs/tags/v1"] {
        let Some(wanted) = Wanted::read(wanted) else { continue };
        if let Ok(found) = read_refs(data, &wanted) {
            let known = found.name.starts_with("refs/") || found.name == "HEAD";
            assert!(known && Wanted::read(&found.name).is_some(), "a name that is none");
        }
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let question = Wanted::read(text).as_ref().and_then(ask_refs).unwrap_or_default();
        let lines = question.iter().filter(|byte| **byte == b'\n').count();
        assert!(lines <= 4, "a name that is a line of its own");
    }
    if let Ok(pack) = read_pack(data.to_vec()) {
        assert!(pack.len() < data.len(), "more than there was");
    }
}

/// A pack without its own digest, which is put right.
pub(super) fn pack(data: &[u8]) {
    let mut bytes = data.to_vec();
    bytes.extend_from_slice(&Sha1::digest(data));
    let limits = Limits {
        objects: 1000,
        object: 1 << 20,
        total: 8 << 20,
        held: 2 << 20,
        depth: 100,
        work: 64 << 20,
    };
    let Ok(pack) = Pack::read(&bytes, limits) else { return };
    let index = pack.index().map(|index| index.len());
    assert_eq!(index, Ok(1072 + 28 * pack.len()), "an index of another length");
    let commits: Vec<_> = pack.commits().take(20).collect();
    for commit in commits {
        assert_eq!(pack.commit(commit), Ok(commit), "a commit that is none");
        let _ = pack.committed(commit);
        let mut left = 4096;
        let walked = pack.files(commit, 1 << 20, &mut |path, file| {
            let parts = path.split(|byte| *byte == b'/');
            parts.for_each(|part| assert!(!part.is_empty() && part != b"..", "a way out"));
            if let TreeFile::File(content, _) = file {
                assert!(content.len() <= 1 << 20, "more than there may be");
            }
            left -= 1;
            match left {
                0 => Err(GitError::Short),
                _ => Ok(()),
            }
        });
        // What a whole pack has of a commit is all there.
        assert!(
            !matches!(walked, Err(GitError::Incomplete { .. })),
            "a hole in what is whole"
        );
    }
}
