//! Freshness by header, by heuristic and by clock, case by case, and held against another implementation.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::CACHE_CONTROL;
use http::{HeaderName, HeaderValue, Request, Response};
use http_cache_semantics::{BeforeRequest, CachePolicy};
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_800_000_000;

fn map(pairs: &[(&str, &str)]) -> HeaderMap {
    let parsed = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    pairs.iter().map(parsed).collect()
}

fn date(at: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(at))
}

fn fresh(pairs: &[(&str, &str)]) -> Freshness {
    Freshness::of(&map(pairs), NOW, NOW, false)
}

fn wants(text: &str) -> CacheControl {
    CacheControl::of(&map(&[("cache-control", text)]), true)
}

#[test]
fn shared_freshness_comes_before_private_and_both_before_expires() {
    let expires = date(NOW + 1000);
    let all = [
        ("cache-control", "max-age=60, s-maxage=30"),
        ("expires", expires.as_str()),
    ];
    assert_eq!(fresh(&all).lifetime, 30);
    assert_eq!(
        fresh(&[("cache-control", "max-age=60"), ("expires", &expires)]).lifetime,
        60
    );
    assert_eq!(fresh(&[("expires", &expires)]).lifetime, 1000);
    assert_eq!(fresh(&[("expires", "0")]).lifetime, 0);
    let old = date(NOW - 5000);
    assert_eq!(fresh(&[("last-modified", &old)]).lifetime, 500);
    assert_eq!(
        Freshness::of(&map(&[("last-modified", &old)]), NOW, NOW, true).lifetime,
        120
    );
}

#[test]
fn age_counts_what_passed_on_the_way() {
    let headers = map(&[
        ("age", "100"),
        ("date", &date(NOW - 20)),
        ("cache-control", "max-age=300"),
    ]);
    let fresh = Freshness::of(&headers, NOW - 3, NOW, false);
    assert_eq!(fresh.age(NOW), 103);
    assert_eq!(fresh.age(NOW + 50), 153);
    assert_eq!(fresh.left(NOW + 50), 147);
    // A clock that was put back makes nothing younger than it was.
    assert_eq!(fresh.age(NOW - 1000), 103);
}

#[test]
fn requests_may_want_it_fresher_or_take_it_staler() {
    let entry = fresh(&[("cache-control", "max-age=100")]);
    let judged = |text: &str, later: u64| entry.judge(&wants(text), NOW + later);
    assert_eq!(judged("", 99), Judged::Fresh);
    assert_eq!(judged("", 100), Judged::Validate);
    assert_eq!(judged("max-age=10", 11), Judged::Validate);
    assert_eq!(judged("no-cache", 0), Judged::Validate);
    assert_eq!(judged("min-fresh=50", 51), Judged::Validate);
    assert_eq!(judged("max-stale=20", 119), Judged::Fresh);
    assert_eq!(judged("max-stale=20", 120), Judged::Fresh);
    assert_eq!(judged("max-stale=20", 121), Judged::Validate);
    let strict = fresh(&[("cache-control", "max-age=100, must-revalidate")]);
    assert_eq!(strict.judge(&wants("max-stale"), NOW + 101), Judged::Validate);
}

#[test]
fn stale_answers_help_over_errors_unless_forbidden() {
    let plain = fresh(&[("cache-control", "max-age=10")]);
    let none = CacheControl::default();
    assert!(plain.usable_after_error(&none, NOW + 500, true, 1000));
    assert!(!plain.usable_after_error(&none, NOW + 5000, true, 1000));
    assert!(!plain.usable_after_error(&none, NOW + 500, false, 1000));
    let allowed = fresh(&[("cache-control", "max-age=10, stale-if-error=60")]);
    assert!(allowed.usable_after_error(&none, NOW + 70, false, 0));
    assert!(!allowed.usable_after_error(&none, NOW + 71, true, 1000));
    for strict in [
        "max-age=10, must-revalidate",
        "max-age=10, proxy-revalidate",
        "s-maxage=10",
        "no-cache",
    ] {
        let strict = fresh(&[("cache-control", strict)]);
        assert!(!strict.usable_after_error(&none, NOW + 11, true, 1000));
    }
}

