//! cephadm: host and service specifications for `ceph orch apply -i FILE` (Ceph documentation, "Service Management" and
//! "OSD Service"). Disks are named by what does not change, and grouped by class: `hdd`, `ssd`, `nvme`.

use std::collections::BTreeSet;

use rackbar_model::{Disk, DiskBus, DiskRef};
use rackbar_plan::site::{Ceph, CephDaemon};
use serde_json::{Map, Value, json};

use super::super::render::ExportError;
use crate::member::{Member, Rack};
use crate::yaml;

/// Hosts first, then monitors, managers, the other daemons, and disks: cephadm works through the file in this order.
///
/// # Errors
/// When no node is a monitor, or a disk that Ceph would take cannot be told from the system's own.
pub fn cephadm(rack: &Rack<'_>) -> Result<String, ExportError> {
    let members = rack.members();
    let members: Vec<_> = members
        .into_iter()
        .filter(|one| one.role.is_some_and(|role| !role.ceph.is_empty()))
        .collect();
    if !runs(&members, CephDaemon::Mon) {
        let words = "no installed node is a monitor: set `ceph = [\"mon\", ..]` in a [handoff.role]";
        return Err(ExportError::Missing(words.into()));
    }
    let public = network(rack, |ceph| ceph.public_network.as_deref());
    let cluster = network(rack, |ceph| ceph.cluster_network.as_deref());
    let mut documents = Vec::new();
    for member in &members {
        documents.push(host(member)?);
    }
    let services = [CephDaemon::Mon, CephDaemon::Mgr, CephDaemon::Mds, CephDaemon::Rgw];
    for daemon in services.into_iter().filter(|daemon| runs(&members, *daemon)) {
        let mut service = json!({ "service_type": daemon.name(), "placement": { "label": daemon.name() } });
        if matches!(daemon, CephDaemon::Mds | CephDaemon::Rgw) {
            service["service_id"] = json!("rackbar");
        }
        // A monitor answers at one address for its whole life: it has to be the right one from the beginning.
        if let Some((_, subnet)) = public.as_ref().filter(|_| daemon == CephDaemon::Mon) {
            service["networks"] = json!([subnet]);
        }
        documents.push(service);
    }
    for member in members.iter().filter(|one| has(one, CephDaemon::Osd)) {
        documents.extend(osds(member)?);
    }
    // No specification says which networks the whole cluster uses; Ceph's own configuration does.
    let set = [("public_network", public), ("cluster_network", cluster)];
    let before = set.into_iter().filter_map(|(option, network)| {
        let (name, subnet) = network?;
        Some(format!(
            "# Before it is applied, for network {name}: ceph config set global {option} {subnet}\n"
        ))
    });
    Ok(before.chain([yaml::documents(&documents)]).collect())
}

/// Name and subnet of a network that the site has for Ceph.
fn network<'a>(rack: &Rack<'a>, which: fn(&Ceph) -> Option<&str>) -> Option<(&'a str, String)> {
    let site = rack.site?;
    let name = which(site.handoff.ceph.as_ref()?)?;
    Some((name, site.network.get(name)?.subnet.to_string()))
}

fn has(member: &Member<'_>, daemon: CephDaemon) -> bool {
    member.role.is_some_and(|role| role.ceph.contains(&daemon))
}

fn runs(members: &[Member<'_>], daemon: CephDaemon) -> bool {
    members.iter().any(|one| has(one, daemon))
}

fn host(member: &Member<'_>) -> Result<Value, ExportError> {
    let address = member
        .address
        .ok_or_else(|| ExportError::Missing(format!("{} has no address that is known", member.name)))?;
    let labels: BTreeSet<_> = member
        .role
        .into_iter()
        .flat_map(|role| &role.ceph)
        .map(|one| one.name())
        .collect();
    Ok(json!({ "service_type": "host", "hostname": member.name, "addr": address, "labels": labels }))
}

/// One specification per class of disks. Ceph is only given disks by their own path: "all that are free" would take what
/// somebody puts in tomorrow.
fn osds(member: &Member<'_>) -> Result<Vec<Value>, ExportError> {
    let node = member.node;
    let missing = |words: String| ExportError::Missing(format!("{}: {words}", member.name));
    if node.adopted.is_some() {
        let words =
            "its system was adopted, and nothing is known of what lies on its other disks: give them to Ceph by hand";
        return Err(missing(words.into()));
    }
    let inventory = node
        .inventory
        .as_ref()
        .ok_or_else(|| missing("its disks are not known: let it boot our agent once".into()))?;
    let own = node
        .installed
        .as_ref()
        .map(|one| one.target.disks())
        .unwrap_or_default();
    for disk in own {
        let fits = inventory.disks.iter().filter(|one| is(disk, one)).count();
        if fits != 1 {
            let words =
                format!("the system's own disk ({disk}) fits {fits} disks of its inventory, so none is given to Ceph");
            return Err(missing(words));
        }
    }
    let free = inventory.disks.iter().filter(|one| {
        let outside = one.removable || matches!(one.bus, DiskBus::Usb | DiskBus::Mmc);
        !outside && one.size_bytes > 0 && !own.iter().any(|disk| is(disk, one))
    });
    let mut classes: Map<String, Value> = Map::new();
    for disk in free {
        let path =
            path(disk).ok_or_else(|| missing(format!("disk {} has neither WWN nor path that last", disk.name)))?;
        let class = classes.entry(class(disk)).or_insert_with(|| json!([]));
        if let Some(list) = class.as_array_mut() {
            list.push(json!(path));
        }
    }
    let one = |(class, paths): (String, Value)| {
        json!({
            "service_type": "osd", "service_id": format!("{}-{class}", member.name),
            "placement": { "hosts": [member.name] }, "crush_device_class": class,
            "spec": { "data_devices": { "paths": paths } },
        })
    };
    Ok(classes.into_iter().map(one).collect())
}

fn class(disk: &Disk) -> String {
    match disk {
        disk if disk.bus == DiskBus::Nvme => "nvme",
        disk if disk.rotational => "hdd",
        _ => "ssd",
    }
    .into()
}

/// A path of udev's that stays.
fn path(disk: &Disk) -> Option<String> {
    let sound =
        |text: &&String| !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.:".contains(c));
    let by_wwn = disk.wwn.as_ref().filter(sound).map(|wwn| match disk.bus {
        DiskBus::Nvme if wwn.starts_with("eui.") || wwn.starts_with("nvme") => format!("/dev/disk/by-id/nvme-{wwn}"),
        DiskBus::Nvme => format!("/dev/disk/by-id/nvme-eui.{wwn}"),
        _ => format!(
            "/dev/disk/by-id/wwn-0x{}",
            wwn.trim_start_matches("0x").trim_start_matches("naa.")
        ),
    });
    let by_path = disk.by_path.as_ref().filter(sound);
    by_wwn.or_else(|| by_path.map(|path| format!("/dev/disk/by-path/{path}")))
}

/// True when every name that is given fits.
fn is(named: &DiskRef, disk: &Disk) -> bool {
    let same = |wanted: &Option<String>, found: &Option<String>| wanted.is_none() || wanted == found;
    let any = named.serial.is_some() || named.wwn.is_some() || named.by_path.is_some();
    any && same(&named.serial, &disk.serial)
        && same(&named.wwn, &disk.wwn)
        && same(&named.by_path, &disk.by_path)
        && named.size_bytes.is_none_or(|bytes| bytes == disk.size_bytes)
}
