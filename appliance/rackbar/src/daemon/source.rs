//! Where the configuration comes from: the file on the boot medium, else the kernel's arguments, else the safe default;
//! and when the file is bad, the last one that was good. The files it names are part of it: they are read and kept with
//! it, and a change of one of them is a change of the configuration.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rackbar_boot::MAX_SITE_SCRIPT;
use rackbar_model::{EventKind, Severity};
use rackbar_store::{Store, Table};

use crate::config::{self, Config, Files, MAX_BOOT_FILE, Place, Uefi};

/// Key of the last good file in the store.
const LAST_GOOD: &[u8] = b"last-good";

/// Key of the files it named, as JSON: name and text.
const ITS_FILES: &[u8] = b"last-good-files";

/// When a file was written and how long it is; `None` when there is none. FAT keeps times to two seconds, so the size
/// counts too.
type Stamp = Option<(SystemTime, u64)>;

/// Watches one configuration file.
pub(super) struct Source {
    path: PathBuf,
    kernel: String,
    /// Names of the files that the configuration names.
    named: Vec<String>,
    /// The configuration's own stamp, then theirs.
    seen: Vec<Stamp>,
    /// There was a file once.
    had: bool,
}

/// A configuration and what is to be told about it.
pub(super) struct Loaded {
    pub(super) config: Config,
    pub(super) events: Vec<EventKind>,
    /// The file's text, to be kept once it is in force.
    text: Option<String>,
    /// The files it names, by name.
    files: BTreeMap<String, String>,
}

impl Loaded {
    /// Keeps the file as the last good one.
    pub(super) fn keep(&self, store: &Store) {
        if let Some(text) = &self.text {
            let files = serde_json::to_vec(&self.files).ok();
            store.queue(Table::Config, ITS_FILES, files.as_deref());
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
            named: Vec::new(),
            seen: vec![None],
            had: false,
        }
    }

    /// The configuration at start. Always gives one.
    pub(super) fn first(&mut self, store: &Store) -> Loaded {
        let mut events = Vec::new();
        if self.path.exists() {
            match self.read() {
                Ok(loaded) => return loaded,
                Err(bad) => events.push(*bad),
            }
            if let Some(mut loaded) = last_good(store, &self.path) {
                loaded.events.splice(0..0, events);
                return loaded;
            }
        }
        // Who wrote a file wants something else than what an appliance does that was told nothing: nobody is given an address.
        let mut loaded = self.without_file(self.path.exists());
        loaded.events.splice(0..0, events);
        loaded
    }

    /// True when the file, or one that it names, is another one than at the last look.
    pub(super) fn changed(&self) -> bool {
        self.stamps() != self.seen
    }

    fn stamps(&self) -> Vec<Stamp> {
        let named = self.named.iter().map(|name| beside(&self.path, name));
        std::iter::once(self.path.clone())
            .chain(named)
            .map(|path| stamp(&path))
            .collect()
    }

    /// The configuration after a change of the file; `Err` is the event that tells what is wrong with it.
    pub(super) fn again(&mut self) -> Result<Loaded, Box<EventKind>> {
        if self.path.exists() {
            return self.read();
        }
        self.named.clear();
        self.seen = self.stamps();
        if !self.had {
            return Ok(self.without_file(false));
        }
        // A stick that was pulled out, or a virtual drive that the BMC let go: nobody wants the networks of a running rack to be
        // those of an appliance that was told nothing.
        let outcome = "the file is gone; what it said stays in force until there is one again";
        let source = self.path.display().to_string();
        Err(Box::new(told(source, outcome.to_owned(), Severity::Warning)))
    }

    fn read(&mut self) -> Result<Loaded, Box<EventKind>> {
        let before = stamp(&self.path);
        self.had = true;
        let read = read_with_files(&self.path);
        // Stamps from before reading: what is written meanwhile is a change.
        self.named = read.files.iter().map(|(name, _, _)| name.clone()).collect();
        self.seen = std::iter::once(before)
            .chain(read.files.iter().map(|(_, stamp, _)| *stamp))
            .collect();
        let source = self.path.display().to_string();
        match read.outcome {
            Ok((text, config)) => Ok(Loaded {
                events: vec![told(source, taken(&config), Severity::Info)],
                config,
                text: Some(text),
                files: read
                    .files
                    .into_iter()
                    .filter_map(|(name, _, text)| Some((name, text?)))
                    .collect(),
            }),
            Err(reason) => Err(Box::new(told(source, reason, Severity::Error))),
        }
    }

