//! A BMC set up from inside its machine: by our agent over KCS, then proven from here over the network.
//!
//! ```text
//!  account and password written down ─▶ agent: user and network over KCS, read back ─▶ login from here ─▶ account in use
//! ```
//! Each step may be done again: the same password is used until a login with it has succeeded, and the agent changes only
//! what differs. Until then the account that is known stays in use, and accounts of others are never touched, so that
//! nobody is locked out wherever this is interrupted.

use std::net::IpAddr;

use rackbar_messages::{Ask, BmcSetup, BmcStatic, JobReport, Work};
use rackbar_model::{BmcInfo, Lease, LeaseState, Node, NodeId};
use rackbar_plan::{BmcNetwork, Progress};
use rackbar_store::BmcLogin;
use tokio::time::{Duration, Instant};

use super::agent::unexpected;
use super::bmc::failed;
use super::password::LENGTH;
use super::{Appliance, Done, Learned, Task};
use crate::BmcSight;
use crate::bmc::{BmcDoor, BmcError};

/// Time a BMC takes at most until it answers under its new settings: some restart, and then ask for an address.
const APPEARS: Duration = Duration::from_secs(240);

/// Between two looks whether it answers.
const LOOK: Duration = Duration::from_secs(2);

/// Looks between two questions to the agent for the BMC's address, where DHCP gives it.
const ASK_EVERY: u32 = 5;

/// Logins that may be refused: some BMCs take seconds until a new user counts everywhere, and a third wrong one is what
/// many lock an account for.
const LOGINS: u32 = 2;

/// What to do about a BMC that was set up and cannot be reached.
const CABLE: &str = "its settings over KCS are as wanted: look at the BMC's cable, its switch port and VLAN, and whether the \
                     appliance has a way to that network";

impl Appliance {
    pub(super) async fn set_up_bmc(
        &self,
        task: &mut Task,
        node: NodeId,
        network: Option<&BmcNetwork>,
        account: Option<&str>,
    ) -> Done {
        let begun = account.map(|user| self.store.begin_bmc_account(node, user, LENGTH));
        let login = match begun.transpose() {
            Ok(login) => login,
            Err(error) => {
                let reason = format!("the new account cannot be written down, so the BMC is left alone: {error}");
                return Done::failed(reason, "look at the state of the store", true);
            }
        };
        let fixed = network.and_then(|network| network.address);
        let work = Work::BmcSetup(BmcSetup {
            dhcp: network.map(|network| network.address.is_none()),
            address: fixed.map(|fixed| BmcStatic {
                address: fixed.address,
                prefix: fixed.prefix,
                gateway: fixed.gateway,
            }),
            vlan: network.map(|network| network.vlan.unwrap_or(0)),
            user: login
                .as_ref()
                .map(|login| (0, login.user.clone(), login.current.clone())),
        });
        let info = match self.job(task, node, work).await {
            Ok(JobReport::Bmc(info)) => info,
            other => return unexpected(other),
        };
        let proof = Proof {
            appliance: self,
            node,
            info,
            fixed: fixed.map(|fixed| fixed.address.into()),
            login,
        };
        proof.prove(task).await
    }
}

/// The look from outside at what was set from inside.
struct Proof<'a> {
    appliance: &'a Appliance,
    node: NodeId,
    /// The BMC as its host reads it back.
    info: BmcInfo,
    fixed: Option<IpAddr>,
    /// The account it was given; `None` when only its network was set.
    login: Option<BmcLogin>,
}

