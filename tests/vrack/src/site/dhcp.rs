//! A site's own DHCP server (RFC 2131), as small as one can be: addresses from a range by MAC, and optionally boot
//! answers. It stands for the dnsmasq or the office router that was there first.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::{Arc, Mutex};

use rackbar_model::MacAddr;
use smoltcp::wire::DhcpPacket;
use tokio::sync::watch;

use crate::host::Host;
use crate::switch::{Tasks, locked};

/// What to tell a client that wants to boot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BootRule {
    /// Client architecture of option 93 (0 BIOS, 7 and 9 x64 UEFI, 16 x64 UEFI HTTP); `None`: any.
    pub architecture: Option<u16>,
    /// Only clients that are iPXE, or only those that are not; `None`: both.
    pub ipxe: Option<bool>,
    /// File name, or URL for iPXE and HTTP Boot.
    pub file: String,
}

/// What the server hands out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DhcpSettings {
    /// First address of the range.
    pub first: Ipv4Addr,
    /// How many addresses the range has.
    pub count: u32,
    /// Prefix length.
    pub prefix: u8,
    /// Default router.
    pub router: Option<Ipv4Addr>,
    /// Lease time in seconds.
    pub lease_seconds: u32,
    /// The first rule that fits is used; without one, clients get an address only.
    pub boot: Vec<BootRule>,
    /// TFTP server; `None`: the DHCP server itself.
    pub next_server: Option<Ipv4Addr>,
}

/// An address handed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Lease {
    /// To whom.
    pub mac: MacAddr,
    /// Which.
    pub address: Ipv4Addr,
    /// The client accepted it (an ACK was sent).
    pub acknowledged: bool,
}

/// The server at work; dropping it stops it.
pub struct DhcpServer {
    leases: watch::Receiver<Vec<Lease>>,
    silent: Arc<Mutex<bool>>,
    _tasks: Tasks,
}

impl DhcpServer {
    /// Serves on a host with a static address.
    ///
    /// # Errors
    /// When UDP port 67 of the host is taken or the host has no address yet.
    pub fn start(host: &Host, settings: DhcpSettings) -> io::Result<Self> {
        let us = host
            .bound()
            .ok_or_else(|| io::Error::other("a DHCP server needs an address of its own"))?
            .address;
        let socket = host.udp(67)?;
        let (report, leases) = watch::channel(Vec::new());
        let silent = Arc::new(Mutex::new(false));
        let tasks = Tasks::default();
        let mute = Arc::clone(&silent);
        tasks.spawn(async move {
            let mut server = Server {
                settings,
                us,
                known: HashMap::new(),
            };
            let mut buffer = [0; 2048];
            while let Ok((count, _)) = socket.recv_from(&mut buffer).await {
                if *locked(&mute) {
                    continue;
                }
                if let Some(answer) = server.answer(&buffer[..count]) {
                    // Broadcast always reaches a client, whether or not it can take unicast yet.
                    if socket
                        .send_to(&answer, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68))
                        .await
                        .is_err()
                    {
                        return;
                    }
                    report.send_replace(server.known.values().copied().collect());
                }
            }
        });
        Ok(Self {
            leases,
            silent,
            _tasks: tasks,
        })
    }

    /// What was handed out so far.
    pub fn leases(&self) -> Vec<Lease> {
        self.leases.borrow().clone()
    }

    /// Waits until a client has accepted an address.
    pub async fn acknowledged(&self, mac: MacAddr) -> Option<Lease> {
        let mut leases = self.leases.clone();
        let found = |leases: &Vec<Lease>| {
            leases
                .iter()
                .find(|lease| lease.mac == mac && lease.acknowledged)
                .copied()
        };
        let leases = leases.wait_for(|leases| found(leases).is_some()).await.ok()?;
        found(&leases)
    }

    /// Stops answering, or answers again: a server that died.
    pub fn set_silent(&self, silent: bool) {
        *locked(&self.silent) = silent;
    }
}

struct Server {
    settings: DhcpSettings,
    us: Ipv4Addr,
    known: HashMap<MacAddr, Lease>,
}

/// What matters in a request.
struct Request<'a> {
    kind: u8,
    mac: MacAddr,
    server: Option<Ipv4Addr>,
    asked: Option<Ipv4Addr>,
    architecture: Option<u16>,
    vendor: &'a [u8],
    ipxe: bool,
}

