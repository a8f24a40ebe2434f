//! A BMC that plays a transcript, or shows a published tree of resources: HTTPS on the loopback, nothing behind it.
//!
//! A transcript is read like a story, from top to bottom:
//!
//! ```text
//! # a comment
//! > PATCH /redfish/v1/Systems/1        a request ...
//! ~ if-match: "abc"                    ... that must come with this header
//! = {"AssetTag": "x"}                  ... and this body
//! < 200                                its answer
//! < etag: "abc"                        a header of the answer
//! {"Id": "1"}                          its body, over as many lines as it likes
//! ```
//!
//! A `GET` may come as often as the client likes and gets what stands last above the next change that was not yet
//! made. Changes come in order, once, and all of them. Sessions are given and taken back unless the story says otherwise.
#![allow(dead_code, reason = "each test program uses its part")]

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rackbar_devices::{Bmc, BmcAddress, Credentials, Profiles, Timing};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";

#[derive(Clone, Debug, Default)]
struct Exchange {
    method: String,
    path: String,
    needs: Vec<(String, String)>,
    body: Option<Value>,
    status: u16,
    headers: Vec<(String, String)>,
    answer: String,
}

/// What the BMC shows.
enum Source {
    Story { exchanges: Vec<Exchange>, played: usize },
    Tree(PathBuf),
}

struct State {
    source: Source,
    wrong: Vec<String>,
    asked: Vec<String>,
}

/// The BMC.
pub struct Player {
    state: Arc<Mutex<State>>,
    pub address: BmcAddress,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Player {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl Player {
    /// Plays a transcript of this folder.
    pub async fn story(name: &str) -> Self {
        let path = format!("{}/tests/transcripts/{name}.txt", env!("CARGO_MANIFEST_DIR"));
        let exchanges = read(&std::fs::read_to_string(path).unwrap());
        Self::start(Source::Story { exchanges, played: 0 }).await
    }

    /// Shows a tree: `redfish/v1/**/index.json` below a folder.
    pub async fn tree(folder: PathBuf) -> Self {
        Self::start(Source::Tree(folder)).await
    }

    async fn start(source: Source) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["bmc".to_owned()]).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .unwrap();
        let tls = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            source,
            wrong: Vec::new(),
            asked: Vec::new(),
        }));
        let shared = Arc::clone(&state);
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, state) = (tls.clone(), Arc::clone(&shared));
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = service_fn(move |request| {
                        let state = Arc::clone(&state);
                        async move { Ok::<_, Infallible>(answer(&state, request).await) }
                    });
                    let _ended = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        // Nobody speaks IPMI there: the discard port.
        let address = BmcAddress {
            ip: here.ip(),
            https: here.port(),
            ipmi: 9,
        };
        Self { state, address, server }
    }

    /// A client with the shipped profiles.
    pub fn client(&self) -> Bmc {
        let timing = Timing {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(10),
            repeat: Duration::from_millis(30),
            tries: 2,
            settle: Duration::from_secs(5),
            look: Duration::from_millis(10),
            wrong_passwords: Duration::from_secs(600),
        };
        let profiles = Arc::new(Profiles::shipped().unwrap());
        Bmc::new(
            self.address,
            Credentials::new("admin", "secret"),
            None,
            profiles,
            timing,
        )
    }

    /// Requests so far.
    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    /// Asserts that the story was told to its end and nothing else was asked.
    pub fn finished(&self) {
        let state = self.state.lock().unwrap();
        assert_eq!(state.wrong, Vec::<String>::new());
        if let Source::Story { exchanges, played } = &state.source {
            let left: Vec<_> = exchanges.iter().skip(*played).filter(|e| e.method != "GET").collect();
            assert!(left.is_empty(), "not asked for: {left:?}");
        }
    }
}

