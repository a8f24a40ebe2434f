//! A server between the machines and the appliance: whatever they ask for it fetches there, and what it gives them is
//! what the appliance said, or a lie that the story ordered.

use std::net::SocketAddrV4;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use rackbar_boot::MANIFEST_CONTEXT;
use rackbar_messages::SignedManifest;
use rackbar_model::MacAddr;
use rackbar_trust::{Signer as _, SigningKey};
use rackbar_vrack::host::{Host, TcpStream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinSet;

/// Longest request: a head and a small document.
const REQUEST: usize = 64 << 10;
/// Connections that may wait to be taken.
const BACKLOG: usize = 16;

/// What is done to an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lie {
    /// A manifest is signed anew, with a key that nobody trusts.
    OtherKey,
    /// A manifest's content is changed below its signature.
    ChangedManifest,
    /// A manifest that the appliance gave for another nonce.
    Replayed,
    /// A manifest that the appliance made for another machine.
    Of(MacAddr),
    /// One bit in the middle is another.
    FlippedBit,
    /// There is no such thing.
    NotFound,
    /// The connection ends without an answer.
    Silence,
    /// The connection ends after so many bytes of the body.
    BreaksOff(usize),
}

/// The lies to come: the first whose text stands in a request is told, once.
type Lies = Vec<(String, Lie)>;

struct Shared {
    host: Host,
    appliance: SocketAddrV4,
    lies: Mutex<Lies>,
    asked: Mutex<Vec<String>>,
}

