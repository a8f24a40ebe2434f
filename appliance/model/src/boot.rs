//! Words of netbooting: what the client is, which way it boots, how far it got.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{MacAddr, Timestamp};

/// Client system architecture of DHCP option 93 (RFC 4578 section 2.1, IANA "Processor Architecture Types").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum ClientArch {
    /// 0: x86 PC with BIOS.
    X86Bios,
    /// 6: x86 UEFI, 32 bit.
    X86Uefi,
    /// 7 and, as firmware uses it in the field, 9: x86-64 UEFI.
    X64Uefi,
    /// 10: ARM 32-bit UEFI.
    Arm32Uefi,
    /// 11: ARM 64-bit UEFI.
    Arm64Uefi,
    /// 15: x86 UEFI, 32 bit, boot from HTTP.
    X86UefiHttp,
    /// 16: x86-64 UEFI, boot from HTTP.
    X64UefiHttp,
    /// 19: ARM 64-bit UEFI, boot from HTTP.
    Arm64UefiHttp,
    /// Any other code of the registry.
    Other(u16),
}

impl ClientArch {
    /// Reads the 16-bit code of option 93.
    pub const fn from_code(code: u16) -> Self {
        match code {
            0 => Self::X86Bios,
            6 => Self::X86Uefi,
            // RFC 4578 gave 9 to x86-64 and 7 to EFI byte code; firmware sends 7 for x86-64, the registry followed it.
            7 | 9 => Self::X64Uefi,
            10 => Self::Arm32Uefi,
            11 => Self::Arm64Uefi,
            15 => Self::X86UefiHttp,
            16 => Self::X64UefiHttp,
            19 => Self::Arm64UefiHttp,
            other => Self::Other(other),
        }
    }

    /// The code in option 93; of the two for x86-64 UEFI the registry's.
    pub const fn code(self) -> u16 {
        match self {
            Self::X86Bios => 0,
            Self::X86Uefi => 6,
            Self::X64Uefi => 7,
            Self::Arm32Uefi => 10,
            Self::Arm64Uefi => 11,
            Self::X86UefiHttp => 15,
            Self::X64UefiHttp => 16,
            Self::Arm64UefiHttp => 19,
            Self::Other(code) => code,
        }
    }

    /// True for a code of IANA's registry "Processor Architecture Types" (RFC 5970 section 3.3), which ends at 41 now.
    pub const fn is_registered(self) -> bool {
        self.code() <= 41
    }

    /// True when the firmware fetches its boot file over HTTP and expects a URL in option 67.
    pub const fn is_http(self) -> bool {
        // EBC, ARM, BIOS, U-Boot (two), RISC-V (three) and LoongArch (two), each "boot from http" in the registry.
        let other = matches!(self.code(), 17 | 18 | 20 | 23 | 24 | 26 | 28 | 30 | 38 | 40);
        other || matches!(self, Self::X86UefiHttp | Self::X64UefiHttp | Self::Arm64UefiHttp)
    }
}

impl fmt::Display for ClientArch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::X86Bios => f.write_str("x86 BIOS"),
            Self::X86Uefi => f.write_str("x86 UEFI"),
            Self::X64Uefi => f.write_str("x86-64 UEFI"),
            Self::Arm32Uefi => f.write_str("ARM UEFI"),
            Self::Arm64Uefi => f.write_str("ARM64 UEFI"),
            Self::X86UefiHttp => f.write_str("x86 UEFI HTTP"),
            Self::X64UefiHttp => f.write_str("x86-64 UEFI HTTP"),
            Self::Arm64UefiHttp => f.write_str("ARM64 UEFI HTTP"),
            Self::Other(code) => write!(f, "architecture {code}"),
        }
    }
}

/// A way by which we lead a machine's firmware to our boot files.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BootWay {
    /// Boot information only, beside another server's address (PXE 2.1, section 2.2.3 "ProxyDHCP").
    Proxy,
    /// Address and boot information from us.
    FullDhcp,
    /// UEFI HTTP Boot: address and URL from us (UEFI 2.10 section 24.7).
    UefiHttp,
    /// The boot URL set through the BMC.
    RedfishUrl,
    /// Virtual media through the BMC.
    VirtualMedia,
    /// UEFI HTTP Boot over TLS (UEFI 2.10 section 24.7.4): the firmware must trust the site's certificate.
    UefiHttps,
}

