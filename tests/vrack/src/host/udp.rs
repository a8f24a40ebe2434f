//! UDP of a simulated host.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::task::Poll;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::udp;
use smoltcp::wire::{IpAddress, IpEndpoint};

use super::Host;

/// Datagrams waiting per direction. A whole rack powered on together asks DHCP in one second: 64 were too few for 100
/// clients, and each one dropped there waits for its own retry.
const DATAGRAMS: usize = 512;
const BYTES: usize = 1 << 20;

/// A bound UDP port of a simulated host. Broadcasts to it are received, and it may send to 255.255.255.255.
pub struct UdpSocket {
    host: Host,
    handle: SocketHandle,
}

fn buffer() -> udp::PacketBuffer<'static> {
    udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; DATAGRAMS], vec![0; BYTES])
}

impl UdpSocket {
    pub(super) fn bind(host: Host, port: u16) -> io::Result<Self> {
        let handle = host.shared.with(|stack| {
            let mut socket = udp::Socket::new(buffer(), buffer());
            let port = if port == 0 { stack.ephemeral() } else { port };
            let taken = stack.sockets.iter().any(
                |(_, socket)| matches!(socket, smoltcp::socket::Socket::Udp(other) if other.endpoint().port == port),
            );
            if taken {
                return Err(io::Error::new(
                    io::ErrorKind::AddrInUse,
                    format!("UDP port {port} is taken on this host"),
                ));
            }
            socket
                .bind(port)
                .map_err(|error| io::Error::other(format!("cannot bind UDP port {port}: {error}")))?;
            Ok(stack.sockets.add(socket))
        })?;
        Ok(Self { host, handle })
    }

    /// Waits for a datagram; one longer than `into` is cut, as the socket API of an operating system does.
    ///
    /// # Errors
    /// Never on a host that runs; kept so that callers are written like those of a real socket.
    pub async fn recv_from(&self, into: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        std::future::poll_fn(|context| {
            self.host.shared.with(|stack| {
                let socket = stack.sockets.get_mut::<udp::Socket<'_>>(self.handle);
                let Ok((data, from)) = socket.recv() else {
                    socket.register_recv_waker(context.waker());
                    return Poll::Pending;
                };
                let count = data.len().min(into.len());
                into[..count].copy_from_slice(&data[..count]);
                let IpAddress::Ipv4(address) = from.endpoint.addr else {
                    return Poll::Ready(Err(io::Error::other("a simulated host speaks IPv4 only")));
                };
                Poll::Ready(Ok((count, SocketAddr::new(IpAddr::V4(address), from.endpoint.port))))
            })
        })
        .await
    }

    /// Sends a datagram, waiting for room.
    ///
    /// # Errors
    /// When the destination cannot be sent to, such as port 0 or an empty address.
    pub async fn send_to(&self, data: &[u8], to: SocketAddrV4) -> io::Result<()> {
        let to = IpEndpoint::new(IpAddress::Ipv4(*to.ip()), to.port());
        std::future::poll_fn(|context| {
            self.host.shared.with(|stack| {
                let socket = stack.sockets.get_mut::<udp::Socket<'_>>(self.handle);
                match socket.send_slice(data, to) {
                    Ok(()) => Poll::Ready(Ok(())),
                    Err(udp::SendError::BufferFull) => {
                        socket.register_send_waker(context.waker());
                        Poll::Pending
                    }
                    Err(error) => Poll::Ready(Err(io::Error::other(format!("cannot send to {to}: {error}")))),
                }
            })
        })
        .await
    }
}

impl Drop for UdpSocket {
    fn drop(&mut self) {
        self.host.shared.with(|stack| {
            stack.sockets.remove(self.handle);
        });
    }
}
