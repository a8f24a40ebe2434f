//! The services of the appliance as one thing that can be started, given another configuration, watched and stopped.
//!
//! A service that cannot start does not keep the others from serving: its state says why, and it is tried again.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_artifacts::Artifacts;
use rackbar_dhcp::{InterfaceId, Mode, Range, ReservedFor, UnknownClients};
use rackbar_model::{ClientArch, ServiceStatus, Severity, Timestamp};
use rackbar_orchestrator::{self as orchestrator, Desk, DeskOptions, Rack, Settings};
use rackbar_plan::OwnService;
use rackbar_services::capture::{self, CaptureConfig, CaptureHandle, CaptureLink};
use rackbar_services::dhcp::{self, DhcpConfig, DhcpHandle};
use rackbar_services::http::{self, Documents, HttpConfig, HttpHandle, HttpLimits};
use rackbar_services::ra::{self, RaConfig, RaHandle};
use rackbar_services::syslog::LogStore;
use rackbar_services::tftp::{self, TftpConfig, TftpHandle, TftpLimits};
use rackbar_services::{Common, SampleKind, StartError};

use super::boot;
use super::local::{Around, Local, told};
use super::network::Placed;
use super::pools::without_static;
use super::site::Site;
use crate::config::{Config, Dhcp, OUR_PROGRAMS, Remote, Role, Unknown};

/// Ports of the services that firmware does not dictate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    pub(super) http: SocketAddr,
    pub(super) tftp: SocketAddr,
    pub(super) agents: u16,
    /// Of the server for HTTPS boot.
    pub(super) boot_tls: u16,
}

/// The running services.
pub(super) struct Services {
    rack: Rack,
    common: Common,
    artifacts: Arc<Artifacts>,
    desk: Arc<Desk>,
    ports: Ports,
    dhcp: Option<DhcpHandle>,
    tftp: Option<TftpHandle>,
    http: Option<HttpHandle>,
    ra: Option<RaHandle>,
    captures: Option<CaptureHandle>,
    capture: CaptureConfig,
    wanted: (DhcpConfig, RaConfig),
    limits: (HttpLimits, TftpLimits),
    local: Local,
}

impl Services {
    /// Loads the boot files from `folder` and prepares everything; [`Self::apply`] starts it.
    pub(super) fn new(rack: Rack, site: &Site, folder: &Path, ports: Ports, logs: Option<Arc<LogStore>>) -> Self {
        let artifacts = Arc::new(Artifacts::new());
        let (kernel, initrds) = boot::load(&rack, &artifacts, site, folder);
        let options = DeskOptions {
            kernel,
            initrds,
            pin: site.fingerprint(),
            signer: site.signer.clone(),
            agent_port: ports.agents,
            http_port: ports.http.port(),
        };
        let common = Common::new(Arc::new(rack.clone()));
        Self {
            limits: (HttpLimits::default(), TftpLimits::default()),
            local: Local::new(common.clone(), logs),
            common,
            desk: Arc::new(Desk::new(rack.clone(), options)),
            rack,
            artifacts,
            ports,
            dhcp: None,
            tftp: None,
            http: None,
            ra: None,
            captures: None,
            capture: CaptureConfig::default(),
            wanted: (DhcpConfig::default(), RaConfig::default()),
        }
    }

    /// What boot HTTP serves by digest; images join it.
    pub(super) fn artifacts(&self) -> Arc<Artifacts> {
        self.artifacts.clone()
    }

    /// What is served to machines that boot over TLS.
    pub(super) fn documents(&self) -> Documents {
        Documents::new(self.artifacts.clone(), self.desk.clone(), self.common.clone())
    }

    /// What the services share: counters, who is behind an address, who waits.
    pub(super) fn common(&self) -> Common {
        self.common.clone()
    }

    /// Says which networks there are, before anybody acts on them: a run that is taken up after a power cut needs to know
    /// by which address of ours its machine reaches us.
    pub(super) fn introduce(&self, config: &Config, placed: &[Placed]) {
        self.rack.configure(settings(config, placed, self.ports));
        self.common.outside.set(outside(config, placed));
    }

    /// Puts a configuration in force; `site` is the site file's word for what `config` does not say.
    pub(super) fn apply(&mut self, config: &Config, placed: &[Placed], site: Option<&rackbar_plan::Site>) {
        self.introduce(config, placed);
        let ours: Vec<_> = rack_addresses(config, placed).collect();
        boot::serve_site(&self.rack, &self.artifacts, config);
        boot::serve_disc(&self.rack, &self.artifacts, &ours, self.ports.http.port());
        let dhcp = dhcp_config(config, placed, self.ports, site);
        self.wanted = (dhcp.clone(), ra_config(config, placed));
        let ra = self.wanted.1.clone();
        self.capture = capture_config(config, placed, self.ports);
        self.limit(config);
        if let Some(handle) = &self.dhcp {
            let result = handle.reconfigure(dhcp);
            self.told("dhcp", result.err());
        }
        if let Some(handle) = &self.ra {
            let result = handle.reconfigure(&ra);
            self.told("ra", result.err());
        }
        self.start_missing();
    }

