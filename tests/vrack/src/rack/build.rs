//! One node out of its description.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use rackbar_model::MacAddr;

use super::{BMC_PASSWORD, BMC_USERNAME, Node, NodeFile, NodeFirmware, Rack, hardware, switching};
use crate::host::{Host, HostConfig, Ipv4};
use crate::machine::{Disk, Firmware, Machine, MachineConfig, Nic, NicModel, Wire};
use crate::seat::{BmcSeat, BmcStarter, Identity};
use crate::switch::PortConfig;

/// Kinds of station, the fourth byte of their hardware addresses: a capture shows at a glance who speaks.
pub(super) const NODE: u8 = 0x0a;
pub(super) const BMC: u8 = 0x0b;
pub(super) const APPLIANCE: u8 = 0x0c;
pub(super) const SITE: u8 = 0x0d;
pub(super) const STATION: u8 = 0x0e;

/// A hardware address under QEMU's prefix.
pub(super) fn mac(kind: u8, number: usize, interface: usize) -> MacAddr {
    let byte = |value: usize| u8::try_from(value & 0xff).unwrap_or(0);
    MacAddr([0x52, 0x54, 0x00, kind, byte(number), byte(interface)])
}

/// Builds a node: machine, switch ports, BMC.
pub(super) async fn node(rack: &Rack, at: usize, file: &NodeFile, bmc: Option<&BmcStarter>) -> io::Result<Node> {
    let (nics, ports) = nics(rack, at, file);
    switching::join(rack, file, &ports);
    let macs: Vec<_> = nics.iter().map(|nic| nic.mac).collect();
    let bmc = bmc.filter(|_| file.bmc);
    let kcs = rack.directory().join(format!("{}.kcs", file.name));
    let config = MachineConfig {
        name: file.name.clone(),
        directory: rack.directory().to_path_buf(),
        memory_mib: file.memory_mib,
        modules: file.modules.clone(),
        processors: hardware::processors(file),
        firmware: firmware(file.firmware),
        identity: identity(&rack.file.name, at, file),
        nics,
        disks: disks(rack, at, file),
        bays: file.bays,
        usb: false,
        cdrom: true,
        kcs: bmc.map(|_| kcs.clone()),
        tpm: file.tpm,
        display: false,
        watchdog: false,
        clock: file.clock,
        boot_order: file.boot.clone(),
    };
    let machine = Machine::new(config, rack.governor.clone())?;
    let mut node = Node {
        name: file.name.clone(),
        machine: machine.clone(),
        ports,
        macs,
        bmc: None,
        _bmc: None,
    };
    if let Some(start) = bmc {
        let description = format!("BMC of {}", file.name);
        let port = PortConfig::access(format!("Management1/{}", at + 1), description, rack.file.vlan("bmc"));
        let ipv4 = Ipv4::dhcp(format!("bmc-{}", file.name));
        let host = Host::new(rack.switch.port(port), HostConfig::new(mac(BMC, at, 0), ipv4));
        let seat = BmcSeat {
            name: file.name.clone(),
            host: host.clone(),
            power: Arc::new(machine.clone()),
            console: machine.console().clone(),
            identity: machine.config().identity.clone(),
            nics: node.macs.clone(),
            kcs_socket: kcs,
            media: rack.directory().join(format!("{}.media", file.name)),
            username: BMC_USERNAME.into(),
            password: file.bmc_password.clone().unwrap_or_else(|| BMC_PASSWORD.into()),
            redfish: file.bmc_redfish,
        };
        let started = start(seat).await;
        let what = |error: io::Error| io::Error::new(error.kind(), format!("the BMC of {}: {error}", file.name));
        node._bmc = Some(started.map_err(what)?);
        node.bmc = Some(host);
    }
    Ok(node)
}

fn nics(rack: &Rack, at: usize, file: &NodeFile) -> (Vec<Nic>, Vec<crate::switch::PortId>) {
    let one = |(number, nic): (usize, &super::NicFile)| {
        let socket = rack.directory().join(format!("{}.net{number}", file.name));
        // One line card per NIC, one port per node: Ethernet2/3 is the second NIC of the third node.
        let name = format!("Ethernet{}/{}", number + 1, at + 1);
        let description = format!("{} nic{number}", file.name);
        let config = switching::port(rack, name, description, nic);
        let port = rack.switch.link(config, &socket);
        (
            Nic {
                mac: mac(NODE, at, number),
                model: nic.model,
                wire: Wire::Switch(socket),
            },
            port,
        )
    };
    file.nics.iter().enumerate().map(one).unzip()
}

fn disks(rack: &Rack, at: usize, file: &NodeFile) -> Vec<Disk> {
    let one = |(number, disk): (usize, &super::DiskFile)| Disk {
        bus: disk.bus,
        image: rack.directory().join(format!("{}.disk{number}", file.name)),
        size: disk.size_mib << 20,
        // At most 20 characters: what ATA IDENTIFY and virtio-blk hold.
        serial: disk
            .serial
            .clone()
            .unwrap_or_else(|| format!("VD{:04}-{number:02}", at + 1)),
        model: disk.model.clone(),
    };
    file.disks.iter().enumerate().map(one).collect()
}

fn firmware(file: NodeFirmware) -> Firmware {
    match file {
        NodeFirmware::BiosIpxe => Firmware::BiosIpxe,
        NodeFirmware::UefiPxe => Firmware::UefiPxe,
        NodeFirmware::UefiHttp => Firmware::UefiHttp,
    }
}

fn identity(rack: &str, at: usize, file: &NodeFile) -> Identity {
    let number = at + 1;
    let [a, b, c, d, e, f] = mac(NODE, at, 0).0;
    Identity {
        manufacturer: "Rackbar".into(),
        product: "Virtual Node".into(),
        serial: file.serial.clone().unwrap_or_else(|| format!("VR{number:06}")),
        uuid: file
            .uuid
            .clone()
            .unwrap_or_else(|| format!("564d0000-0000-4000-8000-{a:02x}{b:02x}{c:02x}{d:02x}{e:02x}{f:02x}")),
        board_serial: format!("VB{number:06}"),
        asset_tag: format!("{rack}-{}", file.name),
        firmware_version: "1.0".into(),
    }
}

/// A machine that boots from a foreign web server first meets that site's own network.
pub(super) fn plain_nic(mac: MacAddr, wire: Wire) -> Nic {
    Nic {
        mac,
        model: NicModel::Virtio,
        wire,
    }
}

/// The site in front of an appliance that is chainloaded by iPXE.
pub(super) fn site_address() -> Ipv4Addr {
    Ipv4Addr::new(10, 77, 99, 1)
}
