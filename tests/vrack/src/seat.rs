//! Where a BMC sits: everything the simulated BMC of a node is given. The rack makes one [`BmcSeat`] per node and hands
//! it to the BMC's start function; Redfish, IPMI over LAN and KCS then act on the very machine through [`MachinePower`].

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::watch;

use crate::console::Console;
use crate::host::Host;

/// A future in a box, so that [`MachinePower`] can be used behind `dyn`.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whether a machine has power.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerState {
    /// No process: memory and CPU are free.
    Off,
    /// The process runs.
    On,
}

/// What can be asked of a machine's power button and reset line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PowerAction {
    /// Power on; nothing happens to a machine that is on.
    On,
    /// Cut the power; nothing happens to a machine that is off.
    ForceOff,
    /// Press the button (ACPI): the guest decides, and this returns at once.
    GracefulShutdown,
    /// Pull the reset line. Refused while off.
    Reset,
    /// Off, then on.
    PowerCycle,
}

/// A class of boot devices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BootDevice {
    /// The NICs, in their order.
    Network,
    /// The disks, in their order.
    Disk,
    /// The virtual CD.
    Cdrom,
}

/// A boot device that goes before the machine's own order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootOverride {
    /// What to try first.
    pub device: BootDevice,
    /// For the next start only: gone after the next power-on or reset.
    pub once: bool,
}

/// A device in the machine's own boot order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BootEntry {
    /// Its class.
    pub device: BootDevice,
    /// Its place among the machine's devices of that class.
    pub at: usize,
}

/// The wires between a BMC and its machine.
pub trait MachinePower: Send + Sync {
    /// Whether the machine is on.
    fn state(&self) -> PowerState;

    /// Follows the power state, also when the guest switches itself off.
    fn watch(&self) -> watch::Receiver<PowerState>;

    /// Does what a button or line does. Repeating an action is harmless.
    fn act(&self, action: PowerAction) -> Boxed<'_, io::Result<()>>;

    /// The boot override in force; a one-time one disappears when it was used.
    fn boot_override(&self) -> Option<BootOverride>;

    /// Sets or clears the boot override; it counts from the next power-on or reset.
    fn set_boot_override(&self, wanted: Option<BootOverride>) -> Boxed<'_, io::Result<()>>;

    /// A URL for the firmware to fetch by HTTP boot at the next power-on or reset, while an override for the network is in
    /// force, and as long as that is. A reset by the BMC then is a power cycle: firmware keeps its variables in memory.
    ///
    /// # Errors
    /// When the firmware cannot: it is no UEFI.
    fn set_boot_url(&self, url: Option<String>) -> io::Result<()>;

    /// The machine's own boot order, first device first.
    fn boot_order(&self) -> Vec<BootEntry>;

    /// Changes the machine's own boot order for good; it counts from the next power-on or reset.
    fn set_boot_order(&self, order: Vec<BootEntry>) -> Boxed<'_, io::Result<()>>;

    /// How often the machine began to boot, by power-on or reset, the guest's own resets included.
    fn boots(&self) -> u64;

    /// Puts an image into the virtual CD drive, or takes it out.
    fn set_media(&self, image: Option<PathBuf>) -> Boxed<'_, io::Result<()>>;

    /// The image in the virtual CD drive.
    fn media(&self) -> Option<PathBuf>;
}

/// What the firmware says the machine is (SMBIOS types 0 to 3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// Type 1 manufacturer.
    pub manufacturer: String,
    /// Type 1 product name.
    pub product: String,
    /// Type 1 serial number.
    pub serial: String,
    /// Type 1 UUID, lower case with dashes. A rack file may give two machines the same one.
    pub uuid: String,
    /// Type 2 board serial number.
    pub board_serial: String,
    /// Type 3 asset tag.
    pub asset_tag: String,
    /// Type 0 firmware version.
    pub firmware_version: String,
}

/// Everything one BMC is given.
pub struct BmcSeat {
    /// Name of the node in the rack file.
    pub name: String,
    /// The BMC's own station on the management VLAN; its address may still be on its way by DHCP.
    pub host: Host,
    /// The machine it rules.
    pub power: Arc<dyn MachinePower>,
    /// The machine's serial console, for Serial over LAN. It outlives power cycles.
    pub console: Console,
    /// What the machine says it is.
    pub identity: Identity,
    /// Boot NIC addresses of the machine, in order.
    pub nics: Vec<rackbar_model::MacAddr>,
    /// Unix socket to listen on for the in-band KCS interface: QEMU's `ipmi-bmc-extern` dials it, and dials again.
    pub kcs_socket: PathBuf,
    /// File to keep the image of the virtual CD drive in.
    pub media: PathBuf,
    /// Administrator's name.
    pub username: String,
    /// Administrator's password.
    pub password: String,
    /// It has a Redfish service; without one it speaks IPMI alone.
    pub redfish: bool,
}

/// A running BMC, whatever it is made of: dropping it stops it.
pub type BmcHandle = Box<dyn Send + Sync>;

/// Starts a BMC on a seat.
pub type BmcStarter = Arc<dyn Fn(BmcSeat) -> Boxed<'static, io::Result<BmcHandle>> + Send + Sync>;
