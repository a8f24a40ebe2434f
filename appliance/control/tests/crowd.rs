//! Connections that ask for nothing, over real sockets: they keep nobody out, and whoever is served lives on.

#![allow(clippy::unwrap_used, reason = "clippy sees no test in a helper function")]

mod common;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use common::{Server, TOKEN, start_within};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rackbar_control::Limits;
use rackbar_model::{EventKind, Severity};
use rackbar_services::EventSink;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Whatever is waited for comes within this time, also on a busy machine.
const SOON: Duration = Duration::from_secs(30);
/// What no test lives long enough to see.
const NEVER: Duration = Duration::from_secs(3600);

const LIMITS: Limits = Limits {
    connections: 16,
    per_address: 4,
    idle: NEVER,
    spare: NEVER,
    ping: NEVER,
    pong: NEVER,
};

type Stream = TlsStream<tokio::net::TcpStream>;

/// A connection of the client with the last octet `from`, TLS done; an error when it was closed before that.
async fn connect(server: &Server, from: u8, protocol: &str) -> io::Result<Stream> {
    let mut roots = rustls::RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(server.folder.path().join("ca.pem")).map_err(io::Error::other)?;
    roots.add(authority).map_err(io::Error::other)?;
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from(([127, 0, 0, from], 0)))?;
    let stream = socket.connect(server.handle.addresses()[0]).await?;
    let name = ServerName::try_from("rackbar").map_err(io::Error::other)?;
    let tls = TlsConnector::from(Arc::new(config)).connect(name, stream);
    timeout(SOON, tls).await.expect("an answer or an end")
}

