//! The Redfish face (DMTF DSP0266): HTTPS with a certificate of its own, sessions and Basic authentication, entity tags,
//! errors with `@Message.ExtendedInfo`.

mod change;
mod parts;
mod tree;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rackbar_ipmi::Privilege;
use rustls::pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;

use super::state::BmcState;

/// The largest request body taken.
const BODY_LIMIT: usize = 1 << 20;

/// The BMC's own self-signed certificate, as every BMC comes with one.
#[derive(Clone)]
pub(super) struct Tls(TlsAcceptor);

impl Tls {
    pub(super) fn new() -> io::Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec!["bmc".to_owned()]).map_err(io::Error::other)?;
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(io::Error::other)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .map_err(io::Error::other)?;
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }
}

/// Serves one connection.
pub(super) async fn serve(
    state: Arc<BmcState>,
    tls: Tls,
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) {
    // A client that speaks no TLS or hangs up is its own affair.
    let Ok(stream) = tls.0.accept(stream).await else { return };
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(&state, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection to a simulated BMC ended");
    }
}

/// What a request leads to.
#[derive(Debug)]
pub(super) struct Answer {
    status: u16,
    body: Value,
    headers: Vec<(&'static str, String)>,
}

impl Answer {
    pub(super) const fn new(status: u16, body: Value) -> Self {
        Self {
            status,
            body,
            headers: Vec::new(),
        }
    }

    pub(super) const fn empty() -> Self {
        Self::new(204, Value::Null)
    }

    pub(super) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// An error with a message of the Base registry (DSP8011).
    pub(super) fn error(status: u16, id: &str, message: impl Into<String>, args: &[&str]) -> Self {
        let message = message.into();
        let id = format!("Base.1.18.{id}");
        let info = json!({"@odata.type": "#Message.v1_1_2.Message", "MessageId": id, "Message": message,
            "MessageArgs": args, "MessageSeverity": "Critical", "Severity": "Critical",
            "Resolution": "Correct the request and send it again."});
        let body = json!({"error": {"code": id, "message": message, "@Message.ExtendedInfo": [info]}});
        Self::new(status, body)
    }

    fn not_found(path: &str) -> Self {
        let words = format!("The resource at the URI '{path}' was not found.");
        Self::error(404, "ResourceMissingAtURI", words, &[path])
    }

    fn into_response(self) -> Response<Full<Bytes>> {
        let bytes = if self.body.is_null() {
            Bytes::new()
        } else {
            Bytes::from(self.body.to_string())
        };
        let mut response = Response::new(Full::new(bytes));
        *response.status_mut() = hyper::StatusCode::from_u16(self.status).unwrap_or_default();
        let headers = response.headers_mut();
        headers.insert("odata-version", HeaderValue::from_static("4.0"));
        headers.insert("cache-control", HeaderValue::from_static("no-cache"));
        if !self.body.is_null() {
            headers.insert(
                "content-type",
                HeaderValue::from_static("application/json; charset=utf-8"),
            );
        }
        for (name, value) in self.headers {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(HeaderName::from_static(name), value);
            }
        }
        response
    }
}

/// Counts requests in work.
struct Busy<'a>(&'a BmcState);

impl<'a> Busy<'a> {
    fn begin(state: &'a BmcState, line: String) -> Self {
        let mut inner = state.inner();
        inner.requests.push(line);
        inner.busy += 1;
        inner.busiest = inner.busiest.max(inner.busy);
        Self(state)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        self.0.inner().busy -= 1;
    }
}

async fn answer(state: &BmcState, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path = normal(head.uri.path());
    let _busy = Busy::begin(state, format!("{} {path}", head.method));
    let well = begun_well(state);
    if !well && let Some(fault) = fault(state, &path).await {
        return fault.into_response();
    }
    let body = match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(body) => body.to_bytes(),
        Err(_) => return Answer::error(413, "PayloadTooLarge", "The request body is too large.", &[]).into_response(),
    };
    let user = authenticate(state, &head.headers);
    let answer = dispatch(state, &head.method, &path, &head.headers, &body, user).await;
    if !well && is_lost(state) {
        std::future::pending::<()>().await;
    }
    answer.into_response()
}