    /// How many machines may fetch boot files at a time.
    fn limit(&mut self, config: &Config) {
        let (mut http, mut tftp) = (HttpLimits::default(), TftpLimits::default());
        http.connections = config.boot.http_connections.unwrap_or(http.connections);
        tftp.transfers = config.boot.tftp_transfers.unwrap_or(tftp.transfers);
        let limits = (http, tftp);
        if limits == self.limits {
            return;
        }
        self.limits = limits;
        let http = self.http.as_ref().map(|handle| handle.reconfigure(self.http_config()));
        self.told("http", http.and_then(Result::err));
        let tftp = self.tftp.as_ref().map(|handle| handle.reconfigure(self.tftp_config()));
        self.told("tftp", tftp.and_then(Result::err));
    }

    fn http_config(&self) -> HttpConfig {
        HttpConfig {
            listen: vec![self.ports.http],
            artifacts: self.artifacts.clone(),
            desk: self.desk.clone(),
            limits: self.limits.0,
        }
    }

    fn tftp_config(&self) -> TftpConfig {
        TftpConfig {
            listen: vec![self.ports.tftp],
            artifacts: self.artifacts.clone(),
            names: OUR_PROGRAMS.map(String::from).into(),
            limits: self.limits.1,
        }
    }

    /// Puts DNS and the like in force, whose names and networks follow the rack and the site, and lets DHCP tell of them.
    pub(super) fn follow(&mut self, config: &Config, around: &Around<'_>) {
        self.local.follow(config, around);
        let site = around.executor.site();
        let dhcp = dhcp_config(config, around.placed, self.ports, site.as_deref().map(|one| &one.site));
        if dhcp != self.wanted.0 {
            self.wanted.0 = dhcp.clone();
            let result = self.dhcp.as_ref().map(|handle| handle.reconfigure(dhcp));
            self.told("dhcp", result.and_then(Result::err));
        }
    }

    /// Starts what is not running.
    pub(super) fn start_missing(&mut self) {
        let common = self.common.clone();
        if self.http.is_none() {
            self.http = self.started("http", http::start(self.http_config(), common.clone()));
        }
        if self.tftp.is_none() {
            self.tftp = self.started("tftp", tftp::start(self.tftp_config(), common.clone()));
        }
        if self.ra.is_none() && !self.wanted.1.interfaces.is_empty() {
            self.ra = self.started("ra", ra::start(&self.wanted.1, common.clone()));
        }
        match &self.captures {
            // What could not be listened to may be there by now.
            Some(handle) => handle.reconfigure(self.capture.clone()),
            None => self.captures = self.started("captures", capture::start(self.capture.clone(), common.clone())),
        }
        if self.dhcp.is_none() && !self.wanted.0.interfaces.is_empty() {
            let log = Arc::new(self.rack.clone());
            self.dhcp = self.started("dhcp", dhcp::start(self.wanted.0.clone(), log, common));
        }
    }

    fn started<T>(&self, name: &str, result: Result<T, StartError>) -> Option<T> {
        match result {
            Ok(handle) => Some(handle),
            Err(error) => {
                self.told(name, Some(error));
                None
            }
        }
    }

    fn told(&self, name: &str, error: Option<StartError>) {
        if let Some(error) = error {
            tracing::error!(service = name, %error, "a service could not be started or changed");
            self.rack.set_service(status(name, error.to_string(), Severity::Error));
        }
    }

    /// Tells the rack how each service is doing.
    pub(super) fn watch(&self) {
        let all = [
            self.http.as_ref().map(HttpHandle::status),
            self.tftp.as_ref().map(TftpHandle::status),
            self.ra.as_ref().map(RaHandle::status),
            self.dhcp.as_ref().map(DhcpHandle::status),
            self.captures.as_ref().map(CaptureHandle::status),
        ];
        all.into_iter()
            .flatten()
            .chain(self.local.statuses())
            .for_each(|status| self.rack.set_service(status));
        // After their states: whoever reads that one serves has not read an older trouble of it.
        for (service, at) in self.local.serving() {
            self.rack.set_serving(service, at);
        }
    }

