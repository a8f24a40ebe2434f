//! A machine that is only a switch and a few words: for tests of the BMC and of what talks to it, without QEMU.

use std::io;
use std::path::PathBuf;
use std::sync::Mutex;

use tokio::sync::watch;

use crate::seat::{BootDevice, BootEntry, BootOverride, Boxed, MachinePower, PowerAction, PowerState};
use crate::switch::locked;

/// The machine.
pub struct Pretend {
    power: watch::Sender<PowerState>,
    rest: Mutex<Rest>,
}

struct Rest {
    boot: Option<BootOverride>,
    url: Option<String>,
    media: Option<PathBuf>,
    acts: Vec<PowerAction>,
    booted_from: Vec<Option<BootOverride>>,
    order: Vec<BootEntry>,
}

impl Pretend {
    /// A machine in this state.
    pub fn new(state: PowerState) -> Self {
        // One NIC, one disk, a CD drive.
        let order =
            [BootDevice::Network, BootDevice::Disk, BootDevice::Cdrom].map(|device| BootEntry { device, at: 0 });
        Self {
            power: watch::Sender::new(state),
            rest: Mutex::new(Rest {
                boot: None,
                url: None,
                media: None,
                acts: Vec::new(),
                booted_from: Vec::new(),
                order: order.to_vec(),
            }),
        }
    }

    /// What was done to its power, in order.
    pub fn acts(&self) -> Vec<PowerAction> {
        locked(&self.rest).acts.clone()
    }

    /// The override in force at each start, in order.
    pub fn starts(&self) -> Vec<Option<BootOverride>> {
        locked(&self.rest).booted_from.clone()
    }

    /// The URL that its firmware was given.
    pub fn boot_url(&self) -> Option<String> {
        locked(&self.rest).url.clone()
    }

    /// The guest resets the machine by itself, as a restart of its operating system does.
    pub fn guest_resets(&self) {
        self.start();
    }

    fn start(&self) {
        let mut rest = locked(&self.rest);
        let boot = rest.boot.take_if(|boot| boot.once).or(rest.boot);
        rest.booted_from.push(boot);
        drop(rest);
        self.power.send_replace(PowerState::On);
    }
}

impl MachinePower for Pretend {
    fn state(&self) -> PowerState {
        *self.power.borrow()
    }

    fn watch(&self) -> watch::Receiver<PowerState> {
        self.power.subscribe()
    }

    fn act(&self, action: PowerAction) -> Boxed<'_, io::Result<()>> {
        Box::pin(async move {
            locked(&self.rest).acts.push(action);
            let off = self.state() == PowerState::Off;
            match action {
                PowerAction::On if off => self.start(),
                PowerAction::Reset if off => return Err(io::Error::other("the machine is off")),
                PowerAction::Reset | PowerAction::PowerCycle => self.start(),
                PowerAction::ForceOff | PowerAction::GracefulShutdown => {
                    self.power.send_replace(PowerState::Off);
                }
                PowerAction::On => {}
            }
            Ok(())
        })
    }

    fn boot_override(&self) -> Option<BootOverride> {
        locked(&self.rest).boot
    }

    fn set_boot_override(&self, wanted: Option<BootOverride>) -> Boxed<'_, io::Result<()>> {
        locked(&self.rest).boot = wanted;
        Box::pin(async { Ok(()) })
    }

    fn set_boot_url(&self, url: Option<String>) -> io::Result<()> {
        locked(&self.rest).url = url;
        Ok(())
    }

    fn boot_order(&self) -> Vec<BootEntry> {
        locked(&self.rest).order.clone()
    }

    fn set_boot_order(&self, order: Vec<BootEntry>) -> Boxed<'_, io::Result<()>> {
        locked(&self.rest).order = order;
        Box::pin(async { Ok(()) })
    }

    fn boots(&self) -> u64 {
        locked(&self.rest).booted_from.len() as u64
    }

    fn set_media(&self, image: Option<PathBuf>) -> Boxed<'_, io::Result<()>> {
        locked(&self.rest).media = image;
        Box::pin(async { Ok(()) })
    }

    fn media(&self) -> Option<PathBuf> {
        locked(&self.rest).media.clone()
    }
}
