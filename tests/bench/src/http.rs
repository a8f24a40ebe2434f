//! HTTP: a file of 60 MiB to 1 and to 10 clients, and small scripts over kept connections.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{MsgFlags, recv};

use crate::net::Net;
use crate::process::Server;
use crate::report::{OURS, Row};
use crate::tftp::{installed, write_files};

const LARGE: u64 = 60 << 20;
const GIB: f64 = (1u64 << 30) as f64;

pub(crate) fn measure(net: &Net, seconds: u64) -> Result<Vec<Row>> {
    write_files(net)?;
    let mut rows = Vec::new();
    let mut ours = net.server_command(&std::env::current_exe()?.to_string_lossy());
    ours.args(["--serve", "http"]).arg(net.folder());
    let artifacts = rackbar_artifacts::Artifacts::new();
    let digest = artifacts.add_file("large", &net.path("files").join("large"))?.digest();
    let script = "/boot/v1/script.ipxe?mac=52-54-00-00-00-01";
    rows.extend(one(
        net,
        OURS,
        ours,
        &format!("/boot/v1/files/{digest}/large"),
        script,
        seconds,
    )?);
    if installed("nginx") {
        let configuration = net.path("nginx.conf");
        std::fs::write(&configuration, nginx(net))?;
        let mut command = net.server_command("nginx");
        command.arg("-c").arg(&configuration).arg("-p").arg(net.folder());
        rows.extend(one(net, "nginx", command, "/large", "/script", seconds)?);
    }
    Ok(rows)
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
         server {{ listen 10.88.0.1:80 reuseport; root {folder}/files; }} }}\n"
    )
}

fn one(net: &Net, name: &str, command: Command, large: &str, script: &str, seconds: u64) -> Result<Vec<Row>> {
    let answers = || net.load(|| Ok(TcpStream::connect("10.88.0.1:80")?)).is_ok();
    let server = Server::start(command, answers)?;
    let mut rows = vec![Row::less(
        "HTTP memory idle",
        name,
        server.memory_kib() as f64 / 1024.0,
        "MiB",
    )];
    let time = Duration::from_secs(seconds);
    for clients in [1, 10] {
        let (before, began) = (server.cpu(), Instant::now());
        let count = net.load(|| many(clients, time, |stream| download(stream, large)))?;
        let gib = count as f64 * LARGE as f64 / GIB;
        let cpu = server.cpu().saturating_sub(before);
        let what = format!("HTTP 60 MiB files, {clients} clients");
        rows.push(Row::more(&what, name, gib / began.elapsed().as_secs_f64(), "GiB/s"));
        rows.push(Row::less(
            format!("{what}, processor time"),
            name,
            cpu.as_secs_f64() * 1e3 / gib.max(0.01),
            "ms/GiB",
        ));
    }
    let (before, began) = (server.cpu(), Instant::now());
    let count = net.load(|| many(16, time, |stream| small(stream, script)))?;
    let cpu = server.cpu().saturating_sub(before);
    rows.push(Row::more(
        "HTTP scripts, 16 kept connections",
        name,
        count as f64 / began.elapsed().as_secs_f64(),
        "1/s",
    ));
    let each = cpu.as_secs_f64() * 1e6 / count.max(1) as f64;
    rows.push(Row::less("HTTP scripts, processor time", name, each, "us"));
    rows.push(Row::less(
        "HTTP memory after the load",
        name,
        server.memory_kib() as f64 / 1024.0,
        "MiB",
    ));
    Ok(rows)
}

/// Repeats `request` on `clients` connections for `time`; gives how often it succeeded.
fn many(clients: usize, time: Duration, request: impl Fn(&mut TcpStream) -> Result<()> + Sync) -> Result<u64> {
    let end = Instant::now() + time;
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|_| {
                scope.spawn(|| -> Result<u64> {
                    let mut stream = TcpStream::connect("10.88.0.1:80")?;
                    stream.set_nodelay(true)?;
                    let mut count = 0;
                    while Instant::now() < end {
                        request(&mut stream)?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
            .sum()
    })
}

/// Asks and reads the head; gives the body's length and how much of it came with the head.
fn ask(stream: &mut TcpStream, path: &str, buffer: &mut [u8]) -> Result<(u64, u64)> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: 10.88.0.1\r\n\r\n").as_bytes())?;
    let mut filled = 0;
    loop {
        let count = stream.read(buffer.get_mut(filled..).unwrap_or_default())?;
        ensure!(count > 0, "the server closed the connection");
        filled += count;
        let got = buffer.get(..filled).unwrap_or_default();
        if let Some(end) = got.windows(4).position(|w| w == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(got.get(..end).unwrap_or_default()).into_owned();
            ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))
                .context("no length")?;
            return Ok((length.parse()?, (filled - end - 4) as u64));
        }
    }
}

fn small(stream: &mut TcpStream, path: &str) -> Result<()> {
    let mut buffer = [0; 4096];
    let (length, mut got) = ask(stream, path, &mut buffer)?;
    while got < length {
        got += stream.read(&mut buffer)? as u64;
    }
    Ok(())
}

fn download(stream: &mut TcpStream, path: &str) -> Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let (length, mut got) = ask(stream, path, buffer.get_mut(..4096).unwrap_or_default())?;
    ensure!(length == LARGE, "{length} octets instead of {LARGE}");
    while got < length {
        // The kernel drops what it would have copied: the reader should cost as little as a NIC does.
        let count = recv(stream.as_raw_fd(), &mut buffer, MsgFlags::MSG_TRUNC)?;
        ensure!(count > 0, "the server closed the connection");
        got += count as u64;
    }
    Ok(())
}
