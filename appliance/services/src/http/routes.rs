//! Which answer a request gets: the table "Boot HTTP" of ARCHITECTURE.md. Does no I/O of its own.

use std::fmt::Write;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use rackbar_artifacts::{Artifact, Artifacts};
use rackbar_messages::BootReport;
use rackbar_model::{Digest, MacAddr};

use super::date::http_date;
use super::request::{Method, Request, percent_decoded, query_value};
use crate::doors::{BootDesk, BootReply};

/// Where all of it is.
const ROOT: &str = "/boot/v1/";

/// Documents by name, and what is said where one is not there.
const NAMED: [(&str, &str); 4] = [
    (
        "boot-ca.cer",
        "HTTPS boot is off here: boot.negotiate does not name uefi_https.",
    ),
    (
        "loader.efi",
        "This appliance has no UEFI loader; boot by TFTP or build the image again.",
    ),
    (
        "loader.iso",
        "This appliance has no UEFI loader, or no address on a network of the rack.",
    ),
    (
        "snponly.efi",
        "This appliance has no iPXE for UEFI: build the image again.",
    ),
];

/// Below it: boot files of the site's own, by name.
const SITE: &str = "/boot/v1/site/";

const FILES: &str = "/boot/v1/files/";

/// Below it: the digest of a disc, and a path on it.
const TREE: &str = "/boot/v1/tree/";

/// Below it: a token, and what an installer asks for.
const INSTALLER: &str = "/boot/v1/installer/";

/// What is answered.
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Header lines beyond those every answer has, each with its CRLF.
    pub(crate) headers: String,
    pub(crate) body: Body,
    /// For the timeline: what was asked, when it is worth an event.
    pub(crate) what: Option<String>,
    /// The machine, when the request named it.
    pub(crate) mac: Option<MacAddr>,
    /// The connection cannot go on after this answer.
    pub(crate) close: bool,
}

/// A body; `HEAD` announces its length and leaves it out.
pub(crate) enum Body {
    Bytes(Bytes),
    Part {
        artifact: Arc<Artifact>,
        from: u64,
        len: u64,
    },
}

impl Body {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Part { len, .. } => *len,
        }
    }
}

impl Response {
    /// A short text, for people and firmware screens.
    pub(crate) fn text(status: u16, text: &str) -> Self {
        Self {
            status,
            headers: "Content-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n".to_owned(),
            body: Body::Bytes(Bytes::from(format!("{text}\n"))),
            what: None,
            mac: None,
            close: false,
        }
    }

    fn about(mut self, what: &str) -> Self {
        self.what = Some(what.to_owned());
        self
    }
}

/// Where answers come from.
pub(crate) struct Site {
    pub(crate) artifacts: Arc<Artifacts>,
    pub(crate) desk: Arc<dyn BootDesk>,
}

/// Whether a document is for machines of the rack alone. The loader's disc is not: BMCs may have their network at an uplink, and
/// it holds nothing but the loader and where the appliance is.
pub(crate) fn is_for_the_rack(path: &str) -> bool {
    path.starts_with("/boot/") && path != "/boot/v1/loader.iso"
}

/// Answers `request` of `peer`, which reached us at `local`.
pub(crate) fn respond(site: &Site, request: &Request, peer: IpAddr, local: Option<SocketAddr>) -> Response {
    let read = matches!(request.method, Method::Get | Method::Head);
    let name = request.path.strip_prefix(ROOT).unwrap_or_default();
    if let (true, Some((name, missing))) = (read, NAMED.iter().find(|(known, _)| *known == name)) {
        return named(site, request, name, missing);
    }
    match request.path.as_str() {
        "/boot/v1/report" if request.method == Method::Post => report(site, request, peer),
        "/boot/v1/report" => not_allowed("POST"),
        "/boot/v1/script.ipxe" if read => script(site, request, peer),
        "/boot/v1/manifest" if read => manifest(site, request, peer),
        path if path.starts_with(INSTALLER) && request.method == Method::Get => installer(site, path, peer),
        // Nothing of the path is told on: it holds a token.
        path if path.starts_with(INSTALLER) => not_allowed("GET"),
        path if read && path.starts_with(SITE) => of_site(site, request, path),
        path if read && path.starts_with(TREE) => of_disc(site, request, path, peer),
        path if read && path.starts_with(FILES) => by_digest(site, request, path),
        path if path.starts_with("/boot/") && !read => not_allowed("GET, HEAD"),
        path if path.starts_with("/boot/") => Response::text(
            404,
            "There is no such boot document; see ARCHITECTURE.md, \"Boot HTTP\".",
        )
        .about(&shown(path)),
        _ => redirect(request, local),
    }
}

