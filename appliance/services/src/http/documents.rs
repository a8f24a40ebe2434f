//! The boot documents for another listener, which serves the same ones over TLS (HTTPS boot).

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use rackbar_artifacts::Artifacts;
use rackbar_model::{EventKind, Severity};

use super::account::{Account, announce_length};
use super::request::{self, Method, Parsed};
use super::routes::{self, Body, Response, Site};
use crate::Common;
use crate::doors::BootDesk;

/// Bytes of a file read at one time: firmware takes some KiB a round trip.
const STEP: u64 = 256 << 10;

/// The headers a boot document depends on; all others are the listener's own matter.
const HEADERS: [&str; 4] = ["range", "if-range", "if-none-match", "if-modified-since"];

/// What the boot HTTP server on port 80 answers, for whoever has another connection to a client.
#[derive(Clone)]
pub struct Documents {
    site: Arc<Site>,
    common: Common,
}

/// An answer: status, headers, and a body to be read piece by piece.
pub struct Document {
    status: u16,
    headers: String,
    body: Body,
    given: u64,
    length: u64,
    /// Taken when it is settled.
    account: Option<Account>,
    peer: IpAddr,
    common: Common,
}

impl Documents {
    /// The documents of these files and this desk, told and counted as those of port 80.
    pub fn new(artifacts: Arc<Artifacts>, desk: Arc<dyn BootDesk>, common: Common) -> Self {
        Self {
            site: Arc::new(Site { artifacts, desk }),
            common,
        }
    }

    /// Whether nobody boots at this address of ours, as it is one on an uplink.
    pub fn is_outside(&self, local: IpAddr) -> bool {
        self.common.outside.holds(local)
    }

    /// Answers a request of `peer`: its method, its target (path and query), and `header` by name in lower case.
    ///
    /// What is no request of HTTP/1 gets status 400, whoever let it through.
    pub fn answer<'h>(
        &self,
        method: &str,
        target: &str,
        header: impl Fn(&str) -> Option<&'h [u8]>,
        body: &[u8],
        peer: IpAddr,
    ) -> Document {
        // One reader of requests for both ports: what it refuses there it refuses here.
        let mut text = format!("{method} {target} HTTP/1.1\r\nHost: boot\r\n").into_bytes();
        for name in HEADERS {
            if let Some(value) = header(name) {
                text.extend_from_slice(name.as_bytes());
                text.extend_from_slice(b": ");
                text.extend_from_slice(value);
                text.extend_from_slice(b"\r\n");
            }
        }
        text.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        text.extend_from_slice(body);
        let (response, head_only) = match request::parse(&text) {
            Parsed::Whole(request, _) => {
                let response = routes::respond(&self.site, &request, peer, None);
                (response, request.method == Method::Head)
            }
            Parsed::Bad(status, text) => (Response::text(status, text), false),
            Parsed::Partial { .. } => (Response::text(400, "this is not an HTTP/1 request"), false),
        };
        if let (Some(mac), 200) = (response.mac, response.status) {
            self.common.clients.claims(peer, mac);
        }
        self.document(response, head_only, peer)
    }

    fn document(&self, response: Response, head_only: bool, peer: IpAddr) -> Document {
        let length = response.body.len();
        let mut headers = response.headers;
        announce_length(&mut headers, response.status, length);
        let mut document = Document {
            status: response.status,
            headers,
            body: response.body,
            given: 0,
            length: if head_only { 0 } else { length },
            account: Some(Account {
                status: response.status,
                what: response.what,
                mac: response.mac,
                started: Instant::now(),
            }),
            peer,
            common: self.common.clone(),
        };
        if document.length == 0 {
            document.settle();
        }
        document
    }

    /// A machine broke the TLS handshake off, for `reason`: its timeline says why HTTPS boot goes no further.
    pub fn refused(&self, peer: IpAddr, reason: &str) {
        // A stranger, a port scanner, a browser that asks its user first: nobody's boot.
        let Some(mac) = self.common.clients.mac_of(peer) else {
            return;
        };
        self.common.clients.refused_tls(mac);
        let text = format!(
            "broke off a TLS handshake with this appliance ({reason}): a firmware that boots by HTTPS and does so does not \
             trust the boot certificate; enrol /boot/v1/boot-ca.cer in its setup, or take uefi_https out of boot.negotiate"
        );
        let severity = Severity::Warning;
        self.common.events.event(Some(mac), EventKind::Note { text, severity });
    }
}

impl Document {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Header names and values, `Content-Length` among them where HTTP wants it.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &str)> {
        self.headers.lines().filter_map(|line| line.split_once(": "))
    }

    /// The next piece of the body; `None` after the last one. May read a file: not for a thread that must not wait.
    ///
    /// # Errors
    /// When the file cannot be read, or became shorter than was announced.
    pub fn next_piece(&mut self) -> io::Result<Option<Bytes>> {
        if self.given >= self.length {
            return Ok(None);
        }
        let piece = match &self.body {
            Body::Bytes(bytes) => bytes.clone(),
            Body::Part { artifact, from, .. } => {
                let count = usize::try_from((self.length - self.given).min(STEP)).map_err(io::Error::other)?;
                let offset = from + self.given;
                let mut piece = vec![0; count];
                let read = artifact.read_at(offset, &mut piece)?;
                if read == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                piece.truncate(read);
                piece.into()
            }
        };
        self.given = self.given.saturating_add(piece.len() as u64);
        // With the last piece: nobody asks for the end of a body whose length was announced.
        if self.given >= self.length {
            self.settle();
        }
        Ok(Some(piece))
    }

    /// Counts and tells of the answer, once.
    fn settle(&mut self) {
        if let Some(account) = self.account.take() {
            account.settle(&self.common, self.peer, self.given);
        }
    }
}
