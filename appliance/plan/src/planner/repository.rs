//! Repositories of the site: what an installed system is told of them, and whether each is locked.

use rackbar_model::{Digest, ImageEntry, InstallerSystem, OsFile, OsSetup, RepositoryKind, RepositoryLock};
use rackbar_os_files::apt::{AptSource, direct, source};
use rackbar_os_files::git::place;
use rackbar_os_files::rpm::{self, RpmSource};
use rackbar_trust::sha256;

use super::node::Case;
use crate::site::Repository;

/// What of a repository the lock is not of any more, in words; `None` when the lock is of what the site file says.
pub fn lock_differs(lock: &RepositoryLock, wanted: &Repository) -> Option<String> {
    let parts = [
        ("kind", lock.kind == wanted.kind),
        ("url", lock.url == wanted.url),
        ("ref", lock.reference.as_deref() == wanted.reference()),
        ("suite", lock.suite == wanted.suite()),
        ("components", lock.components == wanted.components()),
        ("architectures", lock.architectures == wanted.architectures()),
        ("keys", lock.keys == Digest(sha256(wanted.keys().as_bytes()))),
    ];
    let other: Vec<&str> = parts.iter().filter(|(_, same)| !same).map(|(name, _)| *name).collect();
    (!other.is_empty()).then(|| other.join(", "))
}

/// False where the catalogue knows that the system has another program; what a written image has is in no record.
fn may_have_zypper(image: &ImageEntry) -> bool {
    match image.installer.as_ref().map(|installer| installer.system) {
        Some(
            InstallerSystem::Rhel
            | InstallerSystem::Rocky
            | InstallerSystem::Alma
            | InstallerSystem::CentosStream
            | InstallerSystem::Fedora,
        ) => false,
        Some(InstallerSystem::Debian | InstallerSystem::Ubuntu) | None => true,
    }
}

impl Case<'_> {
    /// Adds to a setup what its system needs to get packages from the role's repositories.
    pub(super) fn repositories(&self, setup: &mut OsSetup, image: &ImageEntry) -> Result<(), String> {
        if self.role.repositories.is_empty() {
            return Ok(());
        }
        let Some(proxy) = setup.proxy.clone().filter(|url| self.facts.is_own_proxy(url)) else {
            return Err(format!(
                "role {} has repositories, which the appliance's proxy serves, and no network of the role uses that: set \
                 `proxy = \"own\"` at one of them in the site file",
                self.role_name
            ));
        };
        let mut files: Vec<OsFile> = Vec::new();
        for name in &self.role.repositories {
            files.extend(self.repository(name, &proxy)?);
        }
        let of_debian = |name: &String| self.site.repository.get(name).map(|one| one.kind) == Some(RepositoryKind::Deb);
        if self.role.repositories.iter().any(of_debian) {
            let host = proxy.trim_start_matches("http://");
            let host = host.rsplit_once(':').map_or(host, |(host, _)| host);
            files.push(direct(host.trim_matches(['[', ']'])).map_err(|error| error.to_string())?);
        }
        files.retain(|file| may_have_zypper(image) || !rpm::is_of_zypper(file));
        // Files of the role itself come behind: they have the last word.
        setup.files.splice(0..0, files);
        Ok(())
    }

    fn repository(&self, name: &String, proxy: &str) -> Result<Vec<OsFile>, String> {
        let Some(wanted) = self.site.repository.get(name) else {
            return Err(format!("role {}: the site has no repository {name}", self.role_name));
        };
        let Some(lock) = self.facts.repositories.get(name) else {
            return Err(format!(
                "repository {name} is not locked, so nobody knows what would be installed from it: `rackbar repository lock \
                 {name}` records the state that it has now"
            ));
        };
        if let Some(what) = lock_differs(lock, wanted) {
            return Err(format!(
                "the lock of repository {name} is of another {what} than the site file says: `rackbar repository lock {name}` \
                 locks what it says now"
            ));
        }
        let (url, keys) = (&*format!("{proxy}/repository/{name}"), wanted.keys());
        let files = match wanted.kind {
            RepositoryKind::Deb => source(&AptSource {
                name,
                url,
                suite: wanted.suite(),
                components: &wanted.components(),
                architectures: &wanted.architectures(),
                keys,
            })
            .map(Vec::from),
            RepositoryKind::Rpm => rpm::source(&RpmSource { name, url, keys }).map(Vec::from),
            RepositoryKind::Git => place(name, url).map(|file| vec![file]),
        };
        files.map_err(|error| error.to_string())
    }
}
