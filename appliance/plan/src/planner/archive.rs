//! Where an installer fetches packages: from a mirror of the appliance's proxy, or through a proxy of others from where that
//! mirror itself is had. A node has no other way out.

use rackbar_model::{ImageEntry, InstallerSystem, OsSetup};

use crate::Facts;

/// Whether the installer of a catalogue entry, if it is one, gets at its packages.
///
/// # Errors
/// Why not, and what to write where.
pub(super) fn can_fetch(facts: &Facts, image: &ImageEntry, setup: &OsSetup) -> Result<(), String> {
    let Some(installer) = &image.installer else {
        return Ok(());
    };
    // What is on its disc it fetches from the appliance itself.
    let Some(mirror) = installer.mirror() else {
        return Ok(());
    };
    let upstreams = facts.mirrors.get(mirror);
    let missing = match (&setup.proxy, upstreams) {
        (None, _) => Some(
            "no network of the role has a proxy: set `proxy = \"own\"`, or the URL of another, at one of them in the site file"
                .to_owned(),
        ),
        (Some(own), upstreams) if facts.is_own_proxy(own) => match (upstreams, facts.out_of_reach.get(&image.name)) {
            (None, _) => Some(format!(
                "the proxy has no mirror of it: name its URL in rackbar.toml as the upstream of a [[proxy.mirror]] called \
                 {mirror}"
            )),
            (Some(_), Some(missing)) => {
                return Err(format!(
                    "{} cannot be installed while the proxy is offline: {missing}; or `rackbar cache mode online`",
                    image.name
                ));
            }
            (Some(_), None) => None,
        },
        (Some(other), None) => Some(format!(
            "nothing says where that is, behind {other}: name its URL in rackbar.toml as the upstream of a [[proxy.mirror]] \
             called {mirror}"
        )),
        (Some(other), Some(upstreams)) => unfit(installer.system, upstreams, other),
    };
    missing.map_or(Ok(()), |missing| {
        Err(format!(
            "{} is an installer, which fetches packages from its archive, and {missing}",
            image.name
        ))
    })
}

/// Why an installer cannot fetch from these places through a proxy of others.
fn unfit(system: InstallerSystem, places: &[String], proxy: &str) -> Option<String> {
    if system == InstallerSystem::Debian && !proxy.starts_with("http://") {
        return Some(format!(
            "it asks a proxy over http alone, and the network's is {proxy}: give one that begins with http://"
        ));
    }
    system.asks(places).is_none().then(|| {
        format!(
            "it fetches over http alone, and no upstream of the [[proxy.mirror]] called {} in rackbar.toml begins with http://, \
             as is needed behind {proxy}",
            system.mirror()
        )
    })
}
