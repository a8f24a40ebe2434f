//! Ethernet interfaces that are hardware, from `/sys/class/net`, and what only the driver knows, by ethtool's ioctl.

use rackbar_model::{MacAddr, Nic};

use crate::{Root, ethtool, pci_of};

/// ARPHRD_ETHER.
const ETHERNET: u32 = 1;

/// The physical Ethernet interfaces. Addresses, neighbours and the boot mark are for the caller to fill in.
pub fn read(root: &Root) -> Vec<Nic> {
    let physical = |name: &String| {
        let folder = format!("sys/class/net/{name}");
        // VLANs, bridges and the like have no device behind them.
        root.exists(format!("{folder}/device"))
            && root.number(format!("{folder}/type")) == Some(ETHERNET)
            && !leads_to_bmc(root, &folder)
    };
    root.names("sys/class/net")
        .into_iter()
        .filter(physical)
        .map(|name| read_one(root, name))
        .collect()
}

/// True for the NIC that a BMC pretends to be on USB, for Redfish from the host (DSP0270 section 5): it leads to no network, and
/// some makers give it one and the same address, locally administered, on every machine.
fn leads_to_bmc(root: &Root, folder: &str) -> bool {
    let local = root
        .number(format!("{folder}/address"))
        .is_some_and(|mac: MacAddr| mac.is_local());
    let device = root.resolve(format!("{folder}/device")).unwrap_or_default();
    let usb = |part: &str| part.strip_prefix("usb").is_some_and(|n| n.parse::<u8>().is_ok());
    local && device.iter().filter_map(|part| part.to_str()).any(usb)
}

fn read_one(root: &Root, name: String) -> Nic {
    let folder = format!("sys/class/net/{name}");
    let current: Option<MacAddr> = root.number(format!("{folder}/address"));
    let told = ethtool::ask(&name);
    // Reading `carrier` of an interface that is down fails; that is no link either.
    let link = root.number(format!("{folder}/carrier")) == Some(1u8);
    let speed: Option<i64> = root.number(format!("{folder}/speed"));
    Nic {
        mac: told.permanent_mac.or(current).unwrap_or_default(),
        driver: root.link_name(format!("{folder}/device/driver")),
        firmware: told.firmware,
        pci: pci_of(root, format!("{folder}/device")),
        // -1 and 65535 both stand for "unknown".
        speed_mbps: speed
            .filter(|mbps| link && *mbps > 0 && *mbps != 65_535)
            .and_then(|mbps| u32::try_from(mbps).ok()),
        link,
        name,
        ..Nic::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Tree;

    #[test]
    fn only_hardware_counts_and_a_dead_link_has_no_speed() {
        let tree = Tree::new(&[
            ("sys/devices/pci0000:00/0000:00:03.0/virtio0/x", ""),
            ("sys/class/net/zz0/type", "1\n"),
            ("sys/class/net/zz0/address", "52:54:00:00:00:01\n"),
            ("sys/class/net/zz0/carrier", "1\n"),
            ("sys/class/net/zz0/speed", "10000\n"),
            ("sys/class/net/zz1/type", "1\n"),
            ("sys/class/net/zz1/device/x", ""),
            ("sys/class/net/zz1/speed", "-1\n"),
            ("sys/class/net/zz-vlan/type", "1\n"),
            ("sys/class/net/ib0/type", "32\n"),
            ("sys/class/net/ib0/device/x", ""),
            ("sys/devices/pci0000:00/0000:00:14.0/usb1/1-9/1-9:1.0/x", ""),
            ("sys/class/net/bmc0/type", "1\n"),
            ("sys/class/net/bmc0/address", "be:3a:f2:b6:05:9f\n"),
            ("sys/class/net/dongle/type", "1\n"),
            ("sys/class/net/dongle/address", "00:e0:4c:00:00:01\n"),
        ])
        .link(
            "sys/class/net/bmc0/device",
            "sys/devices/pci0000:00/0000:00:14.0/usb1/1-9/1-9:1.0",
        )
        .link(
            "sys/class/net/dongle/device",
            "sys/devices/pci0000:00/0000:00:14.0/usb1/1-9/1-9:1.0",
        )
        .link(
            "sys/class/net/zz0/device",
            "sys/devices/pci0000:00/0000:00:03.0/virtio0",
        );
        let nics = read(tree.root());
        // The one of a BMC is none, and one on USB with an address of its maker's is.
        let names: Vec<_> = nics.iter().map(|nic| nic.name.as_str()).collect();
        assert_eq!(names, ["dongle", "zz0", "zz1"]);
        let nics = &nics[1..];
        assert_eq!((nics[0].link, nics[0].speed_mbps), (true, Some(10_000)));
        assert_eq!(nics[0].mac.to_string(), "52:54:00:00:00:01");
        assert_eq!(nics[0].pci.as_deref(), Some("0000:00:03.0"));
        assert_eq!(
            (nics[1].link, nics[1].speed_mbps, nics[1].mac),
            (false, None, MacAddr::default())
        );
    }
}
