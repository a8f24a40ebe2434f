//! The API as HTTP: conditional requests, streams that are taken up again, and errors that programs can read.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use common::{Server, start};
use rackbar_model::{EventKind, MacAddr, Node, Severity};
use rackbar_services::EventSink;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(20);

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(seen, _)| seen.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// The problem it is, checked against RFC 9457.
    fn problem(&self) -> Value {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(problem["status"], self.status, "{self:?}");
        for member in ["type", "title", "detail"] {
            assert!(
                problem[member].as_str().is_some_and(|text| !text.is_empty()),
                "{member}: {self:?}"
            );
        }
        problem
    }
}

/// A request as it is written, over the socket that needs no token.
fn raw(server: &Server, head: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut stream = UnixStream::connect(server.folder.path().join("api.sock")).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut text = format!("{head} HTTP/1.1\r\nhost: rackbar\r\nconnection: close\r\n");
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += &format!("content-length: {}\r\n\r\n{body}", body.len());
    // Who sends too much is answered before the end, and may not get rid of the rest.
    let _ = stream.write_all(text.as_bytes());
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines();
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let pairs = lines.map(|line| line.split_once(": ").unwrap());
    let headers = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let body = body.to_owned();
    Answer { status, headers, body }
}

/// The same off the executor's threads: the server runs on them.
async fn ask(server: &Arc<Server>, head: &str, headers: &[(&'static str, &str)], body: &str) -> Answer {
    let server = server.clone();
    let (head, body) = (head.to_owned(), body.to_owned());
    let headers: Vec<(&'static str, String)> = headers
        .iter()
        .map(|(name, value)| (*name, (*value).to_owned()))
        .collect();
    let asked = tokio::task::spawn_blocking(move || {
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        raw(&server, &head, &headers, &body)
    });
    asked.await.unwrap()
}

const JSON: (&str, &str) = ("content-type", "application/json");

fn note(text: &str) -> EventKind {
    EventKind::Note {
        text: text.into(),
        severity: Severity::Info,
    }
}

/// A server whose rack has this many nodes.
async fn with_nodes(count: u8) -> Arc<Server> {
    let server = Arc::new(start().await);
    let mut events = server.rack.subscribe();
    for number in 1..=count {
        server.rack.event(
            Some(MacAddr([0x52, 0x54, 0, 0, 0, number])),
            EventKind::DhcpDiscover {
                network: "rack".into(),
                arch: Some(rackbar_model::ClientArch::X64Uefi),
                vendor_class: Some("PXEClient".into()),
                user_class: None,
                relay: None,
                circuit_id: None,
                remote_id: None,
            },
        );
    }
    let enrolled = async {
        while server.rack.nodes().len() < usize::from(count) {
            let _ = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
        }
    };
    tokio::time::timeout(LIMIT, enrolled).await.unwrap();
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_has_is_not_sent_again_and_what_changed_is_not_changed_by_it() {
    let server = with_nodes(1).await;
    let id = server.rack.nodes()[0].id;
    let node = format!("/api/v1/nodes/{id}");
    let first = ask(&server, &format!("GET {node}"), &[], "").await;
    let tag = first.header("etag").unwrap().to_owned();
    let again = ask(&server, &format!("GET {node}"), &[("if-none-match", &tag)], "").await;
    assert_eq!(
        (again.status, again.body.as_str(), again.header("etag")),
        (304, "", Some(tag.as_str()))
    );

    let rename = |to: &str| format!(r#"{{"name":"{to}"}}"#);
    let patch = format!("PATCH {node}");
    let name = || server.rack.nodes()[0].name.clone();
    let well = ask(&server, &patch, &[JSON, ("if-match", &tag)], &rename("db-1")).await;
    assert_eq!((well.status, name().as_str()), (200, "db-1"), "{well:?}");
    // The tag is of what it was before: somebody else would be overruled.
    let stale = ask(&server, &patch, &[JSON, ("if-match", &tag)], &rename("db-2")).await;
    assert_eq!((stale.status, name().as_str()), (412, "db-1"), "{stale:?}");
    assert!(stale.problem()["detail"].as_str().unwrap().contains("read it again"));
    let tag = well.header("etag").unwrap().to_owned();
    let two = format!("\"other\", {tag}");
    let well = ask(&server, &patch, &[JSON, ("if-match", &two)], &rename("db-3")).await;
    assert_eq!((well.status, name().as_str()), (200, "db-3"), "{well:?}");
    let whatever = ask(&server, &patch, &[JSON, ("if-match", "*")], &rename("db-4")).await;
    assert_eq!((whatever.status, name().as_str()), (200, "db-4"), "{whatever:?}");
    let changed = ask(&server, &format!("GET {node}"), &[("if-none-match", &tag)], "").await;
    assert_eq!(changed.status, 200, "{changed:?}");
}

/// What is asked, with which headers and body, and the status it gets.
type Case<'a> = (&'a str, &'a [(&'static str, &'a str)], &'a str, u16);

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_document() {
    let server = with_nodes(1).await;
    let node = format!("/api/v1/nodes/{}", server.rack.nodes()[0].id);
    let patch = format!("PATCH {node}");
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(8 << 20));
    let cases: [Case<'_>; 11] = [
        ("GET /api/v1/nodes/nobody", &[], "", 404),
        ("GET /api/v1/no-such-thing", &[], "", 404),
        ("GET /api/v1/nodes?limit=0", &[], "", 400),
        ("GET /api/v1/nodes?limit=many", &[], "", 400),
        ("GET /api/v1/nodes?page_token=zz", &[], "", 400),
        ("GET /api/v1/events?node=nobody", &[], "", 404),
        (&patch, &[JSON], r#"{"name":"#, 400),
        (&patch, &[JSON], r#"{"nmae":"db-1"}"#, 422),
        (&patch, &[], r#"{"name":"db-1"}"#, 415),
        (&patch, &[JSON], &long, 413),
        ("DELETE /api/v1/leases", &[], "", 405),
    ];
    for (head, headers, body, status) in cases {
        let answer = ask(&server, head, headers, body).await;
        assert_eq!(answer.status, status, "{head}: {answer:?}");
        answer.problem();
        if status == 405 {
            assert!(
                answer.header("allow").is_some_and(|allow| allow.contains("GET")),
                "{answer:?}"
            );
        }
    }
    // What a mistake is about is named.
    let typo = ask(&server, &patch, &[JSON], r#"{"nmae":"db-1"}"#).await.problem();
    assert!(typo["detail"].as_str().unwrap().contains("nmae"), "{typo}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_goes_on_after_the_last_event_its_reader_has() {
    let server = with_nodes(1).await;
    for text in ["one", "two", "three"] {
        server.rack.event(None, note(text));
    }
    let seq = async |text: &str| {
        let is = |kind: &EventKind| matches!(kind, EventKind::Note { text: said, .. } if said == text);
        let kept = async {
            loop {
                let events = server.rack.events(0, usize::MAX).unwrap();
                if let Some(event) = events.iter().find(|event| is(&event.kind)) {
                    return event.seq;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(LIMIT, kept).await.unwrap()
    };
    let (one, two, three) = (seq("one").await, seq("two").await, seq("three").await);
    // The header is newer than the address, which a browser keeps when it connects again.
    for (last, expected) in [(one, two), (two, three), (0, 1)] {
        let server = server.clone();
        let first = tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(server.folder.path().join("api.sock")).unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let head =
                format!("GET /api/v1/events/stream?after=0 HTTP/1.1\r\nhost: rackbar\r\nlast-event-id: {last}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            let mut seen = String::new();
            let mut buffer = [0; 4096];
            loop {
                let length = stream.read(&mut buffer).unwrap();
                assert_ne!(length, 0, "it ended: {seen}");
                seen += &String::from_utf8_lossy(&buffer[..length]);
                if let Some((_, rest)) = seen.split_once("\nid: ")
                    && let Some((id, _)) = rest.split_once('\n')
                {
                    return id.trim().parse::<u64>().unwrap();
                }
            }
        });
        assert_eq!(first.await.unwrap(), expected, "after {last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_each_machine_once_while_more_come() {
    let server = with_nodes(5).await;
    let there: Vec<_> = server.rack.nodes().iter().map(|node| node.id).collect();
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = ask(&server, &format!("GET /api/v1/nodes?limit=2{token}"), &[], "").await;
        let page: Value = serde_json::from_str(&page.body).unwrap();
        for item in page["items"].as_array().unwrap() {
            seen.push(serde_json::from_value::<Node>(item.clone()).unwrap().id);
        }
        let Some(next) = page["next_page_token"].as_str() else {
            break;
        };
        token = format!("&page_token={next}");
        if seen.len() == 2 {
            server.rack.event(
                Some(MacAddr([0x52, 0x54, 0, 0, 9, 9])),
                EventKind::DhcpDiscover {
                    network: "rack".into(),
                    arch: None,
                    vendor_class: Some("PXEClient".into()),
                    user_class: None,
                    relay: None,
                    circuit_id: None,
                    remote_id: None,
                },
            );
        }
    }
    for id in there {
        assert_eq!(seen.iter().filter(|one| **one == id).count(), 1, "{id} in {seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_was_never_inspected_has_no_inventories() {
    let server = with_nodes(1).await;
    let node = server.rack.nodes()[0].id;
    let answer = ask(&server, &format!("GET /api/v1/nodes/{node}/inventories"), &[], "").await;
    let page: Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(
        (answer.status, page["items"].as_array().map(Vec::len)),
        (200, Some(0)),
        "{answer:?}"
    );
    ask(&server, "GET /api/v1/nodes/nobody/inventories", &[], "")
        .await
        .problem();
}
