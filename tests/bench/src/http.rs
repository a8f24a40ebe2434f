//! HTTP: a file of 60 MiB to 1 and to 10 clients, and small scripts over kept connections.

use std::net::TcpStream;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::client::{GIB, LARGE, download, many, small};
use crate::net::Net;
use crate::process::Server;
use crate::report::{OURS, Row};
use crate::tftp::{installed, write_files};

const AT: &str = "10.88.0.1:80";

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
    let answers = || net.load(|| Ok(TcpStream::connect(AT)?)).is_ok();
    let server = Server::start(command, answers)?;
    let mut rows = vec![Row::less("HTTP memory idle", name, server.memory_mib(), "MiB")];
    let time = Duration::from_secs(seconds);
    for clients in [1, 10] {
        let (before, began) = (server.cpu(), Instant::now());
        let count = net.load(|| many(AT, clients, time, |stream, _| download(stream, large, LARGE)))?;
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
    let count = net.load(|| many(AT, 16, time, |stream, _| small(stream, script)))?;
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
        server.memory_mib(),
        "MiB",
    ));
    Ok(rows)
}
