//! Machines whose boot order was put wrong again, as an update of firmware or a hand in its setup does: seen by the checks,
//! planned, and put right on the machine, whose system stays as it is.

use anyhow::{Context, Result, ensure};
use rackbar_plan::Plan;
use rackbar_scenarios::Stage;
use rackbar_scenarios::cli::Cli;
use rackbar_scenarios::install::{PlanRequest, READY, until_done};
use rackbar_vrack::seat::{BootDevice, MachinePower as _, PowerAction};

use crate::install::{all_ready, boots_its_disk};
use crate::operator::SOON;

/// Two machines that are ready boot the network first from now on. The one with UEFI is restarted, as its system sees the
/// order that the firmware had at its start; what the BMC of the other says counts at once.
pub(crate) async fn is_put_right(stage: &Stage, cli: &Cli, bios: &str, uefi: &str) -> Result<()> {
    for name in [bios, uefi] {
        let machine = &stage.rack.node(name).context("a machine of this rack")?.machine;
        let mut order = machine.boot_order();
        // Stable: the network cards in their own order, then the disks in theirs.
        order.sort_by_key(|entry| entry.device != BootDevice::Network);
        machine.set_boot_order(order).await?;
    }
    // The network is in front, and our network boot sends the machine on to its disk.
    boots_its_disk(stage, uefi, PowerAction::Reset).await?;
    let mut called = Vec::new();
    for name in [bios, uefi] {
        called.push(stage.node(name).await?.context("known")?.name);
    }
    for name in &called {
        // That a check fails makes the command fail; the report says which.
        let _ = cli.run(&["verify", name], READY).await;
        let said = cli.run(&["report", "show", name], SOON).await?;
        let line = said
            .lines()
            .find(|line| line.contains("boot.order"))
            .unwrap_or_default();
        ensure!(
            line.contains("FAILED") && line.contains("network"),
            "{name}: the network is first, and the report says {line:?} in {said}"
        );
    }
    let plan = stage.api.plan(&PlanRequest::default()).await?;
    only_puts_the_disk_first(&plan)?;
    // Nothing is destroyed: no consent is given.
    let run = stage.api.commit(&plan, &[]).await?;
    until_done(&stage.api, run, READY).await?;
    all_ready(stage, &[bios, uefi]).await?;
    for name in [bios, uefi] {
        let machine = &stage.rack.node(name).context("a machine of this rack")?.machine;
        let first = machine.boot_order().first().map(|entry| entry.device);
        ensure!(
            first == Some(BootDevice::Disk),
            "{name} boots {first:?} first after all"
        );
    }
    Ok(())
}

fn only_puts_the_disk_first(plan: &Plan) -> Result<()> {
    let kinds: Vec<&str> = plan.actions.iter().map(|action| action.kind.name()).collect();
    let orders = kinds.iter().filter(|kind| **kind == "boot.order").count();
    ensure!(orders == 2, "the plan puts {orders} boot orders right: {kinds:?}");
    ensure!(
        plan.actions.iter().all(|action| action.destroys.is_none()),
        "the plan destroys something: {plan:#?}"
    );
    Ok(())
}
