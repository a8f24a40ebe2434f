//! The appliance boots from every medium it is delivered on, and serves. Two of these go on: one is switched off in
//! order, one hangs and its watchdog resets it.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rackbar_scenarios::{Stage, eventually};
use rackbar_vrack::machine::Machine;
use rackbar_vrack::rack::RackFile;
use rackbar_vrack::seat::{MachinePower as _, PowerAction, PowerState};

use crate::shipped::is_kernels;

/// From the press of the button to a machine without power: services have ten seconds each, and need less than one.
const DOWN: Duration = Duration::from_secs(180);
/// The watchdog's own time is half a minute: an emulated machine on a busy one may be away for seconds.
const RESET: Duration = Duration::from_secs(180);

/// A rack of nothing but the appliance, which serves.
async fn serves(medium: &str, firmware: &str, more: &str) -> Result<Stage> {
    let text = format!(
        "name = \"media\"\ndescription = \"nothing but the appliance\"\nnode = []\n\
         [appliance]\nmedium = \"{medium}\"\nfirmware = \"{firmware}\"\n{more}"
    );
    let stage = Stage::set(RackFile::parse(&text, "media")?).await?;
    let time = stage.start_appliance().await?;
    println!("{medium} under {firmware}: serving after {:.1} s", time.as_secs_f64());
    let services = stage.api.ready().await?;
    ensure!(services.starts_with("ready"), "a service is not well: {services}");
    Ok(stage)
}

async fn boots(medium: &str, firmware: &str) -> Result<()> {
    serves(medium, firmware, "").await?.end().await;
    Ok(())
}

/// And, its power button pressed, goes down in order: services stop, file systems are unmounted, the power goes.
#[tokio::test(flavor = "multi_thread")]
async fn appliance_boots_from_a_disk() -> Result<()> {
    let stage = serves("disk", "uefi", "").await?;
    let disk = stage.rack.directory().join("rackbar.img");
    let mounted = Data::read(&disk)?;
    ensure!(
        mounted.needs_recovery,
        "the file system is in use and its superblock does not say so: {mounted:?}"
    );
    let machine = &stage.appliance.machine;
    let start = Instant::now();
    machine.act(PowerAction::GracefulShutdown).await?;
    let off = tokio::time::timeout(DOWN, machine.wait(PowerState::Off)).await;
    off.with_context(|| format!("it is not off {} s after its button was pressed", DOWN.as_secs()))?;
    println!(
        "off {:.1} s after the button was pressed",
        start.elapsed().as_secs_f64()
    );
    let console = String::from_utf8_lossy(&std::fs::read(machine.console().log_path())?).into_owned();
    let last = console.rfind("switching off: daemon stopped after ");
    let last = last.and_then(|at| console.get(at..)).unwrap_or_default();
    ensure!(
        last.contains("file systems are unmounted, goodbye") && !last.contains("was killed"),
        "the console does not say that it went down in order:\n{console}"
    );
    let left = Data::read(&disk)?;
    ensure!(left.clean && !left.needs_recovery, "not left clean: {left:?}");
    let checked = Command::new("e2fsck")
        .args(["-f", "-n"])
        .arg(format!("{}?offset={}", disk.display(), left.offset))
        .output()
        .context("running e2fsck (Debian package e2fsprogs)")?;
    ensure!(
        checked.status.success(),
        "e2fsck: {}",
        String::from_utf8_lossy(&checked.stdout)
    );
    stage.end().await;
    Ok(())
}

/// What the superblock of the data partition says (ext4, fs/ext4/ext4.h of Linux).
#[derive(Debug)]
struct Data {
    /// Where the partition begins, in bytes.
    offset: u64,
    /// It was unmounted, or is mounted and without errors.
    clean: bool,
    /// Its journal holds what the rest does not: mounted, or left so.
    needs_recovery: bool,
}

impl Data {
    fn read(disk: &Path) -> Result<Self> {
        let mut file = std::fs::File::open(disk)?;
        let table = gptman::GPT::read_from(&mut file, 512)?;
        let data = table
            .iter()
            .find(|(_, entry)| entry.partition_name.as_str() == "rackbar-data")
            .context("no data partition")?;
        let offset = data.1.starting_lba * 512;
        let mut superblock = [0; 1024];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut superblock, offset + 1024)?;
        let field = |at: usize| u16::from_le_bytes([superblock[at], superblock[at + 1]]);
        ensure!(field(0x38) == 0xEF53, "no ext4 at byte {offset}");
        Ok(Self {
            offset,
            clean: field(0x3A) == 1,
            needs_recovery: field(0x60) & 4 != 0,
        })
    }
}

