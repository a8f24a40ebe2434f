//! The services that machines use after they have booted: DNS, NTP and the log collector. Each runs on the networks where `rackbar.toml`
//! says `"own"`, or says nothing and the site file does; it is changed while it runs, and its names follow the rack.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;

use rackbar_dns::SiteNames;
use rackbar_model::{ServiceStatus, Severity};
use rackbar_ntp::ClientConfig;
use rackbar_orchestrator::executor::ServedNames;
use rackbar_orchestrator::{Executor, Rack};
use rackbar_plan::OwnService;
use rackbar_services::dns::{self, DnsConfig, DnsHandle};
use rackbar_services::ntp::{self, NtpConfig, NtpHandle, SystemClock};
use rackbar_services::syslog::{self, LogStore, SyslogConfig, SyslogHandle};
use rackbar_services::{Common, StartError};

use super::names::{Known, names};
use super::network::Placed;
use super::services::status;
use crate::config::{Config, Network, Remote, Service};

/// What the machine and others tell us, as far as these services need it.
pub(super) struct Around<'a> {
    pub(super) rack: &'a Rack,
    pub(super) executor: &'a Executor,
    pub(super) placed: &'a [Placed],
    /// Resolvers that DHCP servers named to us.
    pub(super) resolvers: Vec<Ipv4Addr>,
    /// The store is in memory.
    pub(super) volatile: bool,
}

/// The services.
pub(super) struct Local {
    common: Common,
    dns: Option<DnsHandle>,
    ntp: Option<NtpHandle>,
    syslog: Option<SyslogHandle>,
    logs: Option<Arc<LogStore>>,
    wanted: (DnsConfig, NtpConfig, SyslogConfig),
    names: Option<SiteNames>,
    serial: u32,
    /// Says why one does not run.
    troubles: Vec<ServiceStatus>,
}

impl Local {
    /// With the place for logs, when there is one.
    pub(super) fn new(common: Common, logs: Option<Arc<LogStore>>) -> Self {
        Self {
            common,
            dns: None,
            ntp: None,
            syslog: None,
            logs,
            wanted: (DnsConfig::default(), NtpConfig::default(), SyslogConfig::default()),
            names: None,
            serial: 0,
            troubles: Vec::new(),
        }
    }

    /// Puts in force what is wanted now. Cheap when nothing changed; what could not be started is tried again.
    pub(super) fn follow(&mut self, config: &Config, around: &Around<'_>) {
        let site = around.executor.site();
        let site = site.as_deref().map(|one| &one.site);
        let (nodes, leases, given) = (
            around.rack.nodes(),
            around.rack.leases(),
            around.executor.given_addresses(),
        );
        let names = names(&Known {
            config,
            placed: around.placed,
            site,
            nodes: &nodes,
            leases: &leases,
            given: &given,
        });
        let ours = |service| Ours {
            at: addresses(config, site, around.placed, service),
            remotes: remotes(config, site, around.placed, service),
        };
        self.troubles.clear();
        let own = ours(OwnService::Dns);
        around.executor.serves_names(served(&names, &own.at));
        self.dns(dns_config(config, around, &own), names);
        self.ntp(ntp_config(config, &ours(OwnService::Ntp)));
        self.syslog(syslog_config(config, around, &ours(OwnService::Syslog)));
    }

    fn dns(&mut self, config: DnsConfig, names: SiteNames) {
        let renamed = self.names.as_ref() != Some(&names);
        if renamed {
            // Rises also across restarts: a cache in front of us compares it.
            let seconds = status("", String::new(), Severity::Info).since.0 / 1000;
            self.serial = u32::try_from(seconds)
                .unwrap_or(u32::MAX)
                .max(self.serial.wrapping_add(1));
        }
        let zones = || Arc::new(names.zones(self.serial));
        let result = match &self.dns {
            None if config.listen.is_empty() => Ok(()),
            None => dns::start(config.clone(), zones(), self.common.clone()).map(|handle| self.dns = Some(handle)),
            Some(handle) => {
                if renamed {
                    handle.set_zones(zones());
                }
                if config == self.wanted.0 {
                    Ok(())
                } else {
                    handle.reconfigure(config.clone())
                }
            }
        };
        if self.told("dns", result) {
            self.wanted.0 = config;
        }
        self.names = Some(names);
    }

