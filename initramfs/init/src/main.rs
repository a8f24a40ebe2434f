//! PID 1 of appliance and node: mounts, drivers, boot medium, services, and an orderly end. It grows no features.
//!
//! ```text
//! mounts ─▶ cold-plug ─▶ (appliance) boot medium: /esp, /data ─▶ services ─▶ turn, turn, ... ─▶ stop
//!              └─ hot-plug goes on in a thread
//! ```
//! PID 1 must never end: the kernel panics when it does. Every step that fails is said in words and the next one
//! tried; a fault of init itself (a panic) is reported and the process stays ([`stop::last_stand`]).
//!
//! The kernel also starts this program as `/init -q -- NAME` when it wants a module; see [`devices`].

mod capture;
mod devices;
mod grow;
mod medium;
mod mounts;
mod power;
mod privileges;
mod report;
mod restart;
mod services;
mod stop;
mod sys;
mod watchdog;

use std::io::Read;
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rackbar_hardware::cmdline::Arguments;
use rackbar_hardware::uevent::UeventSocket;

use report::say;
use services::{Role, Services};
use stop::End;
use watchdog::Watchdog;

/// Folder for facts about this boot that other programs read.
const RUN_FOLDER: &str = "/run/rackbar";

/// 2026-11-01T00:00:00Z: this program was written later, so a clock before it is wrong.
const BEFORE_US: u64 = 1_793_491_200;

/// Open files a service may have. The kernel's 1,024 are few for a rack of machines that all fetch files at once.
const OPEN_FILES: u64 = 65_536;

/// Longest sleep of the main loop, so that the watchdog is petted in time.
const TURN: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().collect();
    if std::process::id() != 1 {
        return match words.get(1..) {
            Some([quiet, dashes, name]) if quiet == "-q" && dashes == "--" => devices::serve_kernel_request(name),
            _ => {
                eprintln!("rackbar-init: this is PID 1 of Rackbar's images; the kernel starts it");
                ExitCode::FAILURE
            }
        };
    }
    survive_panics();
    // Blocked before the first thread starts, so that all inherit it and only the main loop sees signals.
    let blocked = stop::signals().thread_block();
    let (role, arguments) = set_up();
    if let Err(error) = blocked {
        say!("signals cannot be blocked, orderly shutdown may not work: {error}");
    }
    gather_entropy();
    let loader = Arc::new(devices::loader(&arguments));
    devices::answer_kernel_requests();
    let socket = UeventSocket::open();
    devices::cold_plug(&loader);
    let blocks = match socket {
        Ok(socket) => devices::start_hot_plug(socket, loader),
        Err(error) => {
            say!("device events cannot be heard, devices plugged in later stay without a driver: {error}");
            std::sync::mpsc::channel().1
        }
    };
    power::watch_present();
    mounts::efi_variables();
    if role == Role::Appliance {
        medium::mount_all(&arguments, &blocks);
    }
    drop(blocks);
    supervise(role, &arguments)
}

/// A panic in a thread parks that thread; one in the main thread leaves a process that still reaps and restarts. The
/// hook never returns, so the abort that would follow never comes.
fn survive_panics() {
    std::panic::set_hook(Box::new(|fault| {
        let main = std::thread::current().name() == Some("main");
        report::show();
        say!("FAULT in init, please report it: {fault}");
        if main {
            say!("init no longer watches the services; restart the machine when convenient");
            stop::last_stand();
        }
        loop {
            std::thread::park();
        }
    }));
}

/// Makes the kernel fill its random pool now, beside the drivers: on a machine without RDRAND the first TLS handshake
/// would otherwise wait two seconds for it.
fn gather_entropy() {
    let read = || std::fs::File::open("/dev/random").and_then(|mut random| random.read_exact(&mut [0u8; 1]));
    let started = std::thread::Builder::new()
        .name("entropy".to_owned())
        .stack_size(64 << 10)
        .spawn(read);
    if let Err(error) = started {
        say!("random numbers may come late: {error}");
    }
}

/// Mounts, arguments, name, clock, limits.
fn set_up() -> (Role, Arguments) {
    let faults = mounts::first();
    let console = mounts::console();
    report::keep(capture::BoundedLog::new(
        format!("{}/init", capture::LOG_FOLDER),
        capture::LOG_LIMIT,
    ));
    say!("Rackbar {} starts", env!("CARGO_PKG_VERSION"));
    faults.iter().for_each(|fault| say!("{fault}"));
    if let Err(error) = console {
        say!("there is no console, messages go to /run/log only: {error}");
    }
    // Only errors reach the console from here on: our lines and the console's screen stay readable. All is kept.
    let _ = std::fs::write("/proc/sys/kernel/printk", "4 4 1 7");
    capture::kernel();
    let arguments = Arguments::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let role = Role::of(&arguments, std::fs::exists("/bin/rackbar").unwrap_or(false));
    say!(
        "this machine is {}",
        if role == Role::Appliance {
            "the appliance"
        } else {
            "a node"
        }
    );
    if let Err(error) = nix::unistd::sethostname(if role == Role::Appliance { "rackbar" } else { "node" }) {
        say!("the host name cannot be set: {error}");
    }
    if let Err(error) = sys::loopback_up() {
        say!("the loopback interface cannot be brought up: {error}");
    }
    if let Err(error) = setrlimit(Resource::RLIMIT_NOFILE, OPEN_FILES, OPEN_FILES) {
        say!("the limit of open files stays low: {error}");
    }
    // Ctrl-Alt-Del then reaches us as SIGINT instead of resetting at once.
    if let Err(error) = nix::sys::reboot::set_cad_enabled(false) {
        say!("Ctrl-Alt-Del will reset without an orderly stop: {error}");
    }
    let clock = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs());
    if clock < BEFORE_US {
        say!("the machine's clock is wrong (before this program was written); its battery may be empty");
    }
    (role, arguments)
}

/// Runs the services until a signal says to go down.
fn supervise(role: Role, arguments: &Arguments) -> ! {
    let consoles = services::consoles(&std::fs::read_to_string("/proc/consoles").unwrap_or_default());
    let mut services = Services::new(services::specs(role, &consoles), Instant::now());
    let mut watchdog = Watchdog::new(watchdog::Wanted::of(arguments.value("rackbar.watchdog")));
    let signals = match SignalFd::with_flags(&stop::signals(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK) {
        Ok(signals) => signals,
        Err(error) => {
            say!("signals cannot be read ({error}): services run unwatched");
            services.turn(Instant::now());
            stop::last_stand();
        }
    };
    loop {
        let now = Instant::now();
        // First: what it says of itself is then still on the console, before a screen is drawn there.
        watchdog.turn(now);
        services.turn(now);
        let sleep = services
            .deadline()
            .map_or(TURN, |due| due.saturating_duration_since(now).min(TURN));
        let millis = u16::try_from(sleep.as_millis() + 1).unwrap_or(u16::MAX);
        let _ = poll(
            &mut [PollFd::new(signals.as_fd(), PollFlags::POLLIN)],
            PollTimeout::from(millis),
        );
        let mut end = None;
        while let Ok(Some(info)) = signals.read_signal() {
            let signal = i32::try_from(info.ssi_signo)
                .ok()
                .and_then(|number| Signal::try_from(number).ok());
            end = end.or(signal.and_then(End::of));
        }
        services.reap(Instant::now());
        if let Some(end) = end {
            stop::take_down(end, &mut services, &mut watchdog);
        }
    }
}
