//! `CONNECT`: bytes both ways to where the rule lets clients be led. Nothing of it is seen or stored.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rackbar_outward::Line;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Client, Next, fail};
use crate::Proxy;
use crate::origin::OriginError;
use crate::rules::target::authority;
use crate::settings::Mode;
use crate::wire::Head;

/// A tunnel in which nothing moves either way for so long is given up.
const IDLE: Duration = Duration::from_secs(15 * 60);

pub(super) async fn connect(
    proxy: &Arc<Proxy>,
    client: &mut Client,
    head: &Head,
    from: SocketAddr,
) -> io::Result<Next> {
    // Port 0 is refused by `authority` when written, so it stands for "none written" here.
    let Some((host, port)) = authority(&head.target, 0).filter(|(_, port)| *port != 0) else {
        return fail(proxy, client, head, 400, "CONNECT needs HOST:PORT").await;
    };
    let settings = proxy.settings();
    if settings.mode == Mode::Offline {
        return fail(
            proxy,
            client,
            head,
            504,
            "the proxy is offline, and a tunnel cannot be answered from its cache",
        )
        .await;
    }
    let rule = &settings.rule;
    if let Err(refusal) = rule.name(&host).and_then(|()| rule.port(port, true)) {
        proxy.metrics.refused.inc();
        tracing::info!(%from, target = head.target, why = %refusal, "a client was refused");
        return fail(proxy, client, head, 403, &refusal.to_string()).await;
    }
    let mut origin = match proxy.origins.tunnel(&host, port).await {
        Ok(line) => line,
        Err(error) => {
            let refused = matches!(error, OriginError::Refused(_));
            if refused {
                proxy.metrics.refused.inc();
            }
            return fail(proxy, client, head, if refused { 403 } else { 502 }, &error.to_string()).await;
        }
    };
    client.write(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    origin.write_all(&std::mem::take(&mut client.received)).await?;
    origin.flush().await?;
    proxy.metrics.tunnels.inc();
    let result = both_ways(&mut client.stream, &mut origin).await;
    proxy.metrics.tunnels.dec();
    result.map(|()| Next::Close)
}

/// Each way goes on by itself: an end that takes nothing before it has said all holds up only what is meant for it.
async fn both_ways(client: &mut TcpStream, origin: &mut Line) -> io::Result<()> {
    let (from_client, to_client) = client.split();
    let (from_origin, to_origin) = tokio::io::split(origin);
    let moved = AtomicU64::new(0);
    let both = async {
        tokio::try_join!(
            one_way(from_client, to_origin, 16 << 10, &moved),
            one_way(from_origin, to_client, 64 << 10, &moved)
        )
    };
    let mut both = std::pin::pin!(both);
    loop {
        let before = moved.load(Ordering::Relaxed);
        match timeout(IDLE, &mut both).await {
            Ok(done) => return done.map(drop),
            Err(_) if moved.load(Ordering::Relaxed) != before => {}
            Err(silent) => return Err(io::Error::other(silent)),
        }
    }
}

/// Carries bytes, and then their end, one way; counts each step in `moved`.
async fn one_way(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    piece: usize,
    moved: &AtomicU64,
) -> io::Result<()> {
    let mut bytes = vec![0; piece];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        let mut left = bytes.get(..count).unwrap_or_default();
        while !left.is_empty() {
            let taken = to.write(left).await?;
            if taken == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            left = left.get(taken..).unwrap_or_default();
            moved.fetch_add(1, Ordering::Relaxed);
        }
        // A line in TLS, as to a parent proxy, may still hold what it said it took.
        to.flush().await?;
    }
}
