//! What is counted and told of an answer, whichever listener gave it.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Instant;

use rackbar_model::{EventKind, MacAddr};

use crate::Common;

/// An answer that is counted and told of once it has left.
pub(super) struct Account {
    pub(super) status: u16,
    /// What was answered, for the event; `None` for what is no event.
    pub(super) what: Option<String>,
    pub(super) mac: Option<MacAddr>,
    pub(super) started: Instant,
}

impl Account {
    /// The answer left for `peer`, with `bytes` of body.
    pub(super) fn settle(self, common: &Common, peer: IpAddr, bytes: u64) {
        let metrics = &common.metrics;
        metrics.http_requests.inc();
        metrics.http_bytes.add(bytes);
        if self.status >= 400 {
            metrics.http_errors.inc();
        }
        let Some(what) = self.what else { return };
        let mac = self.mac.or_else(|| common.clients.mac_of(peer));
        common.busy.ask(mac, peer, &what);
        if let (Some(mac), 200 | 206) = (mac, self.status) {
            common.clients.fetched(mac);
        }
        let sent = EventKind::HttpSent {
            what,
            client: peer,
            status: self.status,
            bytes,
            millis: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        common.events.event(mac, sent);
    }
}

/// Adds `Content-Length` where HTTP wants it. RFC 9110 section 8.6: none with 204; with 304 it would be that of the file.
pub(super) fn announce_length(headers: &mut String, status: u16, length: u64) {
    if !matches!(status, 204 | 304) {
        let _ = write!(headers, "Content-Length: {length}\r\n");
    }
}
