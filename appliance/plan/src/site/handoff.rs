//! The site file's words about the tools that take the rack over: where their servers are, and what each role is to them.
//! The planner does not read them; `rackbar-handoff` does.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::semantics::Checker;
use super::values::Attribute;

/// The tools that take the rack over.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Handoff {
    /// Puppet.
    pub puppet: Option<PuppetServer>,
    /// Salt.
    pub salt: Option<SaltMaster>,
    /// Chef.
    pub chef: Option<ChefServer>,
    /// A Consul-compatible service registry.
    pub consul: Option<Consul>,
    /// Ceph, as cephadm sets it up.
    pub ceph: Option<Ceph>,
    /// What the nodes of a role are to these tools, by the role's name.
    pub role: BTreeMap<String, HandoffRole>,
}

/// A Puppet server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PuppetServer {
    /// Its host name, as its certificate has it.
    pub server: String,
    /// Environment of nodes whose role names none.
    #[serde(default)]
    pub environment: Option<String>,
    /// Where the agent on the nodes has its configuration; Debian's own package has it in `/etc/puppet`.
    #[serde(default = "puppet_confdir")]
    #[schemars(extend("format" = "path"))]
    pub confdir: String,
}

fn puppet_confdir() -> String {
    "/etc/puppetlabs/puppet".into()
}

/// A Salt master.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SaltMaster {
    /// Its host name or address.
    pub master: String,
    /// Fingerprint of its public key, as `salt-key -F master` prints it, so that minions trust no other.
    #[serde(default)]
    pub fingerprint: Option<String>,
}

/// A Chef server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChefServer {
    /// URL of its organisation, such as `https://chef.example/organizations/rack`.
    pub url: String,
    /// Policy group of nodes whose role names none.
    #[serde(default)]
    pub policy_group: Option<String>,
}

/// A Consul-compatible registry (HTTP API version 1).
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Consul {
    /// Its URL, such as `https://consul.example:8501`.
    pub url: String,
    /// Datacentre to register in; the registry's own when not given.
    #[serde(default)]
    pub datacenter: Option<String>,
    /// Certificates (PEM) of the authorities its own is checked against; the public ones when not given.
    #[serde(default)]
    pub authority: Vec<String>,
}

/// A Ceph cluster.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ceph {
    /// Name of the network that clients and monitors use.
    pub public_network: Option<String>,
    /// Name of the network that OSDs copy data on.
    pub cluster_network: Option<String>,
}

/// What the nodes of one role are to other tools.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HandoffRole {
    /// Tools its nodes enrol at: `puppet`, `salt`, `chef`. The installation makes a one-time secret of the machine's own for
    /// each, and writes it with the tool's configuration into the installed system.
    pub enrol: Vec<Enrol>,
    /// Classes Puppet gives its nodes.
    pub puppet_classes: Vec<String>,
    /// Puppet environment of its nodes.
    pub puppet_environment: Option<String>,
    /// Parameters for Puppet, pillar for Salt, attributes for Chef, by name.
    pub parameters: BTreeMap<String, Attribute>,
    /// Name of its Chef policy; the role's name when not given.
    pub chef_policy: Option<String>,
    /// Chef policy group of its nodes.
    pub chef_policy_group: Option<String>,
    /// Kubespray groups its nodes are in.
    pub kubernetes: Vec<KubernetesGroup>,
    /// Ceph daemons that run on its nodes.
    pub ceph: Vec<CephDaemon>,
    /// What its nodes are to Packstack.
    pub packstack: Vec<PackstackHost>,
    /// Services to register at Consul for each ready node: their port, by name.
    pub services: BTreeMap<String, u16>,
}

/// A tool with secrets of its own.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Enrol {
    /// A token in the certificate request.
    Puppet,
    /// A minion key, accepted before the minion exists.
    Salt,
    /// A client key, without a validator.
    Chef,
}

impl Enrol {
    /// Every tool.
    pub const ALL: [Self; 3] = [Self::Puppet, Self::Salt, Self::Chef];

    /// The tool as files, API and command line write it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Puppet => "puppet",
            Self::Salt => "salt",
            Self::Chef => "chef",
        }
    }

    /// The tool of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|tool| tool.name() == name)
    }
}

/// A group of a Kubespray inventory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum KubernetesGroup {
    /// API servers, schedulers, controllers.
    KubeControlPlane,
    /// Workers.
    KubeNode,
    /// The cluster's store.
    Etcd,
    /// Route reflectors of Calico.
    CalicoRr,
}

