//! What the daemon needs before and beside its services: its store, and the passwords of BMCs.

use std::path::Path;

use anyhow::Result;
use rackbar_model::{EventKind, Severity};
use rackbar_orchestrator::{Devices, Rack};
use rackbar_services::EventSink as _;
use rackbar_store::{Store, StoreError};
use tokio::task::block_in_place;

use super::Options;
use super::network::{self, Networks, Placed};
use super::services::status;
use crate::config::{Config, Password};

/// The store's file on the data partition.
pub(super) const STORE: &str = "rackbar.redb";

/// The store on the data partition. One that cannot be read is put aside, never thrown away; when there is no place at
/// all the appliance works from memory and says so.
pub(super) fn open_store(folder: &Path) -> Result<(Store, Vec<EventKind>)> {
    let path = folder.join(STORE);
    let error = match std::fs::create_dir_all(folder).map_err(|error| error.to_string()) {
        Ok(()) => match Store::open(&path) {
            Ok(store) => return Ok((store, Vec::new())),
            Err(error @ (StoreError::Damaged { .. } | StoreError::Newer { .. })) => {
                let aside = path.with_extension(format!("aside-{}", status("", String::new(), Severity::Info).since.0));
                let moved = std::fs::rename(&path, &aside);
                let text = format!("{error}; it was moved to {} and a new store begun", aside.display());
                match moved
                    .map_err(|error| error.to_string())
                    .and_then(|()| Store::open(&path).map_err(|e| e.to_string()))
                {
                    Ok(store) => {
                        return Ok((
                            store,
                            vec![EventKind::Note {
                                text,
                                severity: Severity::Error,
                            }],
                        ));
                    }
                    Err(error) => error,
                }
            }
            // A second daemon on the same data would hand out the same addresses.
            Err(error @ StoreError::InUse(_)) => return Err(error.into()),
            Err(error) => error.to_string(),
        },
        Err(error) => error,
    };
    tracing::error!(%error, "no store on disk; working from memory");
    let store = Store::in_memory(rackbar_store::Options {
        max_events: 20_000,
        max_changes: 5_000,
        ..rackbar_store::Options::default()
    })?;
    let text = format!(
        "{}: {error}; working from memory, everything is lost at power-off",
        path.display()
    );
    Ok((
        store,
        vec![EventKind::Note {
            text,
            severity: Severity::Error,
        }],
    ))
}

/// Has BMCs asked with the logins of a configuration from now on.
pub(super) fn give_logins(devices: &Devices, rack: &Rack, config: &Config) {
    devices.set_credentials(credentials(rack, config), config.bmc.accept_certificates.clone());
}

/// The configured credentials, with passwords read from their files.
fn credentials(rack: &Rack, config: &Config) -> Vec<rackbar_devices::Credentials> {
    let mut found = Vec::new();
    for one in &config.bmc.credentials {
        let password = match &one.password {
            Password::Here(password) => Ok(password.clone()),
            Password::File(path) => std::fs::read_to_string(path).map_err(|error| (path, error)),
        };
        match password {
            // Editors end a file with a newline; no BMC takes one in a password.
            Ok(password) => found.push(rackbar_devices::Credentials::new(
                &one.username,
                password.trim_end_matches(['\r', '\n']),
            )),
            Err((path, error)) => {
                let text = format!(
                    "bmc.credential: the password file {} cannot be read: {error}",
                    path.display()
                );
                rack.event(
                    None,
                    EventKind::Note {
                        text,
                        severity: Severity::Error,
                    },
                );
            }
        }
    }
    found
}

/// Begins this program from its first line, as the same process: whoever watches over it sees no end. Comes back only
/// with the reason why that failed.
pub(super) fn anew() -> anyhow::Error {
    use std::os::unix::process::CommandExt as _;
    let error = std::process::Command::new("/proc/self/exe")
        .args(std::env::args_os().skip(1))
        .exec();
    anyhow::Error::new(error).context("the new state is in place, but the daemon could not start anew; start it again")
}

/// Only reads the configuration file, and says what is wrong with it.
///
/// # Errors
/// When it is wrong.
pub(super) fn check(config: &Path) -> Result<()> {
    let name = config.display();
    match super::source::read_with_files(config).outcome {
        Ok((_, config)) => {
            println!("{name}: right, {} networks", config.networks.len());
            Ok(())
        }
        Err(reason) => anyhow::bail!("{name}:\n{reason}"),
    }
}

/// Logs as JSON lines on standard error.
pub(super) fn start_log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .json()
        .with_writer(std::io::stderr)
        .with_env_filter(filter);
    // Set already in tests that run several daemons.
    let _ = log.try_init();
}

/// Puts the networks up, or takes them as they are where that is not ours to do.
pub(super) fn place(options: &Options, networks: &mut Networks, config: &Config) -> Vec<Placed> {
    if options.no_network_setup {
        return network::as_configured(config);
    }
    block_in_place(|| networks.apply(config))
}