/// A document that has one name and always its newest content.
fn named(site: &Site, request: &Request, name: &str, missing: &str) -> Response {
    match site.artifacts.by_name(name) {
        Some(artifact) => file(request, artifact, "no-cache"),
        None => Response::text(404, missing).about(name),
    }
}

fn of_site(site: &Site, request: &Request, path: &str) -> Response {
    let name = path.strip_prefix(SITE).unwrap_or_default();
    match site.artifacts.site_file(name) {
        Some(artifact) => file(request, artifact, "no-cache"),
        None => Response::text(404, "No [[boot.file]] of this site has this name.").about(&shown(name)),
    }
}

fn by_digest(site: &Site, request: &Request, path: &str) -> Response {
    let rest = path.strip_prefix(FILES).unwrap_or_default();
    let digest = rest.split('/').next().and_then(|text| text.parse::<Digest>().ok());
    match digest.and_then(|digest| site.artifacts.get(&digest)) {
        Some(artifact) => file(request, artifact, "public, max-age=31536000, immutable"),
        None => {
            Response::text(404, "No boot file here has this digest: the image changed, boot again.").about(&shown(rest))
        }
    }
}

/// A file of an installer's disc. A machine asks for hundreds: they are told of to the desk, and are no events.
fn of_disc(site: &Site, request: &Request, path: &str, peer: IpAddr) -> Response {
    let rest = percent_decoded(path.strip_prefix(TREE).unwrap_or_default()).unwrap_or_default();
    let (digest, name) = rest.split_once('/').unwrap_or((&rest, ""));
    // Installers put paths together of parts that begin and end with `/`.
    let name: Vec<&str> = name.split('/').filter(|part| !part.is_empty()).collect();
    let name = name.join("/");
    let found = digest.parse().ok();
    let found = found.and_then(|digest: Digest| site.artifacts.on_disc(&digest, &name));
    let mut response = match found {
        Some(artifact) => file(request, artifact, "public, max-age=31536000, immutable"),
        None => Response::text(404, "No disc here has this file."),
    };
    response.what = None;
    site.desk.disc_answered(peer, &name, response.status);
    response
}

/// A name from the network as it may stand in an event: short, printable.
fn shown(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_graphic()).take(100).collect()
}

fn mac_of(request: &Request) -> Option<MacAddr> {
    query_value(&request.query, "mac")?
        .parse()
        .ok()
        .filter(MacAddr::is_unicast)
}

fn script(site: &Site, request: &Request, peer: IpAddr) -> Response {
    let Some(mac) = mac_of(request) else {
        return Response::text(400, "The URL needs ?mac=<MAC address with hyphens>.").about("script");
    };
    document(site.desk.script(mac, peer), "script", mac)
}

fn manifest(site: &Site, request: &Request, peer: IpAddr) -> Response {
    let nonce = query_value(&request.query, "nonce").and_then(|text| parse_nonce(&text));
    let (Some(mac), Some(nonce)) = (mac_of(request), nonce) else {
        return Response::text(
            400,
            "The URL needs ?mac=<MAC address with hyphens>&nonce=<32 hexadecimal digits>.",
        )
        .about("manifest");
    };
    document(site.desk.manifest(mac, nonce, peer), "manifest", mac)
}

fn installer(site: &Site, path: &str, peer: IpAddr) -> Response {
    let rest = path.strip_prefix(INSTALLER).unwrap_or_default();
    let (token, what) = rest.split_once('/').unwrap_or((rest, ""));
    let (reply, mac) = site.desk.installer(token, what, peer);
    let mut response = answer(reply);
    response.mac = mac;
    response.about(&format!("installer {}", shown(what)))
}

fn parse_nonce(text: &str) -> Option<[u8; 16]> {
    let mut nonce = [0; 16];
    if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (byte, pair) in nonce.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(nonce)
}

fn document(reply: BootReply, what: &str, mac: MacAddr) -> Response {
    let mut response = answer(reply);
    response.mac = Some(mac);
    response.about(what)
}

fn answer(reply: BootReply) -> Response {
    match reply {
        BootReply::Bytes { content_type, body } => Response {
            status: 200,
            // A script or manifest holds a one-time token: no cache may keep it.
            headers: format!("Content-Type: {content_type}\r\nCache-Control: no-store\r\n"),
            body: Body::Bytes(body),
            what: None,
            mac: None,
            close: false,
        },
        BootReply::Refused { status, text } => Response::text(status, &text),
    }
}

