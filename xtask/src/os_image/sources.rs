//! Where this machine's apt gets a release's packages, asked of apt itself, so that mirrors and proxies of a company
//! are used and none is written down here.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Debian's keys, as the package of that name installs them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Lines of a `sources.list` with the machine's own mirrors of `suite`, its updates and its security fixes.
pub(crate) fn lines(suite: &str) -> Result<String> {
    let format = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)";
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", format, "Created-By: Packages"])
        .output()
        .context("running apt-get indextargets")?;
    ensure!(
        output.status.success(),
        "apt-get indextargets: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = choose(&text, suite, Path::new(KEYRING).exists());
    ensure!(
        lines.iter().any(|line| line.contains(&format!(" {suite} "))),
        "this machine's apt has no Debian release {suite}; add it to /etc/apt/sources.list and run `apt-get update`"
    );
    Ok(lines.join("\n") + "\n")
}

/// Only Debian's own `main`: what else a developer's machine has configured does not belong on a rack.
fn choose(targets: &str, suite: &str, keyring: bool) -> Vec<String> {
    let signed = if keyring {
        format!("[signed-by={KEYRING}] ")
    } else {
        String::new()
    };
    let mut lines: Vec<String> = Vec::new();
    for target in targets.lines() {
        let fields: Vec<_> = target.split('|').collect();
        if let ["Debian", address, release, "main"] = fields[..] {
            let wanted = ["", "-updates", "-security"].map(|ending| format!("{suite}{ending}"));
            let line = format!("deb {signed}{address} {release} main");
            if wanted.iter().any(|name| name == release) && !lines.contains(&line) {
                lines.push(line);
            }
        }
    }
    lines
}

/// Proxies that apt is configured with, as options.
pub(crate) fn proxies() -> Result<Vec<String>> {
    let output = Command::new("apt-config")
        .arg("dump")
        .output()
        .context("running apt-config")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let proxies = text.lines().filter(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("acquire::") && line.contains("proxy")
    });
    Ok(proxies.map(|line| line.trim_end_matches(';').to_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_release_from_its_mirrors_and_nothing_else() {
        let targets = "Debian|http://mirror.test/debian/|bookworm|main\n\
                       Debian|http://mirror.test/debian/|bookworm|main\n\
                       Debian|http://mirror.test/debian/|bookworm|non-free-firmware\n\
                       Debian|http://mirror.test/debian/|bookworm-backports|main\n\
                       Debian|http://mirror.test/security/|bookworm-security|main\n\
                       Somebody|http://other.test/|bookworm|main\n\
                       Debian|http://mirror.test/debian/|trixie|main\n";
        let expected = [
            "deb http://mirror.test/debian/ bookworm main",
            "deb http://mirror.test/security/ bookworm-security main",
        ];
        assert_eq!(choose(targets, "bookworm", false), expected);
    }
}
