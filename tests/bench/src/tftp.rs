//! TFTP: one file of 1 MiB, several windows, without and with a round trip of 2 ms.
//!
//! The round trip is added in the client: it holds every acknowledgement back that long after the block arrived, which
//! to the server is the same as a longer wire and needs no traffic shaper in the kernel.

use std::net::UdpSocket;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::net::Net;
use crate::process::Server;
use crate::report::{OURS, Row};

const SIZE: usize = 1 << 20;

/// True when Debian's program of that name is there.
pub(crate) fn installed(program: &str) -> bool {
    ["/usr/sbin", "/usr/bin", "/usr/local/sbin"]
        .iter()
        .any(|folder| std::path::Path::new(folder).join(program).exists())
}

/// Writes the files the servers serve: `boot` for TFTP, `large` and `script` for HTTP.
pub(crate) fn write_files(net: &Net) -> Result<()> {
    let folder = net.path("files");
    std::fs::create_dir_all(&folder)?;
    let content = |size: usize| {
        (0..size as u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect::<Vec<_>>()
    };
    std::fs::write(folder.join("boot"), content(SIZE))?;
    std::fs::write(folder.join("large"), content(60 << 20))?;
    std::fs::write(folder.join("script"), "#!ipxe\n".repeat(60))?;
    // Servers drop their rights before they read.
    for path in [net.folder().to_owned(), folder.clone()] {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    }
    Ok(())
}

pub(crate) fn measure(net: &Net) -> Result<Vec<Row>> {
    write_files(net)?;
    let files = net.path("files");
    let mut rows = Vec::new();
    let mut ours = net.server_command(&std::env::current_exe()?.to_string_lossy());
    ours.args(["--serve", "tftp"]).arg(net.folder());
    rows.extend(one(net, OURS, ours)?);
    if installed("in.tftpd") {
        let mut hpa = net.server_command("in.tftpd");
        hpa.args(["--foreground", "--listen", "--secure", "--address", "10.88.0.1:69"])
            .arg(&files);
        rows.extend(one(net, "tftpd-hpa", hpa)?);
    }
    if installed("dnsmasq") {
        let mut dnsmasq = net.server_command("dnsmasq");
        dnsmasq.args([
            "--no-daemon",
            "--port=0",
            "--conf-file=/dev/null",
            "--user=root",
            "--enable-tftp",
            "--quiet-tftp",
        ]);
        dnsmasq.arg(format!("--tftp-root={}", files.display()));
        rows.extend(one(net, "dnsmasq", dnsmasq)?);
    }
    Ok(rows)
}

fn one(net: &Net, name: &str, command: Command) -> Result<Vec<Row>> {
    let answers = || {
        net.load(|| get(1, Duration::ZERO, Duration::from_millis(500)).map(drop))
            .is_ok()
    };
    let server = Server::start(command, answers)?;
    let mut rows = vec![Row::less(
        "TFTP memory idle",
        name,
        server.memory_kib() as f64 / 1024.0,
        "MiB",
    )];
    for (round_trip, rounds) in [(Duration::ZERO, 40), (Duration::from_millis(2), 1)] {
        for window in [1, 4, 16, 64] {
            let before = server.cpu();
            let began = Instant::now();
            net.load(|| {
                for _ in 0..rounds {
                    get(window, round_trip, Duration::from_secs(5))?;
                }
                Ok(())
            })
            .with_context(|| format!("{name}, window {window}"))?;
            let mib = f64::from(rounds) * SIZE as f64 / f64::from(1 << 20);
            let what = format!(
                "TFTP block 1468, window {window:2}, round trip +{} ms",
                round_trip.as_millis()
            );
            rows.push(Row::more(&what, name, mib / began.elapsed().as_secs_f64(), "MiB/s"));
            // tftpd-hpa forks for each transfer and does not wait for the children, so nobody keeps their time.
            if rounds > 1 && name != "tftpd-hpa" {
                let cpu = server.cpu().saturating_sub(before).as_secs_f64() * 1e3 / mib;
                rows.push(Row::less(
                    format!("TFTP processor time, window {window:2}"),
                    name,
                    cpu,
                    "ms/MiB",
                ));
            }
        }
    }
    Ok(rows)
}

/// Fetches the file once, checking its length.
fn get(window: u16, round_trip: Duration, patience: Duration) -> Result<()> {
    let socket = UdpSocket::bind("10.88.0.2:0")?;
    socket.set_read_timeout(Some(patience))?;
    let request = format!("\0\x01boot\0octet\0blksize\x001468\0windowsize\0{window}\0");
    socket.send_to(request.as_bytes(), "10.88.0.1:69")?;
    let mut buffer = [0; 2048];
    let (mut agreed, mut last, mut since, mut bytes) = (1u16, 0u16, 0u16, 0usize);
    loop {
        let (count, from) = socket.recv_from(&mut buffer).context("waiting for the server")?;
        let arrived = Instant::now();
        let packet = buffer.get(..count).unwrap_or_default();
        let [_, kind, high, low, data @ ..] = packet else {
            bail!("a packet of {count} octets")
        };
        match kind {
            6 => {
                agreed = if packet.windows(10).any(|w| w.eq_ignore_ascii_case(b"windowsize")) {
                    window
                } else {
                    1
                };
                acknowledge(&socket, from, 0, arrived + round_trip)?;
            }
            3 => {
                let block = u16::from_be_bytes([*high, *low]);
                if block != last.wrapping_add(1) {
                    continue;
                }
                (last, since, bytes) = (block, since + 1, bytes + data.len());
                let ends = data.len() < 1468;
                if ends || since == agreed {
                    acknowledge(&socket, from, block, arrived + round_trip)?;
                    since = 0;
                }
                if ends {
                    ensure!(bytes == SIZE, "{bytes} octets instead of {SIZE}");
                    return Ok(());
                }
            }
            _ => bail!("the server refused: {}", String::from_utf8_lossy(data)),
        }
    }
}

fn acknowledge(socket: &UdpSocket, to: std::net::SocketAddr, block: u16, at: Instant) -> Result<()> {
    let wait = at.saturating_duration_since(Instant::now());
    if !wait.is_zero() {
        std::thread::sleep(wait);
    }
    let [high, low] = block.to_be_bytes();
    socket.send_to(&[0, 4, high, low], to)?;
    Ok(())
}
