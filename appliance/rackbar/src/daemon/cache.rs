//! The caching proxy in the daemon: started when a network or the site wants it, and changed while it runs.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt as _;
use ipnet::IpNet;
use nix::sys::statvfs::statvfs;
use rackbar_control::operations::{Answer, CacheEntry, CacheOrder, CacheState, Refused};
use rackbar_model::{EventKind, ServiceStatus, Severity, Timestamp};
use rackbar_orchestrator::Rack;
use rackbar_plan::OwnService;
use rackbar_proxy::rules::destination::Destinations;
use rackbar_proxy::{CacheError, Handle, Locked, Mode, Proxy, Settings};
use rackbar_services::EventSink as _;

use super::local::{Around, addresses, remotes};
use super::network::Placed;
use super::services::status;
use crate::config::{Address, Config, Role};

/// The port that plans write into the systems they install.
const PORT: u16 = 3128;

/// Its folder on the data partition.
const FOLDER: &str = "cache";

/// Where others find the proxy once it runs, with the threads that its work is done on.
#[derive(Clone, Default)]
pub(super) struct CacheDoor {
    running: Arc<Mutex<Option<Running>>>,
    /// Locked repositories, which it serves, and the names of all that are locked; `None` until that is known.
    repositories: Arc<Mutex<Option<Known>>>,
}

/// Locked repositories that are served, and the names of all that are locked.
type Known = (Vec<Locked>, BTreeSet<String>);

/// The proxy and its threads.
type Running = (Arc<Proxy>, tokio::runtime::Handle);

impl CacheDoor {
    pub(super) fn open(&self) -> Option<Running> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, to: Option<Running>) {
        let repositories = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some((proxy, _)), Some((served, locked))) = (&to, &*repositories) {
            proxy.set_repositories(served.iter().cloned());
            // What was unlocked while it did not run.
            if let Err(error) = proxy.let_go_others(locked) {
                tracing::warn!(%error, "what was kept for repositories that are not locked any more stays pinned");
            }
        }
        *self.running.lock().unwrap_or_else(PoisonError::into_inner) = to;
    }

    /// Has it serve these locked repositories and no others, now and whenever it is started anew. `locked`: all that are, also
    /// those that cannot be served.
    pub(super) fn serve(&self, all: Vec<Locked>, locked: BTreeSet<String>) {
        let mut repositories = self.repositories.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((proxy, _)) = self.open() {
            proxy.set_repositories(all.iter().cloned());
        }
        *repositories = Some((all, locked));
    }

    /// Asks the proxy, on its own threads, where waiting for a disk holds up nobody else.
    pub(super) fn ask<T, F>(&self, work: impl FnOnce(Arc<Proxy>) -> F + Send + 'static) -> Answer<'_, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refused>> + Send + 'static,
    {
        let open = self.open();
        async move {
            let none = "the proxy does not run; set proxy = \"own\" at a network of rackbar.toml, or proxy = \"own\" \
                        in the site file";
            let (proxy, threads) = open.ok_or_else(|| Refused::Unavailable(none.into()))?;
            let done = threads.spawn(work(proxy)).await;
            done.unwrap_or_else(|error| Err(Refused::Internal(error.to_string())))
        }
        .boxed()
    }

    /// Other counters with ours behind them.
    pub(super) fn counters_after(
        self,
        others: Arc<dyn Fn() -> String + Send + Sync>,
    ) -> Arc<dyn Fn() -> String + Send + Sync> {
        Arc::new(move || others() + &self.counters())
    }

    /// Its counters in the Prometheus text format.
    fn counters(&self) -> String {
        let Some((proxy, _)) = self.open() else {
            return String::new();
        };
        let line = |sample: rackbar_proxy::Sample| {
            let kind = if sample.gauge { "gauge" } else { "counter" };
            format!(
                "# HELP {0} {1}\n# TYPE {0} {kind}\n{0} {2}\n",
                sample.name, sample.help, sample.value
            )
        };
        proxy.samples().into_iter().map(line).collect()
    }
}

/// The proxy.
pub(super) struct Cache {
    rack: Rack,
    folder: PathBuf,
    handle: Option<Handle>,
    wanted: Option<Settings>,
    /// The mode that was ordered of the one that was closed, and the configured one it stands in for.
    ordered: Option<(Mode, Mode)>,
    trouble: Option<String>,
    door: CacheDoor,
}

impl Cache {
    pub(super) fn new(rack: Rack, data: &std::path::Path) -> Self {
        Self {
            rack,
            folder: data.join(FOLDER),
            handle: None,
            wanted: None,
            ordered: None,
            trouble: None,
            door: CacheDoor::default(),
        }
    }

    pub(super) fn door(&self) -> CacheDoor {
        self.door.clone()
    }