impl fmt::Display for BootWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proxy => "ProxyDHCP",
            Self::FullDhcp => "full DHCP",
            Self::UefiHttp => "UEFI HTTP boot",
            Self::RedfishUrl => "boot URL set through the BMC",
            Self::VirtualMedia => "virtual media",
            Self::UefiHttps => "UEFI HTTPS boot",
        })
    }
}

/// What was learnt of a machine's boot firmware by watching what it did with our DHCP answers. An observation of the DHCP
/// service: it outlives a restart, and is dropped when nothing confirmed it for long or a person says so.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
pub struct FirmwareHabit {
    /// The boot interface.
    pub mac: MacAddr,
    /// Option 93 of the firmware that was watched.
    pub arch: Option<ClientArch>,
    /// The way it is led now.
    pub way: BootWay,
    /// True once it fetched a boot file by that way.
    pub proven: bool,
    /// Ways that came to nothing since one last worked.
    pub given_up: Vec<BootWay>,
    /// Why it is led so, in words; `None` when the usual way worked at once.
    pub reason: Option<String>,
    /// When this was last seen to hold.
    pub seen: Timestamp,
}

/// How far a boot program or the agent has come. Reported by our loader and by the agent; grows at the end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BootStage {
    /// The loader runs and has the network.
    LoaderStarted {
        /// The loader's version.
        version: String,
    },
    /// The manifest's signature is good.
    ManifestVerified,
    /// A file was fetched and its digest is as the manifest says.
    FileVerified {
        /// The file's name.
        name: String,
        /// Its size in bytes.
        bytes: u64,
        /// Milliseconds it took to fetch.
        millis: u64,
    },
    /// The kernel is about to be started.
    StartingKernel,
    /// The agent runs on the node.
    AgentStarted {
        /// Milliseconds since the kernel started.
        uptime_millis: u64,
    },
    /// This boot attempt failed; the text says what and what to do.
    Failed {
        /// What failed, in words for the operator.
        reason: String,
    },
    /// This machine is installed: it was given back to its firmware, which goes on to its disk. The loader reports it;
    /// iPXE cannot report, so for it the appliance records it with the script that says so.
    LocalDisk,
}

/// SHA-256 of a content (FIPS 180-4). Written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ParseDigestError;

impl fmt::Display for ParseDigestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a SHA-256 digest of 64 hexadecimal digits")
    }
}

impl core::error::Error for ParseDigestError {}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let text = text.as_bytes();
        if text.len() != 64 {
            return Err(ParseDigestError);
        }
        let nibble = |b: u8| (b as char).to_digit(16).ok_or(ParseDigestError);
        let mut out = [0u8; 32];
        for (byte, pair) in out.iter_mut().zip(text.chunks_exact(2)) {
            *byte = (nibble(pair[0])? << 4 | nibble(pair[1])?) as u8;
        }
        Ok(Self(out))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = alloc::borrow::Cow::<'de, str>::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            <[u8; 32]>::deserialize(deserializer).map(Self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn both_codes_seen_for_x64_count_as_x64() {
        assert_eq!(ClientArch::from_code(7), ClientArch::X64Uefi);
        assert_eq!(ClientArch::from_code(9), ClientArch::X64Uefi);
        assert_eq!(ClientArch::from_code(0x1234), ClientArch::Other(0x1234));
    }

    #[test]
    fn codes_are_the_registrys() {
        for code in (0..=41).filter(|code| *code != 9) {
            let arch = ClientArch::from_code(code);
            assert!(arch.code() == code && arch.is_registered(), "{arch}");
        }
        assert!(!ClientArch::from_code(42).is_registered());
        let http: Vec<u16> = (0..=41).filter(|code| ClientArch::from_code(*code).is_http()).collect();
        assert_eq!(http, [15, 16, 17, 18, 19, 20, 23, 24, 26, 28, 30, 38, 40]);
    }

    #[test]
    fn digest_text_round_trips() {
        let digest = Digest(core::array::from_fn(|i| i as u8 * 7));
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!("00".parse::<Digest>(), Err(ParseDigestError));
        assert_eq!("zz".repeat(32).parse::<Digest>(), Err(ParseDigestError));
    }
}
