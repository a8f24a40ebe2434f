//! The appliance as a machine of the rack: one NIC on the rack VLAN, one on the BMC VLAN, and one to the outside unless the
//! rack has no uplink.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};

use rackbar_model::MacAddr;

use super::build::{APPLIANCE, SITE, mac, plain_nic, site_address};
use super::{ApplianceFirmware, Medium, Rack};
use crate::host::{Host, HostConfig, Ipv4, Relay};
use crate::machine::{Disk, DiskBus, Firmware, Machine, MachineConfig, Nic, Processors, Wire};
use crate::seat::{BootDevice, Identity, MachinePower};
use crate::site::{BootRule, DhcpServer, DhcpSettings, Files, RouterAdvertiser, TftpServer, WebServer};
use crate::switch::{PortConfig, PortId, PortMode, SpanningTree};

/// VLAN of the site an iPXE appliance is chainloaded from; the rack's own VLANs stay as they are.
const CHAINLOAD_VLAN: u16 = 4000;
/// The appliance's HTTPS port.
const API: u16 = 443;
/// Last octet of the station on the rack VLAN that leads to the API of an appliance without an uplink.
const WAY: u8 = 253;
/// Bytes of the data disk of an appliance that boots from elsewhere. Sparse.
const DATA_DISK: u64 = 2 << 30;

/// An interface of the appliance, for its configuration file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Interface {
    /// Hardware address.
    pub mac: MacAddr,
    /// Address the file gives it, prefix 24; `None`: by DHCP.
    pub address: Option<Ipv4Addr>,
    /// The VLAN whose tagged frames it serves, where its port is a trunk.
    pub vlan: Option<u16>,
}

/// The appliance.
pub struct Appliance {
    /// The machine.
    pub machine: Machine,
    /// Where its API is on this machine: 127.0.0.1 and a port.
    pub api: SocketAddr,
    /// Switch ports on the rack and the BMC VLAN; one and the same where it is a trunk.
    pub ports: [PortId; 2],
    _site: Option<ChainloadSite>,
    _way: Option<Relay>,
}

/// Keeps the foreign site alive.
struct ChainloadSite {
    _services: (DhcpServer, WebServer, TftpServer, RouterAdvertiser),
}

impl Rack {
    /// The appliance's interfaces: on the rack VLAN, on the BMC VLAN, to the outside if it has that one. Known before it
    /// exists, for its configuration.
    pub fn appliance_interfaces(&self) -> [Interface; 3] {
        let file = &self.file().appliance;
        let tagged = |name: &str| file.trunk.then(|| self.file().vlan(name));
        [
            Interface {
                mac: mac(APPLIANCE, 0, 0),
                address: Some(file.rack_address),
                vlan: tagged("rack"),
            },
            Interface {
                mac: mac(APPLIANCE, 0, if file.trunk { 0 } else { 1 }),
                address: Some(file.bmc_address),
                vlan: tagged("bmc"),
            },
            Interface {
                mac: mac(APPLIANCE, 0, 2),
                address: None,
                vlan: None,
            },
        ]
    }
}

