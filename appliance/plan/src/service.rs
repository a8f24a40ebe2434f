//! A service that installed systems use, as a part of the graph: what is wanted of it, and what was seen of it.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::OwnService;

/// A service that the site's networks tell their systems of, at one place.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct ServiceSpec {
    /// Which.
    pub service: OwnService,
    /// Our address, where it is the appliance's own; `None` where it is another's.
    #[cfg_attr(feature = "utoipa", schema(value_type = Option<String>))]
    pub own: Option<IpAddr>,
    /// Where systems are told to find it: addresses of DNS servers, names or addresses of NTP servers, a proxy's URL, host
    /// and port of a log collector. One that serves is enough.
    pub at: Vec<String>,
    /// Names of the site's networks whose systems are told.
    pub networks: Vec<String>,
    /// The site says that the appliance cannot ask it: something on the way lets systems through and not us.
    #[serde(default, skip_serializing_if = "core::ops::Not::not")]
    pub unasked: bool,
}

impl ServiceSpec {
    /// What is wanted, in words that stay the same while the site and our addresses do.
    pub fn wanted(&self) -> String {
        let at = self.at.join(", ");
        match self.own {
            Some(_) => format!("own at {at}"),
            None if self.unasked => format!("external at {at}, not asked from here"),
            None => format!("external at {at}"),
        }
    }

    /// What systems do with it, as the beginning of a sentence.
    pub fn used(&self) -> String {
        let networks = match self.networks.as_slice() {
            [one] => format!("network {one}"),
            many => format!("networks {}", many.join(", ")),
        };
        let at = self.at.join(", ");
        let what = match self.service {
            OwnService::Dns => format!("ask {at} for names"),
            OwnService::Ntp => format!("take their time from {at}"),
            OwnService::Proxy => format!("fetch packages through {at}"),
            OwnService::Syslog => format!("send their logs to {at}"),
        };
        let whose = if self.own.is_some() {
            "the appliance's own"
        } else {
            "an external service"
        };
        format!("systems on {networks} {what}, {whose}")
    }
}

/// What was seen of a service at the places that systems are told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ServiceSeen {
    /// It serves, or did when it was last asked.
    pub serves: bool,
    /// What it said, or why it does not serve; without anything that changes by itself, such as counts and times.
    pub says: String,
}
