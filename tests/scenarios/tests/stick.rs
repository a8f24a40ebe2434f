//! A data pack on a stick that is put into the running appliance, pulled out, and put in again damaged.

use std::fs::OpenOptions;
use std::net::SocketAddrV4;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_packs::Key;
use rackbar_scenarios::install::light_image;
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_trust::{Secret, Signer as _, SigningKey};
use rackbar_vrack::host::Ipv4;
use rackbar_vrack::machine::{Disk, DiskBus, Slot};
use rackbar_vrack::rack::neighbour;
use serde_json::Value;

use crate::offline::common::apt::Apt;
use crate::offline::{pack, recorded};

const SITE: &str = r#"
version = 1

[network.rack]
subnet = "10.77.10.0/24"
proxy = "own"
"#;

const SOON: Duration = Duration::from_secs(60);

/// Whole sectors, as a stick has them: the pack and nothing behind it that would be read.
const SECTOR: u64 = 512;

/// A stick that `dd` wrote this pack to.
fn written(pack: &Path, to: &Path) -> Result<Disk> {
    std::fs::copy(pack, to)?;
    let size = to.metadata()?.len().next_multiple_of(SECTOR);
    OpenOptions::new().write(true).open(to)?.set_len(size)?;
    Ok(Disk {
        bus: DiskBus::Usb,
        image: to.to_owned(),
        size,
        serial: "THE-STICK".into(),
        model: None,
    })
}

/// Waits until the one pack that may be there is as `fits` says, and gives it.
async fn until(stage: &Stage, what: &str, fits: impl Fn(&[Value]) -> bool) -> Result<()> {
    let look = || async {
        let found: Value = stage
            .api
            .read("/api/v1/packs")
            .await
            .map_err(|error| format!("{error:#}"))?;
        let packs = found["packs"].as_array().cloned().unwrap_or_default();
        if fits(&packs) { Ok(()) } else { Err(found.to_string()) }
    };
    eventually(what, SOON, look).await
}

fn in_use(packs: &[Value]) -> bool {
    let [pack] = packs else { return false };
    pack["in_use"] == true && pack["place"].as_str().is_some_and(|place| place.starts_with("/dev/"))
}

/// What a machine's apt gets through the mirror: the package, or what it said.
async fn apt(folder: &Path, mirror: &str) -> Result<std::result::Result<Vec<u8>, String>> {
    let apt = Apt::new(folder.to_owned(), mirror, None);
    let run = move || {
        for arguments in [&["update"][..], &["download", "rackbar-probe"]] {
            let (good, text) = apt.run(arguments);
            if !good || text.contains("E:") || text.contains("W:") {
                return Err(text);
            }
        }
        std::fs::read(apt.folder.join("got/rackbar-probe_1.0_all.deb")).map_err(|error| error.to_string())
    };
    Ok(tokio::task::spawn_blocking(run).await?)
}

async fn image_is_known(stage: &Stage) -> Result<bool> {
    Ok(stage
        .api
        .read::<Value>("/api/v1/images")
        .await?
        .to_string()
        .contains("debian-12"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pack_on_a_stick_is_used_while_the_stick_is_in_and_never_when_it_is_damaged() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let at = folder.path().to_owned();
    let (upstream, answers) = tokio::task::spawn_blocking(move || recorded(&at)).await??;
    let package = std::fs::read(folder.path().join("probe.deb"))?;
    let signer = SigningKey::from_seed(&Secret::new([9; 32])).context("a key")?;
    let path = folder.path().join("debian-12.pack");
    pack(&light_image()?, answers, &signer, &path)?;
    let stick = written(&path, &folder.path().join("stick"))?;

    let mut file = rack_file("demo")?;
    file.nodes.clear();
    file.appliance.uplink = false;
    file.appliance.usb = true;
    let rack = file.appliance.rack_address;
    let key = Key(signer.public_key());
    let change = |text: String| {
        format!(
            "{text}\n[packs]\ntrust = [\"{key}\"]\n\n[proxy]\nmode = \"offline\"\n\n[[proxy.mirror]]\nname = \
             \"debian\"\nupstream = [\"{upstream}\"]\n"
        )
    };
    let stage = Stage::set_with(file, change).await?;
    stage.start_appliance().await?;
    stage.api.set_site(SITE).await?;
    let client = Ipv4::fixed(neighbour(rack, 241), 24);
    let relay = stage.rack.relay("rack", client, SocketAddrV4::new(rack, 3128)).await?;
    let mirror = format!("http://{}/mirror/debian", relay.address());
    let machine = &stage.appliance.machine;
    let served = || async {
        let got = apt(&folder.path().join("apt-with"), &mirror).await;
        match got.map_err(|error| format!("{error:#}"))? {
            Ok(got) if got == package => Ok(()),
            Ok(_) => Err("another package".into()),
            Err(text) => Err(text),
        }
    };

    ensure!(!image_is_known(&stage).await?, "the image is there without its stick");
    machine.plug_in(Slot::Usb, &stick).await?;
    until(&stage, "the stick's pack is in use", in_use).await?;
    ensure!(image_is_known(&stage).await?, "the pack's image is not there");
    eventually("apt is served from the stick", SOON, served).await?;

    machine.pull(Slot::Usb).await?;
    until(&stage, "the pack is gone with its stick", <[_]>::is_empty).await?;
    ensure!(!image_is_known(&stage).await?, "the image outlived its stick");
    let without = apt(&folder.path().join("apt-without"), &mirror).await?;
    let told = without.err().context("apt was served from nowhere")?;
    ensure!(told.contains("504"), "{told}");

    // One bit of the index, behind the head that says where it is: the signature does not fit any more.
    let damaged = OpenOptions::new().read(true).write(true).open(&stick.image)?;
    let mut byte = [0];
    damaged.read_exact_at(&mut byte, 200)?;
    damaged.write_all_at(&[byte[0] ^ 1], 200)?;
    machine.plug_in(Slot::Usb, &stick).await?;
    let refused = |packs: &[Value]| matches!(packs, [pack] if pack["in_use"] == false && pack["why_not"].as_str().is_some_and(|why| !why.is_empty()));
    until(&stage, "the damaged pack is refused in words", refused).await?;
    ensure!(!image_is_known(&stage).await?, "a damaged pack's image is offered");

    machine.pull(Slot::Usb).await?;
    until(&stage, "the damaged pack is gone", <[_]>::is_empty).await?;
    damaged.write_all_at(&byte, 200)?;
    machine.plug_in(Slot::Usb, &stick).await?;
    until(&stage, "the mended stick's pack is in use again", in_use).await?;
    eventually("apt is served from the stick again", SOON, served).await?;
    stage.end().await;
    Ok(())
}
