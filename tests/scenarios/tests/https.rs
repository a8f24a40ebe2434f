//! HTTPS boot: a firmware that trusts the site's certificate takes the loader over TLS and no other way; one that does
//! not is told why and led without TLS at its next try.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_boot_tls::Identity;
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::host::Ipv4;
use rackbar_vrack::rack::neighbour;
use rackbar_vrack::seat::PowerAction;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The machine of the demo rack with UEFI HTTP Boot.
const MACHINE: &str = "n3";
/// OVMF alone takes about ten seconds to its first request on an idle machine.
const BOOT: Duration = Duration::from_secs(120);

async fn serving(ways: &'static str) -> Result<Stage> {
    let mut file = rack_file("demo")?;
    file.nodes.retain(|node| node.name == MACHINE);
    let negotiate = move |text: String| text.replace("[boot]\n", &format!("[boot]\nnegotiate = {ways}\n"));
    Stage::serving_with(file, negotiate).await
}

/// The certificate a person fetches for a firmware's setup.
async fn certificate(stage: &Stage) -> Result<Vec<u8>> {
    let appliance = stage.rack.file().appliance.rack_address;
    let person = Ipv4::Static {
        address: neighbour(appliance, 250),
        prefix: 24,
        gateway: None,
    };
    let relay = stage
        .rack
        .relay("rack", person, SocketAddrV4::new(appliance, 80))
        .await?;
    let fetched = || async {
        let mut tcp = TcpStream::connect(relay.address()).await?;
        tcp.write_all(b"GET /boot/v1/boot-ca.cer HTTP/1.0\r\n\r\n").await?;
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await?;
        let body = answer.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        let head = String::from_utf8_lossy(answer.get(..body.unwrap_or(0)).unwrap_or_default()).into_owned();
        ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
        Ok(answer.split_off(body.unwrap_or(0)))
    };
    // The keys are made at the first boot.
    eventually("the boot certificate is there", BOOT, fetched).await
}

/// Its timeline in words, a line each.
async fn told(stage: &Stage) -> Result<String> {
    let node = stage.node(MACHINE).await?.context("the appliance does not know it")?;
    let lines: Vec<String> = stage.timeline(&node).await?.into_iter().map(|item| item.text).collect();
    Ok(lines.join("\n"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firmware_that_trusts_the_site_boots_over_https_alone() -> Result<()> {
    let stage = serving("[\"uefi_https\"]").await?;
    let certificate = certificate(&stage).await?;
    let machine = &stage.rack.node(MACHINE).context("no such machine")?.machine;
    machine.trust(&certificate)?;
    stage.rack.power(MACHINE, PowerAction::On).await?;
    stage.until_discovered(MACHINE).await?;
    let told = told(&stage).await?;
    println!("{told}");
    ensure!(told.contains("UEFI HTTPS boot"), "another way in:\n{told}");
    ensure!(
        told.contains("https://") && told.contains("/boot/v1/loader.efi"),
        "no URL over TLS in:\n{told}"
    );
    let plain = told
        .lines()
        .find(|line| line.contains("http://") && line.contains("loader.efi"));
    ensure!(plain.is_none(), "{plain:?} in:\n{told}");
    stage.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_firmware_that_does_not_trust_the_site_is_told_so_and_boots_without_tls() -> Result<()> {
    let stage = serving("[\"uefi_https\", \"uefi_http\"]").await?;
    // Without any authority OVMF does not even try; with another site's it breaks the handshake off and says so.
    let other = Identity::generate("Rackbar boot elsewhere", &[])?;
    let machine = &stage.rack.node(MACHINE).context("no such machine")?.machine;
    machine.trust(other.authority())?;
    stage.rack.power(MACHINE, PowerAction::On).await?;
    // The firmware has nothing else to boot and waits for a person: somebody switches it off and on.
    let broken_off = || async {
        let told = told(&stage).await.map_err(|error| format!("{error:#}"))?;
        told.contains("broke off a TLS handshake").then_some(()).ok_or(told)
    };
    eventually("the firmware's refusal is told", BOOT, broken_off).await?;
    stage.rack.power(MACHINE, PowerAction::ForceOff).await?;
    stage.rack.power(MACHINE, PowerAction::On).await?;
    stage.until_discovered(MACHINE).await?;
    let told = told(&stage).await?;
    println!("{told}");
    ensure!(
        told.contains("does not trust the boot certificate"),
        "no reason in:\n{told}"
    );
    stage.end().await;
    Ok(())
}
