//! `CONNECT`: bytes both ways to where the rule lets clients be led. Nothing of it is seen or stored.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rackbar_outward::Line;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
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

async fn both_ways(client: &mut TcpStream, origin: &mut Line) -> io::Result<()> {
    let (mut from_client, mut to_client) = client.split();
    let (mut from_origin, mut to_origin) = tokio::io::split(origin);
    let (mut up, mut down) = (vec![0; 16 << 10], vec![0; 64 << 10]);
    let (mut up_open, mut down_open) = (true, true);
    while up_open || down_open {
        let step = async {
            tokio::select! {
                read = from_client.read(&mut up), if up_open => {
                    let count = read?;
                    up_open = count > 0;
                    if up_open {
                        to_origin.write_all(up.get(..count).unwrap_or_default()).await?;
                        // A line in TLS, as to a parent proxy, may still hold what it said it took.
                        to_origin.flush().await
                    } else {
                        to_origin.shutdown().await
                    }
                }
                read = from_origin.read(&mut down), if down_open => {
                    let count = read?;
                    down_open = count > 0;
                    if down_open {
                        to_client.write_all(down.get(..count).unwrap_or_default()).await
                    } else {
                        to_client.shutdown().await
                    }
                }
            }
        };
        timeout(IDLE, step).await.map_err(io::Error::other)??;
    }
    Ok(())
}
