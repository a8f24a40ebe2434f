//! Choosing the root disk: unique by intent, or a refusal that lists every disk and why it fits or not.

use rackbar_model::{Disk, DiskBus, DiskMedia, DiskPick, DiskRef, ImageEntry, InstallerSystem, RootTarget};

use crate::site::Root;

const GIB: u64 = 1 << 30;

/// Least size of a disk that an installer is given: a plain system with its packages, and room for a role's. Of the Red Hat
/// family what its answers ask for: 8 GiB for `/`, and what is booted from. Ubuntu's whole live system is copied to it.
const fn installed(system: InstallerSystem) -> u64 {
    match system {
        InstallerSystem::Debian => 4 * GIB,
        InstallerSystem::Rhel
        | InstallerSystem::Rocky
        | InstallerSystem::Alma
        | InstallerSystem::CentosStream
        | InstallerSystem::Fedora
        | InstallerSystem::Ubuntu => 10 * GIB,
    }
}

/// The reference to a disk that plans carry: all that names it, and its size.
pub(crate) fn reference(disk: &Disk) -> DiskRef {
    DiskRef {
        serial: disk.serial.clone(),
        wwn: disk.wwn.clone(),
        by_path: disk.by_path.clone(),
        size_bytes: Some(disk.size_bytes),
    }
}

/// A disk in words: `nvme disk VIRTUAL NVME, serial n1-0, 8.0 GiB`.
pub(crate) fn words(disk: &Disk) -> String {
    let bus = match disk.bus {
        DiskBus::Unknown => "",
        DiskBus::Nvme => "nvme ",
        DiskBus::Sata => "sata ",
        DiskBus::Sas => "sas ",
        DiskBus::Virtio => "virtio ",
        DiskBus::Usb => "usb ",
        DiskBus::Mmc => "mmc ",
    };
    let model = disk.model.as_deref().unwrap_or("of unknown model");
    let name = match (&disk.serial, &disk.wwn, &disk.by_path) {
        (Some(serial), ..) => format!("serial {serial}"),
        (None, Some(wwn), _) => format!("no serial, WWN {wwn}"),
        (None, None, Some(path)) => format!("no serial, at {path}"),
        (None, None, None) => "no serial, WWN or path".to_owned(),
    };
    format!("{bus}disk {model}, {name}, {}", size(disk.size_bytes))
}

/// `8.0 GiB`, `512 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    if bytes < GIB {
        return format!("{} MiB", bytes >> 20);
    }
    let tenths = bytes / (GIB / 10);
    format!("{}.{} GiB", tenths / 10, tenths % 10)
}

/// Chooses where a system goes. Where the intent leaves several, the place it already has is kept.
pub(super) fn choose(
    root: &Root,
    disks: &[Disk],
    image: &ImageEntry,
    present: Option<&RootTarget>,
) -> Result<RootTarget, String> {
    let verdicts: Vec<Result<(), String>> = disks.iter().map(|disk| fits(root, disk, disks, image)).collect();
    let fitting: Vec<&Disk> = disks
        .iter()
        .zip(&verdicts)
        .filter(|(_, verdict)| verdict.is_ok())
        .map(|(disk, _)| disk)
        .collect();
    let picked = pick(root.pick, &fitting);
    if let Some(target) = target(root.mirror, &picked) {
        return Ok(target);
    }
    let still_there = |target: &&RootTarget| {
        matches!(target, RootTarget::Mirror(_)) == root.mirror
            && target
                .disks()
                .iter()
                .all(|wanted| picked.iter().any(|disk| reference(disk) == *wanted))
    };
    match present.filter(still_there) {
        Some(target) => Ok(target.clone()),
        None => Err(refusal(root, disks, &verdicts, &picked)),
    }
}

fn target(mirror: bool, picked: &[&Disk]) -> Option<RootTarget> {
    match (mirror, picked) {
        (false, [one]) => Some(RootTarget::Disk(reference(one))),
        (true, [one, two]) => Some(RootTarget::Mirror([reference(one), reference(two)])),
        _ => None,
    }
}

/// Those of the smallest or largest size.
fn pick<'d>(pick: Option<DiskPick>, fitting: &[&'d Disk]) -> Vec<&'d Disk> {
    let sizes = fitting.iter().map(|disk| disk.size_bytes);
    let wanted = match pick {
        None => return fitting.to_vec(),
        Some(DiskPick::Smallest) => sizes.min(),
        Some(DiskPick::Largest) => sizes.max(),
    };
    fitting
        .iter()
        .filter(|disk| Some(disk.size_bytes) == wanted)
        .copied()
        .collect()
}

/// Why a disk does not fit.
fn fits(root: &Root, disk: &Disk, disks: &[Disk], image: &ImageEntry) -> Result<(), String> {
    by_intent(root, disk)?;
    let named = root.serial.is_some();
    let portable = disk.removable || matches!(disk.bus, DiskBus::Usb | DiskBus::Mmc);
    if portable && !named {
        return Err("removable, USB and memory-card disks are taken only when named by serial".to_owned());
    }
    told_apart(root, disk, disks)?;
    let needed = match &image.installer {
        Some(installer) => installed(installer.system),
        None => image.disk_bytes.unwrap_or(image.bytes),
    };
    if disk.size_bytes < needed {
        return Err(format!(
            "it is smaller than the image {}, which needs {}",
            image.name,
            size(needed)
        ));
    }
    // A disk image's GPT counts in the sectors it was made with; firmware looks for it in the disk's own.
    if disk.sector_bytes > 512 && image.installer.is_none() {
        return Err(format!(
            "its sectors are {} bytes; disk images are made for 512",
            disk.sector_bytes
        ));
    }
    if disk.health.as_ref().is_some_and(|health| !health.ok) && !named {
        return Err("the disk itself reports that it is failing".to_owned());
    }
    Ok(())
}

