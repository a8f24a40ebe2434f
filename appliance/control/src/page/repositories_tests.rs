//! Package repositories on the page: what they are locked to, defused, and the buttons.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use futures_util::FutureExt as _;
use futures_util::future::ready;
use rackbar_model::{Digest, RepositoryKind, RepositoryLock, Timestamp};

use super::fake::HOSTILE;
use super::tests::{ask, context, log_in, text};
use crate::operations::{
    Answer, CatalogueEntry, Operations, Refused, RepositoryCheck, RepositoryEntry, RepositoryFetch,
};

/// One repository that is locked and changed since, one that is not locked, and one that is no more in the site file.
#[derive(Default)]
struct Shelf {
    asked: Mutex<Vec<String>>,
}

fn lock(name: &str) -> RepositoryLock {
    RepositoryLock {
        name: name.into(),
        kind: RepositoryKind::Deb,
        url: format!("https://packages.test/{HOSTILE}"),
        suite: "stable".into(),
        revision: None,
        reference: None,
        components: vec!["main".into()],
        architectures: vec!["amd64".into()],
        keys: Digest([0; 32]),
        date: 1_700_000_000,
        release: Digest([1; 32]),
        signer: "0123456789abcdef0123456789abcdef01234567".into(),
        indexes: Vec::new(),
        packages: 12,
        locked: Timestamp(1_700_000_100_000),
        by: HOSTILE.into(),
    }
}

fn entry(name: &str, in_site: bool, lock: Option<RepositoryLock>, differs: Option<&str>) -> RepositoryEntry {
    RepositoryEntry {
        name: name.into(),
        kind: RepositoryKind::Deb,
        url: format!("https://packages.test/{HOSTILE}"),
        suite: "stable".into(),
        reference: None,
        keys: Vec::new(),
        in_site,
        roles: vec!["web".into()],
        fetch: lock.as_ref().map(|_| RepositoryFetch {
            files: 12,
            kept: 7,
            failed: 1,
            trouble: Some(HOSTILE.into()),
            ..RepositoryFetch::default()
        }),
        lock,
        differs: differs.map(str::to_owned),
    }
}

fn of_git() -> RepositoryEntry {
    let lock = RepositoryLock {
        kind: RepositoryKind::Git,
        revision: Some("93ef8e7f2b564ba7c5c60271d871041b7e085849".into()),
        reference: Some("main".into()),
        signer: String::new(),
        ..lock("source")
    };
    RepositoryEntry {
        kind: RepositoryKind::Git,
        reference: Some("main".into()),
        ..entry("source", true, Some(lock), None)
    }
}

impl Shelf {
    fn did(&self, what: String) -> Answer<'_, String> {
        self.asked.lock().unwrap().push(what);
        ready(Ok(String::new())).boxed()
    }
}

impl Operations for Shelf {
    fn images(&self) -> Answer<'_, Vec<CatalogueEntry>> {
        ready(Ok(Vec::new())).boxed()
    }

    fn repositories(&self) -> Answer<'_, Vec<RepositoryEntry>> {
        let all = vec![
            entry("fresh", true, None, None),
            of_git(),
            entry("gone", false, Some(lock("gone")), None),
            entry("ours", true, Some(lock("ours")), Some("suite")),
        ];
        ready(Ok(all)).boxed()
    }

    fn check_repository(&self, name: &str) -> Answer<'_, RepositoryCheck> {
        let refused = Refused::Device(format!("{name}: its origin is silent {HOSTILE}"));
        ready(Err(refused)).boxed()
    }

    fn lock_repository(&self, name: &str, by: &str, fetch: bool) -> Answer<'_, String> {
        self.did(format!("{by} locks {name}{}", if fetch { " and fetches" } else { "" }))
    }

    fn unlock_repository(&self, name: &str) -> Answer<'_, String> {
        self.did(format!("unlock {name}"))
    }
}

#[tokio::test]
async fn page_locks_repositories_and_tells_what_they_are_locked_to() {
    let shelf = Arc::new(Shelf::default());
    let mut context = context();
    context.operations = shelf.clone();
    let cookie = log_in(&context).await;
    let html = text(ask(&context, "GET", "/images", Some(&cookie), "").await).await;
    assert!(!html.contains(HOSTILE), "words of others came through as they were");
    for words in [
        "not locked</b>: machines get nothing from it",
        "its state of 2023-11-14T22:13:20",
        "12 packages; locked 2023-11-14T22:15:00",
        "7 of 12 files are kept here",
        "the site file has another suite",
        "no more in the site file",
        "commit 93ef8e7f2b564ba7c5c60271d871041b7e085849 of 2023-11-14T22:13:20",
        "Git, main",
        "/repositories/fresh/lock",
        "/repositories/ours/unlock",
        "/repositories/gone/unlock",
        "/repositories/ours/check",
    ] {
        assert!(html.contains(words), "no {words:?} in\n{html}");
    }
    for action in ["/repositories/gone/lock", "/repositories/fresh/unlock"] {
        assert!(!html.contains(action), "{action} makes no sense");
    }
    let (_, rest) = html.split_once("name=\"form_key\" value=\"").expect("a form");
    let key = rest.split('"').next().unwrap().to_owned();
    for (name, what) in [("fresh", "lock"), ("ours", "unlock")] {
        let post = async |key: &str| {
            let (path, body) = (format!("/repositories/{name}/{what}"), format!("form_key={key}"));
            ask(&context, "POST", &path, Some(&cookie), &body).await.status()
        };
        assert_eq!(post("x").await, StatusCode::FORBIDDEN, "{what}");
        assert_eq!(post(&key).await, StatusCode::SEE_OTHER, "{what}");
    }
    let body = format!("form_key={key}&fetch=yes");
    let all = ask(&context, "POST", "/repositories/fresh/lock", Some(&cookie), &body).await;
    assert_eq!(all.status(), StatusCode::SEE_OTHER);
    let asked = shelf.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(
        asked[0].ends_with("locks fresh") && asked[1] == "unlock ours" && asked[2].ends_with("locks fresh and fetches"),
        "{asked:?}"
    );

    let silent = ask(&context, "GET", "/repositories/ours/check", Some(&cookie), "").await;
    assert_eq!(silent.status(), StatusCode::BAD_GATEWAY);
    let words = text(silent).await;
    assert!(
        words.contains("its origin is silent") && !words.contains(HOSTILE),
        "{words}"
    );
}
