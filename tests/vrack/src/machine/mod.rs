//! A QEMU machine with power, a reset line, a boot order and a console. Off means no process; on, a process that a BMC,
//! a person or a test rules through [`MachinePower`].

mod arguments;
mod bays;
mod children;
mod config;
mod display;
mod nvram;
mod process;
mod snapshot;
mod trust;
mod wishes;

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rackbar_model::Timestamp;
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

pub use bays::Slot;
pub use config::{Disk, DiskBus, Firmware, MachineConfig, MemoryModules, Nic, NicModel, Processors, Wire};
pub use snapshot::{Snapshot, sparse_copy};

use crate::console::Console;
use crate::qmp::{Event, Qmp};
use crate::seat::{BootDevice, BootEntry, BootOverride, Boxed, MachinePower, PowerAction, PowerState};
use crate::switch::{Tasks, locked};
use arguments::Start;
use process::{Children, Process};
use wishes::Wishes;

/// How long QEMU gets to end by itself after `quit` before it is killed.
const GRACE: Duration = Duration::from_secs(3);
/// A machine that did not report to have booted gives its place to the next after this long.
const BOOT_AT_MOST: Duration = Duration::from_secs(45);

/// Lets only so many machines boot at once: more would starve each other into time-outs. Clones share it.
#[derive(Clone)]
pub struct Governor(Arc<Semaphore>);

impl Governor {
    /// Two more than there are cores: firmware spends part of its time waiting.
    pub fn for_this_machine() -> Self {
        Self::new(std::thread::available_parallelism().map_or(2, usize::from) + 2)
    }

    /// Lets `machines` boot at once.
    pub fn new(machines: usize) -> Self {
        Self(Arc::new(Semaphore::new(machines)))
    }
}

/// A machine. Clones share it; when the last one goes its processes are killed.
#[derive(Clone)]
pub struct Machine {
    inner: Arc<Inner>,
}

struct Inner {
    config: MachineConfig,
    console: Console,
    governor: Governor,
    /// Held during a whole change of power, so that two never overlap.
    change: tokio::sync::Mutex<()>,
    process: tokio::sync::Mutex<Option<Process>>,
    state: watch::Sender<PowerState>,
    wishes: Mutex<Wishes>,
    place: Mutex<Option<OwnedSemaphorePermit>>,
    tasks: Tasks,
}

