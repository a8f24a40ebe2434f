//! Whether a machine gets a catalogue entry with the uplink cut: what is known of that, and no more.

use std::collections::BTreeMap;

use rackbar_artifacts::images::Images;
use rackbar_control::operations::Offline;
use rackbar_model::{ImageEntry, Installer, InstallerSystem};
use rackbar_proxy::{Mode, Proxy};

/// What of the archives of installers is here: for each signed index of a mirror, whether it is pinned or in a data pack.
pub(super) struct Archives {
    /// The proxy runs and has the mirror of each name.
    mirrors: Vec<String>,
    indexes: BTreeMap<String, bool>,
}

impl Archives {
    /// Looks at what the proxy has, where it runs.
    pub(super) fn look(proxy: Option<&Proxy>) -> Self {
        let settings = proxy.map(Proxy::settings);
        let mirrors = settings.iter().flat_map(|settings| &settings.mirrors);
        let items = proxy.map(Proxy::list).unwrap_or_default().into_iter();
        let index = |key: &str| {
            let ending = ["/InRelease", "/Release", "/repodata/repomd.xml"];
            key.starts_with("mirror:") && ending.iter().any(|ending| key.ends_with(ending))
        };
        let indexes = items.filter(|item| index(&item.key));
        Self {
            mirrors: mirrors.map(|mirror| mirror.name.clone()).collect(),
            indexes: indexes
                .map(|item| (item.key, item.pinned || item.pack.is_some()))
                .collect(),
        }
    }

    /// What is known of an entry, and where it is not all here, why.
    pub(super) fn judge(&self, entry: &ImageEntry) -> (Offline, Option<String>) {
        let Some(installer) = &entry.installer else {
            // It is written as it lies here, in a data pack too. An installer whose packages are on its disc is as well off.
            return (Offline::Yes, None);
        };
        let Some(mirror) = installer.mirror() else {
            return (Offline::Yes, None);
        };
        if !self.mirrors.iter().any(|name| name == mirror) {
            let words = format!(
                "it fetches packages from its archive, and the appliance's proxy has no mirror called {mirror} that could \
                 keep them"
            );
            return (Offline::No, Some(words));
        }
        let keys = indexes(installer, mirror);
        let kept = keys.iter().filter_map(|key| self.indexes.get(key)).max();
        let (offline, words) = match kept {
            None => (
                Offline::No,
                format!(
                    "it fetches packages from its archive, of which not even the index is here: neither cache nor data packs \
                     have {}; record one installation (`rackbar cache mode recording`) or take a data pack",
                    keys.first().map_or("it", String::as_str)
                ),
            ),
            Some(false) => (
                Offline::Unknown,
                format!(
                    "its archive's index is in the cache, and not pinned: it may go when room is needed (`rackbar cache pin \
                     'mirror:{mirror}/*'`)"
                ),
            ),
            Some(true) => (
                Offline::Unknown,
                "its archive's index is kept here; whether every package that a role asks for is, an installation with the \
                 proxy offline shows"
                    .to_owned(),
            ),
        };
        (offline, Some(words))
    }
}

/// The index of what an installer fetches from, by the proxy's names for it: any one of them.
fn indexes(installer: &Installer, mirror: &str) -> Vec<String> {
    match installer.system {
        InstallerSystem::Debian | InstallerSystem::Ubuntu => ["InRelease", "Release"]
            .map(|file| format!("mirror:{mirror}/dists/{}/{file}", installer.suite()))
            .into(),
        _ => vec![format!("mirror:{mirror}/{}/repodata/repomd.xml", installer.tree())],
    }
}

/// Entries that cannot be installed as the appliance asks nobody outside now, each with what is missing.
pub(super) fn out_of_reach(proxy: Option<&Proxy>, images: Option<&Images>) -> BTreeMap<String, String> {
    let asks_nobody = proxy.is_some_and(|proxy| proxy.settings().mode == Mode::Offline);
    let all = images.filter(|_| asks_nobody).map(Images::list).unwrap_or_default();
    let installers: Vec<_> = all.iter().filter(|entry| entry.installer.is_some()).collect();
    if installers.is_empty() {
        return BTreeMap::new();
    }
    let archives = Archives::look(proxy);
    let lacking = installers.into_iter().filter_map(|entry| match archives.judge(entry) {
        (Offline::No, words) => Some((entry.name.clone(), words.unwrap_or_default())),
        _ => None,
    });
    lacking.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(installer: bool) -> ImageEntry {
        let part = serde_json::json!({ "sha256": "00".repeat(32), "offset": 0, "bytes": 1 });
        let installer = installer
            .then(|| serde_json::json!({ "system": "debian", "release": "bookworm", "kernel": part, "initrd": part }));
        serde_json::from_value(serde_json::json!({
            "name": "debian-12", "format": "raw", "sha256": "00".repeat(32), "bytes": 1, "disk_bytes": null,
            "arch": "x86_64", "source": "", "licence": "", "user": "root", "added": rackbar_model::Timestamp(0),
            "installer": installer,
        }))
        .unwrap()
    }

    fn archives(mirrors: &[&str], indexes: &[(&str, bool)]) -> Archives {
        Archives {
            mirrors: mirrors.iter().map(|name| (*name).to_owned()).collect(),
            indexes: indexes.iter().map(|(key, kept)| ((*key).to_owned(), *kept)).collect(),
        }
    }

    #[test]
    fn an_image_needs_no_uplink_and_an_installer_as_much_as_is_not_known_to_be_here() {
        const INDEX: &str = "mirror:debian/dists/bookworm/InRelease";
        let none = archives(&[], &[(INDEX, true)]);
        assert_eq!(none.judge(&entry(false)), (Offline::Yes, None));
        let said = |archives: &Archives| {
            let (offline, words) = archives.judge(&entry(true));
            (offline, words.unwrap())
        };
        assert!(matches!(said(&none), (Offline::No, words) if words.contains("no mirror called debian")));
        // A disc with its packages needs nobody; one without is as well off as its archive.
        let disc = |repositories: &[&str]| {
            let mut disc = entry(true);
            let one = disc.installer.as_mut().unwrap();
            (one.system, one.release) = (InstallerSystem::Rocky, "9.4".into());
            let repositories = repositories.iter().map(|name| (*name).to_owned()).collect();
            one.disc = Some(rackbar_model::InstallerDisc { repositories });
            disc
        };
        assert!(matches!(
            archives(&[], &[]).judge(&disc(&["BaseOS"])),
            (Offline::Yes, None)
        ));
        let none = archives(&["debian"], &[]).judge(&disc(&[]));
        assert!(matches!(none, (Offline::No, Some(words)) if words.contains("no mirror called rocky")));
        let index = "mirror:rocky/9/BaseOS/x86_64/os/repodata/repomd.xml";
        let kept = archives(&["rocky"], &[(index, true)]).judge(&disc(&[]));
        assert!(matches!(kept, (Offline::Unknown, Some(words)) if words.contains("kept here")));
        // Another release's index is no help.
        let other = archives(&["debian"], &[("mirror:debian/dists/trixie/InRelease", true)]);
        assert!(matches!(said(&other), (Offline::No, words) if words.contains(INDEX)));
        let cached = archives(&["debian"], &[(INDEX, false)]);
        assert!(matches!(said(&cached), (Offline::Unknown, words) if words.contains("cache pin")));
        let kept = archives(
            &["debian"],
            &[("mirror:debian/dists/bookworm/Release", true), (INDEX, false)],
        );
        assert!(matches!(said(&kept), (Offline::Unknown, words) if words.contains("kept here")));
    }
}
