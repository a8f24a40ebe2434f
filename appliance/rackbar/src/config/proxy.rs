//! `[proxy]`: the caching proxy and its mirrors.

use ipnet::IpNet;
use rackbar_outward::Parent;
use rackbar_proxy::rules::destination::Destinations;
use rackbar_proxy::rules::target::Url;
use rackbar_proxy::{Mirror, Mode, authorities};
use serde::Deserialize;
use toml::Spanned;

use super::check::Checker;
use super::parent::{Networks, RawLogin};
use super::{Role, Service};

/// Bytes of a megabyte.
const MEGABYTE: u64 = 1_000_000;

/// The section as it is written.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawProxy {
    mode: Option<Spanned<String>>,
    megabytes: Option<Spanned<u64>>,
    #[serde(default)]
    allow_hosts: Vec<Spanned<String>>,
    #[serde(default)]
    ports: Vec<Spanned<u16>>,
    connect_ports: Option<Vec<Spanned<u16>>>,
    #[serde(default)]
    allow_networks: Vec<Spanned<String>>,
    #[serde(default)]
    authority: Vec<Spanned<String>>,
    #[serde(default)]
    mirror: Vec<RawMirror>,
    pub(super) parent: Option<Spanned<String>>,
    pub(super) parent_login: Option<Spanned<RawLogin>>,
    #[serde(default)]
    pub(super) parent_direct: Vec<Spanned<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawMirror {
    name: Spanned<String>,
    upstream: Vec<Spanned<String>>,
}

/// The caching proxy.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Proxy {
    pub(crate) mode: Mode,
    /// Bytes; half of the data partition when nothing is said.
    pub(crate) budget: Option<u64>,
    pub(crate) mirrors: Vec<Mirror>,
    pub(crate) rule: Destinations,
    /// Certificates in DER form.
    pub(crate) roots: Vec<Vec<u8>>,
    /// The proxy of others through which all that leaves goes.
    pub(crate) parent: Option<Parent>,
}

impl Checker<'_> {
    /// Whether we are the proxy of a network. DHCP has no word for other ones: those are the site file's to name.
    pub(super) fn proxy_of(&mut self, raw: Option<&Spanned<toml::Value>>, role: Role) -> Service {
        let said = self.service("network.proxy", raw, role);
        if let (Service::External(_), Some(raw)) = (&said, raw) {
            let instead = "write \"own\" or \"off\"; another proxy is named in the site file";
            self.wrong(
                Some(raw.span()),
                "network.proxy",
                "DHCP tells clients of no proxy",
                instead,
            );
        }
        said
    }

    pub(super) fn proxy(&mut self, raw: &RawProxy, networks: &Networks<'_>) -> Proxy {
        let mode = raw.mode.as_ref().map_or(Mode::Online, |mode| {
            mode.get_ref().parse().unwrap_or_else(|problem: String| {
                self.wrong(Some(mode.span()), "proxy.mode", problem, "\"online\" is usual");
                Mode::Online
            })
        });
        if let Some(one) = raw
            .megabytes
            .as_ref()
            .filter(|one| !(16..=100_000_000).contains(one.get_ref()))
        {
            let problem = "a cache takes 16 to 100000000 megabytes";
            self.wrong(
                Some(one.span()),
                "proxy.megabytes",
                problem,
                "leave it out for half of the data partition",
            );
        }
        let roots = self.roots("proxy.authority", &raw.authority);
        Proxy {
            parent: self.parent(raw, &roots, networks),
            mode,
            budget: raw.megabytes.as_ref().map(|one| one.get_ref().saturating_mul(MEGABYTE)),
            mirrors: self.mirrors(&raw.mirror),
            rule: self.destinations(raw),
            roots,
        }
    }

    fn mirrors(&mut self, raw: &[RawMirror]) -> Vec<Mirror> {
        let mut out: Vec<Mirror> = Vec::new();
        for one in raw {
            let name = one.name.get_ref();
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
            if name.is_empty() || name.len() > 32 || !name.chars().all(plain) || name.starts_with('.') {
                let problem = format!("{name:?} is no name for a mirror");
                let instead = "use up to 32 lower-case letters, digits, '-', '_' and '.'";
                self.wrong(Some(one.name.span()), "proxy.mirror.name", problem, instead);
            }
            if out.iter().any(|other| other.name == *name) {
                let problem = format!("there are two mirrors {name:?}");
                self.wrong(
                    Some(one.name.span()),
                    "proxy.mirror.name",
                    problem,
                    "write all upstreams into one",
                );
            }
            if one.upstream.is_empty() {
                let problem = "a mirror needs at least one upstream";
                self.wrong(Some(one.name.span()), "proxy.mirror.upstream", problem, "");
            }
            let upstreams = one.upstream.iter().filter_map(|text| {
                let url = Url::parse(text.get_ref()).filter(|url| !url.path.contains('?'));
                if url.is_none() {
                    let problem = format!("{:?} is no URL of a folder", text.get_ref());
                    let instead = "such as \"http://deb.example.org/debian\", without a user name and without '?'";
                    self.wrong(Some(text.span()), "proxy.mirror.upstream", problem, instead);
                }
                url
            });
            let upstreams = upstreams.collect();
            out.push(Mirror {
                name: name.clone(),
                upstreams,
            });
        }
        out
    }

    fn destinations(&mut self, raw: &RawProxy) -> Destinations {
        let usual = Destinations::default();
        let ports = |list: &[Spanned<u16>]| list.iter().map(|port| *port.get_ref()).collect::<Vec<_>>();
        for host in &raw.allow_hosts {
            let name = host.get_ref().strip_prefix("*.").unwrap_or(host.get_ref());
            if !super::parts::is_domain(name) || name.chars().any(|c| c.is_ascii_uppercase()) {
                let problem = format!("{:?} is no host in lower case", host.get_ref());
                let instead = "such as \"deb.example.org\" or \"*.debian.org\"";
                self.wrong(Some(host.span()), "proxy.allow_hosts", problem, instead);
            }
        }
        let allowed = raw.allow_networks.iter().filter_map(|text| {
            let net = text.get_ref().parse::<IpNet>().ok();
            if net.is_none() {
                let problem = format!("{:?} is no network", text.get_ref());
                self.wrong(
                    Some(text.span()),
                    "proxy.allow_networks",
                    problem,
                    "such as \"10.20.0.0/16\"",
                );
            }
            net
        });
        Destinations {
            allowed: allowed.collect(),
            hosts: raw.allow_hosts.iter().map(|host| host.get_ref().clone()).collect(),
            ports: ports(&raw.ports),
            connect_ports: raw.connect_ports.as_deref().map_or(usual.connect_ports, ports),
            forbidden: Vec::new(),
        }
    }

    /// Certificates of authorities, in DER form.
    pub(super) fn roots(&mut self, field: &str, raw: &[Spanned<String>]) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        for pem in raw {
            match authorities(pem.get_ref()) {
                Ok(found) => out.extend(found),
                Err(problem) => {
                    let instead = "write the certificate itself, from -----BEGIN CERTIFICATE----- to the end";
                    self.wrong(Some(pem.span()), field, problem, instead);
                }
            }
        }
        out
    }
}
