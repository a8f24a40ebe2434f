//! Registrations in the daemon: what the site and the machines want, the registrar that sees to it, and what people see
//! and change of it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rackbar_control::operations::{Refused, RegistrationEntry, RegistrationState};
use rackbar_handoff::consul;
use rackbar_model::{EventKind, Severity};
use rackbar_orchestrator::Rack;
use rackbar_orchestrator::executor::Executor;
use rackbar_outward::Parent;
use rackbar_plan::site::Consul;
use rackbar_registry::{Entry, Place, Registrar, Report, Source, Standing, Wanted, token_key};
use rackbar_store::{Store, StoreError, Table};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use super::services::status;
use crate::config::Config;

/// Tokens of registries are short; headers have bounds.
const LONGEST_TOKEN: usize = 1024;

/// The proxy through which registries are reached now.
type InForce = Arc<Mutex<Option<Parent>>>;

/// The way to registrations for API and command line.
#[derive(Clone)]
pub(super) struct RegistryDoor {
    store: Store,
    executor: Executor,
    seen: Arc<Mutex<Standing>>,
    news: Arc<Notify>,
}

/// The registrar at work.
pub(super) struct Registrations {
    door: RegistryDoor,
    parent: InForce,
    tasks: JoinSet<()>,
}

impl Registrations {
    /// Begins at once with what is in force. To be called within a tokio runtime.
    pub(super) fn start(rack: &Rack, store: Store, executor: Executor, config: &Config) -> Self {
        let parent: InForce = Arc::new(Mutex::new(config.proxy.parent.clone()));
        let door = RegistryDoor {
            store: store.clone(),
            executor: executor.clone(),
            seen: Arc::default(),
            news: Arc::default(),
        };
        let registrar = Registrar::new(
            store,
            source(rack, executor, (&config.name, parent.clone())),
            report(rack, &door),
        );
        let (mut events, news) = (rack.subscribe(), door.news.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                match events.recv().await {
                    Ok(event) if !is_news(&event.kind) => {}
                    Err(RecvError::Closed) => return,
                    // What was missed may have been some.
                    Ok(_) | Err(RecvError::Lagged(_)) => news.notify_waiters(),
                }
            }
        });
        tasks.spawn(registrar.run(door.news.clone()));
        Self { door, parent, tasks }
    }

    /// Puts in force what is configured now. Cheap when nothing changed.
    pub(super) fn follow(&self, config: &Config) {
        let mut parent = locked(&self.parent);
        if *parent != config.proxy.parent {
            parent.clone_from(&config.proxy.parent);
            self.door.news.notify_waiters();
        }
    }

    pub(super) fn door(&self) -> RegistryDoor {
        self.door.clone()
    }

    /// Ends it. What was under way is looked at again by the next start.
    pub(super) async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// What may change who is registered, and under which address.
fn is_news(kind: &EventKind) -> bool {
    matches!(
        kind,
        EventKind::StateChanged { .. }
            | EventKind::SiteSet { .. }
            | EventKind::RoleBound { .. }
            | EventKind::NodesMerged { .. }
            | EventKind::Changed { .. }
            | EventKind::DhcpAck { .. }
    )
}

fn source(rack: &Rack, executor: Executor, (name, parent): (&str, InForce)) -> Source {
    let (rack, name) = (rack.clone(), name.to_owned());
    Arc::new(move || {
        // Without a site nobody has said anything of registrations: what is there stays.
        let site = executor.site()?;
        let nodes = rack.nodes();
        let view = rackbar_handoff::Rack {
            name: &name,
            site: Some(&site.site),
            nodes: &nodes,
        };
        let Some(of_site) = &site.site.handoff.consul else {
            return Some(Wanted::default());
        };
        Some(Wanted {
            place: Some(place(of_site, locked(&parent).clone())),
            machines: consul::wanted(&view),
        })
    })
}

