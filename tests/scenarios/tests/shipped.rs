//! The image as it is shipped, with nothing written for it: on a bigger disk, in a network nobody described.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::num::NonZero;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_image::audit;
use rackbar_image::modules::List;
use rackbar_scenarios::api::Api;
use rackbar_scenarios::times::Told;
use rackbar_scenarios::{SERVING, eventually, media, rack_file};
use rackbar_vrack::host::Ipv4;
use rackbar_vrack::rack::{Appliance, Rack, RackOptions};
use rackbar_vrack::seat::{MachinePower, PowerAction};

/// What it is called where nobody gives it an address (`docs/configuration.md`).
const OURS: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);
/// The stick that the image is written to.
const STICK: u64 = 2 << 30;

fn console(appliance: &Appliance) -> Result<String> {
    let log = std::fs::read(appliance.machine.console().log_path())?;
    Ok(String::from_utf8_lossy(&log).into_owned())
}

/// What a person in front of the serial console sees: everything it ever got, on a terminal of the size it is taken for.
fn screen(appliance: &Appliance) -> Result<String> {
    screen_since(appliance, 0)
}

/// As [`screen`], of what the console got behind its first `start` bytes.
pub(crate) fn screen_since(appliance: &Appliance, start: usize) -> Result<String> {
    let lines = NonZero::new(24).context("no lines")?;
    let columns = NonZero::new(80).context("no columns")?;
    let mut terminal = vt100::Parser::new(lines, columns, 0);
    let log = std::fs::read(appliance.machine.console().log_path())?;
    terminal.process(log.get(start..).unwrap_or_default());
    Ok(terminal.screen().contents())
}

/// A line of the kernel's log as init keeps it: its level, the seconds since the kernel started, and the text.
pub(crate) fn is_kernels(line: &str) -> bool {
    let level = line.strip_prefix('<').and_then(|rest| rest.split_once("> ["));
    level.is_some_and(|(level, rest)| {
        let seconds = rest.split_once("] ").map(|(time, _)| time.trim().parse::<f64>());
        matches!(level.as_bytes(), [b'0'..=b'7']) && matches!(seconds, Some(Ok(_)))
    })
}

/// Types `keys` and waits until the screen is as wanted, and gives it.
async fn typed(appliance: &Appliance, keys: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
    appliance.machine.console().write(keys.as_bytes());
    let look = || async {
        let screen = screen(appliance).map_err(|error| error.to_string())?;
        if wanted(&screen) { Ok(screen) } else { Err(screen) }
    };
    eventually(&format!("the screen after {keys:?}"), SERVING, look).await
}

/// Everything a person takes from the screen: who this is, that it works, what happened, and the token, once.
async fn is_read_on_its_screen(appliance: &Appliance, api: &Api) -> Result<()> {
    let fingerprint = api.pin().context("no certificate was seen")?;
    let status = |screen: &str| screen.contains("t token") && screen.contains("Events");
    let screen = typed(appliance, "", status).await?;
    ensure!(
        screen.contains(&format!("Fingerprint  {fingerprint}")),
        "not {fingerprint}:\n{screen}"
    );
    for part in [
        "Rackbar",
        &OURS.to_string(),
        "none has shown itself yet",
        "dhcp",
        "tftp",
        "http",
        "r restart",
    ] {
        ensure!(screen.contains(part), "no {part:?}:\n{screen}");
    }
    let log = |screen: &str| screen.contains(" Log: kernel ") && screen.contains("q back");
    typed(appliance, "l", |screen| log(screen) && screen.lines().any(is_kernels)).await?;
    typed(appliance, "q", status).await?;

    // The token opens the API. Once it is put away, no key brings it back.
    let screen = typed(appliance, "t", |screen| screen.contains("d: written down")).await?;
    let mut words = screen.split(|character: char| !character.is_ascii_alphanumeric());
    let token = words.find(|word| word.len() >= 32 && *word != fingerprint);
    let token = token.with_context(|| format!("no token:\n{screen}"))?;
    let owner = Api::new(api.address(), token.to_owned())?;
    owner.nodes().await.context("the token of the screen opens nothing")?;
    let put_away = |screen: &str| screen.contains("r restart") && !screen.contains("t token");
    typed(appliance, "d", put_away).await?;
    // The log is opened after it, so that the key was surely read.
    let screen = typed(appliance, "tl", |screen| screen.contains(" Log: ")).await?;
    ensure!(!screen.contains("written down"), "{screen}");
    Ok(())
}

