//! The services of this machine: starting, watching, stopping them.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use rackbar_hardware::cmdline::Arguments;

use crate::capture;
use crate::privileges::{Capability, Privileges};
use crate::report::{self, say};
use crate::restart::Restarts;
use crate::sys;

/// One program to keep running.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Spec {
    /// Name in messages and of its log.
    pub(crate) name: String,
    program: &'static str,
    arguments: Vec<String>,
    /// Show its output on the console too.
    mirror: bool,
    /// It draws on the console that init's own lines go to.
    covers: bool,
    privileges: Privileges,
}

/// What the daemon does as root: it serves low ports, sets the network up, takes packs and disks into use, sets the clock.
const DAEMON: &[Capability] = &[
    Capability::DacReadSearch,
    Capability::NetBindService,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::SysAdmin,
    Capability::SysResource,
    Capability::SysTime,
];

/// What this machine is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Role {
    /// Runs Rackbar itself.
    Appliance,
    /// Was booted by an appliance.
    Node,
}

impl Role {
    /// `rackbar.role`, else appliance when its program is in the image.
    pub(crate) fn of(arguments: &Arguments, has_program: bool) -> Self {
        match arguments.value("rackbar.role") {
            Some("appliance") => Self::Appliance,
            Some("node") => Self::Node,
            _ if has_program => Self::Appliance,
            _ => Self::Node,
        }
    }
}

/// A console of the kernel.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Console {
    /// Its name, such as `tty0` and `ttyS0`.
    name: String,
    /// It is `/dev/console`, where init's own lines go.
    preferred: bool,
}

/// The services of a machine with these consoles.
pub(crate) fn specs(role: Role, consoles: &[Console]) -> Vec<Spec> {
    if role == Role::Node {
        let program = "/bin/rackbar-agent";
        return vec![Spec {
            name: "agent".to_owned(),
            program,
            arguments: Vec::new(),
            mirror: true,
            covers: false,
            // It installs systems, mends installed ones by scripts of their operators, starts their kernels.
            privileges: Privileges::Most,
        }];
    }
    let program = "/bin/rackbar";
    let daemon = Spec {
        name: "daemon".to_owned(),
        program,
        arguments: vec!["daemon".to_owned(), "--pack-devices".to_owned()],
        mirror: false,
        covers: false,
        privileges: Privileges::Only(DAEMON),
    };
    let screens = consoles.iter().map(|console| {
        // tty0 is whichever terminal is in front; the first one is at start.
        let tty = if console.name == "tty0" { "tty1" } else { &console.name };
        let arguments = vec!["console".to_owned(), "--tty".to_owned(), format!("/dev/{tty}")];
        Spec {
            name: format!("console-{tty}"),
            program,
            arguments,
            mirror: false,
            covers: console.preferred,
            // What it reads, draws on and signals belongs to its own user.
            privileges: Privileges::Only(&[]),
        }
    });
    std::iter::once(daemon).chain(screens).collect()
}

/// The consoles the kernel writes to, from `/proc/consoles`: unlike `console=`, only those that exist.
pub(crate) fn consoles(proc_consoles: &str) -> Vec<Console> {
    let console = |line: &str| {
        let name = line.split_whitespace().next()?;
        // Flags stand in brackets; C is the preferred one.
        let flags = line.split_once('(')?.1.split(')').next()?;
        let screen = name.starts_with("tty") || name.starts_with("hvc");
        screen.then(|| Console {
            name: name.to_owned(),
            preferred: flags.contains('C'),
        })
    };
    let mut consoles: Vec<_> = proc_consoles.lines().filter_map(console).collect();
    consoles.dedup_by(|one, other| one.name == other.name);
    consoles
}

enum State {
    Running { pid: Pid, since: Instant },
    Waiting { until: Instant },
}

struct Service {
    spec: Spec,
    state: State,
    restarts: Restarts,
}

/// All services.
pub(crate) struct Services(Vec<Service>);

impl Services {
    /// Services that start at the next turn.
    pub(crate) fn new(specs: Vec<Spec>, now: Instant) -> Self {
        let service = |spec| Service {
            spec,
            state: State::Waiting { until: now },
            restarts: Restarts::default(),
        };
        Self(specs.into_iter().map(service).collect())
    }

    /// Starts what is due.
    pub(crate) fn turn(&mut self, now: Instant) {
        for service in &mut self.0 {
            if let State::Waiting { until } = service.state
                && until <= now
            {
                service.start(now);
            }
        }
    }