/// A person in front of it, without a serial cable: who this is and that it works are on the display, and its keyboard leads
/// to the kernel's log and back.
async fn is_worked_on_at_its_display(stage: &Stage) -> Result<()> {
    let machine = &stage.appliance.machine;
    let fingerprint = stage.api.pin().context("no certificate was seen")?;
    let address = stage.rack.file().appliance.rack_address.to_string();
    let status = format!("Fingerprint  {fingerprint}");
    display(
        machine,
        &["Rackbar", &status, &address, "dhcp", "tftp", "http", "l log"],
        " Log: ",
    )
    .await?;
    machine.press("l").await?;
    let log = display(machine, &[" Log: kernel ", "q back", "> ["], " Events ").await?;
    ensure!(log.lines().any(is_kernels), "no line of the kernel's log:\n{log}");
    machine.press("q").await?;
    display(machine, &[" Events ", "p power off"], " Log: ").await?;
    Ok(())
}

/// Waits until the display shows all of `parts` and not `gone`, and gives what it shows.
async fn display(machine: &Machine, parts: &[&str], gone: &str) -> Result<String> {
    let look = || async {
        let screen = machine.text_screen().await.map_err(|error| error.to_string())?;
        match parts.iter().find(|part| !screen.contains(*part)) {
            Some(part) => Err(format!("no {part:?}:\n{screen}")),
            None if screen.contains(gone) => Err(format!("still {gone:?}:\n{screen}")),
            None => Ok(screen),
        }
    };
    eventually(&format!("the display shows {parts:?}"), Duration::from_secs(60), look).await
}

#[tokio::test(flavor = "multi_thread")]
async fn appliance_boots_from_a_cd() -> Result<()> {
    boots("iso-cd", "uefi").await
}

#[tokio::test(flavor = "multi_thread")]
async fn appliance_boots_from_the_iso_on_a_stick() -> Result<()> {
    boots("iso-disk", "uefi").await
}

#[tokio::test(flavor = "multi_thread")]
async fn appliance_boots_by_ipxe_under_uefi() -> Result<()> {
    boots("ipxe", "uefi").await
}

/// And is read and worked on at its display and keyboard; and, when its kernel hangs, is reset by the watchdog that init feeds.
#[tokio::test(flavor = "multi_thread")]
async fn appliance_boots_by_ipxe_under_bios() -> Result<()> {
    // A kernel that panics restarts by itself where it was told so; this one is told nothing and stands still.
    let hangs =
        "display = true\nwatchdog = true\nkernel_arguments = \"rackbar.watchdog=30 unknown_nmi_panic panic=0\"\n";
    let stage = serves("ipxe", "bios", hangs).await?;
    let machine = &stage.appliance.machine;
    is_worked_on_at_its_display(&stage).await?;
    let console = machine.console();
    let text = String::from_utf8_lossy(&std::fs::read(console.log_path())?).into_owned();
    ensure!(
        text.contains("watchdog armed (i6300ESB timer): the machine is reset when init is silent for 30 s"),
        "nothing tells of a watchdog:\n{text}"
    );
    // It was fed through the whole boot, or it would not have come this far.
    let boots = machine.boots();
    ensure!(boots == 1, "it was reset while it was well: {boots} boots");
    let qmp = machine.qmp().await.context("it is off")?;
    let mut events = qmp.events();
    let start = Instant::now();
    qmp.inject_nmi().await?;
    let reset = async {
        loop {
            if events.recv().await.context("QEMU's events")?.name == "WATCHDOG" {
                return anyhow::Ok(());
            }
        }
    };
    let reset = tokio::time::timeout(RESET, reset).await;
    reset.context("the watchdog does not reset a machine whose kernel hangs")??;
    println!("reset {:.1} s after its kernel hung", start.elapsed().as_secs_f64());
    let text = console.wait_for("Kernel panic").await?;
    ensure!(text.contains("not syncing"), "it did not hang, but went on");
    let again = || async {
        // SeaBIOS resets once more when it finds itself in memory.
        match machine.boots() {
            2.. => Ok(()),
            boots => Err(format!("{boots} boots")),
        }
    };
    eventually("it boots again", RESET, again).await?;
    stage.end().await;
    Ok(())
}
