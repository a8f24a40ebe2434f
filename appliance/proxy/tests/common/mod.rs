//! An origin that misbehaves on request, and a proxy before it.
#![allow(dead_code, clippy::unwrap_used, reason = "each test file uses a part")]

pub mod apt;

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rackbar_proxy::rules::destination::Destinations;
use rackbar_proxy::rules::target::Url;
use rackbar_proxy::{Handle, Mirror, Settings, start};

/// A file of the origin.
#[derive(Clone, Default)]
pub struct Doc {
    pub body: Vec<u8>,
    pub headers: Vec<(String, String)>,
    /// After so many bytes of a whole answer the connection ends.
    pub breaks_at: Option<usize>,
    /// Bytes a second at most.
    pub slow: Option<usize>,
    /// Says no length; ends with the connection or in chunks.
    pub chunked: bool,
    /// Sent as it is, head and all, in place of an answer; the connection ends after it, or is held open without a word.
    pub raw: Option<(String, bool)>,
    /// Sent as it is to whoever asks for a part, whatever that one says of versions.
    pub rest: Option<Vec<u8>>,
    /// Nothing is answered before this is true.
    pub gate: Option<Arc<AtomicBool>>,
}

/// An HTTP/1.1 origin on loopback.
#[derive(Clone)]
pub struct Origin {
    pub address: SocketAddr,
    pub docs: Arc<Mutex<HashMap<String, Doc>>>,
    /// Requests with their heads.
    pub seen: Arc<Mutex<Vec<String>>>,
    pub down: Arc<AtomicBool>,
    pub sent: Arc<AtomicU64>,
    /// Bodies of requests, of those that have one.
    pub bodies: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Origin {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Self {
            address: listener.local_addr().unwrap(),
            docs: Arc::default(),
            seen: Arc::default(),
            down: Arc::default(),
            sent: Arc::default(),
            bodies: Arc::default(),
        };
        let one = origin.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let one = one.clone();
                std::thread::spawn(move || {
                    if !one.down.load(Ordering::SeqCst) {
                        let _ = serve(stream, &one);
                    }
                });
            }
        });
        origin
    }

    pub fn put(&self, path: &str, doc: Doc) {
        self.docs.lock().unwrap().insert(path.to_owned(), doc);
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn requests(&self, path: &str) -> usize {
        let start = format!("GET {path} ");
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|head| head.starts_with(&start))
            .count()
    }

    pub fn heads(&self, path: &str) -> Vec<String> {
        let start = format!("GET {path} ");
        self.seen
            .lock()
            .unwrap()
            .iter()
            .filter(|head| head.starts_with(&start))
            .cloned()
            .collect()
    }
}

/// The body of a request; `None` when it has none.
fn body(head: &str, reader: &mut impl std::io::BufRead) -> std::io::Result<Option<Vec<u8>>> {
    let head = head.to_ascii_lowercase();
    let mut out = Vec::new();
    if head.contains("transfer-encoding: chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            let mut piece = vec![0; size + 2];
            reader.read_exact(&mut piece)?;
            out.extend_from_slice(&piece[..size]);
            if size == 0 {
                return Ok(Some(out));
            }
        }
    }
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    out.resize(length.unwrap_or(0), 0);
    reader.read_exact(&mut out)?;
    Ok(length.map(|_| out))
}

fn serve(stream: TcpStream, origin: &Origin) -> std::io::Result<()> {
    let Origin {
        docs,
        seen,
        sent,
        down,
        bodies,
        ..
    } = origin;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut out = stream;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        if down.load(Ordering::SeqCst) {
            return Ok(());
        }
        seen.lock().unwrap().push(head.clone());
        let body = body(&head, &mut reader)?;
        bodies.lock().unwrap().extend(body);
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let path = path
            .split("://")
            .nth(1)
            .map_or(path.clone(), |rest| rest[rest.find('/').unwrap()..].to_owned());
        let Some(doc) = docs.lock().unwrap().get(&path).cloned() else {
            // For so long that it is there: that InRelease is not there is part of a repository.
            out.write_all(b"HTTP/1.1 404 Not Found\r\nCache-Control: max-age=600\r\nContent-Length: 5\r\n\r\nnone\n")?;
            continue;
        };
        while doc.gate.as_ref().is_some_and(|open| !open.load(Ordering::SeqCst)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Some((answer, held)) = &doc.raw {
            out.write_all(answer.as_bytes())?;
            if *held {
                let _ = reader.read(&mut [0]);
            }
            return Ok(());
        }
        let field = |name: &str| {
            let line = head
                .lines()
                .find(|line| line.to_ascii_lowercase().starts_with(&format!("{name}:")))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        };
        let etag = doc
            .headers
            .iter()
            .find(|(name, _)| name == "ETag")
            .map(|(_, value)| value.clone());
        if let Some(tag) = etag.as_ref().filter(|_| field("if-none-match") == etag) {
            write!(out, "HTTP/1.1 304 Not Modified\r\nETag: {tag}\r\n\r\n")?;
            continue;
        }
        if let Some(rest) = doc.rest.as_ref().filter(|_| field("range").is_some()) {
            return out.write_all(rest);
        }
        let from: usize = field("range")
            .filter(|_| field("if-range").is_none() || field("if-range") == etag)
            .and_then(|range| range.strip_prefix("bytes=")?.split('-').next()?.parse().ok())
            .unwrap_or(0);
        let part = &doc.body[from.min(doc.body.len())..];
        let mut text = String::from(if from > 0 {
            "HTTP/1.1 206 Partial Content\r\n"
        } else {
            "HTTP/1.1 200 OK\r\n"
        });
        for (name, value) in &doc.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if from > 0 {
            text.push_str(&format!(
                "Content-Range: bytes {from}-{}/{}\r\n",
                doc.body.len() - 1,
                doc.body.len()
            ));
        }
        if doc.chunked {
            text.push_str("Transfer-Encoding: chunked\r\n\r\n");
        } else {
            text.push_str(&format!("Content-Length: {}\r\n\r\n", part.len()));
        }
        out.write_all(text.as_bytes())?;
        let mut done = 0;
        for piece in part.chunks(doc.slow.map_or(1 << 20, |rate| (rate / 50).max(1))) {
            if from == 0 && doc.breaks_at.is_some_and(|at| done >= at) {
                return Ok(());
            }
            if doc.chunked {
                write!(out, "{:x}\r\n", piece.len())?;
            }
            out.write_all(piece)?;
            if doc.chunked {
                out.write_all(b"\r\n")?;
            }
            done += piece.len();
            sent.fetch_add(piece.len() as u64, Ordering::SeqCst);
            if doc.slow.is_some() {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        if doc.chunked {
            out.write_all(b"0\r\n\r\n")?;
        }
    }
}

/// An answer as it is, after which the connection ends.
pub fn raw(answer: &str) -> Doc {
    Doc {
        raw: Some((answer.to_owned(), false)),
        ..Doc::default()
    }
}

pub fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let mut step = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..count.div_ceil(8))
        .flat_map(|_| step().to_le_bytes())
        .take(count)
        .collect()
}

