//! Going down in order: services, other processes, file systems, the machine.

use std::time::Duration;

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Pid, sync};

use crate::report::say;
use crate::services::Services;
use crate::watchdog::Watchdog;

/// The daemon closes its store and tells its clients; on a slow stick that takes seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// For processes no service owns.
const PATIENCE_OTHERS: Duration = Duration::from_secs(2);

/// How the machine ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// Start again.
    Reboot,
    /// Start the kernel that was put into memory (kexec), in place of a reset.
    Jump,
    /// Switch off.
    PowerOff,
}

impl End {
    /// The meaning of a signal to PID 1, as in busybox and sysvinit: SIGTERM and SIGINT (which the kernel sends for
    /// Ctrl-Alt-Del) restart, SIGUSR1 (halt) and SIGUSR2 switch off. SIGQUIT is ours: only who loaded a kernel and wants it
    /// started sends it. Any other restart resets the machine, whatever somebody loaded before and gave up.
    pub(crate) fn of(signal: Signal) -> Option<Self> {
        match signal {
            Signal::SIGTERM | Signal::SIGINT => Some(Self::Reboot),
            Signal::SIGQUIT => Some(Self::Jump),
            Signal::SIGUSR1 | Signal::SIGUSR2 => Some(Self::PowerOff),
            _ => None,
        }
    }

    /// What reboot(2) is told where there is no kernel to jump to.
    const fn mode(self) -> RebootMode {
        match self {
            Self::Reboot | Self::Jump => RebootMode::RB_AUTOBOOT,
            Self::PowerOff => RebootMode::RB_POWER_OFF,
        }
    }
}

/// The signals init acts on; they are blocked in all its threads and read by the main one.
pub(crate) fn signals() -> SigSet {
    [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGUSR1,
        Signal::SIGUSR2,
    ]
    .into_iter()
    .collect()
}

/// Takes the machine down; comes back only when the kernel refuses.
pub(crate) fn take_down(end: End, services: &mut Services, watchdog: &mut Watchdog) {
    let doing = match end {
        End::Reboot => "restarting",
        End::Jump => "leaving for the kernel that was loaded",
        End::PowerOff => "switching off",
    };
    say!("{doing}");
    watchdog.last_turn();
    let ends = services.stop(PATIENCE);
    // Once more: no screen hides it now, and who reads a serial console's record later wants to know why it ends.
    say!("{doing}: {}", ends.join(", "));
    stop_others();
    sync();
    unmount("/data");
    unmount("/esp");
    // A kernel that is jumped to does not know that it has a watchdog to feed.
    if end != End::Reboot {
        watchdog.disarm();
    }
    say!("file systems are unmounted, goodbye");
    sync();
    if end == End::Jump {
        let Err(error) = reboot(RebootMode::RB_KEXEC);
        say!("the kernel does not start the one that was loaded ({error}): restarting through the firmware");
    }
    let Err(error) = reboot(end.mode());
    say!("the kernel refuses to go down: {error}; it is safe to switch off by hand");
}

/// SIGTERM, then SIGKILL to every process that is left.
fn stop_others() {
    for (signal, patience) in [(Signal::SIGTERM, PATIENCE_OTHERS), (Signal::SIGKILL, PATIENCE_OTHERS)] {
        if kill(Pid::from_raw(-1), signal) == Err(Errno::ESRCH) {
            return;
        }
        let begun = std::time::Instant::now();
        while begun.elapsed() < patience {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Err(_) => return,
                Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(20)),
                Ok(_) => {}
            }
        }
    }
}

/// Unmounts `target`; when something still holds it, makes it read-only, which writes out its journal as well.
fn unmount(target: &str) {
    match umount2(target, MntFlags::empty()) {
        Ok(()) => {}
        // Not mounted: a node, or an appliance without that partition.
        Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(error) => {
            let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
            match mount(None::<&str>, target, None::<&str>, flags, None::<&str>) {
                Ok(()) => say!("{target} is in use ({error}) and was made read-only"),
                Err(again) => say!("{target} can be neither unmounted ({error}) nor made read-only ({again})"),
            }
        }
    }
}

/// After a fault in init itself: services go on unwatched; orphans are reaped and a restart is still obeyed. When a
/// watchdog is armed nobody pets it now, and it resets the machine.
pub(crate) fn last_stand() -> ! {
    let signals = signals();
    let _ = signals.thread_block();
    loop {
        while matches!(waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)), Ok(status) if status != WaitStatus::StillAlive)
        {
        }
        match signals.wait().map(End::of) {
            Ok(Some(end)) => {
                sync();
                unmount("/data");
                unmount("/esp");
                let _ = reboot(end.mode());
            }
            Ok(None) => {}
            Err(_) => std::thread::sleep(Duration::from_secs(1)),
        }
    }
}
