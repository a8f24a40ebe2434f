//! The caching proxy on a page of its own: its mode, how full it is, what is pinned, what it holds, and the orders that the
//! command line has too.

use axum::Router;
use axum::extract::{Extension, Form, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use minijinja::context;
use serde::{Deserialize, Serialize};

use super::view::size;
use super::{Viewer, foreign_form, frame, message, render, shown, trouble};
use crate::Context;
use crate::api::{Deed, Problem};
use crate::operations::{CacheEntry, CacheOrder};

/// Answers that one page shows: a cache may hold a hundred thousand.
const SHOWN: usize = 200;

/// Routes of this part; the caller guards them.
pub(super) fn router() -> Router<Context> {
    Router::new().route("/cache", get(show).post(order))
}

/// A stored answer as a row.
#[derive(Serialize)]
struct Row {
    key: String,
    sha256: String,
    size: String,
    hits: u64,
    used: String,
    fresh: String,
    pinned: bool,
    pack: Option<String>,
}

impl From<CacheEntry> for Row {
    fn from(entry: CacheEntry) -> Self {
        let fresh = match entry.fresh_seconds {
            ..=0 => "asked for anew".to_owned(),
            seconds @ 1..120 => format!("{seconds} s"),
            seconds @ 120..7200 => format!("{} min", seconds / 60),
            seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
            seconds => format!("{} days", seconds / 86_400),
        };
        Self {
            key: entry.key,
            sha256: entry.sha256.to_string(),
            size: size(entry.bytes),
            hits: entry.hits,
            used: entry.used.to_string(),
            fresh,
            pinned: entry.pinned,
            pack: entry.pack,
        }
    }
}

#[derive(Deserialize)]
struct Search {
    /// Part of the key.
    #[serde(default)]
    q: String,
}

async fn show(
    State(context): State<Context>,
    Viewer(user): Viewer,
    Query(search): Query<Search>,
    headers: HeaderMap,
) -> Response {
    let operations = &context.operations;
    let (state, entries) = match (operations.cache().await, operations.cache_entries().await) {
        (Ok(state), Ok(entries)) => (state, entries),
        (Err(refused), _) | (_, Err(refused)) => return trouble(&Problem::from(refused)),
    };
    let (wanted, all) = (search.q.trim(), entries.len());
    let mut found: Vec<CacheEntry> = entries.into_iter().filter(|one| one.key.contains(wanted)).collect();
    let fits = found.len();
    found.sort_by(|a, b| b.used.cmp(&a.used).then_with(|| a.key.cmp(&b.key)));
    found.truncate(SHOWN);
    let rows: Vec<Row> = found.into_iter().map(Row::from).collect();
    render(
        "cache.html",
        context! {
            page => "services",
            state => shown(&state),
            used => size(state.used_bytes),
            budget => size(state.budget_bytes),
            rows => shown(&rows),
            all, fits, q => wanted,
            ..frame(&context, &headers, &user)
        },
    )
}

#[derive(Deserialize)]
struct OrderForm {
    form_key: String,
    what: String,
    /// Key, or the mode.
    #[serde(default)]
    of: String,
}

async fn order(State(context): State<Context>, headers: HeaderMap, Form(form): Form<OrderForm>) -> Response {
    if let Some(refused) = foreign_form(&headers, &form.form_key) {
        return refused;
    }
    let of = form.of.trim().to_owned();
    let order = match form.what.as_str() {
        "pin" => CacheOrder::Pin { key: of },
        "unpin" => CacheOrder::Unpin { key: of },
        "refresh" => CacheOrder::Refresh { key: of },
        "verify" => CacheOrder::Verify,
        "mode" => CacheOrder::Mode { mode: of },
        _ => return message(StatusCode::BAD_REQUEST, "That is nothing that the cache does."),
    };
    match context.operations.order_cache(order).await {
        Ok(done) => {
            let deed = Deed(format!("cache: {done}"));
            (Extension(deed), message(StatusCode::OK, &done)).into_response()
        }
        Err(refused) => trouble(&Problem::from(refused)),
    }
}
