//! The daemon: the one place where configuration, store, rack, services, agents, BMCs and the API come together.
//!
//! Order of starting: store, configuration, network, identity, services. Order of stopping is the reverse, the store
//! last: until then everything that ends may still write. What fails at the start is told and worked around where that
//! is possible at all: an appliance that serves half is worth more than one that restarts for ever.

mod boot;
mod cache;
mod carry;
mod handoff;
mod https_boot;
mod keep;
mod local;
mod logs;
mod names;
mod network;
mod offline;
mod operations;
mod options;
mod packs;
mod pools;
mod profiles;
mod proof;
mod refresh;
mod refusals;
mod registrations;
mod repositories;
mod resolv;
mod routes;
mod services;
mod setup;
mod site;
mod source;
mod storage;
mod support;
mod unlock;
mod uploads;
mod webhooks;
mod works;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rackbar_control::{About, Access, Context, Limits, Listeners, Role, Token};
use rackbar_model::{EventKind, Severity};
use rackbar_orchestrator::agents::{self, AgentOptions};
use rackbar_orchestrator::{Devices, Options as RackOptions, Rack, bmc, ways};
use rackbar_services::EventSink as _;
use rackbar_services::syslog::LogStore;
use rackbar_store::Store;
use rackbar_trust::Signer as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Notify, watch};
use tokio::task::{JoinSet, block_in_place};

use crate::config::Config;
use https_boot::HttpsBoot;
use keep::Keep;
use network::{Networks, Placed};
use operations::Asked;
pub(crate) use options::Options;
use packs::Packs;
use profiles::ProfileDoor;
use registrations::Registrations;
use resolv::Resolv;
use services::{Ports, Services, status};
use setup::{anew, check, give_logins, open_store, place, start_log};
use site::Site;
use source::{Loaded, Source};
use storage::Storage;
use unlock::Waited;
pub(crate) use unlock::{UNLOCK, unlock};
use webhooks::Webhooks;
use works::{Start, Works};

/// Between two looks at the configuration file, the services and our leases.
const LOOK: Duration = Duration::from_secs(2);

/// Between two tries of services that could not start, in looks.
const RETRY: u32 = 5;

/// Runs until a signal ends it.
///
/// # Errors
/// When not even the store in memory, the site's identity or the API could be had.
pub(crate) async fn run(options: Options) -> Result<()> {
    if options.check {
        return check(&options.config);
    }
    start_log();
    // Other crates' TLS asks for the process's provider; there must be one and only one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    std::fs::create_dir_all(&options.run).with_context(|| format!("making {}", options.run.display()))?;
    let volatile = options.run.join("volatile").exists();
    let moved = carry::take_over(&options.data);
    let (store, mut notes) = open_store(&options.data)?;
    notes.extend(moved);
    let waited = unlock::wait(&store, &options.run).await?;
    if waited == Waited::Ended {
        block_in_place(|| store.close());
        return Ok(());
    }
    notes.extend(keep::imported(&options.data));
    notes.extend(storage::moved(&options.data));
    let rack = Rack::start(
        store.clone(),
        RackOptions {
            volatile,
            ..RackOptions::default()
        },
    )?;
    notes.into_iter().for_each(|note| rack.event(None, note));
    block_in_place(|| waited.tell(&rack))?;
    let kernel = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let mut source = Source::new(options.config.clone(), kernel);
    let loaded = source.first(&store);
    let mut daemon = Daemon::start(options, rack, store, &loaded, volatile).await?;
    daemon.in_force(loaded).await;
    let end = daemon.serve(&mut source).await?;
    let storage = daemon.storage.clone();
    daemon.stop().await;
    block_in_place(|| storage.settle());
    match end {
        End::Stop => Ok(()),
        End::Anew => Err(anew()),
    }
}

/// Why the daemon ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It was told to.
    Stop,
    /// Its state was replaced.
    Anew,
}

/// Everything that runs.
struct Daemon {
    options: Options,
    rack: Rack,
    store: Store,
    site: Site,
    config: Config,
    networks: Networks,
    placed: Vec<Placed>,
    services: Services,
    devices: Arc<Devices>,
    works: Works,
    cache: cache::Cache,
    packs: Packs,
    profiles: ProfileDoor,
    /// The kernel's command line.
    kernel: String,
    webhooks: Webhooks,
    registrations: Registrations,
    resolv: Resolv,
    access: Arc<Access>,
    api: Option<rackbar_control::Handle>,
    https_boot: HttpsBoot,
    tasks: JoinSet<()>,
    stop: watch::Sender<bool>,
    /// Asked to start anew.
    anew: Arc<Notify>,
    /// What machines logged; `None` when it could not be opened.
    logs: Option<Arc<LogStore>>,
    storage: Storage,
    volatile: bool,
}