    /// Puts in force what is wanted now. Cheap when nothing changed; what could not be started is tried again.
    pub(super) fn follow(&mut self, config: &Config, around: &Around<'_>) {
        let settings = settings(config, around, &self.folder);
        // Roots and parent are read when connections to origins are set up: those are set up anew for others.
        let other = |old: &Settings| old.roots != settings.roots || old.parent != settings.parent;
        let anew = self.wanted.as_ref().is_some_and(other);
        if settings.listen.is_empty() || anew {
            self.close();
        }
        if settings.listen.is_empty() {
            self.wanted = None;
            self.trouble = None;
            return;
        }
        let result = match &self.handle {
            None => self.start(settings.clone()),
            Some(_) if self.wanted.as_ref() == Some(&settings) => Ok(()),
            Some(handle) => handle.reconfigure(settings.clone()).map_err(|error| error.to_string()),
        };
        match result {
            Ok(()) => {
                self.wanted = Some(settings);
                self.trouble = None;
            }
            Err(error) if self.trouble.as_ref() == Some(&error) => {}
            Err(error) => {
                tracing::error!(error, "the proxy could not be started or changed");
                self.trouble = Some(error);
            }
        }
        self.rack.set_service(self.status());
        let addresses = self.handle.iter().flat_map(Handle::addresses);
        self.rack
            .set_serving(OwnService::Proxy, addresses.map(|address| address.ip()));
    }

    fn start(&mut self, settings: Settings) -> Result<(), String> {
        std::fs::create_dir_all(&self.folder).map_err(|error| format!("{}: {error}", self.folder.display()))?;
        let rack = self.rack.clone();
        let mode = settings.mode;
        let tell = move |severity, text| rack.event(None, EventKind::Note { text, severity });
        let handle = rackbar_proxy::start(&self.folder, settings, Arc::new(tell)).map_err(|error| error.to_string())?;
        if let Some((_, mode)) = self.ordered.take().filter(|(configured, _)| *configured == mode) {
            handle.proxy().set_mode(mode);
        }
        let rack = self.rack.clone();
        let watch = move |client, target: &str, status| rack.archive_answered(client, target, status);
        handle.proxy().set_watch(Arc::new(watch));
        self.door.set(Some((handle.proxy().clone(), handle.runtime())));
        self.handle = Some(handle);
        Ok(())
    }

    fn status(&self) -> ServiceStatus {
        if let Some(trouble) = &self.trouble {
            return status("proxy", trouble.clone(), Severity::Error);
        }
        let Some(handle) = &self.handle else {
            return status("proxy", "not running".into(), Severity::Warning);
        };
        let listening: Vec<String> = handle.addresses().iter().map(ToString::to_string).collect();
        let mode = handle.proxy().settings().mode;
        let listening = format!("listening on {}, {mode}", listening.join(", "));
        match handle.proxy().trouble() {
            Some(trouble) => status("proxy", format!("{listening}; {trouble}"), Severity::Error),
            None => status("proxy", listening, Severity::Info),
        }
    }

    fn close(&mut self) {
        self.door.set(None);
        if let Some(handle) = self.handle.take() {
            let ordered = handle.proxy().ordered_mode();
            self.ordered = self.wanted.as_ref().map(|settings| settings.mode).zip(ordered);
            handle.stop();
            self.rack.set_serving(OwnService::Proxy, []);
            self.rack.set_service(status(
                "proxy",
                "not running: no network wants it".into(),
                Severity::Info,
            ));
        }
    }

    pub(super) fn stop(mut self) {
        self.close();
    }
}

fn settings(config: &Config, around: &Around<'_>, folder: &std::path::Path) -> Settings {
    let site = around.executor.site();
    let site = site.as_deref().map(|one| &one.site);
    let ours = addresses(config, site, around.placed, OwnService::Proxy);
    let far = remotes(config, site, around.placed, OwnService::Proxy);
    let network = |(address, prefix): &(std::net::Ipv4Addr, u8)| IpNet::new((*address).into(), *prefix).ok();
    let served: Vec<IpNet> = ours.iter().chain(&far).filter_map(network).collect();
    let bmcs = around.rack.nodes().into_iter().filter_map(|node| node.bmc_address);
    let mut forbidden = forbidden(config, around.placed);
    forbidden.extend(among(&served, bmcs));
    Settings {
        listen: ours
            .iter()
            .map(|(address, _)| SocketAddr::from((*address, PORT)))
            .collect(),
        served: Some(served),
        mirrors: config.proxy.mirrors.clone(),
        mode: config.proxy.mode,
        budget: config.proxy.budget.unwrap_or_else(|| half(folder)),
        rule: Destinations {
            forbidden,
            ..config.proxy.rule.clone()
        },
        roots: config.proxy.roots.clone(),
        parent: config.proxy.parent.clone(),
        ..Settings::default()
    }
}

/// Half of the file system the folder is or will be on.
fn half(folder: &std::path::Path) -> u64 {
    let at = folder.parent().unwrap_or(folder);
    statvfs(at).map_or(1 << 30, |fs| fs.blocks().saturating_mul(fs.fragment_size()) / 2)
}

