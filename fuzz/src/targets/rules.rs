//! The lists in header fields by which the caching proxy decides: `Vary`, conditions of requests, `Connection`.

use http::HeaderMap;
use http::header::{CONNECTION, ETAG, IF_RANGE, LAST_MODIFIED};
use rackbar_proxy::rules::conditional::{
    HOP_BY_HOP, freshened, not_modified, range_holds, set_validators, strip_hop_by_hop, strong_date, strong_etag,
};
use rackbar_proxy::rules::freshness::http_date;
use rackbar_proxy::rules::vary::{fits, selecting};
use rackbar_proxy::wire::{Parsed, parse};

/// A request's head and behind it that of the answer which is stored, whose first line is as a request's.
pub(super) fn rules(data: &[u8]) {
    let Parsed::Whole(head, used) = parse(data) else { return };
    let request = head.headers;
    let stored = match parse(data.get(used..).unwrap_or_default()) {
        Parsed::Whole(head, _) => head.headers,
        _ => HeaderMap::new(),
    };
    if let Some(kept) = selecting(&stored, &request) {
        assert!(fits(&kept, &request), "an answer does not fit who asked for it");
        let once = kept.windows(2).all(|two| matches!(two, [one, next] if one.0 < next.0));
        assert!(once, "a field is named twice: {kept:?}");
    }
    conditions(&request, &stored);
    neighbours(&request, &stored);
}

/// Whoever asks with the validators of what is stored has a copy that is good.
fn conditions(request: &HeaderMap, stored: &HeaderMap) {
    let _ = not_modified(request, stored);
    if request.contains_key(IF_RANGE) && range_holds(request, stored) {
        assert!(
            strong_etag(stored).or(strong_date(stored)).is_some(),
            "a range of what may be another version"
        );
    }
    let mut asked = request.clone();
    let some = set_validators(&mut asked, stored);
    let text = |name| stored.get(name).map(|value| value.to_str().unwrap_or(","));
    let good = match (text(ETAG), text(LAST_MODIFIED)) {
        (Some(tag), _) => !tag.contains(','),
        (None, Some(date)) => http_date(date).is_some(),
        (None, None) => false,
    };
    assert!(some || !good, "validators were left out");
    assert!(!good || not_modified(&asked, stored), "a good copy is sent again");
}

/// What is between two neighbours goes no further, and an answer that is renewed keeps what describes its content.
fn neighbours(request: &HeaderMap, stored: &HeaderMap) {
    let mut passed = request.clone();
    strip_hop_by_hop(&mut passed);
    let lists = request
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok());
    let named = lists.flat_map(|list| list.split(',').map(str::trim));
    for name in named.chain(HOP_BY_HOP) {
        assert!(!passed.contains_key(name), "{name} is passed on");
    }
    let new = freshened(stored, request);
    for name in ["content-length", "content-encoding", "content-range", "content-type"] {
        assert!(
            new.get_all(name).iter().eq(stored.get_all(name)),
            "{name} is another one's"
        );
    }
    assert_eq!(freshened(&new, request), new, "renewed twice is not renewed once");
}
