//! An installed system: the disks it is on, its root, and its EFI system partition.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use rackbar_messages::JobReport;
use rackbar_model::{ImageSource, RootTarget};

use crate::control::{Control, fault, io, refuse};
use crate::disk::{Chosen, Disk, MIB, release, resolve};
use crate::mirror::{Array, Running, bitmap_sector, superblock_sector, usable};
use crate::mount::{self, Mounted};
use crate::table::{Layout, Part};
use crate::{Machine, Result, probe, stream};

/// The disks of a target, resolved and free.
pub(crate) fn choose(machine: &Machine, target: &RootTarget) -> Result<(Vec<Chosen>, Vec<String>)> {
    let mut chosen: Vec<Chosen> = Vec::new();
    let mut steps = Vec::new();
    for wanted in target.disks() {
        let disk = resolve(machine, wanted)?;
        if chosen.iter().any(|other| other.info.name == disk.info.name) {
            return Err(refuse(
                format!("both halves of the mirror are the same disk, {}", disk.info.name),
                "name two disks",
            ));
        }
        steps.extend(release(machine, &disk)?);
        chosen.push(disk);
    }
    Ok((chosen, steps))
}

fn open(chosen: &Chosen) -> Result<Disk> {
    Disk::open(&chosen.path).map_err(|error| {
        fault(
            format!("{} cannot be opened for writing: {error}", chosen.path.display()),
            "something uses the disk, or it is write-protected",
        )
    })
}

/// Writes an image and makes it fit its disks.
pub(crate) fn write(
    machine: &Machine,
    target: &RootTarget,
    image: &ImageSource,
    control: &Control,
) -> Result<JobReport> {
    let (chosen, steps) = choose(machine, target)?;
    write_to(machine, &chosen, steps, image, control)
}

/// The same on disks that were chosen.
pub(crate) fn write_to(
    machine: &Machine,
    chosen: &[Chosen],
    mut steps: Vec<String>,
    image: &ImageSource,
    control: &Control,
) -> Result<JobReport> {
    let begun = Instant::now();
    let disks: Vec<Arc<Disk>> = chosen
        .iter()
        .map(|disk| open(disk).map(Arc::new))
        .collect::<Result<_>>()?;
    let written = stream::write(image, &disks, control)?;
    if written.resumed > 0 {
        steps.push(format!(
            "the connection broke {} times and was taken up again",
            written.resumed
        ));
    }
    control.begin("making the partitions fit the disk", 0);
    steps.extend(fit(machine, chosen, disks).inspect_err(|_| unboot(chosen))?);
    Ok(JobReport::Written {
        sha256: written.sha256,
        fetched: written.fetched,
        disk_bytes: written.disk_bytes,
        holes: written.holes,
        millis: begun.elapsed().as_millis() as u64,
        steps,
    })
}

/// Takes the beginning away from disks whose system is not whole: the machine would start it, one half of a mirror even alone.
fn unboot(chosen: &[Chosen]) {
    for disk in chosen {
        // What failed before is what is told; a disk that cannot be written now is most likely a part of it.
        let _ = open(disk).and_then(|disk| {
            disk.zero(0, MIB, &mut |_| Ok(()))?;
            disk.sync().map_err(io("emptying the beginning of a disk"))
        });
    }
}

/// Grows tables, partitions and file systems; makes the mirror.
fn fit(machine: &Machine, chosen: &[Chosen], disks: Vec<Arc<Disk>>) -> Result<Vec<String>> {
    let mut steps = Vec::new();
    let mut roots = Vec::new();
    for (chosen, disk) in chosen.iter().zip(&disks) {
        match Layout::read(machine, &chosen.info.name, disk)? {
            Some(mut layout) => {
                steps.extend(layout.grow()?);
                roots.push(layout.root()?);
            }
            None => steps.push(format!(
                "{}: no GPT in the image, its table was left as it is",
                chosen.info.name
            )),
        }
    }
    let are_files = disks.iter().any(|disk| !disk.is_block());
    // We hold the disks for us alone, and the kernel would refuse to mount their partitions.
    drop(disks);
    match (roots.as_slice(), chosen.len()) {
        // Plain files have no partitions that could be mounted.
        _ if are_files => {}
        ([root], 1) => steps.push(mount::grow(machine, &root.path, root.bytes)?),
        ([first, second], 2) => steps.extend(mirror(machine, [first, second])?),
        (_, 1) => {}
        _ => {
            return Err(refuse(
                "a mirror needs an image with a GPT, and this one has none",
                "use another image, or a single disk",
            ));
        }
    }
    Ok(steps)
}