impl Appliance {
    pub(super) async fn new(rack: &Rack, medium: &Path) -> io::Result<Self> {
        let file = &rack.file().appliance;
        if !medium.exists() {
            let what = format!(
                "the appliance's medium {} is missing: run `cargo xtask image`",
                medium.display()
            );
            return Err(io::Error::new(io::ErrorKind::NotFound, what));
        }
        let directory = rack.directory();
        let interfaces = rack.appliance_interfaces();
        let mut nics = Vec::new();
        let mut ports = [PortId(0); 2];
        for (at, config) in port_configs(rack).into_iter().enumerate() {
            let socket = directory.join(format!("appliance.net{at}"));
            // Of a trunk there is one port, which is both.
            ports[at..].fill(rack.switch().link(config, &socket));
            nics.push(plain_nic(interfaces[at].mac, Wire::Switch(socket)));
        }
        let (api, way) = way_in(rack, &mut nics).await?;
        let site = if file.medium == Medium::Ipxe {
            let socket = directory.join("appliance.net3");
            rack.switch()
                .link(PortConfig::access("Site2", "chainload", CHAINLOAD_VLAN), &socket);
            // First in the machine: firmware then boots from it and not from the rack.
            nics.insert(0, plain_nic(mac(APPLIANCE, 0, 3), Wire::Switch(socket)));
            Some(chainload_site(rack, medium)?)
        } else {
            None
        };
        let config = MachineConfig {
            name: "appliance".into(),
            directory: directory.to_path_buf(),
            memory_mib: file.memory_mib,
            modules: None,
            processors: Processors::one_socket(file.cpus),
            firmware: match file.firmware {
                ApplianceFirmware::Uefi => Firmware::UefiPxe,
                ApplianceFirmware::Bios => Firmware::BiosIpxe,
            },
            identity: identity(),
            nics,
            disks: disks(file.medium, medium, directory),
            bays: 0,
            usb: file.usb,
            cdrom: file.medium == Medium::IsoCd,
            kcs: None,
            tpm: false,
            display: file.display,
            watchdog: file.watchdog,
            clock: file.clock,
            boot_order: match file.medium {
                Medium::IsoCd => vec![BootDevice::Cdrom],
                Medium::Ipxe => vec![BootDevice::Network],
                Medium::Disk | Medium::IsoDisk | Medium::None => vec![BootDevice::Disk],
            },
        };
        let machine = Machine::new(config, rack.governor.clone())?;
        if file.medium == Medium::IsoCd {
            machine.set_media(Some(medium.to_path_buf())).await?;
        }
        Ok(Self {
            machine,
            api,
            ports,
            _site: site,
            _way: way,
        })
    }
}

/// How this machine reaches the API: by the NIC to the outside, which is added, or else by a station of the rack's network.
async fn way_in(rack: &Rack, nics: &mut Vec<Nic>) -> io::Result<(SocketAddr, Option<Relay>)> {
    let file = &rack.file().appliance;
    if file.uplink {
        let host_port = free_port()?;
        let wire = Wire::Uplink {
            host_port,
            guest_port: API,
        };
        nics.push(plain_nic(rack.appliance_interfaces()[2].mac, wire));
        return Ok((SocketAddr::from((Ipv4Addr::LOCALHOST, host_port)), None));
    }
    let station = Ipv4::fixed(super::neighbour(file.rack_address, WAY), 24);
    let api = SocketAddrV4::new(file.rack_address, API);
    let way = rack.relay("rack", station, api).await?;
    Ok((way.address(), Some(way)))
}

/// The appliance's switch ports: one for each of its VLANs, or a trunk for both.
fn port_configs(rack: &Rack) -> Vec<PortConfig> {
    let number = |name: &str| rack.file().vlan(name);
    if rack.file().appliance.trunk {
        let mode = PortMode::Trunk {
            native: None,
            allowed: vec![number("rack"), number("bmc")],
        };
        return vec![PortConfig {
            name: "Appliance1/1".into(),
            description: "appliance trunk".into(),
            mode,
            spanning_tree: SpanningTree::Off,
        }];
    }
    ["rack", "bmc"]
        .into_iter()
        .enumerate()
        .map(|(at, vlan)| {
            PortConfig::access(
                format!("Appliance1/{}", at + 1),
                format!("appliance {vlan}"),
                number(vlan),
            )
        })
        .collect()
}

