//! A plain web server: HTTP/1.1 with keep-alive, HEAD, ranges, and POST bodies kept for the test to look at.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;

use crate::host::Host;
use crate::site::Files;
use crate::switch::Tasks;

/// Longest request head.
const HEAD: usize = 16 << 10;
/// Longest POST body.
const BODY: usize = 1 << 20;
const LISTENERS: usize = 32;

/// The server at work; dropping it stops it.
pub struct WebServer {
    requests: watch::Receiver<Vec<String>>,
    _tasks: Tasks,
}

impl WebServer {
    /// Serves files on a TCP port of a host.
    ///
    /// # Errors
    /// When the host cannot listen there.
    pub fn start(host: &Host, port: u16, files: Files) -> io::Result<Self> {
        let mut listener = host.listen(port, LISTENERS)?;
        let (report, requests) = watch::channel(Vec::new());
        let report = Arc::new(report);
        let tasks = Tasks::default();
        tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, files.clone(), Arc::clone(&report)));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            requests,
            _tasks: tasks,
        })
    }

    /// Every request so far, as `GET /path` or `POST /path body`.
    pub fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    /// Waits for a request that begins with `what`, and returns it.
    pub async fn requested(&self, what: &str) -> Option<String> {
        let mut requests = self.requests.clone();
        let found = |all: &Vec<String>| all.iter().find(|request| request.starts_with(what)).cloned();
        let all = requests.wait_for(|all| found(all).is_some()).await.ok()?;
        found(&all)
    }
}

struct Request {
    method: String,
    path: String,
    range: Option<(usize, Option<usize>)>,
    keep_alive: bool,
    body: Vec<u8>,
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    files: Files,
    report: Arc<watch::Sender<Vec<String>>>,
) -> io::Result<()> {
    // Clients pipeline: iPXE sends its next request with the last acknowledgement of the previous answer.
    let mut buffer = Vec::new();
    while let Some(request) = receive(&mut stream, &mut buffer).await? {
        let mut line = format!("{} {}", request.method, request.path);
        if !request.body.is_empty() {
            line = format!("{line} {}", String::from_utf8_lossy(&request.body));
        }
        report.send_modify(|all| all.push(line));
        respond(&mut stream, &files, &request).await?;
        if !request.keep_alive {
            break;
        }
    }
    stream.shutdown().await
}

/// Reads one request; `None` when the client is done.
async fn receive<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if let Some((request, used)) = parse(buffer)? {
            buffer.drain(..used);
            return Ok(Some(request));
        }
        if buffer.len() > HEAD + BODY {
            return Err(io::Error::other("a request of more than 1 MiB"));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn parse(buffer: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 48];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(length) = head
        .parse(buffer)
        .map_err(|error| io::Error::other(error.to_string()))?
    else {
        return Ok(None);
    };
    let header = |name: &str| {
        let found = head
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let body_length: usize = header("content-length")
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or(0);
    let Some(body) = buffer.get(length..length.saturating_add(body_length)) else {
        return Ok(None);
    };
    let range = header("range").and_then(|text| {
        let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().ok()?, last.parse().ok()))
    });
    let asked = header("connection").map(str::to_ascii_lowercase);
    let keep_alive = match asked.as_deref() {
        Some("close") => false,
        Some("keep-alive") => true,
        _ => head.version == Some(1),
    };
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        path: head.path.unwrap_or_default().to_owned(),
        range,
        keep_alive,
        body: body.to_vec(),
    };
    Ok(Some((request, length + body_length)))
}

async fn respond<S: AsyncWrite + Unpin>(stream: &mut S, files: &Files, request: &Request) -> io::Result<()> {
    let content = match request.method.as_str() {
        "POST" | "PUT" => return stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await,
        "GET" | "HEAD" => files.answer(&request.path),
        _ => None,
    };
    let Some(content) = content else {
        return stream
            .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
            .await;
    };
    let whole = content.len();
    let (status, extra, start, end) = match request.range {
        Some((first, last)) if first < whole => {
            let end = last.map_or(whole, |last| last.saturating_add(1)).clamp(first, whole);
            let extra = format!("Content-Range: bytes {first}-{}/{whole}\r\n", end.saturating_sub(1));
            ("206 Partial Content", extra, first, end)
        }
        Some(_) => (
            "416 Range Not Satisfiable",
            format!("Content-Range: bytes */{whole}\r\n"),
            0,
            0,
        ),
        None => ("200 OK", String::new(), 0, whole),
    };
    let length = end - start;
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nAccept-Ranges: bytes\r\n{extra}\r\n");
    stream.write_all(head.as_bytes()).await?;
    if request.method == "GET" {
        stream.write_all(content.get(start..end).unwrap_or_default()).await?;
    }
    stream.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    async fn exchange(sent: &[u8]) -> String {
        let files = Files::new();
        files.put("a", &b"0123456789"[..]);
        let (mut client, server) = tokio::io::duplex(1 << 16);
        let served = tokio::spawn(serve(server, files, Arc::new(watch::channel(Vec::new()).0)));
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        let _ = served.await.unwrap();
        String::from_utf8_lossy(&answer).into_owned()
    }

    #[tokio::test]
    async fn pipelined_ranges_and_heads() {
        let sent = b"GET /a HTTP/1.1\r\nRange: bytes=2-4\r\n\r\nHEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.0\r\n\r\n";
        let answer = exchange(sent).await;
        assert!(
            answer.contains("206 Partial") && answer.contains("bytes 2-4/10") && answer.contains("\r\n\r\n234HTTP")
        );
        assert!(answer.contains("Content-Length: 10") && !answer.contains("0123456789") && answer.contains("404"));
    }

    proptest! {
        #[test]
        fn no_request_makes_it_panic(text in "(GET|POST) /a HTTP/1.1\r\n((Range: bytes=[0-9]{0,25}-[0-9]{0,25}|Content-Length: [0-9]{0,25})\r\n){0,3}\r\n.{0,20}", bytes: Vec<u8>) {
            let _ = parse(text.as_bytes());
            let _ = parse(&bytes);
        }
    }
}
