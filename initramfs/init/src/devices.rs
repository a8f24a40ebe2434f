//! Drivers: the ones of devices present at start (cold-plug), then of devices that come later (hot-plug), and the
//! ones the kernel itself asks for.

use std::process::ExitCode;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rackbar_hardware::Root;
use rackbar_hardware::cmdline::Arguments;
use rackbar_hardware::modules::{Loader, ModuleIndex, Outcome, Settings, present};
use rackbar_hardware::uevent::{Heard, UeventSocket};

use crate::power;
use crate::report::say;

/// Modules that no device names but a program needs: the character devices of IPMI, and the power button's events.
const COMPANIONS: [(&str, &str); 2] = [("ipmi_msghandler", "ipmi_devintf"), ("button", "evdev")];

/// Threads that load at start. Most drivers wait for their device, not for the processor.
const THREADS: usize = 4;

/// How often cold-plug looks again for devices that the drivers just loaded have made.
const ROUNDS: usize = 6;

/// A loader for the running kernel.
pub(crate) fn loader(arguments: &Arguments) -> Loader {
    let root = Root::default();
    let release = root.text("proc/sys/kernel/osrelease").unwrap_or_default();
    Loader::new(
        ModuleIndex::read(&root, &release),
        Settings::from_arguments(arguments.iter()),
    )
}

/// Serves one request of the kernel for a module (`request_module`: file systems, character sets, crypto algorithms,
/// network protocols). The kernel starts us as `/init -q -- NAME`, in place of modprobe(8).
pub(crate) fn serve_kernel_request(name: &str) -> ExitCode {
    let arguments = Arguments::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default());
    let loader = loader(&arguments);
    let outcomes = loader.load(name);
    // A failure beside a success is ordinary: ext4 wants CRC32C first, for which there is a generic module and one that
    // refuses CPUs without SSE 4.2. The kernel looks for itself whether it now has what it wanted.
    let none = !outcomes.is_empty() && outcomes.iter().all(|outcome| matches!(outcome, Outcome::Failed(..)));
    if loader.knows(name) && !none {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Makes the kernel ask us for modules.
pub(crate) fn answer_kernel_requests() {
    if let Err(error) = std::fs::write("/proc/sys/kernel/modprobe", "/init") {
        say!("the kernel cannot be told to ask for modules here: {error}");
    }
}

fn tell(outcomes: Vec<Outcome>, loaded: &Mutex<Vec<String>>) {
    for outcome in outcomes {
        match outcome {
            Outcome::Loaded(name) => loaded.lock().unwrap_or_else(PoisonError::into_inner).push(name),
            Outcome::Failed(name, why) => say!("driver {name} was not loaded: {why}"),
        }
    }
}

/// Loads the drivers of all devices present. Drivers make new devices (a controller its disks), so it looks again
/// until a look finds nothing new.
pub(crate) fn cold_plug(loader: &Loader) {
    let loaded = Mutex::new(Vec::new());
    let mut seen = std::collections::HashSet::new();
    for _ in 0..ROUNDS {
        let wanted = present(&Root::default());
        let others: Vec<&String> = wanted
            .others
            .iter()
            .filter(|alias| seen.insert((*alias).clone()))
            .collect();
        let ordered: Vec<&String> = wanted
            .ordered
            .iter()
            .filter(|alias| seen.insert((*alias).clone()))
            .collect();
        if others.is_empty() && ordered.is_empty() {
            break;
        }
        let queue = Mutex::new(others.into_iter());
        let next = || queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        thread::scope(|scope| {
            scope.spawn(|| ordered.iter().for_each(|alias| tell(loader.load(alias), &loaded)));
            for _ in 1..THREADS {
                scope.spawn(|| {
                    while let Some(alias) = next() {
                        tell(loader.load(alias), &loaded);
                    }
                });
            }
        });
        load_companions(loader, &loaded);
    }
    let loaded = loaded.into_inner().unwrap_or_else(PoisonError::into_inner);
    say!("{} drivers loaded for the devices present", loaded.len());
}

fn load_companions(loader: &Loader, loaded: &Mutex<Vec<String>>) {
    for (base, companion) in COMPANIONS {
        if loader.has_loaded(base) {
            tell(loader.load(companion), loaded);
        }
    }
}

/// Starts the thread that loads drivers for devices that come later. The receiver gets the name of each block device
/// that appears.
pub(crate) fn start_hot_plug(socket: UeventSocket, loader: Arc<Loader>) -> Receiver<String> {
    let (sender, receiver) = channel();
    let started = thread::Builder::new()
        .name("hot-plug".to_owned())
        .spawn(move || hot_plug(&socket, &loader, &sender));
    if let Err(error) = started {
        say!("devices plugged in later will not be noticed: {error}");
    }
    receiver
}

fn hot_plug(socket: &UeventSocket, loader: &Loader, blocks: &Sender<String>) {
    let loaded = Mutex::new(Vec::new());
    loop {
        match socket.wait(Duration::from_secs(60)) {
            Ok(Heard::Event(event)) if event.action == "add" || event.action == "change" => {
                if let Some(alias) = event.modalias.filter(|_| event.action == "add") {
                    tell(loader.load(&alias), &loaded);
                    load_companions(loader, &loaded);
                }
                let name = event.devname.unwrap_or_default();
                match event.subsystem.as_str() {
                    // Nobody listens any more once the boot medium is settled.
                    "block" => drop(blocks.send(name)),
                    "input" if event.action == "add" => power::watch(name.trim_start_matches("input/")),
                    _ => {}
                }
            }
            Ok(Heard::Overflow) => {
                say!("device events were lost; looking at all devices again");
                cold_plug(loader);
            }
            Ok(Heard::Event(_) | Heard::Quiet) => {}
            Err(error) => {
                say!("device events cannot be read any more, devices plugged in later stay without a driver: {error}");
                return;
            }
        }
        let names = std::mem::take(&mut *loaded.lock().unwrap_or_else(PoisonError::into_inner));
        if !names.is_empty() {
            say!("drivers loaded for new devices: {}", names.join(" "));
        }
    }
}