fn read(text: &str) -> Vec<Exchange> {
    let mut exchanges: Vec<Exchange> = Vec::new();
    let pair = |text: &str| {
        let (name, value) = text.split_once(':').unwrap();
        (name.trim().to_owned(), value.trim().to_owned())
    };
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(request) = line.strip_prefix("> ") {
            let (method, path) = request.split_once(' ').unwrap();
            exchanges.push(Exchange {
                method: method.to_owned(),
                path: path.trim().to_owned(),
                ..Exchange::default()
            });
            continue;
        }
        let Some(now) = exchanges.last_mut() else { continue };
        if let Some(body) = line.strip_prefix("= ") {
            now.body = Some(serde_json::from_str(body).unwrap_or_else(|error| panic!("{line}: {error}")));
        } else if let Some(header) = line.strip_prefix("~ ") {
            now.needs.push(pair(header));
        } else if let Some(rest) = line.strip_prefix("< ") {
            match rest.trim().parse() {
                Ok(status) => now.status = status,
                Err(_) => now.headers.push(pair(rest)),
            }
        } else {
            now.answer.push_str(line);
        }
    }
    exchanges
}

fn same(a: &str, b: &str) -> bool {
    a.trim_end_matches('/') == b.trim_end_matches('/')
}

async fn answer(state: &Mutex<State>, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (method, mut path) = (head.method.as_str().to_owned(), head.uri.path().to_owned());
    let header = |name: &str| {
        head.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned)
    };
    let mut state = state.lock().unwrap();
    if matches!(state.source, Source::Story { .. }) {
        // Trees are files, which know no pages.
        path = head.uri.to_string();
    }
    state.asked.push(format!("{method} {path}"));
    let found = match &mut state.source {
        Source::Story { exchanges, played } => {
            let next = (*played..exchanges.len()).find(|at| exchanges[*at].method != "GET");
            if method == "GET" {
                let told = exchanges.iter().take(next.unwrap_or(exchanges.len()));
                let shown = told.rev().find(|e| e.method == "GET" && same(&e.path, &path)).cloned();
                shown.or_else(|| Some(plain(404, "")))
            } else {
                next.filter(|at| exchanges[*at].method == method && same(&exchanges[*at].path, &path))
                    .map(|at| {
                        *played = at + 1;
                        exchanges[at].clone()
                    })
            }
        }
        Source::Tree(folder) if method == "GET" => {
            let file = folder.join(path.trim_matches('/')).join("index.json");
            Some(std::fs::read_to_string(file).map_or_else(|_| plain(404, ""), |text| plain(200, &text)))
        }
        Source::Tree(_) => None,
    };
    let found = found.or_else(|| session(&method, &path)).unwrap_or_else(|| {
        state.wrong.push(format!("unexpected: {method} {path}"));
        plain(405, "")
    });
    for (name, value) in &found.needs {
        if header(name).as_ref() != Some(value) {
            state
                .wrong
                .push(format!("{method} {path}: {name} is {:?}, not {value}", header(name)));
        }
    }
    if let Some(wanted) = &found.body {
        let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
        if sent != *wanted {
            state.wrong.push(format!("{method} {path}: sent {sent}, not {wanted}"));
        }
    }
    respond(&found)
}

fn plain(status: u16, answer: &str) -> Exchange {
    Exchange {
        status,
        answer: answer.to_owned(),
        ..Exchange::default()
    }
}

/// Sessions, for stories that are about something else.
fn session(method: &str, path: &str) -> Option<Exchange> {
    let mine = format!("{SESSIONS}/1");
    match method {
        "POST" if same(path, SESSIONS) => Some(Exchange {
            headers: vec![
                ("x-auth-token".to_owned(), "token".to_owned()),
                ("location".to_owned(), mine),
            ],
            ..plain(201, "{}")
        }),
        "DELETE" if same(path, &mine) => Some(plain(204, "")),
        _ => None,
    }
}

fn respond(exchange: &Exchange) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(exchange.answer.clone())));
    *response.status_mut() = hyper::StatusCode::from_u16(exchange.status).unwrap();
    for (name, value) in &exchange.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        response
            .headers_mut()
            .insert(name, HeaderValue::from_str(value).unwrap());
    }
    response
}
