//! A VLAN switch in this process. Its ports lead to QEMU NICs (a unix stream each, see [`link`]) or to simulated hosts
//! (a pair of queues). It learns addresses per VLAN, tags and untags, speaks LLDP, spanning tree ([`stp`]) and LACP
//! ([`lacp`]), counts, captures, and can be told to misbehave per link or to forget what it was set to.
//!
//! What it is not: a model of timing or of a particular vendor. It has no neighbour switches: it is the root of its
//! spanning tree.

mod capture;
mod fabric;
mod fault;
mod fdb;
mod flip;
mod lacp;
mod lag;
mod link;
mod lldp;
mod neighbours;
mod port;
mod queue;
mod stories;
mod stp;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::task::AbortHandle;

pub use capture::{CaptureFile, Tags};
pub use fabric::PortId;
pub use fault::Fault;
pub use lacp::LagConfig;
pub use port::Counters;
pub use queue::Frame;
pub use stp::{SpanningTree, StpState, StpTimers, Version};

use fabric::Fabric;

/// Locks a mutex whose data stays sound after a panic elsewhere: every critical section here is a few assignments.
pub(crate) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What VLANs a port carries (IEEE 802.1Q-2018, 6.9).
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum PortMode {
    /// Untagged frames only, all in this VLAN.
    Access {
        /// VLAN identifier, 1 to 4094.
        vlan: u16,
    },
    /// Tagged frames of the allowed VLANs; untagged ones belong to the native VLAN, or are dropped without one.
    Trunk {
        /// VLAN of untagged frames, sent untagged as well.
        native: Option<u16>,
        /// VLANs carried with a tag.
        allowed: Vec<u16>,
    },
}

/// How a port is named and what it carries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PortConfig {
    /// The interface name LLDP shows as Port ID, such as `Ethernet1/3`.
    pub name: String,
    /// The port description LLDP shows, such as `node n1 eth0`.
    pub description: String,
    /// VLAN membership.
    pub mode: PortMode,
    /// What spanning tree does there.
    pub spanning_tree: SpanningTree,
}

impl PortConfig {
    /// An access port in one VLAN.
    pub fn access(name: impl Into<String>, description: impl Into<String>, vlan: u16) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            mode: PortMode::Access { vlan },
            spanning_tree: SpanningTree::Off,
        }
    }

    /// A trunk port.
    pub fn trunk(
        name: impl Into<String>,
        description: impl Into<String>,
        native: Option<u16>,
        allowed: impl Into<Vec<u16>>,
    ) -> Self {
        Self {
            name: name.into(),
            description: description.into(),
            mode: PortMode::Trunk {
                native,
                allowed: allowed.into(),
            },
            spanning_tree: SpanningTree::Off,
        }
    }

    /// What a port of a new switch is set to: VLAN 1, spanning tree as an ordinary port, no description.
    pub fn out_of_the_box(name: impl Into<String>) -> Self {
        Self::access(name, "", 1).spanning_tree(SpanningTree::Stp)
    }

    /// The same with spanning tree in a mode.
    #[must_use]
    pub fn spanning_tree(self, spanning_tree: SpanningTree) -> Self {
        Self { spanning_tree, ..self }
    }
}

/// How the switch as a whole behaves.
#[derive(Clone, Debug)]
pub struct SwitchConfig {
    /// System name in LLDP.
    pub name: String,
    /// An unused address leaves the table after this long; 300 s is the standard's default (802.1Q-2018, table 8-6).
    pub ageing: Duration,
    /// Most addresses the table holds. A full table floods, as hardware does.
    pub addresses: usize,
    /// Time between LLDP frames on a port. The standard's default is 30 s; a rack that boots in seconds needs less.
    pub lldp_interval: Duration,
    /// Passes frames to 01:80:c2:00:00:0x on, which a standard bridge must not do (802.1Q-2018, 8.6.3): two guests can
    /// then see each other's LLDP.
    pub forward_link_local: bool,
    /// Spanning tree's timers and version.
    pub stp: StpTimers,
}

impl Default for SwitchConfig {
    fn default() -> Self {
        Self {
            name: "rack-switch".into(),
            ageing: Duration::from_secs(300),
            addresses: 8192,
            lldp_interval: Duration::from_secs(3),
            forward_link_local: false,
            stp: StpTimers::default(),
        }
    }
}

/// The switch. Clones share it; the last one to go stops its tasks.
#[derive(Clone)]
pub struct Switch {
    fabric: Arc<Fabric>,
    tasks: Arc<Tasks>,
}

/// Background tasks that end with the value that holds them.
#[derive(Default)]
pub(crate) struct Tasks(Mutex<Vec<AbortHandle>>);

impl Tasks {
    /// Runs a future until this value is dropped.
    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = locked(&self.0);
        tasks.retain(|task| !task.is_finished());
        tasks.push(tokio::spawn(future).abort_handle());
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in locked(&self.0).drain(..) {
            task.abort();
        }
    }
}

impl Switch {
    /// Starts a switch without ports. Must be called inside a tokio runtime.
    pub fn new(config: SwitchConfig) -> Self {
        let tasks = Arc::new(Tasks::default());
        let fabric = Arc::new(Fabric::new(config));
        tasks.spawn(neighbours::run(Arc::clone(&fabric)));
        Self { fabric, tasks }
    }

    /// Adds a port that this process itself sits on; its link is up from the start.
    pub fn port(&self, config: PortConfig) -> Port {
        let id = self.fabric.add_port(config);
        self.fabric.set_up(id, true);
        Port {
            id,
            fabric: Arc::clone(&self.fabric),
        }
    }

