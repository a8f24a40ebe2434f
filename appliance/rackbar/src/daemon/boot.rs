//! What machines boot: the files that are there, and where clients of each kind are sent for them.

use std::path::Path;

use rackbar_artifacts::Artifacts;
use rackbar_boot::SpecFile;
use rackbar_dhcp::BootPolicy;
use rackbar_model::{EventKind, Severity};
use rackbar_orchestrator::Rack;
use rackbar_services::EventSink as _;

use super::services::Ports;
use super::site::Site;
use crate::config::{Config, Uefi};

/// Takes the boot files that are there; what is missing becomes an event, and nodes are told when they ask.
pub(super) fn load(
    rack: &Rack,
    artifacts: &Artifacts,
    site: &Site,
    folder: &Path,
) -> (Option<SpecFile>, Vec<SpecFile>) {
    use rackbar_trust::Signer as _;
    let spec = |name: &str| {
        let loaded = artifacts.add_file(name, &folder.join(name));
        let loaded = note(rack, loaded.map_err(|error| error.to_string()))?;
        note(
            rack,
            SpecFile::new(name, loaded.size(), loaded.digest()).map_err(|error| error.to_string()),
        )
    };
    let kernel = spec("vmlinuz");
    let initrds = Vec::from_iter(spec("base.cpio.zst"));
    for name in ["undionly.kpxe", "snponly.efi"] {
        note(
            rack,
            artifacts
                .add_file(name, &folder.join(name))
                .map_err(|error| error.to_string()),
        );
    }
    let loader = artifacts.add_loader("loader.efi", &folder.join("loader.efi"), &site.signer.public_key());
    note(rack, loader.map_err(|error| error.to_string()));
    // A kernel without its initial filesystem would start and find nothing.
    (kernel.filter(|_| !initrds.is_empty()), initrds)
}

fn note<T>(rack: &Rack, result: Result<T, String>) -> Option<T> {
    result
        .map_err(|text| {
            rack.event(
                None,
                EventKind::Note {
                    text,
                    severity: Severity::Error,
                },
            )
        })
        .ok()
}

/// Where the DHCP engine sends machines that boot.
pub(super) fn policy(config: &Config, ports: Ports) -> BootPolicy {
    let mut policy = BootPolicy::default();
    if config.boot.uefi == Uefi::Snponly {
        policy = policy.with_snponly();
    }
    let port = ports.boot_tls;
    policy.tls_url = Some(format!("https://{{server}}:{port}/boot/v1/loader.efi"));
    if ports.http.port() != 80 {
        let port = ports.http.port();
        let with_port = |text: &str| text.replace("http://{server}", &format!("http://{{server}}:{port}"));
        policy.script_url = with_port(&policy.script_url);
        policy.loader_url = with_port(&policy.loader_url);
        policy.files.iter_mut().for_each(|(_, file)| *file = with_port(file));
    }
    policy
}
