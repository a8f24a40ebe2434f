//! The way to real BMCs: `rackbar-devices`, with the site's credentials tried in order and the one that works kept.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use rackbar_devices::{Bmc, Cause, Credentials, Error, Profiles, Timing, probe};
use rackbar_model::{PowerAction, PowerState};

use crate::BmcSight;
use crate::bmc::{Answer, BmcDoor, BmcError};
use crate::rack::locked;

/// BMCs that are kept open; the table is emptied beyond that, which costs each one login.
const MAX_OPEN: usize = 4_096;

/// BMCs reached over Redfish and IPMI.
pub struct Devices {
    credentials: Mutex<Vec<Credentials>>,
    profiles: Arc<Profiles>,
    timing: Timing,
    open: Mutex<HashMap<IpAddr, Arc<Bmc>>>,
}

impl Devices {
    /// BMCs that take one of `credentials`.
    pub fn new(credentials: Vec<Credentials>, profiles: Profiles) -> Self {
        Self {
            credentials: Mutex::new(credentials),
            profiles: Arc::new(profiles),
            timing: Timing::default(),
            open: Mutex::default(),
        }
    }

    /// Replaces the credentials; every BMC logs in anew.
    pub fn set_credentials(&self, credentials: Vec<Credentials>) {
        *locked(&self.credentials) = credentials;
        locked(&self.open).clear();
    }

    fn opened(&self, address: IpAddr) -> Option<Arc<Bmc>> {
        locked(&self.open).get(&address).cloned()
    }

    /// The BMC at `address` with a credential it takes, identified.
    async fn identify(&self, address: IpAddr) -> Result<(Arc<Bmc>, rackbar_devices::BmcIdentity), BmcError> {
        if let Some(bmc) = self.opened(address) {
            match bmc.identify().await {
                Ok(identity) => return Ok((bmc, identity)),
                // Another BMC may have got this address, or its password changed: begin again.
                Err(error) => {
                    locked(&self.open).remove(&address);
                    tracing::debug!(%address, %error, "a BMC does not answer as before");
                }
            }
        }
        let credentials = locked(&self.credentials).clone();
        let mut last =
            BmcError::Refused("no credential is configured: add a [[bmc.credential]] to rackbar.toml".into());
        for credential in credentials {
            let bmc = Arc::new(Bmc::new(
                address.into(),
                credential,
                None,
                self.profiles.clone(),
                self.timing,
            ));
            match bmc.identify().await {
                Ok(identity) => {
                    let mut open = locked(&self.open);
                    if open.len() >= MAX_OPEN {
                        open.clear();
                    }
                    open.insert(address, bmc.clone());
                    return Ok((bmc, identity));
                }
                Err(error) => {
                    // Only another login is worth trying with the next credential; anything else would fail again.
                    let refused = matches!(error.cause, Cause::Unauthorized(_));
                    last = error.into();
                    if !refused {
                        break;
                    }
                }
            }
        }
        Err(last)
    }

    async fn known(&self, address: IpAddr) -> Result<Arc<Bmc>, BmcError> {
        match self.opened(address) {
            Some(bmc) => Ok(bmc),
            None => self.identify(address).await.map(|(bmc, _)| bmc),
        }
    }
}

impl From<Error> for BmcError {
    fn from(error: Error) -> Self {
        let text = error.to_string();
        match error.cause {
            Cause::Unreachable(_) | Cause::BackingOff { .. } => Self::Silent(text),
            Cause::Unauthorized(_) | Cause::CertificateChanged { .. } | Cause::Refused { .. } => Self::Refused(text),
            Cause::Unsupported(_) | Cause::Malformed(_) | Cause::NotSeen { .. } => Self::Failed(text),
        }
    }
}

impl BmcDoor for Devices {
    fn look(&self, address: IpAddr) -> Answer<'_, BmcSight> {
        Box::pin(async move {
            let report = probe(address.into(), self.timing).await;
            if !report.found() {
                let reason = report.redfish_reason.unwrap_or_default();
                return Err(BmcError::Silent(format!(
                    "neither Redfish nor IPMI answers at {address}: {reason}"
                )));
            }
            let (_, identity) = self.identify(address).await?;
            Ok(BmcSight {
                speaks: report.speaks(),
                mac: identity.mac,
                serial: identity.system_serial,
                board_serial: None,
                uuid: identity.uuid,
                nic_macs: identity.nic_macs,
                power: identity.power,
            })
        })
    }

    fn power(&self, address: IpAddr) -> Answer<'_, PowerState> {
        Box::pin(async move { Ok(self.known(address).await?.power_state().await?) })
    }

    fn act(&self, address: IpAddr, action: PowerAction) -> Answer<'_, ()> {
        Box::pin(async move { Ok(self.known(address).await?.power(action).await?) })
    }
}
