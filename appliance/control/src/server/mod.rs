//! The listeners: HTTPS for people and programs, and a socket file that only root can open, for the appliance's own
//! console and command line.

mod activity;
mod paced;
mod places;

use std::convert::Infallible;
use std::fs::Permissions;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::Request;
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt;

use rackbar_services::http::Documents;

use crate::api::{Local, Problem};
use crate::boot::Peer;
use crate::{Context, api, boot, page};

use activity::{Activity, Answering, Steady};
use paced::Paced;
pub use places::Limits;
use places::{Place, Places};

/// A TLS handshake that takes longer is not one of ours.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// Bodies up to this many bytes are read before the request is judged: all but uploads.
const SMALL_BODY: usize = 64 << 10;
/// Such a body is under way for no longer.
const BODY_LIMIT: Duration = Duration::from_secs(30);
/// Requests still running at shutdown get this long.
const DRAIN_LIMIT: Duration = Duration::from_secs(3);
/// Waiting after `accept` failed for want of file descriptors, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Where to listen.
pub struct Listeners {
    /// Addresses for HTTPS.
    pub https: Vec<SocketAddr>,
    /// The TLS configuration: the site's certificate, ALPN `h2` and `http/1.1`.
    pub tls: Arc<rustls::ServerConfig>,
    /// A socket file for local administration, made with mode 0600; `None` for none.
    pub socket: Option<PathBuf>,
    /// Bounds of HTTPS; who can open the socket file has none.
    pub limits: Limits,
}

/// Why a listener could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {at}: {error}; is another program using it?")]
pub struct ServeError {
    at: String,
    error: io::Error,
}

/// The running server.
pub struct Handle {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    addresses: Vec<SocketAddr>,
}

impl Handle {
    /// The HTTPS addresses, with the port chosen where 0 was asked for.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops listening and waits until requests are answered, at most three seconds.
    pub async fn stop(mut self) {
        self.stop.send_replace(true);
        let drained = tokio::time::timeout(DRAIN_LIMIT, async { while self.tasks.join_next().await.is_some() {} });
        if drained.await.is_err() {
            self.tasks.shutdown().await;
        }
    }
}

/// Every route, in front of them the headers every answer carries.
pub(crate) fn router(context: &Context) -> Router {
    api::router(context)
        .merge(page::router(context))
        .method_not_allowed_fallback(page::wrong_method)
        .fallback(page::missing)
        .layer(axum::middleware::from_fn(read_small))
        .layer(axum::middleware::map_response(security_headers))
        .with_state(context.clone())
}

/// Reads a small body before anybody judges the request. Whoever is refused before its body was read sees an HTTP/2 stream
/// that is reset after its answer (RFC 9113 section 8.1), which curl before 8.0 reports as an error of the framing layer
/// and shows no answer.
async fn read_small(request: Request, next: Next) -> Response {
    let length = request.headers().get(CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    if !length.is_some_and(|length: usize| (1..=SMALL_BODY).contains(&length)) {
        return next.run(request).await;
    }
    let (head, body) = request.into_parts();
    match tokio::time::timeout(BODY_LIMIT, to_bytes(body, SMALL_BODY)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, Body::from(body))).await,
        _ => Problem::invalid("the body of the request did not come whole; send it again").into_response(),
    }
}