/// Writes the superblocks, starts the array once to see that the kernel takes it, and grows the file system on it.
fn mirror(machine: &Machine, halves: [&Part; 2]) -> Result<Vec<String>> {
    let bytes = [halves[0].bytes, halves[1].bytes];
    let sectors = usable(bytes);
    let device = File::open(&halves[0].path).map_err(io(halves[0].path.display()))?;
    let size = probe::file_system(&device).and_then(|content| probe::size(&device, content));
    let size = size.ok_or_else(|| {
        refuse(
            format!("{} holds no ext4 or xfs", halves[0].path.display()),
            "use an image whose root is ext4 or xfs",
        )
    })?;
    if size.bytes() > sectors.saturating_mul(512) {
        return Err(refuse(
            format!(
                "the root file system ({} MiB) leaves no room for the mirror's superblock",
                size.bytes() / MIB
            ),
            "choose disks larger than the image by 8 MiB or more",
        ));
    }
    let uuid = rackbar_trust::random().map_err(io("making the array's identity"))?;
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let array = Array {
        uuid,
        name: "any:root".to_owned(),
        created: now,
        sectors,
    };
    for (member, half) in halves.into_iter().enumerate() {
        let superblock = array.superblock(member as u16, half.bytes);
        let file = File::options()
            .write(true)
            .open(&half.path)
            .map_err(io(half.path.display()))?;
        // The bitmap first: a superblock promises that it is there.
        file.write_all_at(&array.bitmap(), bitmap_sector(half.bytes) * 512)
            .and_then(|()| file.sync_all())
            .and_then(|()| file.write_all_at(&superblock, superblock_sector(half.bytes) * 512))
            .and_then(|()| file.sync_all())
            .map_err(io(format_args!("writing the superblock of {}", half.path.display())))?;
    }
    let running = Running::assemble(machine, halves.map(|half| half.path.as_path()))?;
    let mut steps = vec![format!(
        "mirror of {} and {}",
        halves[0].path.display(),
        halves[1].path.display()
    )];
    steps.push(mount::grow(machine, running.path(), sectors * 512)?);
    let root = Mounted::new(machine, running.path())?;
    if !["sbin/mdadm", "usr/sbin/mdadm"]
        .iter()
        .any(|path| root.path().join(path).exists())
    {
        return Err(refuse(
            "the image has no mdadm: it would start from one half of the mirror and let the two drift apart",
            "use an image with mdadm in its initramfs, or a single disk",
        ));
    }
    root.unmount()?;
    steps.push(format!("the kernel takes the array: {}", running.state(machine)));
    Ok(steps)
}

/// An installed system that is worked on.
pub(crate) struct Installed {
    /// The disks, the first one leading.
    pub(crate) chosen: Vec<Chosen>,
    /// The root partition of each disk.
    pub(crate) roots: Vec<Part>,
    /// The EFI system partition of each disk that has one.
    pub(crate) esps: Vec<Part>,
    array: Option<Running>,
}

impl Installed {
    /// Finds the system on a target and puts its mirror together.
    pub(crate) fn find(machine: &Machine, target: &RootTarget) -> Result<Self> {
        let (chosen, _) = choose(machine, target)?;
        let (mut roots, mut esps) = (Vec::new(), Vec::new());
        for disk in &chosen {
            let file = open(disk)?;
            let layout = Layout::read(machine, &disk.info.name, &file)?.ok_or_else(|| {
                refuse(
                    format!("{} has no partition table that can be read", disk.info.name),
                    "write the image first; images without GPT cannot be set up from outside",
                )
            })?;
            layout.tell_kernel()?;
            roots.push(layout.root()?);
            esps.extend(layout.esp());
        }
        let array = match (target, roots.as_slice()) {
            (RootTarget::Mirror(_), [first, second]) => Some(Running::assemble(machine, [&first.path, &second.path])?),
            _ => None,
        };
        Ok(Self {
            chosen,
            roots,
            esps,
            array,
        })
    }

    /// The device of the root file system.
    pub(crate) fn root(&self) -> Result<PathBuf> {
        let first = self.roots.first().map(|root| root.path.as_path());
        let device: Option<&Path> = self.array.as_ref().map(Running::path).or(first);
        device
            .map(Path::to_owned)
            .ok_or_else(|| refuse("the target names no disk", ""))
    }

    /// Mounts the root file system.
    pub(crate) fn mount(&self, machine: &Machine) -> Result<Mounted> {
        Mounted::new(machine, &self.root()?)
    }
}

#[cfg(test)]
mod tests;
