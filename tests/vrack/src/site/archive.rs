//! A package archive of the site's: a host of the rack behind whose port 80 an archive outside answers. Only requests
//! without a body are led out, each under the outside archive's own name.

use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::host::Host;
use crate::switch::Tasks;

/// Longest request head.
const HEAD: usize = 16 << 10;
const LISTENERS: usize = 32;

/// The archive at work; dropping it stops it.
pub struct Archive {
    requests: watch::Receiver<Vec<String>>,
    _tasks: Tasks,
}

impl Archive {
    /// Has `host` answer on TCP port 80 with what `authority` (`host:port` of a web server outside) answers.
    ///
    /// # Errors
    /// When the host cannot listen there.
    pub fn start(host: &Host, authority: &str) -> io::Result<Self> {
        let mut listener = host.listen(80, LISTENERS)?;
        let (report, requests) = watch::channel(Vec::new());
        let (report, authority) = (Arc::new(report), authority.to_owned());
        let tasks = Tasks::default();
        tasks.spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((inside, _)) = listener.accept().await {
                let (report, authority) = (Arc::clone(&report), authority.clone());
                connections.spawn(async move {
                    let outside = TcpStream::connect(&authority).await?;
                    lead(inside, outside, &authority, &report).await
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self {
            requests,
            _tasks: tasks,
        })
    }

    /// Every request so far, as `GET /path`.
    pub fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }
}

/// Leads requests out and answers in, until either side ends.
async fn lead<I, O>(inside: I, outside: O, authority: &str, report: &watch::Sender<Vec<String>>) -> io::Result<()>
where
    I: AsyncRead + AsyncWrite,
    O: AsyncRead + AsyncWrite,
{
    let (mut from_inside, mut to_inside) = tokio::io::split(inside);
    let (mut from_outside, mut to_outside) = tokio::io::split(outside);
    let requests = async {
        let mut buffer = Vec::new();
        loop {
            while let Some(end) = buffer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) {
                let head: Vec<u8> = buffer.drain(..end).collect();
                let (line, head) = renamed(&String::from_utf8_lossy(&head), authority);
                report.send_modify(|all| all.push(line));
                to_outside.write_all(head.as_bytes()).await?;
            }
            if buffer.len() > HEAD || from_inside.read_buf(&mut buffer).await? == 0 {
                return to_outside.shutdown().await;
            }
        }
    };
    let answers = async {
        tokio::io::copy(&mut from_outside, &mut to_inside).await?;
        to_inside.shutdown().await
    };
    tokio::try_join!(requests, answers).map(drop)
}

/// A request's method and path, and its head under another name.
fn renamed(head: &str, authority: &str) -> (String, String) {
    let first = head.lines().next().unwrap_or_default();
    let what: Vec<&str> = first.split(' ').take(2).collect();
    let mut out = String::with_capacity(head.len());
    for line in head.split_inclusive("\r\n") {
        if line.to_ascii_lowercase().starts_with("host:") {
            let name = authority.strip_suffix(":80").unwrap_or(authority);
            out.push_str(&format!("Host: {name}\r\n"));
        } else {
            out.push_str(line);
        }
    }
    (what.join(" "), out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn requests_go_out_under_the_archives_own_name() {
        let (mut client, inside) = tokio::io::duplex(1 << 16);
        let (outside, mut server) = tokio::io::duplex(1 << 16);
        let (report, requests) = watch::channel(Vec::new());
        let led = tokio::spawn(async move { lead(inside, outside, "deb.example:80", &report).await });
        let sent = b"GET /a HTTP/1.1\r\nHost: 10.0.0.9\r\n\r\nHEAD /b HTTP/1.1\r\nhost: x\r\nAccept: y\r\n\r\n";
        client.write_all(sent).await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).await.unwrap();
        assert_eq!(
            heard,
            "GET /a HTTP/1.1\r\nHost: deb.example\r\n\r\nHEAD /b HTTP/1.1\r\nHost: deb.example\r\nAccept: y\r\n\r\n"
        );
        server.write_all(b"HTTP/1.1 404 Not Found\r\n\r\n").await.unwrap();
        drop(server);
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404"));
        led.await.unwrap().unwrap();
        assert_eq!(*requests.borrow(), ["GET /a", "HEAD /b"]);
    }
}