/// Virtio throughout: QEMU can save such a machine and continue it later.
fn disks(medium: Medium, path: &Path, directory: &Path) -> Vec<Disk> {
    let disk = |bus, image: PathBuf, serial: &str| Disk {
        bus,
        image,
        size: DATA_DISK,
        serial: serial.into(),
        model: None,
    };
    match medium {
        Medium::Disk => vec![disk(DiskBus::Virtio, path.to_path_buf(), "APPLIANCE-0")],
        Medium::IsoDisk => vec![disk(DiskBus::Usb, path.to_path_buf(), "STICK-0")],
        Medium::IsoCd | Medium::Ipxe | Medium::None => {
            vec![disk(DiskBus::Virtio, directory.join("appliance.disk0"), "APPLIANCE-0")]
        }
    }
}

fn identity() -> Identity {
    Identity {
        manufacturer: "Rackbar".into(),
        product: "Virtual Appliance".into(),
        serial: "VA000001".into(),
        uuid: "564d0000-0000-4000-8000-5254000c0000".into(),
        board_serial: "VAB00001".into(),
        asset_tag: "appliance".into(),
        firmware_version: "1.0".into(),
    }
}

/// A free TCP port of this machine. Somebody could take it before QEMU does; QEMU then says so.
fn free_port() -> io::Result<u16> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}

/// A foreign network with DHCP, TFTP and a web server that hold what `folder` holds and Debian's iPXE.
fn chainload_site(rack: &Rack, folder: &Path) -> io::Result<ChainloadSite> {
    let port = |name: &str| {
        rack.switch()
            .port(PortConfig::access(name, "chainload site", CHAINLOAD_VLAN))
    };
    let host = Host::new(
        port("Site3"),
        HostConfig::new(mac(SITE, 1, 0), Ipv4::fixed(site_address(), 24)),
    );
    let files = Files::folder(folder);
    for name in ["undionly.kpxe", "snponly.efi"] {
        let path = Path::new("/usr/lib/ipxe").join(name);
        let content = std::fs::read(&path).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("cannot read {} (Debian package ipxe): {error}", path.display()),
            )
        })?;
        files.put(name, content);
    }
    let url = format!("http://{}", site_address());
    files.put("chainload.ipxe", chainload_script(rack, &url).as_bytes());
    let rule = |architecture, ipxe, file: String| BootRule {
        architecture,
        ipxe,
        file,
    };
    let settings = DhcpSettings {
        first: super::neighbour(site_address(), 100),
        count: 10,
        prefix: 24,
        router: None,
        lease_seconds: 3600,
        boot: vec![
            rule(None, Some(true), format!("{url}/chainload.ipxe")),
            rule(Some(0), None, "undionly.kpxe".into()),
            rule(Some(7), None, "snponly.efi".into()),
        ],
        next_server: None,
    };
    Ok(ChainloadSite {
        _services: (
            DhcpServer::start(&host, settings)?,
            WebServer::start(&host, 80, files.clone())?,
            TftpServer::start(&host, files)?,
            RouterAdvertiser::start(port("Site4"), mac(SITE, 2, 0)),
        ),
    })
}

/// What a person would write: kernel and archives by name, in the order the kernel must see them, and the site's
/// configuration as kernel arguments, for want of a file beside them.
fn chainload_script(rack: &Rack, url: &str) -> String {
    let archives = ["base.cpio.zst", "appliance.cpio.zst", "nodeboot.cpio"];
    let initrd: String = archives.iter().map(|name| format!("initrd {url}/{name}\n")).collect();
    let names: String = archives.iter().map(|name| format!(" initrd={name}")).collect();
    let [inside, _, uplink] = rack.appliance_interfaces();
    let file = &rack.file().appliance;
    let address = file.rack_address;
    let (first, last) = (super::neighbour(address, 100), super::neighbour(address, 199));
    let more = &file.kernel_arguments;
    format!(
        "#!ipxe\nkernel {url}/vmlinuz rackbar.role=appliance rackbar.interface={} rackbar.address={address}/24 \
         rackbar.dhcp=own rackbar.pool={first}-{last} rackbar.uplink={} console=tty0 console=ttyS0,115200 \
         no_timer_check {more}{names}\n{initrd}boot\n",
        inside.mac, uplink.mac
    )
}
