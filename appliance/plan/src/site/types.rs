//! The site file's words. Documentation here is the reference in `docs/site.md`.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use rackbar_model::{BondMode, BurnIn, DiskBus, DiskIntent, DiskMedia, DiskPick, EraseMethod, RepositoryKind};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::handoff::Handoff;
use super::values::{Addresses, Attribute, Service};
use crate::{OwnService, RestartWay};

fn ssh_keys(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "format": "ssh-key" } })
}

fn packages(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "format": "package" } })
}

fn nics(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "format": "nic" } })
}

/// What a rack is for.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Site {
    /// Version of the file's format: 1.
    #[schemars(range(min = 1, max = 1))]
    pub version: u32,
    /// Name of a shipped profile that this file is laid over: tables are merged, everything else is replaced.
    #[serde(default)]
    pub extends: Option<String>,
    /// DNS domain of the installed systems.
    #[serde(default)]
    #[schemars(extend("format" = "domain"))]
    pub domain: Option<String>,
    /// OpenSSH public keys that may log in to every installed system.
    #[serde(default)]
    #[schemars(schema_with = "ssh_keys")]
    pub ssh_keys: Vec<String>,
    /// Operating systems of this site, by their names in the appliance's catalogue. With any here, roles name only these.
    #[serde(default)]
    pub os: BTreeMap<String, WantedSystem>,
    /// Repositories of your own, of packages and Git, by name.
    #[serde(default)]
    pub repository: BTreeMap<String, Repository>,
    /// Networks, by name.
    #[serde(default)]
    pub network: BTreeMap<String, Network>,
    /// What nodes are for, by name.
    #[serde(default)]
    pub role: BTreeMap<String, Role>,
    /// How much a run does at the same time.
    #[serde(default)]
    pub limits: RunLimits,
    /// Rules that bind discovered nodes to roles; the first that matches decides.
    #[serde(default)]
    pub rule: Vec<Rule>,
    /// Machines that are expected. Optional; an expected machine goes before the rules.
    #[serde(default)]
    pub machine: Vec<Machine>,
    /// The tools that take the rack over, and what each role is to them.
    #[serde(default)]
    pub handoff: Handoff,
}

/// An operating system that the catalogue is to have.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WantedSystem {
    /// SHA-256 of its file. With it, no other file is installed under this name.
    #[serde(default)]
    #[schemars(extend("format" = "sha256"))]
    pub sha256: Option<String>,
    /// Where its file is to be had, for whoever is told that the catalogue has not got it.
    #[serde(default)]
    #[schemars(extend("format" = "source"))]
    pub source: Option<String>,
}

/// A repository of your own, of packages or Git. `rackbar repository lock NAME` records its state; installed systems get that one
/// from the appliance until it is locked again.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Repository {
    /// Its kind: `"deb"`, Debian packages, `"rpm"`, RPM packages, or `"git"`, a Git repository.
    #[serde(default)]
    pub kind: RepositoryKind,
    /// `http` or `https` URL of the folder that has `dists` in it, or `repodata` for RPM packages; a flat suite is below it. Of a
    /// Git repository what `git clone` takes.
    #[schemars(extend("format" = "repository-url"))]
    pub url: String,
    /// Suite, such as `"stable"`: a folder of `dists`. With a slash at its end, such as `"./"`, a flat one: the folder below the URL
    /// that has the signed list itself. Debian packages need one, and RPM packages have none.
    #[serde(default)]
    #[schemars(extend("format" = "suite"))]
    pub suite: Option<String>,
    /// Components; `["main"]` when left out. Debian packages alone have them, and those of flat suites have none.
    #[serde(default)]
    #[schemars(schema_with = "components")]
    pub components: Option<Vec<String>>,
    /// Debian's names of the architectures; `["amd64"]` when left out. Debian packages alone have them.
    #[serde(default)]
    #[schemars(schema_with = "architectures")]
    pub architectures: Option<Vec<String>>,
    /// What of a Git repository is locked: a branch, a tag, a full name such as `"refs/heads/main"`, or a commit's 40 digits; what it
    /// has checked out when it is cloned, when left out. Git repositories alone have it.
    #[serde(default, rename = "ref")]
    #[schemars(extend("format" = "git-ref"))]
    pub reference: Option<String>,
    /// OpenPGP certificates, one of which must have signed, in ASCII armor: what `gpg --armor --export KEY` prints. Packages need them,
    /// and Git repositories have none.
    #[serde(default)]
    #[schemars(extend("format" = "openpgp"))]
    pub keys: Option<String>,
}

