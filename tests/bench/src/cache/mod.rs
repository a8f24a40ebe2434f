//! Caching proxies: hits, cold objects, and a herd of clients on one cold object.

mod origin;
mod proxies;

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::client::{GIB, LARGE, download, each, first_then_rest, many, small};
use crate::net::Net;
use crate::peers::{self, Load, Peer};
use crate::process::Server;
use crate::report::{Row, median};
use origin::{Origin, url};

/// Clients of a herd, and of small hits.
const CLIENTS: usize = 100;
/// Small objects that are asked for in turn.
const SMALL: usize = 64;
/// Cold objects of one client in a round.
const COLD: usize = 3;
/// A herd that is not served by then is given up.
const HERD_WITHIN: Duration = Duration::from_secs(60);

/// Figures of all rounds.
#[derive(Default)]
struct Seen {
    idle: f64,
    large: [Load; 2],
    small: Load,
    cold: Load,
    herd: Vec<Herd>,
}

/// One cold object for a hundred clients.
struct Herd {
    served: usize,
    time: f64,
    /// Milliseconds to the first octets, of the median client.
    first: f64,
    cpu: f64,
    memory: f64,
    fetches: f64,
    objects: f64,
}

/// Paths of objects look like packages: of others, apt-cacher-ng keeps nothing.
fn path(kind: &str, who: &str, number: usize) -> String {
    format!("/debian/pool/main/r/rack/{kind}-{who}{number}_1.0_amd64.deb")
}

pub(crate) fn measure(net: &Net, seconds: u64, rounds: usize) -> Result<Vec<Row>> {
    let origin = net.load(Origin::start)?;
    let answers = |at: &str| net.load(|| Ok(TcpStream::connect(at)?)).is_ok();
    let mut peers: Vec<Peer<Seen>> = peers::start(proxies::all(net)?, answers)?;
    for peer in &mut peers {
        peer.seen.idle = peer.server.memory_mib();
        let at = peer.at;
        net.load(|| warm(at))
            .with_context(|| format!("filling the cache of {}", peer.name))?;
    }
    let time = Duration::from_secs(seconds);
    peers::take_turns("proxies", &mut peers, rounds, |peer, round| {
        hits(net, peer, time)?;
        cold(net, peer, round)?;
        let path = path("large-herd", peer.name, round);
        let herd = herd(net, &peer.server, peer.at, &path, &origin)?;
        peer.seen.herd.push(herd);
        Ok(())
    })?;
    Ok(peers.iter().flat_map(rows).collect())
}

/// Everything that hits are measured with, once through the proxy.
fn warm(at: &str) -> Result<()> {
    each(at, [url(&path("large", "hot", 0))], LARGE)?;
    each(
        at,
        (0..SMALL).map(|number| url(&path("small", "hot", number))),
        origin::SMALL,
    )
}

fn hits(net: &Net, peer: &mut Peer<Seen>, time: Duration) -> Result<()> {
    let at = peer.at;
    let hot = url(&path("large", "hot", 0));
    for (clients, load) in [1, 10].into_iter().zip(&mut peer.seen.large) {
        load.measure(&peer.server, || {
            let count = net.load(|| many(at, clients, time, |stream, _| download(stream, &hot, LARGE)))?;
            Ok(count as f64 * LARGE as f64 / GIB)
        })?;
    }
    let urls: Vec<String> = (0..SMALL).map(|number| url(&path("small", "hot", number))).collect();
    peer.seen.small.measure(&peer.server, || {
        let ask = |stream: &mut TcpStream, (client, count): (usize, usize)| {
            small(stream, urls.get((client + count) % SMALL).context("a URL")?)
        };
        Ok(net.load(|| many(at, CLIENTS, time, ask))? as f64)
    })
}

fn cold(net: &Net, peer: &mut Peer<Seen>, round: usize) -> Result<()> {
    let (at, name) = (peer.at, peer.name);
    peer.seen.cold.measure(&peer.server, || {
        let colds = (0..COLD).map(|number| url(&path("large", name, round * COLD + number)));
        net.load(|| each(at, colds, LARGE)).context("a cold object")?;
        Ok((COLD as u64 * LARGE) as f64 / GIB)
    })
}

