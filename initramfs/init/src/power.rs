//! The power button: a press is an orderly switch-off. It is how a BMC asks for one (IPMI 2.0 section 28.3, soft
//! shutdown), and how a virtual machine's host does.
//!
//! The ACPI driver shows the button as an input device, and so are the power keys of some keyboards. Each is read by a
//! thread of its own, which turns a press into the signal that switches off.

use std::fs::File;
use std::io::Read;
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rackbar_hardware::Root;

use crate::report::say;

/// KEY_POWER of linux/input-event-codes.h.
const KEY_POWER: u16 = 116;

/// EV_KEY of linux/input-event-codes.h.
const EV_KEY: u16 = 1;

/// Bytes of `struct input_event` on 64-bit machines: a time of 16, type, code, value.
const EVENT: usize = 24;

/// Watches the buttons that are there.
pub(crate) fn watch_present() {
    for name in Root::default().names("sys/class/input") {
        watch(&name);
    }
}

/// Watches the input device with the kernel's name `name`, such as `event0`, when it has a power key.
pub(crate) fn watch(name: &str) {
    let keys = Root::default().text(format!("sys/class/input/{name}/device/capabilities/key"));
    if !name.starts_with("event") || !keys.is_some_and(|keys| has_key(&keys, KEY_POWER)) {
        return;
    }
    let path = format!("/dev/input/{name}");
    let started = File::open(&path).and_then(|device| {
        let thread = thread::Builder::new().name("power".to_owned()).stack_size(64 << 10);
        thread.spawn(move || read(device))
    });
    if let Err(error) = started {
        say!("the power button at {path} will not be heard: {error}");
    }
}

/// Reads events until the device is gone.
fn read(mut device: File) {
    let mut event = [0; EVENT];
    while device.read_exact(&mut event).is_ok() {
        if is_press(&event) {
            say!("the power button was pressed");
            if let Err(error) = kill(Pid::this(), Signal::SIGUSR2) {
                say!("the machine cannot be switched off: {error}");
            }
        }
    }
}

/// True when the power key goes down; its release and repetitions say nothing new.
fn is_press(event: &[u8; EVENT]) -> bool {
    let [.., t0, t1, c0, c1, v0, v1, v2, v3] = *event;
    u16::from_ne_bytes([t0, t1]) == EV_KEY
        && u16::from_ne_bytes([c0, c1]) == KEY_POWER
        && u32::from_ne_bytes([v0, v1, v2, v3]) == 1
}

/// Looks a key up in the kernel's bitmap: words of 64 bits in hex, the highest first.
fn has_key(bitmap: &str, key: u16) -> bool {
    let word = bitmap.split_whitespace().rev().nth(usize::from(key / 64));
    word.and_then(|word| u64::from_str_radix(word, 16).ok())
        .is_some_and(|word| word >> (key % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_power_button_has_a_power_key_and_a_mouse_has_none() {
        // As QEMU's button, keyboard (which has one too) and mouse show them.
        assert!(has_key("10000000000000 0", KEY_POWER));
        assert!(has_key(
            "402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe",
            KEY_POWER
        ));
        assert!(!has_key("1f0000 0 0 0 0", KEY_POWER));
        assert!(!has_key("", KEY_POWER));
    }

    #[test]
    fn only_the_key_going_down_is_a_press() {
        let event = |kind: u16, code: u16, value: u32| {
            let mut bytes = [0; EVENT];
            bytes[16..18].copy_from_slice(&kind.to_ne_bytes());
            bytes[18..20].copy_from_slice(&code.to_ne_bytes());
            bytes[20..].copy_from_slice(&value.to_ne_bytes());
            bytes
        };
        assert!(is_press(&event(EV_KEY, KEY_POWER, 1)));
        for other in [
            event(EV_KEY, KEY_POWER, 0),
            event(EV_KEY, 30, 1),
            event(0, 0, 0),
            event(EV_KEY, KEY_POWER, 2),
        ] {
            assert!(!is_press(&other));
        }
    }

    proptest! {
        #[test]
        fn any_bitmap_is_read(text in "[0-9a-f ]{0,60}|.{0,20}", key: u16) {
            let _ = has_key(&text, key);
        }
    }
}