    /// Names of the networks where another DHCP server is heard and we only add boot information, and nobody has an address
    /// of ours.
    pub(super) fn beside_others(&self) -> Vec<String> {
        let networks = self.dhcp.as_ref().map(DhcpHandle::networks).unwrap_or_default();
        let beside = networks.into_iter().filter(|network| {
            network.role == rackbar_dhcp::Role::Proxy && network.foreign.is_some() && network.free == network.pool
        });
        beside.map(|network| network.name).collect()
    }

    /// The counters in the Prometheus text format.
    pub(super) fn counters(&self) -> Arc<dyn Fn() -> String + Send + Sync> {
        let metrics = self.common.metrics.clone();
        Arc::new(move || {
            let mut text = String::new();
            for sample in metrics.samples() {
                let kind = match sample.kind {
                    SampleKind::Counter => "counter",
                    SampleKind::Gauge => "gauge",
                };
                let name = sample.name;
                text += &format!(
                    "# HELP {name} {}\n# TYPE {name} {kind}\n{name} {}\n",
                    sample.help, sample.value
                );
            }
            text
        })
    }

    /// Stops everything; leases that were under way are committed.
    pub(super) fn stop(self) {
        self.dhcp.into_iter().for_each(DhcpHandle::stop);
        self.tftp.into_iter().for_each(TftpHandle::stop);
        self.http.into_iter().for_each(HttpHandle::stop);
        self.ra.into_iter().for_each(RaHandle::stop);
        self.captures.into_iter().for_each(CaptureHandle::stop);
        self.local.stop();
    }
}

/// A service's state, as of now.
pub(super) fn status(name: &str, state: String, severity: Severity) -> ServiceStatus {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
    ServiceStatus {
        name: name.into(),
        state,
        severity,
        since,
    }
}

const fn role(role: Role) -> orchestrator::Role {
    match role {
        Role::Rack => orchestrator::Role::Rack,
        Role::Bmc => orchestrator::Role::Bmc,
        Role::Uplink => orchestrator::Role::Uplink,
    }
}

/// Our network by whose address the machines behind a relay reach us.
fn gate<'a>(remote: &Remote, placed: &'a [Placed]) -> Option<&'a Placed> {
    placed.iter().find(|one| one.network == remote.through)
}

fn settings(config: &Config, placed: &[Placed], ports: Ports) -> Settings {
    let networks = config.networks.iter().enumerate().map(|(index, network)| {
        let address = placed
            .iter()
            .find(|one| one.network == index)
            .and_then(|one| one.address);
        orchestrator::Network {
            name: network.name.clone(),
            role: role(network.role),
            address: address.map(|(address, _)| address),
            prefix: address.map_or(32, |(_, length)| length),
            subnet: None,
        }
    });
    let remotes = config.remotes.iter().map(|remote| orchestrator::Network {
        name: remote.network.name.clone(),
        role: role(remote.network.role),
        address: gate(remote, placed).and_then(|one| Some(one.address?.0)),
        prefix: remote.subnet.1,
        subnet: Some(remote.subnet.0),
    });
    let reserved = config
        .all_networks()
        .flat_map(|network| network.reservations.iter().map(|one| one.mac));
    Settings {
        networks: networks.chain(remotes).collect(),
        unknown: match config.clients.unknown {
            Unknown::Enrol => orchestrator::Unknown::Enrol,
            Unknown::Listed => {
                orchestrator::Unknown::Listed(config.clients.listed.iter().copied().chain(reserved).collect())
            }
            Unknown::Ignore => orchestrator::Unknown::Listed(reserved.collect()),
        },
        kernel_arguments: config.boot.kernel_arguments.clone(),
        scripts: config.boot.scripts.clone(),
        ways: config.boot.negotiate.clone(),
        uefi_url: boot::policy(config, ports)
            .file(ClientArch::X64UefiHttp)
            .map(str::to_owned),
        power_on_discovered: config.bmc.power_on_discovered,
        replace_initial_passwords: config.bmc.replace_initial_passwords,
        leave_bmc_clocks: !config.bmc.set_clocks,
        record_consoles: config.bmc.record_consoles,
        mirrors: mirrors(config),
    }
}

/// The proxy's mirrors by name, with the URLs of their upstreams.
fn mirrors(config: &Config) -> BTreeMap<String, Vec<String>> {
    let one = |mirror: &rackbar_proxy::Mirror| {
        let upstreams = mirror.upstreams.iter().map(ToString::to_string);
        (mirror.name.clone(), upstreams.collect())
    };
    config.proxy.mirrors.iter().map(one).collect()
}