#[test]
fn what_belongs_to_one_user_is_not_stored() {
    let stored = |request: &[(&str, &str)], status, response: &[(&str, &str)]| {
        storable(&Method::GET, &map(request), status, &map(response))
    };
    let aged = [("cache-control", "max-age=60")];
    assert_eq!(stored(&[], 200, &aged), Ok(()));
    assert_eq!(stored(&[], 404, &aged), Ok(()));
    assert_eq!(stored(&[], 404, &[("etag", "\"a\"")]), Err(NotStored::Status));
    assert_eq!(stored(&[], 206, &aged), Err(NotStored::Status));
    assert_eq!(stored(&[], 503, &aged), Err(NotStored::Status));
    assert_eq!(
        stored(&[], 200, &[("cache-control", "private, max-age=60")]),
        Err(NotStored::Private)
    );
    assert_eq!(
        stored(&[], 200, &[("cache-control", "no-store")]),
        Err(NotStored::NoStore)
    );
    assert_eq!(
        stored(&[("cache-control", "no-store")], 200, &aged),
        Err(NotStored::NoStore)
    );
    assert_eq!(stored(&[("authorization", "x")], 200, &aged), Err(NotStored::Private));
    assert_eq!(
        stored(
            &[("authorization", "x")],
            200,
            &[("cache-control", "public, max-age=9")]
        ),
        Ok(())
    );
    assert_eq!(
        stored(&[], 200, &[("set-cookie", "a=b"), ("etag", "\"a\"")]),
        Err(NotStored::Private)
    );
    assert_eq!(stored(&[], 200, &[("etag", "\"a\"")]), Ok(()));
    assert_eq!(stored(&[], 200, &[]), Err(NotStored::Useless));
    assert_eq!(
        storable(&Method::HEAD, &map(&[]), 200, &map(&aged)),
        Err(NotStored::Method)
    );
    assert_eq!(
        stored(&[], 200, &[("cache-control", "no-store, must-understand, max-age=9")]),
        Ok(())
    );
}

#[test]
fn only_unsafe_methods_that_succeeded_invalidate() {
    assert!(invalidates(&Method::PUT, 201) && invalidates(&Method::DELETE, 302));
    assert!(!invalidates(&Method::GET, 200) && !invalidates(&Method::OPTIONS, 200) && !invalidates(&Method::POST, 500));
}

/// The peer's view of the same exchange at `later` seconds after it.
fn peer_is_fresh(request: &HeaderMap, response: &HeaderMap, second: &HeaderMap, later: u64) -> bool {
    let time = |seconds: u64| -> SystemTime { UNIX_EPOCH + Duration::from_secs(seconds) };
    let asked = |headers: &HeaderMap| {
        let mut made = Request::get("http://example.org/a").body(()).unwrap();
        *made.headers_mut() = headers.clone();
        made
    };
    let mut answer = Response::new(());
    *answer.headers_mut() = response.clone();
    let policy = CachePolicy::new_options(
        &asked(request),
        &answer,
        time(NOW),
        http_cache_semantics::CacheOptions::default(),
    );
    matches!(
        policy.before_request(&asked(second), time(NOW + later)),
        BeforeRequest::Fresh(_)
    )
}

proptest! {
    /// Where both have an opinion on explicit freshness it is the same.
    #[test]
    fn freshness_agrees_with_http_cache_semantics(
        max_age in proptest::option::of(0u64..200),
        s_maxage in proptest::option::of(0u64..200),
        flags in proptest::sample::subsequence(vec!["public", "must-revalidate", "no-cache"], 0..3),
        age in proptest::option::of(0u64..100),
        later in 0u64..250,
        wanted in proptest::sample::select(vec!["", "no-cache", "max-age=20", "min-fresh=20", "max-stale=30"]),
    ) {
        prop_assume!(max_age.is_some() || s_maxage.is_some());
        let mut directives: Vec<String> = flags.iter().map(ToString::to_string).collect();
        directives.extend(max_age.map(|n| format!("max-age={n}")));
        directives.extend(s_maxage.map(|n| format!("s-maxage={n}")));
        let mut response = map(&[("date", &date(NOW)), ("etag", "\"x\"")]);
        response.insert(CACHE_CONTROL, HeaderValue::from_str(&directives.join(", ")).unwrap());
        if let Some(age) = age {
            response.insert(AGE, HeaderValue::from(age));
        }
        let second = map(&[("cache-control", wanted)]);
        let ours = Freshness::of(&response, NOW, NOW, false).judge(&wants(wanted), NOW + later);
        // The peer lets `max-stale` override `s-maxage` and `no-cache`, which RFC 9111 sections 5.2.2.10 and 5.2.2.4 forbid
        // to a shared cache; and it takes every answer with `proxy-revalidate` as stale at once, so that is left out.
        let strict = s_maxage.is_some() || flags.contains(&"no-cache");
        prop_assume!(!(wanted.starts_with("max-stale") && strict));
        // RFC 9111 section 5.2.1.2: stale "by no more than" 30 seconds will do; the peer wants less than 30.
        let edge = max_age.map(|lifetime| lifetime + 30) == Some(age.unwrap_or(0) + later);
        prop_assume!(!(wanted.starts_with("max-stale") && edge));
        let peer = peer_is_fresh(&HeaderMap::new(), &response, &second, later);
        prop_assert_eq!(ours == Judged::Fresh, peer);
    }
}
