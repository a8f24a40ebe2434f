//! A machine that netboots and is installed goes on to its disk: SeaBIOS by our iPXE script, OVMF by our loader and a
//! manifest without files, and by iPXE in its place. Real firmware on a plain site, without the appliance.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rackbar_boot::{fill_key_slot, render_local_disk, signed_local_disk_manifest};
use rackbar_image::disk::{self, DiskSpec};
use rackbar_messages::BootReport;
use rackbar_model::{BootStage, MacAddr};
use rackbar_trust::{Secret, Signer, SigningKey};
use rackbar_vrack::host::{Host, HostConfig, Ipv4};
use rackbar_vrack::machine::{
    Disk, DiskBus, Firmware, Governor, Machine, MachineConfig, Nic, NicModel, Processors, Wire,
};
use rackbar_vrack::seat::{BootDevice, Identity, MachinePower, PowerAction};
use rackbar_vrack::site::{BootRule, DhcpServer, DhcpSettings, Files, RouterAdvertiser, TftpServer, WebServer};
use rackbar_vrack::switch::{PortConfig, Switch, SwitchConfig};
use tokio::time::timeout;

/// OVMF may try every other network option before the disk, each with its own patience.
const DEADLINE: Duration = Duration::from_secs(300);
const NODE: MacAddr = MacAddr([0x52, 0x54, 0, 0, 0, 1]);
const FROM_DISK: &str = "BOOTED FROM THE DISK";
const HANDING_BACK: &str = "this machine is installed: handing back to the firmware";

/// What the site offers to its machines.
struct Site {
    switch: Switch,
    web: WebServer,
    files: Files,
    _dhcp: DhcpServer,
    _tftp: TftpServer,
    _router: RouterAdvertiser,
}

fn site(uefi_file: &str) -> Result<Site> {
    let switch = Switch::new(SwitchConfig::default());
    let port = switch.port(PortConfig::access("server", "site", 10));
    let ipv4 = Ipv4::fixed(Ipv4Addr::new(10, 0, 0, 1), 24);
    let server = Host::new(port, HostConfig::new(MacAddr([2, 0, 0, 0, 0, 1]), ipv4));
    let files = Files::folder("/usr/lib/ipxe");
    files.put("boot.ipxe", render_local_disk(NODE).into_bytes());
    let rule = |architecture, ipxe, file: &str| BootRule {
        architecture,
        ipxe,
        file: file.into(),
    };
    let settings = DhcpSettings {
        first: Ipv4Addr::new(10, 0, 0, 100),
        count: 50,
        prefix: 24,
        router: None,
        lease_seconds: 600,
        boot: vec![
            rule(None, Some(true), "http://10.0.0.1/boot.ipxe"),
            rule(Some(16), None, &format!("http://10.0.0.1/{uefi_file}")),
            rule(Some(7), None, uefi_file),
        ],
        next_server: None,
    };
    let router = switch.port(PortConfig::access("router", "site", 10));
    Ok(Site {
        _dhcp: DhcpServer::start(&server, settings)?,
        web: WebServer::start(&server, 80, files.clone())?,
        _tftp: TftpServer::start(&server, files.clone())?,
        _router: RouterAdvertiser::start(router, MacAddr([2, 0, 0, 0, 0, 9])),
        switch,
        files,
    })
}

/// Our loader with the site's key, and the manifest that sends every machine to its disk.
fn offer_loader(files: &Files) -> Result<()> {
    let key = SigningKey::from_seed(&Secret::new([7; 32]))?;
    let mut loader = loader()?;
    fill_key_slot(&mut loader, &key.public_key())?;
    files.put("loader.efi", loader);
    files.make("boot/v1/manifest", move |query| {
        let nonce = query.split('&').find_map(|part| part.strip_prefix("nonce="))?;
        let nonce = u128::from_str_radix(nonce, 16).ok()?.to_be_bytes();
        Some(signed_local_disk_manifest(nonce, NODE, 7, &key))
    });
    Ok(())
}

fn loader() -> Result<Vec<u8>> {
    let path = rackbar_scenarios::media()?.join("loader.efi");
    std::fs::read(&path).with_context(|| format!("reading {}", path.display()))
}

/// A machine that boots the network first, then its disks.
fn machine(directory: &Path, firmware: Firmware, switch: &Switch) -> Result<Machine> {
    let wire = directory.join("n1.0.net");
    switch.link(PortConfig::access("Ethernet1/1", "n1 nic0", 10), &wire);
    let text = |word: &str| format!("{word}-1");
    let disk = |at: usize, bus| Disk {
        bus,
        image: directory.join(format!("n1.disk{at}")),
        size: 512 << 20,
        serial: format!("DISK{at}"),
        model: None,
    };
    let config = MachineConfig {
        name: "n1".into(),
        directory: directory.into(),
        memory_mib: 256,
        modules: None,
        processors: Processors::one_socket(1),
        firmware,
        identity: Identity {
            manufacturer: text("maker"),
            product: text("product"),
            serial: text("serial"),
            uuid: "00112233-4455-6677-8899-aabbccddeeff".into(),
            board_serial: text("board"),
            asset_tag: text("asset"),
            firmware_version: text("firmware"),
        },
        nics: vec![Nic {
            mac: NODE,
            model: NicModel::Virtio,
            wire: Wire::Switch(wire),
        }],
        // The first is empty, as an erased one is; the second has the system.
        disks: vec![disk(0, DiskBus::Sata), disk(1, DiskBus::Virtio)],
        bays: 0,
        usb: false,
        cdrom: false,
        kcs: None,
        tpm: false,
        display: false,
        watchdog: false,
        clock: None,
        boot_order: vec![BootDevice::Network, BootDevice::Disk],
    };
    Ok(Machine::new(config, Governor::for_this_machine())?)
}