fn herd(net: &Net, server: &Server, at: &str, path: &str, origin: &Origin) -> Result<Herd> {
    let over = AtomicBool::new(false);
    let before = server.cpu();
    let (memory, (time, firsts)) = std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0.0;
            while !over.load(Ordering::Relaxed) {
                most = server.memory_mib().max(most);
                std::thread::sleep(Duration::from_millis(200));
            }
            most
        });
        let result = net.load(|| Ok(stampede(at, &url(path))));
        over.store(true, Ordering::Relaxed);
        let memory = watch.join().map_err(|_| anyhow::anyhow!("the watch panicked"))?;
        Ok::<_, anyhow::Error>((memory, result?))
    })?;
    let fetched = origin.fetched(path);
    Ok(Herd {
        served: firsts.len(),
        time: time.as_secs_f64(),
        first: median(firsts.iter().map(|first| first.as_secs_f64() * 1e3)),
        cpu: server.cpu().saturating_sub(before).as_secs_f64(),
        memory,
        fetches: fetched.times as f64,
        objects: fetched.octets as f64 / LARGE as f64,
    })
}

/// Every client asks in the same moment. Gives the time until the last was served, and when each that was had its first
/// octets.
fn stampede(at: &str, target: &str) -> (Duration, Vec<Duration>) {
    let gate = std::sync::Barrier::new(CLIENTS + 1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..CLIENTS)
            .map(|_| {
                scope.spawn(|| -> Result<Duration> {
                    let stream = TcpStream::connect(at);
                    gate.wait();
                    let began = Instant::now();
                    let mut stream = stream?;
                    stream.set_read_timeout(Some(HERD_WITHIN))?;
                    first_then_rest(&mut stream, target, LARGE, began)
                })
            })
            .collect();
        gate.wait();
        let began = Instant::now();
        let firsts = threads.into_iter().filter_map(|thread| thread.join().ok()?.ok());
        let firsts: Vec<Duration> = firsts.collect();
        (began.elapsed(), firsts)
    })
}

fn rows(peer: &Peer<Seen>) -> Vec<Row> {
    let (name, seen) = (peer.name, &peer.seen);
    let mut rows = vec![Row::less("proxy memory idle", name, seen.idle, "MiB")];
    for (clients, load) in [1, 10].into_iter().zip(&seen.large) {
        let what = format!("proxy hits of 60 MiB, {clients} clients");
        rows.push(Row::more(&what, name, load.rate(), "GiB/s"));
        let cpu = load.cpu_each(1e3);
        rows.push(Row::less(format!("{what}, processor time"), name, cpu, "ms/GiB"));
    }
    let what = format!("proxy hits of 30 KB, {CLIENTS} kept connections");
    rows.push(Row::more(&what, name, seen.small.rate(), "1/s"));
    let cpu = seen.small.cpu_each(1e6);
    rows.push(Row::less("proxy hits of 30 KB, processor time", name, cpu, "us"));
    let cpu = seen.cold.cpu_each(1e3);
    rows.push(Row::less("proxy cold 60 MiB, processor time", name, cpu, "ms/GiB"));
    let herd = |figure: fn(&Herd) -> f64| median(seen.herd.iter().map(figure));
    let most = |figure: fn(&Herd) -> f64| seen.herd.iter().map(figure).fold(0.0, f64::max);
    let what = |what: &str| format!("herd of {CLIENTS} on one cold 60 MiB, {what}");
    let gib = (CLIENTS as u64 * LARGE) as f64 / GIB;
    let served = seen.herd.iter().map(|herd| herd.served).min().unwrap_or(0);
    rows.extend([
        Row::more(what("least served"), name, served as f64, ""),
        Row::less(what("all served"), name, herd(|herd| herd.time), "s"),
        Row::less(what("first octets, median client"), name, herd(|herd| herd.first), "ms"),
        Row::less(what("most fetches"), name, most(|herd| herd.fetches), ""),
        Row::less(what("most times over the uplink"), name, most(|herd| herd.objects), ""),
        Row::less(
            what("processor time"),
            name,
            herd(|herd| herd.cpu) * 1e3 / gib,
            "ms/GiB",
        ),
        Row::less(what("most memory"), name, most(|herd| herd.memory), "MiB"),
        Row::less("proxy memory after the load", name, peer.server.memory_mib(), "MiB"),
    ]);
    rows
}
