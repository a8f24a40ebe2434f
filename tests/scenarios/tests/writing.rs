//! What may go wrong while an image is written to a real machine's disk: it comes with one bit another, and the power goes.
//! Neither leaves a disk that boots, and both end with the machine ready.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_model::{Digest, EventKind, NodeState};
use rackbar_plan::{RunId, Stand};
use rackbar_scenarios::cli::Cli;
use rackbar_scenarios::install::{self, Image, READY, until_done};
use rackbar_scenarios::{Stage, eventually};
use rackbar_vrack::machine::{Governor, Machine, sparse_copy};
use rackbar_vrack::seat::{MachinePower, PowerAction};
use rackbar_vrack::switch::Fault;

use crate::install::{all_ready, prepared, until_under_way};
use crate::operator;

/// The machine, and the disk that the image is for.
const MACHINE: &str = "n1";
/// At each end of a disk: where a boot sector, a partition table or its copy would be.
const END: usize = 1 << 20;
/// For a firmware to look at a disk and turn away.
const TURNED_AWAY: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn a_flipped_bit_and_a_power_cut_in_the_middle_of_writing_recover() -> Result<()> {
    let stage = prepared(&[MACHINE], |_| {}, "version = 1\n").await?;
    let image = install::light_image()?;
    stage.api.upload(&image).await?;
    let name = stage.node(MACHINE).await?.context("known")?.name;
    let cli = Cli::new(&stage).await?;
    operator::installs_simply(&cli, &name).await?;
    let run = stage.node(MACHINE).await?.context("known")?.run;
    let id = RunId(run.context("it is worked on")?);
    until_under_way(&stage, id, "/os.write", 0).await?;
    let folder = tempfile::tempdir()?;
    one_bit_is_another(&stage, &image, &name, folder.path()).await?;

    // The second try begins by itself, and is cut short.
    until_under_way(&stage, id, "/os.write", 30).await?;
    let machine = stage.rack.node(MACHINE).context("the machine")?;
    machine.machine.cut_power().await?;
    boots_nothing(&machine.machine, folder.path()).await?;
    nobody_changes_what_it_began_with(&stage, &cli, folder.path(), &image).await?;
    let run = until_done(&stage.api, id, READY).await?;
    all_ready(&stage, &[MACHINE]).await?;
    let node = stage.node(MACHINE).await?.context("known")?;
    let installed = node.installed.context("installed")?;
    ensure!(
        installed.sha256 == image.sha256,
        "the machine has {} in place of what its plan was made for",
        installed.sha256
    );
    let written = run.actions.iter().find(|(name, _)| name.0.ends_with("/os.write"));
    let Some((_, Stand::Done { tries, .. })) = written else {
        anyhow::bail!("os.write stands as {written:?}");
    };
    ensure!(*tries >= 2, "written in {tries} tries, the first of which was spoilt");
    println!("ready after a flipped bit and a power cut; the image was written in {tries} tries");
    let address = node.address.context("an address")?;
    operator::adopts(&cli, &name, &format!("root@{address}")).await?;
    stage.end().await;
    Ok(())
}

/// One bit in the middle of the image is another when it reaches the machine, and no checksum on the way says so: the try is
/// refused in words that name machine, action and reason, and what it wrote boots nothing.
async fn one_bit_is_another(stage: &Stage, image: &Image, name: &str, folder: &Path) -> Result<()> {
    let machine = stage.rack.node(MACHINE).context("the machine")?;
    let port = *machine.ports.first().context("its port")?;
    let middle = std::fs::metadata(&image.path)?.len() / 2;
    stage.rack.switch().set_fault(port, Fault::flips_after(middle));
    let refused = || async {
        let node = stage.node(MACHINE).await?.context("known")?;
        let told = stage.timeline(&node).await?;
        let failed = told.iter().find(
            |item| matches!(&item.event.kind, EventKind::ActionFailed { action, .. } if action.ends_with("/os.write")),
        );
        let failed = failed.with_context(|| format!("{:?}", node.doing))?;
        anyhow::Ok((node.state, failed.text.clone(), failed.event.kind.clone()))
    };
    let (state, text, kind) = eventually("the image is refused", Duration::from_secs(240), refused).await?;
    println!("{text}");
    let garbled = stage.rack.switch().counters(port).garbled;
    ensure!(garbled == 1, "{garbled} bits were others");
    ensure!(state != NodeState::Ready, "a node is ready with it");
    let EventKind::ActionFailed {
        action, reason, again, ..
    } = kind
    else {
        anyhow::bail!("{kind:?}");
    };
    ensure!(action == format!("{name}/os.write"), "{action}");
    let promised = format!("in place of {}", image.sha256);
    for words in ["came with SHA-256 ", promised.as_str(), "the disk was left empty"] {
        ensure!(reason.contains(words), "no {words:?} in {reason:?}");
    }
    ensure!(text.contains(&action) && text.contains(&reason), "{text}");
    ensure!(again.is_some(), "it is not tried again");
    boots_nothing(&machine.machine, folder).await
}

/// What is on the machine's disk now starts under no firmware: neither boot sector nor partition table is there, and the
/// machine's own firmware says so of a copy.
async fn boots_nothing(machine: &Machine, folder: &Path) -> Result<()> {
    let disk = machine.config().disks.first().context("a disk")?;
    let copy = folder.join("copy.disk0");
    sparse_copy(&disk.image, &copy)?;
    let file = std::fs::File::open(&copy)?;
    for at in [0, disk.size - END as u64] {
        let mut end = vec![0xff; END];
        file.read_exact_at(&mut end, at)?;
        let there = end.iter().position(|octet| *octet != 0);
        ensure!(there.is_none(), "from byte {at} on there is something at {there:?}");
    }
    let mut config = machine.config().clone();
    config.name = "copy".into();
    config.directory = folder.into();
    (config.nics, config.kcs, config.tpm) = (Vec::new(), None, false);
    config.disks.truncate(1);
    config.disks.first_mut().context("a disk")?.image = copy;
    let alone = Machine::new(config, Governor::for_this_machine())?;
    alone.act(PowerAction::On).await?;
    let seen = tokio::time::timeout(TURNED_AWAY, alone.console().wait_for("No bootable device")).await;
    seen.context("its firmware does not turn away from the disk")??;
    Ok(alone.act(PowerAction::ForceOff).await?)
}

/// Nobody takes away meanwhile what the run began with, or puts something else in its place.
async fn nobody_changes_what_it_began_with(stage: &Stage, cli: &Cli, folder: &Path, image: &Image) -> Result<()> {
    let refused = cli.run(&["os", "remove", "debian-12"], operator::SOON).await;
    let words = format!("{:#}", refused.err().context("an image was removed from under a run")?);
    ensure!(words.contains("debian-12") && words.contains("run"), "{words}");
    let refused = stage.api.upload(&another(folder, image)?).await;
    let words = format!("{:#}", refused.err().context("an image was replaced under a run")?);
    ensure!(words.contains("409") && words.contains("remove it first"), "{words}");
    Ok(())
}

/// An image of the same name that boots nothing: whoever gets it is not ready.
fn another(folder: &Path, image: &Image) -> Result<Image> {
    let mut raw = vec![0; 1 << 20];
    raw[510..512].copy_from_slice(&[0x55, 0xaa]);
    let path = folder.join("another.img");
    std::fs::write(&path, &raw)?;
    let sha256 = Digest(rackbar_trust::sha256(&raw));
    Ok(Image {
        path,
        sha256,
        ..image.clone()
    })
}