    fn ntp(&mut self, config: NtpConfig) {
        let idle = config.listen.is_empty() && config.client.servers.is_empty() && config.names.is_empty();
        let result = match &self.ntp {
            None if idle => Ok(()),
            None => {
                let clock = Box::new(SystemClock::default());
                ntp::start(config.clone(), clock, self.common.clone()).map(|handle| self.ntp = Some(handle))
            }
            Some(_) if config == self.wanted.1 => Ok(()),
            Some(handle) => handle.reconfigure(config.clone()),
        };
        if self.told("ntp", result) {
            self.wanted.1 = config;
        }
    }

    fn syslog(&mut self, config: SyslogConfig) {
        let result = match (&self.syslog, &self.logs) {
            (None, _) if config.listen.is_empty() => Ok(()),
            (Some(_), _) if config == self.wanted.2 => Ok(()),
            (Some(handle), _) => handle.reconfigure(config.clone()),
            (None, Some(logs)) => syslog::start(config.clone(), logs.clone(), self.common.clone())
                .map(|handle| self.syslog = Some(handle)),
            (None, None) => {
                let words = "logs cannot be kept: their folder could not be opened, which an event says more of";
                self.troubles.push(status("syslog", words.into(), Severity::Error));
                return;
            }
        };
        if self.told("syslog", result) {
            self.wanted.2 = config;
        }
    }

    fn told(&mut self, name: &str, result: Result<(), StartError>) -> bool {
        let Err(error) = result else { return true };
        tracing::error!(service = name, %error, "a service could not be started or changed");
        self.troubles.push(status(name, error.to_string(), Severity::Error));
        false
    }

    /// How each service is doing.
    pub(super) fn statuses(&self) -> Vec<ServiceStatus> {
        let running = [
            self.dns.as_ref().map(DnsHandle::status),
            self.ntp.as_ref().map(NtpHandle::status),
            self.syslog.as_ref().map(SyslogHandle::status),
        ];
        let told = |status: &ServiceStatus| !self.troubles.iter().any(|one| one.name == status.name);
        let running = running.into_iter().flatten().filter(told);
        running.chain(self.troubles.iter().cloned()).collect()
    }

    /// At which of our addresses each service serves.
    pub(super) fn serving(&self) -> [(OwnService, Vec<IpAddr>); 3] {
        let (dns, ntp, syslog) = &self.wanted;
        let at = |runs: bool, listen: &[SocketAddrV4]| -> Vec<IpAddr> {
            let listen = listen.iter().filter(|_| runs);
            listen.map(|one| IpAddr::V4(*one.ip())).collect()
        };
        [
            (OwnService::Dns, at(self.dns.is_some(), &dns.listen)),
            (OwnService::Ntp, at(self.ntp.is_some(), &ntp.listen)),
            (OwnService::Syslog, at(self.syslog.is_some(), &syslog.listen)),
        ]
    }

    /// Stops everything.
    pub(super) fn stop(self) {
        self.dns.into_iter().for_each(DnsHandle::stop);
        self.ntp.into_iter().for_each(NtpHandle::stop);
        self.syslog.into_iter().for_each(SyslogHandle::stop);
    }
}

/// What the checks of installed systems may look up at these addresses of ours.
fn served(names: &SiteNames, own: &[(Ipv4Addr, u8)]) -> ServedNames {
    ServedNames {
        servers: own.iter().map(|(address, _)| IpAddr::V4(*address)).collect(),
        domain: names.domain.to_string().trim_end_matches('.').to_owned(),
        server: names.server.clone(),
        addresses: names.addresses.clone(),
    }
}

