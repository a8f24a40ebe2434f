//! Starting and stopping: listeners on a runtime of the proxy's own, so that hits read from a slow disk hold up nothing
//! else of the appliance.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::settings::Settings;
use crate::{Proxy, Tell, serve};

/// Connections that wait to be taken.
const BACKLOG: i32 = 1024;

/// Why the proxy cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The system gives no threads.
    #[error("proxy: no threads to run on: {0}")]
    Threads(std::io::Error),
    /// An address cannot be listened on.
    #[error("proxy: cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
}

/// A running proxy.
pub struct Handle {
    proxy: Arc<Proxy>,
    runtime: Runtime,
    listeners: Mutex<BTreeMap<SocketAddr, JoinHandle<()>>>,
}

/// Opens the store in `folder` and serves; without a store where that cannot be opened: see [`Proxy::trouble`].
///
/// # Errors
/// When one of the addresses cannot be listened on, or there are no threads.
pub fn start(folder: &Path, settings: Settings, tell: Tell) -> Result<Handle, StartError> {
    let threads = std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .max_blocking_threads(64)
        .thread_name("proxy")
        .enable_all()
        .build()
        .map_err(StartError::Threads)?;
    let proxy = Proxy::open(folder, settings.clone(), tell);
    let learning = proxy.clone();
    runtime.spawn_blocking(move || learning.learn_all());
    let handle = Handle {
        proxy,
        runtime,
        listeners: Mutex::default(),
    };
    handle.reconfigure(settings)?;
    Ok(handle)
}

impl Handle {
    /// The proxy itself.
    pub fn proxy(&self) -> &Arc<Proxy> {
        &self.proxy
    }

    /// Where it listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .keys()
            .copied()
            .collect()
    }

    /// Puts settings in force while it runs. Connections that are open go on.
    ///
    /// # Errors
    /// When a new address cannot be listened on; everything else is in force then.
    pub fn reconfigure(&self, settings: Settings) -> Result<(), StartError> {
        let mut listeners = self.listeners.lock().unwrap_or_else(PoisonError::into_inner);
        listeners.retain(|address, task| {
            let wanted = settings.listen.contains(address);
            if !wanted {
                task.abort();
            }
            wanted
        });
        let wanted = settings.listen.clone();
        let room = Arc::new(Semaphore::new(settings.connections));
        self.proxy.set(settings);
        for address in wanted {
            if !listeners.contains_key(&address) {
                let listener = self
                    .listen(address)
                    .map_err(|error| StartError::Listen(address, error))?;
                let real = listener.local_addr().unwrap_or(address);
                let task = self.runtime.spawn(accept(self.proxy.clone(), listener, room.clone()));
                listeners.insert(real, task);
            }
        }
        Ok(())
    }

    fn listen(&self, address: SocketAddr) -> std::io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        let _inside = self.runtime.enter();
        TcpListener::from_std(socket.into())
    }

    /// Runs something on the proxy's own threads and waits for it. Not to be called from an asynchronous function.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// The runtime's handle, for work that is awaited elsewhere.
    pub fn runtime(&self) -> tokio::runtime::Handle {
        self.runtime.handle().clone()
    }

    /// Stops listening, gives what is under way a moment, and ends.
    pub fn stop(self) {
        let listeners = std::mem::take(&mut *self.listeners.lock().unwrap_or_else(PoisonError::into_inner));
        listeners.values().for_each(JoinHandle::abort);
        self.runtime.shutdown_timeout(Duration::from_millis(500));
    }
}

async fn accept(proxy: Arc<Proxy>, listener: TcpListener, room: Arc<Semaphore>) {
    loop {
        // Whoever comes when all places are taken waits in the system's queue.
        let Ok(place) = room.clone().acquire_owned().await else {
            return;
        };
        match listener.accept().await {
            Ok((stream, from)) => {
                let proxy = proxy.clone();
                tokio::spawn(async move {
                    serve::connection(proxy, stream, from).await;
                    drop(place);
                });
            }
            // Out of descriptors, most likely: some connection will end.
            Err(error) => {
                tracing::warn!(%error, "the proxy cannot take a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
