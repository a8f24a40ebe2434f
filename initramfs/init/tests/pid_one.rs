//! The program as PID 1 of real processes: in namespaces of its own, so that nothing it does reaches this machine. A user
//! namespace takes from it what would (modules, the kernel's settings); `reboot(2)` there ends the namespace.
#![allow(clippy::unwrap_used, reason = "a test may end where it finds something missing")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Longest wait for anything but the crash budget, which has its own 16 s.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the namespaces are made by. The root is a folder with this machine's own `/usr` in it, for the shell that stands in
/// for a service; `/dev` is empty but for what a program cannot do without.
const INSIDE: &str = r#"
set -e
root=$1
mount --make-rprivate /
mount --rbind /usr $root/usr
mount -t tmpfs dev $root/dev
for node in null zero random urandom; do
    : > $root/dev/$node
    mount --bind /dev/$node $root/dev/$node
done
exec chroot $root /init
"#;

/// A machine whose PID 1 is ours and whose service is a script.
struct Machine {
    root: TempDir,
    unshare: Child,
    init: u32,
}

impl Machine {
    /// Starts it. `agent` is the script that is the node's one service; `/state` is where it may leave word.
    fn start(agent: &str) -> Self {
        let root = TempDir::new().unwrap();
        for folder in ["bin", "dev", "proc", "run", "state", "sys", "tmp", "usr"] {
            fs::create_dir(root.path().join(folder)).unwrap();
        }
        for link in ["lib", "lib64"] {
            symlink(format!("usr/{link}"), root.path().join(link)).unwrap();
        }
        fs::copy(env!("CARGO_BIN_EXE_init"), root.path().join("init")).unwrap();
        let program = root.path().join("bin/rackbar-agent");
        fs::write(&program, format!("#!/usr/bin/dash\nPATH=/usr/bin\n{agent}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let unshare = Command::new("unshare")
            .args(["--user", "--map-root-user", "--pid", "--fork", "--kill-child"])
            .args(["--mount", "--net", "--uts", "--ipc", "sh", "-c", INSIDE, "sh"])
            .arg(root.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("unshare of util-linux");
        let init = wait("PID 1 runs", || {
            let child = children(unshare.id()).first().copied()?;
            // Before that it is still the shell.
            let program = fs::read_link(format!("/proc/{child}/exe")).ok()?;
            program.ends_with("init").then_some(child)
        });
        Self { root, unshare, init }
    }

    /// A file as the processes inside see it: `/run` is a file system of theirs.
    fn read(&self, file: &str) -> Option<String> {
        fs::read_to_string(format!("/proc/{}/root{file}", self.init)).ok()
    }

    /// What init said of itself so far.
    fn said(&self) -> String {
        self.read("/run/log/init").unwrap_or_default()
    }

    /// Lines that the service left in a file of `/state`.
    fn left(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.state(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn state(&self, file: &str) -> PathBuf {
        self.root.path().join("state").join(file)
    }

    fn signal(&self, signal: &str, process: u32) {
        let told = Command::new("kill").args([signal, &process.to_string()]).status();
        assert!(told.unwrap().success(), "kill {signal} {process}");
    }

    /// The end of the whole machine.
    fn end(&mut self) -> ExitStatus {
        wait("the machine goes down", || self.unshare.try_wait().unwrap())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // With it goes everything inside (`--kill-child`). That it has ended already is no error.
        let _ = self.unshare.kill();
        let _ = self.unshare.wait();
    }
}

/// Waits until `look` finds something.
fn wait<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Processes whose parent this one is, of all its threads.
fn children(process: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    let of_task = |task: fs::DirEntry| fs::read_to_string(task.path().join("children")).unwrap_or_default();
    let lists: Vec<String> = tasks.flatten().map(of_task).collect();
    let numbers = lists.iter().flat_map(|list| list.split_whitespace());
    numbers.filter_map(|number| number.parse().ok()).collect()
}

/// State letter of a process (`proc_pid_stat(5)`), none when it is gone. The name before it may hold anything but `)`.
fn state_of(process: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn a_service_that_keeps_ending_is_tried_seldomer_and_then_marked() {
    let machine = Machine::start("date +%s%N >> /state/starts; exit 7");
    let mark = wait("the crash budget is spent", || {
        machine.read("/run/rackbar/degraded-agent")
    });
    assert!(
        mark.contains("agent keeps ending") && mark.contains("every 60 s"),
        "{mark}"
    );
    let said = machine.said();
    assert_eq!(said.matches("agent ended with code 7").count(), 7, "{said}");
    assert!(said.contains("DEGRADED: agent keeps ending"), "{said}");
    let starts: Vec<u64> = machine
        .left("starts")
        .iter()
        .map(|line| line.parse().unwrap())
        .collect();
    let pauses: Vec<u64> = starts.windows(2).map(|pair| (pair[1] - pair[0]) / 1_000_000).collect();
    assert_eq!(pauses.len(), 6, "{pauses:?}");
    // A lower bound alone: a busy machine may be late, never early.
    for (pause, least) in pauses.iter().zip([250, 500, 1000, 2000, 4000, 8000]) {
        assert!(*pause >= least, "{pauses:?}");
    }
}

/// A process of PID 1 that has become `sleep SECONDS`.
fn sleeper(machine: &Machine, seconds: &str) -> Option<u32> {
    let words = format!("sleep\0{seconds}\0").into_bytes();
    let sleeps = |process: &u32| fs::read(format!("/proc/{process}/cmdline")).is_ok_and(|told| told == words);
    children(machine.init).into_iter().find(sleeps)
}

#[test]
fn a_service_that_is_killed_comes_back_and_orphans_are_reaped() {
    // The process in the brackets ends at once, and leaves its own child to PID 1.
    let machine = Machine::start("(sleep 2000 &)\nexec sleep 1000");
    let first = wait("the service runs", || sleeper(&machine, "1000"));
    let orphan = wait("an orphan is PID 1's", || sleeper(&machine, "2000"));
    machine.signal("-KILL", orphan);
    wait("the orphan is taken in", || state_of(orphan).is_none().then_some(()));
    machine.signal("-KILL", first);
    wait("the service is back", || {
        sleeper(&machine, "1000").filter(|process| *process != first)
    });
    assert_eq!(state_of(first), None, "the killed service is still there");
    let zombie = |process: &u32| state_of(*process) == Some('Z');
    wait("nothing that ended is left", || {
        (!children(machine.init).iter().any(zombie)).then_some(())
    });
    let said = machine.said();
    assert!(said.contains("agent ended by SIGKILL"), "{said}");
}

/// A line of `proc_pid_status(5)`.
fn status(lines: &[String], name: &str) -> String {
    let line = lines.iter().find_map(|line| line.strip_prefix(&format!("{name}:")));
    line.unwrap_or_else(|| panic!("no {name} in {lines:?}"))
        .trim()
        .to_owned()
}

#[test]
fn a_service_starts_without_what_it_never_needs_and_has_no_way_back_to_it() {
    let machine =
        Machine::start("cat /proc/self/status > /state/told && mv /state/told /state/status; exec sleep 1000");
    wait("the service told its rights", || {
        machine.state("status").exists().then_some(())
    });
    let lines = machine.left("status");
    assert_eq!(status(&lines, "NoNewPrivs"), "1");
    let bounds = u64::from_str_radix(&status(&lines, "CapBnd"), 16).unwrap();
    let effective = u64::from_str_radix(&status(&lines, "CapEff"), 16).unwrap();
    // An agent's: CAP_SYS_ADMIN and CAP_NET_ADMIN are there; CAP_SYS_PTRACE, CAP_MAC_ADMIN and CAP_BPF are not.
    for (number, there) in [(21, 1), (12, 1), (19, 0), (33, 0), (39, 0)] {
        assert_eq!(bounds >> number & 1, there, "capability {number} of {bounds:x}");
        assert_eq!(effective >> number & 1, there, "capability {number} of {effective:x}");
    }
}

#[test]
fn a_restart_lets_the_service_end_in_order_and_switching_off_is_told_from_it() {
    // What reboot(2) does to a PID namespace: the parent sees PID 1 end by SIGHUP for a restart, by SIGINT for power off.
    // Into another kernel nobody jumps out of a namespace: as on a machine where none was loaded, it restarts then.
    let jump = "does not start the one that was loaded";
    for (signal, words, end) in [
        ("-TERM", "restarting", 1),
        ("-USR2", "switching off", 2),
        ("-QUIT", jump, 1),
    ] {
        let mut machine = Machine::start(
            "trap 'echo closed >> /state/ends; exit 0' TERM\n: > /state/ready\nwhile :; do sleep 0.1; done",
        );
        wait("the service runs", || machine.state("ready").exists().then_some(()));
        let log = Path::new("/proc")
            .join(machine.init.to_string())
            .join("root/run/log/init");
        let log = fs::File::open(log).unwrap();
        machine.signal(signal, machine.init);
        let status = machine.end();
        let said = std::io::read_to_string(log).unwrap();
        assert_eq!(machine.left("ends"), ["closed"], "{said}");
        assert!(said.contains(words) && said.contains("agent stopped after"), "{said}");
        // `unshare` ends as its child did.
        assert_eq!(
            status.signal().or(status.code().map(|code| code - 128)),
            Some(end),
            "{status} {said}"
        );
    }
}