impl Repository {
    /// Certificates; empty where there are none.
    pub fn keys(&self) -> &str {
        self.keys.as_deref().unwrap_or_default()
    }

    /// What of a Git repository is locked; `None` of packages.
    pub fn reference(&self) -> Option<&str> {
        let git = self.kind == RepositoryKind::Git;
        git.then(|| self.reference.as_deref().unwrap_or("HEAD"))
    }

    /// Suite; empty where there is none.
    pub fn suite(&self) -> &str {
        self.suite.as_deref().unwrap_or_default()
    }

    /// Whether its suite is a flat one: a folder that has the signed list itself, without `dists`.
    pub fn is_flat(&self) -> bool {
        self.suite().ends_with('/')
    }

    /// Components, the usual one where none is said; none of flat suites and of others than Debian packages.
    pub fn components(&self) -> Vec<String> {
        match self.is_flat() {
            true => Vec::new(),
            false => self.of_debian(self.components.as_ref(), "main"),
        }
    }

    /// Debian's names of the architectures, the usual one where none is said; none of others.
    pub fn architectures(&self) -> Vec<String> {
        self.of_debian(self.architectures.as_ref(), "amd64")
    }

    fn of_debian(&self, said: Option<&Vec<String>>, usual: &str) -> Vec<String> {
        match self.kind {
            RepositoryKind::Deb => said.cloned().unwrap_or_else(|| vec![usual.to_owned()]),
            RepositoryKind::Rpm | RepositoryKind::Git => Vec::new(),
        }
    }
}

fn components(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "format": "component" } })
}

fn architectures(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "items": { "type": "string", "format": "architecture" } })
}

/// How much a run does at the same time. A plan carries them, so a run that was committed keeps those it was planned with.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct RunLimits {
    /// Actions in the whole rack; 512 when not given.
    #[serde(default)]
    #[schemars(range(min = 1, max = 10000))]
    pub at_once: Option<u16>,
    /// Actions of one kind by its name in a plan, such as `"os.write" = 4`. When not given: 16 of `os.write`, 64 of `agent` and
    /// of `agent.restart`, and of the others as many as there is work for.
    #[serde(default)]
    pub kinds: BTreeMap<String, u16>,
}

impl RunLimits {
    /// In words, such as `at most 24 actions, 4 of os.write`; `None` where nothing is limited beyond what is usual.
    pub fn words(&self) -> Option<String> {
        let all = self.at_once.map(|most| match most {
            1 => "at most 1 action".to_owned(),
            most => format!("at most {most} actions"),
        });
        let kinds = self.kinds.iter().map(|(kind, most)| format!("{most} of {kind}"));
        let kinds = kinds.collect::<Vec<_>>().join(", ");
        match (all, kinds.is_empty()) {
            (all, true) => all,
            (Some(all), false) => Some(format!("{all}, {kinds}")),
            (None, false) => Some(format!("at most {kinds}")),
        }
    }
}

