//! Many datagrams in one system call each way (recvmmsg, sendmmsg): most of a DHCP exchange's cost is entering the
//! kernel, not the exchange.

use std::io;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::libc;

/// Datagrams per call.
pub(crate) const BATCH: usize = 64;

/// Room for one IP_PKTINFO message, aligned as cmsg(3) wants it.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; 64]);

/// Receives batches into its own buffers.
pub(crate) struct Receiver {
    buffers: Vec<u8>,
    size: usize,
    received: Vec<(usize, SocketAddrV4, Option<Ipv4Addr>)>,
}

/// One received datagram.
pub(crate) struct Received<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) source: SocketAddrV4,
    /// The address of ours it was sent to, when the socket tells (IP_PKTINFO).
    pub(crate) local: Option<Ipv4Addr>,
}

impl Receiver {
    /// With room for datagrams of up to `size` bytes; longer ones are cut.
    pub(crate) fn new(size: usize) -> Self {
        Self {
            buffers: vec![0; size * BATCH],
            size,
            received: Vec::with_capacity(BATCH),
        }
    }

    /// Takes up to [`BATCH`] datagrams without waiting and returns how many: 0 when none is there.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        self.received.clear();
        // SAFETY: all-zero bytes are a valid value of each of these plain C structures.
        let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        // SAFETY: as above.
        let mut names: [libc::sockaddr_in; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
        let mut vectors = [libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; BATCH];
        let mut controls = [Control([0; 64]); BATCH];
        let parts = self.buffers.chunks_exact_mut(self.size);
        for ((((header, name), vector), control), buffer) in headers
            .iter_mut()
            .zip(&mut names)
            .zip(&mut vectors)
            .zip(&mut controls)
            .zip(parts)
        {
            *vector = libc::iovec {
                iov_base: buffer.as_mut_ptr().cast(),
                iov_len: buffer.len(),
            };
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header.msg_hdr.msg_control = control.0.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = control.0.len() as _;
        }
        // SAFETY: every pointer in `headers` is to a live buffer of the length beside it, all of which outlive the call.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        let Ok(count) = usize::try_from(count) else {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock {
                Ok(0)
            } else {
                Err(error)
            };
        };
        for (header, name) in headers.iter().zip(&names).take(count) {
            let source = SocketAddrV4::new(
                Ipv4Addr::from(u32::from_be(name.sin_addr.s_addr)),
                u16::from_be(name.sin_port),
            );
            let length = (header.msg_len as usize).min(self.size);
            self.received.push((length, source, local_address(&header.msg_hdr)));
        }
        Ok(count)
    }

    /// The datagrams of the last call.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Received<'_>> {
        self.received
            .iter()
            .zip(self.buffers.chunks_exact(self.size))
            .map(|(&(length, source, local), buffer)| Received {
                bytes: buffer.get(..length).unwrap_or_default(),
                source,
                local,
            })
    }
}

fn local_address(header: &libc::msghdr) -> Option<Ipv4Addr> {
    // SAFETY: the kernel filled in `msg_control` and `msg_controllen`; the CMSG macros stay inside that length.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: not null, so it points to a header inside the control buffer.
        let head = unsafe { message.read_unaligned() };
        if head.cmsg_level == libc::IPPROTO_IP && head.cmsg_type == libc::IP_PKTINFO {
            // SAFETY: a message of this type holds an in_pktinfo; the buffer has room for a whole one.
            let info = unsafe { libc::CMSG_DATA(message).cast::<libc::in_pktinfo>().read_unaligned() };
            return Some(Ipv4Addr::from(u32::from_be(info.ipi_spec_dst.s_addr)));
        }
        // SAFETY: `message` is inside the control buffer of `header`.
        message = unsafe { libc::CMSG_NXTHDR(header, message) };
    }
    None
}

/// A datagram, or a whole frame when `to` is none.
pub(crate) struct Outbound {
    pub(crate) to: Option<SocketAddrV4>,
    /// Source address to use; unspecified leaves it to the kernel.
    pub(crate) from: Ipv4Addr,
    pub(crate) bytes: Vec<u8>,
}

/// Sends all of `batch` and returns how many the kernel refused, with the last reason.
///
/// A refusal concerns one datagram (no route, full queue): the others are sent all the same.
pub(crate) fn send(socket: BorrowedFd<'_>, batch: &[Outbound]) -> (u64, Option<io::Error>) {
    let (mut refused, mut reason) = (0, None);
    for part in batch.chunks(BATCH) {
        let mut done = 0;
        while let Some(rest) = part.get(done..).filter(|rest| !rest.is_empty()) {
            match send_some(socket, rest) {
                Ok(count) => done += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    refused += 1;
                    reason = Some(error);
                    done += 1;
                }
            }
        }
    }
    (refused, reason)
}