/// Where a service is ours.
struct Ours {
    /// Our addresses, with the prefix lengths of the networks they are in.
    at: Vec<(Ipv4Addr, u8)>,
    /// Networks behind relays.
    remotes: Vec<(Ipv4Addr, u8)>,
}

impl Ours {
    /// The networks whose machines are answered.
    fn served(&self) -> Vec<(Ipv4Addr, u8)> {
        self.at.iter().chain(&self.remotes).copied().collect()
    }
}

/// Our addresses on the networks where a service is ours, with their prefix lengths.
pub(super) fn addresses(
    config: &Config,
    site: Option<&rackbar_plan::Site>,
    placed: &[Placed],
    service: OwnService,
) -> Vec<(Ipv4Addr, u8)> {
    let of = |one: &Placed| {
        let (address, prefix) = one.address?;
        let network = config.networks.get(one.network)?;
        // Machines behind a relay ask us at the address by which they reach us.
        let mut remotes = config.remotes.iter().filter(|remote| remote.through == one.network);
        let ours = is_own(network, site, (address, address), service)
            || remotes.any(|remote| is_own(&remote.network, site, (address, remote.subnet.0), service));
        ours.then_some((address, prefix))
    };
    placed.iter().filter_map(of).collect()
}

/// The networks behind relays where a service is ours.
pub(super) fn remotes(
    config: &Config,
    site: Option<&rackbar_plan::Site>,
    placed: &[Placed],
    service: OwnService,
) -> Vec<(Ipv4Addr, u8)> {
    let of = |remote: &Remote| {
        let (address, _) = placed.iter().find(|one| one.network == remote.through)?.address?;
        is_own(&remote.network, site, (address, remote.subnet.0), service).then_some(remote.subnet)
    };
    config.remotes.iter().filter_map(of).collect()
}

/// Whether a service at `address` is ours for a network that has `inside` among its addresses.
fn is_own(
    network: &Network,
    site: Option<&rackbar_plan::Site>,
    (address, inside): (Ipv4Addr, Ipv4Addr),
    service: OwnService,
) -> bool {
    match word(network, service) {
        Service::Own => true,
        Service::Off => false,
        Service::External(list) => list.contains(&address),
        // The site file's word counts wherever systems are told that address, also on an uplink.
        Service::Unsaid => site.is_some_and(|site| said_by(site, inside, service)),
    }
}

/// The configuration's word for a service.
fn word(network: &Network, service: OwnService) -> &Service {
    match service {
        OwnService::Dns => &network.dns,
        OwnService::Ntp => &network.ntp,
        OwnService::Syslog => &network.syslog,
        OwnService::Proxy => &network.proxy,
    }
}

fn said_by(site: &rackbar_plan::Site, address: Ipv4Addr, service: OwnService) -> bool {
    words_of(site, address, service).any(|said| *said == rackbar_plan::site::Service::Own)
}

/// The site file's words for a service on the networks that an address is in.
fn words_of(
    site: &rackbar_plan::Site,
    address: Ipv4Addr,
    service: OwnService,
) -> impl Iterator<Item = &rackbar_plan::site::Service> {
    let all = site.network.values();
    let here = all.filter(move |network| network.subnet.contains(&IpAddr::V4(address)));
    here.map(move |network| match service {
        OwnService::Dns => &network.dns,
        OwnService::Ntp => &network.ntp,
        OwnService::Syslog => &network.syslog,
        OwnService::Proxy => &network.proxy,
    })
}

fn at(addresses: &[(Ipv4Addr, u8)], port: u16) -> Vec<SocketAddrV4> {
    addresses
        .iter()
        .map(|(address, _)| SocketAddrV4::new(*address, port))
        .collect()
}