async fn security_headers(mut response: Response) -> Response {
    const HEADERS: [(&str, &str); 5] = [
        (
            "content-security-policy",
            "default-src 'self'; frame-ancestors 'none'; form-action 'self'; base-uri 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("x-frame-options", "DENY"),
        ("strict-transport-security", "max-age=31536000"),
    ];
    for (name, value) in HEADERS {
        response
            .headers_mut()
            .insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    response
}

/// Starts serving.
///
/// # Errors
/// When an address or the socket file cannot be opened. Nothing is left open then.
pub async fn serve(context: Context, listeners: Listeners) -> Result<Handle, ServeError> {
    let mut open = Vec::new();
    let mut addresses = Vec::new();
    for at in &listeners.https {
        let fail = |error| ServeError {
            at: format!("{at} (HTTPS)"),
            error,
        };
        let listener = TcpListener::bind(at).await.map_err(fail)?;
        addresses.push(listener.local_addr().map_err(fail)?);
        open.push(listener);
    }
    let socket = listeners.socket.as_deref().map(open_socket).transpose()?;
    let (stop, stopped) = watch::channel(false);
    let server = Server {
        router: router(&context),
        boot: None,
        places: Places::new(listeners.limits),
        stopped,
    };
    let mut tasks = JoinSet::new();
    for listener in open {
        tasks.spawn(server.clone().https(listener, TlsAcceptor::from(listeners.tls.clone())));
    }
    if let Some(listener) = socket {
        tasks.spawn(server.clone().local(listener));
    }
    Ok(Handle { stop, tasks, addresses })
}

/// Serves the boot documents over TLS at an address of their own, for HTTPS boot (UEFI 2.10 section 24.7.4): what firmware
/// needs of TLS the API must not have.
///
/// # Errors
/// When the address cannot be opened.
pub async fn serve_boot(
    listen: SocketAddr,
    tls: Arc<rustls::ServerConfig>,
    documents: Documents,
) -> Result<Handle, ServeError> {
    let fail = |error| ServeError {
        at: format!("{listen} (HTTPS boot)"),
        error,
    };
    let listener = TcpListener::bind(listen).await.map_err(fail)?;
    let addresses = vec![listener.local_addr().map_err(fail)?];
    let (stop, stopped) = watch::channel(false);
    let server = Server {
        router: boot::router(documents.clone()),
        boot: Some(documents),
        places: Places::new(Limits::default()),
        stopped,
    };
    let mut tasks = JoinSet::new();
    tasks.spawn(server.https(listener, TlsAcceptor::from(tls)));
    Ok(Handle { stop, tasks, addresses })
}

fn open_socket(path: &Path) -> Result<UnixListener, ServeError> {
    let fail = |error| ServeError {
        at: path.display().to_string(),
        error,
    };
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(fail(error)),
        _ => {}
    }
    // The folder is root's; between bind and chmod nobody else can reach the socket.
    let listener = UnixListener::bind(path).map_err(fail)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(fail)?;
    Ok(listener)
}

#[derive(Clone)]
struct Server {
    router: Router,
    boot: Option<Documents>,
    places: Places,
    stopped: watch::Receiver<bool>,
}

impl Server {
    async fn https(self, listener: TcpListener, acceptor: TlsAcceptor) {
        let mut connections = JoinSet::new();
        loop {
            let mut stopped = self.stopped.clone();
            tokio::select! {
                (stream, peer, place) = self.newcomer(&listener) => {
                    let (acceptor, server) = (acceptor.clone(), self.clone());
                    connections.spawn(async move {
                        let _ = stream.set_nodelay(true);
                        let activity = Activity::new();
                        let stream = Paced::new(stream, activity.clone(), server.places.limits().idle);
                        let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream));
                        match handshake.await {
                            Ok(Ok(stream)) => server.connection(stream, activity, Some(Peer(peer))).await,
                            Ok(Err(error)) => server.refused(peer, &error),
                            Err(_) => {}
                        }
                        drop(place);
                    });
                }
                () = stopping(&mut stopped) => break,
            }
            while connections.try_join_next().is_some() {}
        }
        while connections.join_next().await.is_some() {}
    }

    /// The next connection that has a place; others are closed.
    async fn newcomer(&self, listener: &TcpListener) -> (TcpStream, IpAddr, Place) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let local = stream.local_addr().ok().map(|local| local.ip());
                    if self.is_outside(local) {
                        continue;
                    }
                    if let Some(place) = self.places.take(peer.ip(), local).await {
                        return (stream, peer.ip(), place);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "accept on the HTTPS listener failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Whether it came to the boot server from an uplink; the API and the page are for people there, too.
    fn is_outside(&self, local: Option<IpAddr>) -> bool {
        let Some((boot, local)) = self.boot.as_ref().zip(local) else {
            return false;
        };
        boot.is_outside(local)
    }

    async fn local(mut self, listener: UnixListener) {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let server = self.clone();
                        connections.spawn(async move { server.connection(stream, Activity::new(), None).await });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "accept on the local socket failed");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                () = stopping(&mut self.stopped) => break,
            }
            while connections.try_join_next().is_some() {}
        }
        while connections.join_next().await.is_some() {}
    }

    /// A client broke the handshake off: worth telling, when it is a machine of the rack.
    fn refused(&self, peer: IpAddr, error: &io::Error) {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
        let Some(boot) = &self.boot else { return };
        let tls = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match (tls, error.kind()) {
            (Some(rustls::Error::AlertReceived(alert)), _) => boot.refused(peer, &format!("TLS alert {alert:?}")),
            // EDK2 does not send the alert that it has made: it resets the connection.
            (None, UnexpectedEof | ConnectionReset | ConnectionAborted | BrokenPipe) => {
                boot.refused(peer, "it closed the connection");
            }
            _ => {}
        }
    }

    /// Serves one connection: of a peer, or of the local socket.
    async fn connection<S>(mut self, stream: S, activity: Activity, peer: Option<Peer>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let limits = self.places.limits();
        let (router, counted) = (self.router.clone(), activity.clone());
        let service = hyper::service::service_fn(move |request: hyper::Request<Incoming>| {
            let busy = counted.begin();
            let answer = router.clone().oneshot(of(request, peer, limits.idle));
            async move { Ok::<_, Infallible>(answer.await?.map(|body| Answering::new(body, busy))) }
        });
        let builder = builder(limits);
        let connection = builder.serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        tokio::select! {
            result = connection.as_mut() => log_end(result),
            () = stopping(&mut self.stopped) => {
                connection.as_mut().graceful_shutdown();
                log_end(connection.await);
            }
            // The places are for strangers; who can open the socket file has none of them.
            () = activity.silent(limits, self.places.waiting()), if peer.is_some() => {
                connection.as_mut().graceful_shutdown();
                // A request that was on its way at this moment is still answered.
                tokio::select! {
                    result = connection => log_end(result),
                    () = activity.silent_for(DRAIN_LIMIT.min(limits.idle)) => {}
                }
            }
        }
    }
}

fn builder(limits: Limits) -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    // A client that sends its headers a byte at a time does not hold a connection for ever.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_LIMIT);
    // Nor does one that went away without a word in the middle of an event stream.
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(limits.ping))
        .keep_alive_timeout(limits.pong);
    builder
}

/// The request with who made it.
fn of(request: hyper::Request<Incoming>, peer: Option<Peer>, pause: Duration) -> Request {
    match peer {
        Some(peer) => {
            let mut request = request.map(|body| Body::new(Steady::new(body, pause)));
            request.extensions_mut().insert(peer);
            request
        }
        None => {
            let mut request = request.map(Body::new);
            request.extensions_mut().insert(Local);
            request
        }
    }
}

/// Returns when the server is to stop; lets the value's guard go before anything else is awaited.
async fn stopping(stopped: &mut watch::Receiver<bool>) {
    let _ = stopped.wait_for(|stop| *stop).await;
}

fn log_end(result: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = result {
        tracing::debug!(%error, "a connection to the API ended badly");
    }
}
