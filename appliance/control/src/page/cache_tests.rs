//! The page of the cache: what it shows, defused, and its buttons.

use std::sync::{Arc, Mutex};

use axum::http::StatusCode;
use futures_util::FutureExt as _;
use futures_util::future::ready;
use rackbar_model::{Digest, Timestamp};

use super::fake::HOSTILE;
use super::tests::{ask, context, log_in, text};
use crate::operations::{Answer, CacheEntry, CacheOrder, CacheState, Operations, Refused};

/// A cache with many answers, the last of which was used last.
struct Shelf {
    answers: u64,
    asked: Mutex<Vec<CacheOrder>>,
}

impl Operations for Shelf {
    fn cache(&self) -> Answer<'_, CacheState> {
        let state = CacheState {
            mode: "recording".into(),
            used_bytes: 3 << 30,
            budget_bytes: 8 << 30,
            pins: vec![format!("mirror:debian/{HOSTILE}*")],
        };
        ready(Ok(state)).boxed()
    }

    fn cache_entries(&self) -> Answer<'_, Vec<CacheEntry>> {
        let entry = |number: u64| CacheEntry {
            key: format!(
                "mirror:debian/pool/{number:03}.deb{}",
                if number == 7 { HOSTILE } else { "" }
            ),
            sha256: Digest([7; 32]),
            bytes: 5_000_000,
            stored: Timestamp(1_700_000_000_000),
            used: Timestamp(1_700_000_000_000 + number * 1000),
            hits: number,
            pinned: number == 249,
            fresh_seconds: if number == 248 { -3 } else { 3 * 3600 },
            pack: (number == 247).then(|| "winter".into()),
        };
        ready(Ok((0..self.answers).map(entry).collect())).boxed()
    }

    fn order_cache(&self, order: CacheOrder) -> Answer<'_, String> {
        let refused = order == CacheOrder::Mode { mode: "away".into() };
        self.asked.lock().unwrap().push(order);
        match refused {
            true => ready(Err(Refused::Invalid(format!("there is no mode away {HOSTILE}")))).boxed(),
            false => ready(Ok(format!("done {HOSTILE}"))).boxed(),
        }
    }
}

#[tokio::test]
async fn page_shows_the_cache_and_passes_its_orders_on() {
    let shelf = Arc::new(Shelf {
        answers: 250,
        asked: Mutex::default(),
    });
    let mut context = context();
    context.operations = shelf.clone();
    let cookie = log_in(&context).await;
    let page = async |path: &str| {
        let html = text(ask(&context, "GET", path, Some(&cookie), "").await).await;
        assert!(!html.contains(HOSTILE), "words of others came through as they were");
        html.replace("&#x2f;", "/")
    };
    let html = page("/cache").await;
    for words in [
        "Mode: <b>recording</b>",
        "250 answers stored",
        "The 200 of 250 that were used last",
        "pool/249.deb",
        "asked for anew",
        "<td>3 h</td>",
        "data pack winter",
        "Go offline",
    ] {
        assert!(html.contains(words), "no {words:?} in\n{html}");
    }
    for words in ["pool/049.deb", "Go recording"] {
        assert!(!html.contains(words), "{words:?} in\n{html}");
    }
    let one = page("/cache?q=pool/007").await;
    assert!(one.contains("pool/007.deb") && !one.contains("pool/249.deb"), "{one}");
    assert!(page("/cache?q=nothing").await.contains("has that in its key"));
    assert!(page("/services").await.contains("href=\"/cache\""));

    let (_, rest) = html.split_once("name=\"form_key\" value=\"").expect("a form");
    let key = rest.split('"').next().unwrap().to_owned();
    let post = async |body: String| ask(&context, "POST", "/cache", Some(&cookie), &body).await;
    let foreign = post("form_key=x&what=verify".into()).await;
    assert_eq!(foreign.status(), StatusCode::FORBIDDEN);
    for (what, of) in [
        ("pin", "http%3A%2F%2Fh%2Ff"),
        ("unpin", "a*"),
        ("refresh", "k"),
        ("verify", ""),
        ("mode", "offline"),
    ] {
        let done = post(format!("form_key={key}&what={what}&of={of}")).await;
        assert_eq!(done.status(), StatusCode::OK, "{what}");
        let words = text(done).await;
        assert!(words.contains("done") && !words.contains(HOSTILE), "{words}");
    }
    let refused = post(format!("form_key={key}&what=mode&of=away")).await;
    assert_eq!(refused.status(), StatusCode::BAD_REQUEST);
    let unknown = post(format!("form_key={key}&what=burn")).await;
    assert_eq!(unknown.status(), StatusCode::BAD_REQUEST);
    let asked = shelf.asked.lock().unwrap().clone();
    let named = |text: &str| text.to_owned();
    assert_eq!(
        asked,
        [
            CacheOrder::Pin {
                key: named("http://h/f")
            },
            CacheOrder::Unpin { key: named("a*") },
            CacheOrder::Refresh { key: named("k") },
            CacheOrder::Verify,
            CacheOrder::Mode { mode: named("offline") },
            CacheOrder::Mode { mode: named("away") },
        ]
    );
}
