//! BMCs that were opened: with an account they were just given, or with one they kept.

use std::net::IpAddr;

use rackbar_model::{EventKind, MacAddr, NodeId, Severity};

use crate::rack::ProbeTarget;
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

    /// A BMC that came back after its machine was forgotten brings its password along.
    pub(crate) fn adopt_bmc(&self, node: Option<NodeId>, mac: Option<MacAddr>) {
        let (Some(node), Some(mac)) = (node, mac) else { return };
        match self.inner.store.adopt_bmc_login(mac, node) {
            Ok(true) => {
                let text = "its BMC is known from before: it has kept the password that was made for it".to_owned();
                let severity = Severity::Info;
                self.tell(Some(node), EventKind::Note { text, severity });
            }
            Ok(false) => {}
            Err(error) => tracing::error!(%node, %error, "the account of its BMC cannot be taken over"),
        }
    }
}