/// The appliance's own addresses, and all networks of BMCs.
fn forbidden(config: &Config, placed: &[Placed]) -> Vec<IpNet> {
    let mut out: Vec<IpNet> = Vec::new();
    for (address, prefix) in placed
        .iter()
        .filter_map(|one| Some((one.address?, one.network)))
        .filter_map(|(at, network)| {
            let bmc = config.networks.get(network)?.role == Role::Bmc;
            Some((at.0, if bmc { at.1 } else { 32 }))
        })
    {
        out.extend(IpNet::new(address.into(), prefix).ok());
    }
    for network in config.networks.iter().filter(|network| network.role == Role::Bmc) {
        if let Address::Static(address, prefix) | Address::DhcpOr(address, prefix) = network.address {
            out.extend(IpNet::new(address.into(), prefix).ok());
        }
    }
    for remote in config.remotes.iter().filter(|one| one.network.role == Role::Bmc) {
        out.extend(IpNet::new(remote.subnet.0.into(), remote.subnet.1).ok());
    }
    out.sort();
    out.dedup();
    out
}

/// BMCs that lie beside the machines that are served, in order. What a machine says of its BMC forbids no other place.
fn among(served: &[IpNet], bmcs: impl IntoIterator<Item = IpAddr>) -> BTreeSet<IpNet> {
    let beside = |address: &IpAddr| served.iter().any(|network| network.contains(address));
    bmcs.into_iter().filter(beside).map(IpNet::from).collect()
}

/// What is stored, as the API says it.
pub(super) fn entries(proxy: &Proxy) -> Vec<CacheEntry> {
    let entry = |item: rackbar_proxy::Item| CacheEntry {
        key: item.key,
        sha256: item.digest,
        bytes: item.size,
        stored: Timestamp(item.stored.saturating_mul(1000)),
        used: Timestamp(item.used.saturating_mul(1000)),
        hits: item.hits,
        pinned: item.pinned,
        fresh_seconds: item.fresh_seconds,
        pack: item.pack,
    };
    proxy.list().into_iter().map(entry).collect()
}

/// The cache as a whole.
pub(super) fn state(proxy: &Proxy) -> CacheState {
    let (used_bytes, budget_bytes) = proxy.usage();
    CacheState {
        mode: proxy.settings().mode.to_string(),
        used_bytes,
        budget_bytes,
        pins: proxy.pins(),
    }
}

/// Does what is asked of the cache; what was done, in words.
///
/// # Errors
/// Why it was not.
pub(super) async fn order(proxy: Arc<Proxy>, order: CacheOrder) -> Result<String, Refused> {
    match order {
        CacheOrder::Pin { key } => {
            let covered = proxy.pin(&key).await.map_err(refused)?;
            Ok(pinned(&proxy, &key, covered))
        }
        CacheOrder::Unpin { key } => {
            let covered = proxy.unpin(&key).map_err(refused)?;
            Ok(format!(
                "{key} is no longer pinned; it covered {covered} stored answers"
            ))
        }
        CacheOrder::Refresh { key } => {
            proxy.refresh(&key).await.map_err(refused)?;
            Ok(format!("{key} is what the origin has now"))
        }
        CacheOrder::Verify => {
            let found = tokio::task::spawn_blocking(move || proxy.verify()).await;
            let found = found.map_err(|error| Refused::Internal(error.to_string()))?;
            let unreadable = match found.unreadable {
                0 => String::new(),
                count => format!(", {count} could not be read and stay as they are: see the events"),
            };
            Ok(format!(
                "{} objects are whole, {} were damaged and are gone{unreadable}",
                found.whole, found.damaged
            ))
        }
        CacheOrder::Mode { mode } => {
            let mode = mode.parse().map_err(Refused::Invalid)?;
            proxy.set_mode(mode);
            Ok(format!(
                "the proxy is {mode}, until mode in the [proxy] section of rackbar.toml changes or the appliance starts anew"
            ))
        }
    }
}

/// What a pin keeps, in words.
fn pinned(proxy: &Proxy, key: &str, covered: usize) -> String {
    let kept_as = proxy.pinned_as(key).ok().filter(|other| other != key);
    let kept_as = kept_as.map_or_else(String::new, |other| format!(" as {other}"));
    let left_out: Vec<String> = proxy
        .pin_leaves_out(key)
        .into_iter()
        .map(|name| format!("mirror:{name}/*"))
        .collect();
    let but = match left_out.is_empty() {
        true => String::new(),
        false => format!(
            "; upstreams of mirrors below it have pins of their own: {}",
            left_out.join(", ")
        ),
    };
    format!("{key} is pinned{kept_as}; {covered} stored answers are kept by it{but}")
}

fn refused(error: CacheError) -> Refused {
    match error {
        CacheError::Key(_) | CacheError::Mirror(_) => Refused::Invalid(error.to_string()),
        CacheError::Store(_) => Refused::Internal(error.to_string()),
        CacheError::Fetch(_) | CacheError::Stands { .. } => Refused::Device(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_to_a_bmc_beside_the_machines_and_no_place_elsewhere_is_forbidden_by_what_they_say() {
        let served = ["10.10.0.0/24".parse().unwrap()];
        let said = ["10.10.0.77", "192.0.2.1", "10.10.0.77"].map(|address| address.parse().unwrap());
        let forbidden: Vec<String> = among(&served, said).iter().map(ToString::to_string).collect();
        assert_eq!(forbidden, ["10.10.0.77/32"]);
    }
}
