//! A plain TFTP server (RFC 1350, blksize and tsize of RFC 2348/2349): lock-step, as old ones are.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::time::Duration;

use crate::host::{Host, UdpSocket};
use crate::site::Files;
use crate::switch::Tasks;

const RETRY: Duration = Duration::from_secs(1);
const TRIES: u32 = 5;

/// The server at work; dropping it stops it.
pub struct TftpServer {
    _tasks: Tasks,
}

impl TftpServer {
    /// Serves files on UDP port 69 of a host.
    ///
    /// # Errors
    /// When the port is taken.
    pub fn start(host: &Host, files: Files) -> io::Result<Self> {
        let socket = host.udp(69)?;
        let tasks = Tasks::default();
        let host = host.clone();
        tasks.spawn(async move {
            let mut transfers = tokio::task::JoinSet::new();
            let mut buffer = [0; 2048];
            while let Ok((count, SocketAddr::V4(from))) = socket.recv_from(&mut buffer).await {
                let request = buffer[..count].to_vec();
                let (host, files) = (host.clone(), files.clone());
                transfers.spawn(async move { transfer(&host, &files, &request, from).await });
                while transfers.try_join_next().is_some() {}
            }
        });
        Ok(Self { _tasks: tasks })
    }
}

async fn transfer(host: &Host, files: &Files, request: &[u8], to: SocketAddrV4) -> io::Result<()> {
    let Some(body) = request.strip_prefix(&[0, 1]) else {
        return Ok(());
    };
    let words: Vec<_> = body.split(|byte| *byte == 0).map(String::from_utf8_lossy).collect();
    let socket = host.udp(0)?;
    let Some(content) = words.first().and_then(|name| files.get(name)) else {
        return socket.send_to(b"\0\x05\0\x01no such file\0", to).await;
    };
    let mut block = 512;
    let mut accepted = vec![0, 6];
    for pair in words.get(2..).unwrap_or_default().chunks_exact(2) {
        match pair[0].to_ascii_lowercase().as_str() {
            "blksize" => {
                block = pair[1].parse().unwrap_or(512).clamp(8, 1468);
                accepted.extend_from_slice(format!("blksize\0{block}\0").as_bytes());
            }
            "tsize" => accepted.extend_from_slice(format!("tsize\0{}\0", content.len()).as_bytes()),
            _ => {}
        }
    }
    if accepted.len() > 2 && !exchange(&socket, &accepted, 0, to).await? {
        return Ok(());
    }
    // A last block shorter than the rest, possibly empty, ends the transfer.
    for (number, start) in (0..=content.len()).step_by(block).enumerate() {
        let number = u16::try_from((number + 1) & 0xffff).unwrap_or(0);
        let chunk = &content[start..content.len().min(start + block)];
        let packet = [&[0, 3], &number.to_be_bytes()[..], chunk].concat();
        if !exchange(&socket, &packet, number, to).await? {
            return Ok(());
        }
    }
    Ok(())
}

/// Sends a packet until it is acknowledged; false when the peer gave up or went away.
async fn exchange(socket: &UdpSocket, packet: &[u8], number: u16, to: SocketAddrV4) -> io::Result<bool> {
    let wanted = [&[0, 4], &number.to_be_bytes()[..]].concat();
    let mut buffer = [0; 64];
    for _ in 0..TRIES {
        socket.send_to(packet, to).await?;
        while let Ok(answer) = tokio::time::timeout(RETRY, socket.recv_from(&mut buffer)).await {
            let (count, from) = answer?;
            if from != SocketAddr::V4(to) {
                continue;
            }
            if buffer[..count] == wanted[..] {
                return Ok(true);
            }
            if buffer.starts_with(&[0, 5]) {
                return Ok(false);
            }
        }
    }
    Ok(false)
}
