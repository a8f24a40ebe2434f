//! A system on a mirror of two disks, its kernel jumped into, and the mirror without one of them.

use std::convert::Infallible;

use anyhow::{Context, Result, ensure};
use rackbar_scenarios::cli::Cli;
use rackbar_scenarios::install::{READY, commit_all, until_done};
use rackbar_scenarios::{Stage, eventually};
use rackbar_vrack::rack::RackFile;
use rackbar_vrack::seat::{MachinePower, PowerAction};

use crate::install::{SITE, all_ready, boots_its_disk, done, prepared};
use crate::operator::SOON;

#[tokio::test(flavor = "multi_thread")]
async fn a_mirror_of_two_disks_is_installed_and_jumped_into() -> Result<()> {
    let site = SITE.replace(
        r#"root = { pick = "smallest" }"#,
        "root = { media = \"ssd\", mirror = true }\nrestart = \"kexec\"",
    );
    let two_alike = |file: &mut RackFile| {
        let node = &mut file.nodes[0];
        let mut disk = node.disks[0].clone();
        disk.serial = None;
        node.disks = vec![disk.clone(), disk];
    };
    let stage = prepared(&["n2"], two_alike, &site).await?;
    let starts = || anyhow::Ok(stage.console("n2")?.matches("BdsDxe: starting").count());
    let before = starts()?;
    ensure!(before > 0, "the firmware does not tell what it starts");
    let (_, id) = commit_all(&stage.api).await?;
    let run = until_done(&stage.api, id, READY).await?;
    all_ready(&stage, &["n2"]).await?;
    let jumped = done(&run, "/restart")?;
    ensure!(jumped.contains("the installed kernel starts"), "{jumped}");
    ensure!(
        starts()? == before,
        "the firmware was gone through once more, in place of a jump into the installed kernel"
    );
    a_mirror_that_lost_a_half_boots_and_is_told(&stage, "n2").await?;
    let verified = run.actions.iter().find(|(name, _)| name.0.ends_with("/verify"));
    let said = format!("{verified:?}");
    ensure!(
        said.contains("is raid1"),
        "the proof does not speak of the mirror: {said}"
    );
    stage.end().await;
    Ok(())
}

/// The first half of a mirror is replaced by a blank disk while its machine is off: the other half boots, and the checks say
/// what is missing.
async fn a_mirror_that_lost_a_half_boots_and_is_told(stage: &Stage, name: &str) -> Result<()> {
    let machine = stage.rack.node(name).context("a machine of this rack")?;
    machine.machine.act(PowerAction::ForceOff).await?;
    let disk = std::fs::File::options()
        .write(true)
        .open(stage.rack.directory().join(format!("{name}.disk0")))?;
    let size = disk.metadata()?.len();
    disk.set_len(0)?;
    disk.set_len(size)?;
    boots_its_disk(stage, name, PowerAction::On).await?;
    let cli = Cli::new(stage).await?;
    let called = stage.node(name).await?.context("known")?.name;
    // That a check fails makes the command try again, and fail. The report says which as soon as it did.
    let verify = ["verify", called.as_str()];
    let verifying = async {
        let _ = cli.run(&verify, READY).await;
        std::future::pending::<Infallible>().await
    };
    let missing = || async {
        let said = cli.run(&["report", "show", &called], SOON).await?;
        let line = said
            .lines()
            .find(|line| line.contains("disk.layout"))
            .unwrap_or_default();
        ensure!(
            line.contains("FAILED"),
            "a mirror with one half counts as whole: {line:?} in {said}"
        );
        Ok(())
    };
    tokio::select! {
        told = eventually("the report tells of the missing half", READY, missing) => told,
        never = verifying => match never {},
    }
}