    /// By the kernel's arguments, else by the safe default; with a file that is there and `wrong`, nobody gets an address.
    fn without_file(&self, mut wrong: bool) -> Loaded {
        let mut events = Vec::new();
        match config::from_kernel_arguments(&self.kernel) {
            Some(Ok(config)) => {
                events.push(told("kernel arguments".into(), "taken".into(), Severity::Info));
                return Loaded {
                    config,
                    events,
                    text: None,
                    files: BTreeMap::new(),
                };
            }
            Some(Err(errors)) => {
                wrong = true;
                events.push(told(
                    "kernel arguments".into(),
                    config::in_words(&errors),
                    Severity::Error,
                ));
            }
            None => {}
        }
        let path = self.path.display();
        let (outcome, severity, text) = if wrong {
            let outcome = format!(
                "taken: until {path} is right (or the kernel's arguments are), this appliance can be reached and gives no addresses"
            );
            (
                outcome,
                Severity::Warning,
                config::DEFAULT.replace(config::DEFAULT_DHCP, "dhcp = \"off\""),
            )
        } else {
            let outcome = format!("taken: there is no {path}, so this appliance listens before it speaks");
            (outcome, Severity::Info, config::DEFAULT.to_owned())
        };
        events.push(told("safe default".into(), outcome, severity));
        // A test checks the default, so this cannot be another error.
        let config = config::check(&text, &config::no_files)
            .unwrap_or_else(|errors| unreachable!("{}", config::in_words(&errors)));
        Loaded {
            config,
            events,
            text: None,
            files: BTreeMap::new(),
        }
    }
}

/// What reading a configuration gave.
pub(super) struct Read {
    /// Its text and what it means, or everything that is wrong with it.
    pub(super) outcome: Result<(String, Config), String>,
    /// Name, stamp and, of a script, text of the files it names.
    files: Vec<(String, Stamp, Option<String>)>,
}

/// The files beside a configuration; notes which were asked for.
struct Beside<'p> {
    path: &'p Path,
    asked: RefCell<Vec<(String, Stamp, Option<String>)>>,
}

impl Beside<'_> {
    fn note(&self, name: &str, stamp: Stamp, text: Option<String>) {
        self.asked.borrow_mut().push((name.to_owned(), stamp, text));
    }
}

impl Files for Beside<'_> {
    fn text(&self, name: &str) -> Result<String, String> {
        let file = beside(self.path, name);
        // From before reading: what is written meanwhile is a change.
        let stamp = stamp(&file);
        let read = read_script(&file);
        self.note(name, stamp, Some(read.as_ref().cloned().unwrap_or_default()));
        read.map_err(|error| error.to_string())
    }

    fn content(&self, name: &str) -> Result<Option<Arc<[u8]>>, String> {
        let file = beside(self.path, name);
        self.note(name, stamp(&file), None);
        read_boot_file(&file).map(Some).map_err(|error| error.to_string())
    }
}

/// The files of the last good configuration: scripts as they were then, boot files as they lie there now.
struct Kept<'p> {
    path: &'p Path,
    texts: BTreeMap<String, String>,
}

impl Files for Kept<'_> {
    fn text(&self, name: &str) -> Result<String, String> {
        self.texts.get(name).cloned().ok_or_else(|| "was not kept".to_owned())
    }

    fn content(&self, name: &str) -> Result<Option<Arc<[u8]>>, String> {
        let read = read_boot_file(&beside(self.path, name)).ok();
        Ok(read.filter(|content| (1..=MAX_BOOT_FILE).contains(&content.len())))
    }
}

/// Reads the configuration at `path`, and the files it names, which lie beside it.
pub(super) fn read_with_files(path: &Path) -> Read {
    let files = Beside {
        path,
        asked: RefCell::default(),
    };
    let outcome = std::fs::read_to_string(path)
        .map_err(|error| format!("not read: {error}"))
        .and_then(|text| match config::check(&text, &files) {
            Ok(config) => Ok((text, config)),
            Err(errors) => Err(config::in_words(&errors)),
        });
    Read {
        outcome,
        files: files.asked.into_inner(),
    }
}

fn beside(path: &Path, name: &str) -> PathBuf {
    path.parent().unwrap_or(Path::new("/")).join(name)
}

/// Not more than one byte over what a script may have: somebody may have named a disk.
fn read_script(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    let limit = MAX_SITE_SCRIPT as u64 + 1;
    std::fs::File::open(path)?.take(limit).read_to_string(&mut text)?;
    Ok(text)
}

/// Not more than one byte over what a boot file may have.
fn read_boot_file(path: &Path) -> std::io::Result<Arc<[u8]>> {
    let file = std::fs::File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("is no file"));
    }
    let mut content = Vec::new();
    file.take(MAX_BOOT_FILE as u64 + 1).read_to_end(&mut content)?;
    Ok(content.into())
}

/// "Taken", and what an operator may not expect of it.
fn taken(config: &Config) -> String {
    if config.boot.scripts.is_empty() || config.boot.uefi == Uefi::Snponly {
        return "taken".into();
    }
    "taken; the boot.script reaches machines with BIOS only: write boot.uefi = \"snponly.efi\" for those with UEFI, which \
     get Rackbar's own loader now"
        .into()
}

