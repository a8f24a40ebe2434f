//! Where our own services serve: what whoever runs them says, for who needs them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Mutex;

use rackbar_model::Severity;
use rackbar_plan::{OwnService, ServiceSeen};

use crate::Rack;
use crate::rack::locked;

/// Our addresses at which each service serves.
pub(crate) type Serving = Mutex<BTreeMap<OwnService, BTreeSet<IpAddr>>>;

impl Rack {
    /// Says at which of our addresses a service serves from now on; at none when it does not run.
    pub fn set_serving(&self, service: OwnService, at: impl IntoIterator<Item = IpAddr>) {
        let at: BTreeSet<IpAddr> = at.into_iter().collect();
        locked(&self.inner.serving).insert(service, at);
    }

    /// Whether a service of ours serves at an address, and if not why: it must listen there, and be well by its own word.
    pub fn serving(&self, service: OwnService, address: IpAddr) -> ServiceSeen {
        let listens = locked(&self.inner.serving)
            .get(&service)
            .is_some_and(|at| at.contains(&address));
        let mut told = self.services().into_iter();
        let status = told.find(|status| status.name == service.name());
        let says = match status {
            Some(status) if status.severity != Severity::Info => format!("not serving: {}", status.state),
            _ if listens => {
                return ServiceSeen {
                    serves: true,
                    says: "serving".to_owned(),
                };
            }
            Some(_) => format!("not serving at {address}"),
            None => "not running".to_owned(),
        };
        ServiceSeen { serves: false, says }
    }
}
