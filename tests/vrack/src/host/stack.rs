//! The host's network stack and the task that drives it.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{Checksum, ChecksumCapabilities, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::socket::{dhcpv4, tcp};
use smoltcp::time::Instant;
use smoltcp::wire::{DhcpOption, EthernetAddress, HardwareAddress, IpCidr, Ipv4Cidr};
use tokio::sync::{Notify, watch};

use super::{Bound, HostConfig, Ipv4};
use crate::switch::{Frame, Port, locked};

const MTU: usize = 1514;
/// First port of the dynamic range (RFC 6335).
const FIRST_EPHEMERAL: u16 = 49_152;

/// What the handles and the driving task share.
pub(super) struct Shared {
    stack: Mutex<Stack>,
    /// A handle changed something: poll again.
    pub(super) changed: Notify,
    started: std::time::Instant,
}

pub(super) struct Stack {
    pub(super) interface: Interface,
    pub(super) sockets: SocketSet<'static>,
    device: Queues,
    dhcp: Option<SocketHandle>,
    /// A configuration that was put in force by hand and not reported yet.
    rebound: Option<Option<Bound>>,
    /// Connections whose stream was dropped: kept until the goodbye was said.
    orphans: Vec<SocketHandle>,
    next_port: u16,
}

impl Stack {
    /// A port from the dynamic range; connections are few enough here that a plain counter never meets itself.
    pub(super) fn ephemeral(&mut self) -> u16 {
        let port = self.next_port;
        self.next_port = self.next_port.checked_add(1).unwrap_or(FIRST_EPHEMERAL);
        port
    }

    /// Closes a connection nobody holds any more and lets the driver remove it when it is over.
    pub(super) fn orphan(&mut self, handle: SocketHandle) {
        let socket = self.sockets.get_mut::<tcp::Socket<'_>>(handle);
        socket.close();
        // A peer that vanished must not keep the socket for ever.
        socket.set_timeout(Some(smoltcp::time::Duration::from_secs(20)));
        self.orphans.push(handle);
    }

    fn bury(&mut self) {
        let sockets = &mut self.sockets;
        self.orphans.retain(|handle| {
            let state = sockets.get::<tcp::Socket<'_>>(*handle).state();
            let over = matches!(state, tcp::State::Closed | tcp::State::TimeWait);
            if over {
                sockets.remove(*handle);
            }
            !over
        });
    }
}

impl Shared {
    pub(super) fn new(config: &HostConfig) -> Self {
        let mut device = Queues::default();
        let mut settings = Config::new(HardwareAddress::Ethernet(EthernetAddress(config.mac.0)));
        // Seeds sequence numbers and DHCP transaction ids: different per host, the same in each run.
        settings.random_seed = config.mac.0.iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte));
        let mut interface = Interface::new(settings, &mut device, Instant::ZERO);
        configure(&mut interface, config.ipv4.written_down().as_ref());
        let mut sockets = SocketSet::new(Vec::new());
        let dhcp = match &config.ipv4 {
            Ipv4::Dhcp { hostname } => Some(sockets.add(dhcp_socket(hostname))),
            Ipv4::Static { .. } => None,
        };
        let stack = Stack {
            interface,
            sockets,
            device,
            dhcp,
            rebound: None,
            orphans: Vec::new(),
            next_port: FIRST_EPHEMERAL,
        };
        Self {
            stack: Mutex::new(stack),
            changed: Notify::new(),
            started: std::time::Instant::now(),
        }
    }

    /// Works on the stack; the driver polls it afterwards.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Stack) -> T) -> T {
        let result = work(&mut locked(&self.stack));
        self.changed.notify_one();
        result
    }

    /// Puts another configuration in force; what the old one had open is cut.
    pub(super) fn set_ipv4(&self, ipv4: &Ipv4) {
        self.with(|stack| {
            if let Some(handle) = stack.dhcp.take() {
                stack.sockets.remove(handle);
            }
            let bound = ipv4.written_down();
            configure(&mut stack.interface, bound.as_ref());
            if let Ipv4::Dhcp { hostname } = ipv4 {
                stack.dhcp = Some(stack.sockets.add(dhcp_socket(hostname)));
            }
            stack.rebound = Some(bound);
        });
    }

    fn now(&self) -> Instant {
        Instant::from_micros(i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX))
    }
}

