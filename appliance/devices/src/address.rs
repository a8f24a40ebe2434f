//! Where a BMC is, who we are to it, and the certificate we know it by.

use core::fmt;
use core::str::FromStr;
use std::net::{IpAddr, SocketAddr};

use zeroize::Zeroizing;

/// A BMC's address with its two ports.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct BmcAddress {
    /// IP address.
    pub ip: IpAddr,
    /// TCP port of Redfish.
    pub https: u16,
    /// UDP port of IPMI.
    pub ipmi: u16,
}

impl BmcAddress {
    pub(crate) const fn redfish(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.https)
    }

    pub(crate) const fn rmcp(&self) -> SocketAddr {
        SocketAddr::new(self.ip, self.ipmi)
    }
}

impl From<IpAddr> for BmcAddress {
    /// With the standard ports, 443 and 623.
    fn from(ip: IpAddr) -> Self {
        Self {
            ip,
            https: 443,
            ipmi: rackbar_ipmi::PORT,
        }
    }
}

/// User and password. The password is wiped on drop and left out of `Debug`.
#[derive(Clone)]
pub struct Credentials {
    /// User name.
    pub user: String,
    password: Zeroizing<String>,
}

impl Credentials {
    /// User and password.
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            password: Zeroizing::new(password.into()),
        }
    }

    /// The password, for who writes down what works.
    pub fn password(&self) -> &str {
        &self.password
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({}, ..)", self.user)
    }
}

/// SHA-256 of a BMC's certificate (DER). BMCs sign their own, so the first one seen is the one to stay.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub [u8; 32]);

impl Fingerprint {
    pub(crate) fn of(der: &[u8]) -> Self {
        Self(rackbar_trust::sha256(der))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text was not 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("expected the SHA-256 of a certificate as 64 hexadecimal digits")]
pub struct ParseFingerprintError;

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut digits = text.chars().filter(|c| *c != ':').map(|c| c.to_digit(16));
        let mut out = [0u8; 32];
        for byte in &mut out {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(ParseFingerprintError);
            };
            *byte = (high << 4 | low) as u8;
        }
        if digits.next().is_some() {
            Err(ParseFingerprintError)
        } else {
            Ok(Self(out))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_reads_what_it_writes() {
        let print = Fingerprint::of(b"certificate");
        assert_eq!(print.to_string().parse(), Ok(print));
        assert!("ab".parse::<Fingerprint>().is_err());
    }

    #[test]
    fn a_password_is_not_shown() {
        assert_eq!(
            format!("{:?}", Credentials::new("root", "calvin")),
            "Credentials(root, ..)"
        );
    }
}
