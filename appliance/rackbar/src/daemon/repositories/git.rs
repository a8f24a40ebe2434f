//! The state of a Git repository as its origin has it: a name asked for, its commit fetched with all of its history, every object
//! of that verified; and the files by which machines clone it.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_git::{Found as Name, GitError, Id, Limits, MAX_REFS, Pack, Wanted};
use rackbar_git::{advertised, ask_pack, ask_refs, read_pack, read_refs};
use rackbar_orchestrator::repositories::Kept;
use rackbar_proxy::Proxy;
use rackbar_proxy::origin::Question;
use tokio::sync::Semaphore;

use super::archive::{ARCHIVE, archive};
use super::fetch::{Found, MOST, Order, Packages, add, blocking};

/// What an answer has besides its pack: a length for every piece, and words of the server.
const MOST_ANSWER: u64 = MOST + (4 << 20);

/// Proofs are made one after the other: a hostile pack may have one take several hundred MiB.
static PROOF: Semaphore = Semaphore::const_new(1);

/// What was proven of a commit.
struct Proven {
    commit: Id,
    date: u64,
    commits: u64,
    /// `info/refs`, and `HEAD` as the last line.
    names: String,
    lists: BTreeMap<String, Vec<u8>>,
}

impl Order {
    /// Fetches and verifies.
    ///
    /// # Errors
    /// What was wrong, with its URL and what to do.
    pub(super) async fn of_git(self, proxy: &Arc<Proxy>) -> Result<Found, String> {
        let wanted = self.wanted.reference().and_then(Wanted::read);
        let wanted = wanted.ok_or("its ref is none")?;
        let url = self.wanted.url.trim_end_matches('/').to_owned();
        let name = self.named(proxy, &url, &wanted).await?;
        if let Some(kept) = self.as_it_was(&name) {
            let lock = self.lock(
                kept.lock.date,
                kept.lock.revision.clone(),
                "",
                kept.release.as_bytes(),
                &kept.lists,
            );
            let packages = kept.lock.packages;
            return Ok(of(
                rackbar_model::RepositoryLock { packages, ..lock },
                kept.release.clone(),
                kept.lists.clone(),
            ));
        }
        let answer = asked(proxy, &url, Some(ask_pack(name.id)), MOST_ANSWER).await;
        let answer = answer.map_err(|error| {
            format!(
                "{error}; a commit with its history has at most {} MiB packed here",
                MOST >> 20
            )
        })?;
        let after = self.kept.as_ref().and_then(|kept| kept.lock.revision.clone());
        let (at, repository) = (format!("{url}: {}", name.name), self.name.clone());
        let _turn = PROOF.acquire().await.map_err(|error| error.to_string())?;
        let proven = blocking(move || {
            let bytes = read_pack(answer).map_err(|error| explained(&at, &error))?;
            proven(bytes, &name, after.as_deref(), &repository).map_err(|why| match why {
                Refused::Git(error) => explained(&at, &error),
                Refused::Words(words) => format!("{at}: {words}"),
            })
        });
        let proven = proven.await?;
        let revision = Some(proven.commit.to_string());
        let mut lock = self.lock(proven.date, revision, "", proven.names.as_bytes(), &proven.lists);
        lock.packages = proven.commits;
        Ok(of(lock, proven.names, proven.lists))
    }

    /// What the origin has under a name.
    async fn named(&self, proxy: &Arc<Proxy>, url: &str, wanted: &Wanted) -> Result<Name, String> {
        let answer = asked(proxy, url, None, MAX_REFS as u64).await;
        let answer = answer.map_err(|error| {
            format!(
                "{error}; look whether repository.{} of the site file has the URL that `git clone` takes, and whether it can be read \
                 without a login",
                self.name
            )
        })?;
        advertised(&answer).map_err(|error| explained(url, &error))?;
        let Some(question) = ask_refs(wanted) else {
            let Wanted::Commit(id) = wanted else {
                return Err(format!("{url}: {wanted}: nothing to ask for"));
            };
            let (name, id) = ("HEAD".to_owned(), *id);
            return Ok(Name { name, id });
        };
        let answer = asked(proxy, url, Some(question), MAX_REFS as u64).await?;
        read_refs(&answer, wanted).map_err(|error| match error {
            GitError::Missing(what) => format!(
                "{url}: it has no {what}; correct ref of repository.{} in the site file",
                self.name
            ),
            error => explained(url, &error),
        })
    }

    /// What is kept, where that is of this very name and object.
    fn as_it_was(&self, name: &Name) -> Option<&Kept> {
        let kept = self
            .kept
            .as_ref()
            .filter(|kept| kept.lists.len() == kept.lock.indexes.len())?;
        let same = match name.name.starts_with("refs/") {
            true => kept.release.starts_with(&format!("{}\t{}\n", name.id, name.name)),
            false => kept.release == format!("{}\n", name.id),
        };
        same.then_some(kept)
    }
}

fn of(lock: rackbar_model::RepositoryLock, release: String, lists: BTreeMap<String, Vec<u8>>) -> Found {
    let (text, signature) = (String::new(), None);
    Found {
        kept: Kept {
            lock,
            release,
            text,
            signature,
            lists,
        },
        stored: None,
    }
}