fn parse(packet: &[u8]) -> Option<Request<'_>> {
    let view = DhcpPacket::new_checked(packet).ok()?;
    let mut request = Request {
        kind: 0,
        mac: MacAddr(view.client_hardware_address().0),
        server: None,
        asked: Some(view.client_ip()).filter(|address| !address.is_unspecified()),
        architecture: None,
        vendor: &[],
        ipxe: false,
    };
    let address = |data: &[u8]| <[u8; 4]>::try_from(data).ok().map(Ipv4Addr::from);
    // Offsets, not the view's iterator: the vendor class must outlive the view.
    let mut rest = packet.get(240..)?;
    while let [kind, tail @ ..] = rest {
        match (kind, tail) {
            (0, _) => rest = tail,
            (255, _) => break,
            (kind, [length, tail @ ..]) => {
                let data = tail.get(..usize::from(*length))?;
                match kind {
                    50 => request.asked = address(data),
                    53 => request.kind = data.first().copied().unwrap_or(0),
                    54 => request.server = address(data),
                    60 => request.vendor = data,
                    77 => request.ipxe |= data == b"iPXE",
                    93 => request.architecture = data.first_chunk().map(|code| u16::from_be_bytes(*code)),
                    175 => request.ipxe = true,
                    _ => {}
                }
                rest = tail.get(usize::from(*length)..)?;
            }
            _ => break,
        }
    }
    (request.kind != 0).then_some(request)
}

impl Server {
    fn answer(&mut self, packet: &[u8]) -> Option<Vec<u8>> {
        let request = parse(packet)?;
        let kind = match request.kind {
            // DISCOVER -> OFFER
            1 => 2,
            // REQUEST -> ACK, unless it was another server's offer the client took.
            3 if request.server.is_none_or(|server| server == self.us) => 5,
            _ => return None,
        };
        let lease = self.lease(request.mac)?;
        if kind == 5 && request.asked.is_some_and(|asked| asked != lease.address) {
            return Some(self.reply(packet, 6, Ipv4Addr::UNSPECIFIED, &request));
        }
        if kind == 5
            && let Some(lease) = self.known.get_mut(&request.mac)
        {
            lease.acknowledged = true;
        }
        Some(self.reply(packet, kind, lease.address, &request))
    }

    fn lease(&mut self, mac: MacAddr) -> Option<Lease> {
        if let Some(lease) = self.known.get(&mac) {
            return Some(*lease);
        }
        let next = u32::try_from(self.known.len())
            .ok()
            .filter(|next| *next < self.settings.count)?;
        let address = Ipv4Addr::from(u32::from(self.settings.first).checked_add(next)?);
        let lease = Lease {
            mac,
            address,
            acknowledged: false,
        };
        self.known.insert(mac, lease);
        Some(lease)
    }

    fn reply(&self, packet: &[u8], kind: u8, address: Ipv4Addr, request: &Request<'_>) -> Vec<u8> {
        let mut out = vec![0; 240];
        // op, htype, hlen, hops; xid; secs 0; flags as asked.
        out[..8].copy_from_slice(&[2, 1, 6, 0, packet[4], packet[5], packet[6], packet[7]]);
        out[10..12].copy_from_slice(&packet[10..12]);
        out[16..20].copy_from_slice(&address.octets());
        out[28..34].copy_from_slice(&request.mac.0);
        out[236..240].copy_from_slice(&[99, 130, 83, 99]);
        let mut add = |kind: u8, data: &[u8]| {
            out.extend_from_slice(&[kind, u8::try_from(data.len()).unwrap_or(u8::MAX)]);
            out.extend_from_slice(&data[..data.len().min(255)]);
        };
        add(53, &[kind]);
        add(54, &self.us.octets());
        let boot = if kind == 6 { None } else { self.rule(request) };
        if kind != 6 {
            let mask = u32::MAX
                .checked_shl(32 - u32::from(self.settings.prefix.min(32)))
                .unwrap_or(0);
            add(51, &self.settings.lease_seconds.to_be_bytes());
            add(1, &mask.to_be_bytes());
            if let Some(router) = self.settings.router {
                add(3, &router.octets());
            }
        }
        if let Some(rule) = boot {
            if request.ipxe {
                // Never option 60 to iPXE: it would start PXE's own discovery. 175.176: do not wait for ProxyDHCP.
                add(175, &[176, 1, 1]);
            } else if request.vendor.starts_with(b"HTTPClient") {
                add(60, b"HTTPClient");
            } else {
                add(60, b"PXEClient");
                // PXE_DISCOVERY_CONTROL: take the file name, no discovery. Without it EDK2 stops with PXE-E16.
                add(43, &[6, 1, 8, 255]);
            }
            add(67, rule.file.as_bytes());
        }
        out.push(255);
        if let Some(rule) = boot {
            let next = self.settings.next_server.unwrap_or(self.us);
            out[20..24].copy_from_slice(&next.octets());
            if rule.file.len() < 128 {
                out[108..108 + rule.file.len()].copy_from_slice(rule.file.as_bytes());
            }
        }
        // RFC 1542, 2.1: old clients drop anything shorter.
        out.resize(out.len().max(300), 0);
        out
    }