/// The server at work; dropping it stops it.
pub struct Between {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

impl Between {
    /// Serves on port 80 of `host` what the appliance serves, but for these lies.
    ///
    /// # Errors
    /// When the host cannot listen.
    pub fn start(host: &Host, appliance: SocketAddrV4, lies: Vec<(String, Lie)>) -> Result<Self> {
        let mut listener = host.listen(80, BACKLOG).context("listening in between")?;
        let shared = Arc::new(Shared {
            host: host.clone(),
            appliance,
            lies: Mutex::new(lies),
            asked: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        let server = Arc::clone(&shared);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let server = Arc::clone(&server);
                connections.spawn(async move {
                    if let Err(error) = server.serve(stream).await {
                        println!("in between: {error:#}");
                    }
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { shared, _tasks: tasks })
    }

    /// Every request so far, in order: its first line, `Range` where there was one, and the lie that was told.
    pub fn asked(&self) -> Vec<String> {
        locked(&self.shared.asked).clone()
    }

    /// The lies that nobody has heard yet.
    pub fn untold(&self) -> Vec<(String, Lie)> {
        locked(&self.shared.lies).clone()
    }
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// One request, one answer, and the end: a client that keeps connections opens a new one.
    async fn serve(&self, mut client: TcpStream) -> Result<()> {
        let Some(request) = Request::read(&mut client).await? else {
            return Ok(());
        };
        let lie = self.lie(&request.line);
        self.note(&request, lie);
        let answer = match lie {
            Some(Lie::Silence) => return Ok(()),
            Some(Lie::NotFound) => b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_vec(),
            Some(Lie::Replayed) => self.fetch(&request.with("nonce", &"0".repeat(32))).await?,
            Some(Lie::Of(mac)) => self.fetch(&request.with("mac", &hyphens(mac))).await?,
            _ => self.fetch(&request.bytes()).await?,
        };
        let head = answer.windows(4).position(|end| end == b"\r\n\r\n");
        let (head, body) = answer.split_at(head.context("the appliance's answer has no head")? + 4);
        let body = match lie {
            Some(Lie::OtherKey) => manifest(body, signed_by_a_stranger)?,
            Some(Lie::ChangedManifest) => manifest(body, |signed| {
                flip(&mut signed.payload);
                Ok(())
            })?,
            Some(Lie::FlippedBit) => {
                let mut body = body.to_vec();
                flip(&mut body);
                body
            }
            Some(Lie::BreaksOff(length)) => body.get(..length).context("a body that short")?.to_vec(),
            _ => body.to_vec(),
        };
        client.write_all(head).await?;
        client.write_all(&body).await?;
        client.flush().await?;
        Ok(client.shutdown().await?)
    }

    fn lie(&self, line: &str) -> Option<Lie> {
        let mut lies = locked(&self.lies);
        let at = lies.iter().position(|(part, _)| line.contains(part))?;
        Some(lies.remove(at).1)
    }

    fn note(&self, request: &Request, lie: Option<Lie>) {
        let range = request.fields.iter().find(|field| is(field, "range"));
        let mut note = request.line.clone();
        for part in range.cloned().into_iter().chain(lie.map(|lie| format!("{lie:?}"))) {
            note = format!("{note}, {part}");
        }
        println!("in between: {note}");
        locked(&self.asked).push(note);
    }

    /// What the appliance answers.
    async fn fetch(&self, request: &[u8]) -> Result<Vec<u8>> {
        let mut stream = self.host.connect(self.appliance).await.context("the appliance")?;
        stream.write_all(request).await?;
        let mut answer = Vec::new();
        stream
            .read_to_end(&mut answer)
            .await
            .context("the appliance's answer")?;
        Ok(answer)
    }
}

/// A request in its parts.
struct Request {
    line: String,
    fields: Vec<String>,
    body: Vec<u8>,
}

impl Request {
    /// Reads one; `None` when the client has no more.
    async fn read(client: &mut TcpStream) -> Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            if let Some(request) = Self::parse(&bytes)? {
                return Ok(Some(request));
            }
            ensure!(bytes.len() < REQUEST, "a request of more than {REQUEST} bytes");
            if client.read_buf(&mut bytes).await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The request at the beginning of `bytes`, once all of it is there.
    fn parse(bytes: &[u8]) -> Result<Option<Self>> {
        let Some(head) = bytes.windows(4).position(|end| end == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = std::str::from_utf8(bytes.get(..head).unwrap_or_default()).context("a head that is no text")?;
        let mut lines = text.lines().map(str::to_owned);
        let line = lines.next().unwrap_or_default();
        let fields: Vec<String> = lines.collect();
        let length = fields.iter().find(|field| is(field, "content-length"));
        let length = length.and_then(|field| field.split_once(':')?.1.trim().parse().ok());
        let body = bytes.get(head + 4..).unwrap_or_default();
        Ok(body.get(..length.unwrap_or(0)).map(|body| Self {
            line,
            fields,
            body: body.to_vec(),
        }))
    }

    /// As it goes to the appliance, which is to end the connection behind its answer.
    fn bytes(&self) -> Vec<u8> {
        let kept = self.fields.iter().filter(|field| !is(field, "connection"));
        let mut head = format!("{}\r\nConnection: close\r\n", self.line);
        for field in kept {
            head.push_str(field);
            head.push_str("\r\n");
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }

    /// As [`Request::bytes`], with another value of a parameter of the query.
    fn with(&self, name: &str, value: &str) -> Vec<u8> {
        let begin = format!("{name}=");
        let parts = self.line.split_inclusive(['?', '&', ' ']);
        let line = parts.map(|part| match part.strip_prefix(&begin) {
            Some(old) => format!("{begin}{value}{}", old.get(old.len() - 1..).unwrap_or_default()),
            None => part.to_owned(),
        });
        let changed = Self {
            line: line.collect(),
            fields: self.fields.clone(),
            body: self.body.clone(),
        };
        changed.bytes()
    }
}

fn is(field: &str, name: &str) -> bool {
    field
        .split_once(':')
        .is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
}

/// A MAC address as it stands in a URL.
pub fn hyphens(mac: MacAddr) -> String {
    mac.to_string().replace(':', "-")
}

/// Another bit in the middle.
fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
}

/// A manifest after `change`, as long as it was: the head before it says its length.
fn manifest(body: &[u8], change: impl FnOnce(&mut SignedManifest) -> Result<()>) -> Result<Vec<u8>> {
    let mut signed: SignedManifest = postcard::from_bytes(body).context("the appliance's manifest")?;
    change(&mut signed)?;
    Ok(postcard::to_allocvec(&signed)?)
}

/// Signs it as another site's appliance would.
fn signed_by_a_stranger(signed: &mut SignedManifest) -> Result<()> {
    let (stranger, _) = SigningKey::generate().ok().context("a key")?;
    signed.signature = stranger.sign(&[MANIFEST_CONTEXT, &signed.payload].concat()).to_vec();
    signed.key = stranger.public_key();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_is_changed_where_it_stands() {
        let text = b"GET /m?mac=52-54&nonce=ab HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n";
        let request = Request::parse(text).unwrap().unwrap();
        let sent = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        assert_eq!(
            sent(request.with("mac", "02-00")),
            "GET /m?mac=02-00&nonce=ab HTTP/1.1\r\nConnection: close\r\nHost: a\r\n\r\n"
        );
        assert!(sent(request.with("nonce", "cd")).starts_with("GET /m?mac=52-54&nonce=cd HTTP/1.1\r\n"));
    }

    #[test]
    fn a_body_comes_whole_or_is_waited_for() {
        let text = b"POST /r HTTP/1.1\r\nContent-Length: 3\r\n\r\n\xff\x00\xfe";
        assert!(Request::parse(&text[..text.len() - 1]).unwrap().is_none());
        let request = Request::parse(text).unwrap().unwrap();
        assert!(request.bytes().ends_with(b"\r\n\r\n\xff\x00\xfe"));
    }
}