/// A network of the rack, as the installed systems see it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Network {
    /// Its subnet, such as `10.10.0.0/24`.
    #[schemars(with = "String", extend("format" = "subnet"))]
    pub subnet: IpNet,
    /// 802.1Q VLAN ID, when nodes carry it tagged on their NIC.
    #[serde(default)]
    #[schemars(range(min = 1, max = 4094))]
    pub vlan: Option<u16>,
    /// Default gateway. Only with static `addresses`: a DHCP server gives its own.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("format" = "ip"))]
    pub gateway: Option<IpAddr>,
    /// `"dhcp"`, or a range of static addresses to give out, such as `"10.10.0.50-10.10.0.99"`. A node keeps its address.
    #[serde(default)]
    pub addresses: Addresses,
    /// MTU in bytes.
    #[serde(default)]
    #[schemars(range(min = 576, max = 9216))]
    pub mtu: Option<u16>,
    /// DNS servers: addresses, `"own"` or `"off"`.
    #[serde(default)]
    pub dns: Service,
    /// NTP servers: names or addresses, `"own"` or `"off"`.
    #[serde(default)]
    pub ntp: Service,
    /// HTTP proxy for packages: a URL, `"own"` or `"off"`.
    #[serde(default)]
    pub proxy: Service,
    /// Syslog server over UDP: `host:port`, `"own"` or `"off"`.
    #[serde(default)]
    pub syslog: Service,
    /// External services of this network that the appliance does not ask itself, because something on the way lets the
    /// systems through and not it. The checks on the systems show them; of a log collector nothing does.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unasked: Vec<OwnService>,
}

/// What a node is for: either `os` or `memory`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Role {
    /// Name of the image in the catalogue that is installed on disk.
    #[serde(default)]
    #[schemars(extend("format" = "image-name"))]
    pub os: Option<String>,
    /// Run in memory, without touching a disk.
    #[serde(default)]
    pub memory: Option<MemoryRole>,
    /// Which disk the system goes to. Without it the machine must have exactly one that fits.
    #[serde(default)]
    pub root: Root,
    /// How disks are emptied before an install.
    #[serde(default)]
    pub erase: EraseMethod,
    /// Which disks are emptied before an install.
    #[serde(default)]
    pub erase_disks: EraseDisks,
    /// Firmware attributes to set through the BMC: names and values as the machine's own registry has them.
    #[serde(default)]
    pub bios: BTreeMap<String, Attribute>,
    /// How the machine leaves our agent for the installed system: through its firmware, or by a jump into the system's own kernel
    /// (kexec), which saves the firmware's minutes. A system that cannot be jumped into is started through the firmware.
    #[serde(default)]
    pub restart: RestartWay,
    /// Network interfaces of the installed system. None: one, with an address by DHCP, on the NIC that the machine booted from.
    #[serde(default)]
    pub network: Vec<RoleNetwork>,
    /// OpenSSH public keys that may log in, besides the site's.
    #[serde(default)]
    #[schemars(schema_with = "ssh_keys")]
    pub ssh_keys: Vec<String>,
    /// Account that the keys are for; the image's own when not given.
    #[serde(default)]
    #[schemars(extend("format" = "user"))]
    pub user: Option<String>,
    /// Time zone, such as `Europe/Berlin`; UTC when not given.
    #[serde(default)]
    #[schemars(extend("format" = "timezone"))]
    pub timezone: Option<String>,
    /// Files to write into the installed system.
    #[serde(default)]
    pub file: Vec<File>,
    /// Names of the site's repositories whose packages the installed system can get with apt, dnf or zypper.
    #[serde(default)]
    pub repositories: Vec<String>,
    /// Packages that the installed system gets, by its own package manager (apt, dnf or zypper), before the role's steps.
    #[serde(default)]
    #[schemars(schema_with = "packages")]
    pub packages: Vec<String>,
    /// Your own steps, run over SSH once the installed system answers.
    #[serde(default)]
    pub step: Vec<Step>,
    /// Ids of the checks that make a node ready; the default set when not given.
    #[serde(default)]
    pub checks: Option<Vec<String>>,
    /// Exercise the hardware before the install: seconds for each part.
    #[serde(default)]
    pub burn_in: BurnIn,
    /// Give each BMC a password of its own first.
    #[serde(default)]
    pub rotate_bmc_password: bool,
    /// Set each BMC up from inside its machine, over KCS. Says nothing: BMCs stay as they are.
    #[serde(default)]
    pub bmc: Bmc,
    /// At most so many nodes of this role are worked on at once.
    #[serde(default)]
    #[schemars(range(min = 1))]
    pub batch: Option<u32>,
    /// Roles whose nodes must all be ready before the first node of this one is begun.
    #[serde(default)]
    pub after: Vec<String>,
}

