//! Child processes that die with us, however we die.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};

use nix::sys::prctl;
use nix::sys::signal::Signal;
use tokio::process::{Child, Command};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

type Job = (Command, Handle, oneshot::Sender<io::Result<Child>>);

/// Spawns a command whose process is killed when this program ends, even by SIGKILL, and when the `Child` is dropped.
///
/// PR_SET_PDEATHSIG fires when the *thread* that forked ends, and tokio's threads come and go; so one thread, which
/// lives as long as the program, does all the forking.
pub(super) async fn spawn(mut command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let us = nix::unistd::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls run: prctl, getppid and building an error by number.
    unsafe {
        command.pre_exec(move || {
            prctl::set_pdeathsig(Signal::SIGKILL)?;
            if nix::unistd::getppid() != us {
                // The parent ended before the line above: nobody would ever send the signal.
                return Err(io::Error::from_raw_os_error(nix::libc::ESRCH));
            }
            Ok(())
        });
    }
    command.kill_on_drop(true);
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || {
            for (mut command, runtime, answer) in jobs {
                let _inside = runtime.enter();
                // A caller that went away drops the child, which kills it: as wanted.
                let _ = answer.send(command.spawn());
            }
        });
        sender
    });
    let (answer, spawned) = oneshot::channel();
    spawner
        .send((command, Handle::current(), answer))
        .map_err(|_| io::Error::other("the spawning thread ended"))?;
    spawned
        .await
        .map_err(|_| io::Error::other("the spawning thread ended"))?
}