fn dhcp_socket(hostname: &str) -> dhcpv4::Socket<'static> {
    let mut socket = dhcpv4::Socket::new();
    let mut retry = socket.get_retry_config();
    // The appliance may start after its BMCs do; smoltcp's default of 10 s would be most of a rack's start.
    retry.discover_timeout = smoltcp::time::Duration::from_secs(1);
    retry.initial_request_timeout = smoltcp::time::Duration::from_secs(1);
    socket.set_retry_config(retry);
    // The socket borrows its options for its whole life, which is the host's; a host's name is a few bytes and hosts
    // are as many as a rack has machines.
    let name: &'static [u8] = Box::leak(hostname.as_bytes().to_vec().into_boxed_slice());
    let options: &'static [DhcpOption<'static>] = Box::leak(Box::new([DhcpOption { kind: 12, data: name }]));
    socket.set_outgoing_options(options);
    socket
}

/// Drives the stack until the host is dropped.
pub(super) async fn run(shared: Arc<Shared>, port: Port, report: watch::Sender<Option<Bound>>) {
    let mut arrived: Vec<Frame> = Vec::new();
    let mut leaving = VecDeque::new();
    loop {
        let pause = {
            let mut stack = locked(&shared.stack);
            let Stack {
                interface,
                sockets,
                device,
                dhcp,
                rebound,
                ..
            } = &mut *stack;
            if let Some(bound) = rebound.take() {
                report.send_replace(bound);
            }
            device.arrived.extend(arrived.drain(..));
            interface.poll(shared.now(), device, sockets);
            if let Some(handle) = *dhcp
                && let Some(change) = dhcp_change(sockets.get_mut(handle))
            {
                configure(interface, change.as_ref());
                report.send_replace(change);
                interface.poll(shared.now(), device, sockets);
            }
            std::mem::swap(&mut device.leaving, &mut leaving);
            let pause = interface.poll_delay(shared.now(), sockets);
            stack.bury();
            pause
        };
        for frame in leaving.drain(..) {
            port.send(&frame);
        }
        let pause = pause.map_or(Duration::from_secs(60), Duration::from);
        if pause.is_zero() {
            tokio::task::yield_now().await;
        }
        tokio::select! {
            biased;
            () = port.receive_into(&mut arrived) => {}
            () = shared.changed.notified() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// `None`: nothing new; `Some(None)`: the lease is gone.
fn dhcp_change(socket: &mut dhcpv4::Socket<'_>) -> Option<Option<Bound>> {
    match socket.poll()? {
        dhcpv4::Event::Deconfigured => Some(None),
        dhcpv4::Event::Configured(config) => Some(Some(Bound {
            address: config.address.address(),
            prefix: config.address.prefix_len(),
            gateway: config.router,
            server: Some(config.server.identifier),
        })),
    }
}

fn configure(interface: &mut Interface, bound: Option<&Bound>) {
    interface.update_ip_addrs(|addresses| {
        addresses.clear();
        if let Some(bound) = bound {
            let cidr = Ipv4Cidr::new(bound.address, bound.prefix.min(32));
            // One address always fits: smoltcp's list holds at least two.
            let _ = addresses.push(IpCidr::Ipv4(cidr));
        }
    });
    interface.routes_mut().remove_default_ipv4_route();
    if let Some(gateway) = bound
        .and_then(|bound| bound.gateway)
        .filter(|gateway| *gateway != Ipv4Addr::UNSPECIFIED)
    {
        let _ = interface.routes_mut().add_default_ipv4_route(gateway);
    }
}

/// The interface between smoltcp and the port: two lists of frames.
#[derive(Default)]
struct Queues {
    arrived: VecDeque<Frame>,
    leaving: VecDeque<Vec<u8>>,
}

impl Device for Queues {
    type RxToken<'a> = Arrived;
    type TxToken<'a> = Leaving<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Arrived, Leaving<'_>)> {
        let frame = self.arrived.pop_front()?;
        Some((Arrived(frame), Leaving(&mut self.leaving)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Leaving<'_>> {
        // Bounds one poll, so that a bulk sender gives its window's worth of frames and then lets others run.
        (self.leaving.len() < 512).then_some(Leaving(&mut self.leaving))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = MTU;
        // virtio guests leave checksums of local traffic to the "hardware"; nothing on this wire corrupts a byte, so
        // checking would only refuse good frames. Ours are always filled in.
        let mut checksum = ChecksumCapabilities::default();
        checksum.ipv4 = Checksum::Tx;
        checksum.tcp = Checksum::Tx;
        checksum.udp = Checksum::Tx;
        checksum.icmpv4 = Checksum::Tx;
        capabilities.checksum = checksum;
        capabilities
    }
}

struct Arrived(Frame);

impl RxToken for Arrived {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        if self.0.tag.is_some() {
            f(&self.0.to_vec())
        } else {
            f(&self.0.data)
        }
    }
}

struct Leaving<'a>(&'a mut VecDeque<Vec<u8>>);

impl TxToken for Leaving<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}