/// What is set on a BMC from inside its machine. Other accounts of it are left alone.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bmc {
    /// Name of the site's network it is on: `addresses` there says DHCP or a range, `vlan` the tag it sends, if any. Not
    /// given: its network stays as it is.
    pub network: Option<String>,
    /// Name of an administrator's account of Rackbar's own, at most 16 characters. Its password is made for this machine
    /// alone and sealed in the store. An account of that name which is there already with another password is somebody's:
    /// it stays as it is, and this fails.
    #[schemars(extend("format" = "user"))]
    pub account: Option<String>,
}

/// What runs in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MemoryRole {
    /// Our agent: the machine stays under inspection.
    Agent,
    /// Our agent; the role's steps run as root inside the system on the disk, which is not started.
    Rescue,
}

/// Which disks are emptied.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum EraseDisks {
    /// Those the system goes to.
    #[default]
    Root,
    /// All of the machine but removable and USB ones.
    All,
}

/// Which disk, or two, the system goes to. Every field narrows the choice; it must end with one disk. Removable, USB and
/// memory-card disks are only taken when named by `serial`.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Root {
    /// The smallest or largest of those that are left. Disks of the same size stay ambiguous.
    pub pick: Option<DiskPick>,
    /// Kind of medium.
    pub media: Option<DiskMedia>,
    /// Bus.
    pub bus: Option<DiskBus>,
    /// Least size in GiB.
    pub min_gib: Option<u64>,
    /// Greatest size in GiB.
    pub max_gib: Option<u64>,
    /// Serial number.
    pub serial: Option<String>,
    /// World Wide Name.
    pub wwn: Option<String>,
    /// Text that the model must contain, in any case.
    pub model: Option<String>,
    /// Path as udev's by-path writes it.
    pub by_path: Option<String>,
    /// Software RAID1 over two disks: the intent must then leave exactly two.
    pub mirror: bool,
}

impl Root {
    /// The intent without the mirror.
    pub fn intent(&self) -> DiskIntent {
        DiskIntent {
            pick: self.pick,
            media: self.media,
            bus: self.bus,
            min_gib: self.min_gib,
            max_gib: self.max_gib,
            serial: self.serial.clone(),
            wwn: self.wwn.clone(),
            model: self.model.clone(),
            by_path: self.by_path.clone(),
        }
    }

    /// From an intent.
    pub fn new(intent: DiskIntent, mirror: bool) -> Self {
        let DiskIntent {
            pick,
            media,
            bus,
            min_gib,
            max_gib,
            serial,
            wwn,
            model,
            by_path,
        } = intent;
        Self {
            pick,
            media,
            bus,
            min_gib,
            max_gib,
            serial,
            wwn,
            model,
            by_path,
            mirror,
        }
    }
}

/// One network interface of the installed system.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RoleNetwork {
    /// The interface's name in the installed system, by what it is for: at most 15 characters.
    #[schemars(extend("format" = "interface"))]
    pub name: String,
    /// Name of the site's network it is on.
    pub network: String,
    /// The NICs it uses: `"boot"` (the one that netbooted), `"nic0"` (the first by PCI address, then MAC address), a MAC
    /// address, or an expression over `nic`, such as `"nic.speed_mbps >= 25000"`. More than one needs `bond`.
    #[serde(default = "boot_nic")]
    #[schemars(schema_with = "nics")]
    pub nics: Vec<String>,
    /// How several NICs are one.
    #[serde(default)]
    pub bond: Option<BondMode>,
    /// Use the network's gateway as default route. At most one network of a role may. Where addresses are from DHCP its server
    /// says whether there is a default route, and `false` is refused.
    #[serde(default = "yes")]
    pub default_route: bool,
}