impl Machine {
    /// Prepares a machine, powered off: creates its disks (sparse) and firmware variables where they are missing.
    ///
    /// # Errors
    /// When a file cannot be created, or OVMF is not installed.
    pub fn new(config: MachineConfig, governor: Governor) -> io::Result<Self> {
        let console = Console::new(&config.path("log"))?;
        for disk in &config.disks {
            if !disk.image.exists() {
                std::fs::File::create(&disk.image)?.set_len(disk.size)?;
            }
        }
        let vars = config.path("vars");
        if config.firmware.is_uefi() && !vars.exists() {
            std::fs::copy(arguments::OVMF_VARS, &vars).map_err(|error| {
                let what = format!("cannot copy {} (Debian package ovmf): {error}", arguments::OVMF_VARS);
                io::Error::new(error.kind(), what)
            })?;
        }
        let wishes = Wishes {
            order: arguments::usual_order(&config),
            ..Wishes::default()
        };
        let inner = Inner {
            config,
            console,
            governor,
            change: tokio::sync::Mutex::default(),
            process: tokio::sync::Mutex::default(),
            state: watch::Sender::new(PowerState::Off),
            wishes: Mutex::new(wishes),
            place: Mutex::default(),
            tasks: Tasks::default(),
        };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What it is made of.
    pub fn config(&self) -> &MachineConfig {
        &self.inner.config
    }

    /// Has its UEFI firmware trust this certificate (DER) for HTTPS boot from the next start on, as if a person had
    /// enrolled it in the setup.
    ///
    /// # Errors
    /// When the run directory cannot be written.
    pub fn trust(&self, certificate: &[u8]) -> std::io::Result<()> {
        trust::write(&self.inner.config, certificate)
    }

    /// Its serial console.
    pub fn console(&self) -> &Console {
        &self.inner.console
    }

    /// Process number while on.
    pub async fn pid(&self) -> Option<u32> {
        self.inner.process.lock().await.as_ref().and_then(|process| process.pid)
    }

    /// The control socket while on, for what [`MachinePower`] has no word for.
    pub async fn qmp(&self) -> Option<Arc<Qmp>> {
        self.inner
            .process
            .lock()
            .await
            .as_ref()
            .map(|process| Arc::clone(&process.qmp))
    }

    /// Says that the machine finished booting: its place in the governor goes to the next.
    pub fn booted(&self) {
        locked(&self.inner.place).take();
    }

    /// Takes a NIC's carrier away or gives it back, now and for later starts.
    ///
    /// # Errors
    /// When QEMU refuses.
    pub async fn set_link(&self, nic: usize, up: bool) -> io::Result<()> {
        {
            let mut wishes = locked(&self.inner.wishes);
            wishes.unplugged.retain(|at| *at != nic);
            if !up {
                wishes.unplugged.push(nic);
            }
        }
        match self.qmp().await {
            Some(qmp) => qmp.set_link(&format!("nic{nic}"), up).await,
            None => Ok(()),
        }
    }

    /// Pulls the power cord: QEMU is killed where it stands, so that a write may have reached its disk in part and what
    /// the disk had not taken is lost. [`PowerAction::ForceOff`] lets writes that were begun end.
    ///
    /// # Errors
    /// None today; the kill is waited for.
    pub async fn cut_power(&self) -> io::Result<()> {
        let _change = self.inner.change.lock().await;
        let Some(mut process) = self.inner.process.lock().await.take() else {
            return Ok(());
        };
        if let Some(kill) = process.kill.take() {
            // The monitor may see the end at this very moment.
            let _ = kill.send(());
        }
        self.wait(PowerState::Off).await;
        Ok(())
    }

    /// Bytes the guest wrote to a disk since the machine was switched on: a story cuts the power when enough of an image
    /// is written, and not after a time.
    ///
    /// # Errors
    /// When the machine is off or has no such disk.
    pub async fn written(&self, disk: usize) -> io::Result<u64> {
        let qmp = self.qmp().await.ok_or_else(|| io::Error::other("the machine is off"))?;
        let answer = qmp.execute("query-blockstats", json!({})).await?;
        let name = format!("drive{disk}");
        let drives = answer.as_array().into_iter().flatten();
        drives
            .filter(|drive| drive.get("device").and_then(serde_json::Value::as_str) == Some(&name))
            .find_map(|drive| drive.pointer("/stats/wr_bytes")?.as_u64())
            .ok_or_else(|| io::Error::other(format!("{} has no disk {disk}", self.inner.config.name)))
    }

    /// What its clock shows that runs while it is off.
    ///
    /// # Errors
    /// When the machine is off, or QEMU does not tell.
    pub async fn clock(&self) -> io::Result<Timestamp> {
        let qmp = self.qmp().await.ok_or_else(|| io::Error::other("the machine is off"))?;
        let asked = json!({ "path": "/machine", "property": "rtc-time" });
        let told = qmp.execute("qom-get", asked).await?;
        // `struct tm` (C, 7.27.1): years since 1900, months since January.
        let part = |name: &str| told.get(name).and_then(serde_json::Value::as_u64).unwrap_or_default();
        let text = format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}Z",
            part("tm_year") + 1900,
            part("tm_mon") + 1,
            part("tm_mday"),
            part("tm_hour"),
            part("tm_min"),
            part("tm_sec")
        );
        text.parse()
            .map_err(|_| io::Error::other(format!("QEMU tells no time: {told}")))
    }

    /// Waits until the machine is in a state.
    pub async fn wait(&self, wanted: PowerState) {
        let mut state = self.inner.state.subscribe();
        // The sender is in `self.inner`, so this only ends with the state.
        let _ = state.wait_for(|state| *state == wanted).await;
    }

    /// Starts the process, from a saved state if one is given.
    async fn start(&self, incoming: Option<&std::path::Path>) -> io::Result<()> {
        let _change = self.inner.change.lock().await;
        let mut slot = self.inner.process.lock().await;
        if slot.is_some() {
            return Ok(());
        }
        let (boot, order, media, unplugged) = {
            let mut wishes = locked(&self.inner.wishes);
            wishes.url_told = incoming.is_none() && wishes.url.is_some();
            if let Some(url) = wishes.url.as_ref().filter(|_| incoming.is_none()) {
                nvram::boot_next(&self.inner.config.path("vars"), url)?;
            }
            (
                wishes.boot,
                wishes.order.clone(),
                wishes.media.clone(),
                wishes.unplugged.clone(),
            )
        };
        let start = Start {
            boot,
            order: &order,
            media: media.as_deref(),
            incoming,
        };
        let (mut process, children) = process::launch(&self.inner.config, &start, &self.inner.console).await?;
        for nic in unplugged {
            process.qmp.set_link(&format!("nic{nic}"), false).await?;
        }
        let (kill, killed) = oneshot::channel();
        process.kill = Some(kill);
        let qmp = Arc::clone(&process.qmp);
        *slot = Some(process);
        self.inner.state.send_replace(PowerState::On);
        self.inner
            .tasks
            .spawn(monitor(Arc::downgrade(&self.inner), Arc::clone(&qmp), children, killed));
        if incoming.is_none() {
            self.inner
                .tasks
                .spawn(first_instruction(Arc::downgrade(&self.inner), qmp));
        }
        Ok(())
    }

    /// A URL is there that the firmware does not know yet, and the machine is on.
    fn waits_with_a_url(&self) -> bool {
        locked(&self.inner.wishes).url.is_some() && self.state() == PowerState::On
    }

    /// Ends the process and waits until it is gone.
    async fn end(&self) -> io::Result<()> {
        let _change = self.inner.change.lock().await;
        let Some(mut process) = self.inner.process.lock().await.take() else {
            return Ok(());
        };
        let _ = tokio::time::timeout(GRACE, process.qmp.quit()).await;
        if tokio::time::timeout(GRACE, self.wait(PowerState::Off)).await.is_err() {
            if let Some(kill) = process.kill.take() {
                // The monitor may see the end at this very moment.
                let _ = kill.send(());
            }
            self.wait(PowerState::Off).await;
        }
        Ok(())
    }
}

