//! From discovered to ready: a real Debian on real disks, and everything that may go wrong on the way.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rackbar_plan::{Run, RunId, RunState, Stand};
use rackbar_scenarios::cli::Cli;
use rackbar_scenarios::install::{self, Image, PlanRequest, READY, commit_all, is_ready, until_done};
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::machine::DiskBus;
use rackbar_vrack::rack::RackFile;
use rackbar_vrack::seat::{MachinePower, PowerAction};

use crate::{boot_order, operator, page};

/// A role for every machine, on its smallest disk.
pub(crate) const SITE: &str = r#"
version = 1
domain = "stories.test"

[network.rack]
subnet = "10.77.10.0/24"
gateway = "10.77.10.1"
addresses = "10.77.10.20-10.77.10.60"

[role.worker]
os = "debian-12"
root = { pick = "smallest" }
erase = "signatures"

[[role.worker.network]]
name = "mgmt"
network = "rack"
nics = ["boot"]

[[rule]]
name = "everything"
when = "true"
role = "worker"
"#;

/// The demo rack's first machines, discovered by an appliance that was saved when it served, with the light image in the
/// catalogue and `site` in force.
pub(crate) async fn prepared(names: &[&str], change: impl FnOnce(&mut RackFile), site: &str) -> Result<Stage> {
    let mut file = rack_file("demo")?;
    file.nodes.retain(|node| names.contains(&node.name.as_str()));
    change(&mut file);
    let stage = Stage::serving_with(file, |configuration| configuration).await?;
    discovered(stage, names, site, &install::light_image()?).await
}

/// The same of a rack whose appliance serves, with the image of the site's systems.
pub(crate) async fn discovered(stage: Stage, names: &[&str], site: &str, image: &Image) -> Result<Stage> {
    for name in names {
        stage.power_on(name).await?;
    }
    if site.contains("debian-12-cloud-init") {
        stage.api.upload(&install::cloud_image()?).await?;
    } else if site.contains("os = ") {
        stage.api.upload(image).await?;
    }
    for name in names {
        stage.until_discovered(name).await?;
        stage.until_complete(name).await?;
    }
    stage.api.set_site(site).await?;
    Ok(stage)
}

