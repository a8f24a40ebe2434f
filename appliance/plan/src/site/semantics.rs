//! What the schema cannot say: references, subnets that overlap, names that are taken, things that exclude each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use rackbar_model::CHECKS;

use super::formats::{is_domain, is_hostname, is_name};
use super::problem::{Problems, did_you_mean, known};
use super::tree::Tree;
use super::types::{MemoryRole, Network, Role, Site};
use super::values::{Addresses, Service};
use crate::planner::edges;
use crate::{ActionKind, OwnService};

/// Checks a site that its schema finds sound.
pub(super) fn check(site: &Site, tree: &Tree, services: &BTreeSet<OwnService>, problems: &mut Problems<'_>) {
    let mut checker = Checker {
        site,
        tree,
        services,
        problems,
    };
    checker.systems();
    checker.repositories();
    checker.limits();
    checker.networks();
    for (name, role) in &site.role {
        checker.role(name, role);
    }
    checker.order_of_roles();
    checker.rules();
    checker.machines();
    checker.handoff();
}

pub(super) struct Checker<'a, 'p, 't> {
    pub(super) site: &'a Site,
    tree: &'a Tree,
    services: &'a BTreeSet<OwnService>,
    problems: &'p mut Problems<'t>,
}

impl Checker<'_, '_, '_> {
    /// Whether the file says something there, be it sound or not.
    pub(super) fn is_written(&self, path: &[&str]) -> bool {
        let found = path.iter().try_fold(self.tree, |tree, name| tree.get(name));
        found.is_some()
    }

    pub(super) fn add(&mut self, path: &[&str], message: impl Into<String>, suggestion: Option<String>) {
        let mut field = String::new();
        for part in path {
            match part.parse::<usize>() {
                Ok(index) => field.push_str(&format!("[{index}]")),
                Err(_) if field.is_empty() => field.push_str(part),
                Err(_) => field.push_str(&format!(".{part}")),
            }
        }
        self.problems
            .add(self.tree.place(path), &field, message.into(), suggestion);
    }

    /// True when the file says something at a path, sound or not.
    pub(super) fn written(&self, path: &[&str]) -> bool {
        path.iter().try_fold(self.tree, |tree, name| tree.get(name)).is_some()
    }

    pub(super) fn refers<'n>(
        &mut self,
        path: &[&str],
        what: &str,
        name: &str,
        names: impl Iterator<Item = &'n str> + Clone,
    ) {
        // A table with faults of its own is left out of the site, but it is there.
        if names.clone().any(|other| other == name) || self.written(&[what, name]) {
            return;
        }
        let hint = did_you_mean(name, names.clone()).unwrap_or_else(|| known(names));
        self.add(path, format!("there is no {what} `{name}`"), Some(hint));
    }

    /// Where the site lists its operating systems, a role that names another is a slip of the pen.
    fn systems(&mut self) {
        for name in self.site.os.keys() {
            self.name(&["os", name], name);
        }
        if self.site.os.is_empty() {
            return;
        }
        for (role, os) in self
            .site
            .role
            .iter()
            .filter_map(|(name, role)| Some((name, role.os.as_ref()?)))
        {
            self.refers(&["role", role, "os"], "os", os, self.site.os.keys().map(String::as_str));
        }
    }

    fn limits(&mut self) {
        for (kind, most) in &self.site.limits.kinds {
            let path = ["limits", "kinds", kind];
            if !ActionKind::NAMES.contains(&kind.as_str()) {
                let hint = did_you_mean(kind, ActionKind::NAMES).unwrap_or_else(|| known(ActionKind::NAMES));
                self.add(&path, format!("no action is of the kind `{kind}`"), Some(hint));
            } else if *most == 0 {
                let hint = "write 1 or more, or leave it out".to_owned();
                self.add(&path, "with none at a time no run would ever end", Some(hint));
            }
        }
    }

    fn networks(&mut self) {
        let networks: Vec<(&String, &Network)> = self.site.network.iter().collect();
        for (index, (name, network)) in networks.iter().enumerate() {
            self.name(&["network", name], name);
            for (other_name, other) in networks.iter().take(index) {
                if network.subnet.contains(&other.subnet) || other.subnet.contains(&network.subnet) {
                    let message = format!("{} overlaps {} of network {other_name}", network.subnet, other.subnet);
                    self.add(&["network", name, "subnet"], message, None);
                }
            }
            self.network(name, network);
            for (service, wanted) in services_of(network) {
                self.service(name, service, wanted);
            }
            self.unasked(name, network);
        }
    }

    pub(super) fn name(&mut self, path: &[&str], name: &str) {
        if !is_name(name) {
            self.add(
                path,
                format!("`{name}` is not a name: letters, digits, `.`, `_`, `-`, at most 64"),
                None,
            );
        }
    }

    fn network(&mut self, name: &str, network: &Network) {
        let subnet = network.subnet;
        let barred = edges(subnet);
        if let Some(gateway) = network.gateway {
            if !subnet.contains(&gateway) {
                self.add(
                    &["network", name, "gateway"],
                    format!("{gateway} is not in {subnet}"),
                    None,
                );
            } else if barred.contains(&gateway) {
                self.add(
                    &["network", name, "gateway"],
                    format!("{gateway} is no host's address in {subnet}"),
                    None,
                );
            }
        }
        if network.mtu.is_some_and(|mtu| mtu < 1280 && !subnet.addr().is_ipv4()) {
            self.add(
                &["network", name, "mtu"],
                "IPv6 needs 1280 at least (RFC 8200 section 5)",
                None,
            );
        }
        let Addresses::Range(first, last) = network.addresses else {
            if network.gateway.is_some() {
                let message = "goes to no system: this network's addresses are from DHCP, and so is the gateway";
                let suggestion = "take it out, or give the network a range of static `addresses`".to_owned();
                self.add(&["network", name, "gateway"], message, Some(suggestion));
            }
            return;
        };
        let path = ["network", name, "addresses"];
        for edge in [first, last] {
            if !subnet.contains(&edge) {
                self.add(&path, format!("{edge} is not in {subnet}"), None);
            } else if barred.contains(&edge) {
                self.add(&path, format!("{edge} is no host's address in {subnet}"), None);
            }
        }
        if let Some(gateway) = network.gateway.filter(|gateway| (first..=last).contains(gateway)) {
            self.add(
                &path,
                format!("the range holds the gateway {gateway}"),
                Some("begin behind it".to_owned()),
            );
        }
    }

    /// Only what is another's can be left unasked.
    fn unasked(&mut self, name: &str, network: &Network) {
        for service in &network.unasked {
            let wanted = services_of(network).into_iter().find(|(one, _)| one == service);
            let Some((_, wanted)) = wanted else { continue };
            let what = match wanted {
                Service::External(_) => continue,
                Service::Own => "the appliance's own",
                Service::Off => "off",
            };
            let service = service.name();
            self.add(
                &["network", name, "unasked"],
                format!("`{service}` of this network is {what}: only an external service can be left unasked"),
                Some(format!("take `{service}` out")),
            );
        }
    }

    fn service(&mut self, network: &str, service: OwnService, wanted: &Service) {
        let path = ["network", network, service.name()];
        let list = match wanted {
            Service::Off => return,
            Service::Own if self.services.contains(&service) => return,
            Service::Own => {
                let message = format!(
                    "\"own\" is not possible: this appliance has no {} service yet",
                    service.name()
                );
                let suggestion = "name an external one, or write \"off\"".to_owned();
                return self.add(&path, message, Some(suggestion));
            }
            Service::External(list) => list,
        };
        for entry in list {
            let (sound, meaning) = match service {
                OwnService::Dns => (entry.parse::<IpAddr>().is_ok(), "an IP address"),
                OwnService::Ntp => (is_host(entry), "a host name or an IP address"),
                OwnService::Proxy => (is_url(entry), "a URL such as http://proxy.example.org:3128"),
                OwnService::Syslog => (is_host_port(entry), "host and port, such as 10.10.0.2:514"),
            };
            if !sound {
                let words = ["own", "off"];
                self.add(&path, format!("`{entry}` is not {meaning}"), did_you_mean(entry, words));
            }
        }
        if list.len() > 1 && matches!(service, OwnService::Proxy | OwnService::Syslog) {
            self.add(&path, "only one is possible", None);
        }
    }

    fn role(&mut self, name: &str, role: &Role) {
        let at = ["role", name];
        self.name(&at, name);
        match (
            self.written(&["role", name, "os"]),
            self.written(&["role", name, "memory"]),
        ) {
            (true, true) => self.add(&at, "`os` and `memory` exclude each other", None),
            (false, false) => self.add(&at, "says neither `os` nor `memory`", Some("say which".to_owned())),
            _ => {}
        }
        if role.memory.is_some() {
            let only_disk = [
                "root",
                "erase",
                "erase_disks",
                "restart",
                "network",
                "user",
                "ssh_keys",
                "timezone",
                "file",
                "repositories",
                "packages",
                "step",
            ];
            for field in only_disk {
                let rescued = field == "step" && role.memory == Some(MemoryRole::Rescue);
                if self.written(&["role", name, field]) && !rescued {
                    self.add(
                        &["role", name, field],
                        "is for installed systems; this role runs in memory",
                        None,
                    );
                }
            }
        }
        if role
            .root
            .min_gib
            .zip(role.root.max_gib)
            .is_some_and(|(least, most)| least > most)
        {
            self.add(
                &["role", name, "root"],
                "`min_gib` is more than `max_gib`: no disk can fit",
                None,
            );
        }
        if role.root.mirror && (role.root.serial.is_some() || role.root.wwn.is_some() || role.root.by_path.is_some()) {
            let suggestion = "choose both by size, media, bus or model".to_owned();
            self.add(
                &["role", name, "root"],
                "a mirror needs two disks, but one is named",
                Some(suggestion),
            );
        }
        self.role_networks(name, role);
        self.role_bmc(name, role);
        self.steps(name, role);
        let mut paths = BTreeSet::new();
        for (index, file) in role.file.iter().enumerate() {
            if !paths.insert(&file.path) {
                self.add(
                    &["role", name, "file", &index.to_string(), "path"],
                    "is written twice",
                    None,
                );
            }
        }
        for (index, check) in role.checks.iter().flatten().enumerate() {
            if !CHECKS.contains(&check.as_str()) {
                let message = format!("there is no check `{check}`");
                let meant = did_you_mean(check, CHECKS).or_else(|| Some(known(CHECKS)));
                self.add(&["role", name, "checks", &index.to_string()], message, meant);
            }
        }
    }

    fn role_bmc(&mut self, name: &str, role: &Role) {
        let path = ["role", name, "bmc", "network"];
        if let Some(wanted) = &role.bmc.network {
            self.refers(&path, "network", wanted, self.site.network.keys().map(String::as_str));
            if self
                .site
                .network
                .get(wanted)
                .is_some_and(|network| !network.subnet.addr().is_ipv4())
            {
                self.add(
                    &path,
                    "is an IPv6 network; a BMC is set up in-band with IPv4 only",
                    None,
                );
            }
        }
        // IPMI 2.0 section 22.28.
        if role.bmc.account.as_ref().is_some_and(|account| account.len() > 16) {
            self.add(&["role", name, "bmc", "account"], "has more than 16 characters", None);
        }
    }

    fn role_networks(&mut self, name: &str, role: &Role) {
        let mut names = BTreeSet::new();
        let mut routes: BTreeMap<bool, &str> = BTreeMap::new();
        for (index, wanted) in role.network.iter().enumerate() {
            let index = index.to_string();
            let at = |field: &'static str| ["role", name, "network", &index, field].map(str::to_owned);
            let path = at("network");
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            self.refers(
                &path,
                "network",
                &wanted.network,
                self.site.network.keys().map(String::as_str),
            );
            if !names.insert(&wanted.name) {
                self.add(
                    &["role", name, "network", &index, "name"],
                    "is the name of another interface too",
                    None,
                );
            }
            if wanted.nics.is_empty() {
                self.add(&["role", name, "network", &index, "nics"], "names no NIC", None);
            }
            if wanted.nics.len() > 1 && wanted.bond.is_none() {
                let suggestion = Some("add bond = \"802.3ad\" or \"active-backup\"".to_owned());
                self.add(
                    &["role", name, "network", &index, "nics"],
                    "names several NICs without `bond`",
                    suggestion,
                );
            }
            let Some(network) = self.site.network.get(&wanted.network) else {
                continue;
            };
            if !wanted.default_route && network.addresses == Addresses::Dhcp {
                self.server_s_route(&["role", name, "network", &index, "default_route"], &wanted.network);
            }
            let gateway = network
                .gateway
                .filter(|_| wanted.default_route && network.addresses != Addresses::Dhcp);
            let Some(gateway) = gateway else { continue };
            if let Some(other) = routes.insert(gateway.is_ipv4(), &wanted.name) {
                let message = format!("both {other} and {} would be the default route", wanted.name);
                let suggestion = Some("write default_route = false for one of them".to_owned());
                self.add(&["role", name, "network", &index], message, suggestion);
            }
        }
    }

    /// No set-up of a system says that a route of its DHCP server is not to be taken.
    fn server_s_route(&mut self, path: &[&str], network: &str) {
        let message = format!(
            "cannot be false: addresses of network {network} are from DHCP, and its server says whether there is a default route"
        );
        let suggestion = format!(
            "take it out and let the DHCP server give no router there, or give network {network} a range of static `addresses`"
        );
        self.add(path, message, Some(suggestion));
    }

    fn order_of_roles(&mut self) {
        let names = || self.site.role.keys().map(String::as_str);
        let mut known: Vec<&str> = Vec::new();
        let mut left: Vec<(&String, &Role)> = self.site.role.iter().collect();
        while !left.is_empty() {
            let ready = |role: &Role| {
                role.after
                    .iter()
                    .all(|other| known.contains(&other.as_str()) || !self.site.role.contains_key(other))
            };
            let (go, stay): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, role)| ready(role));
            if go.is_empty() {
                let circle: Vec<&str> = stay.iter().map(|(name, _)| name.as_str()).collect();
                let message = format!("these roles wait for each other: {}", circle.join(", "));
                self.add(
                    &["role", circle.first().copied().unwrap_or_default(), "after"],
                    message,
                    None,
                );
                break;
            }
            known.extend(go.iter().map(|(name, _)| name.as_str()));
            left = stay;
        }
        let site = self.site;
        for (name, role) in &site.role {
            for (index, other) in role.after.iter().enumerate() {
                self.refers(&["role", name, "after", &index.to_string()], "role", other, names());
            }
        }
    }

    fn rules(&mut self) {
        let site = self.site;
        let mut names = BTreeSet::new();
        for (index, rule) in site.rule.iter().enumerate() {
            let index = index.to_string();
            self.refers(
                &["rule", &index, "role"],
                "role",
                &rule.role,
                site.role.keys().map(String::as_str),
            );
            if !names.insert(&rule.name) {
                self.add(&["rule", &index, "name"], "is the name of another rule too", None);
            }
        }
    }

    fn machines(&mut self) {
        let site = self.site;
        let mut names = BTreeSet::new();
        let mut witnesses: BTreeMap<(&str, String), &str> = BTreeMap::new();
        for (index, machine) in site.machine.iter().enumerate() {
            let index = index.to_string();
            if let Some(role) = &machine.role {
                self.refers(
                    &["machine", &index, "role"],
                    "role",
                    role,
                    site.role.keys().map(String::as_str),
                );
            }
            if !names.insert(machine.name.to_lowercase()) {
                self.add(&["machine", &index, "name"], "is the name of another machine too", None);
            }
            let given = [
                ("serial", &machine.serial),
                ("mac", &machine.mac),
                ("bmc_mac", &machine.bmc_mac),
            ];
            if given.iter().all(|(_, value)| value.is_none()) {
                let suggestion = Some("give `serial`, `mac` or `bmc_mac`".to_owned());
                self.add(&["machine", &index], "could be any machine", suggestion);
            }
            for (field, value) in given {
                let Some(value) = value else { continue };
                if let Some(other) = witnesses.insert((field, value.to_lowercase()), &machine.name) {
                    self.add(
                        &["machine", &index, field],
                        format!("is that of machine {other} too"),
                        None,
                    );
                }
            }
        }
    }
}

const fn services_of(network: &Network) -> [(OwnService, &Service); 4] {
    [
        (OwnService::Dns, &network.dns),
        (OwnService::Ntp, &network.ntp),
        (OwnService::Proxy, &network.proxy),
        (OwnService::Syslog, &network.syslog),
    ]
}

fn is_host(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok() || is_domain(text) || is_hostname(text)
}

fn is_host_port(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let host = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    port.parse::<u16>().is_ok_and(|port| port > 0) && is_host(host)
}

fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")) else {
        return false;
    };
    let authority = rest.trim_end_matches('/');
    // Credentials in a URL end up in logs and process lists.
    !authority.contains(['/', '@', ' ']) && (is_host_port(authority) || is_host(authority))
}
