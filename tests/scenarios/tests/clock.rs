//! The appliance's own clock: wrong when it is switched on, and right once its server was heard. It is the kernel's clock of a
//! virtual machine: no other test may correct one.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rackbar_model::Timestamp;
use rackbar_ntp::{Asker, Limits, Measured, Server, SystemState, measure, request};
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::host::{Host, Ipv4, UdpSocket};
use rackbar_vrack::rack::neighbour;
use serde_json::Value;

use crate::operator::SOON;

/// By how much the clock is behind when the machine is switched on: two hours and two minutes, in milliseconds.
const WRONG: u64 = 7_320_000;
/// What a clock may be off by, in nanoseconds.
const RIGHT: u64 = 1_000_000_000;

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// An NTP server of the site with the right time: answers until its host is gone.
async fn serve(socket: UdpSocket) -> std::io::Result<()> {
    let (mut server, mut buffer) = (Server::new(Limits::default()), [0; 1024]);
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        let received = now();
        let state = SystemState {
            reference_id: *b"GPS\0",
            root_dispersion: 1_000_000,
            ..SystemState::local(1, received)
        };
        let asker = Asker {
            client: from.ip(),
            served: true,
            received,
            monotonic: received / 1_000_000,
        };
        let reply = server.answer(&buffer[..length], asker, &state, now);
        if let (Some(reply), SocketAddr::V4(from)) = (reply, from) {
            socket.send_to(&reply, from).await?;
        }
    }
}

/// Asks the appliance what time it is.
async fn ask(station: &Host, appliance: Ipv4Addr) -> Result<Measured> {
    let socket = station.udp(0)?;
    let (nonce, sent, mut buffer) = (now() ^ 0x5eed, now(), [0; 1024]);
    socket
        .send_to(&request(nonce), SocketAddrV4::new(appliance, 123))
        .await?;
    let heard = tokio::time::timeout(Duration::from_secs(5), socket.recv_from(&mut buffer));
    let (length, _) = heard.await.context("it does not answer")??;
    let measured = measure(&buffer[..length], nonce, sent, now());
    measured.map_err(|refused| anyhow::anyhow!("its answer says nothing: {refused:?}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_wrong_at_power_on_is_set_by_its_server_in_kernel_and_mainboard() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.clear();
    let behind = (now() / 1_000_000).saturating_sub(WRONG);
    file.appliance.clock = Some(Timestamp(behind));
    let appliance = file.appliance.rack_address;
    let address = neighbour(appliance, 241);
    let change = |text: String| {
        let text = text.replacen("role = \"rack\"\n", "role = \"rack\"\nntp = \"own\"\n", 1);
        format!("{text}\n[ntp]\nserver = [\"{address}\"]\n")
    };
    let stage = Stage::set_with(file, change).await?;
    let station = stage.rack.host("rack", Ipv4::fixed(address, 24));
    tokio::spawn(serve(station.udp(123)?));
    stage.start_appliance().await?;
    let set = || async {
        let events = stage.api.events().await.map_err(|error| format!("{error:#}"))?;
        let step = events
            .iter()
            .find(|event| event.text.contains("clock was off and has been set"));
        step.map(|event| event.text.clone())
            .ok_or_else(|| format!("{} events", events.len()))
    };
    let told = eventually("the appliance's clock is set", SOON, set).await?;
    ensure!(told.contains("forward by 2 h"), "{told}");
    let right = || async {
        let told = ask(&station, appliance).await.map_err(|error| format!("{error:#}"))?;
        if told.synchronised && told.offset.unsigned_abs() < RIGHT {
            Ok(told)
        } else {
            Err(format!("{told:?}"))
        }
    };
    let after = eventually("the appliance's clock is right and it says so", SOON, right).await?;
    ensure!(after.stratum == 2, "{after:?}");
    // What was measured before the step counts no more: it is said again whom the clock follows once that was heard anew.
    let follows = format!("the clock follows {address} (stratum 2)");
    let said = || async {
        let services: Result<Value> = stage.api.read("/api/v1/services").await;
        let services = services.map_err(|error| format!("{error:#}"))?.to_string();
        if services.contains(&follows) {
            Ok(())
        } else {
            Err(services)
        }
    };
    eventually("the appliance says whom its clock follows", SOON, said).await?;
    // The kernel takes the clock for synchronised: only then it writes that of the mainboard, which shows whole seconds.
    let mainboard = || async {
        let shown = stage
            .appliance
            .machine
            .clock()
            .await
            .map_err(|error| error.to_string())?;
        let off = (now() / 1_000_000).abs_diff(shown.0);
        if off < 3_000 {
            Ok(())
        } else {
            Err(format!("off by {off} ms"))
        }
    };
    eventually("the clock of the mainboard is right", SOON, mainboard).await?;
    println!("{told}; it is off by {} ns then", after.offset);
    stage.end().await;
    Ok(())
}