/// True while the faults have not begun.
fn begun_well(state: &BmcState) -> bool {
    let after = &mut state.inner().faults.after;
    let well = *after > 0;
    *after = after.saturating_sub(1);
    well
}

fn is_lost(state: &BmcState) -> bool {
    let lost = &mut state.inner().faults.lost;
    let is_lost = *lost > 0;
    *lost = lost.saturating_sub(1);
    is_lost
}

async fn fault(state: &BmcState, path: &str) -> Option<Answer> {
    let deaf = state.inner().faults.deaf_next.take();
    if let Some(length) = deaf {
        state.inner().faults.deaf_until = Some(std::time::Instant::now() + length);
    }
    let faults = state.faults();
    if faults.is_deaf() {
        std::future::pending::<()>().await;
    }
    tokio::time::sleep(faults.slow).await;
    if faults.no_redfish {
        return Some(Answer::new(404, Value::Null));
    }
    let mut inner = state.inner();
    if let Some((place, left)) = inner.faults.moved.take() {
        inner.faults.moved = Some((place, left.saturating_sub(1))).filter(|(_, left)| *left > 0);
        return Some(Answer::new(307, Value::Null).with("location", format!("{place}{path}")));
    }
    let (status, left) = inner.faults.status.take()?;
    inner.faults.status = Some((status, left.saturating_sub(1))).filter(|(_, left)| *left > 0);
    if status == 401 {
        inner.sessions.clear();
        return Some(unauthorized());
    }
    let answer = Answer::error(
        status,
        "ServiceTemporarilyUnavailable",
        "The service is temporarily unavailable.",
        &["1"],
    );
    Some(answer.with("retry-after", faults.retry_after.to_string()))
}

/// Paths with and without a closing slash are the same (DSP0266 section 6.2).
fn normal(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if path.is_empty() {
        "/".to_owned()
    } else {
        path.to_owned()
    }
}

fn unauthorized() -> Answer {
    let words = "There is no valid session established with the implementation.";
    Answer::error(401, "NoValidSession", words, &[]).with("www-authenticate", "Basic realm=\"BMC\"")
}

/// The user slot a request proves, by session token or Basic authentication.
fn authenticate(state: &BmcState, headers: &HeaderMap) -> Option<u8> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(token) = text("x-auth-token") {
        return state.inner().sessions.get(token).map(|(_, slot)| *slot);
    }
    let coded = text("authorization")?.strip_prefix("Basic ")?;
    let plain = String::from_utf8(from_base64(coded)?).ok()?;
    let (user, password) = plain.split_once(':')?;
    state.check(user, password)
}

fn from_base64(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let (mut word, mut bits) = (0u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        word = word << 6 | u32::from(digit);
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push((word >> bits & 0xff) as u8);
        }
    }
    Some(out)
}

async fn dispatch(
    state: &BmcState,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
    body: &[u8],
    user: Option<u8>,
) -> Answer {
    let login = *method == Method::POST && matches!(path, "/redfish/v1/SessionService/Sessions");
    let open = login
        || matches!(
            path,
            "/redfish" | "/redfish/v1" | "/redfish/v1/odata" | "/redfish/v1/$metadata"
        );
    if !open && user.is_none() {
        return unauthorized();
    }
    if let Some(slot) = user.filter(|_| !open && state.faults().must_change)
        && let Some(answer) = change::must_change(method, path, slot)
    {
        return answer;
    }
    if *method == Method::GET || *method == Method::HEAD {
        return read(state, path, headers, *method == Method::HEAD);
    }
    let body = if body.is_empty() {
        Ok(json!({}))
    } else {
        serde_json::from_slice::<Value>(body)
    };
    let Ok(body @ Value::Object(_)) = body else {
        return Answer::error(
            400,
            "MalformedJSON",
            "The request body submitted was malformed JSON.",
            &[],
        );
    };
    if login {
        return change::log_in(state, &body);
    }
    let limit = user.and_then(|slot| state.inner().accounts.get(&slot).map(|account| account.privilege));
    if !allowed(method, path, limit) {
        let words =
            "There are insufficient privileges for the account or credentials associated with the current session.";
        return Answer::error(403, "InsufficientPrivilege", words, &[]);
    }
    if *method == Method::PATCH
        && let Some(answer) = precondition(state, path, headers)
    {
        return answer;
    }
    match change::apply(state, method, path, &body).await {
        Some(answer) => as_task(state, method, answer),
        None if tree::resource(state, path).is_some() || change::is_action(path) => {
            let words = format!("The HTTP method {method} is not allowed on this resource.");
            Answer::error(405, "OperationNotAllowed", words, &[])
                .with("allow", change::methods(path, state.faults().fixed_slots))
        }
        None => Answer::not_found(path),
    }
}

