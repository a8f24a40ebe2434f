//! What one node needs: nothing, a chain of actions, or a refusal in words.

use std::collections::{BTreeMap, BTreeSet};

use rackbar_model::{BurnIn, DiskBus, DiskRef, ImageEntry, Inventory, NodeState, OsSetup, RootTarget};

use super::archive::can_fetch;
use super::chain::{Because, Chain};
use super::disk;
use super::firmware::Firmware;
use super::network::{Pool, Selectors, Wanted, account};
use crate::rules::{Binding, shortfall};
use crate::site::problem::did_you_mean;
use crate::site::{Enrol, EraseDisks, MemoryRole, Role, Site};
use crate::{Action, ActionKind, Again, Change, Facts, Installed, NodeFacts, SetupDigest};

/// What came of looking at a node.
pub(super) enum Decision {
    Unchanged,
    Refused(String),
    Act(Vec<Action>),
}

/// All that is known when a node is looked at.
pub(super) struct Case<'a> {
    pub(super) site: &'a Site,
    pub(super) facts: &'a Facts,
    pub(super) reinstall: bool,
    pub(super) rotate_passwords: bool,
    pub(super) node: &'a NodeFacts,
    pub(super) binding: &'a Binding<'a>,
    pub(super) role_name: &'a str,
    pub(super) role: &'a Role,
    pub(super) selectors: &'a Selectors,
    pub(super) hostname: &'a str,
}

/// What is to be done about the system on disk.
enum Work {
    /// Everything is as wanted, but not proved since.
    Prove,
    /// The system stays; only these steps and the checks are left.
    Finish(Vec<String>),
    /// The system stays and is given these parts of its identity anew; then these steps and the checks.
    Adjust(Vec<String>, Vec<String>),
    /// From an empty disk on, for this reason.
    Install(String),
}

