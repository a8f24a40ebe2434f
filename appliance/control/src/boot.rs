//! `/boot/v1/...` over TLS: HTTPS boot (UEFI 2.10 section 24.7.4). The same documents as on port 80, without a token:
//! firmware has none, and what is secret in them is bound to its machine.

use std::net::IpAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::stream;
use rackbar_services::http::{Document, Documents};

/// A boot report has some hundred bytes.
const MAX_BODY: usize = 64 << 10;

/// Who is at the other end of the connection.
#[derive(Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The routes below `/boot/`.
pub(crate) fn router(documents: Documents) -> Router {
    Router::new()
        .route("/boot/{*path}", any(answer))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(documents)
}

async fn answer(State(documents): State<Documents>, request: Request) -> Response {
    let Some(Peer(peer)) = request.extensions().get::<Peer>().copied() else {
        // The socket file is the administrator's: nobody boots through it.
        return StatusCode::NOT_FOUND.into_response();
    };
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, MAX_BODY).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    let header = |name: &str| parts.headers.get(name).map(HeaderValue::as_bytes);
    whole(documents.answer(parts.method.as_str(), target, header, &body, peer))
}

fn whole(document: Document) -> Response {
    let status = StatusCode::from_u16(document.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    for (name, value) in document.headers() {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            response.headers_mut().insert(name, value);
        }
    }
    *response.body_mut() = Body::from_stream(stream::try_unfold(document, next));
    response
}

/// The next piece, read on a thread that may wait for a disk.
async fn next(mut document: Document) -> std::io::Result<Option<(Bytes, Document)>> {
    let read = tokio::task::spawn_blocking(move || document.next_piece().map(|piece| (piece, document)));
    let (piece, document) = read.await.map_err(std::io::Error::other)??;
    Ok(piece.map(|piece| (piece, document)))
}
