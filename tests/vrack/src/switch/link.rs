//! The wire to a QEMU NIC: `-netdev stream` over a unix socket, each frame behind its length (4 bytes, big endian).
//!
//! QEMU listens and we dial: a listening QEMU accepts again after a lost connection, a dialling one (7.2 has no
//! `reconnect` for `stream`) would leave its NIC dead for good.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::PortId;
use super::fabric::Fabric;

/// Longest frame QEMU sends with offloads negotiated (a 64 KiB segment and its headers), with slack. A greater length
/// means the stream lost its framing, and only a new connection helps.
const LONGEST: usize = 70_000;
const BUFFER: usize = 256 << 10;
const FIRST_RETRY: Duration = Duration::from_millis(10);
const LAST_RETRY: Duration = Duration::from_millis(250);

/// Keeps a port connected to the socket for ever.
pub(super) async fn run(fabric: Arc<Fabric>, port: PortId, socket: PathBuf) {
    let mut pause = FIRST_RETRY;
    loop {
        match UnixStream::connect(&socket).await {
            Ok(stream) => {
                pause = FIRST_RETRY;
                fabric.set_up(port, true);
                let (reader, writer) = stream.into_split();
                let ended = tokio::select! {
                    ended = read(&fabric, port, reader) => ended,
                    ended = write(&fabric, port, writer) => ended,
                };
                fabric.set_up(port, false);
                if let Err(error) = ended {
                    tracing::debug!(port = port.0, socket = %socket.display(), %error, "link to QEMU lost");
                }
            }
            // A machine that is off has no socket, or a stale one: that is what "no link" looks like here.
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LAST_RETRY);
            }
        }
    }
}

/// Takes as many frames out of each read as arrived.
async fn read(fabric: &Fabric, port: PortId, mut stream: OwnedReadHalf) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    let mut filled = 0;
    loop {
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Ok(());
        }
        filled += count;
        let mut taken = 0;
        while let Some((head, rest)) = buffer[taken..filled].split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*head) as usize;
            if length > LONGEST {
                return Err(io::Error::other(format!(
                    "a frame of {length} bytes: the stream lost its framing"
                )));
            }
            let Some(frame) = rest.get(..length) else { break };
            fabric.ingress(port, frame);
            taken += 4 + length;
        }
        buffer.copy_within(taken..filled, 0);
        filled -= taken;
    }
}

/// Writes everything that waits in one call.
async fn write(fabric: &Fabric, port: PortId, mut stream: OwnedWriteHalf) -> io::Result<()> {
    let Some(state) = fabric.port(port) else { return Ok(()) };
    let mut frames = Vec::new();
    let mut batch = Vec::with_capacity(BUFFER);
    loop {
        state.queue.take(&mut frames).await;
        batch.clear();
        for frame in frames.drain(..) {
            batch.extend_from_slice(&u32::try_from(frame.wire_len()).unwrap_or(0).to_be_bytes());
            frame.append_to(&mut batch);
        }
        stream.write_all(&batch).await?;
    }
}