/// Why something is refused.
enum Refused {
    Git(GitError),
    Words(String),
}

impl From<GitError> for Refused {
    fn from(error: GitError) -> Self {
        Self::Git(error)
    }
}

/// Verifies a pack, and makes of it what machines are served. `after`: the commit that is locked, which must be part of the history.
fn proven(bytes: Vec<u8>, name: &Name, after: Option<&str>, repository: &str) -> Result<Proven, Refused> {
    let pack = Pack::read(&bytes, Limits::default())?;
    let (served, commit) = rackbar_git::served(&pack, name)?;
    let before = after.and_then(|after| Id::read(after.as_bytes()));
    let history = pack.history(commit)?;
    if let Some(before) = before.filter(|before| !history.contains(before)) {
        return Err(Refused::Words(format!(
            "it is commit {commit}, whose history does not have {before}, to which repository {repository} is locked: it was \
             written anew, or another is given out. If it is right, `rackbar repository unlock {repository}` first"
        )));
    }
    let date = pack.committed(commit)?;
    let index = pack.index()?;
    let left = MOST.checked_sub((bytes.len() as u64).saturating_add(index.len() as u64));
    let (what, most) = ("bytes with its history, packed", MOST);
    let left = left.ok_or(GitError::Large { what, most })?;
    let mut lists = BTreeMap::new();
    if let Some(files) = archive(&pack, commit, date, left)? {
        lists.insert(ARCHIVE.to_owned(), files);
    }
    let commits = u64::try_from(history.len()).unwrap_or(u64::MAX);
    lists.insert(served.index, index);
    lists.insert(served.pack, bytes);
    Ok(Proven {
        commit,
        date,
        commits,
        names: served.refs + &served.head,
        lists,
    })
}

/// Asks what the server can do, or something of it.
async fn asked(proxy: &Arc<Proxy>, url: &str, body: Option<Vec<u8>>, most: u64) -> Result<Vec<u8>, String> {
    let mut headers = vec![("git-protocol", "version=2")];
    let url = match body {
        None => format!("{url}/info/refs?service=git-upload-pack"),
        Some(_) => {
            headers.push(("content-type", "application/x-git-upload-pack-request"));
            headers.push(("accept", "application/x-git-upload-pack-result"));
            format!("{url}/git-upload-pack")
        }
    };
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let question = Question {
        url,
        headers,
        body,
        most,
    };
    proxy.question(&question).await.map_err(|error| error.to_string())
}

/// With what to do.
fn explained(at: &str, error: &GitError) -> String {
    let advice = match error {
        GitError::Answer(_) => "look whether the URL is the one that `git clone` takes",
        GitError::Version => "lock a copy of it on a newer server",
        GitError::Format(_) => "lock a copy of it that is named by SHA-1",
        GitError::Large { .. } => {
            "lock a smaller one: a branch that begins anew without the old history (`git checkout --orphan`) is one"
        }
        GitError::Deep { .. } | GitError::Work { .. } => {
            "have the origin packed anew, as git does it by itself: `git repack -a -d -f --depth=50` there"
        }
        GitError::Ambiguous(_) => "correct ref in the site file",
        GitError::Said(_) | GitError::Missing(_) => "correct URL and ref in the site file, or ask who runs the server",
        GitError::Short | GitError::Pack { .. } | GitError::Object { .. } | GitError::Incomplete { .. } => {
            "try again later; if it stays, the origin is damaged or somebody is in between: `git fsck --full` there says more"
        }
    };
    format!("{at}: {error}; {advice}")
}

/// The commits of a lock.
///
/// # Errors
/// When its pack cannot be read.
pub(super) fn commits(kept: &Kept, all: &mut Packages) -> Result<(), String> {
    let pack = kept.lists.iter().find(|(path, _)| path.ends_with(".pack"));
    let wrong = |error: String| format!("repository {}: {error}", kept.lock.name);
    let (_, bytes) = pack.ok_or_else(|| wrong("its pack is not kept".to_owned()))?;
    let pack = Pack::read(bytes, Limits::default()).map_err(|error| wrong(error.to_string()))?;
    let commit = kept
        .lock
        .revision
        .as_deref()
        .and_then(|commit| Id::read(commit.as_bytes()));
    let commit = commit.ok_or_else(|| wrong("its commit is none".to_owned()))?;
    for commit in pack.history(commit).map_err(|error| wrong(error.to_string()))? {
        add(all, (commit.to_string(), String::new()), (String::new(), None));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_its_cost_says_where_and_what_to_do() {
        let (at, most, id) = (77, 4095, Id([1; 20]));
        let deep = explained("https://a.example/x: refs/heads/main", &GitError::Deep { at, most });
        let work = explained("https://a.example/x: refs/heads/main", &GitError::Work { id, most: 9 });
        for (said, place) in [(deep, "at byte 77 of the pack"), (work, &*format!("object {id}"))] {
            for words in [
                "https://a.example/x: refs/heads/main",
                place,
                "git repack -a -d -f --depth=50",
            ] {
                assert!(said.contains(words), "{words}: {said}");
            }
        }
    }
}
