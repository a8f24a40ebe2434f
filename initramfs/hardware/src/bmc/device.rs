//! One command and its answer through the kernel's IPMI device (linux/ipmi.h). `unsafe` for its two ioctls.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Ask;

/// A healthy BMC answers in 10 to 100 ms; one that is restarting does not answer at all.
const PATIENCE: Duration = Duration::from_secs(3);

/// After this many questions without an answer the others are not asked: together they would take a minute.
const SILENCES: u32 = 2;

/// Between two looks at a BMC that was just set up: many bring their network down and up again first.
const SETTLE: Duration = Duration::from_secs(2);

/// `struct ipmi_msg`.
#[repr(C)]
struct Message {
    function: u8,
    command: u8,
    length: u16,
    data: *mut u8,
}

/// `struct ipmi_system_interface_addr`.
#[repr(C)]
struct SystemInterface {
    kind: libc::c_int,
    channel: libc::c_short,
    lun: u8,
}

/// `struct ipmi_req`.
#[repr(C)]
struct Request {
    address: *mut SystemInterface,
    address_length: libc::c_uint,
    id: libc::c_long,
    message: Message,
}

/// `struct ipmi_recv`.
#[repr(C)]
struct Reply {
    kind: libc::c_int,
    address: *mut SystemInterface,
    address_length: libc::c_uint,
    id: libc::c_long,
    message: Message,
}

/// A way to put one question to a BMC.
pub(super) trait Line {
    /// One question and its answer.
    fn exchange(&mut self, function: u8, command: u8, data: &[u8]) -> io::Result<Vec<u8>>;

    /// Waits while the BMC does what it was told.
    fn settle(&mut self);
}

/// A line that is given up after some silences, until the BMC was left to rest: it may be restarting its network.
pub(super) struct Patient<L> {
    line: L,
    silences: u32,
}

impl<L: Line> Patient<L> {
    pub(super) const fn new(line: L) -> Self {
        Self { line, silences: 0 }
    }
}

impl<L: Line> Ask for Patient<L> {
    fn ask(&mut self, function: u8, command: u8, data: &[u8]) -> Option<Vec<u8>> {
        if self.silences >= SILENCES {
            return None;
        }
        let answer = self.line.exchange(function, command, data);
        self.silences = if answer.is_ok() { 0 } else { self.silences + 1 };
        answer.ok()
    }

    fn rest(&mut self) {
        self.line.settle();
        self.silences = 0;
    }
}

/// An open IPMI device.
pub(super) struct IpmiDevice {
    device: File,
    id: libc::c_long,
}

impl IpmiDevice {
    pub(super) fn open(path: &Path) -> io::Result<Patient<Self>> {
        let device = OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Patient::new(Self { device, id: 0 }))
    }

    fn address() -> SystemInterface {
        const SYSTEM_INTERFACE: libc::c_int = 0x0c;
        const BMC_CHANNEL: libc::c_short = 0x0f;
        SystemInterface {
            kind: SYSTEM_INTERFACE,
            channel: BMC_CHANNEL,
            lun: 0,
        }
    }

    fn send(&mut self, function: u8, command: u8, data: &[u8]) -> io::Result<()> {
        // _IOR('i', 13, struct ipmi_req)
        const IPMICTL_SEND_COMMAND: libc::c_ulong = 0x8028_690d;
        let mut data = data.to_vec();
        let mut address = Self::address();
        self.id += 1;
        let mut request = Request {
            address: &mut address,
            address_length: size_of::<SystemInterface>() as libc::c_uint,
            id: self.id,
            message: Message {
                function,
                command,
                length: data.len() as u16,
                data: data.as_mut_ptr(),
            },
        };
        // SAFETY: the request, its address and its data live until the call returns; the kernel copies them.
        Errno::result(unsafe { libc::ioctl(self.device.as_raw_fd(), IPMICTL_SEND_COMMAND as _, &mut request) })?;
        Ok(())
    }

    /// The next answer in the queue: its number and its bytes.
    fn receive(&self) -> io::Result<(libc::c_long, Vec<u8>)> {
        // _IOWR('i', 11, struct ipmi_recv); the TRUNC form does not fail on an answer that is too long.
        const IPMICTL_RECEIVE_MSG_TRUNC: libc::c_ulong = 0xc030_690b;
        let mut data = vec![0u8; 300];
        let mut address = Self::address();
        let mut reply = Reply {
            kind: 0,
            address: &mut address,
            address_length: size_of::<SystemInterface>() as libc::c_uint,
            id: 0,
            message: Message {
                function: 0,
                command: 0,
                length: data.len() as u16,
                data: data.as_mut_ptr(),
            },
        };
        // SAFETY: the kernel writes within the lengths given, into buffers that live until the call returns.
        let result = unsafe { libc::ioctl(self.device.as_raw_fd(), IPMICTL_RECEIVE_MSG_TRUNC as _, &mut reply) };
        match Errno::result(result) {
            Ok(_) | Err(Errno::EMSGSIZE) => {}
            Err(error) => return Err(error.into()),
        }
        data.truncate(usize::from(reply.message.length));
        Ok((reply.id, data))
    }
}

impl Line for IpmiDevice {
    fn exchange(&mut self, function: u8, command: u8, data: &[u8]) -> io::Result<Vec<u8>> {
        self.send(function, command, data)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let millis = u16::try_from(left.as_millis()).unwrap_or(u16::MAX);
            if poll(
                &mut [PollFd::new(self.device.as_fd(), PollFlags::POLLIN)],
                PollTimeout::from(millis),
            )? == 0
            {
                return Err(io::ErrorKind::TimedOut.into());
            }
            // An answer that came too late for its question is left behind here.
            let (id, answer) = self.receive()?;
            if id == self.id {
                return Ok(answer);
            }
        }
    }

    fn settle(&mut self) {
        std::thread::sleep(SETTLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_size_the_kernel_expects() {
        assert_eq!(
            (size_of::<Request>(), size_of::<Reply>(), size_of::<SystemInterface>()),
            (40, 48, 8)
        );
    }
}