impl Proof<'_> {
    async fn prove(&self, task: &mut Task) -> Done {
        let Some(door) = self.appliance.rack.inner.door.get().cloned() else {
            return Done::failed("BMCs are not watched yet", "try again in a moment", true);
        };
        let began = Instant::now();
        let (mut refused, mut looks) = (0, 0u32);
        loop {
            let error = match self.try_once(door.as_ref()).await {
                Ok((address, sight)) => return self.proven(address, sight),
                Err(error) => error,
            };
            refused += u32::from(matches!(error, BmcError::Login(_)));
            if refused >= LOGINS || error.is_no() {
                return failed(
                    "the BMC was set up over KCS, and does not let us in over the network",
                    &error,
                );
            }
            if began.elapsed() >= APPEARS {
                let reason = format!("the BMC was set up over KCS, and does not answer over the network: {error}");
                return Done::failed(reason, CABLE, true);
            }
            (task.progress)(Progress {
                doing: format!("waiting until the BMC answers over the network: {error}"),
                ..Progress::default()
            });
            if looks % ASK_EVERY == 0 && self.fixed.is_none() {
                self.ask_agent().await;
            }
            looks = looks.saturating_add(1);
            tokio::select! {
                () = tokio::time::sleep(LOOK.min(self.appliance.reach.look)) => {}
                Ok(_) = task.give_up.wait_for(|give_up| *give_up) => {
                    return Done::failed(format!("given up before the BMC answered over the network: {error}"), CABLE, true);
                }
            }
        }
    }

    /// Where it is now: at its static address; else by the newest lease, by what its host reads, by what it read before.
    fn address(&self) -> Option<IpAddr> {
        if self.fixed.is_some() {
            return self.fixed;
        }
        let rack = &self.appliance.rack;
        let leases = rack.leases();
        let is_its = |lease: &&Lease| lease.state == LeaseState::Bound && Some(lease.mac) == self.info.mac;
        let leased = leases.iter().filter(is_its).max_by_key(|lease| lease.expires);
        let leased = leased.map(|lease| IpAddr::from(lease.address));
        let read = || rack.node_by_id(self.node)?.inventory.as_ref()?.bmc.as_ref()?.address;
        leased.or_else(read).or(self.info.address)
    }

    /// Has the agent look again: it alone sees an address that another DHCP server gave.
    async fn ask_agent(&self) {
        if let Some(link) = self.appliance.rack.agent(self.node) {
            let _ = link.try_ask(Ask::Facts).await;
        }
    }

    /// One login; or, without an account of ours, one look whether it is there.
    async fn try_once(&self, door: &dyn BmcDoor) -> Result<(IpAddr, Option<BmcSight>), BmcError> {
        let nowhere = || BmcError::Silent("it has no address yet".into());
        let address = self.address().ok_or_else(nowhere)?;
        if let Some(mac) = self.info.mac {
            door.introduce(address, mac);
        }
        let sight = match &self.login {
            Some(login) => door.open_with(address, &login.user, &login.current).await?,
            None => match door.look(address).await {
                Ok(sight) => sight,
                // It answers, which is all that was set.
                Err(BmcError::Login(_)) => return Ok((address, None)),
                Err(error) => return Err(error),
            },
        };
        let known = self.appliance.rack.node_by_id(self.node);
        if known.is_some_and(|known| is_another(&known, &self.info, &sight)) {
            let reason = format!("at {address} answers the BMC of another machine; look for two with one address");
            return Err(BmcError::Refused(reason));
        }
        let mac = sight.mac.or(self.info.mac);
        Ok((address, Some(BmcSight { mac, ..sight })))
    }

    fn proven(&self, address: IpAddr, sight: Option<BmcSight>) -> Done {
        let rack = &self.appliance.rack;
        if let Some(login) = &self.login
            && let Err(error) = self.appliance.store.prove_bmc_account(self.node, Appliance::now())
        {
            let reason = format!(
                "a login as {} works, and that cannot be written down: {error}",
                login.user
            );
            return Done::failed(reason, "the account is kept; look at the state of the store", true);
        }
        let Some(sight) = sight else {
            return Done::well(format!("its BMC answers at {address}; it takes none of our logins"));
        };
        rack.bmc_opened(address, &sight);
        match &self.login {
            Some(login) => {
                let summary = format!(
                    "its BMC was set up over KCS, and took our login as {} at {address}",
                    login.user
                );
                Done::well(summary).and(Learned::BmcAccount(login.user.clone()))
            }
            None => Done::well(format!("its BMC was set up over KCS, and answers at {address}")),
        }
    }
}

/// True when what answers tells of itself, and nothing of it is this node's. MAC addresses alone do not decide: a BMC may
/// have one for its own port and one for a shared one.
fn is_another(node: &Node, info: &BmcInfo, sight: &BmcSight) -> bool {
    let serial = node
        .inventory
        .as_ref()
        .and_then(|inventory| inventory.system.serial.as_ref());
    let agrees = sight.mac.is_some() && sight.mac == info.mac
        || sight.serial.is_some() && sight.serial.as_ref() == serial
        || sight.nic_macs.iter().any(|mac| node.macs.contains(mac));
    let tells = sight.mac.is_some() || sight.serial.is_some() || !sight.nic_macs.is_empty();
    tells && !agrees
}
