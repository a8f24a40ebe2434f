//! A rack put together from its file: switch, appliance, machines, BMCs, and whatever the site had before. Everything
//! ends when the [`Rack`] is dropped; nothing is left behind unless asked for.

mod appliance;
mod build;
pub mod control;
mod directory;
mod file;
mod hardware;
mod switching;
mod telling;

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use rackbar_model::MacAddr;

pub use appliance::{Appliance, Interface};
pub use directory::RunDirectory;
pub use file::{
    ApplianceFile, ApplianceFirmware, DhcpRole, DiskFile, FileError, ForeignDhcp, Medium, NicFile, NodeFile,
    NodeFirmware, RackFile,
};

pub use switching::SwitchFile;

use crate::host::{Host, HostConfig, Ipv4, Relay, relay};
use crate::machine::{Governor, Machine};
use crate::seat::{BmcHandle, BmcStarter, MachinePower, PowerAction};
use crate::site::{DhcpServer, DhcpSettings};
use crate::switch::{CaptureFile, Fault, PortConfig, PortId, Switch, Tasks, locked};

/// Administrator of every simulated BMC.
pub const BMC_USERNAME: &str = "admin";
/// Their password: the rack is on nobody's network, and a person may want to try `ipmitool`.
pub const BMC_PASSWORD: &str = "rackbar-demo";

/// How to build a rack, beside its file.
#[derive(Clone, Default)]
pub struct RackOptions {
    /// Only the first so many nodes.
    pub nodes: Option<usize>,
    /// Leave the run directory (logs, captures, disks) when the rack ends, with a capture of the whole run in it:
    /// `run.pcapng` and its timeline.
    pub keep: bool,
    /// Starts the BMCs; without it the nodes have none.
    pub bmc: Option<BmcStarter>,
    /// Makes the run directory here instead of in the system's folder for temporary files.
    pub parent: Option<PathBuf>,
}

/// A machine of the rack with everything around it.
pub struct Node {
    /// Its name.
    pub name: String,
    /// The machine.
    pub machine: Machine,
    /// Switch ports of its NICs, in order.
    pub ports: Vec<PortId>,
    /// Hardware addresses of its NICs, in order.
    pub macs: Vec<MacAddr>,
    /// Its BMC's station on the management VLAN.
    pub bmc: Option<Host>,
    _bmc: Option<BmcHandle>,
}

/// A rack at work.
pub struct Rack {
    file: RackFile,
    switch: Switch,
    nodes: Vec<Node>,
    appliance: Mutex<Option<Arc<Appliance>>>,
    foreign_dhcp: Option<DhcpServer>,
    governor: Governor,
    /// Numbers stations that tests add.
    stations: AtomicU8,
    /// Reads the consoles.
    tasks: Tasks,
    /// Of the whole run, where it is kept.
    _capture: Option<CaptureFile>,
    // Last: everything above writes into it until it is gone.
    directory: RunDirectory,
}

impl Rack {
    /// Builds the rack, everything powered off and the appliance not there yet.
    ///
    /// # Errors
    /// When files, sockets or BMCs cannot be made; the message says which.
    pub async fn build(file: RackFile, options: RackOptions) -> io::Result<Self> {
        let directory = RunDirectory::create(&file.name, options.parent.as_deref(), options.keep)?;
        let switch = Switch::new(file.switch.config(&file.name));
        let governor = Governor::for_this_machine();
        let foreign_dhcp = file
            .foreign_dhcp
            .as_ref()
            .map(|site| foreign(&switch, &file, site))
            .transpose()?;
        let mut rack = Self {
            switch,
            nodes: Vec::new(),
            appliance: Mutex::default(),
            foreign_dhcp,
            governor,
            stations: AtomicU8::new(0),
            tasks: Tasks::default(),
            _capture: None,
            directory,
            file,
        };
        if options.keep {
            rack._capture = Some(rack.capture(None, &rack.directory().join("run.pcapng"))?);
        }
        let wanted = options.nodes.unwrap_or(usize::MAX);
        for (at, node) in rack.file.nodes.clone().iter().enumerate().take(wanted) {
            let node = build::node(&rack, at, node, options.bmc.as_ref()).await?;
            rack.follow_console(&node.name, &node.machine);
            rack.nodes.push(node);
        }
        Ok(rack)
    }

    fn follow_console(&self, name: &str, machine: &Machine) {
        let console = machine.console().clone();
        self.tasks
            .spawn(telling::console(self.switch.clone(), name.to_owned(), console));
    }

    /// The file it was made from.
    pub fn file(&self) -> &RackFile {
        &self.file
    }

    /// Where its sockets, logs and disks are.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The switch.
    pub fn switch(&self) -> &Switch {
        &self.switch
    }

    /// All machines but the appliance.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A machine by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// The site's own DHCP server, if the file has one.
    pub fn foreign_dhcp(&self) -> Option<&DhcpServer> {
        self.foreign_dhcp.as_ref()
    }

    /// The appliance, once [`Rack::add_appliance`] put it there.
    pub fn appliance(&self) -> Option<Arc<Appliance>> {
        locked(&self.appliance).clone()
    }