/// A station that comes into the rack is given an address by the appliance.
async fn leases(rack: &Rack, name: &str) -> Result<()> {
    let host = rack.host("rack", Ipv4::dhcp(name));
    let bound = || async { host.bound().ok_or("no lease") };
    let bound = eventually(&format!("{name} is given an address"), SERVING, bound).await?;
    ensure!(
        bound.address.octets()[..3] == OURS.octets()[..3] && bound.server == Some(OURS),
        "{bound:?}"
    );
    Ok(())
}

/// The userland is ours alone: of what the media start from, every file is on a list, and every listed one is there.
#[test]
fn every_file_of_the_built_media_is_on_a_list() -> Result<()> {
    audit::folder(&media()?, &List::shipped()?)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_shipped_image_on_a_bigger_disk_serves_a_network_nobody_described_and_grows() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.clear();
    let rack = Rack::build(file, RackOptions::default()).await?;
    let _time = Told::begin();
    let stick = rack.directory().join("stick.img");
    std::fs::copy(media()?.join("rackbar.img"), &stick).context("copying the shipped image")?;
    std::fs::File::options().write(true).open(&stick)?.set_len(STICK)?;
    let appliance = rack.add_appliance(&stick).await?;
    appliance.machine.act(PowerAction::On).await?;
    leases(&rack, "a-stranger").await?;
    let screen = console(&appliance)?;
    ensure!(screen.contains("/data grew from "), "{screen}");

    // Whoever has its certificate's fingerprint from the screen is asked for a token, and nothing is told without.
    let laptop = Ipv4::Static {
        address: Ipv4Addr::new(10, 10, 0, 250),
        prefix: 24,
        gateway: None,
    };
    let way = rack.relay("rack", laptop, SocketAddrV4::new(OURS, 443)).await?;
    let api = Api::new(way.address(), "a token nobody gave".to_owned())?;
    let healthy = || async {
        if api.healthy().await {
            Ok(())
        } else {
            Err("/healthz does not answer")
        }
    };
    eventually("the API answers", Duration::from_secs(30), healthy).await?;
    let refused = format!("{:#}", api.nodes().await.err().context("a stranger was let in")?);
    ensure!(refused.contains("401"), "{refused}");
    is_read_on_its_screen(&appliance, &api).await?;

    // It grows once.
    appliance.machine.cut_power().await?;
    appliance.machine.act(PowerAction::On).await?;
    leases(&rack, "another-stranger").await?;
    let screen = console(&appliance)?;
    ensure!(screen.matches("/data is on").count() == 2, "{screen}");
    ensure!(screen.matches("/data grew from ").count() == 1, "{screen}");
    rack.shut_down().await;
    Ok(())
}

/// The bill of materials beside the media (CycloneDX).
#[test]
fn the_bill_of_materials_names_what_is_shipped_with_its_digest() -> Result<()> {
    let path = media()?.join("rackbar.cdx.json");
    let bill: serde_json::Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    ensure!(
        bill["bomFormat"] == "CycloneDX" && bill["specVersion"] == "1.5",
        "{bill}"
    );
    let components = bill["components"].as_array().context("no components")?;
    let find = |kind: &str, name: &str| {
        let purl = format!("pkg:{kind}/{name}");
        components
            .iter()
            .find(|component| component["purl"].as_str().is_some_and(|is| is.starts_with(&purl)))
            .with_context(|| format!("{} does not name {name}", path.display()))
    };
    // Of the kernel's package, the one whose iPXE is shipped, the daemon, the loader and the agent.
    let parts = [
        ("deb/debian", "linux-image-"),
        ("deb/debian", "ipxe@"),
        ("cargo", "rustls@"),
        ("cargo", "smoltcp@"),
        ("cargo", "uefi@"),
        ("cargo", "ring@"),
        ("cargo", "postcard@"),
    ];
    for (kind, name) in parts {
        let component = find(kind, name)?;
        let digest = component["hashes"][0]["content"].as_str().unwrap_or_default();
        ensure!(
            digest.len() == 64 && component["hashes"][0]["alg"] == "SHA-256",
            "{component}"
        );
    }
    // What only the tests use is not shipped.
    ensure!(find("cargo", "proptest@").is_err(), "proptest is listed");
    // Each crate is one that Cargo.lock pins, by the same digest.
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.lock"))?;
    for component in components
        .iter()
        .filter(|one| one["purl"].as_str().is_some_and(|is| is.starts_with("pkg:cargo")))
    {
        let Some(digest) = component["hashes"][0]["content"].as_str() else {
            continue;
        };
        ensure!(lock.contains(digest), "not what Cargo.lock pins: {component}");
    }
    Ok(())
}