fn dns_config(config: &Config, around: &Around<'_>, ours: &Ours) -> DnsConfig {
    let mine = |address: IpAddr| {
        around
            .placed
            .iter()
            .any(|one| one.address.is_some_and(|(own, _)| own == address))
    };
    let learnt = around.resolvers.iter().map(|address| SocketAddr::from((*address, 53)));
    let named = config.names.upstreams.iter().copied();
    let upstreams: Vec<SocketAddr> = if config.names.upstreams.is_empty() {
        learnt.collect()
    } else {
        named.collect()
    };
    DnsConfig {
        listen: at(&ours.at, 53),
        served: ours.served(),
        // Asking ourselves would be a loop.
        upstreams: upstreams.into_iter().filter(|one| !mine(one.ip())).collect(),
    }
}

fn ntp_config(config: &Config, ours: &Ours) -> NtpConfig {
    NtpConfig {
        listen: at(&ours.at, 123),
        served: ours.served(),
        client: ClientConfig {
            servers: config.time.servers.clone(),
            local_stratum: config.time.local_stratum,
        },
        names: config.time.names.clone(),
        ..NtpConfig::default()
    }
}

/// Logs kept in memory, where that is all there is.
const IN_MEMORY: u64 = 16 << 20;

fn syslog_config(config: &Config, around: &Around<'_>, ours: &Ours) -> SyslogConfig {
    let most = if around.volatile { IN_MEMORY } else { u64::MAX };
    SyslogConfig {
        listen: at(&ours.at, 514),
        served: ours.served(),
        per_second: config.log.per_second,
        bytes: config.log.bytes.min(most),
    }
}

/// What DHCP tells clients of a service on a network with `inside` among its addresses: our address there, `own`, those of
/// others, or nothing. Where the configuration does not say it, the site file does, as for who serves there.
pub(super) fn told(
    network: &Network,
    site: Option<&rackbar_plan::Site>,
    (own, inside): (Ipv4Addr, Ipv4Addr),
    service: OwnService,
) -> Vec<Ipv4Addr> {
    match word(network, service) {
        Service::Own => vec![own],
        Service::External(list) => list.clone(),
        Service::Off => Vec::new(),
        Service::Unsaid if site.is_some_and(|site| said_by(site, inside, service)) => vec![own],
        Service::Unsaid => {
            // DHCP can tell addresses alone: names are for systems that are installed.
            let others = site.into_iter().flat_map(|site| words_of(site, inside, service));
            let lists = others.filter_map(|said| match said {
                rackbar_plan::site::Service::External(list) => Some(list),
                _ => None,
            });
            lists.flatten().filter_map(|text| text.parse().ok()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed() -> Vec<Placed> {
        vec![Placed {
            network: 0,
            link: None,
            address: Some(([10, 10, 0, 1].into(), 24)),
            trouble: None,
        }]
    }

    fn ours(network: &str, site: &str) -> usize {
        let text = format!("{}{network}", crate::config::DEFAULT);
        let config = crate::config::check(&text, &crate::config::no_files).unwrap();
        let services = std::collections::BTreeSet::from([OwnService::Dns]);
        let site = rackbar_plan::Site::parse_for(site, &services).unwrap();
        addresses(&config, Some(&site), &placed(), OwnService::Dns).len()
    }

    #[test]
    fn a_service_is_ours_where_the_configuration_or_else_the_site_says_so() {
        let own = "version = 1\n[network.rack]\nsubnet = \"10.10.0.0/24\"\ndns = \"own\"\n";
        let elsewhere = "version = 1\n[network.rack]\nsubnet = \"10.11.0.0/24\"\ndns = \"own\"\n";
        assert_eq!(
            (ours("", "version = 1\n"), ours("", own), ours("", elsewhere)),
            (0, 1, 0)
        );
        assert_eq!(ours("dns = \"own\"\n", "version = 1\n"), 1);
        assert_eq!(ours("dns = \"off\"\n", own), 0);
        assert_eq!(ours("dns = [\"10.10.0.9\"]\n", own), 0);
    }
}
