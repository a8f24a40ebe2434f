//! Sending a window of blocks in as few system calls as the path allows.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use rackbar_tftp::Window;
use socket2::Socket;

/// Segments the kernel cuts from one send (`UDP_MAX_SEGMENTS`, 64 before Linux 6.2).
const SEGMENTS: usize = 64;
/// Payload of the largest UDP datagram over IPv4, which bounds the uncut send too.
const LARGEST: usize = 65_507;

/// How a socket's windows are sent. Learnt from the first refusal: a device without checksum offload, or blocks larger
/// than the path's MTU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Means {
    Segments,
    Datagrams,
}

/// Sends `window` of `content` to the peer `socket` is connected to. What does not fit into the socket's buffer now is
/// left out: to the transfer that is a loss like any other.
pub(crate) fn send(socket: &Socket, means: &mut Means, window: &Window, content: &[u8]) -> io::Result<()> {
    let blocks: Vec<([u8; 4], &[u8])> = window.blocks(content).collect();
    let segment = window.block_size.saturating_add(4);
    let per_call = (LARGEST / usize::from(segment)).clamp(1, SEGMENTS);
    let mut rest = blocks.as_slice();
    while !rest.is_empty() {
        if *means == Means::Datagrams && rest.len() > 1 {
            return send_datagrams(socket, rest);
        }
        let (now, later) = rest.split_at(rest.len().min(per_call));
        match send_segments(socket, segment, now) {
            Ok(()) => rest = later,
            Err(Errno::EAGAIN) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(Errno::EINVAL | Errno::EIO | Errno::EMSGSIZE | Errno::EOPNOTSUPP) if now.len() > 1 => {
                *means = Means::Datagrams;
            }
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(())
}

fn send_segments(socket: &Socket, segment: u16, blocks: &[([u8; 4], &[u8])]) -> Result<(), Errno> {
    let parts: Vec<IoSlice<'_>> = blocks
        .iter()
        .flat_map(|(header, data)| [IoSlice::new(header), IoSlice::new(data)])
        .collect();
    let control = [ControlMessage::UdpGsoSegments(&segment)];
    let control = if blocks.len() > 1 { &control[..] } else { &[] };
    sendmsg::<()>(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

fn send_datagrams(socket: &Socket, blocks: &[([u8; 4], &[u8])]) -> io::Result<()> {
    for part in blocks.chunks(SEGMENTS) {
        let mut vectors = [[libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        }; 2]; SEGMENTS];
        // SAFETY: all-zero bytes are a valid value of this plain C structure.
        let mut headers: [libc::mmsghdr; SEGMENTS] = unsafe { MaybeUninit::zeroed().assume_init() };
        for ((message, vector), (header, data)) in headers.iter_mut().zip(&mut vectors).zip(part) {
            let entry = |bytes: &[u8]| libc::iovec {
                iov_base: bytes.as_ptr().cast_mut().cast(),
                iov_len: bytes.len(),
            };
            *vector = [entry(header), entry(data)];
            message.msg_hdr.msg_iov = vector.as_mut_ptr();
            message.msg_hdr.msg_iovlen = 2;
        }
        let count = part.len() as libc::c_uint;
        // SAFETY: the first `count` headers point to live vectors of live buffers; sendmmsg only reads them.
        let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr(), count, libc::MSG_NOSIGNAL as _) };
        if sent < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::WouldBlock {
                Ok(())
            } else {
                Err(error)
            };
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn received(socket: &UdpSocket, count: usize) -> Vec<Vec<u8>> {
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut buffer = [0; 2048];
        (0..count)
            .map(|_| socket.recv(&mut buffer).map(|n| buffer[..n].to_vec()).unwrap())
            .collect()
    }

    #[test]
    fn both_means_send_the_same_blocks() {
        let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
        // 69 blocks: more than one call of either means; the last block is short.
        let window = Window {
            first: 1,
            count: 69,
            block_size: 1468,
        };
        let [segments, datagrams] = [Means::Segments, Means::Datagrams].map(|mut means| {
            let to = UdpSocket::bind("127.0.0.1:0").unwrap();
            let from = UdpSocket::bind("127.0.0.1:0").unwrap();
            from.connect(to.local_addr().unwrap()).unwrap();
            send(&from.into(), &mut means, &window, &content).unwrap();
            received(&to, 69)
        });
        assert_eq!(segments, datagrams);
        let joined: Vec<u8> = segments.iter().flat_map(|block| block[4..].to_vec()).collect();
        assert_eq!(joined, content);
        assert_eq!(segments[68][..4], [0, 3, 0, 69]);
    }
}