/// Why a disk could be taken for another one, or another one for it.
fn told_apart(root: &Root, disk: &Disk, disks: &[Disk]) -> Result<(), String> {
    if disk.serial.is_none() && disk.wwn.is_none() && disk.by_path.is_none() {
        return Err("it has neither serial, WWN nor path: it could not be told from another".to_owned());
    }
    // Two kernel devices with one serial are two paths to one disk, or a maker who numbers nothing: writing either is a
    // gamble, and mirroring one onto the other destroys it.
    // Volumes of one RAID controller, and namespaces of one NVMe disk, have one serial; their WWNs tell them apart.
    let twin = |other: &&Disk| {
        let numbered = other.serial.is_some() && other.serial == disk.serial && other.model == disk.model;
        let apart = other.wwn.is_some() && disk.wwn.is_some();
        !std::ptr::eq(*other, disk) && (apart && other.wwn == disk.wwn || numbered && !apart)
    };
    if let Some(twin) = disks.iter().find(twin) {
        return Err(format!(
            "it has the serial or WWN of {} too: two paths to one disk?",
            twin.name
        ));
    }
    // One that only its path tells must have that path alone: whoever writes it looks it up by that.
    // And who names a path means one disk, not the one of two that happens to have a serial.
    let nameless = |disk: &Disk| disk.serial.is_none() && disk.wwn.is_none();
    let beside = |other: &&Disk| {
        !std::ptr::eq(*other, disk)
            && other.by_path == disk.by_path
            && (nameless(disk) || root.by_path.is_some() && nameless(other))
    };
    if let Some(other) = disks.iter().find(beside) {
        if !nameless(disk) {
            return Err(format!(
                "its path is that of {} too, which has no serial and no WWN",
                other.name
            ));
        }
        return Err(format!(
            "it has no serial and no WWN, and the path of {} too: it could not be told from it",
            other.name
        ));
    }
    Ok(())
}

fn by_intent(root: &Root, disk: &Disk) -> Result<(), String> {
    let text = |what: &str, wanted: &Option<String>, found: &Option<String>| match wanted {
        Some(wanted) if found.as_ref() != Some(wanted) => Err(format!(
            "its {what} is {}, not {wanted}",
            found.as_deref().unwrap_or("unknown")
        )),
        _ => Ok(()),
    };
    text("serial", &root.serial, &disk.serial)?;
    text("WWN", &root.wwn, &disk.wwn)?;
    text("path", &root.by_path, &disk.by_path)?;
    if root
        .media
        .is_some_and(|media| (media == DiskMedia::Hdd) != disk.rotational)
    {
        return Err(if disk.rotational {
            "it rotates"
        } else {
            "it does not rotate"
        }
        .to_owned());
    }
    if let Some(bus) = root.bus.filter(|bus| *bus != disk.bus) {
        return Err(format!("it is not on the bus {bus:?}").to_lowercase());
    }
    if let Some(least) = root.min_gib.filter(|least| disk.size_bytes < least.saturating_mul(GIB)) {
        return Err(format!("it is smaller than {least} GiB"));
    }
    if let Some(most) = root.max_gib.filter(|most| disk.size_bytes > most.saturating_mul(GIB)) {
        return Err(format!("it is larger than {most} GiB"));
    }
    let model = disk.model.as_deref().unwrap_or_default().to_lowercase();
    if let Some(wanted) = root
        .model
        .as_deref()
        .filter(|wanted| !model.contains(&wanted.to_lowercase()))
    {
        return Err(format!("its model does not contain {wanted}"));
    }
    Ok(())
}

fn refusal(root: &Root, disks: &[Disk], verdicts: &[Result<(), String>], picked: &[&Disk]) -> String {
    let wanted = if root.mirror {
        "exactly two disks for the mirror"
    } else {
        "exactly one disk"
    };
    let found = match (disks.len(), picked.len()) {
        (0, _) => return "root disk: the machine has no disk that the agent can see; look for missing_drivers in its inventory, or give it a role in memory".to_owned(),
        (_, 0) => "none fits".to_owned(),
        (_, 1) => "only one fits".to_owned(),
        (_, count) => format!("{count} fit"),
    };
    let list: Vec<String> = disks
        .iter()
        .zip(verdicts)
        .map(|(disk, verdict)| {
            let is_picked = picked.iter().any(|other| std::ptr::eq(*other, disk));
            let why = match verdict {
                Err(why) => why.clone(),
                Ok(()) if is_picked => "fits".to_owned(),
                Ok(()) => "fits, but is not the size `pick` asks for".to_owned(),
            };
            format!("{} ({why})", words(disk))
        })
        .collect();
    format!(
        "root disk: {wanted} must fit `root`, {found}. Disks: {}. Narrow or widen `root`, for instance by serial",
        list.join("; ")
    )
}
