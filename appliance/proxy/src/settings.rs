//! What the operator decides.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use ipnet::IpNet;
use rackbar_outward::Parent;
use serde::{Deserialize, Serialize};

use crate::rules::destination::Destinations;
use crate::rules::target::Url;

/// Whether origins are asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Yes.
    #[default]
    Online,
    /// No: what is stored is served however old it is, and a miss is a 504 that names what to pin.
    Offline,
    /// Yes, and what is served is pinned.
    Recording,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Online => "online",
            Self::Offline => "offline",
            Self::Recording => "recording",
        })
    }
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "online" => Ok(Self::Online),
            "offline" => Ok(Self::Offline),
            "recording" => Ok(Self::Recording),
            _ => Err(format!("{text:?} is none of online, offline, recording")),
        }
    }
}

/// A part of the world that is had from the first of several places that answers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mirror {
    /// Its name in `/mirror/NAME/`.
    pub name: String,
    /// Where it is had, in the order to try.
    pub upstreams: Vec<Url>,
}

/// What is in force.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Settings {
    /// Where clients are served.
    pub listen: Vec<SocketAddr>,
    /// Networks whose machines are served, besides this one; `None` for everybody. Linux takes what comes for one of its
    /// addresses on any interface, so that where it listens says nothing of who can ask.
    pub served: Option<Vec<IpNet>>,
    /// Mirrors.
    pub mirrors: Vec<Mirror>,
    /// Whether origins are asked.
    pub mode: Mode,
    /// Bytes of objects of our own.
    pub budget: u64,
    /// Bytes of memory that stored answers may take, contents aside: the keys and headers of what is stored.
    pub entries_memory: u64,
    /// Where clients may be led.
    pub rule: Destinations,
    /// Certificates (DER) of authorities to trust besides the public ones. Read at the start.
    pub roots: Vec<Vec<u8>>,
    /// The proxy of others through which origins are asked. Read at the start.
    pub parent: Option<Parent>,
    /// How many seconds stale an answer may be when no origin can be reached, where the answer says nothing of it.
    pub stale_if_unreachable: u64,
    /// Connections of clients at most.
    pub connections: usize,
    /// Connections of one client at most: behind one address there may be a builder with many, or a whole network.
    pub connections_each: usize,
    /// From the first byte of a request to the last of its head.
    pub head_within: Duration,
}

impl Settings {
    /// Whether a client is one of those that are served.
    pub(crate) fn serves(&self, client: IpAddr) -> bool {
        let client = client.to_canonical();
        let near = |served: &Vec<IpNet>| served.iter().any(|network| network.contains(&client));
        client.is_loopback() || self.served.as_ref().is_none_or(near)
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            served: None,
            mirrors: Vec::new(),
            mode: Mode::Online,
            budget: 8 << 30,
            entries_memory: 256 << 20,
            rule: Destinations::default(),
            roots: Vec::new(),
            parent: None,
            stale_if_unreachable: 7 * 24 * 3600,
            connections: 2048,
            connections_each: 512,
            head_within: Duration::from_secs(20),
        }
    }
}

/// The certificates (DER) in a text of PEM blocks; those of authorities to trust besides the public ones.
///
/// # Errors
/// When a block is malformed, or there is none.
pub fn authorities(pem: &str) -> Result<Vec<Vec<u8>>, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    let all = all.map_err(|error| format!("this is no certificate in PEM form: {error}"))?;
    let mut store = rustls::RootCertStore::empty();
    let taken = all.iter().filter(|one| store.add((*one).clone()).is_ok()).count();
    if taken == 0 || taken < all.len() {
        return Err("there is no certificate of an authority in it, or one that cannot be read".into());
    }
    Ok(all.iter().map(|one| one.to_vec()).collect())
}
