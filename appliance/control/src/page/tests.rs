//! The page as a browser gets it: log in, look, press a button.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use rackbar_model::{ClientArch, Digest, EventKind, MacAddr, Severity};
use rackbar_orchestrator::{Options, Rack};
use rackbar_services::EventSink;
use rackbar_store::Store;
use ring::digest::{SHA256, digest};
use tower::ServiceExt;

use crate::{About, Access, Context, Role, Token, server};

const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 7]);
const HOSTILE: &str = "<script>alert(1)</script>";

pub(super) fn context() -> Context {
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(digest(&SHA256, b"right").as_ref());
    let about = About {
        site: "hall-3".into(),
        version: "0.0.0".into(),
        fingerprint: "ab".repeat(32),
        volatile: true,
    };
    Context {
        rack: Rack::start(Store::in_memory(Default::default()).unwrap(), Options::default()).unwrap(),
        about: Arc::new(about),
        operations: Arc::new(()),
        access: Arc::new(Access::new(vec![Token {
            name: "admin".into(),
            sha256: Digest(sha256),
            role: Role::Admin,
        }])),
        counters: Arc::new(String::new),
    }
}

pub(super) async fn ask(
    context: &Context,
    method: &str,
    path: &str,
    cookie: Option<&str>,
    form: &str,
) -> Response<Body> {
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::ACCEPT, "text/html");
    if let Some(cookie) = cookie {
        request = request.header(header::COOKIE, cookie);
    }
    let request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
    server::router(context)
        .oneshot(request.body(Body::from(form.to_owned())).unwrap())
        .await
        .unwrap()
}

pub(super) async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

/// Logs in; gives the cookie.
pub(super) async fn log_in(context: &Context) -> String {
    let response = ask(context, "POST", "/login", None, "token=right").await;
    assert_eq!(response.status(), StatusCode::SEE_OTHER);
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

/// Lets a machine show itself, with words a hostile one could choose.
pub(super) async fn with_node(context: &Context) -> String {
    let discover = EventKind::DhcpDiscover {
        network: "rack".into(),
        arch: Some(ClientArch::X64Uefi),
        vendor_class: Some(format!("PXEClient{HOSTILE}")),
        user_class: None,
        relay: None,
        circuit_id: None,
        remote_id: None,
    };
    context.rack.event(Some(MAC), discover);
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(node) = context.rack.nodes().first()
            && context.rack.timeline(node.id).is_ok_and(|events| !events.is_empty())
        {
            return node.name.clone();
        }
        assert!(Instant::now() < end, "no node within ten seconds");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn page_shows_nothing_without_a_log_in() {
    let context = context();
    for path in [
        "/",
        "/nodes/node-001",
        "/leases",
        "/events",
        "/services",
        "/logs",
        "/site",
        "/runs",
        "/images",
        "/changes",
        "/tokens",
    ] {
        let response = ask(&context, "GET", path, None, "").await;
        assert_eq!(response.status(), StatusCode::SEE_OTHER, "{path}");
        assert_eq!(response.headers()[header::LOCATION], "/login", "{path}");
    }
    let wrong = ask(&context, "POST", "/login", None, "token=wrong").await;
    assert_eq!(wrong.status(), StatusCode::UNAUTHORIZED);
    assert!(wrong.headers().get(header::SET_COOKIE).is_none());
}

#[tokio::test]
async fn page_shows_a_node_and_defuses_what_it_says() {
    let context = context();
    let cookie = log_in(&context).await;
    let name = with_node(&context).await;
    for path in ["/".to_owned(), format!("/nodes/{name}"), "/events".to_owned()] {
        let response = ask(&context, "GET", &path, Some(&cookie), "").await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let html = text(response).await;
        assert!(html.contains(&name), "{path}");
        assert!(
            !html.contains(HOSTILE),
            "{path}: the node's words came through as they were"
        );
        assert!(
            html.contains("runs from memory"),
            "{path}: the volatile state is not told"
        );
    }
    let gone = ask(&context, "GET", "/nodes/nobody", Some(&cookie), "").await;
    assert_eq!(gone.status(), StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn page_tells_of_services_in_trouble() {
    let context = context();
    let cookie = log_in(&context).await;
    context.rack.set_service(rackbar_model::ServiceStatus {
        name: "tftp".into(),
        state: "port 69 is taken".into(),
        severity: Severity::Error,
        since: Default::default(),
    });
    for path in ["/", "/services"] {
        assert!(
            text(ask(&context, "GET", path, Some(&cookie), "").await)
                .await
                .contains("port 69 is taken"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn page_buttons_need_the_form_they_came_with() {
    let context = context();
    let cookie = log_in(&context).await;
    let name = with_node(&context).await;
    let path = format!("/nodes/{name}/power");
    let forged = ask(&context, "POST", &path, Some(&cookie), "action=off&form_key=guess").await;
    assert_eq!(forged.status(), StatusCode::FORBIDDEN);
    // A cookie alone does not work the API either.
    let api = ask(&context, "POST", &format!("/api/v1{path}"), Some(&cookie), "{}").await;
    assert_eq!(api.status(), StatusCode::FORBIDDEN);
}