impl Daemon {
    async fn start(options: Options, rack: Rack, store: Store, loaded: &Loaded, volatile: bool) -> Result<Self> {
        let config = loaded.config.clone();
        let mut networks = Networks::default();
        let placed = place(&options, &mut networks, &config);
        let addresses = services::addresses(&placed);
        let site = Site::open(store.clone(), &config.name, &addresses)?;
        let ports = Ports {
            http: options.listen_http,
            tftp: options.listen_tftp,
            agents: options.listen_agents.port(),
            boot_tls: options.listen_boot_tls.port(),
        };
        let logs = block_in_place(|| logs::open(&rack, &options.data, &config));
        let services = block_in_place(|| Services::new(rack.clone(), &site, &options.boot_files, ports, logs.clone()));
        services.introduce(&config, &placed);
        let kernel = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
        let ours = rackbar_packs::Key(site.signer.public_key());
        let judge = profiles::Judge::new(&packs::trusted(ours, &config, &kernel), config.signed_profiles_only);
        let read = block_in_place(|| profiles::load(&profiles::folders(&options.config, &options.data), &judge))?;
        read.told.into_iter().for_each(|event| rack.event(None, event));
        let profiles = ProfileDoor::new(read.list, site.signer.clone());
        let devices = Arc::new(Devices::new(Vec::new(), read.profiles, store.clone()).of(&rack));
        // Before anybody asks a BMC: machines that are known are looked at, and runs taken up, at once.
        give_logins(&devices, &rack, &config);
        let access = Arc::new(Access::open(store.clone())?);
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        tasks.spawn(bmc::run(rack.clone(), devices.clone(), stopped.clone()));
        tasks.spawn(ways::run(
            rack.clone(),
            options.listen_http.port(),
            ways::Patience::default(),
            stopped,
        ));
        let works = block_in_place(|| {
            Works::start(Start {
                rack: &rack,
                store: &store,
                artifacts: services.artifacts(),
                signer: site.signer.clone(),
                agent: &options.agent,
                name: &config.name,
                data: &options.data,
                http: options.listen_http,
                config: &options.config,
            })
        })?;
        let cache = cache::Cache::new(rack.clone(), &options.data);
        let packs = Packs::new(packs::Start {
            rack: rack.clone(),
            executor: works.executor.clone(),
            images: works.images.clone(),
            cache: cache.door(),
            signer: site.signer.clone(),
            site: &config.name,
            data: &options.data,
            folders: options.packs.clone(),
            devices: options.pack_devices,
        });
        let mut daemon = Self {
            resolv: Resolv::new("/etc/resolv.conf"),
            webhooks: Webhooks::new(rack.clone(), store.clone(), &config.name),
            registrations: Registrations::start(&rack, store.clone(), works.executor.clone(), &config),
            cache,
            packs,
            kernel,
            profiles,
            https_boot: HttpsBoot::new(
                store.clone(),
                rack.clone(),
                services.artifacts(),
                options.listen_boot_tls,
            ),
            api: None,
            tasks,
            storage: Storage::new(&options.data, &options.run),
            options,
            rack,
            store,
            site,
            config,
            networks,
            placed,
            services,
            devices,
            works,
            access,
            stop,
            anew: Arc::default(),
            logs,
            volatile,
        };
        daemon.start_agents().await;
        // Before the API answers: a program that asks as soon as it does would be told that its token is none.
        daemon.admit();
        daemon.start_api(volatile).await?;
        Ok(daemon)
    }

    async fn start_agents(&mut self) {
        let at = self.options.listen_agents;
        let started = async {
            let tls = self.site.agent_tls()?;
            let listener = TcpListener::bind(at).await?;
            let (rack, stop) = (self.rack.clone(), self.stop.subscribe());
            let outside = self.services.common().outside;
            let options = AgentOptions {
                outside,
                ..AgentOptions::default()
            };
            self.tasks.spawn(agents::run(rack, listener, tls, options, stop));
            anyhow::Ok(())
        };
        let (state, severity) = match started.await {
            Ok(()) => (format!("listening on {at}"), Severity::Info),
            Err(error) => (format!("not listening on {at}: {error:#}"), Severity::Error),
        };
        self.rack.set_service(status("agents", state, severity));
    }

