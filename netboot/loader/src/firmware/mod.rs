//! Everything that talks to the firmware.
//!
//! The order of a boot: a payload embedded in our own image is started, offline. Otherwise the network is tried, several
//! times; what fails is said on the screen, and the firmware gets the machine back to go on with its boot order.

mod clock;
mod find;
mod initrd;
mod machine;
mod medium;
mod net;
mod netboot;
mod nic;
mod origin;
mod random;
mod start;

use alloc::string::{String, ToString};
use core::panic::PanicInfo;
use core::time::Duration;

use rackbar_boot::KEY_SLOT_LENGTH;
use rackbar_loader::payload::Payload;
use uefi::prelude::*;
use uefi::{boot, println, runtime};

/// Whose manifests we believe; written into the file by the appliance. A section of its own so that it can be found,
/// volatile reads so that the compiler does not take the zeroes it sees for what will be there.
#[used]
#[unsafe(link_section = ".rbkey")]
static KEY_SLOT: [u8; KEY_SLOT_LENGTH] =
    *b"RACKBAR-KEY-SLOT\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

/// How long a reason for not booting stays on the screen.
const READING_TIME: Duration = Duration::from_secs(10);

/// Firmware resets a machine whose boot program is silent for five minutes. Ours may wait longer for a network.
const WATCHDOG: Duration = Duration::from_secs(20 * 60);

#[entry]
fn main() -> Status {
    println!("Rackbar loader {}", env!("CARGO_PKG_VERSION"));
    // Not all firmware has a watchdog; without one nothing is lost.
    let _ = boot::set_watchdog_timer(WATCHDOG.as_secs() as usize, 0x1_0000, None);
    let reason = match boot_machine() {
        Ok(End::LocalDisk) => return go_on_to_disk(),
        Ok(End::KernelCameBack) => String::from("the kernel came back"),
        Err(reason) => reason,
    };
    println!("Rackbar: not booted: {reason}");
    println!("Rackbar: going back to the firmware in {} s", READING_TIME.as_secs());
    boot::stall(READING_TIME);
    Status::LOAD_ERROR
}

/// How a boot without a failure can end for us.
enum End {
    /// The kernel was started and returned, which it should not.
    KernelCameBack,
    /// The appliance says that this machine is installed.
    LocalDisk,
}

/// Gives the machine back so that its firmware takes the next boot option.
fn go_on_to_disk() -> Status {
    println!("Rackbar: this machine is installed: handing back to the firmware, which goes on to its disk");
    // What comes next sets its own.
    let _ = boot::set_watchdog_timer(0, 0x1_0000, None);
    // UEFI 2.10 section 3.1.1: after a success the boot manager stops at its menu; after an error it takes the next
    // option of the boot order. "Not found" is what firmware says itself of a device without anything to boot.
    Status::NOT_FOUND
}

/// Boots, or says why not. Does not return when a kernel was started and runs.
fn boot_machine() -> Result<End, String> {
    let machine = machine::Machine::look().map_err(|error| error.to_string())?;
    match Payload::find(machine.image).map_err(|error| error.to_string())? {
        Some(payload) => start::embedded(&machine, &payload).map(|()| End::KernelCameBack),
        None => netboot::boot(&machine, &key_slot()),
    }
}

/// The slot as it is in this image.
fn key_slot() -> [u8; KEY_SLOT_LENGTH] {
    // SAFETY: a static of ours, aligned and initialised.
    unsafe { core::ptr::read_volatile(&raw const KEY_SLOT) }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("\r\nRackbar: the boot loader failed, which is a mistake in it; please report this line:");
    println!("{info}");
    boot::stall(READING_TIME);
    // SAFETY: no destructor of ours is needed for the firmware to go on: what we allocated stays allocated, and an open
    // network interface is reset by whoever opens it next.
    let _ = unsafe { boot::exit(boot::image_handle(), Status::ABORTED, 0, core::ptr::null_mut()) };
    // Firmware that cannot end a program can still start over.
    runtime::reset(runtime::ResetType::COLD, Status::ABORTED, None)
}