pub fn doc(body: Vec<u8>) -> Doc {
    let tag = format!(
        "\"{}\"",
        body.len() + body.first().map_or(0, |byte| usize::from(*byte) * 1_000_000)
    );
    let headers = vec![("ETag".into(), tag), ("Cache-Control".into(), "max-age=3600".into())];
    Doc {
        body,
        headers,
        ..Doc::default()
    }
}

/// A rule that lets clients be led to the origins of the test.
pub fn rule(origins: &[&Origin]) -> Destinations {
    Destinations {
        ports: origins.iter().map(|origin| origin.address.port()).collect(),
        allowed: vec!["127.0.0.1/32".parse().unwrap()],
        ..Destinations::default()
    }
}

pub fn settings(origins: &[&Origin]) -> Settings {
    let upstreams = origins
        .iter()
        .map(|origin| Url::parse(&origin.url("/debian")).unwrap())
        .collect();
    Settings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        mirrors: vec![Mirror {
            name: "debian".into(),
            upstreams,
        }],
        rule: rule(origins),
        ..Settings::default()
    }
}

pub struct Under {
    pub handle: Handle,
    pub told: Arc<Mutex<Vec<String>>>,
    pub address: SocketAddr,
}

pub fn under(folder: &Path, settings: Settings) -> Under {
    let told: Arc<Mutex<Vec<String>>> = Arc::default();
    let sink = told.clone();
    let handle = start(
        folder,
        settings,
        Arc::new(move |_, text| sink.lock().unwrap().push(text)),
    )
    .unwrap();
    let address = handle.addresses()[0];
    Under { handle, told, address }
}

impl Under {
    /// What curl gets through the proxy: status, head, body.
    pub fn curl(&self, arguments: &[&str], url: &str) -> (u16, String, Vec<u8>) {
        let folder = tempfile::tempdir().unwrap();
        let (head, body) = (folder.path().join("head"), folder.path().join("body"));
        let output = Command::new("curl")
            .args(["-sS", "--max-time", "60", "--noproxy", "", "-D"])
            .arg(&head)
            .arg("-o")
            .arg(&body)
            .args([
                "-w",
                "%{http_code} %{exitcode}",
                "-x",
                &format!("http://{}", self.address),
            ])
            .args(arguments)
            .arg(url)
            .output()
            .expect("curl is missing; `cargo xtask setup test` installs it");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let status = text.split(' ').next().unwrap().parse().unwrap();
        let status = if output.status.success() { status } else { 0 };
        let head = std::fs::read_to_string(&head).unwrap_or_default().to_ascii_lowercase();
        (status, head, std::fs::read(&body).unwrap_or_default())
    }

    /// One request over a fresh connection, to its end: everything that came.
    pub fn raw(&self, request: &str) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut out = Vec::new();
        let _ = stream.read_to_end(&mut out);
        out
    }

    pub fn get(&self, url: &str) -> Vec<u8> {
        let all = self.raw(&format!("GET {url} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        let at = all
            .windows(4)
            .position(|four| four == b"\r\n\r\n")
            .map_or(all.len(), |at| at + 4);
        all[at..].to_vec()
    }

    pub fn stored(&self, key: &str) -> bool {
        self.handle.proxy().list().iter().any(|item| item.key == key)
    }
}

pub fn wait(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "did not happen within 30 s: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
