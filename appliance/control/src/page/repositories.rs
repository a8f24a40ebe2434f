//! Package repositories on the page of images: what each is locked to, and buttons to lock it, to take the lock back, and to
//! see what a new lock would bring.

use axum::Router;
use axum::extract::{Extension, Form, Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use rackbar_model::{RepositoryKind, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Viewer, foreign_form, message, trouble};
use crate::Context;
use crate::api::{Deed, Problem};
use crate::operations::{RepositoryEntry, RepositoryFetch};

/// Routes of this part; the caller guards them.
pub(super) fn router() -> Router<Context> {
    Router::new()
        .route("/repositories/{name}/check", get(check))
        .route("/repositories/{name}/lock", post(lock))
        .route("/repositories/{name}/unlock", post(unlock))
}

/// A repository as a row.
#[derive(Serialize)]
pub(super) struct Row {
    name: String,
    url: String,
    suite: String,
    roles: String,
    in_site: bool,
    /// Its packages can be fetched at once; a Git repository is kept whole with each lock.
    packages: bool,
    /// What it is locked to, in words; `None` without a lock.
    locked: Option<String>,
    signer: Option<String>,
    /// Why the lock does not do any more.
    differs: Option<String>,
    /// How far the fetching of its packages is, in words.
    fetch: Option<String>,
}

/// All of them. Like packs and programs, they are shown where there are any.
pub(super) async fn rows(context: &Context) -> Vec<Row> {
    let all = context.operations.repositories().await.unwrap_or_default();
    all.into_iter().map(row).collect()
}

fn row(entry: RepositoryEntry) -> Row {
    let lock = entry.lock.as_ref();
    let locked = lock.map(|lock| {
        let date = Timestamp(lock.date.saturating_mul(1000));
        let what = match &lock.revision {
            Some(commit) if lock.kind == RepositoryKind::Git => format!("commit {commit} of {date}"),
            _ => format!("its state of {date}, {} packages", lock.packages),
        };
        format!("{what}; locked {} by {}", lock.locked, lock.by)
    });
    Row {
        fetch: entry.fetch.as_ref().map(fetched),
        signer: lock.map(|lock| lock.signer.clone()).filter(|signer| !signer.is_empty()),
        locked,
        roles: entry.roles.join(", "),
        name: entry.name,
        url: entry.url,
        suite: match entry.kind {
            RepositoryKind::Deb => entry.suite,
            RepositoryKind::Rpm => "RPM packages".to_owned(),
            RepositoryKind::Git => format!("Git, {}", entry.reference.unwrap_or_default()),
        },
        in_site: entry.in_site,
        packages: entry.kind != RepositoryKind::Git,
        differs: entry.differs,
    }
}

fn fetched(fetch: &RepositoryFetch) -> String {
    let (kept, files) = (fetch.kept, fetch.files);
    match (&fetch.trouble, fetch.running) {
        (_, true) => format!("{kept} of {files} files are kept here; the others are being fetched"),
        (Some(trouble), false) => format!("{kept} of {files} files are kept here: {trouble}; lock it again to go on"),
        (None, false) => format!("all {files} files are kept here"),
    }
}

async fn check(State(context): State<Context>, Path(name): Path<String>) -> Response {
    match context.operations.check_repository(&name).await {
        Ok(found) => message(StatusCode::OK, &found.words),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

#[derive(Deserialize)]
struct LockForm {
    form_key: String,
    /// There when its box is ticked.
    fetch: Option<String>,
}

async fn lock(
    State(context): State<Context>,
    Path(name): Path<String>,
    Viewer(user): Viewer,
    headers: HeaderMap,
    Form(form): Form<LockForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    match context
        .operations
        .lock_repository(&name, &user.name, form.fetch.is_some())
        .await
    {
        Ok(_) => (
            Extension(Deed(format!("lock repository {name}"))),
            Redirect::to("/images"),
        )
            .into_response(),
        Err(refused) => trouble(&Problem::from(refused)),
    }
}

async fn unlock(
    State(context): State<Context>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Form(form): Form<LockForm>,
) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    match context.operations.unlock_repository(&name).await {
        Ok(_) => {
            let deed = Deed(format!("unlock repository {name}"));
            (Extension(deed), Redirect::to("/images")).into_response()
        }
        Err(refused) => trouble(&Problem::from(refused)),
    }
}
