//! An installed machine gets its packages online: its role's of a locked repository in the state that it is locked to, and of
//! the same origin, asked like any other archive, what it has by now. Both through our proxy.

#[path = "../../../appliance/upstream/tests/common/mod.rs"]
mod gnupg;
#[path = "../../../appliance/rackbar/tests/publisher/mod.rs"]
mod publisher;

use anyhow::{Context, Result, ensure};
use publisher::Publisher;
use rackbar_scenarios::cli::Cli;
use rackbar_scenarios::eventually;
use rackbar_scenarios::install::{READY, commit_all, until_done};
use rackbar_vrack::host::Ipv4;
use rackbar_vrack::rack::neighbour;
use rackbar_vrack::site::Archive;

use crate::install::{all_ready, done, prepared};
use crate::offline::common;
use crate::operator::SOON;

const MACHINE: &str = "n1";

/// Its kernel is jumped into, as the firmware has nothing to add.
const SITE: &str = r#"
version = 1
domain = "stories.test"

[repository.ours]
url = "http://ORIGIN/debian"
suite = "stable"
keys = '''
KEYS'''

[network.rack]
subnet = "10.77.10.0/24"
gateway = "10.77.10.1"
addresses = "10.77.10.20-10.77.10.60"
proxy = "own"

[role.worker]
os = "debian-12"
root = { pick = "smallest" }
erase = "signatures"
restart = "kexec"
repositories = ["ours"]
packages = ["tool"]

[[role.worker.network]]
name = "mgmt"
network = "rack"
nics = ["boot"]

[[role.worker.file]]
path = "/etc/apt/sources.list"
content = "\n"

[[role.worker.step]]
name = "newer"
script = """
#!/bin/sh
set -e
if apt-cache show newer; then echo 'more than was locked'; exit 1; fi
dpkg-query -W tool
echo 'deb [trusted=yes] http://ORIGIN/debian stable main' >/etc/apt/sources.list
apt-get -q update
apt-get -q -y install newer
dpkg-query -W newer
echo as-wanted
"""
expect_output = "as-wanted"
timeout = 300

[[rule]]
name = "everything"
when = "true"
role = "worker"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_machine_gets_packages_of_a_locked_repository_and_newer_ones_by_the_proxy() -> Result<()> {
    let mut publisher = tokio::task::spawn_blocking(Publisher::new).await?;
    publisher.publish("publisher", &[("tool", "1.0")]);
    let stage = prepared(&[MACHINE], |_| {}, "version = 1\n").await?;
    let station = neighbour(stage.rack.file().appliance.rack_address, 240);
    let url = publisher.origin.url("");
    let authority = url.strip_prefix("http://").context("an origin over http")?;
    let _gate = Archive::start(&stage.rack.host("rack", Ipv4::fixed(station, 24)), authority)?;
    let site = SITE
        .replace("ORIGIN", &station.to_string())
        .replace("KEYS", &publisher.keys());
    stage.api.upload(&rackbar_scenarios::install::light_image()?).await?;
    stage.api.set_site(&site).await?;
    let cli = Cli::new(&stage).await?;
    // The site has just told the proxy to run.
    let lock = || cli.run(&["repository", "lock", "ours"], SOON);
    let locked = eventually("the repository is locked", SOON, lock).await?;
    ensure!(locked.contains("1 packages"), "{locked}");
    let cached = cli.run(&["cache", "list"], SOON).await?;
    ensure!(
        !cached.contains(".deb"),
        "packages are here before a machine asked: {cached}"
    );
    // The origin moves on before the machine has asked for anything.
    publisher.publish("publisher", &[("tool", "2.0"), ("newer", "1.0")]);
    let (_, id) = commit_all(&stage.api).await?;
    let run = until_done(&stage.api, id, READY).await?;
    all_ready(&stage, &[MACHINE]).await?;
    let jumped = done(&run, "/restart")?;
    ensure!(jumped.contains("the installed kernel starts"), "{jumped}");
    let installed = done(&run, "/step.packages")?;
    ensure!(installed.contains("installed: tool"), "{installed}");
    let said = done(&run, "/step.newer")?;
    ensure!(said.contains("tool\t1.0") && said.contains("newer\t1.0"), "{said}");
    let cached = cli.run(&["cache", "list"], SOON).await?;
    for package in ["tool_1.0_all.deb", "newer_1.0_all.deb"] {
        ensure!(cached.contains(package), "{package} did not pass the proxy: {cached}");
    }
    stage.end().await;
    Ok(())
}
