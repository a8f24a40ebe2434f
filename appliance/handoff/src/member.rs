//! The rack as the renderers see it: machines that have a system, ours or an adopted one, each with its one name, what its role is to
//! other tools, and how it is reached.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use rackbar_model::{Node, NodeState};
use rackbar_plan::Site;
use rackbar_plan::site::{Handoff, HandoffRole};
use serde_json::{Map, Value, json};

/// The rack at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Rack<'a> {
    /// Name of the appliance's site.
    pub name: &'a str,
    /// The site in force.
    pub site: Option<&'a Site>,
    /// Its machines.
    pub nodes: &'a [Arc<Node>],
}

/// A machine with a system: one of ours, or one that was adopted.
#[derive(Clone, Debug)]
pub struct Member<'a> {
    /// The machine.
    pub node: &'a Node,
    /// Its name, without domain. No two have the same.
    pub name: String,
    /// Its name with the site's domain, in lower case; the name alone when the site has none.
    pub fqdn: String,
    /// What its role is to other tools.
    pub role: Option<&'a HandoffRole>,
    /// Names of the networks its role is on.
    pub networks: Vec<&'a str>,
    /// Where it is reached.
    pub address: Option<IpAddr>,
}

impl<'a> Rack<'a> {
    /// The machines that have a system, ours or an adopted one, in order of their names.
    pub fn members(&self) -> Vec<Member<'a>> {
        let mut nodes: Vec<&'a Node> = self.nodes.iter().map(|node| &**node).collect();
        nodes.retain(|node| node.system().is_some());
        nodes.sort_by(|a, b| (&a.name, a.id).cmp(&(&b.name, b.id)));
        let mut taken = BTreeSet::new();
        nodes.into_iter().map(|node| self.member(node, &mut taken)).collect()
    }

    fn member(&self, node: &'a Node, taken: &mut BTreeSet<String>) -> Member<'a> {
        let own = node.system().map(|one| one.hostname).unwrap_or_default();
        let given = host_name(if own.is_empty() { &node.name } else { own });
        let name = match given.is_empty() {
            true => node.id.to_string(),
            false if taken.contains(&given) => format!("{given}-{}", node.id),
            false => given,
        };
        taken.insert(name.clone());
        let domain = self.site.and_then(|site| site.domain.as_deref());
        let fqdn = match domain {
            Some(domain) => format!("{name}.{domain}").to_ascii_lowercase(),
            None => name.to_ascii_lowercase(),
        };
        let of_site = node.role.as_ref().and_then(|role| self.site?.role.get(role));
        let networks = of_site.map(|role| role.network.iter().map(|one| one.network.as_str()).collect());
        Member {
            node,
            name,
            fqdn,
            role: node.role.as_ref().and_then(|role| self.handoff()?.role.get(role)),
            networks: networks.unwrap_or_default(),
            address: node.address,
        }
    }

    /// The member of this name, full name or id. Names are compared without case, as DNS does.
    pub fn find(&self, name: &str) -> Option<Member<'a>> {
        let known = |member: &Member<'_>| {
            member.name.eq_ignore_ascii_case(name)
                || member.fqdn.eq_ignore_ascii_case(name)
                || member.node.name.eq_ignore_ascii_case(name)
                || member.node.id.to_string() == name
        };
        self.members().into_iter().find(known)
    }

    /// What the site says of other tools.
    pub fn handoff(&self) -> Option<&'a Handoff> {
        self.site.map(|site| &site.handoff)
    }
}

impl Member<'_> {
    /// What other tools may decide by, under names of our own.
    pub(crate) fn facts(&self) -> Map<String, Value> {
        let node = self.node;
        let mut facts = Map::new();
        let mut put = |key: &str, value: Value| {
            if !value.is_null() {
                facts.insert(key.into(), value);
            }
        };
        put("id", json!(node.id));
        put("name", json!(node.name));
        put("state", json!(node.state.name()));
        put("role", json!(node.role));
        put("networks", json!(self.networks));
        put("bmc_address", json!(node.bmc_address));
        if let Some(installed) = &node.installed {
            put("image", json!(installed.image));
            put("installed_at", json!(installed.at));
        }
        if let Some(adopted) = &node.adopted {
            put("adopted_system", json!(adopted.system.name));
            put("adopted_at", json!(adopted.at));
        }
        facts
    }

    /// The role's parameters as JSON.
    pub(crate) fn parameters(&self) -> Map<String, Value> {
        let parameters = self.role.map(|role| &role.parameters).into_iter().flatten();
        parameters.map(|(name, value)| (name.clone(), json!(value.0))).collect()
    }

    /// Account that logs in over SSH; `root` when the image names none.
    pub(crate) fn user(&self) -> &str {
        let user = self.node.system().map(|one| one.user);
        user.filter(|user| !user.is_empty()).unwrap_or("root")
    }

    /// Port of SSH where it is another than 22: machines that were adopted may listen elsewhere.
    pub(crate) fn port(&self) -> Option<u16> {
        self.node.system().map(|one| one.port).filter(|port| *port != 22)
    }

    /// The line of `known_hosts` that pins its host key.
    pub(crate) fn known_hosts(&self) -> Option<String> {
        let system = self.node.system()?;
        let words: Vec<_> = system.host_key.split_whitespace().take(2).collect();
        let address = self.address.map(|a| a.to_string()).unwrap_or_default();
        (words.len() == 2).then(|| format!("{} {}", at_port(&address, system.port), words.join(" ")))
    }

    /// True when other tools may count on it.
    pub(crate) fn ready(&self) -> bool {
        matches!(self.node.state, NodeState::Ready | NodeState::HandedOver)
    }
}

/// A host as `known_hosts` writes it (sshd(8)).
pub(crate) fn at_port(address: &str, port: u16) -> String {
    match port {
        22 => address.to_owned(),
        _ => format!("[{address}]:{port}"),
    }
}

/// A host name without what some tool reads as something else: ranges (`[1:3]`), ports (`:22`), patterns.
pub(crate) fn host_name(text: &str) -> String {
    text.chars()
        .filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c))
        .collect()
}
