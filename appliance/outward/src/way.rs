//! The way through a parent proxy: connections to it, and tunnels behind it (RFC 9110 section 9.3.6).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::parent::{Parent, ParentError, authority};
use crate::tls;

/// Until it has taken a connection, and until it has made a tunnel; it may have to look a name up and to try several addresses.
const WITHIN: Duration = Duration::from_secs(20);

/// Most of the head of its answer to `CONNECT`, in bytes.
const HEAD_MOST: usize = 16 << 10;

/// Fields of that head.
const FIELDS: usize = 64;

/// A parent proxy, ready to be asked.
#[derive(Clone)]
pub struct Way {
    parent: Arc<Parent>,
    tls: Option<TlsConnector>,
}

/// A connection, direct or by a parent.
pub struct Line {
    stream: Stream,
    /// A proxy is at its end, which wants to hear the whole URL.
    to_proxy: bool,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Way {
    /// By this parent.
    pub fn new(parent: Parent) -> Self {
        let protected = parent
            .tls
            .then(|| TlsConnector::from(Arc::new(tls(true, &parent.roots))));
        Self {
            parent: Arc::new(parent),
            tls: protected,
        }
    }

    /// Whose it is.
    pub fn parent(&self) -> &Parent {
        &self.parent
    }

    /// The connection for a request: a tunnel for `https`, else one to the parent, which is then told the whole URL.
    ///
    /// # Errors
    /// A [`ParentError`] inside.
    pub async fn line(&self, uri: &Uri) -> io::Result<Line> {
        if uri.scheme_str() != Some("https") {
            let stream = self.dial().await?;
            return Ok(Line { stream, to_proxy: true });
        }
        let host = uri.host().unwrap_or_default();
        self.tunnel(host, uri.port_u16().unwrap_or(443)).await
    }

    /// A tunnel to a host and port.
    ///
    /// # Errors
    /// A [`ParentError`] inside.
    pub async fn tunnel(&self, host: &str, port: u16) -> io::Result<Line> {
        let to = authority(host.trim_matches(['[', ']']), port);
        let mut stream = self.dial().await?;
        let answer = tokio::time::timeout(WITHIN, self.connect(&mut stream, &to)).await;
        let (status, words) = match answer {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(self.unreachable(format!("CONNECT {to}: {error}"))),
            Err(_) => {
                let why = format!("no answer to CONNECT {to} within {} s", WITHIN.as_secs());
                return Err(self.unreachable(why));
            }
        };
        match status {
            200..=299 => Ok(Line {
                stream,
                to_proxy: false,
            }),
            _ => Err(io::Error::other(self.parent.said(&to, status, &words))),
        }
    }

    fn unreachable(&self, why: String) -> io::Error {
        let parent = self.parent.to_string();
        io::Error::new(io::ErrorKind::NotConnected, ParentError::Unreachable { parent, why })
    }

    async fn dial(&self) -> io::Result<Stream> {
        let opened = tokio::time::timeout(WITHIN, self.open()).await;
        match opened {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(self.unreachable(error.to_string())),
            Err(_) => Err(self.unreachable(format!("no answer within {} s", WITHIN.as_secs()))),
        }
    }

    async fn open(&self) -> io::Result<Stream> {
        let stream = TcpStream::connect((self.parent.host.as_str(), self.parent.port)).await?;
        let _ = stream.set_nodelay(true);
        let Some(tls) = &self.tls else {
            return Ok(Stream::Plain(stream));
        };
        let name = ServerName::try_from(self.parent.host.clone()).map_err(io::Error::other)?;
        Ok(Stream::Tls(Box::new(tls.connect(name, stream).await?)))
    }

    /// Asks for a tunnel; gives the status and its words.
    async fn connect(&self, stream: &mut Stream, to: &str) -> io::Result<(u16, String)> {
        let mut request = format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n").into_bytes();
        if let Some(login) = self.parent.login() {
            request.extend_from_slice(b"Proxy-Authorization: ");
            request.extend_from_slice(login.as_bytes());
            request.extend_from_slice(b"\r\n");
        }
        request.extend_from_slice(b"\r\n");
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut head = Vec::new();
        // Byte by byte: what follows the head is the tunnel's already.
        while !head.ends_with(b"\r\n\r\n") {
            if head.len() >= HEAD_MOST {
                return Err(io::Error::other("the head of its answer does not end"));
            }
            head.push(stream.read_u8().await?);
        }
        status(&head).ok_or_else(|| io::Error::other("its answer is no HTTP"))
    }
}

/// Status and words of an answer's head.
pub fn status(head: &[u8]) -> Option<(u16, String)> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let mut answer = httparse::Response::new(&mut fields);
    match answer.parse(head) {
        Ok(httparse::Status::Complete(_)) => {}
        _ => return None,
    }
    let said = answer.headers.iter().find(|field| {
        field.name.eq_ignore_ascii_case("x-squid-error") || field.name.eq_ignore_ascii_case("proxy-status")
    });
    let said = said.map(|field| String::from_utf8_lossy(field.value).into_owned());
    Some((
        answer.code?,
        said.unwrap_or_else(|| answer.reason.unwrap_or_default().to_owned()),
    ))
}

impl From<TcpStream> for Line {
    fn from(stream: TcpStream) -> Self {
        Self {
            stream: Stream::Plain(stream),
            to_proxy: false,
        }
    }
}

impl Connection for Line {
    fn connected(&self) -> Connected {
        Connected::new().proxy(self.to_proxy)
    }
}

/// Does the same with either kind of stream.
macro_rules! either {
    ($stream:expr, $inner:ident => $does:expr) => {
        match $stream {
            Stream::Plain($inner) => $does,
            Stream::Tls($inner) => $does,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), inner => Pin::new(inner).poll_read(cx, buf))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        either!(self.get_mut(), inner => Pin::new(inner).poll_write(cx, buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), inner => Pin::new(inner).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self.get_mut(), inner => Pin::new(inner).poll_shutdown(cx))
    }
}

impl AsyncRead for Line {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Line {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_answer_to_a_connect_is_read_with_who_gave_it() {
        let read = |text: &str| status(text.as_bytes());
        assert_eq!(
            read("HTTP/1.1 200 Connection established\r\n\r\n"),
            Some((200, "Connection established".into()))
        );
        let squid = "HTTP/1.1 503 Service Unavailable\r\nServer: squid/5.7\r\nX-Squid-Error: ERR_DNS_FAIL 0\r\n\r\n";
        assert_eq!(read(squid), Some((503, "ERR_DNS_FAIL 0".into())));
        assert_eq!(read("HTTP/1.0 403\r\n\r\n"), Some((403, String::new())));
        for bad in [
            "",
            "\r\n\r\n",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nx",
        ] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_answer_makes_it_panic(
            bytes in prop::collection::vec(any::<u8>(), 0..200),
            line in "HTTP/1\\.[01] [0-9]{0,4}[ -~]{0,40}(\r\n[ -~]{0,60}){0,4}\r\n\r\n",
        ) {
            for head in [bytes.as_slice(), line.as_bytes()] {
                if let Some((status, _)) = status(head) {
                    prop_assert!((100..1000).contains(&status));
                }
            }
        }
    }
}
