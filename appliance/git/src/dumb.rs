//! The files by which any Git client clones a commit and nothing else: names, and one pack with its index.

use crate::pack::Pack;
use crate::{Found, GitError, Id};

/// What a server has of a repository that has one commit's history, by paths below its URL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Served {
    /// `info/refs`.
    pub refs: String,
    /// `HEAD`.
    pub head: String,
    /// `objects/info/packs`.
    pub packs: String,
    /// Path of the pack.
    pub pack: String,
    /// Path of its index.
    pub index: String,
}

/// Those of a pack, under the name that was asked for. A branch is checked out by that name; of a tag or commit the commit.
///
/// # Errors
/// When the name is of no commit.
pub fn served(pack: &Pack<'_>, found: &Found) -> Result<(Served, Id), GitError> {
    let commit = pack.commit(found.id)?;
    let name = format!("pack-{}", pack.name());
    let (mut refs, mut head) = (String::new(), format!("{commit}\n"));
    if found.name.starts_with("refs/") {
        refs = format!("{}\t{}\n", found.id, found.name);
        if found.id != commit {
            refs.push_str(&format!("{commit}\t{}^{{}}\n", found.name));
        }
    }
    if found.name.starts_with("refs/heads/") {
        head = format!("ref: {}\n", found.name);
    }
    let served = Served {
        refs,
        head,
        packs: format!("P {name}.pack\n\n"),
        pack: format!("objects/pack/{name}.pack"),
        index: format!("objects/pack/{name}.idx"),
    };
    Ok((served, commit))
}