impl MachinePower for Machine {
    fn state(&self) -> PowerState {
        *self.inner.state.borrow()
    }

    fn watch(&self) -> watch::Receiver<PowerState> {
        self.inner.state.subscribe()
    }

    fn act(&self, action: PowerAction) -> Boxed<'_, io::Result<()>> {
        Box::pin(async move {
            match action {
                PowerAction::On => self.start(None).await,
                PowerAction::ForceOff => self.end().await,
                // The firmware of a running machine does not look into the file of its variables.
                PowerAction::Reset if self.waits_with_a_url() => {
                    self.end().await?;
                    self.start(None).await
                }
                PowerAction::PowerCycle => {
                    self.end().await?;
                    self.start(None).await
                }
                PowerAction::Reset | PowerAction::GracefulShutdown => {
                    let qmp = self.qmp().await.ok_or_else(|| io::Error::other("the machine is off"))?;
                    match action {
                        PowerAction::Reset => qmp.system_reset().await,
                        _ => qmp.system_powerdown().await,
                    }
                }
            }
        })
    }

    fn boot_override(&self) -> Option<BootOverride> {
        locked(&self.inner.wishes).boot
    }

    fn set_boot_override(&self, wanted: Option<BootOverride>) -> Boxed<'_, io::Result<()>> {
        Box::pin(async move {
            locked(&self.inner.wishes).boot = wanted;
            match self.qmp().await {
                Some(qmp) => self.inner.order(&qmp).await,
                None => Ok(()),
            }
        })
    }

    fn set_boot_url(&self, url: Option<String>) -> io::Result<()> {
        if url.is_some() && !self.inner.config.firmware.is_uefi() {
            let name = &self.inner.config.name;
            return Err(io::Error::other(format!("the firmware of {name} knows no HTTP boot")));
        }
        let mut wishes = locked(&self.inner.wishes);
        wishes.url = url;
        wishes.url_told = false;
        Ok(())
    }

    fn boot_order(&self) -> Vec<BootEntry> {
        locked(&self.inner.wishes).order.clone()
    }

    fn set_boot_order(&self, order: Vec<BootEntry>) -> Boxed<'_, io::Result<()>> {
        Box::pin(async move {
            locked(&self.inner.wishes).order = order;
            match self.qmp().await {
                Some(qmp) => self.inner.order(&qmp).await,
                None => Ok(()),
            }
        })
    }

    fn boots(&self) -> u64 {
        locked(&self.inner.wishes).starts
    }

    fn set_media(&self, image: Option<PathBuf>) -> Boxed<'_, io::Result<()>> {
        Box::pin(async move {
            if !self.inner.config.cdrom {
                return Err(io::Error::other(format!(
                    "{} has no virtual CD drive",
                    self.inner.config.name
                )));
            }
            if let Some(qmp) = self.qmp().await {
                qmp.set_media("cd0", image.as_deref()).await?;
            }
            locked(&self.inner.wishes).media = image;
            Ok(())
        })
    }

    fn media(&self) -> Option<PathBuf> {
        locked(&self.inner.wishes).media.clone()
    }
}

