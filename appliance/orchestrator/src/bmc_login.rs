//! BMCs that were opened: with an account they were just given, with one they kept, or as they come from their makers.
//!
//! Such a one takes the login that everybody knows and does nothing before its password is another one (DSP0266 section
//! 13.2.6). Where the site wants that, it gets one of its own by the steps of any change: written down, told, proven, and
//! only then is the old one forgotten. It belongs to no machine yet, so it is kept by the BMC's MAC address.

use std::net::IpAddr;

use rackbar_model::{EventKind, MacAddr, NodeId, Severity};
use rackbar_store::{BmcLogin, StoreError, Whose};

use crate::bmc::{BmcDoor, BmcError};
use crate::hands::PASSWORD_LENGTH;
use crate::rack::{ProbeTarget, now};
use crate::{BmcSight, Rack};

impl Rack {
    /// A login at a BMC succeeded, with an account that it was just given.
    pub(crate) fn bmc_opened(&self, address: IpAddr, sight: &BmcSight) {
        self.with(|mind, now| {
            mind.bmc_seen(now, address, sight);
            mind.out.probe.push(ProbeTarget {
                address,
                mac: sight.mac,
                opened: true,
            });
        });
    }

    /// A BMC that was known before its machine was, or came back after that was forgotten, brings its password along.
    /// Gives an account whose new password nobody has recorded as working.
    pub(crate) fn adopt_bmc(&self, node: Option<NodeId>, mac: Option<MacAddr>) -> Option<(NodeId, BmcLogin)> {
        let (node, mac) = (node?, mac?);
        match self.inner.store.adopt_bmc_login(mac, node) {
            Ok(true) => {
                let text = "its BMC is known from before: it has kept the password that was made for it".to_owned();
                let severity = Severity::Info;
                self.tell(Some(node), EventKind::Note { text, severity });
                let login = self.inner.store.bmc_login(node).ok().flatten();
                login.filter(|login| login.pending.is_some()).map(|login| (node, login))
            }
            Ok(false) => None,
            Err(error) => {
                tracing::error!(%node, %error, "the account of its BMC cannot be taken over");
                None
            }
        }
    }
}

/// Gives the BMC at `address`, which wants another password before anything else, one of its own, and logs in with it. When
/// this is interrupted anywhere, one of the two passwords that are kept works.
pub(crate) async fn replace_password(
    rack: &Rack,
    door: &dyn BmcDoor,
    address: IpAddr,
    whose: Whose,
) -> Result<(), BmcError> {
    let store = &rack.inner.store;
    let kept = |error: StoreError| BmcError::Failed(format!("the password of {whose} cannot be kept: {error}"));
    let (user, password) = door.login(address).await?;
    let known = store.bmc_login(whose).map_err(kept)?;
    if !known.is_some_and(|known| known.user == user || known.is_ours()) {
        let told = BmcLogin::told(&user, &password);
        store.save_bmc_login(whose, &told).map_err(kept)?;
    }
    let login = store.begin_bmc_password(whose, PASSWORD_LENGTH).map_err(kept)?;
    let pending = login.pending.as_ref().unwrap_or(&login.current);
    if let Err(error) = door.change_password(address, &login.user, pending).await {
        if error.is_no() && door.verify_login(address, &login.user, &login.current).await.is_ok() {
            store.drop_bmc_password(whose, now()).map_err(kept)?;
        }
        return Err(error);
    }
    door.verify_login(address, &login.user, pending).await?;
    store.prove_bmc_password(whose, now()).map_err(kept)?;
    Ok(())
}

/// Ends a change that was interrupted after the BMC took the new password: the account was a BMC's that is this node's now.
pub(crate) async fn end_change(
    rack: &Rack,
    door: &dyn BmcDoor,
    address: IpAddr,
    node: NodeId,
    login: BmcLogin,
) -> Result<(), BmcError> {
    let Some(pending) = &login.pending else { return Ok(()) };
    door.verify_login(address, &login.user, pending).await?;
    let kept = |error: StoreError| BmcError::Failed(format!("its BMC's password cannot be kept: {error}"));
    rack.inner.store.prove_bmc_password(node, now()).map(drop).map_err(kept)
}
