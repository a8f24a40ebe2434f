//! Packet captures: the newest boot packets of every rack interface in a bounded memory, always, and captures on demand.
//!
//! Nothing here is in the way of a service: sockets of its own with a filter in the kernel, a thread of low priority that
//! looks at so many frames a second at most, and a memory that the newest displace the oldest in. What a capture misses it
//! counts.

mod live;
mod tap;

use std::io;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::libc;
use nix::sys::epoll::EpollFlags;
use rackbar_capture::frame;
use rackbar_capture::{Captured, Filter, Ring};
use rackbar_model::{ServiceStatus, Severity};

use crate::Common;
use crate::bind::StartError;
use crate::poll::{Poller, WAKE};
use crate::running::{Running, StatusCell, StopFlag, lock};
pub use live::{Given, LEAST_BYTES, Live, MOST_BYTES, MOST_SECONDS, Order};
pub use rackbar_capture::frame::Machine;
use tap::{Buffer, Tap};

const SERVICE: &str = "captures";
/// The program that a file says it is by.
const BY: &str = "Rackbar";
/// Frames of one interface before the next one's turn.
const BATCH: usize = 64;
/// Frames that are looked at in a tenth of a second at most: a rack of a thousand machines stays below, and a flood beyond
/// it costs a counter in the kernel.
const PER_WINDOW: u32 = 4_000;
const WINDOW: Duration = Duration::from_millis(100);

/// An interface to listen on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CaptureLink {
    /// Its name.
    pub name: String,
    /// The kernel's index.
    pub index: u32,
}

/// What is captured.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct CaptureConfig {
    /// The interfaces of the rack.
    pub links: Vec<CaptureLink>,
    /// Bytes of the newest boot packets that are kept; 0 keeps none and listens to nothing.
    pub memory: usize,
    /// Whether people may have captures made.
    pub on_demand: bool,
    /// TCP ports on which machines boot: beginnings and ends of connections there are boot packets.
    pub tcp: Vec<u16>,
}

impl CaptureConfig {
    fn filter(&self) -> Filter {
        Filter {
            tcp: self.tcp.clone(),
            ..Filter::default()
        }
    }
}

/// Why a capture cannot be had. Read by an operator.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum CaptureError {
    /// The configuration wants none.
    #[error("{0}")]
    Off(&'static str),
    /// The interface is none of the rack's.
    #[error("{name} is no interface that the rack is served on; these are: {}", if .known.is_empty() { "none".to_owned() } else { .known.join(", ") })]
    Interface {
        /// What was asked for.
        name: String,
        /// What there is.
        known: Vec<String>,
    },
    /// Others run.
    #[error("{0} captures run already: wait for one of them to end")]
    Busy(usize),
    /// The system refused.
    #[error("the capture cannot be made: {0}; it needs root or CAP_NET_RAW")]
    System(String),
}

/// The newest boot packets, and what captures on demand need to know.
#[derive(Default)]
pub struct Captures {
    held: Mutex<Held>,
    /// Captures on demand that run.
    running: AtomicUsize,
}

struct Held {
    ring: Ring,
    config: CaptureConfig,
    taps: Vec<Arc<Tap>>,
}

impl Default for Held {
    fn default() -> Self {
        Self {
            ring: Ring::new(0),
            config: CaptureConfig::default(),
            taps: Vec::new(),
        }
    }
}

impl Held {
    /// Counts what the kernel had no room for.
    fn count(&mut self) {
        for tap in &self.taps {
            self.ring.miss(&tap.link.name, tap.counts().1);
        }
    }
}

impl Captures {
    /// The newest boot packets as a pcapng file, of one interface or all, of one machine or all.
    ///
    /// # Errors
    /// When none are kept, or the interface is none of the rack's.
    pub fn recent(&self, interface: Option<&str>, machine: Option<&Machine>) -> Result<Vec<u8>, CaptureError> {
        let (cut, words) = {
            let mut held = lock(&self.held);
            if held.config.memory == 0 {
                let words = "boot packets are not kept here: [capture] recent = false in rackbar.toml says so";
                return Err(CaptureError::Off(words));
            }
            held.known(interface)?;
            held.count();
            let wanted = |frame: &Captured| machine.is_none_or(|machine| machine.concerned(&frame.bytes));
            (held.ring.cut(interface, wanted), held.config.filter().words())
        };
        Ok(cut.file(BY, frame::SNAP as u32, &words))
    }

