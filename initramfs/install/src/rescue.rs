//! Rescue: the operator's script inside the system that lies on the disk, which is not started. The image has no shell
//! and no tools; the system on the disk has its own.
//!
//! The script runs with the installed root as its own, in a mount and a process namespace that end with it: nothing
//! that it mounted stays, and no process that it left behind keeps the file system busy. It is no prison: whoever writes
//! the script is root on this machine anyway.

use std::fs::{self, File};
use std::io::{PipeReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};
use rackbar_messages::JobReport;
use rackbar_model::{RootTarget, SecretText};

use crate::control::{Control, fault, io, refuse};
use crate::mount::Mounted;
use crate::target::Installed;
use crate::{Machine, Result};

/// What is kept of the output: its end, where the reason of a failure stands.
const OUTPUT: usize = 32 << 10;

/// How often a silent script is looked at, to see whether it was given up.
const LOOK: Duration = Duration::from_millis(200);

/// Where the script lies, in a file system in memory that ends with it.
const SCRIPT: &str = "run/rackbar-rescue";

/// Runs a script inside the system of a target.
pub(crate) fn run(
    machine: &Machine,
    target: &RootTarget,
    script: &SecretText,
    seconds: u32,
    control: &Control,
) -> Result<JobReport> {
    if !script.0.starts_with("#!/") {
        return Err(refuse(
            "the first line of the script does not say which program runs it",
            "begin it with a line such as #!/bin/sh",
        ));
    }
    let installed = Installed::find(machine, target)?;
    let root = Mounted::with_programs(machine, &installed.root()?)?;
    control.check()?;
    let limit = Instant::now() + Duration::from_secs(seconds.into());
    let ended = inside(root.path(), |command| watch(command, limit, control), script);
    // Written out whatever came of it: what the script changed before it failed is on the disk.
    root.unmount()?;
    let (status, output) = ended?;
    let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    Ok(JobReport::Rescued { status, output })
}

/// Prepares the namespaces in a thread of its own, which takes them along when it ends, and has `run` start the script
/// from there.
fn inside<T: Send>(root: &Path, run: impl FnOnce(Command) -> Result<T> + Send, script: &SecretText) -> Result<T> {
    let work = || {
        let flags = CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID;
        unshare(flags).map_err(io("making namespaces"))?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(io("making mounts private"))?;
        furnish(root)?;
        put(&root.join(SCRIPT), script).map_err(io("writing the script down"))?;
        chroot(root).map_err(io("entering the installed system"))?;
        chdir("/").map_err(io("entering the installed system"))?;
        let mut command = Command::new(Path::new("/").join(SCRIPT));
        command.env_clear().stdin(Stdio::null()).envs([
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("HOME", "/root"),
            ("TERM", "dumb"),
            ("RACKBAR_RESCUE", "1"),
        ]);
        run(command)
    };
    let thread = thread::scope(|scope| scope.spawn(work).join());
    thread.unwrap_or_else(|_| Err(fault("the rescue's thread ended", "")))
}

/// Mounts what programs expect to find: processes, devices, a writable `/run`.
fn furnish(root: &Path) -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let programs = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let wanted = [
        ("proc", "proc", safe | MsFlags::MS_NODEV),
        ("sys", "sysfs", safe | MsFlags::MS_NODEV),
        ("dev", "devtmpfs", safe),
        ("run", "tmpfs", programs),
    ];
    for (folder, kind, flags) in wanted {
        let path = root.join(folder);
        // A link would lead the mount to another place than the one that is meant.
        let is_folder = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
        if !is_folder {
            return Err(refuse(
                format!("the installed system has no folder /{folder}"),
                "its root file system is damaged or is no Linux system's: install it anew, or repair it by hand",
            ));
        }
        mount(Some(kind), &path, Some(kind), flags, None::<&str>)
            .map_err(io(format_args!("mounting {kind} on /{folder}")))?;
    }
    let variables = root.join("sys/firmware/efi/efivars");
    if variables.is_dir() {
        // Boot loaders' installers want it; a machine without it is no error.
        let kind = "efivarfs";
        let _ = mount(
            Some(kind),
            &variables,
            Some(kind),
            safe | MsFlags::MS_NODEV,
            None::<&str>,
        );
    }
    Ok(())
}

fn put(path: &Path, script: &SecretText) -> std::io::Result<()> {
    let mut options = File::options();
    let mut file = options.write(true).create_new(true).mode(0o700).open(path)?;
    file.write_all(script.0.as_bytes())
}

