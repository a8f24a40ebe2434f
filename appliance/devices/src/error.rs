//! What can go wrong with a BMC, always with its address, the interface and the request.

use core::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rackbar_model::MacAddr;

use crate::Fingerprint;

/// How a BMC is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Interface {
    /// Redfish over HTTPS.
    Redfish,
    /// IPMI 2.0 over LAN.
    Ipmi,
}

impl fmt::Display for Interface {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redfish => "Redfish",
            Self::Ipmi => "IPMI",
        })
    }
}

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[error("BMC {address}, {interface}, {request}: {cause}")]
pub struct Error {
    /// Which BMC.
    pub address: IpAddr,
    /// Through which interface.
    pub interface: Interface,
    /// Which request: method and path, or command.
    pub request: String,
    /// What went wrong.
    pub cause: Cause,
}

/// What went wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Cause {
    /// Nobody answers, or not in the protocol.
    #[error("not reachable: {0}")]
    Unreachable(String),
    /// A change was sent and no answer came: it may have been carried out.
    #[error("no answer came, and it may have been carried out: {0}")]
    Unanswered(String),
    /// User or password are refused.
    #[error("login refused: {0}; check the BMC's user and password")]
    Unauthorized(String),
    /// Not tried: wrong passwords enough were tried of this account lately.
    #[error(
        "not tried: {user} had two wrong passwords there within {} min, and many BMCs lock an account at the third; the next is tried in {}",
        window.as_secs() / 60,
        span(*wait)
    )]
    HeldBack {
        /// User name.
        user: String,
        /// In which two may be tried.
        window: Duration,
        /// Time until the next may.
        wait: Duration,
    },
    /// The login is right, and this user may not do that.
    #[error("forbidden to this user: {0}")]
    Forbidden(String),
    /// The login is right, and the BMC does nothing for it until its password is another one (DSP0266 section 13.2.6).
    #[error(
        "the login is right, and the BMC wants another password for this account before anything else; \
         bmc.replace_initial_passwords = true in rackbar.toml gives it one, or change it there and write the new one into \
         rackbar.toml"
    )]
    PasswordChangeRequired {
        /// The account to change, where the BMC names it.
        account: Option<String>,
    },
    /// The BMC shows another certificate than before: replaced, reset, or somebody in between.
    #[error("its certificate changed from {pinned} to {seen}; if that was you, accept the new one")]
    CertificateChanged {
        /// The one pinned.
        pinned: Fingerprint,
        /// The one shown.
        seen: Fingerprint,
    },
    /// Another BMC answers than the one that was meant: addresses on DHCP move. Nothing was asked of it.
    #[error(
        "another BMC answers there: its LAN interface has the MAC address {}, not {meant}; nothing was asked of it",
        listed(told)
    )]
    AnotherBmc {
        /// MAC address of the one that was meant.
        meant: MacAddr,
        /// MAC addresses of the one that answers.
        told: Vec<MacAddr>,
    },
    /// The BMC understood and said no.
    #[error("refused ({code}): {message}")]
    Refused {
        /// HTTP status or IPMI completion code.
        code: u16,
        /// The BMC's own words where it has some.
        message: String,
    },
    /// Not sent, because the BMC's own description of itself says that it would refuse.
    #[error("not sent: {0}")]
    NotAllowed(String),
    /// This BMC cannot do it.
    #[error("not supported: {0}")]
    Unsupported(String),
    /// The BMC sends us on to another server. The login would go along, so it is not followed there.
    #[error("sent on to {0:?}, which is not on this BMC; the login is not carried there")]
    Elsewhere(String),
    /// The answer makes no sense.
    #[error("answer not understood: {0}")]
    Malformed(String),
    /// It was taken but did not come true in time.
    #[error("{what} did not happen within {} s", after.as_secs())]
    NotSeen {
        /// What was waited for.
        what: String,
        /// How long.
        after: Duration,
    },
    /// Too many failures lately: left in peace for a while.
    #[error("left in peace for another {} ms after {failures} failures", wait.as_millis())]
    BackingOff {
        /// Time to wait.
        wait: Duration,
        /// Failures in a row.
        failures: u32,
    },
}

fn span(time: Duration) -> String {
    match time.as_secs() {
        seconds @ 0..60 => format!("{} s", seconds.max(1)),
        seconds => format!("{} min", seconds.div_ceil(60)),
    }
}

fn listed(macs: &[MacAddr]) -> String {
    let macs: Vec<String> = macs.iter().map(MacAddr::to_string).collect();
    macs.join(" or ")
}

impl Cause {
    /// True when another interface may do better.
    pub const fn another_way_may_help(&self) -> bool {
        matches!(
            self,
            Self::Unreachable(_) | Self::Unsupported(_) | Self::Elsewhere(_) | Self::Malformed(_)
        )
    }
}