    async fn start_api(&mut self, volatile: bool) -> Result<()> {
        let about = About {
            site: self.config.name.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            fingerprint: self.site.fingerprint().to_string(),
            volatile,
        };
        let keep = Keep {
            store: self.store.clone(),
            folder: self.options.data.clone(),
            config: self.options.config.clone(),
            run: self.options.run.clone(),
            restart: self.anew.clone(),
            storage: self.storage.clone(),
            importing: Arc::default(),
        };
        let context = Context {
            rack: self.rack.clone(),
            about: Arc::new(about),
            operations: Arc::new(Asked::new(
                self.rack.clone(),
                self.works.clone(),
                keep,
                self.services.common(),
                self.logs.clone(),
                (self.cache.door(), self.packs.clone(), self.profiles.clone()),
                (self.webhooks.door(), self.registrations.door()),
            )),
            access: self.access.clone(),
            counters: self.cache.door().counters_after(self.services.counters()),
        };
        let listeners = Listeners {
            https: vec![self.options.listen_api],
            tls: self.site.api_tls()?,
            socket: Some(self.options.run.join("api.sock")),
            limits: Limits::default(),
        };
        self.api = Some(rackbar_control::serve(context, listeners).await?);
        let state = format!("listening on {}", self.options.listen_api);
        self.rack.set_service(status("api", state, Severity::Info));
        Ok(())
    }

    /// Puts a configuration in force, except for the network, which is in place.
    async fn in_force(&mut self, loaded: Loaded) {
        block_in_place(|| {
            for one in &self.placed {
                let name = self
                    .config
                    .networks
                    .get(one.network)
                    .map_or("", |network| network.name.as_str());
                if let Some(trouble) = &one.trouble {
                    let text = format!("network {name:?}: {trouble}");
                    self.rack.event(
                        None,
                        EventKind::Note {
                            text,
                            severity: Severity::Error,
                        },
                    );
                }
            }
            let site = self.works.executor.site();
            let site = site.as_deref().map(|one| &one.site);
            self.services.apply(&self.config, &self.placed, site);
            if let Err(error) = self.site.set_addresses(&services::addresses(&self.placed)) {
                tracing::error!(error = format!("{error:#}"), "the certificate could not be made");
            }
        });
        self.admit();
        loaded.keep(&self.store);
        loaded.events.into_iter().for_each(|event| self.rack.event(None, event));
        block_in_place(|| self.follow());
        self.follow_https_boot().await;
        self.services.watch();
    }

    /// Lets in the admin whom the configuration names, or else the one of the first boot.
    fn admit(&self) {
        let token = match self.config.admin_token {
            Some(digest) => Ok(digest),
            None => self.site.admin_token(&self.options.run),
        };
        match token {
            Ok(sha256) => self.access.set_tokens(vec![Token {
                name: "admin".into(),
                sha256,
                role: Role::Admin,
            }]),
            Err(error) => tracing::error!(error = format!("{error:#}"), "there is no admin token"),
        }
    }

    /// Lets DNS, NTP, the proxy and the like follow the rack.
    fn follow(&mut self) {
        let around = local::Around {
            rack: &self.rack,
            executor: &self.works.executor,
            placed: &self.placed,
            resolvers: self.networks.resolvers(),
            volatile: self.volatile,
        };
        self.services.follow(&self.config, &around);
        self.cache.follow(&self.config, &around);
        let proxy = self.cache.door().open();
        let proxy = proxy.as_ref().map(|(proxy, _)| &**proxy);
        let lacking = offline::out_of_reach(proxy, self.works.images.as_deref());
        self.works.executor.set_out_of_reach(lacking);
        self.packs.follow(&self.config, &self.kernel);
        // Where the network is not ours to set up, neither is this.
        if !self.options.no_network_setup {
            let learnt = around.resolvers.iter().copied().map(IpAddr::from);
            self.resolv.follow(&self.config, learnt);
        }
        self.webhooks.follow(&self.config);
        self.registrations.follow(&self.config);
    }