impl KubernetesGroup {
    /// The group's name in the inventory.
    pub const fn name(self) -> &'static str {
        match self {
            Self::KubeControlPlane => "kube_control_plane",
            Self::KubeNode => "kube_node",
            Self::Etcd => "etcd",
            Self::CalicoRr => "calico_rr",
        }
    }
}

/// A Ceph daemon.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CephDaemon {
    /// Monitor.
    Mon,
    /// Manager.
    Mgr,
    /// Metadata server.
    Mds,
    /// Object gateway.
    Rgw,
    /// Object storage, on every disk but the system's.
    Osd,
}

impl CephDaemon {
    /// The daemon's name, which is also its host label.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mon => "mon",
            Self::Mgr => "mgr",
            Self::Mds => "mds",
            Self::Rgw => "rgw",
            Self::Osd => "osd",
        }
    }
}

/// What a node is to Packstack.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PackstackHost {
    /// `CONFIG_CONTROLLER_HOST`: exactly one node.
    Controller,
    /// `CONFIG_COMPUTE_HOSTS`.
    Compute,
    /// `CONFIG_NETWORK_HOSTS`.
    Network,
}

impl Checker<'_, '_, '_> {
    /// Roles, networks and servers that the hand-over names must be there.
    pub(super) fn handoff(&mut self) {
        let (site, handoff) = (self.site, &self.site.handoff);
        for (name, role) in &handoff.role {
            let roles = site.role.keys().map(String::as_str);
            self.refers(&["handoff", "role", name], "role", name, roles);
            for (index, tool) in role.enrol.iter().enumerate() {
                let known = match tool {
                    Enrol::Puppet => handoff.puppet.is_some(),
                    Enrol::Salt => handoff.salt.is_some(),
                    Enrol::Chef => handoff.chef.is_some(),
                };
                if !known {
                    let message = format!("there is no [handoff.{}] that says where its server is", tool.name());
                    self.add(&["handoff", "role", name, "enrol", &index.to_string()], message, None);
                }
            }
            if !role.services.is_empty() && handoff.consul.is_none() {
                let message = "there is no [handoff.consul] that says where to register";
                self.add(&["handoff", "role", name, "services"], message, None);
            }
        }
        let ceph = handoff.ceph.as_ref();
        let of_ceph = [
            ("public_network", ceph.and_then(|ceph| ceph.public_network.as_ref())),
            ("cluster_network", ceph.and_then(|ceph| ceph.cluster_network.as_ref())),
        ];
        for (field, network) in of_ceph {
            if let Some(network) = network {
                let networks = site.network.keys().map(String::as_str);
                self.refers(&["handoff", "ceph", field], "network", network, networks);
            }
        }
        let datacenter = handoff.consul.as_ref().and_then(|consul| consul.datacenter.as_ref());
        let sound =
            |name: &String| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
        if datacenter.is_some_and(|name| !sound(name)) {
            let message = "is no name of a datacentre: letters, digits, - and _";
            self.add(&["handoff", "consul", "datacenter"], message, None);
        }
        for (index, pem) in handoff.consul.iter().flat_map(|consul| &consul.authority).enumerate() {
            if !(pem.contains("-----BEGIN CERTIFICATE-----") && pem.contains("-----END CERTIFICATE-----")) {
                let message = "is no certificate: write it from -----BEGIN CERTIFICATE----- to the end";
                self.add(&["handoff", "consul", "authority", &index.to_string()], message, None);
            }
        }
        self.urls();
    }

    fn urls(&mut self) {
        let handoff = &self.site.handoff;
        let urls = [
            (["handoff", "chef", "url"], handoff.chef.as_ref().map(|chef| &chef.url)),
            (
                ["handoff", "consul", "url"],
                handoff.consul.as_ref().map(|consul| &consul.url),
            ),
        ];
        for (field, url) in urls {
            let well = |url: &String| {
                let rest = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://"));
                let sound = |rest: &str| !rest.is_empty() && !rest.contains(['@', ' ', '?', '#']);
                rest.is_some_and(sound) && url.chars().all(|c| c.is_ascii_graphic())
            };
            if url.is_some_and(|url| !well(url)) {
                let message = "is no URL that begins with https:// or http://, without account, query and fragment";
                self.add(&field, message, None);
            }
        }
    }
}
