//! The API over real sockets: who gets in, what they get, how errors read.

mod common;

use std::time::Duration;

use common::{TOKEN, sha256, start};
use rackbar_control::client::ClientError;
use rackbar_control::{Role, Token};
use rackbar_model::{EventKind, MacAddr, Node, Severity};
use rackbar_services::EventSink;
use serde_json::{Value, json};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);

fn note(text: &str) -> EventKind {
    EventKind::Note {
        text: text.into(),
        severity: Severity::Info,
    }
}

fn discover() -> EventKind {
    EventKind::DhcpDiscover {
        network: "rack".into(),
        arch: Some(rackbar_model::ClientArch::X64Uefi),
        vendor_class: Some("PXEClient".into()),
        user_class: None,
        relay: None,
        circuit_id: None,
        remote_id: None,
    }
}

/// Waits until the rack has a node.
async fn first_node(rack: &rackbar_orchestrator::Rack) -> std::sync::Arc<Node> {
    let found = async {
        let mut events = rack.subscribe();
        loop {
            if let Some(node) = rack.nodes().first() {
                return node.clone();
            }
            let _ = tokio::time::timeout(Duration::from_millis(50), events.recv()).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found)
        .await
        .expect("a node within ten seconds")
}

#[tokio::test]
async fn api_wants_a_token_and_the_pinned_certificate() {
    let server = start().await;
    assert!(server.client().get::<Value>("/api/v1").await.is_ok());
    let wrong = server
        .client_with(server.pin, "guess")
        .get::<Value>("/api/v1")
        .await
        .unwrap_err();
    assert!(matches!(wrong, ClientError::Refused { status: 401, .. }), "{wrong}");
    let other_site = server
        .client_with(sha256(b"another site"), TOKEN)
        .get::<Value>("/api/v1")
        .await
        .unwrap_err();
    assert!(matches!(other_site, ClientError::Unreachable { .. }), "{other_site}");
    // The socket file is for root on this machine; it needs no token.
    assert!(server.local().get::<Value>("/api/v1").await.is_ok());
    server.handle.stop().await;
}

#[tokio::test]
async fn api_shows_a_node_and_renames_it_only_when_it_is_still_the_same() {
    let server = start().await;
    server.rack.event(Some(MAC), discover());
    let node = first_node(&server.rack).await;
    let client = server.client();
    let nodes: Vec<Node> = client.list("/api/v1/nodes").await.unwrap();
    assert_eq!(nodes.len(), 1);
    assert_eq!(nodes[0].macs, [MAC]);
    for name in [node.name.as_str(), &node.id.to_string(), "52:54:00:00:00:01"] {
        assert_eq!(
            client.get::<Node>(&format!("/api/v1/nodes/{name}")).await.unwrap().id,
            node.id,
            "{name}"
        );
    }
    client
        .patch(&format!("/api/v1/nodes/{}", node.id), &json!({ "name": "db-1" }))
        .await
        .unwrap();
    assert_eq!(client.get::<Node>("/api/v1/nodes/db-1").await.unwrap().id, node.id);
    let typo = client
        .patch("/api/v1/nodes/db-1", &json!({ "nmae": "db-2" }))
        .await
        .unwrap_err();
    assert!(matches!(typo, ClientError::Refused { status: 422, .. }), "{typo}");
    let gone = client.get::<Node>("/api/v1/nodes/nobody").await.unwrap_err();
    assert!(matches!(gone, ClientError::Refused { status: 404, .. }), "{gone}");
    server.handle.stop().await;
}

#[tokio::test]
async fn api_power_without_a_bmc_says_what_to_do() {
    let server = start().await;
    server.rack.event(Some(MAC), discover());
    let node = first_node(&server.rack).await;
    let path = format!("/api/v1/nodes/{}/power", node.id);
    let refused = server
        .client()
        .post(&path, &json!({ "action": "on" }))
        .await
        .unwrap_err();
    let ClientError::Refused {
        status: 502, detail, ..
    } = refused
    else {
        panic!("{refused}")
    };
    assert!(detail.contains("BMC"), "{detail}");
    server.handle.stop().await;
}

#[tokio::test]
async fn event_stream_misses_nothing_and_resumes() {
    let server = start().await;
    let client = server.client();
    server.rack.event(None, note("one"));
    server.rack.event(None, note("two"));
    let mut seen = Vec::new();
    let mut stream = client.follow("/api/v1/events/stream?after=0").await.unwrap();
    server.rack.event(None, note("three"));
    while seen.last().is_none_or(|(_, text)| text != "three") {
        let next = tokio::time::timeout(Duration::from_secs(10), stream.next());
        let event: Value = serde_json::from_str(&next.await.unwrap().unwrap().unwrap()).unwrap();
        seen.push((
            event["seq"].as_u64().unwrap(),
            event["text"].as_str().unwrap().to_owned(),
        ));
    }
    let numbers: Vec<_> = seen.iter().map(|(seq, _)| *seq).collect();
    assert_eq!(
        numbers,
        (1..=numbers.len() as u64).collect::<Vec<_>>(),
        "no gap, no repetition"
    );
    drop(stream);
    let after = seen.iter().find(|(_, text)| text == "two").unwrap().0;
    let mut again = client
        .follow(&format!("/api/v1/events/stream?after={after}"))
        .await
        .unwrap();
    let next = tokio::time::timeout(Duration::from_secs(10), again.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(next.contains("three"), "{next}");
    drop(again);
    server.handle.stop().await;
}

#[tokio::test]
async fn metrics_hold_the_rack_and_the_services() {
    let server = start().await;
    server.rack.event(Some(MAC), discover());
    first_node(&server.rack).await;
    let text = server.client().get_text("/metrics").await.unwrap();
    for line in [
        "rackbar_nodes{state=\"enrolled\"} 1",
        "rackbar_build_info{version=\"0.0.0\"} 1",
        "rackbar_test_total 7",
    ] {
        assert!(text.lines().any(|l| l == line), "no `{line}` in\n{text}");
    }
    server.handle.stop().await;
}

#[test]
fn openapi_document_is_the_checked_in_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json");
    let now = rackbar_control::openapi_json();
    if std::env::var_os("RACKBAR_BLESS").is_some() {
        std::fs::write(path, &now).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == now,
        "the API changed: look at the difference, then run this test with RACKBAR_BLESS=1"
    );
}

/// The operations that a row of the documentation's table names: ``GET /path`` in a code span, the query left out.
fn named(row: &str) -> impl Iterator<Item = String> + '_ {
    let spans = row.split('`').skip(1).step_by(2);
    spans.filter_map(|span| {
        let (method, path) = span.split_once(' ')?;
        let path = path.split('?').next()?;
        (path.starts_with('/') && method.chars().all(|c| c.is_ascii_uppercase())).then(|| format!("{method} {path}"))
    })
}

