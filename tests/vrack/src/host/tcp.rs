//! TCP of a simulated host as async streams.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp;
use smoltcp::wire::{IpAddress, IpEndpoint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Host;
use super::stack::Stack;

/// Per direction. 256 KiB keeps a TCG guest busy; without window scaling beyond it smoltcp gains nothing.
const BUFFER: usize = 256 << 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

fn socket() -> tcp::Socket<'static> {
    let mut socket = tcp::Socket::new(
        tcp::SocketBuffer::new(vec![0; BUFFER]),
        tcp::SocketBuffer::new(vec![0; BUFFER]),
    );
    // Requests here are small and answered at once: waiting to fill a segment or to save an ACK only adds time.
    socket.set_nagle_enabled(false);
    socket.set_ack_delay(None);
    socket
}

fn endpoint(endpoint: Option<IpEndpoint>) -> io::Result<SocketAddr> {
    let endpoint = endpoint.ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected))?;
    let IpAddress::Ipv4(address) = endpoint.addr else {
        return Err(io::Error::other("a simulated host speaks IPv4 only"));
    };
    Ok(SocketAddr::new(IpAddr::V4(address), endpoint.port))
}

/// Accepts connections. smoltcp's listening socket becomes the connection, so a pool of them waits.
pub struct TcpListener {
    host: Host,
    port: u16,
    pool: Vec<SocketHandle>,
}

impl TcpListener {
    pub(super) fn bind(host: Host, port: u16, backlog: usize) -> io::Result<Self> {
        let pool = host.shared.with(|stack| {
            (0..backlog.max(1))
                .map(|_| listening(stack, port))
                .collect::<io::Result<Vec<_>>>()
        })?;
        Ok(Self { host, port, pool })
    }

    /// Waits for a connection that finished its handshake.
    ///
    /// # Errors
    /// When the host cannot listen again, which only a wrong port number causes.
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        let handle = std::future::poll_fn(|context| self.poll_accept(context)).await?;
        let peer = self
            .host
            .shared
            .with(|stack| endpoint(stack.sockets.get::<tcp::Socket<'_>>(handle).remote_endpoint()))?;
        Ok((
            TcpStream {
                host: self.host.clone(),
                handle,
            },
            peer,
        ))
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<SocketHandle>> {
        let port = self.port;
        self.host.shared.with(|stack| {
            for slot in &mut self.pool {
                let socket = stack.sockets.get_mut::<tcp::Socket<'_>>(*slot);
                match socket.state() {
                    tcp::State::Listen | tcp::State::SynReceived => socket.register_send_waker(context.waker()),
                    // The peer gave up before we looked.
                    tcp::State::Closed => {
                        socket
                            .listen(port)
                            .map_err(|error| io::Error::other(error.to_string()))?;
                        socket.register_send_waker(context.waker());
                    }
                    _ => {
                        let fresh = listening(stack, port)?;
                        return Poll::Ready(Ok(std::mem::replace(slot, fresh)));
                    }
                }
            }
            Poll::Pending
        })
    }
}

impl Drop for TcpListener {
    fn drop(&mut self) {
        self.host.shared.with(|stack| {
            for handle in self.pool.drain(..) {
                stack.orphan(handle);
            }
        });
    }
}

fn listening(stack: &mut Stack, port: u16) -> io::Result<SocketHandle> {
    let mut socket = socket();
    socket
        .listen(port)
        .map_err(|error| io::Error::other(format!("cannot listen on TCP port {port}: {error}")))?;
    Ok(stack.sockets.add(socket))
}

/// A TCP connection of a simulated host.
pub struct TcpStream {
    host: Host,
    handle: SocketHandle,
}

impl TcpStream {
    pub(super) async fn connect(host: Host, to: SocketAddrV4) -> io::Result<Self> {
        let handle = host.shared.with(|stack| {
            let mut socket = socket();
            let local = stack.ephemeral();
            socket
                .connect(stack.interface.context(), (*to.ip(), to.port()), local)
                .map_err(|error| io::Error::other(format!("cannot connect to {to}: {error}")))?;
            Ok::<_, io::Error>(stack.sockets.add(socket))
        })?;
        // From here on dropping the stream, also by cancellation, frees the socket.
        let stream = Self { host, handle };
        let connected = std::future::poll_fn(|context| {
            stream.with(|socket| match socket.state() {
                tcp::State::SynSent | tcp::State::SynReceived => {
                    socket.register_send_waker(context.waker());
                    Poll::Pending
                }
                tcp::State::Closed => Poll::Ready(Err(io::Error::from(io::ErrorKind::ConnectionRefused))),
                _ => Poll::Ready(Ok(())),
            })
        });
        match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
            Ok(result) => result.map(|()| stream),
            Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("{to} did not answer"))),
        }
    }

    /// The other end.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.with(|socket| endpoint(socket.remote_endpoint()))
    }

    /// This end.
    ///
    /// # Errors
    /// When the connection is over.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.with(|socket| endpoint(socket.local_endpoint()))
    }

    fn with<T>(&self, work: impl FnOnce(&mut tcp::Socket<'static>) -> T) -> T {
        self.host.shared.with(|stack| work(stack.sockets.get_mut(self.handle)))
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| {
            if socket.can_recv() {
                let count = socket
                    .recv_slice(into.initialize_unfilled())
                    .map_err(|error| io::Error::other(error.to_string()))?;
                into.advance(count);
                return Poll::Ready(Ok(()));
            }
            match socket.state() {
                // A reset and a timeout both end here; a clean end passes through CloseWait first.
                tcp::State::Closed => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                _ if !socket.may_recv() => Poll::Ready(Ok(())),
                _ => {
                    socket.register_recv_waker(context.waker());
                    Poll::Pending
                }
            }
        })
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.with(|socket| {
            if !socket.may_send() {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            }
            if socket.can_send() {
                return Poll::Ready(
                    socket
                        .send_slice(data)
                        .map_err(|error| io::Error::other(error.to_string())),
                );
            }
            socket.register_send_waker(context.waker());
            Poll::Pending
        })
    }

    /// Done when everything written was acknowledged by the peer.
    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(|socket| {
            if socket.send_queue() == 0 {
                return Poll::Ready(Ok(()));
            }
            if socket.state() == tcp::State::Closed {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            socket.register_send_waker(context.waker());
            Poll::Pending
        })
    }

    /// Says goodbye after what was written; the peer's data can still be read.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.with(tcp::Socket::close);
        Poll::Ready(Ok(()))
    }
}

impl Drop for TcpStream {
    fn drop(&mut self) {
        self.host.shared.with(|stack| stack.orphan(self.handle));
    }
}