impl Inner {
    /// Gives the running QEMU the boot order of the next reset. Firmware reads a list QEMU makes at each reset, so
    /// what runs now is not disturbed.
    async fn order(&self, qmp: &Qmp) -> io::Result<()> {
        let (boot, order) = {
            let wishes = locked(&self.wishes);
            (wishes.boot, wishes.order.clone())
        };
        let name = |entry: &BootEntry| match entry.device {
            BootDevice::Network => format!("nic{}", entry.at),
            BootDevice::Disk => format!("disk{}", entry.at),
            BootDevice::Cdrom => "cd0".to_owned(),
        };
        let devices = arguments::usual_order(&self.config);
        // Two rounds: an index must never be taken twice, not even for a moment.
        for entry in &devices {
            qmp.qom_set(&format!("/machine/peripheral/{}", name(entry)), "bootindex", json!(-1))
                .await?;
        }
        for entry in &devices {
            let index = arguments::boot_index(&order, boot, *entry);
            qmp.qom_set(
                &format!("/machine/peripheral/{}", name(entry)),
                "bootindex",
                json!(index),
            )
            .await?;
        }
        Ok(())
    }

    /// The machine started with the present order: a one-time override has now been used.
    async fn started(&self, qmp: &Qmp) {
        let used = locked(&self.wishes).started();
        if used && let Err(error) = self.order(qmp).await {
            tracing::warn!(machine = self.config.name, %error, "the usual boot order could not be restored");
        }
    }
}

/// Waits for a place among the booting machines, then lets the processor run.
async fn first_instruction(machine: std::sync::Weak<Inner>, qmp: Arc<Qmp>) {
    let Some(inner) = machine.upgrade() else { return };
    let governor = inner.governor.clone();
    let mut state = inner.state.subscribe();
    drop(inner);
    let permit = tokio::select! {
        permit = governor.0.acquire_owned() => permit.ok(),
        _ = state.wait_for(|state| *state == PowerState::Off) => return,
    };
    let Some(inner) = machine.upgrade() else { return };
    *locked(&inner.place) = permit;
    inner.started(&qmp).await;
    if let Err(error) = qmp.cont().await {
        tracing::debug!(machine = inner.config.name, %error, "went away before its first instruction");
    }
    drop(inner);
    let _ = tokio::time::timeout(BOOT_AT_MOST, state.wait_for(|state| *state == PowerState::Off)).await;
    if let Some(inner) = machine.upgrade() {
        locked(&inner.place).take();
    }
}

/// Follows one life of the machine to its end.
async fn monitor(
    machine: std::sync::Weak<Inner>,
    qmp: Arc<Qmp>,
    mut children: Children,
    mut killed: oneshot::Receiver<()>,
) {
    let mut events = qmp.events();
    let mut listening = true;
    let mut killable = true;
    loop {
        tokio::select! {
            _ = children.qemu.wait() => break,
            _ = &mut killed, if killable => {
                killable = false;
                // Already gone is as good.
                let _ = children.qemu.start_kill();
            }
            event = events.recv(), if listening => match event {
                // Sent after QEMU made the new boot list, so the next one can be prepared now.
                Ok(Event { name, .. }) if name == "RESET" => {
                    if let Some(inner) = machine.upgrade() {
                        inner.started(&qmp).await;
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => listening = false,
            },
        }
    }
    if let Some(tpm) = &mut children.tpm {
        let _ = tpm.kill().await;
    }
    if let Some(inner) = machine.upgrade() {
        locked(&inner.place).take();
        inner.console.set_input(None);
        // Absent when this end was asked for; present when the guest switched itself off or QEMU crashed.
        let mut slot = inner.process.lock().await;
        if slot.as_ref().is_some_and(|process| Arc::ptr_eq(&process.qmp, &qmp)) {
            slot.take();
        }
        inner.state.send_replace(PowerState::Off);
    }
}