/// Our addresses on the networks that machines boot on.
fn rack_addresses<'a>(config: &'a Config, placed: &'a [Placed]) -> impl Iterator<Item = Ipv4Addr> + 'a {
    let on_rack = |one: &&Placed| {
        config
            .networks
            .get(one.network)
            .is_some_and(|network| network.role == Role::Rack)
    };
    placed.iter().filter(on_rack).filter_map(|one| Some(one.address?.0))
}

/// Our addresses on uplinks, without those that are also one in the rack.
fn outside(config: &Config, placed: &[Placed]) -> Vec<IpAddr> {
    let (uplinks, others): (Vec<&Placed>, Vec<&Placed>) = placed.iter().partition(|one| {
        let network = config.networks.get(one.network);
        network.is_some_and(|network| network.role == Role::Uplink)
    });
    let address = |one: &&Placed| Some(one.address?.0);
    let inside: Vec<Ipv4Addr> = others.iter().filter_map(address).collect();
    let only_uplinks = uplinks.iter().filter_map(address);
    only_uplinks
        .filter(|one| !inside.contains(one))
        .map(Into::into)
        .collect()
}

fn ra_config(config: &Config, placed: &[Placed]) -> RaConfig {
    let served = placed.iter().filter(|one| {
        let network = config.networks.get(one.network);
        network.is_some_and(|network| network.role == Role::Rack && network.dhcp != Dhcp::Off)
    });
    RaConfig {
        interfaces: served
            .filter_map(|one| one.link.as_ref())
            .map(|link| link.name.clone())
            .collect(),
    }
}

/// Captures listen where machines and BMCs are, and never on the way to the outside.
fn capture_config(config: &Config, placed: &[Placed], ports: Ports) -> CaptureConfig {
    let mut links: Vec<CaptureLink> = Vec::new();
    for one in placed {
        let rack = (config.networks.get(one.network)).is_some_and(|network| network.role != Role::Uplink);
        let Some(link) = one.link.as_ref().filter(|_| rack) else {
            continue;
        };
        if !links.iter().any(|other| other.index == link.index) {
            let (name, index) = (link.name.clone(), link.index);
            links.push(CaptureLink { name, index });
        }
    }
    CaptureConfig {
        links,
        memory: config.capture.memory,
        on_demand: config.capture.on_demand,
        tcp: vec![ports.http.port(), ports.boot_tls, ports.agents],
    }
}

fn dhcp_config(config: &Config, placed: &[Placed], ports: Ports, site: Option<&rackbar_plan::Site>) -> DhcpConfig {
    let mut interfaces = Vec::new();
    let mut networks = Vec::new();
    for one in placed {
        let Some(network) = config.networks.get(one.network) else {
            continue;
        };
        let (Some(link), Some((server, length))) = (&one.link, one.address) else {
            continue;
        };
        if network.role == Role::Uplink || network.dhcp == Dhcp::Off {
            continue;
        }
        let said = network;
        if !interfaces.contains(&link.name) {
            interfaces.push(link.name.clone());
        }
        let interface = rackbar_dhcp::Interface {
            id: InterfaceId(link.index),
            mac: link.mac,
        };
        let mut network = dhcp_network(config, network, Some(interface), server, (server, length));
        network.pools = without_static(network.pools, site);
        tell(&mut network, config, said, site);
        networks.push(network);
    }
    for remote in &config.remotes {
        let Some(gate) = gate(remote, placed) else { continue };
        let (Some(link), Some((server, _))) = (&gate.link, gate.address) else {
            continue;
        };
        // Also where we answer nobody on that network itself.
        if !interfaces.contains(&link.name) {
            interfaces.push(link.name.clone());
        }
        let mut network = dhcp_network(config, &remote.network, None, server, remote.subnet);
        network.pools = without_static(network.pools, site);
        tell(&mut network, config, &remote.network, site);
        networks.push(network);
    }
    let unknown = match config.clients.unknown {
        Unknown::Enrol => UnknownClients::Enrol,
        Unknown::Listed | Unknown::Ignore => UnknownClients::LeaseOnly,
    };
    let engine = rackbar_dhcp::Config {
        networks,
        boot: boot::policy(config, ports),
        unknown,
        listed: config.clients.listed.clone(),
        ..rackbar_dhcp::Config::default()
    };
    DhcpConfig { interfaces, engine }
}