/// Every named machine is ready, answered over SSH from its disk, and its timeline says so.
pub(crate) async fn all_ready(stage: &Stage, names: &[&str]) -> Result<()> {
    for name in names {
        let ready = || async {
            let node = stage.node(name).await?.context("known")?;
            is_ready(&node)?;
            anyhow::Ok(node)
        };
        let node = eventually(&format!("{name} is ready"), Duration::from_secs(10), ready).await?;
        let texts: Vec<String> = stage.timeline(&node).await?.into_iter().map(|item| item.text).collect();
        ensure!(
            texts.iter().any(|text| text.contains("os.reachable")),
            "{name}: no word of SSH in {texts:#?}"
        );
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bios_and_a_uefi_machine_get_debian_and_are_ready() -> Result<()> {
    let names = ["n1", "n2"];
    // A rack without an uplink: its clocks agree with the appliance's, whatever that says.
    let configure = |text: String| text + "\n[ntp]\nlocal_stratum = 10\n";
    let site = SITE.replace(
        "addresses =",
        "dns = \"own\"\nntp = \"own\"\nsyslog = \"own\"\naddresses =",
    );
    let mut file = rack_file("demo")?;
    file.nodes.retain(|node| names.contains(&node.name.as_str()));
    let stage = Stage::set_with(file, configure).await?;
    stage.start_appliance().await?;
    let stage = discovered(stage, &names, &site, &install::image()?).await?;
    let cli = Cli::new(&stage).await?;
    let mut called = Vec::new();
    for name in names {
        called.push(stage.node(name).await?.context("known")?.name);
    }
    let start = Instant::now();
    let (home, token) = (cli.home(), cli.token()?);
    let looks_on = tokio::task::spawn_blocking(move || page::follows_an_install_on_a_phone(&home, &token));
    operator::commits(&cli, &called).await?;
    looks_on.await.context("looking on in a browser")?;
    println!(
        "two machines ready {:.0} s after the commit",
        start.elapsed().as_secs_f64()
    );
    all_ready(&stage, &names).await?;
    operator::verifies(&cli, &called).await?;
    operator::reads_logs(&cli, &called).await?;
    operator::proves(&cli).await?;
    page::proves(&cli, &called).await?;
    operator::hands_over_to_ansible(&cli, &called).await?;
    operator::keeps_hands_off(&cli, &called[0]).await?;
    boot_order::is_put_right(&stage, &cli, names[0], names[1]).await?;
    // As wanted now: planning again finds nothing to do.
    let again = stage.api.plan(&PlanRequest::default()).await?;
    ensure!(again.actions.is_empty(), "a second plan would do {:#?}", again.actions);
    they_boot_their_disks_without_us(&stage, &names).await?;
    stage.end().await;
    Ok(())
}

/// Nothing loops: with the appliance off, a power cycle leads to the installed system.
async fn they_boot_their_disks_without_us(stage: &Stage, names: &[&str]) -> Result<()> {
    stage.appliance.machine.act(PowerAction::ForceOff).await?;
    for name in names {
        let machine = stage.rack.node(name).context("a machine of this rack")?;
        machine.machine.act(PowerAction::ForceOff).await?;
        boots_its_disk(stage, name, PowerAction::On).await?;
    }
    Ok(())
}

/// A machine is switched on, or reset, and comes to its login prompt.
pub(crate) async fn boots_its_disk(stage: &Stage, name: &str, by: PowerAction) -> Result<()> {
    let machine = stage.rack.node(name).context("a machine of this rack")?;
    let logins = || anyhow::Ok(stage.console(name)?.matches("login:").count());
    let before = logins()?;
    machine.machine.act(by).await?;
    let up = || async {
        let now = logins().map_err(|error| error.to_string())?;
        if now > before {
            Ok(())
        } else {
            Err(format!("{now} login prompts"))
        }
    };
    eventually(&format!("{name} boots its disk"), Duration::from_secs(300), up).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ambiguous_or_missing_disk_is_refused_with_the_candidates() -> Result<()> {
    let stage = prepared(&["n1"], |_| {}, &SITE.replace(r#"{ pick = "smallest" }"#, "{}")).await?;
    let node = stage.node("n1").await?.context("known")?;
    let plan = stage.api.plan(&PlanRequest::default()).await?;
    ensure!(plan.actions.is_empty(), "something would be done: {:#?}", plan.actions);
    let reason = &plan.refused.first().context("n1 is refused")?.reason;
    for disk in &node.inventory.as_ref().context("inventory")?.disks {
        let serial = disk.serial.as_deref().context("serial")?;
        ensure!(
            reason.contains(serial),
            "{serial} is not listed as a candidate: {reason}"
        );
    }
    stage
        .api
        .set_site(&SITE.replace(r#"{ pick = "smallest" }"#, r#"{ serial = "NO-SUCH-DISK" }"#))
        .await?;
    let plan = stage.api.plan(&PlanRequest::default()).await?;
    ensure!(plan.actions.is_empty() && plan.refused.len() == 1, "{plan:#?}");
    // A plan of before the change is stale: it must not be carried out.
    stage.api.set_site(SITE).await?;
    let good = stage.api.plan(&PlanRequest::default()).await?;
    stage
        .api
        .set_site(&SITE.replace("stories.test", "changed.test"))
        .await?;
    let refused = stage.api.commit(&good, std::slice::from_ref(&node.name)).await;
    let words = format!("{:#}", refused.err().context("a stale plan was taken")?);
    ensure!(words.contains("409"), "{words}");
    // Without consent nothing is destroyed.
    let plan = stage.api.plan(&PlanRequest::default()).await?;
    let refused = stage.api.commit(&plan, &[]).await;
    let words = format!("{:#}", refused.err().context("data may be destroyed without consent")?);
    ensure!(words.contains(&node.name), "{words}");
    stage.end().await;
    Ok(())
}

/// A bond of both NICs that its switch agrees to by LACP, a tagged VLAN on top of it, a discarded disk; the installed system
/// says itself that it is so. A bond takes some seconds to be agreed on.
const BONDED: &str = r#"
version = 1
domain = "stories.test"

[network.rack]
subnet = "10.77.10.0/24"
gateway = "10.77.10.1"
addresses = "10.77.10.20-10.77.10.60"

[network.storage]
subnet = "10.77.30.0/24"
vlan = 30
addresses = "10.77.30.20-10.77.30.60"

[role.worker]
os = "debian-12"
root = { pick = "smallest" }
erase = "discard"

[[role.worker.network]]
name = "mgmt"
network = "rack"
nics = ["nic0", "nic1"]
bond = "802.3ad"

[[role.worker.network]]
name = "storage"
network = "storage"
nics = ["nic0", "nic1"]
bond = "802.3ad"

[[role.worker.step]]
name = "look"
script = """
#!/bin/sh
set -e
ls /sys/class/net
grep -q 'Number of ports: 2' /proc/net/bonding/*
grep 'Partner Mac Address' /proc/net/bonding/*
ip -o -d link show storage
ip -o -4 address show storage
echo as-wanted
"""
expect_output = "as-wanted"
timeout = 60
tries = 5

[[rule]]
name = "everything"
when = "true"
role = "worker"
"#;

/// The same machine as a patient: its disk's system is mended from outside.
const RESCUE: &str = r##"
version = 1

[role.patient]
memory = "rescue"

[[role.patient.step]]
name = "mend"
script = """
#!/bin/sh
set -e
test -d /proc/1
test -c /dev/null
grep -q '^ID=debian' /etc/os-release
echo mended > /etc/mended
cat /etc/hostname
"""
expect_output = "node-"
timeout = 120

[[rule]]
name = "everything"
when = "true"
role = "patient"
"##;

#[tokio::test(flavor = "multi_thread")]
async fn a_bonded_machine_is_installed_mended_in_rescue_and_goes_back_to_work() -> Result<()> {
    let two_cables = |file: &mut RackFile| {
        file.vlans.insert("storage".into(), 30);
        for nic in &mut file.nodes[0].nics {
            nic.trunk = vec!["storage".into()];
            nic.lag = Some("bundle".into());
        }
        // Firmware and agent know nothing of the bundle: its first port carries them alone.
        file.nodes[0].lacp_fallback = true;
        file.nodes[0].lacp_fast = true;
        file.nodes[0].disks[0].bus = DiskBus::Nvme;
    };
    let stage = prepared(&["n4"], two_cables, BONDED).await?;
    let (_, id) = commit_all(&stage.api).await?;
    let run = until_done(&stage.api, id, READY).await?;
    all_ready(&stage, &["n4"]).await?;
    let said = done(&run, "/step.look")?;
    ensure!(
        said.contains("id 30") && said.contains("10.77.30."),
        "the VLAN is not as wanted: {said}"
    );
    ensure!(
        said.contains("Partner Mac Address") && !said.contains("Partner Mac Address: 00:00:00:00:00:00"),
        "the switch is no partner of the bond: {said}"
    );
    let erased = done(&run, "/disk.erase")?;
    ensure!(erased.contains("discard"), "the disk was not discarded: {erased}");

    stage.api.set_site(RESCUE).await?;
    let plan = stage.api.plan(&PlanRequest::default()).await?;
    ensure!(plan.destructive().is_empty(), "a rescue destroys data: {plan:#?}");
    let id = stage.api.commit(&plan, &[]).await?;
    let run = until_done(&stage.api, id, READY).await?;
    ensure!(done(&run, "/rescue.mend")?.contains("ended with status 0"), "{run:#?}");
    let node = stage.node("n4").await?.context("known")?;
    is_ready(&node)?;
    ensure!(node.agent_connected, "a node in rescue stays in our agent");

    stage.api.set_site(&changed_in_place()).await?;
    let plan = stage.api.plan(&PlanRequest::default()).await?;
    ensure!(plan.destructive().is_empty(), "going back destroys data: {plan:#?}");
    let id = stage.api.commit(&plan, &[]).await?;
    let run = until_done(&stage.api, id, READY).await?;
    let said = done(&run, "/step.look")?;
    for wanted in ["mended", "another motd", "1 key of anna"] {
        ensure!(
            said.contains(wanted),
            "{wanted:?} is not in what the machine said: {said}"
        );
    }
    let now = stage.node("n4").await?.context("known")?;
    let key = |node: &rackbar_model::Node| node.installed.as_ref().map(|installed| installed.host_key.clone());
    ensure!(
        key(&now) == key(&node) && key(&now).is_some(),
        "the host's key is another"
    );
    all_ready(&stage, &["n4"]).await?;
    stage.end().await;
    Ok(())
}

/// The same machine with another key and a file, which its system gets without being installed anew.
fn changed_in_place() -> String {
    let look = "cat /etc/mended /etc/motd\n\
                echo \"$(grep -c 'anna@stories' ~/.ssh/authorized_keys) key of anna\"";
    let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f anna@stories";
    let more = format!(
        "erase = \"discard\"\nssh_keys = [\"{key}\"]\n[[role.worker.file]]\npath = \"/etc/motd\"\ncontent = \"another motd\\n\""
    );
    BONDED
        .replace("ip -o -d link show storage", look)
        .replace("erase = \"discard\"", &more)
}

/// What an action that is done said.
pub(crate) fn done(run: &Run, kind: &str) -> Result<String> {
    let stand = run.actions.iter().find(|(name, _)| name.0.ends_with(kind));
    let (_, stand) = stand.with_context(|| format!("the run has no {kind}: {}", in_short(run)))?;
    let Stand::Done { outcome, .. } = stand else {
        anyhow::bail!("{kind} stands as {stand:?}");
    };
    Ok(format!("{}\n{}", outcome.summary, outcome.details.join("\n")))
}

/// Waits until an action of this kind is under way, `done` per cent of it.
pub(crate) async fn until_under_way(stage: &Stage, id: RunId, kind: &str, percent: u64) -> Result<()> {
    let there = || async {
        let run = stage.api.run(id).await.map_err(|error| format!("{error:#}"))?;
        let is_there = |(name, stand): (&rackbar_plan::ActionId, &Stand)| match stand {
            Stand::Running(attempt) if name.0.ends_with(kind) => {
                let progress = attempt.progress.clone().unwrap_or_default();
                percent == 0 || progress.done.saturating_mul(100) >= percent.saturating_mul(progress.total.max(1))
            }
            _ => false,
        };
        if run.actions.iter().any(is_there) {
            Ok(())
        } else {
            Err(format!("{:?}", run.actions))
        }
    };
    eventually(&format!("{kind} is under way"), Duration::from_secs(240), there).await
}

/// The machines of [`SITE`] are for something else now, and their system belongs on the other disk.
fn changed_mind() -> String {
    SITE.replace("role.worker", "role.keeper")
        .replace("role = \"worker\"", "role = \"keeper\"")
        .replace("pick = \"smallest\"", "pick = \"largest\"")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_changed_while_the_image_is_written_is_what_the_machine_becomes() -> Result<()> {
    // The light image has no driver of SATA.
    let other_bus = |file: &mut RackFile| file.nodes[0].disks[1].bus = DiskBus::Virtio;
    let stage = prepared(&["n1"], other_bus, SITE).await?;
    let (_, first) = commit_all(&stage.api).await?;
    until_under_way(&stage, first, "/os.write", 10).await?;
    stage.api.set_site(&changed_mind()).await?;
    let (plan, second) = commit_all(&stage.api).await?;
    ensure!(
        plan.actions.iter().any(|action| action.id.0.ends_with("/os.write")),
        "{plan:#?}"
    );
    let run = until_done(&stage.api, second, READY).await?;
    let old = stage.api.run(first).await?;
    ensure!(old.state == RunState::Superseded, "the first run is {:?}", old.state);
    let left = format!("superseded by run {second}");
    let skipped = |stand: &Stand| matches!(stand, Stand::Skipped { reason } if reason.contains(&left));
    ensure!(
        old.actions
            .iter()
            .any(|(name, stand)| name.0.ends_with("/verify") && skipped(stand)),
        "{}",
        in_short(&old)
    );
    let node = stage.node("n1").await?.context("known")?;
    ensure!(node.role.as_deref() == Some("keeper"), "its role is {:?}", node.role);
    let disks = &node.inventory.as_ref().context("inventory")?.disks;
    let large = disks.iter().max_by_key(|disk| disk.size_bytes).context("a disk")?;
    let written = done(&run, "/os.write")?;
    ensure!(
        written.contains(large.serial.as_deref().context("serial")?) || written.contains(&large.name),
        "the system is not on the disk of the new role: {written}"
    );
    all_ready(&stage, &["n1"]).await?;
    stage.end().await;
    Ok(())
}

/// A machine whose image has cloud-init; it says itself what came of its seed.
const CLOUD: &str = r#"
version = 1
domain = "stories.test"

[network.rack]
subnet = "10.77.10.0/24"
gateway = "10.77.10.1"
addresses = "10.77.10.20-10.77.10.60"

[role.cloud]
os = "debian-12-cloud-init"
root = { pick = "smallest" }
erase = "signatures"

[[role.cloud.network]]
name = "mgmt"
network = "rack"
nics = ["boot"]

[[role.cloud.step]]
name = "look"
script = """
#!/bin/sh
cloud-init status --wait --long
cat /run/cloud-init/result.json
echo "instance $(cat /var/lib/cloud/data/instance-id), machine $(cat /etc/machine-id)"
echo "name $(hostname -f)"
echo "account $(id -un) with $(sudo -n id -un), keys of $(sudo -n ls /home)"
sudo -n grep -c ssh-ed25519 /home/debian/.ssh/authorized_keys
ip -o -4 address show mgmt
ls /etc/netplan /etc/network/interfaces.d 2>/dev/null
echo as-wanted
"""
expect_output = "as-wanted"
timeout = 300

[[role.cloud.step]]
name = "own-program"
program = "operators"
arguments = ["--version"]
expect_output = "rackbar "

[[rule]]
name = "everything"
when = "true"
role = "cloud"
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_cloud_image_takes_its_nocloud_seed_and_is_ready() -> Result<()> {
    let stage = prepared(&["n1"], |_| {}, CLOUD).await?;
    // A static program that is at hand: the command line itself.
    let cli = Cli::new(&stage).await?;
    let program = cli.program().to_str().context("a path")?;
    let add = ["program", "add", program, "--name", "operators"];
    cli.run(&add, Duration::from_secs(120)).await?;
    let (_, id) = commit_all(&stage.api).await?;
    let run = until_done(&stage.api, id, READY).await?;
    let ran = done(&run, "/step.own-program")?;
    ensure!(ran.contains("rackbar "), "the program did not run: {ran}");
    let said = done(&run, "/step.look")?;
    println!("{said}");
    let node = stage.node("n1").await?.context("known")?;
    let name = format!("name {}.stories.test", node.name);
    for wanted in [
        "status: done",
        "DataSourceNoCloud [seed=/var/lib/cloud/seed/nocloud]",
        "\"errors\": []",
        &name,
        "account debian with root",
        "10.77.10.",
    ] {
        ensure!(
            said.contains(wanted),
            "{wanted:?} is not in what the machine said: {said}"
        );
    }
    all_ready(&stage, &["n1"]).await?;
    stage.end().await;
    Ok(())
}

fn in_short(run: &Run) -> String {
    let short = |stand: &Stand| match stand {
        Stand::Waiting => "waits".to_owned(),
        Stand::Running(_) => "runs".to_owned(),
        Stand::Done { .. } => "done".to_owned(),
        other => format!("{other:?}"),
    };
    let line = |(name, stand): (&rackbar_plan::ActionId, &Stand)| format!("{name} {}", short(stand));
    run.actions.iter().map(line).collect::<Vec<_>>().join(", ")
}
