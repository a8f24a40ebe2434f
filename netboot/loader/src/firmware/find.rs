//! Where the firmware found us: the packets its PXE kept, or the URL in our device path. To be asked before an interface
//! is opened: taking that from the firmware's stack makes it forget.

use alloc::vec::Vec;

use rackbar_loader::device_path::NetworkPath;
use rackbar_loader::packet::BootPacket;
use rackbar_loader::server::Server;
use rackbar_model::MacAddr;
use uefi::proto::network::pxe::BaseCode;
use uefi::proto::network::snp::SimpleNetwork;
use uefi::{Handle, boot, println};

use super::machine::{Machine, get};
use super::net::Addresses;
use super::nic::mac_of;

/// A way to the boot server that the firmware has gone before.
pub(super) struct Hint {
    pub(super) mac: MacAddr,
    /// `None` when we have to ask for an address.
    pub(super) addresses: Option<Addresses>,
    pub(super) server: Server,
    /// Where this is from, for the screen.
    pub(super) source: &'static str,
}

/// All hints there are, best first.
pub(super) fn hints(machine: &Machine) -> Vec<Hint> {
    let mut hints = Vec::new();
    // Our own device first: after a failed attempt on another interface the firmware keeps those packets too.
    let others = boot::find_handles::<BaseCode>().unwrap_or_default();
    for handle in machine.device.into_iter().chain(others) {
        hints.extend(pxe(handle).filter(|hint: &Hint| hints.iter().all(|h: &Hint| h.mac != hint.mac)));
    }
    hints.extend(uri(machine));
    hints
}

/// What the PXE Base Code protocol keeps (UEFI 2.10 section 24.3).
fn pxe(handle: Handle) -> Option<Hint> {
    let base_code = get::<BaseCode>(handle).ok()?;
    let mode = base_code.mode();
    if !mode.dhcp_ack_received() || mode.using_ipv6() {
        return None;
    }
    let parse = |packet: &dyn AsRef<[u8; 1472]>| BootPacket::parse(packet.as_ref());
    let ack = parse(mode.dhcp_ack())?;
    let reply = mode.pxe_reply_received().then(|| parse(mode.pxe_reply())).flatten();
    let proxy = mode.proxy_offer_received().then(|| parse(mode.proxy_offer())).flatten();
    let server = Server::from_packets([reply.as_ref(), proxy.as_ref(), Some(&ack)].into_iter().flatten())?;
    let known = !ack.your_address.is_unspecified();
    Some(Hint {
        mac: ack.mac,
        addresses: known.then_some(Addresses {
            address: ack.your_address,
            prefix: ack.prefix.unwrap_or(24),
            router: ack.router,
        }),
        server,
        source: "the firmware's PXE",
    })
}

/// What UEFI HTTP boot leaves in the device path.
fn uri(machine: &Machine) -> Option<Hint> {
    let path = NetworkPath::parse(&machine.device_path()?);
    let (mac, uri) = (path.mac?, path.uri?);
    let server = match Server::from_url(&uri) {
        Ok(server) => server,
        Err(error) => {
            println!("Rackbar: {error}");
            return None;
        }
    };
    Some(Hint {
        mac,
        addresses: path.address.map(|(address, prefix, router)| Addresses {
            address,
            prefix,
            router,
        }),
        server,
        source: "the firmware's HTTP boot",
    })
}

/// All network interfaces: those of `first` in front, those without a link last. Booted from a disk, the firmware may not have started them yet:
/// that takes up to half a second and is done only then.
pub(super) fn interfaces(first: &[Hint]) -> Vec<Handle> {
    let mut handles = boot::find_handles::<SimpleNetwork>().unwrap_or_default();
    if handles.is_empty() {
        let all = boot::locate_handle_buffer(boot::SearchType::AllHandles);
        for handle in all.iter().flat_map(|all| all.iter()) {
            // Most handles are no controllers and refuse.
            let _ = boot::connect_controller(*handle, &[], None, true);
        }
        handles = boot::find_handles::<SimpleNetwork>().unwrap_or_default();
    }
    let mut seen: Vec<MacAddr> = Vec::new();
    let mut interfaces: Vec<((usize, bool), Handle)> = Vec::new();
    for handle in handles {
        let Ok(snp) = get::<SimpleNetwork>(handle) else {
            continue;
        };
        let mac = mac_of(&snp);
        // Some firmware shows an interface twice.
        if mac.is_unicast() && !seen.contains(&mac) {
            seen.push(mac);
            let rank = first.iter().position(|hint| hint.mac == mac).unwrap_or(first.len());
            // As the firmware's own stack saw it last; it may have never looked.
            let mode = snp.mode();
            let dark = bool::from(mode.media_present_supported) && !bool::from(mode.media_present);
            interfaces.push(((rank, dark), handle));
        }
    }
    interfaces.sort_by_key(|(rank, _)| *rank);
    interfaces.into_iter().map(|(_, handle)| handle).collect()
}
