//! Events in words: what the console, the page and the command line say of them.

use core::fmt;

use crate::{BootStage, EventKind, PowerState};

/// ` from 192.0.2.1`, or nothing.
struct Maybe<T>(&'static str, Option<T>);

impl<T: fmt::Display> fmt::Display for Maybe<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.1 {
            Some(value) => write!(f, "{}{value}", self.0),
            None => Ok(()),
        }
    }
}

/// Bytes as a person reads them: `980 B`, `174 kB`, `24.3 MB` (powers of ten, as links and disks are sold).
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n @ 0..=999 => write!(f, "{n} B"),
            n @ 1_000..=999_999 => write!(f, "{} kB", n / 1_000),
            n => write!(f, "{}.{} MB", n / 1_000_000, n / 100_000 % 10),
        }
    }
}

/// Milliseconds as a person reads them: `12 ms`, `3.4 s`, `60 min`.
struct Millis(u64);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n @ 0..=999 => write!(f, "{n} ms"),
            n @ 1_000..=599_999 => write!(f, "{}.{} s", n / 1_000, n / 100 % 10),
            n => write!(f, "{} min", n / 60_000),
        }
    }
}

impl fmt::Display for PowerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::On => "on",
            Self::Off => "off",
        })
    }
}

impl fmt::Display for BootStage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LoaderStarted { version } => write!(f, "boot loader {version} runs and has the network"),
            Self::ManifestVerified => f.write_str("manifest fetched, its signature is good"),
            Self::FileVerified { name, bytes, millis } => {
                write!(
                    f,
                    "{name} fetched and verified: {} in {}",
                    Bytes(*bytes),
                    Millis(*millis)
                )
            }
            Self::StartingKernel => f.write_str("starting the kernel"),
            Self::LocalDisk => f.write_str("installed: sent back to its firmware, which goes on to its disk"),
            Self::AgentStarted { uptime_millis } => {
                write!(f, "agent runs, {} after the kernel started", Millis(*uptime_millis))
            }
            Self::Failed { reason } => write!(f, "boot failed: {reason}"),
        }
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DhcpDiscover { .. }
            | Self::DhcpOffer { .. }
            | Self::DhcpRequest { .. }
            | Self::DhcpAck { .. }
            | Self::DhcpNak { .. }
            | Self::DhcpDecline { .. }
            | Self::DhcpRelease { .. }
            | Self::AddressConflict { .. }
            | Self::ForeignDhcpServer { .. }
            | Self::WayChanged { .. }
            | Self::ClientIgnored { .. } => dhcp(self, f),
            Self::TftpRequest {
                file,
                client,
                block_size,
                window_size,
            } => {
                write!(
                    f,
                    "TFTP: {client} asks for {file} (blocks of {block_size}, window {window_size})"
                )
            }
            Self::TftpDone {
                file,
                bytes,
                millis,
                resent,
                ..
            } => {
                write!(f, "TFTP: {file} sent, {} in {}", Bytes(*bytes), Millis(*millis))?;
                if *resent > 0 {
                    write!(f, ", {resent} blocks sent again")
                } else {
                    Ok(())
                }
            }
            Self::TftpFailed { file, reason, .. } => write!(f, "TFTP: {file} failed: {reason}"),
            Self::HttpSent {
                what,
                status,
                bytes,
                millis,
                ..
            } => {
                write!(
                    f,
                    "HTTP: {what} sent, status {status}, {} in {}",
                    Bytes(*bytes),
                    Millis(*millis)
                )
            }
            Self::Boot(stage) => write!(f, "{stage}"),
            Self::AgentUp { address, again } => {
                write!(
                    f,
                    "agent {} from {address}",
                    if *again {
                        "is back"
                    } else {
                        "connected and proved itself"
                    }
                )
            }
            Self::AgentLost { reason } => write!(f, "agent connection lost: {reason}"),
            Self::AgentRefused { address, reason } => write!(f, "agent at {address} refused: {reason}"),
            Self::Facts { changed } if changed.is_empty() => f.write_str("inventory received"),
            Self::Facts { changed } => {
                f.write_str("inventory changed: ")?;
                list(changed, f)
            }
            _ => management(self, f),
        }
    }
}

fn list(items: &[alloc::string::String], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    items
        .iter()
        .enumerate()
        .try_for_each(|(i, item)| write!(f, "{}{item}", if i > 0 { ", " } else { "" }))
}