/// Starts a script and follows it to its end, its time limit, or the order to give up.
fn watch(mut command: Command, limit: Instant, control: &Control) -> Result<(ExitStatus, String)> {
    let (reader, writer) = std::io::pipe().map_err(io("making a pipe"))?;
    let errors = writer.try_clone().map_err(io("making a pipe"))?;
    let started = command.stdout(writer).stderr(errors).spawn();
    let child = started.map_err(|error| {
        refuse(
            format!("the script's program cannot be started: {error}"),
            "its first line must name a program that the system on the disk has",
        )
    })?;
    // The command holds the pipe's other end, and the end of the output would never come.
    drop(command);
    let mut running = Script { child };
    let mut output = Vec::new();
    follow(reader, &mut output, limit, control)?;
    let status = running.child.wait().map_err(io("waiting for the script"))?;
    Ok((status, String::from_utf8_lossy(&output).into_owned()))
}

/// Reads until the output's end.
fn follow(mut reader: PipeReader, output: &mut Vec<u8>, limit: Instant, control: &Control) -> Result<()> {
    let mut piece = [0; 4096];
    loop {
        control.check()?;
        if Instant::now() >= limit {
            let last = String::from_utf8_lossy(output);
            let last = last.lines().last().unwrap_or("nothing").to_owned();
            return Err(refuse(
                format!("the rescue step was ended at its time limit; it printed last: {last}"),
                "raise the step's `timeout`, or look at what it waits for",
            ));
        }
        let timeout = PollTimeout::try_from(LOOK).unwrap_or(PollTimeout::ZERO);
        let mut watched = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        if poll(&mut watched, timeout).map_err(io("waiting for the script's output"))? == 0 {
            continue;
        }
        let length = reader.read(&mut piece).map_err(io("reading the script's output"))?;
        if length == 0 {
            return Ok(());
        }
        output.extend_from_slice(piece.get(..length).unwrap_or_default());
        let surplus = output.len().saturating_sub(OUTPUT);
        output.drain(..surplus);
    }
}

/// A script that runs. It is the first process of its namespace: with it, everything that it started ends.
struct Script {
    child: Child,
}

impl Drop for Script {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn script(text: &str, seconds: u64, control: &Control) -> Result<(ExitStatus, String)> {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", text]);
        watch(command, Instant::now() + Duration::from_secs(seconds), control)
    }

    #[test]
    fn both_outputs_are_kept_in_order_with_the_status() {
        let (status, output) = script("echo one; echo two >&2; exit 7", 60, &Control::default()).unwrap();
        assert_eq!((status.code(), output.as_str()), (Some(7), "one\ntwo\n"));
    }

    #[test]
    fn of_a_flood_the_end_is_kept() {
        let text = "i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done";
        let (_, output) = script(text, 60, &Control::default()).unwrap();
        assert!(
            output.len() <= OUTPUT && output.ends_with("line 19999\n"),
            "{}",
            output.len()
        );
    }

    #[test]
    fn a_script_that_hangs_ends_at_its_limit_with_its_last_words() {
        let begun = Instant::now();
        let failure = script("echo waiting for godot; exec sleep 300", 1, &Control::default()).unwrap_err();
        assert!(failure.reason.contains("waiting for godot"), "{}", failure.reason);
        assert!(begun.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_script_that_is_given_up_ends() {
        let control = Control::default();
        control.give_up();
        let failure = script("exec sleep 300", 300, &control).unwrap_err();
        assert!(failure.reason.contains("given up"), "{}", failure.reason);
    }

    /// Needs root, as an agent has it: a tree with this machine's shell in it is the installed system.
    #[test]
    fn a_script_sees_the_installed_root_as_its_own_and_leaves_nothing_mounted() {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: making namespaces needs root");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        for name in ["proc", "sys", "dev", "run", "bin", "etc"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        for name in ["usr", "lib", "lib64"] {
            let place = folder.path().join(name);
            fs::create_dir(&place).unwrap();
        }
        let work = |command: Command| watch(command, Instant::now() + Duration::from_secs(60), &Control::default());
        // Without a shell in the tree the refusal says what is missing.
        let text = SecretText("#!/bin/sh\nexit 0\n".to_owned());
        let failure = inside(folder.path(), work, &text).unwrap_err();
        assert!(failure.reason.contains("cannot be started"), "{}", failure.reason);
        shell_into(folder.path());
        let text =
            "#!/bin/sh\necho mended > /etc/state\ntest -e /proc/self/status && test -c /dev/null && echo whole\n";
        let (status, output) = inside(folder.path(), work, &SecretText(text.to_owned())).unwrap();
        assert_eq!((status.code(), output.as_str()), (Some(0), "whole\n"));
        assert_eq!(fs::read_to_string(folder.path().join("etc/state")).unwrap(), "mended\n");
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(&folder.path().display().to_string()), "{mounts}");
        assert!(!folder.path().join(SCRIPT).exists());
    }

    /// Copies this machine's shell and the libraries it is linked with.
    fn shell_into(root: &Path) {
        let listed = Command::new("ldd").arg("/bin/sh").output().unwrap();
        let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
        let libraries = listed.split_whitespace().filter(|word| word.starts_with('/'));
        for file in libraries.chain(["/bin/sh"]) {
            let place = root.join(file.trim_start_matches('/'));
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            fs::copy(file, place).unwrap();
        }
    }
}
