//! Where the boot server is: an IPv4 address and a port, from a URL or from DHCP.

use core::fmt;
use core::net::Ipv4Addr;

use crate::packet::BootPacket;

/// The boot server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Server {
    /// Its address.
    pub address: Ipv4Addr,
    /// Its TCP port.
    pub port: u16,
}

/// Why a URL does not lead to a boot server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadUrl {
    /// It begins with neither `http://` nor `https://`.
    NotHttp,
    /// Its host is not an IPv4 address; the loader asks no DNS.
    NotAnAddress,
    /// Its port is not a number from 1 to 65535.
    BadPort,
}

impl fmt::Display for BadUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHttp => "the boot URL must begin with http:// or https://",
            Self::NotAnAddress => "the boot URL must name the appliance by its IPv4 address, not by a host name",
            Self::BadPort => "the boot URL has a bad port",
        })
    }
}

impl core::error::Error for BadUrl {}

impl Server {
    /// The server of a URL such as `http://192.0.2.1:8080/boot/v1/loader.efi?mac=...`.
    ///
    /// Of an `https` URL (a firmware fetched this loader over TLS) the host counts and port 80: the loader speaks no TLS,
    /// and what it fetches from there is verified by digest and signature.
    ///
    /// # Errors
    /// When it cannot be reached with nothing but IPv4 and HTTP.
    pub fn from_url(url: &str) -> Result<Self, BadUrl> {
        let begins = |scheme: &&str| {
            let begin = url.get(..scheme.len());
            begin.is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
        };
        let scheme = ["http://", "https://"]
            .into_iter()
            .find(begins)
            .ok_or(BadUrl::NotHttp)?;
        let rest = url.get(scheme.len()..).unwrap_or_default();
        let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (
                host,
                port.parse().ok().filter(|port| *port != 0).ok_or(BadUrl::BadPort)?,
            ),
            None => (authority, 80),
        };
        let address: Ipv4Addr = host.parse().map_err(|_| BadUrl::NotAnAddress)?;
        if unusable(address) {
            return Err(BadUrl::NotAnAddress);
        }
        let port = if scheme == "https://" { 80 } else { port };
        Ok(Self { address, port })
    }

    /// The server that DHCP packets lead to. The first packet that says anything wins: the boot server's reply before
    /// the proxy's offer before the address server's acknowledgement.
    pub fn from_packets<'a>(packets: impl IntoIterator<Item = &'a BootPacket>) -> Option<Self> {
        packets.into_iter().find_map(|packet| {
            let url = packet.boot_file.as_deref().and_then(|file| Self::from_url(file).ok());
            url.or_else(|| {
                let address = [packet.next_server, packet.server_id.unwrap_or(Ipv4Addr::UNSPECIFIED)]
                    .into_iter()
                    .find(|address| !unusable(*address))?;
                Some(Self { address, port: 80 })
            })
        })
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            80 => write!(f, "http://{}", self.address),
            port => write!(f, "http://{}:{port}", self.address),
        }
    }
}

fn unusable(address: Ipv4Addr) -> bool {
    address.is_unspecified() || address.is_broadcast() || address.is_multicast() || address.is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_url_is_read() {
        let server = Server::from_url("http://192.0.2.1/boot/v1/loader.efi?mac=x").unwrap();
        assert_eq!(server.to_string(), "http://192.0.2.1");
        assert_eq!(
            Server::from_url("HTTP://192.0.2.1:8080").unwrap().to_string(),
            "http://192.0.2.1:8080"
        );
        for url in ["https://192.0.2.1/boot/v1/loader.efi", "https://192.0.2.1:8443/"] {
            assert_eq!(Server::from_url(url).unwrap().to_string(), "http://192.0.2.1");
        }
    }

    #[test]
    fn urls_we_cannot_follow_are_refused_with_the_reason() {
        assert_eq!(Server::from_url("ftp://192.0.2.1/"), Err(BadUrl::NotHttp));
        assert_eq!(Server::from_url("loader.efi"), Err(BadUrl::NotHttp));
        assert_eq!(Server::from_url("http://rackbar.example/"), Err(BadUrl::NotAnAddress));
        assert_eq!(Server::from_url("http://[2001:db8::1]/"), Err(BadUrl::BadPort));
        assert_eq!(Server::from_url("http://0.0.0.0/"), Err(BadUrl::NotAnAddress));
        assert_eq!(Server::from_url("http://192.0.2.1:0/"), Err(BadUrl::BadPort));
    }

    #[test]
    fn packets_are_asked_in_order() {
        let packet = |next: [u8; 4], id: Option<[u8; 4]>, file: Option<&str>| BootPacket {
            next_server: next.into(),
            server_id: id.map(Into::into),
            boot_file: file.map(Into::into),
            ..BootPacket::default()
        };
        let from = |packets: &[BootPacket]| Server::from_packets(packets).map(|s| s.to_string());
        let (zero, one, two) = ([0; 4], [192, 0, 2, 1], [192, 0, 2, 2]);
        assert_eq!(
            from(&[packet(zero, Some(one), None), packet(two, None, None)]).unwrap(),
            "http://192.0.2.1"
        );
        assert_eq!(
            from(&[packet(zero, None, None), packet(two, Some(one), None)]).unwrap(),
            "http://192.0.2.2"
        );
        let url = packet(two, Some(two), Some("http://192.0.2.1:81/x"));
        assert_eq!(from(&[url]).unwrap(), "http://192.0.2.1:81");
        assert_eq!(from(&[packet(zero, None, Some("x"))]), None);
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_never_panics(text: alloc::string::String) {
            let _ = Server::from_url(&text);
        }
    }
}