    /// When the next service is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let due = |service: &Service| match service.state {
            State::Waiting { until } => Some(until),
            State::Running { .. } => None,
        };
        self.0.iter().filter_map(due).min()
    }

    /// Takes in every child that ended, ours or an orphan left to PID 1.
    pub(crate) fn reap(&mut self, now: Instant) {
        loop {
            match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.ended(pid, &format!("with code {code}"), now),
                Ok(WaitStatus::Signaled(pid, signal, _)) => self.ended(pid, &format!("by {signal}"), now),
                Ok(WaitStatus::StillAlive) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }

    fn ended(&mut self, ended: Pid, how: &str, now: Instant) {
        for service in &mut self.0 {
            match service.state {
                State::Running { pid, since } if pid == ended => service.ended(how, since, now),
                _ => {}
            }
        }
    }

    /// Stops all in the order of their list: the daemon first, so that the screens show it closing. Each gets `patience`
    /// after SIGTERM. Gives what became of each, in words.
    pub(crate) fn stop(&mut self, patience: Duration) -> Vec<String> {
        let mut ends = Vec::new();
        for service in &mut self.0 {
            if let State::Running { pid, .. } = service.state {
                let end = stop_one(&service.spec.name, pid, patience);
                say!("{end}");
                ends.push(end);
                if service.spec.covers {
                    report::show();
                }
            }
            // Nothing is started after this; the machine goes down.
            service.state = State::Waiting {
                until: Instant::now() + Duration::from_secs(86_400),
            };
        }
        ends
    }
}

/// SIGTERM to the service's whole group, then SIGKILL. Gives what became of it, in words.
fn stop_one(name: &str, pid: Pid, patience: Duration) -> String {
    let begun = Instant::now();
    let _ = killpg(pid, Signal::SIGTERM);
    while begun.elapsed() < patience {
        match waitpid(pid, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => std::thread::sleep(Duration::from_millis(20)),
            _ => {
                return format!("{name} stopped after {:.1} s", begun.elapsed().as_secs_f64());
            }
        }
    }
    let _ = killpg(pid, Signal::SIGKILL);
    let _ = kill(pid, Signal::SIGKILL);
    format!("{name} did not stop within {} s and was killed", patience.as_secs())
}

impl Service {
    fn start(&mut self, now: Instant) {
        let name = &self.spec.name;
        match self.spec.spawn() {
            Ok(pid) => {
                say!("{name} started, process {pid}");
                if self.spec.covers {
                    report::hide();
                }
                self.state = State::Running { pid, since: now };
            }
            Err(error) => {
                say!("{name} cannot be started: {}: {error}", self.spec.program);
                self.wait(now, now);
            }
        }
    }

    fn ended(&mut self, how: &str, since: Instant, now: Instant) {
        if self.spec.covers {
            report::show();
        }
        let ran = now.saturating_duration_since(since).as_secs_f64();
        say!("{} ended {how} after {ran:.1} s", self.spec.name);
        self.wait(since, now);
    }

    fn wait(&mut self, since: Instant, now: Instant) {
        let verdict = self.restarts.ended(since, now);
        let name = &self.spec.name;
        let mark = Path::new(crate::RUN_FOLDER).join(format!("degraded-{name}"));
        if verdict.degraded {
            let words = format!(
                "{name} keeps ending; it is tried again every {} s. See /run/log/{name}",
                verdict.delay.as_secs()
            );
            say!("DEGRADED: {words}");
            let _ = fs::write(mark, format!("{words}\n"));
        } else {
            let _ = fs::remove_file(mark);
        }
        self.state = State::Waiting {
            until: now + verdict.delay,
        };
    }
}

impl Spec {
    fn spawn(&self) -> std::io::Result<Pid> {
        let (reader, writer) = std::io::pipe()?;
        let mut command = Command::new(self.program);
        sys::unblock_signals(&mut command);
        self.privileges.leave(&mut command)?;
        let child = command
            .args(&self.arguments)
            .env_clear()
            .env("HOME", "/")
            .env("PATH", "/bin")
            .env("TERM", "linux")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            // A group of its own: what the service starts stops with it.
            .process_group(0)
            .spawn()?;
        capture::service(&self.name, reader, self.mirror);
        // The child is reaped by its number together with all others; dropping the handle does not wait.
        Ok(Pid::from_raw(child.id().cast_signed()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_role_is_told_or_follows_from_the_image() {
        let role = |text: &str, program| Role::of(&Arguments::parse(text), program);
        assert_eq!(role("", true), Role::Appliance);
        assert_eq!(role("", false), Role::Node);
        assert_eq!(role("rackbar.role=node", true), Role::Node);
        assert_eq!(role("rackbar.role=nonsense", false), Role::Node);
    }

    #[test]
    fn an_appliance_has_a_daemon_and_a_screen_per_console_that_exists() {
        let consoles =
            consoles("ttyS0                -W- (EC p a)    4:64\ntty0 -WU (E p  )    4:1\nnetcon0 -W- (E N  )\n");
        assert!(super::consoles("ttyS0\n(\n").is_empty());
        let specs = specs(Role::Appliance, &consoles);
        let names: Vec<&str> = specs.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["daemon", "console-ttyS0", "console-tty1"]);
        assert_eq!(specs[2].arguments, ["console", "--tty", "/dev/tty1"]);
        let covering: Vec<bool> = specs.iter().map(|s| s.covers).collect();
        assert_eq!(covering, [false, true, false]);
    }
}
