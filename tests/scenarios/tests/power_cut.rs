//! The appliance loses its power at any moment, and loses nothing else.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use rackbar_model::MacAddr;
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::host::{Host, Ipv4};
use rackbar_vrack::seat::{MachinePower, PowerAction};

/// Rounds; of three that follow each other one cuts the power at each kind of moment.
const ROUNDS: u64 = 10;
/// Clients that ask for addresses while the power goes.
const CLIENTS: usize = 8;
/// How long the first of them may take to its lease.
const LEASED: Duration = Duration::from_secs(30);

/// A moment for the power to go.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// While the appliance boots, so long after power-on.
    Booting(Duration),
    /// So long after it serves.
    Serving(Duration),
    /// So long after the first client has its lease, while the others are at theirs.
    Leasing(Duration),
}

/// Moments nobody chose. `RACKBAR_SEED` repeats those of a run, which tells its seed.
struct Moments(u64);

impl Moments {
    fn new() -> Result<Self> {
        let seed = match std::env::var("RACKBAR_SEED") {
            Ok(seed) => seed.parse().context("RACKBAR_SEED is a number")?,
            Err(_) => SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into(),
        };
        println!("moments of seed {seed}; RACKBAR_SEED={seed} repeats them");
        Ok(Self(seed))
    }

    /// At random, below `most` milliseconds (SplitMix64).
    fn below(&mut self, most: u64) -> Duration {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Duration::from_millis((mixed ^ (mixed >> 31)) % most)
    }

    fn cut(&mut self, round: u64) -> Cut {
        match round % 3 {
            0 => Cut::Leasing(self.below(600)),
            1 => Cut::Serving(self.below(3_500)),
            _ => Cut::Booting(self.below(14_000)),
        }
    }
}

/// Ten power cuts at random moments, some during boot, while clients take leases: the store opens every time, and no lease
/// a client was given is forgotten.
#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_lose_no_acknowledged_lease() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.clear();
    let stage = Stage::set(file).await?;
    let mut given: BTreeMap<MacAddr, Ipv4Addr> = BTreeMap::new();
    let (mut moments, mut leasing) = (Moments::new()?, 0);
    for round in 0..ROUNDS {
        let cut = moments.cut(round);
        let new = cut_once(&stage, round, cut, &given)
            .await
            .with_context(|| format!("round {round}, {cut:?}"))?;
        leasing += usize::from(!new.is_empty());
        given.extend(new);
    }
    stage.start_appliance().await?;
    kept(&stage, &given).await?;
    ensure!(
        leasing >= 4,
        "leases were given in {leasing} rounds, which proves too little"
    );
    println!(
        "{ROUNDS} power cuts, {} leases given in {leasing} rounds, none lost",
        given.len()
    );
    stage.end().await;
    Ok(())
}

/// Starts the appliance and takes its power; gives the leases that clients got in between.
async fn cut_once(
    stage: &Stage,
    round: u64,
    cut: Cut,
    given: &BTreeMap<MacAddr, Ipv4Addr>,
) -> Result<Vec<(MacAddr, Ipv4Addr)>> {
    let appliance = &stage.appliance.machine;
    if let Cut::Booting(after) = cut {
        appliance.act(PowerAction::On).await?;
        tokio::time::sleep(after).await;
        appliance.cut_power().await?;
        return Ok(Vec::new());
    }
    stage.start_appliance().await?;
    kept(stage, given).await?;
    let clients: Vec<Host> = (0..CLIENTS)
        .map(|n| stage.rack.host("rack", Ipv4::dhcp(format!("r{round}c{n}"))))
        .collect();
    let bound = || -> Vec<(MacAddr, Ipv4Addr)> {
        let bound = clients
            .iter()
            .map(|client| Some((client.mac(), client.bound()?.address)));
        bound.flatten().collect()
    };
    let after = match cut {
        Cut::Leasing(after) => {
            let first = || async { if bound().is_empty() { Err("no lease") } else { Ok(()) } };
            eventually("the first client has its lease", LEASED, first).await?;
            after
        }
        Cut::Serving(after) | Cut::Booting(after) => after,
    };
    tokio::time::sleep(after).await;
    // What a client holds now was acknowledged before the power goes.
    let held = bound();
    appliance.cut_power().await?;
    Ok(held)
}

async fn kept(stage: &Stage, given: &BTreeMap<MacAddr, Ipv4Addr>) -> Result<()> {
    let leases = stage.api.leases().await?;
    for (mac, address) in given {
        ensure!(
            leases
                .iter()
                .any(|lease| lease.mac == *mac && lease.address == *address),
            "{mac} was given {address}, and the appliance does not know it any more"
        );
    }
    Ok(())
}

/// The appliance restarts while nodes boot; they are discovered all the same, and what was known before stays known.
#[tokio::test(flavor = "multi_thread")]
async fn an_appliance_that_restarts_under_booting_nodes_discovers_them() -> Result<()> {
    let mut file = rack_file("demo")?;
    file.nodes.truncate(2);
    let stage = Stage::set(file).await?;
    stage.start_appliance().await?;
    stage.power_on("n1").await?;
    let first = stage.until_discovered("n1").await?;
    stage.power_on("n2").await?;
    let seen = || async {
        let node = stage.node("n2").await?.context("not known")?;
        let timeline = stage.timeline(&node).await?;
        let asked = timeline
            .iter()
            .any(|item| matches!(item.event.kind, rackbar_model::EventKind::DhcpAck { .. }));
        ensure!(asked, "{}", node.verdict);
        Ok(())
    };
    eventually("n2 has begun to boot", rackbar_scenarios::DISCOVERED, seen).await?;
    let leased = stage.api.leases().await?;
    stage.appliance.machine.cut_power().await?;
    stage.start_appliance().await?;
    let after = stage.api.leases().await?;
    for lease in &leased {
        let known = |one: &&rackbar_model::Lease| one.mac == lease.mac && one.address == lease.address;
        ensure!(
            after.iter().any(|one| known(&one)),
            "{lease:?} is forgotten: {after:#?}"
        );
    }
    let n1 = stage.node("n1").await?.context("n1 was forgotten")?;
    ensure!(
        n1.id == first.id && n1.inventory.is_some(),
        "n1 lost its identity or its inventory"
    );
    let n1 = stage.until_connected("n1").await?;
    ensure!(n1.id == first.id, "n1's agent came back as another node");
    stage.until_discovered("n2").await?;
    stage.end().await;
    Ok(())
}