fn dhcp(kind: &EventKind, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match kind {
        EventKind::DhcpDiscover {
            network,
            arch,
            vendor_class,
            user_class,
            relay,
            circuit_id,
            remote_id,
        } => write!(
            f,
            "DHCP: discover on {network}{}{}{}{}{}{}",
            Maybe(", ", arch.as_ref()),
            Maybe(", class ", vendor_class.as_ref()),
            Maybe(", user class ", user_class.as_ref()),
            Maybe(", through relay ", relay.as_ref()),
            Maybe(" port ", circuit_id.as_ref()),
            Maybe(" remote ID ", remote_id.as_ref()),
        ),
        EventKind::DhcpOffer {
            address,
            way,
            boot_file,
        } => write!(
            f,
            "DHCP: offered {}{}{}",
            match address {
                Some(_) => "",
                None => "boot information only",
            },
            Maybe("", address.as_ref()),
            Boot(way.as_ref(), boot_file.as_deref()),
        ),
        EventKind::DhcpRequest { address, server } => {
            write!(
                f,
                "DHCP: request{}{}",
                Maybe(" for ", address.as_ref()),
                Maybe(", server ", server.as_ref())
            )
        }
        EventKind::DhcpAck {
            address,
            lease_seconds,
            boot_file,
        } => write!(
            f,
            "DHCP: acknowledged{}{}{}",
            Maybe(" ", address.as_ref()),
            Maybe(" for ", lease_seconds.map(|seconds| Millis(u64::from(seconds) * 1_000))),
            Maybe(", boot file ", boot_file.as_ref()),
        ),
        EventKind::DhcpNak { reason } => write!(f, "DHCP: refused: {reason}"),
        EventKind::DhcpDecline { address } => write!(f, "DHCP: the client found {address} in use; abandoned"),
        EventKind::DhcpRelease { address } => write!(f, "DHCP: {address} released"),
        EventKind::AddressConflict { address, owner } => {
            write!(
                f,
                "{address} is used by somebody else{}; abandoned",
                Maybe(", ", owner.as_ref())
            )
        }
        EventKind::ForeignDhcpServer { network, server } => {
            write!(f, "another DHCP server, {server}, answers on {network}")
        }
        EventKind::WayChanged { from, to, reason } => write!(f, "{reason}; switching from {from} to {to}"),
        EventKind::ClientIgnored { reason } => write!(f, "ignored: {reason}"),
        _ => Ok(()),
    }
}

/// ` by full DHCP, boot file loader.efi`.
struct Boot<'a>(Option<&'a crate::BootWay>, Option<&'a str>);

impl fmt::Display for Boot<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", Maybe(" by ", self.0), Maybe(", boot file ", self.1))
    }
}

fn management(kind: &EventKind, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match kind {
        EventKind::NodeEnrolled { name, by } => write!(f, "enrolled as {name}, first seen by {by}"),
        EventKind::NodesMerged { gone, witness } => {
            write!(
                f,
                "is the same machine as {gone}, by its {} {}; merged",
                witness.kind, witness.value
            )
        }
        EventKind::IdentityCollision { other, witness } => {
            write!(
                f,
                "shows the same {} {} as {other}; kept apart",
                witness.kind, witness.value
            )
        }
        EventKind::StateChanged { from, to, reason } => write!(f, "{from} -> {to}: {reason}"),
        EventKind::BmcFound { address, speaks } => {
            write!(f, "BMC found at {address}, speaks ")?;
            list(speaks, f)
        }
        EventKind::BmcFailed { address, reason } => write!(f, "BMC {address}: {reason}"),
        EventKind::PowerChanged { from, to } => write!(f, "power {from} -> {to}"),
        EventKind::PowerRequested { action, by } => write!(f, "power {action} asked by {by}"),
        EventKind::Service { name, state, .. } => write!(f, "{name}: {state}"),
        EventKind::Config { source, outcome, .. } => write!(f, "configuration {source}: {outcome}"),
        EventKind::Note { text, .. } => f.write_str(text),
        EventKind::Changed { by, what, outcome, .. } => write!(f, "{by}: {what}: {outcome}"),
        _ => installing(kind, f),
    }
}

