//! Real firmware on the virtual network, without the appliance: each kind of node netboots from a plain site.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::Ipv4Addr;
use std::path::Path;
use std::time::{Duration, Instant};

use rackbar_model::MacAddr;
use rackbar_vrack::host::{Host, HostConfig, Ipv4};
use rackbar_vrack::machine::{
    Disk, DiskBus, Firmware, Governor, Machine, MachineConfig, Nic, NicModel, Processors, Wire,
};
use rackbar_vrack::seat::{BootDevice, BootOverride, Identity, MachinePower, PowerAction, PowerState};
use rackbar_vrack::site::{BootRule, DhcpServer, DhcpSettings, Files, RouterAdvertiser, TftpServer, WebServer};
use rackbar_vrack::switch::{PortConfig, Switch, SwitchConfig};
use tokio::time::timeout;

/// Firmware on an emulator that shares its cores with other builds.
const DEADLINE: Duration = Duration::from_secs(120);
const NODE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const SCRIPT: &str = "#!ipxe\necho site says ${platform} ${net0/ip} ${serial}\nimgfetch http://10.0.0.1/big || shell\n\
                      imgfree\necho fetched it\nimgfetch http://10.0.0.1/done?uuid=${uuid} ||\nsleep 1000\n";

struct Site {
    switch: Switch,
    dhcp: DhcpServer,
    web: WebServer,
    _tftp: TftpServer,
    _router: RouterAdvertiser,
}

fn rule(architecture: Option<u16>, ipxe: Option<bool>, file: &str) -> BootRule {
    BootRule {
        architecture,
        ipxe,
        file: file.into(),
    }
}

fn site() -> Site {
    let switch = Switch::new(SwitchConfig::default());
    let host = |name: &str, last| {
        let port = switch.port(PortConfig::access(name, "site", 10));
        let ipv4 = Ipv4::fixed(Ipv4Addr::new(10, 0, 0, last), 24);
        Host::new(port, HostConfig::new(MacAddr([2, 0, 0, 0, 0, last]), ipv4))
    };
    let server = host("server", 1);
    let files = Files::folder("/usr/lib/ipxe");
    files.put("boot.ipxe", SCRIPT.as_bytes());
    files.put("big", vec![0xa5; 32 << 20]);
    let settings = DhcpSettings {
        first: Ipv4Addr::new(10, 0, 0, 100),
        count: 50,
        prefix: 24,
        router: None,
        lease_seconds: 600,
        boot: vec![
            rule(None, Some(true), "http://10.0.0.1/boot.ipxe"),
            rule(Some(16), None, "http://10.0.0.1/snponly.efi"),
            rule(Some(7), None, "snponly.efi"),
        ],
        next_server: None,
    };
    let router = switch.port(PortConfig::access("router", "site", 10));
    Site {
        dhcp: DhcpServer::start(&server, settings).unwrap(),
        web: WebServer::start(&server, 80, files.clone()).unwrap(),
        _tftp: TftpServer::start(&server, files).unwrap(),
        _router: RouterAdvertiser::start(router, MacAddr([2, 0, 0, 0, 0, 9])),
        switch,
    }
}

fn machine(directory: &Path, firmware: Firmware, switch: &Switch) -> Machine {
    machine_with(directory, firmware, switch, DiskBus::Nvme)
}

fn machine_with(directory: &Path, firmware: Firmware, switch: &Switch, bus: DiskBus) -> Machine {
    let wire = directory.join("n1.0.net");
    switch.link(PortConfig::access("Ethernet1/1", "n1 nic0", 10), &wire);
    let config = MachineConfig {
        name: "n1".into(),
        directory: directory.into(),
        memory_mib: 256,
        modules: None,
        processors: Processors::one_socket(1),
        firmware,
        identity: Identity {
            manufacturer: "Rackbar, Inc.".into(),
            product: "Virtual Node".into(),
            serial: "SN-0001".into(),
            uuid: "00112233-4455-6677-8899-aabbccddeeff".into(),
            board_serial: "BSN-0001".into(),
            asset_tag: "A-1".into(),
            firmware_version: "1.0".into(),
        },
        nics: vec![Nic {
            mac: NODE,
            model: NicModel::Virtio,
            wire: Wire::Switch(wire),
        }],
        disks: vec![Disk {
            bus,
            image: directory.join("n1.disk0"),
            size: 1 << 30,
            serial: "NVME0001".into(),
            model: None,
        }],
        bays: 0,
        usb: false,
        cdrom: true,
        kcs: None,
        tpm: false,
        display: false,
        watchdog: false,
        clock: None,
        boot_order: vec![BootDevice::Network, BootDevice::Disk],
    };
    Machine::new(config, Governor::for_this_machine()).unwrap()
}

