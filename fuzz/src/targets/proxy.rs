//! What clients, origins and indexes of packages send to the caching proxy.

use http::HeaderMap;
use http::header::{CACHE_CONTROL, CONTENT_RANGE, HeaderValue};
use rackbar_proxy::chunks::{Chunks, Piece};
use rackbar_proxy::index::{self, Kind};
use rackbar_proxy::rules::cache_control::CacheControl;
use rackbar_proxy::rules::freshness::Freshness;
use rackbar_proxy::rules::range::{ByteRange, ContentRange};
use rackbar_proxy::rules::target::{Url, authority, mirror_key, plain};
use rackbar_proxy::store::Record;
use rackbar_proxy::wire::{Parsed, parse};

/// A body in chunks.
fn body(mut data: &[u8]) {
    let mut chunks = Chunks::default();
    while let Ok(piece) = chunks.next(data) {
        let (Piece::Over(count) | Piece::Content(count)) = piece else {
            return;
        };
        assert!(count > 0 && count <= data.len(), "more was read than there is");
        data = data.get(count..).unwrap_or_default();
    }
}

/// A request of a client: its head, its target, its ranges, its body.
pub(super) fn request(data: &[u8]) {
    body(data);
    let Parsed::Whole(head, used) = parse(data) else { return };
    assert!(used <= data.len(), "more was read than there is");
    body(data.get(used..).unwrap_or_default());
    if let Some(url) = Url::parse(&head.target) {
        assert_eq!(
            Url::parse(&url.to_string()),
            Some(url.clone()),
            "one URL has two spellings"
        );
        let _ = url.follow(&head.target);
    }
    let _ = (
        authority(&head.target, 0),
        plain(&head.target),
        mirror_key("m", &head.target),
    );
    let _ = CacheControl::of(&head.headers, true);
    for value in head
        .headers
        .get_all("range")
        .iter()
        .filter_map(|value| value.to_str().ok())
    {
        let span = ByteRange::parse(value).and_then(|range| range.within(1000));
        assert!(
            span.is_none_or(|span| span.start < span.end && span.end <= 1000),
            "a range is outside"
        );
    }
}

/// Fields of an origin's answer, and a stored record; what a parent proxy answers to `CONNECT`.
pub(super) fn answer(data: &[u8]) {
    if let Some((status, words)) = rackbar_outward::status(data) {
        assert!(
            status < 1000 && words.len() <= 3 * data.len(),
            "more was read than there is"
        );
    }
    let _ = Record::from_bytes(data);
    let Ok(value) = HeaderValue::from_bytes(data) else {
        return;
    };
    let mut headers = HeaderMap::new();
    headers.insert(CACHE_CONTROL, value.clone());
    headers.insert("age", value.clone());
    headers.insert("expires", value.clone());
    headers.insert(CONTENT_RANGE, value.clone());
    let fresh = Freshness::of(&headers, 10, 20, false);
    let _ = (
        fresh.age(u64::MAX),
        fresh.left(u64::MAX),
        fresh.judge(&CacheControl::of(&headers, true), 30),
    );
    if let Some(range) = value.to_str().ok().and_then(ContentRange::parse) {
        assert!(range.first <= range.last, "a range runs backwards");
    }
}

/// Indexes of packages, packed and not.
pub(super) fn package_index(data: &[u8]) {
    for kind in [Kind::Release, Kind::Packages, Kind::Repomd, Kind::Primary] {
        let _ = index::read(&kind, data, &mut |path, _| {
            assert!(
                !path.starts_with('/') && path.split('/').all(|part| part != ".."),
                "{path} leads out"
            );
        });
    }
    let _ = index::read_packages(data, &mut |package| {
        let path = &package.path;
        assert!(
            !path.starts_with('/') && path.split('/').all(|part| part != ".."),
            "{path} leads out"
        );
    });
}