    /// Puts the appliance into the rack, powered off, with the medium the file asks for: the path of `rackbar.img` or
    /// `rackbar.iso`, or for iPXE the folder with `vmlinuz` and the archives. The medium is used in place, so give a
    /// disk image of its own to each rack.
    ///
    /// # Errors
    /// When the medium is missing or no port is free on this machine.
    pub async fn add_appliance(&self, medium: &Path) -> io::Result<Arc<Appliance>> {
        let appliance = Arc::new(Appliance::new(self, medium).await?);
        self.follow_console("appliance", &appliance.machine);
        *locked(&self.appliance) = Some(Arc::clone(&appliance));
        Ok(appliance)
    }

    /// Adds a station of the test's own to a VLAN.
    pub fn host(&self, vlan: &str, ipv4: Ipv4) -> Host {
        let number = self.stations.fetch_add(1, Relaxed);
        let port = PortConfig::access(
            format!("Host{number}"),
            format!("test station {number}"),
            self.file.vlan(vlan),
        );
        Host::new(
            self.switch.port(port),
            HostConfig::new(build::mac(build::STATION, number.into(), 0), ipv4),
        )
    }

    /// Makes an address of a VLAN reachable from this machine, through a station that gets its own address from
    /// `ipv4`.
    ///
    /// # Errors
    /// When no port is free on this machine.
    pub async fn relay(&self, vlan: &str, ipv4: Ipv4, target: SocketAddrV4) -> io::Result<Relay> {
        relay(self.host(vlan, ipv4), target, 0).await
    }

    /// Pulls every data cable of a node, or plugs them in again: the link is cut and the guest's carrier drops.
    ///
    /// # Errors
    /// When there is no such node or QEMU refuses.
    pub async fn cut(&self, name: &str, cut: bool) -> io::Result<()> {
        let node = self.node(name).ok_or_else(|| no_node(self, name))?;
        self.done(&format!(
            "the cables of {name} are {}",
            if cut { "pulled" } else { "plugged in" }
        ));
        for (nic, port) in node.ports.iter().enumerate() {
            self.switch
                .set_fault(*port, if cut { Fault::cut() } else { Fault::default() });
            node.machine.set_link(nic, !cut).await?;
        }
        Ok(())
    }

    /// Takes a machine out of the rack: its power goes at once, and so do all its cables, the BMC's too. It keeps its
    /// disks, its firmware's settings and its addresses.
    ///
    /// # Errors
    /// When there is no such node or QEMU refuses.
    pub async fn pull_out(&self, name: &str) -> io::Result<()> {
        self.node(name)
            .ok_or_else(|| no_node(self, name))?
            .machine
            .cut_power()
            .await?;
        self.cut_bmc(name, true)?;
        self.cut(name, true).await
    }

    /// Puts a machine that was taken out into the rack, powered off. A rack whose file has a machine more than a story
    /// begins with is one where [`Rack::pull_out`] came first.
    ///
    /// # Errors
    /// When there is no such node or QEMU refuses.
    pub async fn put_in(&self, name: &str) -> io::Result<()> {
        self.cut_bmc(name, false)?;
        self.cut(name, false).await
    }

    /// Pulls the cable of a node's BMC, or plugs it in again.
    ///
    /// # Errors
    /// When there is no such node.
    pub fn cut_bmc(&self, name: &str, cut: bool) -> io::Result<()> {
        let node = self.node(name).ok_or_else(|| no_node(self, name))?;
        if let Some(bmc) = &node.bmc {
            let fault = if cut { Fault::cut() } else { Fault::default() };
            self.switch.set_fault(bmc.port(), fault);
        }
        Ok(())
    }

    /// Presses a node's power button by hand, past its BMC.
    ///
    /// # Errors
    /// When there is no such node or it cannot be started.
    pub async fn power(&self, name: &str, action: PowerAction) -> io::Result<()> {
        self.done(&format!("the power button of {name}: {action:?}"));
        self.node(name)
            .ok_or_else(|| no_node(self, name))?
            .machine
            .act(action)
            .await
    }

    /// Ends every machine. Dropping the rack does the same less gently.
    pub async fn shut_down(&self) {
        let appliance = self.appliance();
        let machines = self
            .nodes
            .iter()
            .map(|node| node.machine.clone())
            .chain(appliance.map(|one| one.machine.clone()));
        let mut ends = tokio::task::JoinSet::new();
        for machine in machines {
            ends.spawn(async move {
                // A machine that does not end is killed when it is dropped.
                let _ = machine.act(PowerAction::ForceOff).await;
            });
        }
        ends.join_all().await;
    }
}

fn no_node(rack: &Rack, name: &str) -> io::Error {
    let names: Vec<_> = rack.nodes.iter().map(|node| node.name.as_str()).collect();
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("there is no node `{name}`; there are {}", names.join(", ")),
    )
}

fn foreign(switch: &Switch, file: &RackFile, site: &ForeignDhcp) -> io::Result<DhcpServer> {
    let port = PortConfig::access("Site1", "the site's own DHCP server", file.vlan("rack"));
    let config = HostConfig::new(build::mac(build::SITE, 0, 0), Ipv4::fixed(site.address, 24));
    let settings = DhcpSettings {
        first: site.first,
        count: site.count,
        prefix: 24,
        router: None,
        lease_seconds: 3600,
        boot: Vec::new(),
        next_server: None,
    };
    DhcpServer::start(&Host::new(switch.port(port), config), settings)
}

/// An address in the /24 of `address`, for stations of a test's own.
pub fn neighbour(address: Ipv4Addr, last: u8) -> Ipv4Addr {
    let [a, b, c, _] = address.octets();
    Ipv4Addr::new(a, b, c, last)
}
