//! What machines boot: the files that are there, and where clients of each kind are sent for them.

use std::net::Ipv4Addr;
use std::path::Path;

use rackbar_artifacts::{Artifact, Artifacts};
use rackbar_boot::{MEDIUM_FILE, SpecFile, medium_file};
use rackbar_boot_media::iso::{self, Disc};
use rackbar_dhcp::BootPolicy;
use rackbar_model::{EventKind, Severity};
use rackbar_orchestrator::Rack;
use rackbar_services::EventSink as _;

use super::services::Ports;
use super::site::Site;
use crate::config::{Config, Place, Uefi};

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

/// Serves the site's own boot files, and those alone.
pub(super) fn serve_site(rack: &Rack, artifacts: &Artifacts, config: &Config) {
    let files = config.boot.files.iter().filter_map(|file| match &file.place {
        Place::Here(file) => Some((file.name.as_str(), file.content.clone()?)),
        Place::Url(_) => None,
    });
    let set = artifacts.set_site_files(files);
    note(rack, set.map_err(|error| error.to_string()));
}

/// Serial number of the volume on our disc; any will do.
const DISC_SERIAL: u32 = 0x5242_0001;

/// Makes the disc that BMCs put into their virtual drives. `addresses`: ours on networks of the rack.
pub(super) fn serve_disc(rack: &Rack, artifacts: &Artifacts, addresses: &[Ipv4Addr], port: u16) {
    // Without a loader, or anywhere to lead it to, there is none; the former was told when it was not found.
    let Some(loader) = artifacts.by_name("loader.efi").filter(|_| !addresses.is_empty()) else {
        return;
    };
    let added = disc(&loader, addresses, port).and_then(|disc| {
        artifacts
            .add_bytes("loader.iso", disc)
            .map_err(|error| error.to_string())
    });
    note(
        rack,
        added.map_err(|error| format!("the disc for virtual drives: {error}")),
    );
}

/// A disc with our loader and where it finds us, from a machine whose own DHCP server may never have heard of us.
fn disc(loader: &Artifact, addresses: &[Ipv4Addr], port: u16) -> Result<Vec<u8>, String> {
    let urls = addresses.iter().map(|address| match port {
        80 => format!("http://{address}"),
        port => format!("http://{address}:{port}"),
    });
    let text = medium_file(urls);
    let mut efi = vec![0; usize::try_from(loader.size()).map_err(|error| error.to_string())?];
    loader.read_at(0, &mut efi).map_err(|error| error.to_string())?;
    let disc = Disc {
        efi: &efi,
        beside: Some((MEDIUM_FILE, text.as_bytes())),
        behind: &[],
        serial: DISC_SERIAL,
        least: iso::FAT16,
    };
    iso::bytes(&disc).map_err(|error| error.to_string())
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
    for file in &config.boot.files {
        match (file.arch, &file.place) {
            (Some(arch), Place::Url(url)) => policy.set_file(arch, url),
            (Some(arch), Place::Here(file)) if file.content.is_some() => {
                let name = &file.name;
                if arch.is_http() {
                    policy.set_file(arch, &format!("http://{{server}}/boot/v1/site/{name}"));
                } else {
                    policy.set_file(arch, name);
                }
            }
            _ => {}
        }
    }
    let port = ports.boot_tls;
    policy.tls_origin = Some(format!("https://{{server}}:{port}"));
    if ports.http.port() != 80 {
        let port = ports.http.port();
        let with_port = |text: &str| text.replace("http://{server}", &format!("http://{{server}}:{port}"));
        policy.script_url = with_port(&policy.script_url);
        policy.loader_url = with_port(&policy.loader_url);
        policy.files.iter_mut().for_each(|(_, file)| *file = with_port(file));
    }
    policy
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disc_holds_the_loader_and_every_address_of_ours() {
        let loader = Artifacts::new().add_bytes("loader.efi", vec![0xa5; 200_000]).unwrap();
        let ours = [Ipv4Addr::new(192, 0, 2, 1), Ipv4Addr::new(198, 51, 100, 1)];
        let made = disc(&loader, &ours, 8080).unwrap();
        let holds = |what: &[u8]| made.windows(what.len()).any(|part| part == what);
        assert!(holds(b"\nhttp://192.0.2.1:8080\nhttp://198.51.100.1:8080\n"));
        assert!(holds(&[0xa5; 200_000]));
        assert!(made.len() < 5 << 20, "BMCs fetch it: {} bytes", made.len());
        assert_eq!(made, disc(&loader, &ours, 8080).unwrap(), "the same every time");
    }
}