fn place(of_site: &Consul, parent: Option<Parent>) -> Place {
    let roots = of_site.authority.iter().flat_map(|pem| {
        // One that cannot be read is trusted by nobody; the registry's certificate is then refused in words.
        rackbar_proxy::authorities(pem).unwrap_or_else(|error| {
            tracing::warn!(error, "[handoff.consul] authority");
            vec![Vec::new()]
        })
    });
    Place {
        url: of_site.url.clone(),
        datacenter: of_site.datacenter.clone(),
        roots: roots.collect(),
        parent,
    }
}

fn report(rack: &Rack, door: &RegistryDoor) -> Report {
    let (rack, seen) = (rack.clone(), door.seen.clone());
    Arc::new(move |standing: &Standing| {
        let before = std::mem::replace(&mut *locked(&seen), standing.clone());
        // A rack without registrations has no such service.
        if standing.url.is_some() || !standing.entries.is_empty() || before.url.is_some() {
            let (words, severity) = words(standing);
            rack.set_service(status("registrations", words, severity));
        }
    })
}

/// How it stands. Words that change with each machine would make an event of each.
fn words(standing: &Standing) -> (String, Severity) {
    let in_trouble = standing.entries.iter().filter(|one| one.trouble.is_some()).count();
    match (&standing.url, &standing.trouble) {
        (Some(url), Some(trouble)) => (format!("{url}: {trouble}; it is tried again"), Severity::Warning),
        (None, Some(trouble)) => (format!("{trouble}; it is tried again"), Severity::Warning),
        (_, None) if in_trouble > 0 => (
            format!("{in_trouble} machines are not registered as wanted: see `rackbar registration list`"),
            Severity::Warning,
        ),
        (Some(url), None) => (format!("services of ready machines are in {url}"), Severity::Info),
        (None, None) => ("nothing is registered any more".into(), Severity::Info),
    }
}

impl RegistryDoor {
    /// How it stands.
    pub(super) fn state(&self) -> Result<RegistrationState, Refused> {
        let standing = locked(&self.seen).clone();
        let token = match &standing.url {
            Some(url) => self.store.get(Table::Secrets, &token_key(url)),
            None => Ok(None),
        };
        let token = match token {
            Err(StoreError::Locked(_)) => None,
            other => other.map_err(|error| Refused::Internal(error.to_string()))?,
        };
        let entry = |one: Entry| RegistrationEntry {
            id: one.record.id,
            node: one.record.node,
            url: one.record.url,
            datacenter: one.record.datacenter,
            services: one.record.services.into_iter().collect(),
            wanted: one.wanted,
            trouble: one.trouble,
        };
        Ok(RegistrationState {
            url: standing.url,
            token: token.is_some(),
            trouble: standing.trouble,
            items: standing.entries.into_iter().map(entry).collect(),
        })
    }

    /// Keeps a token for the registry that the site in force names, or forgets it.
    pub(super) fn set_token(&self, token: Option<&str>) -> Result<(), Refused> {
        let site = self.executor.site();
        let url = site.and_then(|site| Some(site.site.handoff.consul.as_ref()?.url.clone()));
        let none = || Refused::Conflict("the site in force has no [handoff.consul] that says whose token it is".into());
        let key = token_key(&url.ok_or_else(none)?);
        match token.map(str::trim) {
            Some(token) => {
                let sound =
                    !token.is_empty() && token.len() <= LONGEST_TOKEN && token.bytes().all(|b| b.is_ascii_graphic());
                if !sound {
                    let words = format!("a token is 1 to {LONGEST_TOKEN} printable ASCII characters without blanks");
                    return Err(Refused::Invalid(words));
                }
                let kept = self.store.put(Table::Secrets, &key, token.as_bytes());
                kept.map_err(|error| match error {
                    StoreError::Locked(_) => Refused::Conflict(error.to_string()),
                    _ => Refused::Internal(format!("the token could not be kept: {error}")),
                })?;
            }
            None => self.store.queue(Table::Secrets, &key, None),
        }
        self.news.notify_waiters();
        Ok(())
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
