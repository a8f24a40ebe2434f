//! Fetching an image by HTTP/1.1 (RFC 9110, 9112) from the appliance, from any byte, over connections that break.
//!
//! Plain HTTP is enough: what is fetched counts only when its SHA-256 is the one that came over TLS. A connection that
//! breaks is opened again and the file goes on at the very byte; the entity tag must be the same as before, or somebody
//! has exchanged the file.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::Result;
use crate::control::{Control, fault, refuse};

/// For connecting, and for every read: the appliance may serve a whole rack at once.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tries in a row that gave no byte before the fetch is given up: with the pauses about two minutes.
const TRIES: u32 = 12;

/// First and longest pause between two tries.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// Longest header of an answer.
const HEADER_LIMIT: usize = 16 << 10;

/// Where a file is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Url {
    /// Host and port, to connect to.
    authority: String,
    /// `Host` header.
    host: String,
    path: String,
}

impl Url {
    /// Reads `http://host[:port]/path`.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            refuse(
                format!("{text} is no http:// address of an image"),
                "give the image again to the appliance",
            )
        };
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (host, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let clean = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
        if host.is_empty() || host.contains('@') || !clean(host) || !clean(path) {
            return Err(wrong());
        }
        // An IPv6 address stands in brackets and has colons of its own.
        let has_port = host
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty());
        let authority = if has_port {
            host.to_owned()
        } else {
            format!("{host}:80")
        };
        Ok(Self {
            authority,
            host: host.to_owned(),
            path: path.to_owned(),
        })
    }
}

/// The header of an answer, as far as it matters here.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Answer {
    status: u16,
    length: Option<u64>,
    /// First byte and size of the file, from `Content-Range`.
    range: Option<(u64, u64)>,
    tag: Option<String>,
    is_chunked: bool,
    closes: bool,
}

impl Answer {
    /// `None` while the header is not whole.
    pub(super) fn parse(bytes: &[u8]) -> io::Result<Option<(Self, usize)>> {
        let mut headers = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(end) = response
            .parse(bytes)
            .map_err(|error| io::Error::other(error.to_string()))?
        else {
            return Ok(None);
        };
        let mut answer = Self {
            status: response.code.unwrap_or(0),
            ..Self::default()
        };
        for header in response.headers.iter() {
            let value = String::from_utf8_lossy(header.value).trim().to_owned();
            match header.name.to_ascii_lowercase().as_str() {
                "content-length" => answer.length = value.parse().ok(),
                "content-range" => answer.range = content_range(&value),
                "etag" => answer.tag = Some(value),
                "transfer-encoding" => answer.is_chunked = true,
                "connection" => answer.closes = value.eq_ignore_ascii_case("close"),
                _ => {}
            }
        }
        Ok(Some((answer, end)))
    }
}

/// `bytes 100-199/5000` gives 100 and 5000.
fn content_range(value: &str) -> Option<(u64, u64)> {
    let (range, size) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, size.parse().ok()?))
}

/// A connection with the body of one answer on it.
struct Body {
    stream: TcpStream,
    /// Bytes that came with the header.
    early: Vec<u8>,
    left: u64,
    closes: bool,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let room = buffer.get_mut(..most).unwrap_or_default();
        if room.is_empty() {
            return Ok(0);
        }
        let count = if self.early.is_empty() {
            self.stream.read(room)?
        } else {
            let count = self.early.len().min(room.len());
            room.iter_mut()
                .zip(self.early.drain(..count))
                .for_each(|(to, from)| *to = from);
            count
        };
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        Ok(count)
    }
}

/// A file at the appliance, read from any byte on; see the module's description.
pub(crate) struct Remote<'a> {
    url: Url,
    size: u64,
    control: &'a Control,
    tag: Option<String>,
    body: Option<Body>,
    position: u64,
    /// Connections that were opened after the first one, for the report.
    resumed: u32,
    opened: bool,
}

