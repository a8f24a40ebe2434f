//! What is done through a machine's BMC: firmware attributes and the boot order.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rackbar_model::NodeId;

use super::{Appliance, Done, Learned};
use crate::bmc::{BmcDoor, BmcError, bmc_mac};

/// What to do when there is no BMC to ask.
const NO_BMC: &str = "give its BMC an address on a network of role `bmc`, or leave firmware attributes out of its role";

/// Said of a BMC's failure.
pub(super) fn failed(what: &str, error: &BmcError) -> Done {
    let again = matches!(error, BmcError::Silent(_) | BmcError::Failed(_));
    Done::failed(format!("{what}: {error}"), error.advice(), again)
}

impl Appliance {
    /// The way to the node's BMC.
    pub(super) fn door(&self, node: NodeId) -> Result<(Arc<dyn BmcDoor>, IpAddr), Done> {
        let known = self.rack.node_by_id(node);
        let address = known.as_ref().and_then(|node| node.bmc_address);
        let door = self.rack.inner.door.get().cloned();
        let (Some(door), Some(address), Some(known)) = (door, address, known) else {
            return Err(Done::failed("it has no BMC that we know", NO_BMC, true));
        };
        if let Some(mac) = bmc_mac(&known) {
            door.introduce(address, mac);
        }
        Ok((door, address))
    }

    pub(super) async fn stage_bios(&self, node: NodeId, wanted: &BTreeMap<String, String>) -> Done {
        let (door, address) = match self.door(node) {
            Ok(found) => found,
            Err(done) => return done,
        };
        match door.stage_bios(address, wanted).await {
            Ok(sent) if sent.is_empty() => Done::well("firmware attributes are as wanted").unchanged(),
            Ok(sent) => {
                let details = sent.iter().map(|(name, value)| format!("{name} = {value}")).collect();
                let summary = format!("{} firmware attributes wait for the next restart", sent.len());
                Done::well(summary).with_details(details)
            }
            Err(error) => failed("firmware attributes could not be set", &error),
        }
    }

    pub(super) async fn verify_bios(&self, node: NodeId, wanted: &BTreeMap<String, String>) -> Done {
        let (door, address) = match self.door(node) {
            Ok(found) => found,
            Err(done) => return done,
        };
        let seen = match door.bios(address).await {
            Ok(seen) => seen,
            Err(error) => return failed("firmware attributes could not be read", &error),
        };
        let differs = wanted.iter().filter(|(name, value)| seen.get(*name) != Some(*value));
        let differs: Vec<String> = differs
            .map(|(name, value)| match seen.get(name) {
                Some(other) => format!("{name} is {other}, wanted {value}"),
                None => format!("{name} is not there, wanted {value}"),
            })
            .collect();
        let done = if differs.is_empty() {
            Done::well(format!("{} firmware attributes are as wanted", wanted.len()))
        } else {
            // Some firmware takes a second restart, or shows the old values until its own inventory has run.
            let reason = format!("after the restart: {}", differs.join("; "));
            let advice = "look at the firmware's set-up screen: another setting may forbid these values";
            Done::failed(reason, advice, true)
        };
        done.and(Learned::Bios(seen))
    }

    /// Has the BMC boot the disk first from now on. `Ok(false)` where there is none.
    pub(super) async fn boot_first_by_bmc(&self, node: NodeId, uefi: bool) -> Result<bool, String> {
        let Ok((door, address)) = self.door(node) else {
            return Ok(false);
        };
        let done = door.boot_disk_first(address, uefi).await;
        done.map(|()| true).map_err(|error| error.to_string())
    }
}