    /// Whether boot packets are kept.
    pub fn keeps(&self) -> bool {
        lock(&self.held).config.memory > 0
    }

    /// Those interfaces on which a capture is to be made, and the ports.
    fn links(&self, interface: Option<&str>) -> Result<(Vec<CaptureLink>, Vec<u16>), CaptureError> {
        let held = lock(&self.held);
        if !held.config.on_demand {
            let words = "captures are not made here: [capture] on_demand = false in rackbar.toml says so";
            return Err(CaptureError::Off(words));
        }
        held.known(interface)?;
        let links = held.config.links.iter();
        let wanted = links.filter(|link| interface.is_none_or(|name| link.name == name));
        Ok((wanted.cloned().collect(), held.config.tcp.clone()))
    }
}

impl Held {
    fn known(&self, interface: Option<&str>) -> Result<(), CaptureError> {
        let links = &self.config.links;
        let missing = |name: &str| CaptureError::Interface {
            name: name.to_owned(),
            known: links.iter().map(|link| link.name.clone()).collect(),
        };
        match interface {
            Some(name) if !links.iter().any(|link| link.name == name) => Err(missing(name)),
            None if links.is_empty() => Err(missing("nothing")),
            _ => Ok(()),
        }
    }
}

/// The running service. Dropping it stops it.
pub struct CaptureHandle {
    running: Running,
    common: Common,
    wanted: Arc<Mutex<Option<Vec<Arc<Tap>>>>>,
    /// Interfaces that could not be listened to.
    troubles: Mutex<usize>,
}

/// Starts it.
///
/// # Errors
/// When the system refuses a thread. An interface that cannot be listened to is told in the status.
pub fn start(config: CaptureConfig, common: Common) -> Result<CaptureHandle, StartError> {
    let system = |source| StartError::System {
        service: SERVICE,
        source,
    };
    let mut running = Running::new(StatusCell::new("captures"));
    let poller = Poller::new().map_err(system)?;
    let waker = poller.waker();
    let wanted = Arc::new(Mutex::new(None));
    let listener = Listener {
        poller,
        common: common.clone(),
        stop: running.stop_flag(),
        wanted: Arc::clone(&wanted),
        taps: Vec::new(),
    };
    running
        .spawn("captures", Some(waker), move || listener.run())
        .map_err(system)?;
    let handle = CaptureHandle {
        running,
        common,
        wanted,
        troubles: Mutex::new(0),
    };
    handle.begin(config);
    Ok(handle)
}

impl CaptureHandle {
    /// Puts another configuration in force. With the same one it tries again what failed.
    pub fn reconfigure(&self, config: CaptureConfig) {
        let same = lock(&self.common.captures.held).config == config;
        if !same || *lock(&self.troubles) > 0 {
            self.begin(config);
        }
    }

    /// How it does, in words.
    pub fn status(&self) -> ServiceStatus {
        self.running.status.get()
    }

    /// Ends it; what was kept is forgotten with the process.
    pub fn stop(mut self) {
        self.running.stop();
    }

    fn begin(&self, config: CaptureConfig) {
        let filter = config.filter();
        let (mut taps, mut troubles) = (Vec::new(), Vec::new());
        for link in config.links.iter().filter(|_| config.memory > 0) {
            match Tap::open(link, &filter) {
                Ok(tap) => taps.push(Arc::new(tap)),
                Err(error) => troubles.push(format!("{} ({error})", link.name)),
            }
        }
        self.tell(&config, &taps, &troubles);
        *lock(&self.troubles) = troubles.len();
        let mut held = lock(&self.common.captures.held);
        held.count();
        let now = nanos_now();
        taps.iter().for_each(|tap| held.ring.listen(&tap.link.name, now));
        held.ring.set_budget(config.memory);
        held.taps.clone_from(&taps);
        held.config = config;
        drop(held);
        *lock(&self.wanted) = Some(taps);
        self.running.wake();
    }