/// Asks for a path, and leaves the connection open.
async fn ask(stream: &mut Stream, path: &str) {
    let request = format!("GET {path} HTTP/1.1\r\nhost: rackbar\r\nauthorization: Bearer {TOKEN}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
}

/// Reads until `text` has come.
async fn hear(stream: &mut Stream, text: &str) {
    let mut heard = Vec::new();
    while !String::from_utf8_lossy(&heard).contains(text) {
        let read = timeout(SOON, stream.read_buf(&mut heard)).await;
        let count = read.unwrap_or_else(|_| panic!("{text:?} within {SOON:?}, not {heard:?}"));
        assert_ne!(count.unwrap(), 0, "closed before {text:?}: {heard:?}");
    }
}

async fn served(server: &Server, from: u8) -> Stream {
    let mut stream = connect(server, from, "http/1.1").await.expect("a place");
    ask(&mut stream, "/api/v1").await;
    hear(&mut stream, "HTTP/1.1 200").await;
    stream
}

/// Waits until the server has closed a connection that says nothing.
async fn closed(stream: &mut Stream) {
    // HTTP/2 says goodbye before.
    let all = timeout(SOON, async {
        while matches!(stream.read(&mut [0; 256]).await, Ok(1..)) {}
    });
    all.await.expect("a connection without a request is closed");
}

#[tokio::test]
async fn a_silent_crowd_of_one_address_keeps_nobody_else_out() {
    let server = start_within(LIMITS).await;
    let mut crowd = Vec::new();
    for _ in 0..3 * LIMITS.connections {
        let connection = timeout(SOON, connect(&server, 2, "http/1.1")).await;
        crowd.extend(connection.expect("a place or an end").ok());
    }
    assert_eq!(crowd.len(), LIMITS.per_address);
    served(&server, 3).await;
    // The appliance itself has no share: its own programs are not strangers.
    let mut own = Vec::new();
    for _ in 0..=LIMITS.per_address {
        own.push(served(&server, 1).await);
    }
    // Who leaves makes room for others of the same address.
    drop(crowd);
    freed(&server, 2).await;
    server.handle.stop().await;
}

#[tokio::test]
async fn a_silent_crowd_of_many_addresses_makes_room_for_who_asks() {
    let limits = Limits {
        connections: 4,
        per_address: 2,
        spare: Duration::from_millis(100),
        ..LIMITS
    };
    let server = start_within(limits).await;
    let mut stream = connect(&server, 2, "http/1.1").await.unwrap();
    ask(&mut stream, "/api/v1/events/stream").await;
    hear(&mut stream, "event-stream").await;
    let mut crowd = Vec::new();
    for (from, protocol) in [(2, "http/1.1"), (3, "http/1.1"), (3, "h2")] {
        crowd.push(connect(&server, from, protocol).await.unwrap());
    }
    // As many as the crowd are served, one after the other finds a place.
    let mut asking = Vec::new();
    for from in [4, 5, 6] {
        asking.push(served(&server, from).await);
    }
    for silent in &mut crowd {
        closed(silent).await;
    }
    note(&server);
    hear(&mut stream, "still here").await;
    server.handle.stop().await;
}

#[tokio::test]
async fn who_asks_for_nothing_is_closed_and_a_quiet_event_stream_lives_on() {
    let limits = Limits {
        idle: Duration::from_millis(200),
        ..LIMITS
    };
    let server = start_within(limits).await;
    let mut stream = connect(&server, 2, "http/1.1").await.unwrap();
    ask(&mut stream, "/api/v1/events/stream").await;
    hear(&mut stream, "event-stream").await;
    // Each of them is open for longer than the stream needed to be called idle.
    for protocol in ["http/1.1", "h2"] {
        let mut silent = connect(&server, 3, protocol).await.unwrap();
        closed(&mut silent).await;
        let mut silent = connect(&server, 3, protocol).await.unwrap();
        if protocol == "h2" {
            // The preface and empty settings (RFC 9113 section 3.4), and no request.
            silent
                .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
                .await
                .unwrap();
        } else {
            ask(&mut silent, "/api/v1").await;
        }
        closed(&mut silent).await;
    }
    // A request that never comes whole is none that is being answered.
    let mut dripping = connect(&server, 3, "http/1.1").await.unwrap();
    let head = format!(
        "PUT /api/v1/site HTTP/1.1\r\nhost: rackbar\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: application/toml\r\n\
         content-length: 100000\r\n\r\nname"
    );
    dripping.write_all(head.as_bytes()).await.unwrap();
    closed(&mut dripping).await;
    note(&server);
    hear(&mut stream, "still here").await;
    server.handle.stop().await;
}

/// The largest answer there is, in one piece.
const LARGE: &str = "/openapi.json";
/// So many of them are more than all buffers on the way take.
const MANY: usize = 64;

/// Asks for more than fits on the way, and takes nothing of it.
async fn stalled(server: &Server, from: u8) -> Stream {
    let mut stream = connect(server, from, "http/1.1").await.expect("a place");
    for _ in 0..MANY {
        ask(&mut stream, LARGE).await;
    }
    stream
}

/// The large answer over HTTP/2, of which a little fits on the way; and what keeps the connection.
async fn asked(server: &Server, from: u8) -> (SendRequest<Empty<Bytes>>, hyper::Response<Incoming>) {
    let stream = connect(server, from, "h2").await.expect("a place");
    let (mut sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(1024)
        .handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = hyper::Request::get(format!("https://rackbar{LARGE}"))
        .body(Empty::<Bytes>::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    (sender, answer)
}

/// Waits until somebody of this address finds a place again.
async fn freed(server: &Server, from: u8) {
    let freed = async { while connect(server, from, "http/1.1").await.is_err() {} };
    timeout(SOON, freed).await.expect("a place");
}

#[tokio::test]
async fn who_takes_nothing_of_what_it_asked_for_gives_its_place_back() {
    let limits = Limits {
        per_address: 1,
        idle: Duration::from_millis(300),
        ..LIMITS
    };
    let server = start_within(limits).await;
    let _open = stalled(&server, 2).await;
    assert!(
        connect(&server, 2, "http/1.1").await.is_err(),
        "the only place is taken"
    );
    freed(&server, 2).await;

    // One of HTTP/2 answers pings, and opens no window for more.
    let _open = asked(&server, 3).await;
    freed(&server, 3).await;
    server.handle.stop().await;
}

#[tokio::test]
async fn who_is_slow_to_take_an_answer_is_not_closed_for_who_waits() {
    let limits = Limits {
        connections: 1,
        spare: Duration::from_millis(50),
        ..LIMITS
    };
    let server = start_within(limits).await;
    let mut slow = stalled(&server, 2).await;
    let mut waiting = Box::pin(served(&server, 3));
    let early = timeout(20 * limits.spare, waiting.as_mut()).await;
    assert!(early.is_err(), "the place of one that is served was given away");
    let mut answers = 0;
    let (mut taken, end) = (Vec::new(), b"HTTP/1.1 200");
    while answers < MANY {
        let read = timeout(SOON, slow.read_buf(&mut taken)).await;
        assert_ne!(
            read.expect("more of it").unwrap(),
            0,
            "closed after {answers} of {MANY}"
        );
        answers += taken.windows(end.len()).filter(|window| window == end).count();
        taken.drain(..taken.len().saturating_sub(end.len() - 1));
    }
    // It has what it wanted, and room is made.
    let second = timeout(SOON, &mut waiting).await.expect("a place");
    drop((waiting, second));

    let (_sender, answer) = asked(&server, 2).await;
    let mut waiting = Box::pin(served(&server, 3));
    // A connection that is to end has three seconds for what is under way.
    let early = timeout(Duration::from_secs(4), waiting.as_mut()).await;
    assert!(early.is_err(), "the place of one that is served was given away");
    let length: usize = answer.headers()["content-length"].to_str().unwrap().parse().unwrap();
    let taken = timeout(SOON, answer.into_body().collect()).await.expect("all of it");
    assert_eq!(taken.unwrap().to_bytes().len(), length);
    timeout(SOON, &mut waiting).await.expect("a place");
    drop(waiting);
    server.handle.stop().await;
}

fn note(server: &Server) {
    let kind = EventKind::Note {
        text: "still here".into(),
        severity: Severity::Info,
    };
    server.rack.event(None, kind);
}

#[test]
fn an_event_stream_of_http_2_ends_when_its_client_is_gone_and_not_while_it_is_quiet() {
    let limits = Limits {
        per_address: 1,
        ping: Duration::from_millis(100),
        pong: Duration::from_secs(4),
        ..LIMITS
    };
    let ours = tokio::runtime::Runtime::new().unwrap();
    let server = ours.block_on(start_within(limits));
    let theirs = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let _kept = theirs.block_on(async {
        let stream = connect(&server, 2, "h2").await.unwrap();
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
                .await
                .unwrap();
        tokio::spawn(connection);
        let request = hyper::Request::get("https://rackbar/api/v1/events/stream")
            .header("authorization", format!("Bearer {TOKEN}"))
            .body(Empty::<Bytes>::new())
            .unwrap();
        let mut answer = sender.send_request(request).await.unwrap();
        assert_eq!(answer.status(), 200);
        // Who answers pings is there, for longer than a client has to answer one.
        let ended = async { while answer.body_mut().frame().await.is_some() {} };
        let ended = timeout(limits.pong + 5 * limits.ping, ended).await;
        assert!(ended.is_err(), "the stream of a client that is there has ended");
        assert!(connect(&server, 2, "h2").await.is_err(), "the only place is taken");
        (sender, answer)
    });
    // From here on nobody drives the client: it is gone as if its cable had been pulled.
    ours.block_on(async {
        freed(&server, 2).await;
        server.handle.stop().await;
    });
}
