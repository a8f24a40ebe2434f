//! Is there a BMC? Asked without a password: the Redfish service root, which DSP0266 wants readable by anybody, and the
//! RMCP presence ping.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hyper::Method;
use rackbar_ipmi::client::{Presence, presence, probes};
use serde_json::Value;
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use crate::redfish::http::Http;
use crate::redfish::view;
use crate::tls::Pin;
use crate::{BmcAddress, Fingerprint, Timing};

/// What was found at an address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProbeReport {
    /// The Redfish service root, when there is one.
    pub redfish: Option<RedfishRoot>,
    /// What answered on the RMCP port.
    pub ipmi: Option<IpmiPresence>,
    /// Why Redfish was not found, in words; for the flight recorder.
    pub redfish_reason: Option<String>,
}

impl ProbeReport {
    /// True when something manageable is there.
    pub const fn found(&self) -> bool {
        self.redfish.is_some() || self.ipmi.is_some()
    }

    /// What it speaks, as `EventKind::BmcFound` lists it.
    pub fn speaks(&self) -> Vec<String> {
        let redfish = self.redfish.as_ref().map(|_| "redfish".to_owned());
        redfish
            .into_iter()
            .chain(self.ipmi.map(|_| "ipmi".to_owned()))
            .collect()
    }
}

/// What a service root says without a login.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct RedfishRoot {
    /// Version of the protocol, such as `1.6.0`.
    pub version: Option<String>,
    /// UUID of the service.
    pub uuid: Option<String>,
    /// Maker.
    pub vendor: Option<String>,
    /// Product.
    pub product: Option<String>,
    /// The certificate it showed.
    pub fingerprint: Option<Fingerprint>,
}

impl RedfishRoot {
    fn read(root: &Value) -> Option<Self> {
        // Anything may answer on port 443 with JSON; a service root has one of these.
        let known = ["RedfishVersion", "Systems", "Managers"]
            .iter()
            .any(|key| root.get(key).is_some());
        known.then(|| Self {
            version: view::text(root, "/RedfishVersion"),
            uuid: view::text(root, "/UUID"),
            vendor: view::text(root, "/Vendor"),
            product: view::text(root, "/Product"),
            fingerprint: None,
        })
    }
}

/// What answered on the RMCP port.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct IpmiPresence {
    /// RMCP+ logins are offered; `None` when only the ping was answered.
    pub rmcp_plus: Option<bool>,
    /// An account without name and password exists.
    pub anonymous: bool,
}

/// Looks for a BMC through both interfaces at once.
pub async fn probe(address: BmcAddress, timing: Timing) -> ProbeReport {
    let (redfish, ipmi) = tokio::join!(redfish(address, timing), ipmi(address, timing));
    match redfish {
        Ok(root) => ProbeReport {
            redfish: Some(root),
            ipmi,
            redfish_reason: None,
        },
        Err(reason) => ProbeReport {
            redfish: None,
            ipmi,
            redfish_reason: Some(reason),
        },
    }
}

async fn redfish(address: BmcAddress, timing: Timing) -> Result<RedfishRoot, String> {
    let mut http = Http::new(address, timing, Pin::new(None), Arc::default());
    let reply = http
        .send(&Method::GET, "/redfish/v1/", &[], None)
        .await
        .map_err(|cause| cause.to_string())?;
    let fingerprint = http.pin().known().seen;
    match reply.status {
        200 => RedfishRoot::read(&reply.json)
            .map(|root| RedfishRoot { fingerprint, ..root })
            .ok_or_else(|| "what answered is not a Redfish service root".to_owned()),
        // Against the standard, some firmware wants a login even here; the challenge shows that the path exists.
        401 => Ok(RedfishRoot {
            fingerprint,
            ..RedfishRoot::default()
        }),
        status => Err(format!("GET /redfish/v1/ was answered with {status}")),
    }
}

async fn ipmi(address: BmcAddress, timing: Timing) -> Option<IpmiPresence> {
    let any: SocketAddr = if address.ip.is_ipv4() {
        (Ipv4Addr::UNSPECIFIED, 0).into()
    } else {
        (Ipv6Addr::UNSPECIFIED, 0).into()
    };
    let socket = UdpSocket::bind(any).await.ok()?;
    socket.connect(address.rmcp()).await.ok()?;
    let mut found: Option<IpmiPresence> = None;
    let mut datagram = [0; 512];
    for _ in 0..timing.tries {
        for probe in probes() {
            // A port that is closed shows as an error of the next call; it may open while we try again.
            let _sent = socket.send(&probe).await;
        }
        let until = Instant::now() + timing.repeat;
        loop {
            match timeout_at(until, socket.recv(&mut datagram)).await {
                Ok(Ok(length)) => match datagram.get(..length).and_then(presence) {
                    Some(Presence::Logins(logins)) => {
                        let (rmcp_plus, anonymous) = (Some(logins.rmcp_plus), logins.anonymous);
                        return Some(IpmiPresence { rmcp_plus, anonymous });
                    }
                    Some(Presence::Pong { ipmi: true }) => found = Some(found.unwrap_or_default()),
                    Some(Presence::Pong { ipmi: false }) | None => {}
                },
                // Refused: nobody listens. Wait the round out without spinning.
                Ok(Err(_)) => {
                    tokio::time::sleep_until(until).await;
                    break;
                }
                Err(_) => break,
            }
        }
        if found.is_some() {
            return found;
        }
    }
    found
}