fn installing(kind: &EventKind, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match kind {
        EventKind::SiteSet { digest, by } => write!(f, "site {digest} is in force, set by {by}"),
        EventKind::RoleBound { role: Some(role), by } => write!(f, "has role {role}, by {by}"),
        EventKind::RoleBound { role: None, by } => write!(f, "has no role any more, by {by}"),
        EventKind::RunChanged { run, state, reason, .. } => write!(f, "run {run} {state}: {reason}"),
        EventKind::ActionStarted {
            action,
            attempt,
            reason,
            ..
        } => {
            if *attempt > 1 {
                write!(f, "{action}: begun, attempt {attempt}: {reason}")
            } else {
                write!(f, "{action}: begun: {reason}")
            }
        }
        EventKind::ActionDone {
            action,
            summary,
            millis,
            ..
        } => write!(f, "{action}: {summary}, in {}", Millis(*millis)),
        EventKind::ActionFailed {
            action,
            reason,
            advice,
            again,
            ..
        } => {
            write!(f, "{action}: failed: {reason}")?;
            if !advice.is_empty() {
                write!(f, "; {advice}")?;
            }
            match again {
                Some(at) => write!(f, "; tried again at {at}"),
                None => Ok(()),
            }
        }
        EventKind::ActionSkipped { action, reason, .. } => write!(f, "{action}: not begun: {reason}"),
        EventKind::DriftSeen { what } => write!(f, "differs from what was proved: {what}"),
        EventKind::DriftGone { what } => write!(f, "as wanted again: {what}"),
        EventKind::AskedLate { seconds } => write!(
            f,
            "by its own count it had been asking for {seconds} s before anything of it arrived: its switch port was \
             blocked, or its link came up late"
        ),
        EventKind::PortSays(says) => write!(f, "{says}"),
        _ => Ok(()),
    }
}

impl fmt::Display for crate::WitnessKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TpmEndorsementKey => "TPM endorsement key",
            Self::BmcMac => "BMC MAC address",
            Self::NicMac => "NIC MAC address",
            Self::SystemSerial => "system serial number",
            Self::BoardSerial => "board serial number",
            Self::SwitchPort => "switch port",
            Self::SystemUuid => "SMBIOS UUID",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BootWay, ClientArch};
    use alloc::string::ToString;

    #[test]
    fn a_discover_says_what_the_client_is() {
        let kind = EventKind::DhcpDiscover {
            network: "rack".into(),
            arch: Some(ClientArch::X64Uefi),
            vendor_class: None,
            user_class: Some("iPXE".into()),
            relay: None,
            circuit_id: None,
            remote_id: None,
        };
        assert_eq!(kind.to_string(), "DHCP: discover on rack, x86-64 UEFI, user class iPXE");
        let relayed = EventKind::DhcpDiscover {
            network: "far".into(),
            arch: None,
            vendor_class: None,
            user_class: None,
            relay: Some([10, 30, 0, 254].into()),
            circuit_id: Some("Ethernet7".into()),
            remote_id: Some("52:54:00:aa:bb:cc".into()),
        };
        assert_eq!(
            relayed.to_string(),
            "DHCP: discover on far, through relay 10.30.0.254 port Ethernet7 remote ID 52:54:00:aa:bb:cc"
        );
    }

    #[test]
    fn offers_differ_with_and_without_an_address() {
        let offer = |address, way| EventKind::DhcpOffer {
            address,
            way,
            boot_file: Some("loader.efi".into()),
        };
        let full = offer(Some([10, 0, 0, 7].into()), Some(BootWay::FullDhcp));
        assert_eq!(
            full.to_string(),
            "DHCP: offered 10.0.0.7 by full DHCP, boot file loader.efi"
        );
        let proxy = offer(None, Some(BootWay::Proxy));
        assert_eq!(
            proxy.to_string(),
            "DHCP: offered boot information only by ProxyDHCP, boot file loader.efi"
        );
    }

    #[test]
    fn a_failed_action_says_what_to_do_and_when_it_is_tried_again() {
        let failed = |again| EventKind::ActionFailed {
            run: 1,
            action: "storage-1/os.write".into(),
            reason: "the disk refused".into(),
            advice: "replace it".into(),
            again,
        };
        assert_eq!(
            failed(None).to_string(),
            "storage-1/os.write: failed: the disk refused; replace it"
        );
        assert_eq!(failed(None).severity(), crate::Severity::Error);
        let again = failed(Some(crate::Timestamp(0)));
        assert!(again.to_string().contains("; tried again at 1970-01-01"), "{again}");
        assert_eq!(again.severity(), crate::Severity::Warning);
    }

    #[test]
    fn sizes_and_times_are_for_people() {
        let stage = BootStage::FileVerified {
            name: "vmlinuz".into(),
            bytes: 8_215_360,
            millis: 1_250,
        };
        assert_eq!(stage.to_string(), "vmlinuz fetched and verified: 8.2 MB in 1.2 s");
    }
}