/// Longest report that is read. Loaders write some sentences.
const LONGEST_REPORT: usize = 4 << 10;

fn report(site: &Site, request: &Request, peer: IpAddr) -> Response {
    if request.body.len() > LONGEST_REPORT {
        return Response::text(413, "A boot report is shorter.");
    }
    match postcard::from_bytes::<BootReport>(&request.body) {
        Ok(report) => {
            site.desk.report(report, peer);
            let mut done = Response::text(204, "");
            done.headers.clear();
            done.body = Body::Bytes(Bytes::new());
            done
        }
        Err(_) => Response::text(400, "The body is not a boot report of this version."),
    }
}

fn not_allowed(allowed: &str) -> Response {
    let mut response = Response::text(405, "This document does not take that method.");
    let _ = write!(response.headers, "Allow: {allowed}\r\n");
    response
}

/// Port 80 shows nothing else: the page and the API are on 443.
fn redirect(request: &Request, local: Option<SocketAddr>) -> Response {
    let named = request
        .host
        .as_deref()
        .map(host_without_port)
        .filter(|host| host_is_plain(host));
    let host = match (named, local.map(|local| local.ip())) {
        (Some(host), _) => host.to_owned(),
        (None, Some(IpAddr::V6(ip))) => format!("[{ip}]"),
        (None, Some(ip)) => ip.to_string(),
        (None, None) => return Response::text(404, "There is nothing here; the page is on port 443."),
    };
    let path = if request.path.starts_with('/') {
        request.path.as_str()
    } else {
        "/"
    };
    let query = if request.query.is_empty() { "" } else { "?" };
    let mut response = Response::text(308, "The page and the API are served over HTTPS.");
    let _ = write!(
        response.headers,
        "Location: https://{host}{path}{query}{}\r\n",
        request.query
    );
    response
}

fn host_without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // A colon inside brackets belongs to an IPv6 address.
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

fn host_is_plain(host: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']');
    (1..=253).contains(&host.len()) && host.bytes().all(plain)
}

fn file(request: &Request, artifact: Arc<Artifact>, cache: &str) -> Response {
    let modified = http_date(artifact.modified());
    let mut headers = format!(
        "ETag: {}\r\nLast-Modified: {modified}\r\nAccept-Ranges: bytes\r\nCache-Control: {cache}\r\n",
        artifact.etag()
    );
    let what = Some(artifact.name().to_owned());
    let size = artifact.size();
    let answer = |status, headers, body| Response {
        status,
        headers,
        body,
        what,
        mac: None,
        close: false,
    };
    if is_unchanged(request, &artifact, &modified) {
        return answer(304, headers, Body::Bytes(Bytes::new()));
    }
    // EDK2's HTTP boot takes a file without a known extension only with this type (UEFI 2.10 section 24.7.3.1).
    let efi = artifact.name().ends_with(".efi");
    let media = if efi {
        "application/efi"
    } else {
        "application/octet-stream"
    };
    let _ = write!(headers, "Content-Type: {media}\r\n");
    let range_holds = match request.if_range.as_deref() {
        Some(validator) => validator == artifact.etag() || validator == modified,
        None => true,
    };
    let range = request.range.filter(|_| range_holds && request.method == Method::Get);
    match range.map(|range| range.within(size)) {
        None => answer(
            200,
            headers,
            Body::Part {
                artifact,
                from: 0,
                len: size,
            },
        ),
        Some(Some((from, len))) => {
            let _ = write!(headers, "Content-Range: bytes {from}-{}/{size}\r\n", from + len - 1);
            answer(206, headers, Body::Part { artifact, from, len })
        }
        Some(None) => {
            let _ = write!(headers, "Content-Range: bytes */{size}\r\n");
            answer(416, headers, Body::Bytes(Bytes::new()))
        }
    }
}

/// RFC 9110 section 13.2.2: `If-None-Match` decides when present, else `If-Modified-Since`. Dates are compared as text:
/// a client sends back the one it got.
fn is_unchanged(request: &Request, artifact: &Artifact, modified: &str) -> bool {
    match (&request.if_none_match, &request.if_modified_since) {
        (Some(tags), _) => tags.split(',').map(str::trim).any(|tag| {
            // Weak comparison (RFC 9110 section 8.8.3.2).
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == artifact.etag()
        }),
        (None, Some(since)) => since == modified,
        (None, None) => false,
    }
}

/// The status line's words.
pub(crate) fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        204 => "No Content",
        206 => "Partial Content",
        304 => "Not Modified",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        _ => "Other",
    }
}

#[cfg(test)]
#[path = "routes_tests.rs"]
mod tests;