/// A boot sector that writes [`FROM_DISK`] to the first serial port and stops.
fn bios_disk(path: &Path) -> Result<()> {
    let mut sector = vec![
        0x31, 0xc0, // xor ax, ax
        0x8e, 0xd8, // mov ds, ax
        0xbe, 0x16, 0x7c, // mov si, 0x7c16: the text behind this code
        0xfc, // cld
        0xac, // lodsb
        0x84, 0xc0, // test al, al
        0x74, 0x06, // jz to the hlt
        0xba, 0xf8, 0x03, // mov dx, 0x3f8
        0xee, // out dx, al
        0xeb, 0xf5, // jmp to the lodsb
        0xf4, // hlt
        0xeb, 0xfd, // jmp to the hlt
    ];
    sector.extend_from_slice(FROM_DISK.as_bytes());
    sector.resize(510, 0);
    sector.extend_from_slice(&[0x55, 0xaa]);
    let file = File::options().write(true).open(path)?;
    Ok(file.write_all_at(&sector, 0)?)
}

/// Powers the machine on and waits until its console shows `words`; its whole text on failure.
async fn shows(machine: &Machine, words: &str) -> Result<String> {
    let start = Instant::now();
    machine.act(PowerAction::On).await?;
    let seen = timeout(DEADLINE, machine.console().wait_for(words)).await;
    let text = String::from_utf8_lossy(&std::fs::read(machine.console().log_path())?).into_owned();
    ensure!(seen.is_ok(), "`{words}` did not come:\n{text}");
    println!("`{words}` after {:.1} s", start.elapsed().as_secs_f64());
    machine.act(PowerAction::ForceOff).await?;
    Ok(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_bios_machine_boots_its_disk() -> Result<()> {
    let directory = tempfile::Builder::new().prefix("rb-").tempdir()?;
    let site = site("undionly.kpxe")?;
    let machine = machine(directory.path(), Firmware::BiosIpxe, &site.switch)?;
    bios_disk(&directory.path().join("n1.disk1"))?;
    let text = shows(&machine, FROM_DISK).await?;
    ensure!(
        text.contains("is installed: going on to its disk"),
        "no word of it:\n{text}"
    );
    Ok(())
}

/// OVMF with our loader; what the disk holds is iPXE, which is told apart by its own first words.
async fn by_the_loader(firmware: Firmware) -> Result<()> {
    let directory = tempfile::Builder::new().prefix("rb-").tempdir()?;
    let site = site("loader.efi")?;
    offer_loader(&site.files)?;
    let machine = machine(directory.path(), firmware, &site.switch)?;
    let marker = std::fs::read("/usr/lib/ipxe/ipxe.efi").context("Debian package ipxe")?;
    system_disk(&directory.path().join("n1.disk1"), &marker)?;
    let text = shows(&machine, "iPXE initialising devices").await?;
    ensure!(text.contains(HANDING_BACK), "the loader did not say so:\n{text}");
    let stages: Vec<String> = site.web.requests();
    let report = postcard::to_allocvec(&BootReport {
        version: rackbar_messages::PROTOCOL_VERSION,
        mac: NODE,
        attempt: 7,
        stage: BootStage::LocalDisk,
    })?;
    let told = format!("POST /boot/v1/report {}", String::from_utf8_lossy(&report));
    ensure!(stages.contains(&told), "no report of it: {stages:?}");
    Ok(())
}

fn system_disk(path: &Path, efi: &[u8]) -> Result<()> {
    let spec = DiskSpec {
        efi,
        config: None,
        packs: &[],
        data_mib: 0,
    };
    disk::write(&spec, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_uefi_machine_boots_its_disk_after_pxe() -> Result<()> {
    by_the_loader(Firmware::UefiPxe).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_uefi_machine_boots_its_disk_after_http_boot() -> Result<()> {
    by_the_loader(Firmware::UefiHttp).await
}

/// OVMF with iPXE in the loader's place; what the disk holds is our loader, which says that it knows no site.
#[tokio::test(flavor = "multi_thread")]
async fn an_installed_uefi_machine_boots_its_disk_after_ipxe() -> Result<()> {
    let directory = tempfile::Builder::new().prefix("rb-").tempdir()?;
    let site = site("snponly.efi")?;
    let machine = machine(directory.path(), Firmware::UefiPxe, &site.switch)?;
    system_disk(&directory.path().join("n1.disk1"), &loader()?)?;
    let text = shows(&machine, "this loader knows no site key").await?;
    ensure!(text.contains("handing back to the firmware"), "no word of it:\n{text}");
    Ok(())
}
