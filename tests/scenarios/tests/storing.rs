//! The appliance loses its power while its proxy stores: what it has afterwards is whole, and what it has not is fetched again.

use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_scenarios::cli::Cli;
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::host::Ipv4;
use rackbar_vrack::rack::neighbour;
use rackbar_vrack::seat::{MachinePower as _, PowerAction, PowerState};
use rackbar_vrack::site::Archive;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::offline::common::{Doc, Origin, bytes, doc};

const SITE: &str = r#"
version = 1

[network.rack]
subnet = "10.77.10.0/24"
proxy = "own"
"#;

/// Bytes of each object, and how fast the origin gives them: some seconds each, in which the power can go.
const SIZE: usize = 16 << 20;
const RATE: usize = 8 << 20;

/// So much of an object has come when the power goes: at its beginning, in its middle, and when its client has all of it and the
/// disk perhaps nothing yet.
const CUTS: [usize; 3] = [SIZE / 16, SIZE / 2, SIZE];

const SOON: Duration = Duration::from_secs(60);

/// The first `wanted` bytes of an object, through the mirror at `proxy`.
async fn fetch(proxy: SocketAddr, number: usize, wanted: usize) -> Result<Vec<u8>> {
    let mut stream = TcpStream::connect(proxy).await?;
    let request = format!("GET /mirror/debian/{number}.bin HTTP/1.1\r\nHost: proxy\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let (mut got, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let head = got.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4);
        if let Some(head) = head.filter(|head| got.len() >= head + wanted) {
            let status = got.starts_with(b"HTTP/1.1 200 ");
            ensure!(
                status,
                "{}",
                String::from_utf8_lossy(got.get(..head).unwrap_or_default())
            );
            return Ok(got.split_off(head));
        }
        let count = tokio::time::timeout(SOON, stream.read(&mut buffer)).await??;
        let said = || String::from_utf8_lossy(got.get(..got.len().min(300)).unwrap_or_default()).into_owned();
        ensure!(count > 0, "it ended after {} bytes: {}", got.len(), said());
        got.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
}

/// An object as a whole, once the proxy serves.
async fn whole(proxy: SocketAddr, number: usize) -> Result<Vec<u8>> {
    let attempt = || async move { fetch(proxy, number, SIZE).await.map_err(|error| format!("{error:#}")) };
    eventually(&format!("object {number} is served"), SOON, attempt).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_while_the_proxy_stores_leaves_only_what_is_whole() -> Result<()> {
    let origin = tokio::task::spawn_blocking(Origin::start).await?;
    let objects: Vec<Vec<u8>> = (0..CUTS.len()).map(|number| bytes(SIZE, number as u64 + 1)).collect();
    for (number, object) in objects.iter().enumerate() {
        let slow = Some(RATE);
        origin.put(
            &format!("/debian/{number}.bin"),
            Doc {
                slow,
                ..doc(object.clone())
            },
        );
    }
    let mut file = rack_file("demo")?;
    file.nodes.clear();
    let rack = file.appliance.rack_address;
    let station = neighbour(rack, 240);
    let mirror = format!("\n[[proxy.mirror]]\nname = \"debian\"\nupstream = [\"http://{station}/debian\"]\n");
    let stage = Stage::set_with(file, move |text| text + &mirror).await?;
    let authority = origin.address.to_string();
    let gate = Archive::start(&stage.rack.host("rack", Ipv4::fixed(station, 24)), &authority)?;
    stage.start_appliance().await?;
    stage.api.set_site(SITE).await?;
    let client = Ipv4::fixed(neighbour(rack, 241), 24);
    let relay = stage.rack.relay("rack", client, SocketAddrV4::new(rack, 3128)).await?;
    let proxy = relay.address();
    let cli = Cli::new(&stage).await?;
    for (number, cut) in CUTS.into_iter().enumerate() {
        let part = || async move { fetch(proxy, number, cut).await.map_err(|error| format!("{error:#}")) };
        let part = eventually(&format!("{cut} bytes of object {number} came"), SOON, part).await?;
        ensure!(objects[number].starts_with(&part), "object {number} came damaged");
        stage.appliance.machine.cut_power().await?;
        stage.start_appliance().await?;
        let verify = || async {
            cli.run(&["cache", "verify"], SOON)
                .await
                .map_err(|error| format!("{error:#}"))
        };
        let verified = eventually("the cache is read through", SOON, verify).await?;
        ensure!(
            verified.contains(" 0 were damaged"),
            "after a cut at {cut} bytes: {verified}"
        );
        println!("cut at {cut} bytes: {}", verified.trim());
        for (known, object) in objects.iter().enumerate().take(number + 1) {
            ensure!(whole(proxy, known).await? == *object, "object {known} is another");
        }
    }
    kept_without_its_origin(&stage, &cli, proxy, &objects, gate).await?;
    stage.end().await;
    Ok(())
}

/// What an appliance has that is switched off in order, it has without its origin too.
async fn kept_without_its_origin(
    stage: &Stage,
    cli: &Cli,
    proxy: SocketAddr,
    objects: &[Vec<u8>],
    gate: Archive,
) -> Result<()> {
    let listed = || async {
        let listed = cli
            .run(&["cache", "list"], SOON)
            .await
            .map_err(|error| format!("{error:#}"))?;
        let all = (0..CUTS.len()).all(|number| listed.contains(&format!("mirror:debian/{number}.bin")));
        if all { Ok(()) } else { Err(listed) }
    };
    eventually("all objects are stored", SOON, listed).await?;
    stage.appliance.machine.act(PowerAction::GracefulShutdown).await?;
    let off = tokio::time::timeout(SOON, stage.appliance.machine.wait(PowerState::Off)).await;
    off.context("the appliance is not off a minute after its button was pressed")?;
    drop(gate);
    stage.start_appliance().await?;
    for (number, object) in objects.iter().enumerate() {
        let kept = whole(proxy, number).await.context("from the store alone")?;
        ensure!(kept == *object, "object {number} is another");
    }
    Ok(())
}
