//! A network interface through the Simple Network Protocol (UEFI 2.10 section 24.1), as smoltcp wants it.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use rackbar_model::MacAddr;
use smoltcp::phy::{Device, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use uefi::boot::{self, ScopedProtocol};
use uefi::proto::network::snp::{NetworkState, ReceiveFlags, SimpleNetwork};
use uefi::{Handle, Status};

use super::clock::Clock;

/// Ethernet header and payload, without checksum.
const FRAME: usize = 1514;
/// Ethernet frames are padded to this. Some firmware drivers leave it to us, and switches drop what is shorter.
const SHORTEST: usize = 60;
/// Room for what a NIC may put behind a frame (VLAN tag, checksum).
const RECEIVE_BUFFER: usize = 2048;
/// More than any window of acknowledgements needs.
const SEND_BUFFERS: usize = 32;
/// Drivers exist that never give buffers back. After this long a frame has certainly left.
const SURELY_SENT_MICROS: u64 = 500_000;

/// An interface that is ours alone until dropped.
pub(super) struct Nic {
    port: Port,
    received: Box<[u8]>,
}

struct Port {
    snp: ScopedProtocol<SimpleNetwork>,
    mac: MacAddr,
    clock: Clock,
    buffers: Vec<SendBuffer>,
}

struct SendBuffer {
    bytes: Box<[u8]>,
    /// When it was given to the firmware, if it still has it.
    since: Option<u64>,
}

impl Nic {
    /// Takes the interface from the firmware's own network stack and starts it.
    pub(super) fn open(handle: Handle, clock: Clock) -> uefi::Result<Self> {
        // Exclusive: the firmware's stack would take our packets otherwise.
        let mut snp = boot::open_protocol_exclusive::<SimpleNetwork>(handle)?;
        if snp.mode().state == NetworkState::STOPPED {
            snp.start()?;
        }
        if snp.mode().state == NetworkState::STARTED {
            snp.initialize(0, 0)?;
        }
        let wanted = ReceiveFlags::UNICAST | ReceiveFlags::BROADCAST;
        let others = ReceiveFlags::MULTICAST | ReceiveFlags::PROMISCUOUS | ReceiveFlags::PROMISCUOUS_MULTICAST;
        // Disabling what was never enabled is refused by some drivers.
        snp.receive_filters(wanted, others, true, None)
            .or_else(|_| snp.receive_filters(wanted, ReceiveFlags::empty(), false, None))?;
        let mac = mac_of(&snp);
        let buffer = || SendBuffer {
            bytes: vec![0; FRAME].into(),
            since: None,
        };
        Ok(Self {
            port: Port {
                snp,
                mac,
                clock,
                buffers: (0..SEND_BUFFERS).map(|_| buffer()).collect(),
            },
            received: vec![0; RECEIVE_BUFFER].into(),
        })
    }

    pub(super) fn mac(&self) -> MacAddr {
        self.port.mac
    }

    /// Whether the cable leads somewhere. Interfaces that cannot tell are believed to be connected.
    pub(super) fn has_link(&mut self) -> bool {
        // Asking for the status is what makes drivers look at the link.
        let _ = self.port.snp.get_interrupt_status();
        let mode = self.port.snp.mode();
        !bool::from(mode.media_present_supported) || bool::from(mode.media_present)
    }
}

impl Drop for Nic {
    fn drop(&mut self) {
        // A NIC that goes on writing packets into memory would do so into the kernel's.
        let _ = self.port.snp.shutdown();
        let _ = self.port.snp.stop();
    }
}

/// The MAC address of an interface.
pub(super) fn mac_of(snp: &SimpleNetwork) -> MacAddr {
    let [a, b, c, d, e, f, ..] = snp.mode().current_address.0;
    MacAddr([a, b, c, d, e, f])
}

impl Port {
    /// Takes sent buffers back from the firmware. Done at every step: iPXE's driver sends nothing any more once 32 are
    /// waiting to be fetched.
    fn recycle(&mut self) {
        while let Ok(Some(sent)) = self.snp.get_recycled_transmit_buffer_status() {
            let ours = self
                .buffers
                .iter_mut()
                .find(|buffer| buffer.bytes.as_ptr() == sent.as_ptr());
            if let Some(buffer) = ours {
                buffer.since = None;
            }
        }
    }

    fn send(&mut self, length: usize, fill: impl FnOnce(&mut [u8])) {
        self.recycle();
        let now = self.clock.micros();
        let free = self
            .buffers
            .iter_mut()
            .find(|buffer| buffer.since.is_none_or(|since| now - since > SURELY_SENT_MICROS));
        let length = length.min(FRAME);
        let Some(buffer) = free else {
            // As lost as on the wire: the protocols above send again.
            fill(&mut vec![0; length]);
            return;
        };
        let (frame, padding) = buffer.bytes.split_at_mut(length);
        fill(frame);
        let padded = length.max(SHORTEST);
        padding[..padded - length].fill(0);
        for _ in 0..2 {
            match self.snp.transmit(0, &mut buffer.bytes[..padded], None, None, None) {
                Ok(()) => {
                    buffer.since = Some(now);
                    return;
                }
                Err(error) if error.status() == Status::NOT_READY => {
                    let _ = self.snp.get_interrupt_status();
                }
                Err(_) => return,
            }
        }
    }
}

pub(super) struct Received<'a>(&'a [u8]);

impl smoltcp::phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(self.0)
    }
}

pub(super) struct ToSend<'a>(&'a mut Port);

impl smoltcp::phy::TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut result = None;
        self.0.send(length, |frame| result = Some(f(frame)));
        match result {
            Some(result) => result,
            // `send` calls its closure on every path.
            None => unreachable!("a frame was not filled"),
        }
    }
}

impl Device for Nic {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Received<'_>, ToSend<'_>)> {
        let length = self.port.snp.receive(&mut self.received, None, None, None, None).ok()?;
        Some((Received(self.received.get(..length)?), ToSend(&mut self.port)))
    }

    fn transmit(&mut self, _: Instant) -> Option<ToSend<'_>> {
        self.port.recycle();
        Some(ToSend(&mut self.port))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities
    }
}