    fn rule(&self, request: &Request<'_>) -> Option<&BootRule> {
        let boots =
            request.ipxe || request.vendor.starts_with(b"PXEClient") || request.vendor.starts_with(b"HTTPClient");
        self.settings.boot.iter().filter(|_| boots).find(|rule| {
            rule.architecture
                .is_none_or(|wanted| request.architecture == Some(wanted))
                && rule.ipxe.is_none_or(|wanted| request.ipxe == wanted)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn server() -> Server {
        let boot = vec![BootRule {
            architecture: Some(7),
            ipxe: None,
            file: "loader.efi".into(),
        }];
        let settings = DhcpSettings {
            first: Ipv4Addr::new(10, 0, 0, 100),
            count: 2,
            prefix: 24,
            router: None,
            lease_seconds: 60,
            boot,
            next_server: None,
        };
        Server {
            settings,
            us: Ipv4Addr::new(10, 0, 0, 1),
            known: HashMap::new(),
        }
    }

    fn request(last: u8, options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; 240];
        packet[..8].copy_from_slice(&[1, 1, 6, 0, 1, 2, 3, 4]);
        packet[28..34].copy_from_slice(&[2, 0, 0, 0, 0, last]);
        packet[236..240].copy_from_slice(&[99, 130, 83, 99]);
        [&packet, options, &[255]].concat()
    }

    fn holds(answer: &[u8], option: &[u8]) -> bool {
        answer[240..].windows(option.len()).any(|part| part == option)
    }

    #[test]
    fn offers_acknowledges_and_runs_out() {
        let mut server = server();
        let offer = server.answer(&request(1, &[53, 1, 1])).unwrap();
        assert!(holds(&offer, &[53, 1, 2]) && offer[16..20] == [10, 0, 0, 100] && offer[4..8] == [1, 2, 3, 4]);
        let ack = server.answer(&request(1, &[53, 1, 3, 50, 4, 10, 0, 0, 100])).unwrap();
        assert!(holds(&ack, &[53, 1, 5]) && !holds(&ack, b"loader.efi"));
        let nak = server.answer(&request(1, &[53, 1, 3, 50, 4, 10, 0, 0, 200])).unwrap();
        assert!(holds(&nak, &[53, 1, 6]));
        // Another server's offer was taken.
        assert_eq!(server.answer(&request(1, &[53, 1, 3, 54, 4, 10, 0, 0, 2])), None);
        assert!(server.answer(&request(2, &[53, 1, 1])).is_some());
        assert_eq!(
            server.answer(&request(3, &[53, 1, 1])),
            None,
            "two addresses, three clients"
        );
    }

    #[test]
    fn tells_a_uefi_client_what_to_boot() {
        let options = [&[53, 1, 1, 93, 2, 0, 7, 60, 9][..], b"PXEClient"].concat();
        let offer = server().answer(&request(1, &options)).unwrap();
        assert!(holds(&offer, b"loader.efi") && holds(&offer, &[43, 4, 6, 1, 8, 255]));
    }

    proptest! {
        #[test]
        fn no_packet_makes_it_panic(head in prop::collection::vec(any::<u8>(), 0..300), options: Vec<u8>) {
            let mut server = server();
            let _ = server.answer(&head);
            if let Some(answer) = server.answer(&request(1, &options)) {
                prop_assert!(answer.len() >= 300);
            }
        }
    }
}
