//! Inserting modules, from several threads, each module once.

use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

use super::index::{ModuleIndex, canonical};

/// Parameters and refusals the kernel arguments give, as modprobe(8) reads them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Settings {
    parameters: HashMap<String, Vec<String>>,
    refused: HashSet<String>,
}

impl Settings {
    /// Takes `module.parameter=value` and `modprobe.blacklist=a,b` from kernel arguments. An operator needs these for
    /// hardware that the defaults do not fit, such as `ixgbe.allow_unsupported_sfp=1`.
    pub fn from_arguments<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Self {
        let mut settings = Self::default();
        for argument in arguments {
            let (key, value) = argument.split_once('=').unwrap_or((argument, ""));
            let Some((module, parameter)) = key.split_once('.') else {
                continue;
            };
            if (module, parameter) == ("modprobe", "blacklist") {
                settings.refused.extend(value.split(',').map(canonical));
            } else if !module.is_empty() && !parameter.is_empty() {
                let text = if argument.contains('=') {
                    format!("{parameter}={value}")
                } else {
                    parameter.to_owned()
                };
                settings.parameters.entry(canonical(module)).or_default().push(text);
            }
        }
        settings
    }
}

/// What became of one wish.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// This call inserted the module.
    Loaded(String),
    /// The kernel refused it; the text says why.
    Failed(String, String),
}

/// How a module file is inserted, with its parameters.
type Insert = Box<dyn Fn(&Path, &str) -> Result<(), Errno> + Send + Sync>;

/// The result of inserting one module, set by the first thread that wants it.
type Cell = Arc<OnceLock<Result<(), Errno>>>;

/// Inserts modules for devices; shared by the threads that look for them.
pub struct Loader {
    index: ModuleIndex,
    settings: Settings,
    insert: Insert,
    /// One cell per module: the second thread that wants a module waits until it is there.
    state: Mutex<HashMap<String, Cell>>,
}

impl Loader {
    /// A loader that asks the kernel.
    pub fn new(index: ModuleIndex, settings: Settings) -> Self {
        Self::with_insert(index, settings, insert)
    }

    /// A loader that calls `insert` with file and parameters, for tests.
    pub fn with_insert(
        index: ModuleIndex,
        settings: Settings,
        insert: impl Fn(&Path, &str) -> Result<(), Errno> + Send + Sync + 'static,
    ) -> Self {
        Self {
            index,
            settings,
            insert: Box::new(insert),
            state: Mutex::default(),
        }
    }

    /// Loads what `modalias` (or a module's name) asks for. Empty when no module of the image claims it, or all that
    /// do are there already.
    pub fn load(&self, modalias: &str) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for name in self.index.find(modalias) {
            // modprobe's rule: the blacklist hides aliases, and a module that somebody names is still loaded.
            if self.settings.refused.contains(&name) && name != canonical(modalias) {
                continue;
            }
            for step in self.index.plan(&name) {
                let cell = self.cell(&step.name);
                let mut mine = false;
                let result = *cell.get_or_init(|| {
                    mine = true;
                    (self.insert)(&step.file, &self.parameters(&step.name))
                });
                match result {
                    Ok(()) if mine => outcomes.push(Outcome::Loaded(step.name)),
                    Err(error) if mine => outcomes.push(Outcome::Failed(step.name, explain(error))),
                    _ => {}
                }
            }
        }
        outcomes
    }

    /// True when some module of the image claims `modalias`.
    pub fn knows(&self, modalias: &str) -> bool {
        !self.index.find(modalias).is_empty()
    }

    /// True once the module was inserted by this loader.
    pub fn has_loaded(&self, name: &str) -> bool {
        matches!(self.cell(name).get(), Some(Ok(())))
    }

    fn cell(&self, name: &str) -> Cell {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.entry(name.to_owned()).or_default().clone()
    }

    fn parameters(&self, name: &str) -> String {
        self.settings
            .parameters
            .get(name)
            .map(|list| list.join(" "))
            .unwrap_or_default()
    }
}

/// `finit_module(2)`. A module that is there already, also as part of the kernel, is no failure.
fn insert(file: &Path, parameters: &str) -> Result<(), Errno> {
    let module =
        std::fs::File::open(file).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(Errno::EIO as i32)))?;
    let parameters = CString::new(parameters).unwrap_or_default();
    match finit_module(&module, &parameters, ModuleInitFlags::empty()) {
        Err(Errno::EEXIST) | Ok(()) => Ok(()),
        Err(error) => Err(error),
    }
}

fn explain(error: Errno) -> String {
    match error {
        Errno::ENODEV => "its device is not there".to_owned(),
        Errno::ENOENT => "a symbol or the file is missing: the image's modules do not fit its kernel".to_owned(),
        Errno::ENOKEY | Errno::EKEYREJECTED => {
            "its signature was refused (Secure Boot): the module was altered or signed by a foreign key".to_owned()
        }
        Errno::ENOEXEC => "it was built for another kernel".to_owned(),
        other => other.desc().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const ALIAS: &str = "alias pci:v1* a\nalias pci:v1* b\n";
    const DEP: &str = "a.ko: base.ko\nb.ko: base.ko\nbase.ko:\n";

    fn recording(settings: Settings, refuse: &'static str) -> (Loader, mpsc::Receiver<String>) {
        let (sender, receiver) = mpsc::channel();
        let loader = Loader::with_insert(ModuleIndex::parse(ALIAS, DEP, ""), settings, move |file, parameters| {
            let _ = sender.send(format!("{} {parameters}", file.display()));
            if file == Path::new(refuse) {
                Err(Errno::ENODEV)
            } else {
                Ok(())
            }
        });
        (loader, receiver)
    }

    #[test]
    fn every_module_is_inserted_once_whoever_asks() {
        let (loader, inserted) = recording(Settings::default(), "");
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| loader.load("pci:v1"));
            }
        });
        let mut inserted: Vec<String> = inserted.try_iter().collect();
        assert_eq!(inserted.first().map(String::as_str), Some("base.ko "));
        inserted.sort();
        assert_eq!(inserted, ["a.ko ", "b.ko ", "base.ko "]);
        assert!(loader.has_loaded("base"));
    }

    #[test]
    fn a_refusal_is_told_once_and_does_not_stop_the_others() {
        let (loader, _inserted) = recording(Settings::default(), "a.ko");
        let outcomes = loader.load("pci:v1");
        assert!(outcomes.contains(&Outcome::Failed("a".into(), "its device is not there".into())));
        assert!(outcomes.contains(&Outcome::Loaded("b".into())));
        assert_eq!(loader.load("pci:v1"), []);
    }

    #[test]
    fn arguments_reach_the_module_and_a_blacklist_hides_aliases_only() {
        let settings = Settings::from_arguments(["a.x=1", "a.y", "modprobe.blacklist=b,c", "quiet", "console=tty0"]);
        let (loader, inserted) = recording(settings, "");
        loader.load("pci:v1");
        assert_eq!(inserted.try_iter().collect::<Vec<_>>(), ["base.ko ", "a.ko x=1 y"]);
        loader.load("b");
        assert_eq!(inserted.try_iter().collect::<Vec<_>>(), ["b.ko "]);
    }
}
