//! Origins that speak TLS: by which version of HTTP they are asked, and whose certificates are trusted.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;
mod tls_origin;

use common::*;
use http::Version;
use rackbar_proxy::rules::destination::Destinations;
use rackbar_proxy::rules::target::Url;
use rackbar_proxy::{Mirror, Settings, authorities};
use tls_origin::TlsOrigin;

/// A mirror of this origin under each of these names.
fn mirrors(origin: &TlsOrigin, hosts: &[&str], roots: Vec<Vec<u8>>) -> Settings {
    let mirror = |host: &&str| Mirror {
        name: (*host).to_owned(),
        upstreams: vec![Url::parse(&origin.url(host, "/base")).unwrap()],
    };
    Settings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        mirrors: hosts.iter().map(mirror).collect(),
        roots,
        rule: Destinations {
            ports: vec![origin.address.port()],
            allowed: vec!["127.0.0.1/32".parse().unwrap()],
            ..Destinations::default()
        },
        ..Settings::default()
    }
}

fn get(under: &Under, name: &str, path: &str) -> (u16, Vec<u8>) {
    let url = format!("http://{}/mirror/{name}/{path}", under.address);
    let (status, _, body) = under.curl(&["--noproxy", "*"], &url);
    (status, body)
}

#[test]
fn an_origin_is_asked_over_tls_by_http_2_or_1_1_and_what_it_gives_is_stored() {
    let body = bytes(3 << 20, 601);
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"][..], Version::HTTP_11),
        (&[][..], Version::HTTP_11),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let origin = TlsOrigin::start(&["localhost"], protocols, &body);
        let roots = authorities(&origin.authority).unwrap();
        let under = under(folder.path(), mirrors(&origin, &["localhost"], roots));
        for _ in 0..2 {
            let (status, got) = get(&under, "localhost", "a");
            assert!(status == 200 && got == body, "{protocols:?}: {status}");
            wait("it is stored", || under.stored("mirror:localhost/a"));
        }
        let asked = origin.asked.lock().unwrap().clone();
        assert_eq!(asked.len(), 1, "{protocols:?}");
        let (path, by, headers) = &asked[0];
        assert_eq!((path.as_str(), *by), ("/base/a", version), "{protocols:?}");
        assert_eq!(headers.contains_key("host"), version == Version::HTTP_11);
        // The forward proxy takes a URL with https too, and finds what the mirror stored.
        let target = origin.url("localhost", "/base/a");
        assert!(under.get(&target) == body);
        assert_eq!(origin.asked.lock().unwrap().len(), 1);
    }
}

#[test]
fn an_origin_whose_certificate_is_by_nobody_we_trust_or_for_another_name_is_refused_in_words() {
    let origin = TlsOrigin::start(&["localhost"], &["h2", "http/1.1"], b"secret");
    let another = TlsOrigin::start(&["localhost"], &["h2", "http/1.1"], b"secret");
    let trusted = authorities(&origin.authority).unwrap();
    let wrong = authorities(&another.authority).unwrap();
    for (roots, name, why) in [
        (Vec::new(), "localhost", "UnknownIssuer"),
        // An authority that calls itself the same.
        (wrong, "localhost", "BadSignature"),
        (trusted, "127.0.0.1", "not valid for name"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let under = under(folder.path(), mirrors(&origin, &[name], roots));
        let (status, text) = get(&under, name, "a");
        let text = String::from_utf8(text).unwrap();
        assert!(
            status == 502 && text.contains(why) && text.contains("authority in the [proxy] section"),
            "{status} {text}"
        );
        assert!(under.handle.proxy().list().is_empty());
    }
    assert!(origin.asked.lock().unwrap().is_empty(), "nothing was asked of it");
}

#[test]
fn a_mirror_by_tls_is_not_led_out_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let origin = TlsOrigin::start(&["localhost"], &["http/1.1"], b"a");
    let roots = authorities(&origin.authority).unwrap();
    let under = under(folder.path(), mirrors(&origin, &["localhost"], roots));
    let (status, text) = get(&under, "localhost", "leads");
    let text = String::from_utf8(text).unwrap();
    assert!(
        status == 502 && text.contains("not protected any more"),
        "{status} {text}"
    );
}