/// Makes a task of a change that was taken, where the fault says so: the answer is 202 with the task's monitor.
fn as_task(state: &BmcState, method: &Method, answer: Answer) -> Answer {
    let Some(length) = state.faults().slow_task else {
        return answer;
    };
    if !(200..300).contains(&answer.status) || *method == Method::DELETE {
        return answer;
    }
    let id = {
        let mut inner = state.inner();
        let id = inner.tasks.keys().next_back().map_or(1, |last| last + 1);
        inner.tasks.insert(id, std::time::Instant::now() + length);
        id
    };
    let path = format!("/redfish/v1/TaskService/Tasks/{id}");
    let body = tree::resource(state, &path).unwrap_or_default();
    Answer::new(202, body).with("location", path)
}

/// Operators switch power and boot device; the rest is the administrator's. Ending a session is anybody's.
fn allowed(method: &Method, path: &str, limit: Option<Privilege>) -> bool {
    let system = path.starts_with("/redfish/v1/Systems/1") && !path.contains("/Bios");
    let session = *method == Method::DELETE && path.starts_with("/redfish/v1/SessionService/Sessions/");
    match limit {
        Some(Privilege::Administrator) => true,
        Some(Privilege::Operator) => system || session,
        _ => session,
    }
}

fn read(state: &BmcState, path: &str, headers: &HeaderMap, head: bool) -> Answer {
    let Some(mut body) = tree::resource(state, path) else {
        return if change::is_action(path) {
            Answer::error(405, "OperationNotAllowed", "Actions are invoked by POST.", &[]).with("allow", "POST")
        } else {
            Answer::not_found(path)
        };
    };
    let tag = tag(&body);
    if headers.get("if-none-match").and_then(|value| value.to_str().ok()) == Some(tag.as_str()) {
        return Answer::new(304, Value::Null).with("etag", tag);
    }
    let methods = change::methods(path, state.faults().fixed_slots);
    let allow = format!("GET, HEAD{}", if methods.is_empty() { "" } else { ", " }) + methods;
    let answer = |body| Answer::new(200, if head { Value::Null } else { body }).with("allow", allow);
    if state.faults().no_etags {
        return answer(body);
    }
    if let Some(map) = body.as_object_mut() {
        map.insert("@odata.etag".to_owned(), json!(tag));
    }
    answer(body).with("etag", tag)
}

/// The entity tag of a resource: what it says is what it is.
fn tag(body: &Value) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, body.to_string().as_bytes());
    let short: String = digest
        .as_ref()
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("\"{short}\"")
}

/// The refusal of a change whose `If-Match` is not the resource's tag (RFC 9110 section 13.1.1).
fn precondition(state: &BmcState, path: &str, headers: &HeaderMap) -> Option<Answer> {
    let wanted = headers.get("if-match")?.to_str().ok()?;
    let body = tree::resource(state, path)?;
    let stale = {
        let mut inner = state.inner();
        let stale = inner.faults.stale_etags > 0;
        inner.faults.stale_etags = inner.faults.stale_etags.saturating_sub(1);
        stale
    };
    let fits = wanted == "*" || wanted.split(',').any(|one| one.trim() == tag(&body));
    if fits && !stale && !state.faults().wrong_etag {
        return None;
    }
    let words = "The ETag supplied did not match the ETag required to change this resource.";
    Some(Answer::error(412, "PreconditionFailed", words, &[]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_the_answers_of_rfc_4648() {
        for (plain, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(from_base64(coded).as_deref(), Some(plain.as_bytes()));
        }
        assert_eq!(from_base64("Zg=!"), None);
    }
}
