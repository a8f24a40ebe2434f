//! Webhooks in the daemon: one deliverer for each of the configuration's, and what people see and change of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rackbar_control::operations::{Refused, WebhookEntry};
use rackbar_model::Severity;
use rackbar_orchestrator::Rack;
use rackbar_outward::Parent;
use rackbar_store::{Store, Table};
use rackbar_webhooks::{Deliverer, Hook, Report, Secret, Standing, secret_key};
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::task::JoinSet;

use super::services::status;
use crate::config::Config;

/// What is told of each hook.
type Seen = Arc<Mutex<BTreeMap<String, (Hook, Standing)>>>;

/// The way to webhooks for API and command line.
#[derive(Clone)]
pub(super) struct HookDoor {
    store: Store,
    seen: Seen,
}

/// All webhooks.
pub(super) struct Webhooks {
    rack: Rack,
    site: String,
    door: HookDoor,
    news: Arc<Notify>,
    /// Says that the journal has more.
    teller: JoinSet<()>,
    /// One set for each hook, so that it can be ended and waited for.
    running: BTreeMap<String, (Hook, JoinSet<()>)>,
    /// The proxy through which receivers are reached.
    parent: Option<Parent>,
    /// Cursors of hooks that are not configured any more were dropped.
    swept: bool,
}

impl Webhooks {
    /// None yet. To be called within a tokio runtime.
    pub(super) fn new(rack: Rack, store: Store, site: &str) -> Self {
        let news = Arc::new(Notify::new());
        let (mut events, told) = (rack.subscribe(), news.clone());
        let mut teller = JoinSet::new();
        teller.spawn(async move {
            while !matches!(events.recv().await, Err(RecvError::Closed)) {
                told.notify_waiters();
            }
        });
        Self {
            rack,
            site: site.to_owned(),
            door: HookDoor {
                store,
                seen: Seen::default(),
            },
            news,
            teller,
            running: BTreeMap::new(),
            parent: None,
            swept: false,
        }
    }

    pub(super) fn door(&self) -> HookDoor {
        self.door.clone()
    }

    /// Puts in force what is configured now. Cheap when nothing changed.
    pub(super) fn follow(&mut self, config: &Config) {
        let gone: Vec<String> = self
            .running
            .keys()
            .filter(|name| !config.webhooks.iter().any(|hook| hook.name == **name))
            .cloned()
            .collect();
        for name in gone {
            self.running.remove(&name);
            locked(&self.door.seen).remove(&name);
            // Whoever configures it again wants to hear what happens from then on.
            self.door.store.queue(Table::Webhooks, name.as_bytes(), None);
            self.say(&name, "not configured any more", Severity::Info);
        }
        self.sweep(config);
        if self.parent != config.proxy.parent {
            self.parent.clone_from(&config.proxy.parent);
            self.running.clear();
        }
        for hook in &config.webhooks {
            if self.running.get(&hook.name).is_none_or(|(other, _)| other != hook) {
                self.running.remove(&hook.name);
                self.start(hook);
            }
        }
    }

    /// Drops the cursors of hooks that went out of the configuration while this program did not run.
    fn sweep(&mut self, config: &Config) {
        if std::mem::replace(&mut self.swept, true) {
            return;
        }
        for (name, _) in self.door.store.list(Table::Webhooks).unwrap_or_default() {
            if !config.webhooks.iter().any(|hook| hook.name.as_bytes() == name) {
                self.door.store.queue(Table::Webhooks, &name, None);
            }
        }
    }

    fn start(&mut self, hook: &Hook) {
        let (rack, seen, kept) = (self.rack.clone(), self.door.seen.clone(), hook.clone());
        let report: Report = Arc::new(move |standing: &Standing| {
            locked(&seen).insert(kept.name.clone(), (kept.clone(), standing.clone()));
            let (words, severity) = words(&kept, standing);
            rack.set_service(status(&format!("webhook {}", kept.name), words, severity));
        });
        let made = Deliverer::new(
            hook.clone(),
            self.parent.clone(),
            &self.site,
            self.door.store.clone(),
            report,
        );
        match made {
            Ok(deliverer) => {
                let mut tasks = JoinSet::new();
                tasks.spawn(deliverer.run(self.news.clone()));
                self.running.insert(hook.name.clone(), (hook.clone(), tasks));
            }
            Err(error) => self.say(&hook.name, &format!("the store refuses: {error}"), Severity::Error),
        }
    }

    fn say(&self, hook: &str, words: &str, severity: Severity) {
        self.rack
            .set_service(status(&format!("webhook {hook}"), words.to_owned(), severity));
    }

    /// Ends all. What was under way is told again by the next start.
    pub(super) async fn stop(mut self) {
        self.teller.shutdown().await;
        for (_, mut tasks) in self.running.into_values() {
            tasks.shutdown().await;
        }
    }
}

/// How a hook is doing. Words that change with each event would make an event of each.
fn words(hook: &Hook, standing: &Standing) -> (String, Severity) {
    let mut words = match &standing.trouble {
        Some(reason) => format!("{} is not told: {reason}; it is tried again", hook.url),
        None => format!("telling {}", hook.url),
    };
    if standing.lost > 0 {
        words.push_str(&format!("; {} events were passed over", standing.lost));
    }
    let severity = match standing.trouble {
        Some(_) => Severity::Warning,
        None => Severity::Info,
    };
    (words, severity)
}

impl HookDoor {
    /// All of them, by name.
    pub(super) fn list(&self) -> Result<Vec<WebhookEntry>, Refused> {
        let last = self.store.last_seq();
        let seen = locked(&self.seen).clone();
        let entry = |(name, (hook, standing)): (String, (Hook, Standing))| {
            let secret = self.store.get(Table::Secrets, &secret_key(&name));
            let secret = secret.map_err(|error| Refused::Internal(error.to_string()))?;
            Ok(WebhookEntry {
                name,
                to: hook.url.to_string(),
                events: hook.events,
                severity: hook.severity,
                signed: secret.is_some(),
                after: standing.after,
                behind: last.saturating_sub(standing.after),
                heard: standing.heard,
                trouble: standing.trouble,
                passed_over: standing.lost,
            })
        };
        seen.into_iter().map(entry).collect()
    }

    /// Gives a hook a secret, a random one when none is given; gives its text.
    pub(super) fn set_secret(&self, name: &str, given: Option<String>) -> Result<String, Refused> {
        if !locked(&self.seen).contains_key(name) {
            let problem = format!("there is no webhook {name:?} in rackbar.toml");
            return Err(Refused::NotFound(problem));
        }
        let internal = |error: String| Refused::Internal(format!("the secret could not be kept: {error}"));
        let text = match given {
            Some(text) => text.trim().to_owned(),
            None => Secret::text_of(&rackbar_trust::random().map_err(|error| internal(error.to_string()))?),
        };
        Secret::parse(&text).map_err(|error| Refused::Invalid(error.to_string()))?;
        let kept = self.store.put(Table::Secrets, &secret_key(name), text.as_bytes());
        kept.map_err(|error| internal(error.to_string()))?;
        Ok(text)
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
