//! What hardware, disks and switches say of themselves.

use std::cell::OnceCell;
use std::fs::File;
use std::net::Ipv6Addr;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;

use rackbar_hardware::gpt::Table;
use rackbar_hardware::uevent::Uevent;
use rackbar_install::fuzzing;
use rackbar_model::{BondMode, DiskRef, Inventory, MacAddr, OsNetwork, OsSetup, RootTarget};
use rackbar_verify::{Context, Peer};
use serde_json::Value;

// Private to its crate: the Redfish client's view of resources.
#[allow(dead_code, reason = "only what is called here")]
#[path = "../../../appliance/devices/src/redfish/view.rs"]
mod view;

// Private to its crate: how the look at a machine that is adopted is read.
#[path = "../../../appliance/orchestrator/src/adopt/report.rs"]
mod report;

/// What a machine that is adopted tells: what was read is the same when it is written and read again.
pub(super) fn machine_report(data: &[u8]) {
    let Ok(told) = report::read(&String::from_utf8_lossy(data)) else {
        return;
    };
    let written = serde_json::to_string(&told).unwrap_or_default();
    assert_eq!(report::read(&written), Ok(told));
}

pub(super) fn redfish(data: &[u8]) {
    let Ok(resource) = serde_json::from_slice::<Value>(data) else {
        return;
    };
    let _ = (
        view::power(&resource),
        view::mac(&resource),
        view::reset(&resource),
        view::boot(&resource),
    );
    let _ = (view::action_info_values(&resource), view::error_words(&resource));
    let links = view::members(&resource)
        .into_iter()
        .chain(view::link(&resource, "/Bios"));
    for link in links {
        assert!(
            link.starts_with('/') && !link.starts_with("//"),
            "{link} leads to another host"
        );
    }
}

pub(super) fn smbios(data: &[u8]) {
    let _ = rackbar_hardware::smbios::parse(data);
}

pub(super) fn lldp(data: &[u8]) {
    let _ = rackbar_hardware::lldp::parse(data);
}

pub(super) fn bpdu(data: &[u8]) {
    let _ = rackbar_hardware::neighbours::parse_bpdu(data);
}

pub(super) fn lacpdu(data: &[u8]) {
    let _ = rackbar_hardware::neighbours::parse_lacp(data);
}

pub(super) fn uevent(data: &[u8]) {
    let _ = Uevent::parse(data);
}

/// What disks say of their health, and a TPM of its key.
pub(super) fn device_answer(data: &[u8]) {
    fuzzing::device_answer(data);
    if let Some(key) = rackbar_hardware::fuzzing::device_answer(data) {
        assert_eq!(key.len(), 294, "a key of 2048 bits in DER has one length");
    }
}

/// What a node printed when a check asked it: every check that can apply judges it, and says why.
pub(super) fn node_answer(data: &[u8]) {
    static WISHES: OnceLock<Context> = OnceLock::new();
    let text = String::from_utf8_lossy(data);
    rackbar_verify::fuzzing::judge(WISHES.get_or_init(wishes), &text);
}

/// A node of which everything that can be is wanted.
fn wishes() -> Context {
    let disk = |serial: &str| DiskRef {
        serial: Some(serial.into()),
        ..DiskRef::default()
    };
    let mgmt = OsNetwork {
        name: "mgmt".into(),
        nics: vec![MacAddr([2, 0, 0, 0, 0, 1])],
        bond: Some(BondMode::Lacp),
        vlan: Some(7),
        mtu: Some(9000),
        addresses: vec!["10.0.0.7/24".into(), "fd00::7/64".into()],
        gateway: Some([10, 0, 0, 1].into()),
    };
    let storage = OsNetwork {
        name: "storage".into(),
        vlan: None,
        addresses: vec!["fd01::7/64".into()],
        gateway: Some(Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1).into()),
        ..mgmt.clone()
    };
    let mut context = Context::default();
    let wanted = &mut context.wanted;
    wanted.target = Some(RootTarget::Mirror([disk("A"), disk("B")]));
    wanted.host_key = Some("ssh-ed25519 AAAA node".into());
    wanted.attributes.insert("X".into(), "On".into());
    wanted.names = vec!["example.org".into()];
    wanted.peers = vec![Peer {
        name: "n2".into(),
        address: [10, 0, 0, 2].into(),
        mtu: Some(9000),
    }];
    wanted.setup = OsSetup {
        hostname: "n1".into(),
        machine_id: "00112233445566778899aabbccddeeff".into(),
        dns: vec![[10, 0, 0, 1].into()],
        ntp: vec!["10.0.0.1".into()],
        proxy: Some("http://10.0.0.1:3142".into()),
        networks: vec![mgmt, storage],
        ..OsSetup::default()
    };
    context.seen.inventory = Some(Inventory::default());
    context
}

const SECTOR: usize = 512;

/// A disk whose table begins in its second sector, with checksums that are right: a damaged one is refused at once.
pub(super) fn gpt(data: &[u8]) {
    thread_local!(static DISK: OnceCell<File> = const { OnceCell::new() });
    let mut disk = vec![0; SECTOR];
    disk.extend_from_slice(data);
    disk.resize(disk.len().max(3 * SECTOR), 0);
    put(&mut disk, 512, b"EFI PART");
    put(&mut disk, 512 + 12, &92_u32.to_le_bytes());
    put(&mut disk, 512 + 24, &1_u64.to_le_bytes());
    let number = |disk: &[u8], at: usize| {
        let bytes = disk.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u32::from_le_bytes) as usize
    };
    let array_at = number(&disk, 512 + 72).saturating_mul(SECTOR);
    let length = number(&disk, 512 + 80).saturating_mul(number(&disk, 512 + 84));
    let array = disk
        .get(array_at..array_at.saturating_add(length))
        .map(crc32)
        .unwrap_or_default();
    put(&mut disk, 512 + 88, &array.to_le_bytes());
    put(&mut disk, 512 + 16, &[0; 4]);
    let header = disk.get(512..512 + 92).map(crc32).unwrap_or_default();
    put(&mut disk, 512 + 16, &header.to_le_bytes());
    DISK.with(|file| {
        let file = file.get_or_init(|| {
            let path = std::env::temp_dir().join(format!("rackbar-fuzz-gpt-{}", std::process::id()));
            let file = File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(&path)
                .expect("a file in the folder for temporary files");
            let _ = std::fs::remove_file(path);
            file
        });
        file.set_len(disk.len() as u64).expect("room for the disk");
        file.write_all_at(&disk, 0).expect("room for the disk");
        let Some(table) = Table::read(file, SECTOR as u64, 1) else {
            return;
        };
        let _ = table.disk_guid();
        for partition in table.partitions() {
            let grown = table.grown(1 << 20, partition.number, table.last_usable(1 << 20));
            assert_eq!(
                grown.partitions().len(),
                table.partitions().len(),
                "growing lost a partition"
            );
        }
    });
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = disk.get_mut(at..at + bytes.len()) {
        room.copy_from_slice(bytes);
    }
}

/// CRC-32 of ISO 3309.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |c, _| {
            c >> 1 ^ 0xedb8_8320 & (c & 1).wrapping_neg()
        })
    };
    !bytes.iter().fold(!0, step)
}