    /// Adds a port wired to a QEMU NIC whose `-netdev stream,server=on` listens at `socket`. The switch dials, and
    /// dials again whenever QEMU went away; the link is up while it is connected.
    pub fn link(&self, config: PortConfig, socket: &Path) -> PortId {
        let id = self.fabric.add_port(config);
        self.tasks
            .spawn(link::run(Arc::clone(&self.fabric), id, socket.to_path_buf()));
        id
    }

    /// Replaces what a port carries; addresses learned on it are forgotten. This is how a scenario moves a machine to
    /// another VLAN.
    pub fn reconfigure(&self, port: PortId, config: PortConfig) {
        self.fabric.reconfigure(port, config);
    }

    /// Joins ports to a bundle (LAG) under LACP; the first one stands for all in [`Switch::locate`]. Their VLANs should
    /// be equal, and spanning tree be off or edge on them.
    pub fn bundle(&self, members: &[PortId], config: LagConfig) {
        self.fabric.bundle(members, config);
    }

    /// Begins a restart: every link is down and nothing passes until [`Switch::start_again`].
    pub fn go_dark(&self) {
        self.fabric.set_dark(true);
    }

    /// Ends a restart. With `forgetful`, the configuration had not been saved: every port is what it was out of the box
    /// ([`PortConfig::out_of_the_box`]), and bundles are gone, until [`Switch::restore`].
    pub fn start_again(&self, forgetful: bool) {
        if forgetful {
            self.fabric.forget();
        }
        self.fabric.set_dark(false);
    }

    /// Gives a switch that forgot its configuration back.
    pub fn restore(&self) {
        self.fabric.recall();
    }

    /// Where spanning tree has a port; [`StpState::Disabled`] for an id of another switch.
    pub fn stp_state(&self, port: PortId) -> StpState {
        self.fabric.stp_state(port)
    }

    /// True while frames pass a port: its link is up, and neither spanning tree nor LACP holds it.
    pub fn is_forwarding(&self, port: PortId) -> bool {
        self.fabric.is_forwarding(port)
    }

    /// The present configuration of a port, or `None` for an id of another switch.
    pub fn config(&self, port: PortId) -> Option<PortConfig> {
        self.fabric.config(port)
    }

    /// Sets how a link misbehaves; [`Fault::default`] heals it.
    pub fn set_fault(&self, port: PortId, fault: Fault) {
        self.fabric.set_fault(port, fault);
    }

    /// True while something is connected to the port and its link is not cut.
    pub fn is_up(&self, port: PortId) -> bool {
        self.fabric.is_up(port)
    }

    /// Counters of a port since the switch started; zeros for an id of another switch.
    pub fn counters(&self, port: PortId) -> Counters {
        self.fabric.counters(port)
    }

    /// The port behind which an address was last seen in a VLAN.
    pub fn locate(&self, vlan: u16, mac: rackbar_model::MacAddr) -> Option<PortId> {
        self.fabric.locate(vlan, mac.0)
    }

    /// Writes everything that passes one port into `file` from now on, both directions.
    pub fn capture(&self, port: PortId, file: &CaptureFile) {
        self.fabric.capture(port, file);
    }

    /// Writes everything that passes any port, present and future, into `file`.
    pub fn capture_all(&self, file: &CaptureFile) {
        self.fabric.capture_all(file);
    }

    /// Writes what is told from now on into `file`; with the name of a machine, of the consoles only that machine's.
    pub fn hear(&self, file: &CaptureFile, console: Option<&str>) {
        self.fabric.stories.hear(file, console);
    }

    /// True while some capture wants to know what happens.
    pub fn is_heard(&self) -> bool {
        self.fabric.stories.are_heard()
    }

    /// Tells captures of something that happened.
    pub fn tell(&self, at: SystemTime, source: &str, text: &str) {
        self.fabric.stories.tell(at, source, text);
    }

    /// Says that one who tells late, such as the appliance when it is asked, has told all that happened before a time.
    /// Captures wait for it from then on, for some seconds, before they write what came later.
    pub fn told_until(&self, at: SystemTime) {
        self.fabric.stories.told_until(at);
    }

    /// Stops writing into `file`.
    pub fn stop_capture(&self, file: &CaptureFile) {
        self.fabric.stop_capture(file);
    }
}

/// The device side of a port: what a simulated host sends and receives.
pub struct Port {
    id: PortId,
    fabric: Arc<Fabric>,
}

impl Port {
    /// The port's number.
    pub fn id(&self) -> PortId {
        self.id
    }

    /// Sends one Ethernet frame (without preamble and FCS) into the switch.
    pub fn send(&self, frame: &[u8]) {
        self.fabric.ingress(self.id, frame);
    }

    /// Waits for frames and appends all that have arrived.
    pub async fn receive_into(&self, frames: &mut Vec<Frame>) {
        if let Some(port) = self.fabric.port(self.id) {
            port.queue.take(frames).await;
        } else {
            std::future::pending::<()>().await;
        }
    }

    /// Waits for one frame and returns its bytes as they would be on the wire.
    pub async fn receive(&self) -> Vec<u8> {
        match self.fabric.port(self.id) {
            Some(port) => port.queue.take_one().await.to_vec(),
            None => std::future::pending().await,
        }
    }

    /// A frame that has already arrived, without waiting.
    pub fn try_receive(&self) -> Option<Vec<u8>> {
        self.fabric
            .port(self.id)?
            .queue
            .try_take_one()
            .map(|frame| frame.to_vec())
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.fabric.set_up(self.id, false);
    }
}
