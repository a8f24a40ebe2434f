//! The executor and the image catalogue in the daemon, and the site file that lies on the boot medium.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use rackbar_artifacts::carry::{IMAGES, PROGRAMS};
use rackbar_artifacts::images::{Images, budget};
use rackbar_artifacts::{Artifacts, Programs};
use rackbar_model::{EventKind, Severity};
use rackbar_orchestrator::Rack;
use rackbar_orchestrator::adopt::Adopter;
use rackbar_orchestrator::executor::{Executor, Parts, SETTINGS_LOOK};
use rackbar_orchestrator::hands::{Appliance, Reach};
use rackbar_plan::OwnService;
use rackbar_plan::engine::Bounds;
use rackbar_services::EventSink as _;
use rackbar_store::Store;
use rackbar_trust::SigningKey;

use super::{carry, keep};

/// The site file on the boot medium, beside `rackbar.toml`.
const SITE_FILE: &str = "site.toml";

/// What takes machines from discovered to ready.
#[derive(Clone)]
pub(super) struct Works {
    pub(super) executor: Executor,
    pub(super) images: Option<Arc<Images>>,
    pub(super) programs: Option<Programs>,
    pub(super) adopter: Adopter,
}

/// What the executor is started with.
pub(super) struct Start<'a> {
    pub(super) rack: &'a Rack,
    pub(super) store: &'a Store,
    pub(super) artifacts: Arc<Artifacts>,
    pub(super) signer: Arc<SigningKey>,
    pub(super) name: &'a str,
    /// Folder of the store.
    pub(super) data: &'a Path,
    pub(super) http: SocketAddr,
    /// The configuration file.
    pub(super) config: &'a Path,
    /// The program that looks at machines which are adopted.
    pub(super) agent: &'a Path,
}

impl Works {
    /// Opens the catalogue and starts the executor, which takes up what was under way.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn start(start: Start<'_>) -> Result<Self> {
        let images = open_images(start.rack, start.data, start.artifacts);
        let programs = open_programs(start.rack, start.data);
        let reach = Reach {
            http_port: start.http.port(),
            ..Reach::default()
        };
        let (rack, store) = (start.rack.clone(), start.store.clone());
        let hands = Appliance::new(rack.clone(), store.clone(), images.clone(), reach)?;
        let hands = hands.with_programs(programs.clone());
        let parts = Parts {
            hands: Arc::new(hands),
            images: images.clone(),
            programs: programs.clone(),
            // A site file that says "own" turns them on, so they are always to be had.
            services: BTreeSet::from([OwnService::Dns, OwnService::Ntp, OwnService::Syslog, OwnService::Proxy]),
            bounds: Bounds::default(),
            settings_look: SETTINGS_LOOK,
            signer: start.signer,
            site_name: start.name.to_owned(),
            put_in: carry::put_in(start.data),
        };
        let executor =
            Executor::start(rack.clone(), store.clone(), parts).context("the executor cannot read the store")?;
        if executor.is_written() {
            keep::forget_import(start.data);
        }
        if let Some(programs) = &programs {
            programs.sweep(&executor.programs_in_use());
        }
        let adopter = Adopter::new(rack, &store, executor.clone(), start.agent.to_owned())?;
        let works = Self {
            adopter,
            executor,
            images,
            programs,
        };
        works.first_site(start.rack, start.config);
        Ok(works)
    }

    /// Takes `site.toml` from beside the configuration when no site is in force. Afterwards the one that was set through
    /// the API or the page rules, and the file is only mentioned.
    fn first_site(&self, rack: &Rack, config: &Path) {
        let path = config.with_file_name(SITE_FILE);
        let Ok(text) = std::fs::read_to_string(&path) else {
            return;
        };
        let source = path.display().to_string();
        let (outcome, severity) = match self.executor.site() {
            Some(site) if site.text == text => return,
            Some(site) => {
                let words = format!(
                    "not taken: the site that {} set on {} is in force and rules; `rackbar site set {source}` puts the \
                     file in its place",
                    site.by, site.since
                );
                (words, Severity::Info)
            }
            None => match self.executor.set_site(&text, &source) {
                Ok(_) => {
                    let words = "taken, as no site was in force; from now on the API and the page rule".to_owned();
                    (words, Severity::Info)
                }
                Err(problems) => {
                    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
                    (format!("refused: {}", lines.join("; ")), Severity::Error)
                }
            },
        };
        rack.event(
            None,
            EventKind::Config {
                source,
                outcome,
                severity,
            },
        );
    }
}

fn open_images(rack: &Rack, data: &Path, artifacts: Arc<Artifacts>) -> Option<Arc<Images>> {
    let folder: PathBuf = data.join(IMAGES);
    let opened = std::fs::create_dir_all(&folder)
        .map_err(|error| format!("{}: {error}", folder.display()))
        .and_then(|()| Images::open(&folder, budget(&folder), artifacts).map_err(|error| error.to_string()));
    match opened {
        Ok(images) => Some(Arc::new(images)),
        Err(error) => {
            let text = format!("there is no image catalogue, so nothing can be installed: {error}");
            let severity = Severity::Error;
            rack.event(None, EventKind::Note { text, severity });
            None
        }
    }
}

fn open_programs(rack: &Rack, data: &Path) -> Option<Programs> {
    let folder = data.join(PROGRAMS);
    let tell = |text: String| {
        let severity = Severity::Error;
        rack.event(None, EventKind::Note { text, severity });
    };
    let opened = std::fs::create_dir_all(&folder)
        .map_err(|error| format!("{}: {error}", folder.display()))
        .and_then(|()| Programs::open(&folder, budget(&folder)).map_err(|error| error.to_string()));
    match opened {
        Ok(programs) => {
            programs.problems().into_iter().for_each(tell);
            Some(programs)
        }
        Err(error) => {
            tell(format!(
                "there is no place for programs, so steps can only be scripts: {error}"
            ));
            None
        }
    }
}
