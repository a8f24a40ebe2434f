//! What a service may do: root's power comes in pieces (capabilities(7)), and a service keeps those that it uses. What it
//! gives up here cannot be had again, by it or by anything it starts.

use std::io;
use std::process::Command;

use crate::sys;

/// A piece of root's power, by its number in the kernel (`include/uapi/linux/capability.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum Capability {
    /// Reads what belongs to others: a data pack on somebody's stick.
    DacReadSearch = 2,
    /// Ports below 1024: DHCP, TFTP, HTTP, DNS, NTP, syslog.
    NetBindService = 10,
    /// Addresses, routes and VLANs.
    NetAdmin = 12,
    /// Raw frames: replies to clients without an address, ARP probes.
    NetRaw = 13,
    /// File systems, partition tables, identity of disks.
    SysAdmin = 21,
    /// Blocks that ext4 keeps for the system: state is written on a full disk too.
    SysResource = 24,
    /// The clock.
    SysTime = 25,
}

/// What is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Privileges {
    /// These alone.
    Only(&'static [Capability]),
    /// All but [`NEVER`].
    Most,
}

/// Of no use to anything of ours, and a help to who has taken a service over: other processes' memory, the kernel's own
/// programs (BPF, perf), its audit and mandatory access control, its log, waking from sleep.
const NEVER: [u8; 12] = [19, 20, 26, 30, 32, 33, 34, 35, 36, 37, 38, 39];

impl Privileges {
    /// The mask of the numbers that stay.
    const fn kept(self) -> u64 {
        let mut mask = 0;
        let mut at = 0;
        match self {
            Self::Only(list) => {
                while at < list.len() {
                    mask |= 1 << list[at] as u8;
                    at += 1;
                }
                mask
            }
            Self::Most => {
                while at < NEVER.len() {
                    mask |= 1 << NEVER[at];
                    at += 1;
                }
                !mask
            }
        }
    }

    /// Lets the command start with these alone, and without a way to more by a program's own rights (set-user-ID, file
    /// capabilities).
    pub(crate) fn leave(self, command: &mut Command) -> io::Result<()> {
        let last = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")?;
        let last: u8 = last.trim().parse().map_err(io::Error::other)?;
        let kept = self.kept();
        let dropped = (0..=last.min(63)).filter(|number| kept & 1 << number == 0).collect();
        sys::drop_capabilities(command, dropped);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_is_what_is_named() {
        assert_eq!(Privileges::Only(&[]).kept(), 0);
        let some = Privileges::Only(&[Capability::NetBindService, Capability::SysTime]);
        assert_eq!(some.kept(), 1 << 10 | 1 << 25);
        // CAP_SYS_PTRACE, CAP_BPF; CAP_SYS_MODULE, CAP_CHOWN.
        let most = Privileges::Most.kept();
        assert_eq!((most >> 19 & 1, most >> 39 & 1, most >> 16 & 1, most & 1), (0, 0, 1, 1));
    }
}
