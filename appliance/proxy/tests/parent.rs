//! Origins behind a parent proxy: Debian's Squid, which wants a login. What goes through it, what is reached without it, and
//! whose refusals are whose.
#![allow(clippy::unwrap_used, reason = "these are tests")]

mod common;
mod squid;
mod tls_origin;

use common::*;
use rackbar_outward::{Direct, Parent};
use rackbar_proxy::origin::Origins;
use rackbar_proxy::rules::target::Url;
use rackbar_proxy::{Mirror, Settings, authorities};
use squid::{NAME, PASSWORD, Squid, USER};
use tls_origin::TlsOrigin;

fn parent(squid: &Squid, password: &str) -> Parent {
    Parent::parse(&squid.url()).unwrap().with_login(USER, password).unwrap()
}

/// The usual mirror of these origins, reached through a parent.
fn behind(origins: &[&Origin], parent: Parent) -> Settings {
    Settings {
        parent: Some(parent),
        ..settings(origins)
    }
}

fn mirror(under: &Under, path: &str) -> (u16, String, Vec<u8>) {
    let url = format!("http://{}/mirror/{path}", under.address);
    under.curl(&["--noproxy", "*"], &url)
}

#[test]
fn plain_origins_are_asked_through_the_parent_and_never_see_its_login() {
    let (origin, near, squid) = (Origin::start(), Origin::start(), Squid::start());
    let (large, folder) = (bytes(3_000_000, 7), tempfile::tempdir().unwrap());
    origin.put("/debian/pool/a.deb", doc(large.clone()));
    // By another name of the same machine, which is reached without the parent.
    near.put("/near", doc(b"near".to_vec()));
    let direct = Direct::parse("localhost").unwrap();
    let mut settings = behind(&[&origin], parent(&squid, PASSWORD).with_direct([direct]));
    settings.rule = rule(&[&origin, &near]);
    let named = format!("http://{NAME}:{}/debian/pool", origin.address.port());
    settings.mirrors.push(Mirror {
        name: "named".into(),
        upstreams: vec![Url::parse(&named).unwrap()],
    });
    settings.rule.allowed.push("::1/128".parse().unwrap());
    let under = under(folder.path(), settings);

    let (status, head, body) = mirror(&under, "debian/pool/a.deb");
    assert!(status == 200 && body == large, "{status} {head}");
    wait("the answer is stored", || under.stored("mirror:debian/pool/a.deb"));
    squid.told_of(&format!("GET {}", origin.url("/debian/pool/a.deb")));
    let heads = origin.heads("/debian/pool/a.deb");
    assert_eq!(heads.len(), 1);
    let seen = heads[0].to_ascii_lowercase();
    assert!(
        seen.contains("parent (squid") && !seen.contains("authorization"),
        "{seen}"
    );
    // What a client names itself, and what changes something, goes the same way; what it proves to us stays here.
    let url = format!("http://{}/mirror/named/a.deb", under.address);
    let known = "a name that the parent alone knows";
    assert!(under.curl(&["--noproxy", "*"], &url).2 == large, "{known}");
    origin.put("/plain", doc(b"plain".to_vec()));
    let (status, _, body) = under.curl(&["--proxy-user", "a:b"], &origin.url("/plain"));
    assert_eq!((status, body), (200, b"plain".to_vec()));
    assert!(!origin.heads("/plain")[0].to_ascii_lowercase().contains("authorization"));
    let url = format!("http://localhost:{}/near", near.address.port());
    assert_eq!(under.curl(&[], &url).2, b"near");
    let seen = near.heads("/near")[0].to_ascii_lowercase();
    assert!(!seen.contains("squid"), "{seen}");
    assert!(!squid.log().contains("/near"));
}

#[test]
fn tls_ends_at_the_origin_for_the_proxy_and_for_clients_in_a_tunnel() {
    let squid = Squid::start();
    let origin = TlsOrigin::start(&["localhost"], &["h2", "http/1.1"], b"sealed");
    let folder = tempfile::tempdir().unwrap();
    let mut settings = behind(&[], parent(&squid, PASSWORD));
    settings.roots = authorities(&origin.authority).unwrap();
    settings.rule.connect_ports = vec![origin.address.port()];
    settings.rule.allowed.push("::1/128".parse().unwrap());
    settings.mirrors = vec![Mirror {
        name: "tls".into(),
        upstreams: vec![Url::parse(&origin.url("localhost", "/base")).unwrap()],
    }];
    let under = under(folder.path(), settings);
    let connect = format!("CONNECT localhost:{}", origin.address.port());

    assert_eq!(mirror(&under, "tls/a").2, b"sealed");
    assert_eq!(origin.asked.lock().unwrap()[0].1, http::Version::HTTP_2);
    // A client's own TLS, in a tunnel inside the tunnel.
    let (status, head, body) = under.curl(&["--insecure"], &origin.url("localhost", "/b"));
    assert_eq!((status, body), (200, b"sealed".to_vec()), "{head}");
    drop(under);
    squid.told_of(&connect);
    wait("both tunnels are in the parent's log", || {
        squid.log().matches(&connect).count() == 2
    });
    let asked = origin.asked.lock().unwrap();
    assert!(
        asked
            .iter()
            .all(|(_, _, head)| !head.contains_key("proxy-authorization"))
    );
}