impl<'a> Remote<'a> {
    /// A file of `size` bytes.
    pub(crate) fn new(url: Url, size: u64, control: &'a Control) -> Self {
        Self {
            url,
            size,
            control,
            tag: None,
            body: None,
            position: 0,
            resumed: 0,
            opened: false,
        }
    }

    /// How often a broken connection was opened again.
    pub(crate) fn resumed(&self) -> u32 {
        self.resumed
    }

    /// The file's size as promised.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Goes on reading at `offset`; the connection is kept when it has nothing else on it.
    pub(crate) fn seek(&mut self, offset: u64) {
        if offset != self.position {
            self.body = self.body.take().filter(|body| body.left == 0 && !body.closes);
            self.position = offset;
        }
    }

    /// Reads into `buffer` until it is full or the file ends, whatever the connection does in between; at most `most`
    /// bytes are asked for ahead.
    pub(crate) fn fill(&mut self, buffer: &mut [u8], most: u64) -> Result<usize> {
        let mut have = 0;
        let mut tries = 0u32;
        let mut why = String::new();
        while have < buffer.len() && self.position < self.size {
            self.control.check()?;
            if tries >= TRIES {
                let reason = format!(
                    "fetching {} from {} stopped at byte {}: {why}",
                    self.url.path, self.url.host, self.position
                );
                return Err(fault(
                    reason,
                    "look whether the appliance is up and reachable from this machine, then try again",
                ));
            }
            match self.some(buffer.get_mut(have..).unwrap_or_default(), most) {
                Ok(count) => {
                    have += count;
                    tries = 0;
                }
                Err(Trouble::Passing(error)) => {
                    self.body = None;
                    tries += 1;
                    why = error.to_string();
                    self.pause(tries)?;
                }
                Err(Trouble::Final(failure)) => return Err(failure),
            }
        }
        Ok(have)
    }

