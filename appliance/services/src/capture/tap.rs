//! A socket that sees the frames of one interface, both ways, as far as a filter lets them through.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use rackbar_capture::{Direction, Filter, frame};
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

use super::{CaptureLink, nanos_now};
use crate::link::{join_group, packet_address};

/// What the kernel may hold until we look: a rack's worth of requests in one moment.
const ROOM: usize = 2 << 20;

/// Groups whose packets the NIC filters out unless somebody asks for them: LLDP's, all IPv6 routers, all DHCPv6 servers.
const GROUPS: [[u8; 6]; 3] = [
    [0x01, 0x80, 0xc2, 0, 0, 0x0e],
    [0x33, 0x33, 0, 0, 0, 2],
    [0x33, 0x33, 0, 1, 0, 2],
];

/// The socket.
pub(super) struct Tap {
    socket: Socket,
    pub(super) link: CaptureLink,
}

/// A frame that came.
pub(super) struct Seen<'b> {
    pub(super) at: u64,
    pub(super) direction: Direction,
    /// Bytes it had.
    pub(super) length: u32,
    /// Those of them that may be kept.
    pub(super) bytes: &'b [u8],
    /// All that were read, to look at.
    pub(super) whole: &'b [u8],
}

/// Room for one frame at a time.
pub(super) struct Buffer {
    bytes: Vec<u8>,
    control: Vec<u8>,
}

impl Buffer {
    pub(super) fn new() -> Self {
        Self {
            bytes: vec![0; frame::SNAP],
            control: nix::cmsg_space!(TimeSpec),
        }
    }
}

impl Tap {
    /// Opens it; the filter is attached before anything is queued.
    pub(super) fn open(link: &CaptureLink, filter: &Filter) -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW.nonblocking(), Some(Protocol::from(0)))?;
        let program = filter.program();
        let program: Vec<SockFilter> = (program.iter())
            .map(|one| SockFilter::new(one.code, one.jt, one.jf, one.k))
            .collect();
        socket.attach_filter(&program)?;
        socket.set_recv_buffer_size(ROOM)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        socket.bind(&packet_address(link.index, libc::ETH_P_ALL as u16)?)?;
        for group in GROUPS {
            // An interface that knows no groups takes everything, or nothing that we could change.
            let _ = join_group(socket.as_raw_fd(), link.index, group);
        }
        let link = link.clone();
        Ok(Self { socket, link })
    }

    /// The next frame; `None` when there is none now.
    pub(super) fn receive<'b>(&self, buffer: &'b mut Buffer) -> io::Result<Option<Seen<'b>>> {
        let mut parts = [IoSliceMut::new(&mut buffer.bytes)];
        let flags = MsgFlags::MSG_TRUNC | MsgFlags::MSG_DONTWAIT;
        let control = Some(buffer.control.as_mut_slice());
        let (length, direction, at) = match recvmsg::<LinkAddr>(self.socket.as_raw_fd(), &mut parts, control, flags) {
            Ok(message) => {
                let out = |from: &LinkAddr| from.as_ref().sll_pkttype == libc::PACKET_OUTGOING;
                let direction = match message.address.as_ref().is_some_and(out) {
                    true => Direction::Out,
                    false => Direction::In,
                };
                let told = message.cmsgs().ok().and_then(|mut all| all.find_map(|one| time(&one)));
                (message.bytes, direction, told.unwrap_or_else(nanos_now))
            }
            // A link that is down says so once; frames come again when it is up.
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENETDOWN) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let whole = buffer.bytes.get(..length).unwrap_or(&buffer.bytes);
        Ok(Some(Seen {
            at,
            direction,
            length: u32::try_from(length).unwrap_or(u32::MAX),
            bytes: whole.get(..frame::kept(whole)).unwrap_or(whole),
            whole,
        }))
    }

    /// How many frames came through the filter and how many of them found no room, since this was asked last.
    pub(super) fn counts(&self) -> (u64, u64) {
        let mut counts = libc::tpacket_stats {
            tp_packets: 0,
            tp_drops: 0,
        };
        let mut length = size_of::<libc::tpacket_stats>() as libc::socklen_t;
        // SAFETY: the pointers are to live values, and the length is that of the one which the kernel fills in.
        let result = unsafe {
            libc::getsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counts).cast(),
                &raw mut length,
            )
        };
        match result {
            0 => (counts.tp_packets.into(), counts.tp_drops.into()),
            _ => (0, 0),
        }
    }
}

fn time(message: &ControlMessageOwned) -> Option<u64> {
    let ControlMessageOwned::ScmTimestampns(at) = message else {
        return None;
    };
    let seconds = u64::try_from(at.tv_sec()).ok()?;
    seconds
        .checked_mul(1_000_000_000)?
        .checked_add(u64::try_from(at.tv_nsec()).ok()?)
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
