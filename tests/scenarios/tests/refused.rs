//! What our loader does not boot: a manifest that its appliance did not sign for it, now; a file that is not the one
//! the manifest names; a server that gives nothing or breaks off.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_model::MacAddr;
use rackbar_scenarios::between::{Between, Lie, hyphens};
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::host::{Host, Ipv4};
use rackbar_vrack::rack::{NodeFirmware, RackFile, neighbour};
use rackbar_vrack::seat::PowerAction;
use rackbar_vrack::site::{BootRule, DhcpServer, DhcpSettings, Files, TftpServer};
use rackbar_vrack::switch::Fault;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

/// Led astray three times, then told the truth, with a line that breaks.
const PATIENT: &str = "patient";
/// Led astray at every try.
const REFUSING: &str = "refusing";
/// Five tries with pauses of 30 s in all, and the firmware before and after them.
const GIVEN_BACK: Duration = Duration::from_secs(480);
/// A report is on its way for seconds at most.
const TOLD: Duration = Duration::from_secs(30);
/// Where a download is broken off: enough that going on differs from beginning again.
const BREAK: usize = 1 << 20;

/// The rack beside a foreign server; that one is silent here, and somebody else leads the machines.
fn file() -> Result<RackFile> {
    let mut file = rack_file("proxy")?;
    file.nodes.retain(|node| node.firmware == NodeFirmware::UefiPxe);
    let mut patient = file.nodes.first().context("a machine with UEFI")?.clone();
    let refusing = file.nodes.first_mut().context("a machine with UEFI")?;
    refusing.name = REFUSING.into();
    patient.name = PATIENT.into();
    patient.firmware = NodeFirmware::UefiHttp;
    file.nodes.insert(0, patient);
    Ok(file)
}

/// What is told to whom, in turn.
fn lies(patient: MacAddr, refusing: MacAddr) -> Vec<(String, Lie)> {
    let manifest = |mac, lie| (format!("manifest?mac={}", hyphens(mac)), lie);
    let file = |name: &str, lie| (format!("/{name} "), lie);
    vec![
        manifest(patient, Lie::Silence),
        manifest(patient, Lie::OtherKey),
        file("vmlinuz", Lie::FlippedBit),
        file("base.cpio.zst", Lie::FlippedBit),
        file("vmlinuz", Lie::BreaksOff(BREAK)),
        file("vmlinuz", Lie::BreaksOff(BREAK)),
        manifest(refusing, Lie::ChangedManifest),
        manifest(refusing, Lie::Replayed),
        manifest(refusing, Lie::Of(patient)),
        manifest(refusing, Lie::NotFound),
        manifest(refusing, Lie::OtherKey),
    ]
}

/// Addresses, and the way to the server in between for every kind of firmware.
fn leading(us: &Host, address: std::net::Ipv4Addr) -> Result<DhcpServer> {
    let rule = |architecture, file: String| BootRule {
        architecture: Some(architecture),
        ipxe: None,
        file,
    };
    let settings = DhcpSettings {
        first: neighbour(address, 230),
        count: 10,
        prefix: 24,
        router: None,
        lease_seconds: 3600,
        boot: vec![
            rule(16, format!("http://{address}/boot/v1/loader.efi")),
            rule(7, "loader.efi".into()),
        ],
        next_server: Some(address),
    };
    Ok(DhcpServer::start(us, settings)?)
}

/// The loader as the appliance gives it, for a firmware that fetches it by TFTP.
async fn loader(us: &Host, appliance: SocketAddrV4) -> Result<Vec<u8>> {
    let mut stream = us.connect(appliance).await?;
    stream
        .write_all(b"GET /boot/v1/loader.efi HTTP/1.1\r\nHost: appliance\r\nConnection: close\r\n\r\n")
        .await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let head = answer.windows(4).position(|end| end == b"\r\n\r\n").context("a head")?;
    ensure!(answer.starts_with(b"HTTP/1.1 200"), "no loader from the appliance");
    Ok(answer.split_off(head + 4))
}