fn last_good(store: &Store, path: &Path) -> Option<Loaded> {
    let text = store.get(Table::Config, LAST_GOOD).ok()??;
    let files = store.get(Table::Config, ITS_FILES).ok()?.unwrap_or_default();
    let texts = serde_json::from_slice(&files).unwrap_or_default();
    let config = config::check(&String::from_utf8(text).ok()?, &Kept { path, texts }).ok()?;
    let mut outcome = "taken: the last good configuration stays in force until the file is right".to_owned();
    for file in &config.boot.files {
        if let Place::Here(file) = &file.place
            && file.content.is_none()
        {
            outcome += &format!("; without the boot file {}, which is not there any more", file.name);
        }
    }
    let events = vec![told("last good configuration".into(), outcome, Severity::Warning)];
    Some(Loaded {
        config,
        events,
        text: None,
        files: BTreeMap::new(),
    })
}

fn stamp(path: &Path) -> Stamp {
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
        let Some(EventKind::Config { outcome, severity, .. }) = source.again().err().map(|bad| *bad) else {
            panic!("taken")
        };
        assert_eq!(severity, Severity::Error);
        assert!(outcome.starts_with("line 3"), "{outcome}");

        // One that goes away as well, also when it is asked for again.
        std::fs::remove_file(&path).unwrap();
        for _ in 0..2 {
            let gone = source.again().err().unwrap().to_string();
            assert!(gone.contains("the file is gone; what it said stays in force"), "{gone}");
            assert!(!source.changed());
        }
        std::fs::write(&path, "version = 1\nname = \"bad\"\nnetwork = 3\n").unwrap();

        let restarted = Source::new(path, String::new()).first(&store);
        assert_eq!(restarted.config.name, "good");
        assert_eq!(severities(&restarted), [Severity::Error, Severity::Warning]);
    }

    #[test]
    fn a_script_file_is_part_of_the_configuration_and_kept_with_it() {
        let store = Store::in_memory(rackbar_store::Options::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let (path, menu) = (dir.path().join("rackbar.toml"), dir.path().join("menu.ipxe"));
        std::fs::write(
            &path,
            format!("{}[[boot.script]]\nfile = \"menu.ipxe\"\n", config::DEFAULT),
        )
        .unwrap();
        let mut source = Source::new(path.clone(), String::new());
        let missing = source.again().err().unwrap();
        assert!(
            missing
                .to_string()
                .contains("boot.script.file: \"menu.ipxe\": No such file"),
            "{missing}"
        );

        std::fs::write(&menu, "#!ipxe\ngoto rackbar\n").unwrap();
        assert!(source.changed(), "the file it waited for is there");
        let good = source.again().ok().unwrap();
        assert!(!source.changed());
        assert_eq!(good.config.boot.scripts.len(), 1);
        assert!(
            good.events[0].to_string().contains("with BIOS only"),
            "{}",
            good.events[0]
        );
        good.keep(&store);
        store.flush().unwrap();

        std::fs::write(&menu, "echo no script").unwrap();
        assert!(source.changed());
        let bad = source.again().err().unwrap();
        assert!(bad.to_string().contains("must be `#!ipxe`"), "{bad}");
        let restarted = Source::new(path, String::new()).first(&store);
        assert_eq!(
            restarted.config.boot.scripts, good.config.boot.scripts,
            "as it was when it was good"
        );
    }

    #[test]
    fn kernel_arguments_come_after_the_file_and_before_the_default() {
        let store = Store::in_memory(rackbar_store::Options::default()).unwrap();
        let nowhere = PathBuf::from("/nonexistent/rackbar.toml");
        let mut source = Source::new(nowhere.clone(), "rackbar.name=k rackbar.address=10.1.0.1/24".into());
        assert_eq!(source.first(&store).config.name, "k");
        let bad = Source::new(nowhere, "rackbar.address=nonsense".into()).first(&store);
        assert_eq!(bad.config.name, "rackbar");
        assert_eq!(severities(&bad), [Severity::Error, Severity::Warning]);
        assert_eq!(bad.config.networks[0].dhcp, config::Dhcp::Off);
    }

    /// A rack whose file has a typing mistake at the first start gets no second DHCP server for it.
    #[test]
    fn a_file_that_never_was_right_gives_nobody_an_address() {
        let store = Store::in_memory(rackbar_store::Options::default()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rackbar.toml");
        let told_nothing = Source::new(path.clone(), String::new()).first(&store);
        assert_eq!(told_nothing.config.networks[0].dhcp, config::Dhcp::Auto);
        std::fs::write(&path, "version = 1\nnetwork = 3\n").unwrap();
        let wrong = Source::new(path, String::new()).first(&store);
        assert_eq!(severities(&wrong), [Severity::Error, Severity::Warning]);
        assert_eq!(wrong.config.networks[0].dhcp, config::Dhcp::Off);
        assert_eq!(wrong.config.networks[0].name, told_nothing.config.networks[0].name);
    }
}
