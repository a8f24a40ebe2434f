//! The kernel's command line, put together from what is signed or embedded, what the firmware's boot entry adds, and
//! what the machine needs.

use alloc::string::String;

/// Longest command line an x86 kernel takes, in bytes; it cuts off the rest without a word.
pub const LONGEST: usize = 2047;

/// The parts of a command line.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// From the manifest or the section `.cmdline`.
    pub base: &'a str,
    /// The load options of the firmware's boot entry, if they are text and may be used (not under Secure Boot: whoever
    /// can write a boot entry could switch the kernel's protections off).
    pub load_options: Option<&'a str>,
    /// True when `base` came signed over the network: then arguments of ours are not taken from the boot entry.
    pub signed: bool,
    /// True under QEMU's emulator. Its timers stall when the host is busy and the kernel's early check then panics:
    /// "IO-APIC + timer doesn't work".
    pub emulated: bool,
}

/// The whole line.
///
/// # Errors
/// Its length in bytes when the kernel would cut it off.
pub fn assemble(parts: &Parts<'_>) -> Result<String, usize> {
    let mut line = String::from(parts.base.trim());
    let mut add = |word: &str| {
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    };
    for word in words(parts.load_options.unwrap_or_default()) {
        let ours = word.starts_with("rackbar.") || word.starts_with("BOOTIF=");
        if !(ours && parts.signed || word.starts_with(KEY)) {
            add(word);
        }
    }
    if parts.emulated && !parts.base.split_ascii_whitespace().any(|word| word == "no_timer_check") {
        add("no_timer_check");
    }
    if line.len() > LONGEST {
        Err(line.len())
    } else {
        Ok(line)
    }
}

/// The argument of a boot entry that names the key of the site's appliance, for a loader whose key slot is empty.
const KEY: &str = "rackbar.key=";

/// The Ed25519 public key that the load options name with `rackbar.key=<64 hex>`.
pub fn key(load_options: &str) -> Option<[u8; 32]> {
    let text = words(load_options).find_map(|word| word.strip_prefix(KEY))?;
    text.parse::<rackbar_model::Digest>().ok().map(|hex| hex.0)
}

/// The words of load options that are meant for a kernel.
///
/// Firmware fills this field with all kinds of things: nothing, a GUID (EDK2's own entries), or, from its shell, the
/// program's name in front. Anything but printable ASCII is left alone.
fn words(load_options: &str) -> impl Iterator<Item = &str> {
    let text = load_options.trim_end_matches('\0');
    let printable = text.bytes().all(|b| (b' '..=b'~').contains(&b));
    let text = if printable { text } else { "" };
    text.split_ascii_whitespace()
        .enumerate()
        .filter(|(n, word)| *n > 0 || !word.to_ascii_lowercase().ends_with(".efi"))
        .map(|(_, word)| word)
}

/// Load options as text: UCS-2 with or without the zero at its end. `None` when they are something else.
pub fn load_options_text(bytes: &[u8]) -> Option<String> {
    if !bytes.len().is_multiple_of(2) {
        return None;
    }
    let units = bytes.chunks_exact(2).map(|pair| match *pair {
        [low, high] => u16::from_le_bytes([low, high]),
        _ => 0,
    });
    let text: Result<String, _> = char::decode_utf16(units.take_while(|unit| *unit != 0)).collect();
    text.ok().filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(base: &str, load_options: Option<&str>, signed: bool, emulated: bool) -> String {
        assemble(&Parts {
            base,
            load_options,
            signed,
            emulated,
        })
        .unwrap()
    }

    #[test]
    fn the_boot_entry_adds_and_the_emulator_is_helped() {
        assert_eq!(line("a=1 ", None, false, false), "a=1");
        assert_eq!(
            line("a=1", Some("\\EFI\\BOOT\\BOOTX64.EFI console=ttyS0"), false, false),
            "a=1 console=ttyS0"
        );
        assert_eq!(line("a=1", Some("b"), false, true), "a=1 b no_timer_check");
        assert_eq!(line("no_timer_check", None, false, true), "no_timer_check");
        assert_eq!(line("", Some("b"), false, false), "b");
    }

    #[test]
    fn a_boot_entry_cannot_send_a_signed_boot_elsewhere() {
        let options = Some("rackbar.server=198.51.100.1:1 console=ttyS0");
        assert_eq!(
            line("rackbar.role=node", options, true, false),
            "rackbar.role=node console=ttyS0"
        );
        assert_eq!(
            line("x", options, false, false),
            "x rackbar.server=198.51.100.1:1 console=ttyS0"
        );
    }

    #[test]
    fn binary_load_options_are_left_alone() {
        assert_eq!(line("a=1", Some("N\u{ac}\u{8119}b=2"), false, false), "a=1");
        assert_eq!(load_options_text(b"a\0b\0\0\0"), Some("ab".into()));
        assert_eq!(load_options_text(b"a\0b"), None);
        assert_eq!(load_options_text(b"\0\xd8a\0"), None);
        assert_eq!(load_options_text(b""), None);
    }

    #[test]
    fn a_line_the_kernel_would_cut_is_refused() {
        let base = "x".repeat(LONGEST);
        assert_eq!(line(&base, None, false, false), base);
        let parts = Parts {
            base: &base,
            load_options: None,
            signed: false,
            emulated: true,
        };
        assert_eq!(assemble(&parts), Err(LONGEST + 15));
    }

    #[test]
    fn a_key_is_named_by_the_boot_entry_and_does_not_reach_the_kernel() {
        let options = alloc::format!("loader.efi rackbar.key={}", "ab".repeat(32));
        assert_eq!(key(&options), Some([0xab; 32]));
        assert_eq!(line("a", Some(&options), false, false), "a");
        assert_eq!(key("rackbar.key=ab"), None);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_options_never_panic(bytes: alloc::vec::Vec<u8>) {
            if let Some(text) = load_options_text(&bytes) {
                let _ = key(&text);
                let _ = line("a", Some(&text), false, true);
            }
        }
    }
}
