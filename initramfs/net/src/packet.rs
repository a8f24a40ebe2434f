//! A raw Ethernet socket (AF_PACKET) as a smoltcp device. The one module here with `unsafe` code.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};

use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use smoltcp::phy::{Checksum, Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::frame::FILTER;

/// DHCP messages are built for 576 bytes and never exceed an Ethernet frame.
const FRAME: usize = 1514;

/// Frames read in one go; more would let a flood of replies keep the client from its timers.
const BURST: usize = 16;

/// The socket, bound to one interface.
pub(crate) struct PacketDevice {
    socket: Socket,
}

impl PacketDevice {
    /// Opens the socket with the filter already in place when the first frame can arrive.
    pub(crate) fn open(index: u32) -> io::Result<Self> {
        // Protocol 0 receives nothing: no frame slips in before the filter is attached.
        let socket = Socket::new(Domain::PACKET, Type::RAW, None)?;
        socket.attach_filter(&FILTER)?;
        ignore_outgoing(&socket)?;
        socket.set_nonblocking(true)?;
        socket.bind(&link_address(index, libc::ETH_P_ALL as u16)?)?;
        Ok(Self { socket })
    }

    /// Waits until a frame is there or the time is over.
    pub(crate) fn wait(&self, timeout: std::time::Duration) -> io::Result<()> {
        // One more millisecond: a timer of 0.4 ms rounded down would spin.
        let millis = u16::try_from(timeout.as_millis().saturating_add(1)).unwrap_or(u16::MAX);
        match poll(
            &mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)],
            PollTimeout::from(millis),
        ) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Leaves out frames this machine sends (PACKET_IGNORE_OUTGOING, Linux 4.20): the kernel would otherwise copy each of
/// them for us, which an appliance that serves boot files would feel.
fn ignore_outgoing(socket: &Socket) -> io::Result<()> {
    let yes: libc::c_int = 1;
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option is one int, which lives until the call returns.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_PACKET,
            PACKET_IGNORE_OUTGOING,
            (&raw const yes).cast(),
            length,
        )
    };
    nix::errno::Errno::result(result).map(drop).map_err(io::Error::from)
}

/// linux/if_packet.h; the libc crate lacks it for musl.
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// The address "interface `index`, frames of EtherType `protocol`".
fn link_address(index: u32, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: the closure fills the storage with a sockaddr_ll, which fits, and says its true length.
    let (_, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let link = storage.cast::<libc::sockaddr_ll>();
            (*link).sll_family = libc::AF_PACKET as u16;
            (*link).sll_protocol = protocol.to_be();
            (*link).sll_ifindex = index;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    }?;
    Ok(address)
}

/// A frame that was received.
pub(crate) struct Received(Vec<u8>);

/// A frame to be sent.
pub(crate) struct Sending<'a>(&'a Socket);

impl RxToken for Received {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl TxToken for Sending<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, f: F) -> R {
        let mut frame = vec![0; length];
        let result = f(&mut frame);
        // A frame that cannot be sent (link down, queue full) is a lost frame; DHCP sends again.
        let _ = self.0.send(&frame);
        result
    }
}

impl Device for PacketDevice {
    type RxToken<'a> = Received;
    type TxToken<'a> = Sending<'a>;

    fn receive(&mut self, _timestamp: Instant) -> Option<(Received, Sending<'_>)> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); FRAME];
        let length = self.socket.recv(&mut buffer).ok()?;
        let filled = buffer.get(..length)?;
        // SAFETY: recv wrote the first `length` bytes.
        let frame = filled.iter().map(|byte| unsafe { byte.assume_init() }).collect();
        Some((Received(frame), Sending(&self.socket)))
    }

    fn transmit(&mut self, _timestamp: Instant) -> Option<Sending<'_>> {
        Some(Sending(&self.socket))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME;
        capabilities.max_burst_size = Some(BURST);
        // A sender on the same host leaves UDP checksums to hardware that is not there (veth, tap); the frame
        // reaches a packet socket without one. dhclient met this first.
        capabilities.checksum.udp = Checksum::Tx;
        capabilities
    }
}