#[test]
fn every_operation_is_in_the_documentation_and_nothing_else_is() {
    let document: Value = serde_json::from_str(&rackbar_control::openapi_json()).unwrap();
    let mut there = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let methods = ["get", "put", "post", "patch", "delete"].iter();
        for method in methods.filter(|method| item.get(method).is_some()) {
            there.insert(format!("{} {path}", method.to_uppercase()));
        }
    }
    assert!(there.len() > 50, "{there:?}");
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.md")).unwrap();
    let told: std::collections::BTreeSet<_> = page
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(named)
        .collect();
    let missing: Vec<_> = there.difference(&told).collect();
    assert!(missing.is_empty(), "docs/api.md does not name: {missing:#?}");
    let gone: Vec<_> = told.difference(&there).filter(|one| one.contains("/api/")).collect();
    assert!(gone.is_empty(), "docs/api.md names what there is not: {gone:#?}");
}

#[tokio::test]
async fn an_open_stream_ends_with_the_token_that_opened_it() {
    let server = start().await;
    let by_socket = server.local();
    let admin = server.client();
    let now = rackbar_model::Timestamp::default();
    let (text, _) = server.access.create("anna", Role::Viewer, "admin", now).unwrap();
    let viewer = server.client_with(server.pin, &text);
    let mut streams = Vec::new();
    for client in [&viewer, &admin, &by_socket] {
        streams.push(client.follow("/api/v1/events/stream?after=0").await.unwrap());
    }
    let [of_viewer, of_admin, of_root] = streams.as_mut_slice() else {
        panic!("three streams")
    };
    let soon = |stream| tokio::time::timeout(Duration::from_secs(10), until_end(stream));
    server.access.revoke("anna").unwrap();
    let ended = soon(of_viewer).await;
    ended.expect("the stream of a revoked token ends").unwrap();
    server.access.set_tokens(vec![Token {
        name: "admin".into(),
        sha256: sha256(b"another"),
        role: Role::Admin,
    }]);
    let ended = soon(of_admin).await;
    ended.expect("the stream of a replaced token ends").unwrap();
    // Root's own goes on.
    server.rack.event(None, note("still there"));
    loop {
        let next = tokio::time::timeout(Duration::from_secs(10), of_root.next());
        if next.await.unwrap().unwrap().unwrap().contains("still there") {
            break;
        }
    }
    server.handle.stop().await;
}

async fn until_end(stream: &mut rackbar_control::client::EventStream) -> Result<(), ClientError> {
    while stream.next().await?.is_some() {}
    Ok(())
}