fn dhcp_network(
    config: &Config,
    network: &crate::config::Network,
    interface: Option<rackbar_dhcp::Interface>,
    server: Ipv4Addr,
    (subnet, length): (Ipv4Addr, u8),
) -> rackbar_dhcp::Network {
    let range = |(first, last): &(Ipv4Addr, Ipv4Addr)| Range {
        first: *first,
        last: *last,
    };
    let mut out = rackbar_dhcp::Network::new(
        &network.name,
        interface,
        server,
        length,
        Range {
            first: server,
            last: server,
        },
    );
    out.address = subnet;
    out.mode = match network.dhcp {
        Dhcp::Own => Mode::Own,
        Dhcp::Proxy => Mode::Proxy,
        Dhcp::Auto => Mode::Auto,
        Dhcp::Off => Mode::Off,
    };
    // A pool written for another network than the one a DHCP server put us in is of no use there.
    let near = |first: &Ipv4Addr| out.contains(*first);
    out.pools = network
        .pools
        .iter()
        .filter(|(first, last)| near(first) && near(last))
        .map(range)
        .collect();
    if out.pools.is_empty() && out.mode == Mode::Auto {
        // With nothing to give out, being the server would only keep others from being it.
        out.mode = Mode::Proxy;
    }
    out.reservations = network
        .reservations
        .iter()
        .map(|one| rackbar_dhcp::Reservation {
            client: ReservedFor::Mac(one.mac),
            address: one.address,
            hostname: one.name.clone(),
        })
        .collect();
    out.gateways = network.gateway.into_iter().collect();
    out.domain.clone_from(&network.domain);
    out.lease_seconds = network.lease_seconds;
    out.ways.clone_from(&config.boot.negotiate);
    out
}

/// Lets DHCP tell a network's clients of DNS, time and logs, as they are wanted there.
fn tell(
    out: &mut rackbar_dhcp::Network,
    config: &Config,
    said: &crate::config::Network,
    site: Option<&rackbar_plan::Site>,
) {
    let of = |service| told(said, site, (out.server, out.address), service);
    (out.dns, out.ntp, out.log) = (of(OwnService::Dns), of(OwnService::Ntp), of(OwnService::Syslog));
    if out.domain.is_none() && out.dns.contains(&out.server) {
        // Without it clients would look for short names nowhere.
        let domain = super::names::domain(config, site.and_then(|site| site.domain.as_deref())).to_string();
        out.domain = Some(domain.trim_end_matches('.').to_owned());
    }
}

/// All addresses we have, for the certificate.
pub(super) fn addresses(placed: &[Placed]) -> Vec<IpAddr> {
    placed
        .iter()
        .filter_map(|one| one.address)
        .map(|(address, _)| address.into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::network::PlacedLink;
    use super::*;

    fn placed(address: [u8; 4]) -> Vec<Placed> {
        let link = PlacedLink {
            name: "eth0".into(),
            index: 2,
            mac: rackbar_model::MacAddr([2, 0, 0, 0, 0, 1]),
        };
        vec![Placed {
            network: 0,
            link: Some(link),
            address: Some((address.into(), 24)),
            trouble: None,
        }]
    }

    const PORTS: Ports = Ports {
        http: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 80),
        tftp: SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 69),
        agents: 4917,
        boot_tls: 8443,
    };

    #[test]
    fn the_default_serves_its_pool_alone_and_only_adds_boot_information_beside_others() {
        let config = crate::config::check(crate::config::DEFAULT, &crate::config::no_files).unwrap();
        let alone = dhcp_config(&config, &placed([10, 10, 0, 1]), PORTS, None);
        assert_eq!(alone.interfaces, ["eth0"]);
        assert_eq!(
            (alone.engine.networks[0].mode, alone.engine.networks[0].pools.len()),
            (Mode::Auto, 1)
        );
        let guest = dhcp_config(&config, &placed([192, 168, 7, 9]), PORTS, None);
        assert_eq!(
            (guest.engine.networks[0].mode, guest.engine.networks[0].pools.len()),
            (Mode::Proxy, 0)
        );
        let nowhere = Placed {
            address: None,
            ..placed([0; 4]).remove(0)
        };
        assert!(dhcp_config(&config, &[nowhere], PORTS, None).interfaces.is_empty());
    }

    #[test]
    fn another_http_port_is_in_every_url() {
        let config = crate::config::check(crate::config::DEFAULT, &crate::config::no_files).unwrap();
        let ports = Ports {
            http: SocketAddr::from(([0, 0, 0, 0], 8080)),
            ..PORTS
        };
        let policy = boot::policy(&config, ports);
        assert_eq!(policy.loader_url, "http://{server}:8080");
        let url = settings(&config, &[], ports).uefi_url;
        assert_eq!(url.as_deref(), Some("http://{server}:8080/boot/v1/loader.efi"));
        assert!(
            policy
                .script_url
                .starts_with("http://{server}:8080/boot/v1/script.ipxe")
        );
    }
}