    fn tell(&self, config: &CaptureConfig, taps: &[Arc<Tap>], troubles: &[String]) {
        let names: Vec<&str> = taps.iter().map(|tap| tap.link.name.as_str()).collect();
        let words = match (config.memory, names.is_empty()) {
            (0, _) => "keeping no boot packets: [capture] recent = false".to_owned(),
            (_, true) => "keeping no boot packets: no rack interface is there".to_owned(),
            (memory, false) => format!(
                "keeping the newest boot packets of {}, {} MiB of them",
                names.join(", "),
                memory >> 20
            ),
        };
        if troubles.is_empty() {
            self.running.status.set(Severity::Info, words);
        } else {
            let words = format!("{words}; cannot listen on {}", troubles.join(", "));
            self.running.status.set(Severity::Warning, words);
        }
    }
}

/// The thread that fills the memory.
struct Listener {
    poller: Poller,
    common: Common,
    stop: StopFlag,
    wanted: Arc<Mutex<Option<Vec<Arc<Tap>>>>>,
    taps: Vec<Arc<Tap>>,
}

impl Listener {
    fn run(mut self) {
        be_modest();
        let (mut buffer, mut pace, mut ready) = (Buffer::new(), Pace::new(), Vec::new());
        while !self.stop.is_set() {
            ready.clear();
            if let Err(error) = self.poller.wait(None, &mut ready) {
                tracing::error!(%error, "captures: waiting failed");
                return;
            }
            for (token, _) in &ready {
                match *token {
                    WAKE => self.follow(),
                    number => self.look(number as usize, &mut buffer, &mut pace),
                }
            }
        }
    }

    /// Takes up the interfaces of a new configuration.
    fn follow(&mut self) {
        let Some(taps) = lock(&self.wanted).take() else { return };
        self.taps.drain(..).for_each(|tap| self.poller.remove(&*tap));
        for (token, tap) in (0..).zip(&taps) {
            if let Err(error) = self.poller.add(&**tap, EpollFlags::EPOLLIN, token) {
                tracing::error!(%error, "captures: an interface cannot be waited for");
            }
        }
        self.taps = taps;
    }

    fn look(&mut self, number: usize, buffer: &mut Buffer, pace: &mut Pace) {
        let Some(tap) = self.taps.get(number) else { return };
        for _ in 0..BATCH {
            let seen = match tap.receive(buffer) {
                Ok(Some(seen)) => seen,
                Ok(None) => return,
                Err(error) => return self.give_up(number, &error),
            };
            let frame = Captured {
                at: seen.at,
                direction: seen.direction,
                length: seen.length,
                bytes: seen.bytes.into(),
            };
            lock(&self.common.captures.held).ring.push(&tap.link.name, frame);
            self.common.metrics.captured.inc();
            pace.one();
        }
    }

    /// An interface that went away is not asked again until the configuration names it anew.
    fn give_up(&self, number: usize, error: &io::Error) {
        if let Some(tap) = self.taps.get(number) {
            tracing::warn!(interface = tap.link.name, %error, "captures: an interface cannot be listened to any more");
            self.poller.remove(&**tap);
        }
    }
}

/// So many frames in each window, and a rest after them.
struct Pace {
    window: Instant,
    frames: u32,
}

impl Pace {
    fn new() -> Self {
        Self {
            window: Instant::now(),
            frames: 0,
        }
    }

    /// Counts a frame; where there were enough, waits for the window's end.
    fn one(&mut self) {
        self.frames += 1;
        if self.frames < PER_WINDOW {
            return;
        }
        let left = WINDOW.saturating_sub(self.window.elapsed());
        std::thread::sleep(left);
        *self = Self::new();
    }
}

/// Lets this thread wait where a service wants the processor.
fn be_modest() {
    // SAFETY: no memory is involved; 0 names the calling thread, as Linux has it.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 10) };
    if result != 0 {
        tracing::debug!("a capture's thread keeps its priority");
    }
}

fn nanos_now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