    fn pause(&self, tries: u32) -> Result<()> {
        let pause = PAUSES.0.saturating_mul(1 << (tries - 1).min(10)).min(PAUSES.1);
        let until = Instant::now() + pause;
        while Instant::now() < until {
            self.control.check()?;
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn some(&mut self, room: &mut [u8], most: u64) -> std::result::Result<usize, Trouble> {
        let idle = self.body.as_ref().is_none_or(|body| body.left == 0);
        if idle {
            let old = self.body.take().filter(|body| !body.closes).map(|body| body.stream);
            self.body = Some(self.ask(old, most)?);
        }
        let Some(body) = &mut self.body else {
            return Ok(0);
        };
        let count = body.read(room)?;
        self.position += count as u64;
        Ok(count)
    }

    /// Sends the request and reads the header of the answer.
    fn ask(&mut self, old: Option<TcpStream>, most: u64) -> std::result::Result<Body, Trouble> {
        let mut stream = match old {
            Some(stream) => stream,
            None => self.connect()?,
        };
        let last = self
            .position
            .saturating_add(most.max(1))
            .min(self.size)
            .saturating_sub(1);
        let condition = self
            .tag
            .as_ref()
            .map_or(String::new(), |tag| format!("If-Match: {tag}\r\n"));
        let request = format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: rackbar-agent\r\nRange: bytes={}-{last}\r\n{condition}\r\n",
            self.url.path, self.url.host, self.position,
        );
        stream.write_all(request.as_bytes())?;
        let (answer, early) = read_header(&mut stream)?;
        let left = self.judge(&answer, last + 1 - self.position)?;
        Ok(Body {
            stream,
            early,
            left,
            closes: answer.closes,
        })
    }

    fn connect(&mut self) -> io::Result<TcpStream> {
        if self.opened {
            self.resumed += 1;
        }
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in self.url.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, PATIENCE) {
                Ok(stream) => {
                    stream.set_read_timeout(Some(PATIENCE))?;
                    stream.set_write_timeout(Some(PATIENCE))?;
                    self.opened = true;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// How many bytes of the body are ours; refuses an answer that is not the range of the file we asked for.
    fn judge(&mut self, answer: &Answer, wanted: u64) -> std::result::Result<u64, Trouble> {
        let refused =
            |reason: String| Trouble::Final(refuse(reason, "give the image again to the appliance and plan again"));
        let name = format!("{} at {}", self.url.path, self.url.host);
        match (answer.status, answer.range) {
            (206, Some((first, size))) if first == self.position && size == self.size => {}
            // A server without ranges gives the whole file, which is as good at its beginning.
            (200, _) if self.position == 0 && answer.length == Some(self.size) => {}
            (206 | 200, _) => {
                return Err(refused(format!(
                    "{name} is not the file of {} bytes that was planned, or its server knows no ranges",
                    self.size
                )));
            }
            (404 | 410 | 412 | 416, _) => {
                return Err(refused(format!(
                    "{name} is not there any more (HTTP {})",
                    answer.status
                )));
            }
            (status, _) => return Err(Trouble::Passing(io::Error::other(format!("HTTP status {status}")))),
        }
        if answer.is_chunked {
            return Err(refused(format!("{name} comes in chunks, whose end is not certain")));
        }
        if self.tag.is_some() && answer.tag.is_some() && self.tag != answer.tag {
            return Err(refused(format!(
                "{name} was exchanged for another file while it was fetched"
            )));
        }
        self.tag = self.tag.take().or_else(|| answer.tag.clone());
        let whole = if answer.status == 200 { self.size } else { wanted };
        Ok(answer.length.unwrap_or(whole).min(whole))
    }
}

/// What went wrong with one try.
enum Trouble {
    /// The next try may work.
    Passing(io::Error),
    /// None will.
    Final(rackbar_messages::JobFailure),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Passing(error)
    }
}

fn read_header(stream: &mut TcpStream) -> io::Result<(Answer, Vec<u8>)> {
    let mut bytes = Vec::new();
    let mut piece = [0; 2048];
    loop {
        if let Some((answer, end)) = Answer::parse(&bytes)? {
            let early = bytes.get(end..).unwrap_or_default().to_vec();
            return Ok((answer, early));
        }
        if bytes.len() > HEADER_LIMIT {
            return Err(io::Error::other("the header of the answer is too long"));
        }
        let count = stream.read(&mut piece)?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(piece.get(..count).unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn addresses_are_read_and_others_refused() {
        let url = Url::parse("http://10.0.0.1:8080/boot/v1/files/ab/x.zst").unwrap();
        assert_eq!(
            (url.authority.as_str(), url.path.as_str()),
            ("10.0.0.1:8080", "/boot/v1/files/ab/x.zst")
        );
        assert_eq!(Url::parse("http://[fd00::1]/x").unwrap().authority, "[fd00::1]:80");
        assert_eq!(Url::parse("http://host").unwrap().path, "/");
        for wrong in [
            "https://h/x",
            "http:///x",
            "http://u@h/x",
            "http://h/a b",
            "http://h/a\r\nX: y",
            "file:///etc",
        ] {
            assert!(Url::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_range_is_read() {
        let text = b"HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Range: bytes 5-9/100\r\nContent-Length: 5\r\n\r\nhello";
        let (answer, end) = Answer::parse(text).unwrap().unwrap();
        assert_eq!(
            (answer.status, answer.range, answer.length),
            (206, Some((5, 100)), Some(5))
        );
        assert_eq!(&text[end..], b"hello");
        assert!(Answer::parse(&text[..20]).unwrap().is_none());
    }

    proptest! {
        #[test]
        fn any_answer_is_read(bytes in prop::collection::vec(any::<u8>(), 0..300), text in ".{0,40}") {
            let _ = Answer::parse(&bytes);
            let _ = content_range(&text);
            let _ = Url::parse(&text);
        }
    }
}