    /// Serves until SIGTERM or SIGINT, or until the state was replaced.
    async fn serve(&mut self, source: &mut Source) -> Result<End> {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hangup = signal(SignalKind::hangup())?;
        println!("{}", self.ready());
        let mut looks = 0u32;
        let mut tick = tokio::time::interval(LOOK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let anew = self.anew.clone();
        let end = loop {
            tokio::select! {
                _ = term.recv() => break End::Stop,
                _ = interrupt.recv() => break End::Stop,
                () = anew.notified() => break End::Anew,
                _ = hangup.recv() => self.reload(source).await,
                _ = tick.tick() => {
                    looks = looks.wrapping_add(1);
                    self.look(source, looks.is_multiple_of(RETRY)).await;
                }
            }
        };
        tracing::info!("stopping");
        Ok(end)
    }

    fn ready(&self) -> String {
        let served = |one: &Placed| {
            let network = self.config.networks.get(one.network)?;
            let (address, length) = one.address?;
            Some(format!("{} {address}/{length}", network.name))
        };
        let networks: Vec<String> = self.placed.iter().filter_map(served).collect();
        let api = self
            .api
            .as_ref()
            .and_then(|api| api.addresses().first().copied())
            .unwrap_or(self.options.listen_api);
        format!(
            "rackbar: serving {}; api {api}; site CA {}",
            networks.join(", "),
            self.site.fingerprint()
        )
    }

    async fn look(&mut self, source: &mut Source, retry: bool) {
        if source.changed() {
            self.reload(source).await;
        }
        let changed = !self.options.no_network_setup
            && block_in_place(|| {
                let found = retry && self.networks.find_missing(&self.config, &mut self.placed);
                self.follow_leases() || found
            });
        block_in_place(|| {
            if changed {
                if !self.options.no_network_setup {
                    self.networks.route(&self.config, &mut self.placed);
                }
                let site = self.works.executor.site();
                let site = site.as_deref().map(|one| &one.site);
                self.services.apply(&self.config, &self.placed, site);
                if let Err(error) = self.site.set_addresses(&services::addresses(&self.placed)) {
                    tracing::error!(error = format!("{error:#}"), "the certificate could not be made");
                }
            } else if retry {
                // A route goes with its interface, and may be taken away by hand.
                if !self.options.no_network_setup {
                    self.networks.route(&self.config, &mut self.placed);
                }
                self.services.start_missing();
            }
            self.follow();
            self.services.watch();
        });
        if changed || retry {
            self.follow_https_boot().await;
        }
    }

    /// HTTPS boot follows the configuration and our addresses.
    async fn follow_https_boot(&mut self) {
        let (addresses, documents) = (services::addresses(&self.placed), self.services.documents());
        self.https_boot.follow(&self.config, addresses, documents).await;
    }

    /// An uplink that got or lost its address, or a rack network whose DHCP server answered at last. True when an address
    /// of ours is another one now. Where machines have addresses of ours already, ours stays: they know us by it.
    fn follow_leases(&mut self) -> bool {
        let beside = self.services.beside_others();
        for one in &mut self.placed {
            let network = self.config.networks.get(one.network);
            if network.is_some_and(|network| beside.contains(&network.name)) {
                self.networks.ask_again(&self.config, one);
            }
        }
        self.networks.follow_leases(&self.config, &mut self.placed)
    }

    async fn reload(&mut self, source: &mut Source) {
        let loaded = match source.again() {
            Ok(loaded) => loaded,
            Err(bad) => {
                if let EventKind::Config { source, outcome, .. } = &*bad {
                    tracing::error!(
                        source,
                        outcome,
                        "the configuration was not taken; the last good one stays in force"
                    );
                }
                self.rack.event(None, *bad);
                return;
            }
        };
        let old = &self.config;
        if loaded.config.networks != old.networks || loaded.config.remotes != old.remotes {
            self.placed = place(&self.options, &mut self.networks, &loaded.config);
        }
        self.config = loaded.config.clone();
        give_logins(&self.devices, &self.rack, &self.config);
        self.in_force(loaded).await;
    }

    async fn stop(self) {
        let Self {
            rack,
            store,
            services,
            api,
            mut https_boot,
            mut tasks,
            stop,
            networks,
            devices,
            works,
            cache,
            packs,
            webhooks,
            registrations,
            ..
        } = self;
        stop.send_replace(true);
        if let Some(api) = api {
            api.stop().await;
        }
        https_boot.stop().await;
        webhooks.stop().await;
        registrations.stop().await;
        while tasks.join_next().await.is_some() {}
        block_in_place(|| {
            // What is under way is taken up by the next start.
            drop(works);
            services.stop();
            packs.stop();
            cache.stop();
            drop(networks);
        });
        drop(devices);
        drop(rack);
        block_in_place(|| store.close());
        tracing::info!("stopped");
    }
}
