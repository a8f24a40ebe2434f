//! What the kernel arguments say about the appliance (see the contract "Kernel arguments").

use std::fmt;
use std::net::SocketAddr;

use rackbar_hardware::cmdline::Arguments;
use rackbar_model::MacAddr;

/// Everything needed to enrol. Holds the boot token, so there is no `Debug`.
#[derive(Clone)]
pub struct Enrolment {
    /// Where the appliance listens for agents.
    pub server: SocketAddr,
    /// SHA-256 of its certificate authority's certificate, DER.
    pub pin: [u8; 32],
    /// The one-time token this boot was given.
    pub token: [u8; 32],
    /// The interface the firmware booted from.
    pub boot_mac: Option<MacAddr>,
}

/// An argument that is missing or makes no sense. Never holds the value: one of them is secret.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ArgumentError {
    /// `rackbar.server`.
    Server,
    /// `rackbar.pin`.
    Pin,
    /// `rackbar.token`.
    Token,
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Server => "the kernel argument rackbar.server (address:port) is missing or wrong",
            Self::Pin => "the kernel argument rackbar.pin (64 hexadecimal digits) is missing or wrong",
            Self::Token => "the kernel argument rackbar.token (64 hexadecimal digits) is missing or wrong",
        })
    }
}

impl std::error::Error for ArgumentError {}

impl Enrolment {
    /// Reads the arguments.
    pub fn read(arguments: &Arguments) -> Result<Self, ArgumentError> {
        let digest = |key| arguments.value(key).and_then(hex32);
        Ok(Self {
            server: arguments
                .value("rackbar.server")
                .and_then(|s| s.parse().ok())
                .ok_or(ArgumentError::Server)?,
            pin: digest("rackbar.pin").ok_or(ArgumentError::Pin)?,
            token: digest("rackbar.token").ok_or(ArgumentError::Token)?,
            boot_mac: arguments.value("BOOTIF").and_then(boot_interface),
        })
    }
}

fn hex32(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(bytes)
}

/// `01-52-54-00-12-34-56`: the hardware type (1 is Ethernet) in front, as PXELINUX began to write it.
fn boot_interface(text: &str) -> Option<MacAddr> {
    let bare = if text.len() == 20 {
        text.strip_prefix("01-")?
    } else {
        text
    };
    bare.parse().ok().filter(MacAddr::is_unicast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_rendered_command_line_is_read() {
        let text = format!(
            "rackbar.role=node rackbar.server=10.0.0.1:4917 rackbar.pin={} rackbar.token={} BOOTIF=01-52-54-00-12-34-56",
            "ab".repeat(32),
            "0F".repeat(32)
        );
        let read = |text: &str| Enrolment::read(&Arguments::parse(text));
        let enrolment = read(&text).ok().unwrap();
        assert_eq!(enrolment.server.to_string(), "10.0.0.1:4917");
        assert_eq!((enrolment.pin, enrolment.token), ([0xab; 32], [0x0f; 32]));
        assert_eq!(enrolment.boot_mac.unwrap().to_string(), "52:54:00:12:34:56");
        assert_eq!(read(&text.replace(":4917", "")).err(), Some(ArgumentError::Server));
        assert_eq!(read(&text.replace("pin=ab", "pin=+b")).err(), Some(ArgumentError::Pin));
        assert_eq!(
            read(&text.replace("token=0F", "token=")).err(),
            Some(ArgumentError::Token)
        );
        assert_eq!(read(&text.replace("=01-52", "=20-52")).ok().unwrap().boot_mac, None);
    }

    proptest! {
        #[test]
        fn any_value_is_read(text: String) {
            let _ = (hex32(&text), boot_interface(&text));
        }
    }
}