fn send_some(socket: BorrowedFd<'_>, batch: &[Outbound]) -> io::Result<usize> {
    // SAFETY: all-zero bytes are a valid value of each of these plain C structures.
    let mut headers: [libc::mmsghdr; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
    // SAFETY: as above.
    let mut names: [libc::sockaddr_in; BATCH] = unsafe { MaybeUninit::zeroed().assume_init() };
    let mut vectors = [libc::iovec {
        iov_base: std::ptr::null_mut(),
        iov_len: 0,
    }; BATCH];
    let mut controls = [Control([0; 64]); BATCH];
    for ((((header, name), vector), control), out) in headers
        .iter_mut()
        .zip(&mut names)
        .zip(&mut vectors)
        .zip(&mut controls)
        .zip(batch)
    {
        *vector = libc::iovec {
            iov_base: out.bytes.as_ptr().cast_mut().cast(),
            iov_len: out.bytes.len(),
        };
        header.msg_hdr.msg_iov = vector;
        header.msg_hdr.msg_iovlen = 1;
        if let Some(to) = out.to {
            name.sin_family = libc::AF_INET as u16;
            name.sin_port = to.port().to_be();
            name.sin_addr.s_addr = to.ip().to_bits().to_be();
            header.msg_hdr.msg_name = (&raw mut *name).cast();
            header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            if !out.from.is_unspecified() {
                put_source(&mut header.msg_hdr, control, out.from);
            }
        }
    }
    let count = batch.len().min(BATCH) as libc::c_uint;
    // SAFETY: the first `count` headers point to live buffers of the lengths beside them; sendmmsg only reads them.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_NOSIGNAL as _) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Asks for a source address: an interface may have several, and a client believes only the server it was offered by.
fn put_source(header: &mut libc::msghdr, control: &mut Control, from: Ipv4Addr) {
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: CMSG_SPACE and CMSG_LEN only compute.
    let (space, length) = unsafe {
        let size = size_of::<libc::in_pktinfo>() as libc::c_uint;
        (libc::CMSG_SPACE(size), libc::CMSG_LEN(size))
    };
    header.msg_controllen = space as _;
    let info = libc::in_pktinfo {
        ipi_ifindex: 0,
        ipi_spec_dst: libc::in_addr {
            s_addr: from.to_bits().to_be(),
        },
        ipi_addr: libc::in_addr { s_addr: 0 },
    };
    // SAFETY: the control buffer has 64 bytes, more than the space of one in_pktinfo, so the first header exists and its
    // data has room for the value.
    unsafe {
        let message = libc::CMSG_FIRSTHDR(header);
        (*message).cmsg_level = libc::IPPROTO_IP;
        (*message).cmsg_type = libc::IP_PKTINFO;
        (*message).cmsg_len = length as _;
        libc::CMSG_DATA(message)
            .cast::<libc::in_pktinfo>()
            .write_unaligned(info);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{setsockopt, sockopt};
    use std::net::{SocketAddr, UdpSocket};
    use std::os::fd::AsFd;

    fn socket() -> (UdpSocket, SocketAddrV4) {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let SocketAddr::V4(address) = socket.local_addr().unwrap() else {
            panic!()
        };
        (socket, address)
    }

    #[test]
    fn batches_arrive_in_order_with_both_addresses() {
        let ((a, from), (b, to)) = (socket(), socket());
        setsockopt(&b, sockopt::Ipv4PacketInfo, &true).unwrap();
        let batch: Vec<_> = (0..100u8)
            .map(|n| Outbound {
                to: Some(to),
                from: *from.ip(),
                bytes: vec![n; 1 + n as usize],
            })
            .collect();
        let (refused, reason) = send(a.as_fd(), &batch);
        assert_eq!((refused, reason.map(|e| e.to_string())), (0, None));
        let mut receiver = Receiver::new(64);
        let mut seen = Vec::new();
        while receiver.receive(b.as_fd()).unwrap() > 0 {
            for got in receiver.iter() {
                assert_eq!((got.source, got.local), (from, Some(*to.ip())));
                // Longer ones are cut, not lost.
                assert_eq!(got.bytes.len(), (1 + seen.len()).min(64));
                seen.push(got.bytes[0]);
            }
        }
        assert_eq!(seen, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn one_refused_datagram_does_not_stop_the_others() {
        let ((a, _), (b, to)) = (socket(), socket());
        let out = |bytes| Outbound {
            to: Some(to),
            from: Ipv4Addr::UNSPECIFIED,
            bytes,
        };
        let (refused, reason) = send(a.as_fd(), &[out(vec![1]), out(vec![0; 70_000]), out(vec![3])]);
        assert_eq!((refused, reason.is_some()), (1, true));
        let mut receiver = Receiver::new(64);
        assert_eq!(receiver.receive(b.as_fd()).unwrap(), 2);
    }
}