/// A server between machines and appliance lies to the loader in every way that the network can. It boots nothing that
/// the appliance did not say, tells why and tries again; once it is told the truth, over a line that breaks, the machine
/// is discovered, and one that hears lies only is given back to its firmware.
#[tokio::test(flavor = "multi_thread")]
async fn the_loader_starts_nothing_that_is_not_verified_and_says_why() -> Result<()> {
    let stage = Stage::serving_with(file()?, |text| text).await?;
    let foreign = stage.rack.foreign_dhcp().context("the site's own DHCP server")?;
    foreign.set_silent(true);
    let appliance = SocketAddrV4::new(stage.rack.file().appliance.rack_address, 80);
    let address = neighbour(*appliance.ip(), 66);
    let us = stage.rack.host("rack", Ipv4::fixed(address, 24));
    let node = |name: &str| stage.rack.node(name).with_context(|| format!("no {name}"));
    let mac = |name: &str| -> Result<MacAddr> { Ok(*node(name)?.macs.first().context("a NIC")?) };
    let (patient, refusing) = (mac(PATIENT)?, mac(REFUSING)?);
    let files = Files::new();
    files.put("loader.efi", loader(&us, appliance).await?);
    let between = Between::start(&us, appliance, lies(patient, refusing))?;
    let _leading = (leading(&us, address)?, TftpServer::start(&us, files)?);
    for name in [PATIENT, REFUSING] {
        // The appliance would lead them to itself.
        let port = *node(name)?.ports.first().context("a port")?;
        stage.rack.switch().set_fault(port, Fault::no_proxy_offers());
        stage.rack.power(name, PowerAction::On).await?;
    }
    stage.until_discovered(PATIENT).await?;
    node(REFUSING)?.machine.booted();
    the_patient_one_went_on_where_the_line_broke(&stage, &between).await?;
    let console = node(REFUSING)?.machine.console().clone();
    // The firmware says so itself, and takes its next boot option.
    let given_back = tokio::time::timeout(GIVEN_BACK, console.wait_for("failed to start")).await;
    let text = given_back.context("the firmware does not get the machine back")??;
    the_refusing_one_started_nothing(&stage, &text).await?;
    ensure!(between.untold().is_empty(), "not told: {:?}", between.untold());
    stage.end().await;
    Ok(())
}

/// `parts` stand in `text` in this order.
fn in_order(text: &str, parts: &[&str]) -> Result<()> {
    let mut rest = text;
    for part in parts {
        let at = rest
            .find(part)
            .with_context(|| format!("no {part:?} in its place in:\n{text}"))?;
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    Ok(())
}

/// What the appliance was told of the machine's boot, once all of `reasons` are in it: the loader goes on whether its
/// report is taken or not, so the last one may still be on its way when its screen is.
async fn told(stage: &Stage, name: &str, reasons: &[&str]) -> Result<()> {
    let told = eventually("the appliance is told every reason", TOLD, || async {
        let told = timeline(stage, name).await.map_err(|error| format!("{error:#}"))?;
        match reasons.iter().find(|reason| !told.contains(**reason)) {
            Some(missing) => Err(format!("no {missing:?} in:\n{told}")),
            None => Ok(told),
        }
    });
    println!("{}", told.await?);
    Ok(())
}

async fn timeline(stage: &Stage, name: &str) -> Result<String> {
    let node = stage
        .node(name)
        .await?
        .with_context(|| format!("{name} is not known"))?;
    let lines: Vec<String> = stage.timeline(&node).await?.into_iter().map(|item| item.text).collect();
    Ok(format!("{}\n{}", lines.join("\n"), node.verdict))
}

async fn the_patient_one_went_on_where_the_line_broke(stage: &Stage, between: &Between) -> Result<()> {
    let console = stage.console(PATIENT)?;
    in_order(
        &console,
        &[
            "closed the connection too early; asking for an address anew",
            "try 1 of 5 failed: the manifest is signed by key ",
            "which this loader does not trust",
            "again in 2 s",
            "try 2 of 5 failed: vmlinuz is not the file the manifest names",
            "try 3 of 5 failed: base.cpio.zst is not the file the manifest names",
            "starting the kernel",
        ],
    )?;
    let starts = console.matches("starting the kernel").count();
    ensure!(starts == 1, "a kernel was started {starts} times:\n{console}");
    let asked = between.asked();
    for from in [BREAK, 2 * BREAK] {
        let rest = format!("Range: bytes={from}-");
        ensure!(
            asked
                .iter()
                .any(|line| line.contains("/vmlinuz ") && line.contains(&rest)),
            "nobody asked for the rest of the kernel from byte {from} on: {asked:#?}"
        );
    }
    let reasons = [
        "signed by key",
        "vmlinuz is not the file",
        "base.cpio.zst is not the file",
    ];
    told(stage, PATIENT, &reasons).await
}

async fn the_refusing_one_started_nothing(stage: &Stage, console: &str) -> Result<()> {
    in_order(
        console,
        &[
            "try 1 of 5 failed: the manifest's signature is false",
            "try 2 of 5 failed: the manifest answers another question than ours",
            "try 3 of 5 failed: the manifest was made for the machine with ",
            "try 4 of 5 failed: no manifest: the boot server answered 404",
            "not booted: the manifest is signed by key ",
            "going back to the firmware in 10 s",
            "failed to start",
        ],
    )?;
    ensure!(
        !console.contains("starting the kernel"),
        "a kernel was started:\n{console}"
    );
    let reasons = [
        "signature is false",
        "played again",
        "made for the machine with",
        "signed by key",
    ];
    told(stage, REFUSING, &reasons).await
}