impl Case<'_> {
    pub(super) fn decide(&self, pool: &mut Pool) -> Decision {
        match self.chain(pool) {
            Ok(actions) if actions.is_empty() => Decision::Unchanged,
            Ok(actions) => Decision::Act(actions),
            Err(reason) => Decision::Refused(reason),
        }
    }

    fn chain(&self, pool: &mut Pool) -> Result<Vec<Action>, String> {
        let node = &self.node.node;
        let Some(inventory) = &node.inventory else {
            return Err(
                "it has not been inspected yet: let it boot from the network until it is discovered".to_owned(),
            );
        };
        if node.state == NodeState::Cleaning {
            return Err("it is being erased; plan again when that has ended".to_owned());
        }
        if let Some(machine) = self.binding.machine {
            let missing = shortfall(machine, inventory);
            if !missing.is_empty() {
                let missing = missing.join("; ");
                return Err(format!(
                    "it is not what expected machine {} should be: {missing}",
                    machine.name
                ));
            }
        }
        let firmware = self.firmware(inventory, pool)?;
        match self.role.memory {
            Some(memory) => self.in_memory(memory, firmware),
            None => self.on_disk(inventory, pool, firmware),
        }
    }

    /// The agent must be there, or the BMC must be able to bring it.
    fn agent_can_come(&self) -> Result<(), String> {
        if self.node.node.agent_connected || self.node.bmc {
            return Ok(());
        }
        let advice = match self.node.adopted {
            // Its firmware is sent to its disk, as that of every machine with a system.
            true => "make its BMC reachable, or forget it (`rackbar node forget`) and boot it from the network by hand",
            false => "boot it from the network by hand, or make its BMC reachable, and plan again",
        };
        Err(format!(
            "its agent is not connected and there is no BMC to restart it: {advice}"
        ))
    }

    fn burn_in(&self, chain: &mut Chain<'_>) {
        if self.role.burn_in != BurnIn::default() {
            let reason = format!("role {} exercises the hardware first", self.role_name);
            chain.push(ActionKind::BurnIn(self.role.burn_in), Because::reason(reason));
        }
    }

    fn checks(&self) -> Vec<String> {
        self.role.checks.clone().unwrap_or_default()
    }

    fn verify(&self, chain: &mut Chain<'_>) {
        chain.push(
            ActionKind::Verify { checks: self.checks() },
            Because::reason("a node is ready when its checks pass"),
        );
    }

    fn in_memory(&self, memory: MemoryRole, firmware: Firmware) -> Result<Vec<Action>, String> {
        let node = &self.node.node;
        let rescue = memory == MemoryRole::Rescue;
        let (target, left) = self.rescue_steps(rescue)?;
        // What is on its disk counts for nothing here: it is ready in our agent, and that is what the role wants.
        let stays = node.state == NodeState::Ready && node.agent_connected && left.is_empty();
        if stays && firmware.is_as_wanted() && !self.reinstall {
            return Ok(Vec::new());
        }
        self.agent_can_come()?;
        let mut chain = Chain::new(self.hostname, node.id);
        firmware.push(self, &mut chain, Some("the role runs in our agent"));
        self.burn_in(&mut chain);
        let touched = if left.is_empty() {
            "no disk is touched"
        } else {
            "its disk is touched by the role's steps alone"
        };
        let reason = format!("role {} runs in memory; {touched}", self.role_name);
        chain.push(ActionKind::StayInMemory { rescue }, Because::reason(reason));
        if let Some(target) = target {
            self.steps().push_rescue(&left, target, &mut chain)?;
        }
        self.verify(&mut chain);
        Ok(chain.actions)
    }

    /// The steps of a rescue that were not run as they are now written, and where the system lies that they are for.
    fn rescue_steps(&self, rescue: bool) -> Result<(Option<&RootTarget>, Vec<String>), String> {
        if !rescue || self.role.step.is_empty() {
            return Ok((None, Vec::new()));
        }
        let Some(installed) = &self.node.installed else {
            return Err(format!(
                "role {} has rescue steps, which run in the system that Rackbar installed, and none is known on this \
                 node; leave the steps out to look at its disks only",
                self.role_name
            ));
        };
        let done = if self.reinstall {
            &BTreeMap::new()
        } else {
            &installed.steps
        };
        Ok((Some(&installed.target), self.steps().left(done)?))
    }

    fn on_disk(&self, inventory: &Inventory, pool: &mut Pool, firmware: Firmware) -> Result<Vec<Action>, String> {
        let image = self.image(inventory)?;
        let installed = self.node.installed.as_ref();
        let target = disk::choose(
            &self.role.root,
            &inventory.disks,
            image,
            installed.map(|installed| &installed.target),
        )?;
        let wanted = Wanted {
            site: self.site,
            facts: self.facts,
            role: self.role,
            selectors: self.selectors,
            image,
            hostname: self.hostname,
        };
        let mut setup = wanted.setup(self.node, inventory, pool)?;
        self.repositories(&mut setup, image)?;
        can_fetch(self.facts, image, &setup)?;
        let work = self.work(image, &target, &setup)?;
        let proved = self.node.node.state == NodeState::Ready && !self.node.node.agent_connected;
        if matches!(work, Work::Prove) && proved && firmware.is_as_wanted() {
            return Ok(Vec::new());
        }
        let mut chain = Chain::new(self.hostname, self.node.node.id);
        match work {
            Work::Install(reason) => {
                self.not_retired(image)?;
                self.agent_can_come()?;
                firmware.push(self, &mut chain, Some("the install is done by our agent"));
                self.install(&mut chain, inventory, image, target, setup, &reason)?;
                self.reachable(&mut chain, image);
                self.steps().push(None, &account(self.role, image), &mut chain)?;
            }
            Work::Adjust(differs, left) => {
                self.agent_can_come()?;
                firmware.push(
                    self,
                    &mut chain,
                    Some("what the system was given is changed by our agent"),
                );
                self.adjust(&mut chain, target, setup, &differs);
                self.reachable(&mut chain, image);
                self.steps().push(Some(&left), &account(self.role, image), &mut chain)?;
            }
            Work::Prove => self.stays(&mut chain, target, image, firmware, &[])?,
            Work::Finish(left) => self.stays(&mut chain, target, image, firmware, &left)?,
        }
        self.verify(&mut chain);
        Ok(chain.actions)
    }

    /// The system stays as it is, but for these steps; our agent is there for the firmware's sake alone.
    fn stays(
        &self,
        chain: &mut Chain<'_>,
        target: RootTarget,
        image: &ImageEntry,
        firmware: Firmware,
        left: &[String],
    ) -> Result<(), String> {
        let order = self.node.wrong_boot_order.as_deref();
        let enters = firmware.needs_agent() || order.is_some();
        if enters {
            self.agent_can_come()?;
        }
        firmware.push(self, chain, order.map(|_| "our agent puts the disk first again"));
        if enters || self.node.node.agent_connected {
            self.leave(chain, target, "back to the installed system, which stays as it is");
        }
        self.reachable(chain, image);
        self.steps().push(Some(left), &account(self.role, image), chain)
    }

    fn image(&self, inventory: &Inventory) -> Result<&ImageEntry, String> {
        let Some(os) = &self.role.os else {
            return Err(format!("role {} says neither `os` nor `memory`", self.role_name));
        };
        let image = self.facts.images.get(os).ok_or_else(|| self.no_image(os))?;
        self.is_the_sites(image)?;
        match &inventory.cpu.arch {
            Some(arch) if *arch != image.arch => {
                Err(format!("the image {os} is for {}, the machine is {arch}", image.arch))
            }
            _ => Ok(image),
        }
    }

    /// Why there is no image of a name, and how it is had.
    fn no_image(&self, os: &str) -> String {
        if let Some(source) = self.wanted_source(os) {
            return format!("the catalogue has no image {os}. `rackbar os add FILE --name {os}` adds it{source}");
        }
        let names = || self.facts.images.keys().map(String::as_str);
        let hint = did_you_mean(os, names()).unwrap_or_else(|| {
            let names: Vec<&str> = names().collect();
            if names.is_empty() {
                "the catalogue is empty".to_owned()
            } else {
                format!("it has {}", names.join(", "))
            }
        });
        format!("the catalogue has no image {os}: {hint}. `rackbar os add FILE --name {os}` adds one")
    }

    /// The site file may say which file a name stands for: another one of that name is not installed.
    fn is_the_sites(&self, image: &ImageEntry) -> Result<(), String> {
        let name = &image.name;
        let wanted = self.site.os.get(name).and_then(|wanted| wanted.sha256.as_ref());
        let Some(wanted) = wanted.filter(|wanted| **wanted != image.sha256.to_string()) else {
            return Ok(());
        };
        let source = self.wanted_source(name).unwrap_or_default();
        Err(format!(
            "the catalogue's {name} has the SHA-256 {}, and the site file wants {wanted}. `rackbar os add FILE --name \
             {name}` puts another file in its place{source}; or correct `os.{name}.sha256` in the site file",
            image.sha256
        ))
    }

    /// `, from` where the site file says that it comes from.
    fn wanted_source(&self, os: &str) -> Option<String> {
        let source = self.site.os.get(os)?.source.as_ref();
        Some(source.map(|source| format!(", from {source}")).unwrap_or_default())
    }

    /// A machine that has a retired image keeps it; none gets it.
    fn not_retired(&self, image: &ImageEntry) -> Result<(), String> {
        let Some(instead) = self.facts.retired.get(&image.name) else {
            return Ok(());
        };
        let role = self.role_name;
        let advice = match instead {
            Some(instead) => format!("write `os = \"{instead}\"` there"),
            None => {
                let fits =
                    |other: &&ImageEntry| other.arch == image.arch && !self.facts.retired.contains_key(&other.name);
                let others: Vec<&str> = self
                    .facts
                    .images
                    .values()
                    .filter(fits)
                    .map(|other| other.name.as_str())
                    .collect();
                match others.as_slice() {
                    [] => "the catalogue has no other for this architecture".to_owned(),
                    others => format!("name another there: {}", others.join(", ")),
                }
            }
        };
        Err(format!(
            "role.{role}.os of the site file is {0}, which is retired: {advice}, or let it be taken again \
             (`rackbar os retire {0} --undo`)",
            image.name
        ))
    }

    /// Compares what is on the disk with what is wanted.
    fn work(&self, image: &ImageEntry, target: &RootTarget, setup: &OsSetup) -> Result<Work, String> {
        let Some(installed) = &self.node.installed else {
            return Ok(Work::Install("nothing that we installed is on it".to_owned()));
        };
        if self.reinstall {
            return Ok(Work::Install("it was asked to be installed anew".to_owned()));
        }
        if installed.sha256 != image.sha256 {
            let what = if installed.image == image.name {
                "another version of"
            } else {
                "another image than"
            };
            return Ok(Work::Install(format!(
                "{} is on it, {what} the {} that is wanted",
                installed.image, image.name
            )));
        }
        if installed.target != *target {
            return Ok(Work::Install("the system is to lie on another disk".to_owned()));
        }
        // Whoever wrote it was stopped before it was given its identity: nothing of anybody's is on it yet.
        if installed.setup == SetupDigest::default() {
            return Ok(Work::Install(
                "the system on its disk was never given an identity".to_owned(),
            ));
        }
        let differs = installed.setup.differences(&SetupDigest::of(setup));
        if differs.is_empty() {
            return self.rest(installed);
        }
        let same_account = self.node.node.installed.as_ref();
        let same_account = same_account.is_some_and(|shown| shown.user == account(self.role, image));
        // Where an installer put it, our agent does not know which of its partitions is the root.
        if image.installer.is_none() && SetupDigest::in_place(&differs, same_account) {
            let left = self.steps().left(&installed.steps)?;
            return Ok(Work::Adjust(differs, left));
        }
        let differs = differs.join(", ");
        Err(format!(
            "the installed system was given another identity ({differs}); that is not changed in place: plan with \
             --reinstall, which empties its disk, or put the site file back"
        ))
    }

    /// Gives the system that is there another identity in place of the one it has.
    fn adjust(&self, chain: &mut Chain<'_>, target: RootTarget, setup: OsSetup, differs: &[String]) {
        let had = self
            .node
            .installed
            .as_ref()
            .map_or(&[][..], |installed| &installed.files);
        let gone = had
            .iter()
            .filter(|path| !setup.files.iter().any(|file| file.path == **path));
        let again = Again {
            gone: gone.cloned().collect(),
        };
        let change = |part: &String| Change {
            what: part.clone(),
            observed: Some("as it was given before".to_owned()),
            wanted: "as the site file says now".to_owned(),
        };
        let mut changes: Vec<Change> = differs.iter().map(change).collect();
        changes.extend(again.gone.iter().map(|path| Change {
            what: path.clone(),
            observed: Some("written before".to_owned()),
            wanted: "gone".to_owned(),
        }));
        let kind = ActionKind::Setup {
            target: target.clone(),
            setup: Box::new(OsSetup {
                machine_id: String::new(),
                ..setup
            }),
            enrol: Vec::new(),
            again: Some(again),
        };
        let because = Because {
            reason: "the system stays, with another identity: our agent writes it while the system is not running"
                .to_owned(),
            changes,
            destroys: None,
        };
        chain.push(kind, because);
        self.leave(chain, target, "back to the installed system");
    }

    fn rest(&self, installed: &Installed) -> Result<Work, String> {
        let left = self.steps().left(&installed.steps)?;
        if left.is_empty() && installed.checked.as_ref() == Some(&self.checks()) {
            return Ok(Work::Prove);
        }
        Ok(Work::Finish(left))
    }

    fn install(
        &self,
        chain: &mut Chain<'_>,
        inventory: &Inventory,
        image: &ImageEntry,
        target: RootTarget,
        setup: OsSetup,
        reason: &str,
    ) -> Result<(), String> {
        self.burn_in(chain);
        let disks = self.erased(inventory, &target)?;
        let method = self.role.erase;
        let words = |disks: &[DiskRef]| {
            let found = inventory
                .disks
                .iter()
                .filter(|found| disks.contains(&disk::reference(found)));
            found.map(disk::words).collect::<Vec<_>>().join("; ")
        };
        let all = words(&disks);
        let mut changes = vec![Change {
            what: "disk content".to_owned(),
            observed: None,
            wanted: format!("erased ({})", method.name()),
        }];
        let left = self.left_behind(inventory, &target);
        if !left.is_empty() {
            changes.push(Change {
                what: "the system that is on it now".to_owned(),
                observed: Some(format!("on {}", words(&left))),
                wanted: "erased too: it would boot by the same name and addresses".to_owned(),
            });
        }
        let because = Because {
            reason: format!("the install begins on an empty disk: {reason}"),
            changes,
            destroys: Some(format!("everything on {all}")),
        };
        chain.push(ActionKind::Erase { disks, method }, because);
        let observed = self.node.installed.as_ref().map(|installed| installed.image.clone());
        let mut because = Because {
            reason: format!("role {} ({}): {reason}", self.role_name, self.binding.decided),
            changes: vec![Change {
                what: "operating system".to_owned(),
                observed,
                wanted: image.name.clone(),
            }],
            destroys: Some(format!("everything on {}", words(target.disks()))),
        };
        let enrol = self.enrol();
        if image.installer.is_some() {
            because.changes.extend(identity(&setup, &enrol));
            let kind = ActionKind::Installer {
                target,
                image: image.name.clone(),
                sha256: image.sha256,
                setup: Box::new(setup),
                enrol,
            };
            chain.push(kind, because);
            return Ok(());
        }
        let kind = ActionKind::WriteImage {
            target: target.clone(),
            image: image.name.clone(),
            sha256: image.sha256,
            format: image.format,
            bytes: image.bytes,
        };
        chain.push(kind, because);
        let changes = identity(&setup, &enrol);
        let kind = ActionKind::Setup {
            target: target.clone(),
            setup: Box::new(setup),
            enrol,
            again: None,
        };
        chain.push(
            kind,
            Because {
                reason: "the image is the same for all; this makes it this node".to_owned(),
                changes,
                destroys: None,
            },
        );
        self.leave(chain, target, "into the installed system");
        Ok(())
    }

    /// The tools that the role's nodes enrol at, each once.
    fn enrol(&self) -> Vec<Enrol> {
        let role = self.site.handoff.role.get(self.role_name);
        let tools: BTreeSet<Enrol> = role.iter().flat_map(|role| &role.enrol).copied().collect();
        tools.into_iter().collect()
    }

    /// Disks that are there, on which the system of before lies and the new one will not.
    fn left_behind(&self, inventory: &Inventory, target: &RootTarget) -> Vec<DiskRef> {
        let had = self
            .node
            .installed
            .iter()
            .flat_map(|installed| installed.target.disks());
        let left = had.filter(|had| !target.disks().contains(had));
        let there = left.filter(|had| inventory.disks.iter().any(|disk| disk::reference(disk) == **had));
        there.cloned().collect()
    }

    /// The disks to empty. Each must be told from every other.
    fn erased(&self, inventory: &Inventory, target: &RootTarget) -> Result<Vec<DiskRef>, String> {
        let mut disks = target.disks().to_vec();
        disks.extend(self.left_behind(inventory, target));
        if self.role.erase_disks == EraseDisks::All {
            let fixed =
                |disk: &&rackbar_model::Disk| !disk.removable && !matches!(disk.bus, DiskBus::Usb | DiskBus::Mmc);
            for disk in inventory.disks.iter().filter(fixed) {
                let reference = disk::reference(disk);
                if reference.serial.is_none() && reference.wwn.is_none() && reference.by_path.is_none() {
                    let words = disk::words(disk);
                    return Err(format!(
                        "erase_disks = \"all\": {words} could not be told from another; remove it or erase only the root"
                    ));
                }
                if !disks.contains(&reference) {
                    disks.push(reference);
                }
            }
        }
        Ok(disks)
    }

    fn leave(&self, chain: &mut Chain<'_>, target: RootTarget, reason: &str) {
        let changes = vec![Change {
            what: "first boot device".to_owned(),
            observed: self.node.wrong_boot_order.clone(),
            wanted: "the system's disk".to_owned(),
        }];
        let because = Because {
            reason: "the machine must boot its disk, also when the appliance is off".to_owned(),
            changes,
            destroys: None,
        };
        chain.push(ActionKind::BootOrder { target: target.clone() }, because);
        chain.push(
            ActionKind::Restart {
                way: self.role.restart,
                target,
            },
            Because::reason(reason),
        );
    }

    fn reachable(&self, chain: &mut Chain<'_>, image: &ImageEntry) {
        let kind = ActionKind::Reachable {
            user: account(self.role, image),
        };
        chain.push(
            kind,
            Because::reason("the installed system must answer with the host key it was given"),
        );
    }
}

/// A setup as changes a person can read.
fn identity(setup: &OsSetup, enrol: &[Enrol]) -> Vec<Change> {
    let new = |what: String, wanted: String| Change {
        what,
        observed: None,
        wanted,
    };
    let mut changes = vec![new("host name".to_owned(), setup.hostname.clone())];
    for network in &setup.networks {
        let address = network.addresses.first().map_or("DHCP", String::as_str);
        let vlan = network.vlan.map_or_else(String::new, |vlan| format!(", VLAN {vlan}"));
        let nics: Vec<String> = network.nics.iter().map(ToString::to_string).collect();
        changes.push(new(
            format!("interface {}", network.name),
            format!("{address} on {}{vlan}", nics.join(" + ")),
        ));
    }
    changes.extend(enrol.iter().map(|tool| {
        let wanted = "a one-time secret of this machine's own, made when it is written".to_owned();
        new(format!("enrolment at {}", tool.name()), wanted)
    }));
    changes
}
