//! The image as it is shipped, with nothing written for it: on a bigger disk, in a network nobody described.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
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