fn boot_nic() -> Vec<String> {
    vec!["boot".into()]
}

const fn yes() -> bool {
    true
}

/// A file of the installed system.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// Absolute path.
    #[schemars(extend("format" = "path"))]
    pub path: String,
    /// Content.
    pub content: String,
    /// Permission bits; TOML writes octal as `0o644`.
    #[serde(default = "readable")]
    #[schemars(range(max = 4095))]
    pub mode: u32,
}

const fn readable() -> u32 {
    0o644
}

/// A step of your own, run on the installed system over SSH: a script, or a program of the appliance's store. It may be run
/// again after a failure.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Its name, unique in the role.
    #[schemars(extend("format" = "name"))]
    pub name: String,
    /// The script; its first line says which program runs it, such as `#!/bin/sh`.
    #[serde(default)]
    #[schemars(extend("format" = "script"))]
    pub script: Option<String>,
    /// Name of a static program that `rackbar program add` put in, in place of `script`.
    #[serde(default)]
    #[schemars(extend("format" = "name"))]
    pub program: Option<String>,
    /// What the program is started with, each as it is: no shell reads it. Whoever is on the machine can see it.
    #[serde(default)]
    pub arguments: Vec<String>,
    /// Account it runs as.
    #[serde(default)]
    #[schemars(extend("format" = "user"))]
    pub user: Option<String>,
    /// Names of the role's steps that come first; the one above it when not given.
    #[serde(default)]
    pub needs: Option<Vec<String>>,
    /// Seconds it may take.
    #[serde(default = "ten_minutes")]
    #[schemars(range(min = 1, max = 86_400))]
    pub timeout: u32,
    /// Attempts in all. More than one says that the step may run twice without harm.
    #[serde(default = "once")]
    #[schemars(range(min = 1, max = 10))]
    pub tries: u32,
    /// Exit status that counts as success.
    #[serde(default)]
    pub expect_status: i32,
    /// Text that its output must contain.
    #[serde(default)]
    pub expect_output: Option<String>,
}

const fn ten_minutes() -> u32 {
    600
}

const fn once() -> u32 {
    1
}

/// Binds nodes to a role.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, one line in your own words.
    #[schemars(extend("format" = "label"))]
    pub name: String,
    /// Expression over the node; it matches where this is true.
    #[schemars(extend("format" = "expression"))]
    pub when: String,
    /// The role.
    pub role: String,
    /// Template of the host name, such as `worker-{{ number }}`; the node's own name when not given.
    #[serde(default)]
    #[schemars(extend("format" = "template"))]
    pub hostname: Option<String>,
}

/// A machine that is expected. Every witness that is given must fit.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// Its host name.
    #[schemars(extend("format" = "hostname"))]
    pub name: String,
    /// Serial number of the system.
    #[serde(default)]
    pub serial: Option<String>,
    /// MAC address of one of its NICs.
    #[serde(default)]
    #[schemars(extend("format" = "mac"))]
    pub mac: Option<String>,
    /// MAC address of its BMC.
    #[serde(default)]
    #[schemars(extend("format" = "mac"))]
    pub bmc_mac: Option<String>,
    /// Role; the rules decide when it is not given.
    #[serde(default)]
    pub role: Option<String>,
    /// What must be in it. A machine that has less is refused.
    #[serde(default)]
    pub expect: Materials,
}

/// Bill of materials.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Materials {
    /// Least memory in GiB, as fitted: the modules' sizes where the firmware tells them.
    pub memory_gib: Option<u64>,
    /// Least number of processor cores.
    pub cores: Option<u16>,
    /// Least number of disks, removable ones not counted.
    pub disks: Option<u16>,
    /// Least number of NICs.
    pub nics: Option<u16>,
    /// Exact product name.
    pub product: Option<String>,
}
