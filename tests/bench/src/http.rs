//! HTTP: a file of 60 MiB to 1 and to 10 clients, and small scripts over kept connections.

use std::net::TcpStream;
use std::time::Duration;

use anyhow::Result;

use crate::client::{GIB, LARGE, download, many, small};
use crate::net::Net;
use crate::peers::{self, Load, Peer, Start};
use crate::report::{OURS, Row};
use crate::tftp::{installed, write_files};

const OUR_SCRIPT: &str = "/boot/v1/script.ipxe?mac=52-54-00-00-00-01";

/// Figures of all rounds.
#[derive(Default)]
struct Seen {
    idle: f64,
    large: [Load; 2],
    scripts: Load,
}

pub(crate) fn measure(net: &Net, seconds: u64, rounds: usize) -> Result<Vec<Row>> {
    write_files(net)?;
    let artifacts = rackbar_artifacts::Artifacts::new();
    let digest = artifacts.add_file("large", &net.path("files").join("large"))?.digest();
    let our_large = format!("/boot/v1/files/{digest}/large");
    let mut starts = vec![Start::ours(net, "http", "10.88.0.1:80")?];
    if installed("nginx") {
        let configuration = net.path("nginx.conf");
        std::fs::write(&configuration, nginx(net))?;
        let mut command = net.server_command("nginx");
        command.arg("-c").arg(&configuration).arg("-p").arg(net.folder());
        starts.push(Start {
            name: "nginx",
            at: "10.88.0.1:8080",
            command,
        });
    }
    let answers = |at: &str| net.load(|| Ok(TcpStream::connect(at)?)).is_ok();
    let mut peers: Vec<Peer<Seen>> = peers::start(starts, answers)?;
    for peer in &mut peers {
        peer.seen.idle = peer.server.memory_mib();
    }
    let time = Duration::from_secs(seconds);
    peers::take_turns("HTTP", &mut peers, rounds, |peer, _| {
        let (large, script) = if peer.name == OURS {
            (our_large.as_str(), OUR_SCRIPT)
        } else {
            ("/large", "/script")
        };
        one(net, peer, large, script, time)
    })?;
    Ok(peers.iter().flat_map(rows).collect())
}

/// As fast as nginx goes: sendfile, open files kept, no log, a worker per core.
fn nginx(net: &Net) -> String {
    let folder = net.folder().display();
    format!(
        "daemon off; user root; worker_processes auto; pid {folder}/nginx.pid; error_log {folder}/nginx.log;\n\
         events {{ worker_connections 4096; }}\n\
         http {{ access_log off; sendfile on; tcp_nopush on; tcp_nodelay on; open_file_cache max=100;\n\
         keepalive_requests 10000000; client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2;\n\
         fastcgi_temp_path {folder}/t3; uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;\n\
         server {{ listen 10.88.0.1:8080 reuseport; root {folder}/files; }} }}\n"
    )
}

fn one(net: &Net, peer: &mut Peer<Seen>, large: &str, script: &str, time: Duration) -> Result<()> {
    let at = peer.at;
    for (clients, load) in [1, 10].into_iter().zip(&mut peer.seen.large) {
        load.measure(&peer.server, || {
            let count = net.load(|| many(at, clients, time, |stream, _| download(stream, large, LARGE)))?;
            Ok(count as f64 * LARGE as f64 / GIB)
        })?;
    }
    peer.seen.scripts.measure(&peer.server, || {
        Ok(net.load(|| many(at, 16, time, |stream, _| small(stream, script)))? as f64)
    })
}

fn rows(peer: &Peer<Seen>) -> Vec<Row> {
    let (name, seen) = (peer.name, &peer.seen);
    let mut rows = vec![Row::less("HTTP memory idle", name, seen.idle, "MiB")];
    for (clients, load) in [1, 10].into_iter().zip(&seen.large) {
        let what = format!("HTTP 60 MiB files, {clients} clients");
        rows.push(Row::more(&what, name, load.rate(), "GiB/s"));
        let processor = format!("{what}, processor time");
        rows.push(Row::less(processor, name, load.cpu_each(1e3), "ms/GiB"));
    }
    let (scripts, after) = (&seen.scripts, peer.server.memory_mib());
    rows.extend([
        Row::more("HTTP scripts, 16 kept connections", name, scripts.rate(), "1/s"),
        Row::less("HTTP scripts, processor time", name, scripts.cpu_each(1e6), "us"),
        Row::less("HTTP memory after the load", name, after, "MiB"),
    ]);
    rows
}