#[test]
fn what_the_parent_refuses_is_told_from_what_the_origin_refuses() {
    let (origin, squid) = (Origin::start(), Squid::start());
    let folder = tempfile::tempdir().unwrap();
    origin.put(
        "/debian/no",
        raw("HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nof origin"),
    );
    let mut settings = behind(&[&origin], parent(&squid, PASSWORD));
    // Nobody is there.
    settings.mirrors.push(Mirror {
        name: "gone".into(),
        upstreams: vec![Url::parse("http://127.0.0.1:9/x").unwrap()],
    });
    settings.rule.connect_ports = vec![9];
    settings.mirrors.push(Mirror {
        name: "forbidden".into(),
        upstreams: vec![Url::parse(&origin.url("/forbidden")).unwrap()],
    });
    let proxy = under(folder.path(), settings.clone());
    let says = |under: &Under, path: &str| {
        let (status, _, body) = mirror(under, path);
        (status, String::from_utf8(body).unwrap())
    };
    assert_eq!(says(&proxy, "debian/no"), (403, "of origin".into()));
    let (status, text) = says(&proxy, "forbidden/a");
    let wanted = format!(
        "the parent proxy {} refuses the way to 127.0.0.1 (403 ERR_ACCESS_DENIED",
        squid.url()
    );
    assert!(status == 502 && text.contains(&wanted), "{status} {text}");
    assert_eq!(origin.requests("/forbidden/a"), 0);
    let (status, text) = says(&proxy, "gone/a");
    assert!(
        status == 502 && text.contains("does not get to 127.0.0.1 (503 ERR_CONNECT_FAIL"),
        "{status} {text}"
    );
    // In a tunnel, too.
    let all = proxy.raw("CONNECT 127.0.0.1:9 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    let text = String::from_utf8_lossy(&all);
    assert!(
        text.starts_with("HTTP/1.1 502") && text.contains("does not get to 127.0.0.1:9 (503 ERR_CONNECT"),
        "{text}"
    );

    let wrong = Settings {
        parent: Some(parent(&squid, "wrong")),
        ..settings.clone()
    };
    let other = tempfile::tempdir().unwrap();
    let told = under(other.path(), wrong);
    for target in ["GET /mirror/debian/x", "CONNECT 127.0.0.1:9"] {
        let all = told.raw(&format!("{target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let text = String::from_utf8_lossy(&all);
        let wanted = "wants a login (407) and does not take the one it is given; see parent_login";
        assert!(
            text.starts_with("HTTP/1.1 502") && text.contains(wanted),
            "{target}: {text}"
        );
        assert!(
            !text.contains("wrong") && !text.to_ascii_lowercase().contains("proxy-authenticate"),
            "{text}"
        );
    }
    let url = squid.url();
    drop(squid);
    let (status, text) = says(&proxy, "debian/later");
    let wanted = format!("the parent proxy {url} cannot be reached: ");
    assert!(status == 502 && text.contains(&wanted), "{status} {text}");
}

#[test]
fn a_parent_is_no_way_around_the_rule() {
    let (origin, squid) = (Origin::start(), Squid::start());
    origin.put("/secret", doc(b"secret".to_vec()));
    let folder = tempfile::tempdir().unwrap();
    let mut settings = behind(&[], parent(&squid, PASSWORD));
    let port = origin.address.port();
    settings.rule.allowed.clear();
    settings.rule.ports = vec![port];
    settings.rule.connect_ports = vec![port];
    let under = under(folder.path(), settings);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        for request in [
            format!("GET http://{host}:{port}/secret"),
            format!("CONNECT {host}:{port}"),
        ] {
            let all = under.raw(&format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
            let text = String::from_utf8_lossy(&all);
            assert!(
                text.starts_with("HTTP/1.1 403") && text.contains("leads nobody to"),
                "{request}: {text}"
            );
        }
    }
    assert!(!squid.log().contains(&port.to_string()));
    assert!(origin.seen.lock().unwrap().is_empty());
}

#[test]
fn publishers_of_catalogue_and_locks_are_asked_through_the_parent() {
    let (origin, squid) = (Origin::start(), Squid::start());
    origin.put("/sums", doc(b"sums".to_vec()));
    origin.put("/own/InRelease", doc(b"signed".to_vec()));
    let threads = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    // As a refresh of the catalogue asks.
    let origins = Origins::new(rule(&[]), &[], Some(parent(&squid, PASSWORD)));
    let got = threads.block_on(async { origins.get(&origin.url("/sums")).await.unwrap().whole(100).await });
    assert_eq!(got.unwrap(), b"sums");
    squid.told_of(&format!("GET {}", origin.url("/sums")));
    let wrong = Origins::new(rule(&[]), &[], Some(parent(&squid, "wrong")));
    let refused = threads
        .block_on(wrong.get(&origin.url("/sums")))
        .err()
        .unwrap()
        .to_string();
    assert!(refused.contains("wants a login (407)"), "{refused}");
    // As a lock of a repository does.
    let folder = tempfile::tempdir().unwrap();
    let under = under(folder.path(), behind(&[], parent(&squid, PASSWORD)));
    let proxy = under.handle.proxy();
    let got = threads.block_on(proxy.document(&origin.url("/own/"), "InRelease", None, 100));
    assert_eq!(got.unwrap().bytes, b"signed");
    squid.told_of(&format!("GET {}", origin.url("/own/InRelease")));
}
