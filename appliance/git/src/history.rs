//! What commits and tags of a pack say, written down while it is read: no walk of its history unpacks anything again, so that a
//! history costs what its commits are, however they are packed.

use std::collections::{BTreeSet, HashMap};

use crate::object::{Kind, committed};
use crate::{GitError, Id};

/// So many others a commit names on average, or fewer: real histories have hardly more than one each.
const PARENTS: u64 = 2;

/// A commit.
struct Commit {
    tree: Id,
    /// When it was made, in seconds since 1970.
    date: Option<u64>,
    /// Where what it was made of begins in the list of all, and how many that are.
    parents: (usize, usize),
}

/// Commits and tags by their names.
#[derive(Default)]
pub(crate) struct History {
    commits: HashMap<Id, Commit>,
    parents: Vec<Id>,
    /// What tags are of.
    tags: HashMap<Id, Id>,
}

impl History {
    /// Writes down what an object says that names these others. `most`: objects that there may be.
    ///
    /// # Errors
    /// When commits name more others than any history has.
    pub(crate) fn note(
        &mut self,
        id: Id,
        kind: Kind,
        data: &[u8],
        named: &[(Id, Kind)],
        most: u64,
    ) -> Result<(), GitError> {
        match (kind, named) {
            (Kind::Commit, [(tree, _), parents @ ..]) => {
                let most = most.saturating_mul(PARENTS);
                let (first, count) = (self.parents.len(), parents.len());
                if first.saturating_add(count) as u64 > most {
                    let what = "parents of commits";
                    return Err(GitError::Large { what, most });
                }
                self.parents.extend(parents.iter().map(|(id, _)| *id));
                let (tree, date) = (*tree, committed(data));
                let parents = (first, count);
                self.commits.insert(id, Commit { tree, date, parents });
            }
            (Kind::Tag, [(of, _), ..]) => {
                self.tags.insert(id, *of);
            }
            (Kind::Commit | Kind::Tag | Kind::Tree | Kind::Blob, _) => {}
        }
        Ok(())
    }

    /// A commit and all that it was made of.
    ///
    /// # Errors
    /// When one of them is not there.
    pub(crate) fn of(&self, commit: Id) -> Result<BTreeSet<Id>, GitError> {
        let (mut all, mut open) = (BTreeSet::from([commit]), vec![commit]);
        while let Some(id) = open.pop() {
            let (first, count) = self.commit(id)?.parents;
            let parents = self.parents.get(first..first.saturating_add(count));
            open.extend(parents.unwrap_or_default().iter().filter(|id| all.insert(**id)));
        }
        Ok(all)
    }

    /// What a tag is of in the end, perhaps by way of other tags; of anything else itself. No such row has a ring in it: names
    /// are digests.
    pub(crate) fn peeled(&self, id: Id) -> Id {
        let mut at = id;
        while let Some(of) = self.tags.get(&at) {
            at = *of;
        }
        at
    }

    /// The folder of a commit.
    ///
    /// # Errors
    /// When there is no such commit.
    pub(crate) fn tree(&self, commit: Id) -> Result<Id, GitError> {
        self.commit(commit).map(|commit| commit.tree)
    }

    /// When a commit was made, in seconds since 1970; `None` where it does not say it.
    ///
    /// # Errors
    /// When there is no such commit.
    pub(crate) fn date(&self, commit: Id) -> Result<Option<u64>, GitError> {
        self.commit(commit).map(|commit| commit.date)
    }

    fn commit(&self, id: Id) -> Result<&Commit, GitError> {
        let what = "commit";
        self.commits.get(&id).ok_or(GitError::Incomplete { what, id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u32) -> Id {
        let mut id = [0; 20];
        id[..4].copy_from_slice(&number.to_be_bytes());
        Id(id)
    }

    #[test]
    fn long_histories_and_long_rows_of_tags_are_walked() {
        const MANY: u32 = 200_000;
        let (mut history, tree) = (History::default(), (id(0), Kind::Tree));
        for number in 1..=MANY {
            let parents = [tree, (id(number - 1), Kind::Commit), (id(number - 1), Kind::Commit)];
            let named = if number == 1 { &parents[..1] } else { &parents };
            history
                .note(id(number), Kind::Commit, b"", named, u64::from(MANY))
                .unwrap();
            let of = [(id(MANY + number - 1), Kind::Tag)];
            history
                .note(id(MANY + number), Kind::Tag, b"", &of, u64::from(MANY))
                .unwrap();
        }
        assert_eq!(history.of(id(MANY)).unwrap().len(), MANY as usize);
        assert_eq!(history.peeled(id(2 * MANY)), id(MANY));
        assert_eq!(
            history.of(id(0)),
            Err(GitError::Incomplete {
                what: "commit",
                id: id(0)
            })
        );
        let parents = vec![tree; 10];
        let named = history.note(id(1), Kind::Commit, b"", &parents, 2);
        assert!(matches!(named, Err(GitError::Large { .. })), "{named:?}");
    }
}
