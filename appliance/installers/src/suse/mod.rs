//! SUSE: a JSON profile for Agama (SLES and Leap 16), an XML one for AutoYaST (SLES and Leap 15).
//!
//! One disk only: neither has words that make the second half of a mirror start the machine too. Accounts, keys, names of
//! interfaces and files are written by the script at the end; with Agama also the network, as NetworkManager has it.

mod agama;
mod autoyast;
mod xml;

use rackbar_model::RootTarget;

use crate::error::{For, Result};
use crate::finish::ask;
use crate::input::{Install, Url};
use crate::quote::shell;
use crate::{Rendered, check};

/// Which of the two installers a system has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SuseRelease {
    /// SUSE Linux Enterprise Server 16, by Agama.
    Sles16,
    /// openSUSE Leap 16, by Agama.
    Leap16,
    /// SUSE Linux Enterprise Server 15, by AutoYaST.
    Sles15,
    /// openSUSE Leap 15, by AutoYaST.
    Leap15,
}

/// A SUSE system and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Suse {
    /// Which.
    pub release: SuseRelease,
    /// The installation repository; of 16 the folder of the installer's own files too (`boot/`, `LiveOS/`).
    pub source: Url,
    /// Repositories besides: name and URL. The installed system keeps them.
    pub repositories: Vec<(String, Url)>,
}

/// Renders the profile.
pub(crate) fn render(install: &Install, system: &Suse) -> Result<Rendered> {
    match system.release {
        SuseRelease::Sles16 | SuseRelease::Leap16 => agama::render(install, system),
        SuseRelease::Sles15 | SuseRelease::Leap15 => autoyast::render(install, system),
    }
}

fn limits(at: For, install: &Install, system: &Suse) -> Result<()> {
    if matches!(install.target, RootTarget::Mirror(_)) {
        return at.cannot("target", "a mirror of which both disks start the machine");
    }
    if install.packages.iter().any(|package| package.starts_with('@')) {
        return at.cannot("packages", "groups of packages (patterns have other names)");
    }
    for (index, (name, _)) in system.repositories.iter().enumerate() {
        let good = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        let what = "its name is no name of a repository";
        check::demand(at, good, &format!("repositories[{index}]"), what)?;
    }
    Ok(())
}

/// Packages besides those of the base system.
fn packages(install: &Install) -> Vec<&str> {
    let mut all = vec!["chrony", "curl", "openssh", "sudo"];
    if install.setup.syslog.is_some() {
        all.push("rsyslog");
    }
    all.extend(install.packages.iter().map(String::as_str));
    all
}

/// The host's name with its domain.
fn full_name(install: &Install) -> String {
    match &install.setup.domain {
        Some(domain) => format!("{}.{domain}", install.setup.hostname),
        None => install.setup.hostname.clone(),
    }
}

/// The script that tells us, outside of the new system. Its shell writes the token, so that no process has it in an
/// argument.
fn done(install: &Install) -> String {
    format!(
        "#!/bin/sh\nset -eu\numask 077\nprintf %s {} > /run/rackbar-done\ncurl --config /run/rackbar-done\n",
        shell(&ask(&install.done))
    )
}
