//! Where the configuration comes from: the file on the boot medium, else the kernel's arguments, else the safe default;
//! and when the file is bad, the last one that was good.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rackbar_model::{EventKind, Severity};
use rackbar_store::{Store, Table};

use crate::config::{self, Config};

/// Key of the last good file in the store.
const LAST_GOOD: &[u8] = b"last-good";

/// Watches one configuration file.
pub(super) struct Source {
    path: PathBuf,
    kernel: String,
    seen: Option<(SystemTime, u64)>,
}

/// A configuration and what is to be told about it.
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) events: Vec<EventKind>,
    /// The file's text, to be kept once it is in force.
    text: Option<String>,
}

impl Loaded {
    /// Keeps the file as the last good one.
    pub(super) fn keep(&self, store: &Store) {
        if let Some(text) = &self.text {
            store.queue(Table::Config, LAST_GOOD, Some(text.as_bytes()));
        }
    }
}

fn told(source: String, outcome: String, severity: Severity) -> EventKind {
    EventKind::Config {
        source,
        outcome,
        severity,
    }
}

impl Source {
    /// A source for the file at `path` and the kernel's command line.
    pub(super) fn new(path: PathBuf, kernel: String) -> Self {
        Self {
            path,
            kernel,
            seen: None,
        }
    }

    /// The configuration at start. Always gives one.
    pub(super) fn first(&mut self, store: &Store) -> Loaded {
        self.seen = stamp(&self.path);
        let mut events = Vec::new();
        if self.seen.is_some() {
            match self.read() {
                Ok(mut loaded) => {
                    loaded.events.splice(0..0, events);
                    return loaded;
                }
                Err(bad) => events.push(bad),
            }
            if let Some(mut loaded) = last_good(store) {
                loaded.events.splice(0..0, events);
                return loaded;
            }
        }
        let mut loaded = self.without_file();
        loaded.events.splice(0..0, events);
        loaded
    }

    /// True when the file is another one than at the last look.
    pub(super) fn changed(&self) -> bool {
        stamp(&self.path) != self.seen
    }

    /// The configuration after a change of the file; `Err` is the event that tells what is wrong with it.
    pub(super) fn again(&mut self) -> Result<Loaded, EventKind> {
        self.seen = stamp(&self.path);
        match self.seen {
            Some(_) => self.read(),
            None => Ok(self.without_file()),
        }
    }

    fn read(&self) -> Result<Loaded, EventKind> {
        let source = self.path.display().to_string();
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| told(source.clone(), format!("not read: {error}"), Severity::Error))?;
        match config::check(&text) {
            Ok(config) => {
                let events = vec![told(source, "taken".into(), Severity::Info)];
                Ok(Loaded {
                    config,
                    events,
                    text: Some(text),
                })
            }
            Err(errors) => Err(told(source, config::in_words(&errors), Severity::Error)),
        }
    }

    fn without_file(&self) -> Loaded {
        let mut events = Vec::new();
        match config::from_kernel_arguments(&self.kernel) {
            Some(Ok(config)) => {
                events.push(told("kernel arguments".into(), "taken".into(), Severity::Info));
                return Loaded {
                    config,
                    events,
                    text: None,
                };
            }
            Some(Err(errors)) => {
                events.push(told(
                    "kernel arguments".into(),
                    config::in_words(&errors),
                    Severity::Error,
                ));
            }
            None => {}
        }
        let outcome = format!(
            "taken: there is no {}, so this appliance listens before it speaks",
            self.path.display()
        );
        events.push(told("safe default".into(), outcome, Severity::Info));
        // A test checks the default, so this cannot be another error.
        let config =
            config::check(config::DEFAULT).unwrap_or_else(|errors| unreachable!("{}", config::in_words(&errors)));
        Loaded {
            config,
            events,
            text: None,
        }
    }
}

fn last_good(store: &Store) -> Option<Loaded> {
    let text = store.get(Table::Config, LAST_GOOD).ok()??;
    let config = config::check(&String::from_utf8(text).ok()?).ok()?;
    let outcome = "taken: the last good configuration stays in force until the file is right";
    let events = vec![told(
        "last good configuration".into(),
        outcome.into(),
        Severity::Warning,
    )];
    Some(Loaded {
        config,
        events,
        text: None,
    })
}

/// Changes when the file does; FAT keeps times to two seconds, so the size counts too.
fn stamp(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn severities(loaded: &Loaded) -> Vec<Severity> {
        let severity = EventKind::severity;
        loaded.events.iter().map(severity).collect()
    }

    #[test]
    fn a_bad_file_leaves_the_last_good_one_in_force() {
        let store = Store::in_memory(rackbar_store::Options::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rackbar.toml");
        let mut source = Source::new(path.clone(), String::new());
        assert_eq!(source.first(&store).config.name, "rackbar", "no file: the default");

        std::fs::write(&path, config::DEFAULT.replace("\"rackbar\"", "\"good\"")).unwrap();
        assert!(source.changed());
        let good = source.again().ok().unwrap();
        assert_eq!(good.config.name, "good");
        good.keep(&store);
        store.flush().unwrap();
        assert!(!source.changed());

        std::fs::write(&path, "version = 1\nname = \"bad\"\nnetwork = 3\n").unwrap();
        let Err(EventKind::Config { outcome, severity, .. }) = source.again() else {
            panic!("taken")
        };
        assert_eq!(severity, Severity::Error);
        assert!(outcome.starts_with("line 3"), "{outcome}");

        let restarted = Source::new(path, String::new()).first(&store);
        assert_eq!(restarted.config.name, "good");
        assert_eq!(severities(&restarted), [Severity::Error, Severity::Warning]);
    }

    #[test]
    fn kernel_arguments_come_after_the_file_and_before_the_default() {
        let store = Store::in_memory(rackbar_store::Options::default()).unwrap();
        let nowhere = PathBuf::from("/nonexistent/rackbar.toml");
        let mut source = Source::new(nowhere.clone(), "rackbar.name=k rackbar.address=10.1.0.1/24".into());
        assert_eq!(source.first(&store).config.name, "k");
        let bad = Source::new(nowhere, "rackbar.address=nonsense".into()).first(&store);
        assert_eq!(bad.config.name, "rackbar");
        assert_eq!(severities(&bad), [Severity::Error, Severity::Info]);
    }
}
