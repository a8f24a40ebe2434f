//! What the API promises of every request, seen by curl over TLS: how it refuses, what is conditional, and how a broken
//! event stream is taken up again.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use std::time::Duration;

use common::{Got, Server, TOKEN, start};
use rackbar_model::{ClientArch, EventKind, MacAddr, Severity};
use rackbar_services::EventSink;
use serde_json::Value;

const JSON: [&str; 2] = ["--header", "Content-Type: application/json"];

fn note(text: &str) -> EventKind {
    EventKind::Note {
        text: text.into(),
        severity: Severity::Info,
    }
}

/// A machine asks for an address for the first time; waits until the rack knows it.
async fn machine(server: &Server, number: u8) -> String {
    let mac = MacAddr([0x52, 0x54, 0, 0, 0, number]);
    let kind = EventKind::DhcpDiscover {
        network: "rack".into(),
        arch: Some(ClientArch::X64Uefi),
        vendor_class: Some("PXEClient".into()),
        user_class: None,
        relay: None,
        circuit_id: None,
        remote_id: None,
    };
    let mut events = server.rack.subscribe();
    server.rack.event(Some(mac), kind);
    let known = async {
        loop {
            if let Some(node) = server.rack.node(&mac.to_string()) {
                return node.name.clone();
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
        }
    };
    let known = tokio::time::timeout(Duration::from_secs(20), known).await;
    known.expect("the rack knows a machine within twenty seconds")
}

async fn get(server: &Server, path: &str) -> Got {
    server.curl(TOKEN, &[], path).await
}

/// Waits until the journal holds this many events.
async fn recorded(server: &Server, count: u64) {
    let mut events = server.rack.subscribe();
    let written = async {
        while server.rack.last_seq() < count {
            let _ = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
        }
    };
    let written = tokio::time::timeout(Duration::from_secs(20), written).await;
    written.expect("events are in the journal within twenty seconds");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_refusal_is_a_problem_with_the_right_status() {
    let server = start().await;
    let node = machine(&server, 1).await;
    let node = format!("/api/v1/nodes/{node}");
    let power = format!("{node}/power");
    let large = server.folder.path().join("large.json");
    std::fs::write(&large, format!("{{\"name\": \"{}\"}}", "x".repeat(3 << 20))).unwrap();
    let large = format!("@{}", large.display());
    let send =
        |method: &'static str, body: &'static str| [vec!["--request", method, "--data", body], JSON.to_vec()].concat();
    let plain = vec![
        "--request",
        "POST",
        "--data",
        "{}",
        "--header",
        "Content-Type: text/plain",
    ];
    // A body that is refused for its length is not read to its end, which Debian 12's curl shows over HTTP/1.1 alone.
    let too_large = [
        vec!["--http1.1", "--request", "PATCH", "--data", large.as_str()],
        JSON.to_vec(),
    ]
    .concat();
    let none = Vec::new;
    let cases: Vec<(u16, &str, &str, Vec<&str>, &str)> = vec![
        (401, "no token", "", none(), "/api/v1/nodes"),
        (401, "wrong token", "a guess", none(), "/api/v1/nodes"),
        (401, "no token for a change", "", send("PATCH", "{}"), &node),
        (400, "no JSON", TOKEN, send("PATCH", "{\"name\": "), &node),
        (422, "unknown field", TOKEN, send("PATCH", r#"{"nmae": "db-1"}"#), &node),
        (
            422,
            "unknown word",
            TOKEN,
            send("POST", r#"{"action": "explode"}"#),
            &power,
        ),
        (415, "no media type of ours", TOKEN, plain, &power),
        (413, "body too large", TOKEN, too_large, &node),
        (404, "unknown node", TOKEN, none(), "/api/v1/nodes/nobody"),
        (404, "unknown path", TOKEN, none(), "/api/v1/nothing"),
        (404, "unknown path, no token", "", none(), "/nothing"),
        (405, "wrong method", TOKEN, send("DELETE", "{}"), "/api/v1/nodes"),
        (405, "wrong method, no token", "", send("DELETE", "{}"), "/api/v1/nodes"),
        (405, "wrong method on health", "", send("POST", "{}"), "/healthz"),
        (405, "wrong method on a page", "", send("PUT", "{}"), "/leases"),
        (400, "page token", TOKEN, none(), "/api/v1/nodes?page_token=zz"),
        (400, "limit of 0", TOKEN, none(), "/api/v1/nodes?limit=0"),
        (400, "limit above 1000", TOKEN, none(), "/api/v1/leases?limit=1001"),
        (
            400,
            "limit that is no number",
            TOKEN,
            none(),
            "/api/v1/events?limit=many",
        ),
        (400, "limit of events", TOKEN, none(), "/api/v1/events?limit=1001"),
        (400, "limit of the audit trail", TOKEN, none(), "/api/v1/audit?limit=0"),
        (400, "unknown parameter", TOKEN, none(), "/api/v1/nodes?stat=ready"),
        (400, "number of a run", TOKEN, none(), "/api/v1/runs/last"),
        (
            400,
            "Last-Event-ID",
            TOKEN,
            vec!["--header", "Last-Event-ID: last"],
            "/api/v1/events/stream",
        ),
        (502, "no BMC", TOKEN, send("POST", r#"{"action": "on"}"#), &power),
    ];
    for (status, what, token, arguments, path) in cases {
        let got = server.curl(token, &arguments, path).await;
        assert_eq!(got.status, status, "{what}: {got:?}");
        assert_eq!(
            got.header("content-type"),
            "application/problem+json",
            "{what}: {got:?}"
        );
        let problem = got.json();
        assert_eq!(problem["status"], status, "{what}");
        for member in ["type", "title", "detail"] {
            assert!(!problem[member].as_str().unwrap().is_empty(), "{what}: {problem}");
        }
        assert_eq!(got.header("allow").is_empty(), status != 405, "{what}: {got:?}");
        assert_eq!(
            got.header("www-authenticate").is_empty(),
            status != 401,
            "{what}: {got:?}"
        );
        assert_eq!(got.header("x-content-type-options"), "nosniff", "{what}: {got:?}");
    }
    server.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_refused_body_held_is_not_in_the_audit_trail() {
    let server = start().await;
    let body = [
        vec!["--request", "POST", "--data", r#""correct horse battery""#],
        JSON.to_vec(),
    ]
    .concat();
    let got = server.curl(TOKEN, &body, "/api/v1/secrets/bmc-logins").await;
    assert_eq!(got.status, 422, "{got:?}");
    let audit = get(&server, "/api/v1/audit").await;
    assert_eq!(audit.json()["items"][0]["outcome"], "refused with status 422");
    assert!(!audit.body.contains("correct horse"), "{audit:?}");
    server.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_with_another_tag_than_the_current_one_changes_nothing() {
    let server = start().await;
    let node = machine(&server, 1).await;
    let path = format!("/api/v1/nodes/{node}");
    let rename = |tag: String, name: &str| {
        let body = format!("{{\"name\": \"{name}\"}}");
        let server = &server;
        let path = &path;
        async move {
            let tag = format!("If-Match: {tag}");
            let arguments = [
                vec!["--request", "PATCH", "--data", &body, "--header", &tag],
                JSON.to_vec(),
            ]
            .concat();
            server.curl(TOKEN, &arguments, path).await
        }
    };
    let old = get(&server, &path).await.header("etag").to_owned();
    for tag in ["\"0123456789abcdef01234567\"".to_owned(), format!("W/{old}")] {
        let stale = rename(tag, "db-1").await;
        assert_eq!(stale.status, 412, "{stale:?}");
        assert_eq!(stale.json()["type"], "urn:rackbar:stale");
        assert_eq!(get(&server, &path).await.json()["name"], node.as_str());
    }
    let done = rename(old.clone(), "db-1").await;
    assert_eq!(
        (done.status, done.json()["name"].as_str()),
        (200, Some("db-1")),
        "{done:?}"
    );
    let id = done.json()["id"].as_str().unwrap().to_owned();
    let now = get(&server, &format!("/api/v1/nodes/{id}")).await;
    assert_eq!(now.header("etag"), done.header("etag"));
    assert_ne!(now.header("etag"), old);
    server.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_another_one_by_now_is_not_forgotten() {
    let server = start().await;
    let node = machine(&server, 1).await;
    for path in [
        format!("/api/v1/nodes/{node}"),
        format!("/api/v1/nodes/{node}/firmware"),
    ] {
        let delete = |tag: String| {
            let (server, path) = (&server, &path);
            async move {
                let tag = format!("If-Match: {tag}");
                let arguments = ["--request", "DELETE", "--header", &tag];
                server.curl(TOKEN, &arguments, path).await
            }
        };
        let stale = delete("\"0123456789abcdef01234567\"".into()).await;
        assert_eq!(stale.status, 412, "{path}: {stale:?}");
        assert_eq!(stale.json()["type"], "urn:rackbar:stale");
        // With the tag that it has it is left to the appliance's operations, of which this server has none.
        let now = get(&server, &path).await.header("etag").to_owned();
        let asked = delete(now).await;
        assert!(![204, 404, 412].contains(&asked.status), "{path}: {asked:?}");
    }
    server.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_change_what_they_saw_at_the_same_time_one_does() {
    let server = std::sync::Arc::new(start().await);
    let node = machine(&server, 1).await;
    recorded(&server, 2).await;
    let path = format!("/api/v1/nodes/{node}");
    let tag = format!("If-Match: {}", get(&server, &path).await.header("etag"));
    let id = get(&server, &path).await.json()["id"].as_str().unwrap().to_owned();
    let asked = (0..12).map(|number| {
        let (server, tag, path) = (server.clone(), tag.clone(), format!("/api/v1/nodes/{id}"));
        tokio::spawn(async move {
            let body = format!("{{\"name\": \"db-{number}\"}}");
            let arguments = [
                vec!["--request", "PATCH", "--data", &body, "--header", &tag],
                JSON.to_vec(),
            ]
            .concat();
            server.curl(TOKEN, &arguments, &path).await.status
        })
    });
    let mut statuses = Vec::new();
    for one in asked.collect::<Vec<_>>() {
        statuses.push(one.await.unwrap());
    }
    let well = statuses.iter().filter(|status| **status == 200).count();
    let stale = statuses.iter().filter(|status| **status == 412).count();
    assert_eq!((well, stale), (1, 11), "{statuses:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_caller_has_is_not_sent_again_until_it_changes() {
    let server = start().await;
    let node = machine(&server, 1).await;
    // What it asked for, and that it was enrolled.
    recorded(&server, 2).await;
    for path in [
        "/api/v1/nodes".to_owned(),
        format!("/api/v1/nodes/{node}"),
        "/api/v1/services".into(),
    ] {
        let got = get(&server, &path).await;
        let tag = got.header("etag").to_owned();
        for sent in [tag.clone(), format!("W/{tag}"), format!("\"other\", {tag}")] {
            let again = server
                .curl(TOKEN, &["--header", &format!("If-None-Match: {sent}")], &path)
                .await;
            assert_eq!(
                (again.status, again.body.as_str()),
                (304, ""),
                "{path} {sent}: {again:?}"
            );
            assert_eq!(again.header("etag"), tag);
        }
    }
    let tag = get(&server, "/api/v1/nodes").await.header("etag").to_owned();
    machine(&server, 2).await;
    let changed = server
        .curl(TOKEN, &["--header", &format!("If-None-Match: {tag}")], "/api/v1/nodes")
        .await;
    assert_eq!(changed.status, 200);
    server.handle.stop().await;
}

/// Reads the stream until this many events came, or it ends: their numbers and words.
async fn follow(server: &Server, last: Option<u64>, count: usize) -> Vec<(u64, String)> {
    use tokio::io::{AsyncBufReadExt as _, BufReader};
    let mut curl = tokio::process::Command::new("curl");
    curl.args([
        "--silent",
        "--no-buffer",
        "--noproxy",
        "*",
        "--max-time",
        "60",
        "--cacert",
    ])
    .arg(server.folder.path().join("ca.pem"))
    .args(["--header", &format!("Authorization: Bearer {TOKEN}")])
    .kill_on_drop(true)
    .stdout(std::process::Stdio::piped());
    if let Some(last) = last {
        curl.args(["--header", &format!("Last-Event-ID: {last}")]);
    }
    curl.arg(format!("https://{}/api/v1/events/stream", server.handle.addresses()[0]));
    let mut child = curl.spawn().expect("curl is installed by cargo xtask setup");
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (mut seen, mut id) = (Vec::new(), 0);
    let read = async {
        while seen.len() < count {
            let Some(line) = lines.next_line().await.unwrap() else {
                break;
            };
            if let Some(number) = line.strip_prefix("id: ") {
                id = number.parse().unwrap();
            } else if let Some(data) = line.strip_prefix("data: ") {
                let event: Value = serde_json::from_str(data).unwrap();
                assert_eq!(event["seq"], id);
                seen.push((id, event["text"].as_str().unwrap().to_owned()));
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), read)
        .await
        .expect("the events come");
    seen
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_resumed_by_its_last_event_id_goes_on_with_the_next() {
    let server = start().await;
    let first = server.rack.last_seq() + 1;
    for number in 0..10 {
        server.rack.event(None, note(&format!("event {number}")));
    }
    recorded(&server, first + 9).await;
    // More than a batch of the stream's reader, broken off in the middle several times.
    let mut last = first - 1;
    let mut seen = Vec::new();
    for round in 0..3 {
        let part = follow(&server, Some(last), 4 + round).await;
        last = part.last().unwrap().0;
        seen.extend(part);
        for number in 0..300 {
            server.rack.event(None, note(&format!("between {round} {number}")));
        }
        recorded(&server, first + 9 + 300 * (round as u64 + 1)).await;
    }
    let rest = usize::try_from(server.rack.last_seq() - last).unwrap();
    seen.extend(follow(&server, Some(last), rest).await);
    let numbers: Vec<_> = seen.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(
        numbers,
        (first..=server.rack.last_seq()).collect::<Vec<_>>(),
        "no gap, no repetition"
    );
    assert_eq!(seen[0].1, "event 0");
    // Of another journal, that went with the power: its numbers say nothing here, and waiting for them would be silence.
    let again = follow(&server, Some(1_000_000), 2).await;
    assert_eq!(again[0].0, 1, "{again:?}");
    server.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_asks_no_token_and_says_what_is_broken() {
    let server = start().await;
    let healthy = server.curl("", &[], "/healthz").await;
    assert_eq!((healthy.status, healthy.body.as_str()), (200, "ok\n"));
    let ready = server.curl("", &[], "/readyz").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, "ready\n"));
    server.rack.set_service(rackbar_model::ServiceStatus {
        name: "dns".into(),
        state: "port 53 is taken".into(),
        severity: Severity::Error,
        since: rackbar_model::Timestamp(0),
    });
    let broken = server.curl("", &[], "/readyz").await;
    assert_eq!((broken.status, broken.body.as_str()), (503, "dns: port 53 is taken\n"));
    server.handle.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_show_each_machine_once_while_more_come() {
    let server = start().await;
    for number in 1..=5 {
        machine(&server, number).await;
    }
    let there: Vec<_> = server.rack.nodes().iter().map(|node| node.id.to_string()).collect();
    let (mut seen, mut token) = (Vec::new(), String::new());
    loop {
        let page = get(&server, &format!("/api/v1/nodes?limit=2{token}")).await.json();
        let items = page["items"].as_array().unwrap().iter();
        seen.extend(items.map(|item| item["id"].as_str().unwrap().to_owned()));
        let Some(next) = page["next_page_token"].as_str() else {
            break;
        };
        token = format!("&page_token={next}");
        if seen.len() == 2 {
            machine(&server, 9).await;
        }
    }
    for id in there {
        assert_eq!(seen.iter().filter(|one| **one == id).count(), 1, "{id} in {seen:?}");
    }
    server.handle.stop().await;
}
