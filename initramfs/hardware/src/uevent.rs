//! Hot-plug: the kernel's uevents from a netlink socket (KOBJECT_UEVENT).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, setsockopt, socket, sockopt,
};

/// Room for a burst of a few thousand events: a USB hub or a shelf of 96 disks arrives at once.
const RECEIVE_BUFFER: usize = 4 << 20;

/// What one event says.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Uevent {
    /// `add`, `remove`, `change`, `bind` and others.
    pub action: String,
    /// Path below `/sys`.
    pub devpath: String,
    /// Subsystem, such as `block` or `net`.
    pub subsystem: String,
    /// Modalias of the device, when it has one.
    pub modalias: Option<String>,
    /// Name below `/dev`, when it has one.
    pub devname: Option<String>,
}

impl Uevent {
    /// Reads one datagram: `action@devpath`, then `KEY=value` texts, each ended by a NUL. `None` for anything else,
    /// such as udev's own messages.
    pub fn parse(datagram: &[u8]) -> Option<Self> {
        let mut parts = datagram
            .split(|b| *b == 0)
            .filter_map(|part| std::str::from_utf8(part).ok());
        let (action, devpath) = parts.next()?.split_once('@')?;
        let mut event = Self {
            action: action.to_owned(),
            devpath: devpath.to_owned(),
            ..Self::default()
        };
        for (key, value) in parts.filter_map(|part| part.split_once('=')) {
            match key {
                "SUBSYSTEM" => event.subsystem = value.to_owned(),
                "MODALIAS" => event.modalias = Some(value.to_owned()),
                "DEVNAME" => event.devname = Some(value.to_owned()),
                _ => {}
            }
        }
        Some(event)
    }
}

/// What a wait on the socket gave.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Heard {
    /// An event.
    Event(Uevent),
    /// Events were lost in an overflow: look at all devices again.
    Overflow,
    /// Nothing within the time given.
    Quiet,
}

/// The socket.
pub struct UeventSocket(OwnedFd);

impl UeventSocket {
    /// Opens it; events are kept from now on, so open it before looking at what is there already.
    pub fn open() -> io::Result<Self> {
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        // Without CAP_NET_ADMIN the usual buffer has to do; an overflow is noticed.
        let _ = setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER);
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self(fd))
    }

    /// Waits at most `timeout`.
    pub fn wait(&self, timeout: Duration) -> io::Result<Heard> {
        let millis = u16::try_from(timeout.as_millis()).unwrap_or(u16::MAX);
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::from(millis)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Heard::Quiet),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let mut buffer = [0u8; 8192];
        match recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT) {
            Ok(length) => {
                Ok(Uevent::parse(buffer.get(..length).unwrap_or_default()).map_or(Heard::Quiet, Heard::Event))
            }
            Err(Errno::ENOBUFS) => Ok(Heard::Overflow),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(Heard::Quiet),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_event_is_read() {
        let event =
            Uevent::parse(b"add@/devices/virtio0\0ACTION=add\0SUBSYSTEM=virtio\0MODALIAS=virtio:d1v2\0SEQNUM=7\0");
        let event = event.unwrap();
        assert_eq!(
            (event.action.as_str(), event.devpath.as_str()),
            ("add", "/devices/virtio0")
        );
        assert_eq!(event.modalias.as_deref(), Some("virtio:d1v2"));
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None);
    }

    proptest! {
        #[test]
        fn any_datagram_is_read(bytes: Vec<u8>) {
            let _ = Uevent::parse(&bytes);
        }
    }
}