/// Powers on, waits for the iPXE script to have run, and says how long each step took.
async fn netboots(firmware: Firmware) {
    let directory = tempfile::Builder::new().prefix("rb-").tempdir().unwrap();
    let site = site();
    let machine = machine(directory.path(), firmware, &site.switch);
    let start = Instant::now();
    machine.act(PowerAction::On).await.unwrap();
    let log = machine.console().clone();
    let done = timeout(DEADLINE, async {
        let lease = site.dhcp.acknowledged(NODE).await.unwrap();
        eprintln!("address {} after {:.1?}", lease.address, start.elapsed());
        site.web.requested("GET /big").await;
        eprintln!("script after {:.1?}", start.elapsed());
        let uuid = site.web.requested("GET /done").await.unwrap();
        eprintln!("32 MiB after {:.1?}", start.elapsed());
        assert_eq!(uuid, "GET /done?uuid=00112233-4455-6677-8899-aabbccddeeff");
    });
    let printed = || std::fs::read_to_string(log.log_path()).unwrap_or_default();
    assert!(
        done.await.is_ok(),
        "did not get there; {:?}\n{}",
        site.web.requests(),
        printed()
    );
    assert!(
        printed().contains("SN-0001"),
        "the serial number is not on the console:\n{}",
        printed()
    );
    let pid = machine.pid().await.unwrap();
    machine.act(PowerAction::ForceOff).await.unwrap();
    assert_eq!(machine.state(), PowerState::Off);
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "off means no process");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bios_node_with_an_ipxe_rom_netboots() {
    netboots(Firmware::BiosIpxe).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_uefi_node_netboots_by_pxe() {
    netboots(Firmware::UefiPxe).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_uefi_node_netboots_by_http() {
    netboots(Firmware::UefiHttp).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_one_time_override_is_used_once_and_reset_and_cable_work() {
    let directory = tempfile::Builder::new().prefix("rb-").tempdir().unwrap();
    let site = site();
    let machine = machine(directory.path(), Firmware::BiosIpxe, &site.switch);
    let once = BootOverride {
        device: BootDevice::Disk,
        once: true,
    };
    machine.set_boot_override(Some(once)).await.unwrap();
    assert_eq!(machine.boot_override(), Some(once));
    machine.act(PowerAction::On).await.unwrap();
    // An empty disk cannot boot: with strict boot order SeaBIOS says so and goes on to the network only afterwards.
    let text = timeout(DEADLINE, machine.console().wait_for("Booting from Hard Disk")).await;
    text.expect("the disk was not tried first").unwrap();
    assert_eq!(machine.boot_override(), None, "one time means one time");
    let before = machine.console().log_path().metadata().unwrap().len();
    machine.act(PowerAction::Reset).await.unwrap();
    timeout(DEADLINE, site.dhcp.acknowledged(NODE))
        .await
        .expect("the network was not tried after the reset");
    let log = std::fs::read(machine.console().log_path()).unwrap();
    let second = String::from_utf8_lossy(&log[usize::try_from(before).unwrap()..]).into_owned();
    assert!(
        !second.contains("Booting from Hard Disk"),
        "the disk was tried again first:\n{second}"
    );
    machine.set_link(0, false).await.unwrap();
    machine.set_link(0, true).await.unwrap();
    let missing = machine.set_media(Some(directory.path().join("none.iso"))).await;
    assert!(missing.is_err(), "QEMU must refuse a medium that is not there");
    let medium = directory.path().join("cd.iso");
    std::fs::write(&medium, vec![0; 1 << 20]).unwrap();
    machine.set_media(Some(medium.clone())).await.unwrap();
    assert_eq!(machine.media(), Some(medium));
    machine.set_media(None).await.unwrap();
    let pid = machine.pid().await.unwrap();
    drop(machine);
    // Dropping the machine kills its process; the kernel needs a moment to reap it.
    let gone = async {
        while Path::new(&format!("/proc/{pid}")).exists() {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, gone).await.expect("the process outlived its machine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_saved_machine_continues_where_it_was() {
    let directory = tempfile::Builder::new().prefix("rb-").tempdir().unwrap();
    let site = site();
    let machine = machine_with(directory.path(), Firmware::BiosIpxe, &site.switch, DiskBus::Sata);
    machine.act(PowerAction::On).await.unwrap();
    timeout(DEADLINE, site.web.requested("GET /boot.ipxe"))
        .await
        .expect("never booted");
    let snapshot = machine.save(&directory.path().join("saved")).await.unwrap();
    assert_eq!(machine.state(), PowerState::Off);
    let start = Instant::now();
    machine.restore(&snapshot).await.unwrap();
    eprintln!("restored after {:.2?}", start.elapsed());
    // The script goes on: it had not come to its last line before.
    timeout(DEADLINE, site.web.requested("GET /done"))
        .await
        .expect("did not go on");
}

/// A boot sector that writes the first two GiB of its disk for ever, 64 KiB at a time, by BIOS calls.
fn writer() -> Vec<u8> {
    let mut sector = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x10, 0x7c, // again: mov si, 0x7c10, the address packet
        0xb4, 0x43, // mov ah, 0x43: extended write
        0xcd, 0x13, // int 0x13 (dl still holds the drive)
        0xeb, 0xf7, // jmp again
        0x90, 0x90, 0x90, // up to 0x10
        0x10, 0x00, 0x40, 0x00, // packet: its size, 64 sectors
        0x00, 0x80, 0x00, 0x00, // from 0000:8000
        0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // to sector 8
    ];
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    sector
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_power_goes_in_the_middle_of_a_write() {
    let directory = tempfile::Builder::new().prefix("rb-").tempdir().unwrap();
    let switch = Switch::new(SwitchConfig::default());
    let machine = machine_with(directory.path(), Firmware::BiosIpxe, &switch, DiskBus::Sata);
    let disk = std::fs::File::options()
        .write(true)
        .open(directory.path().join("n1.disk0"))
        .unwrap();
    std::os::unix::fs::FileExt::write_all_at(&disk, &writer(), 0).unwrap();
    let from_disk = BootOverride {
        device: BootDevice::Disk,
        once: false,
    };
    machine.set_boot_override(Some(from_disk)).await.unwrap();
    machine.act(PowerAction::On).await.unwrap();
    let wrote = async {
        while machine.written(0).await.unwrap() < 1 << 20 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, wrote).await.expect("the guest wrote nothing");
    assert!(machine.written(9).await.is_err(), "it has one disk");
    let pid = machine.pid().await.unwrap();
    machine.cut_power().await.unwrap();
    assert_eq!(machine.state(), PowerState::Off);
    assert!(
        !Path::new(&format!("/proc/{pid}")).exists(),
        "the process is still there"
    );
    assert!(
        machine.written(0).await.is_err(),
        "a machine without power writes nothing"
    );
    // Its power comes back, and it goes on from its disk.
    machine.act(PowerAction::On).await.unwrap();
    let again = async {
        while machine.written(0).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(DEADLINE, again).await.expect("it did not boot again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_cannot_start_says_why() {
    let directory = tempfile::Builder::new().prefix("rb-").tempdir().unwrap();
    let switch = Switch::new(SwitchConfig::default());
    let firmware = Firmware::Direct {
        kernel: directory.path().join("absent"),
        initrd: None,
        cmdline: String::new(),
    };
    let machine = machine(directory.path(), firmware, &switch);
    let error = machine.act(PowerAction::On).await.unwrap_err().to_string();
    assert!(error.contains("n1") && error.contains("absent"), "{error}");
    assert_eq!(machine.state(), PowerState::Off);
}
