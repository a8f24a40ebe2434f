//! Emptying disks, with evidence: what was done, in order, and what the device answered.
//!
//! Signatures are wiped with every method and first: they are what makes the next system take an old disk for its own.
//! What a method cannot do on a disk is an error, never another method in its place.

pub(crate) mod nvme;
pub(crate) mod signatures;

use std::time::{SystemTime, UNIX_EPOCH};

use rackbar_hardware::block;
use rackbar_messages::JobReport;
use rackbar_model::{DiskBus, DiskRef, EraseEvidence, EraseMethod, Timestamp};

use crate::control::{Control, io, refuse};
use crate::disk::{Buffer, Chosen, Disk, MIB, ioctl, is_zero, release, resolve};
use crate::{Machine, Result};
use nvme::Standing;

/// Places that are read back after overwriting, besides both ends.
const SAMPLES: u64 = 1024;

/// Bytes that are remembered of each of them.
const LOOK: u64 = 64 << 10;

fn now() -> Timestamp {
    Timestamp(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64),
    )
}

/// Empties disks, one after the other.
pub(crate) fn erase(machine: &Machine, disks: &[DiskRef], method: EraseMethod, control: &Control) -> Result<JobReport> {
    // All are looked at before the first one is touched: a typing error must not cost half a machine.
    let mut chosen = Vec::new();
    for wanted in disks {
        let disk = resolve(machine, wanted)?;
        let stopped = release(machine, &disk)?;
        chosen.push((wanted, disk, stopped));
    }
    let all: Vec<Chosen> = chosen.iter().map(|(_, disk, _)| disk.clone()).collect();
    let mut evidence = Vec::new();
    for (wanted, disk, mut steps) in chosen {
        control.check()?;
        let began = now();
        steps.extend(erase_one(&disk, &all, method, control)?);
        evidence.push(EraseEvidence {
            disk: wanted.clone(),
            model: disk.info.model.clone(),
            asked: method,
            steps,
            began,
            ended: now(),
        });
    }
    Ok(JobReport::Erased(evidence))
}

/// Empties one disk of all that the job is for; gives what was done.
pub(crate) fn erase_one(
    chosen: &Chosen,
    all: &[Chosen],
    method: EraseMethod,
    control: &Control,
) -> Result<Vec<String>> {
    let disk = Disk::open(&chosen.path).map_err(io(format_args!("opening {}", chosen.path.display())))?;
    let name = &chosen.info.name;
    control.begin(format!("emptying {name} ({})", method.name()), disk.bytes());
    let mut steps = Vec::new();
    match method {
        EraseMethod::Signatures => steps.extend(signatures::wipe(&disk, name)?),
        EraseMethod::Discard => {
            steps.extend(signatures::wipe(&disk, name)?);
            steps.push(discard(&disk, name)?);
        }
        EraseMethod::Sanitize | EraseMethod::Crypto if chosen.info.bus == DiskBus::Nvme => {
            steps.extend(by_itself(&disk, chosen, all, method == EraseMethod::Crypto, control)?);
        }
        EraseMethod::Sanitize | EraseMethod::Crypto => return Err(cannot(chosen, method)),
        EraseMethod::Overwrite => {
            steps.extend(signatures::wipe(&disk, name)?);
            steps.extend(overwrite(&disk, name, control)?);
        }
    }
    disk.sync().map_err(io(format_args!("writing out {name}")))?;
    if disk.is_block() {
        forget_partitions(&disk, name)?;
    }
    steps.push(signatures::verify(&disk, name)?);
    Ok(steps)
}

/// An NVMe disk that erases itself. After a failed sanitize operation it takes nothing but another one: there is nothing to
/// wipe or to remember then.
fn by_itself(disk: &Disk, chosen: &Chosen, all: &[Chosen], crypto: bool, control: &Control) -> Result<Vec<String>> {
    let name = &chosen.info.name;
    let erased = namespaces(chosen, all)?;
    let sanitize = || nvme::sanitize(disk.file(), name, crypto, &erased, control);
    match nvme::standing(disk.file(), name, control)? {
        Standing::Usable => {
            let mut steps = signatures::wipe(disk, name)?;
            let before = Remembered::of(disk, name, control)?;
            steps.extend(sanitize()?);
            steps.push(before.is_gone(disk, name, control)?);
            Ok(steps)
        }
        Standing::Failed => {
            let mut steps = vec![format!(
                "{name}: a sanitize operation had failed before, so that nothing could be read for comparison"
            )];
            steps.extend(sanitize()?);
            steps.extend(signatures::wipe(disk, name)?);
            Ok(steps)
        }
    }
}

/// Namespaces of a disk's controller that are among those to be emptied.
fn namespaces(chosen: &Chosen, all: &[Chosen]) -> Result<Vec<u32>> {
    let controller = controller(&chosen.info.name);
    let mine = all
        .iter()
        .filter(|other| self::controller(&other.info.name) == controller);
    mine.map(|other| {
        let file = std::fs::File::open(&other.path).map_err(io(format_args!("opening {}", other.path.display())))?;
        nvme::namespace(&file, &other.info.name)
    })
    .collect()
}

/// `nvme0` of `nvme0n1`.
fn controller(name: &str) -> &str {
    name.rsplit_once('n').map_or(name, |(controller, _)| controller)
}

/// SATA and SAS disks have such commands too (ACS-4 SANITIZE DEVICE, SECURITY ERASE UNIT; SBC-4 SANITIZE). They lock a
/// disk until they are done, some firmware freezes them at every start, and an interrupted one leaves a disk with a
/// password. Nothing of that could be tried on a real disk yet, so it is refused rather than guessed.
fn cannot(chosen: &Chosen, method: EraseMethod) -> rackbar_messages::JobFailure {
    refuse(
        format!(
            "{} ({:?}) is no NVMe disk; {} is done on NVMe disks only",
            chosen.info.name,
            chosen.info.bus,
            method.name()
        ),
        "choose overwrite, or discard for SSDs",
    )
}

fn discard(disk: &Disk, name: &str) -> Result<String> {
    ioctl::discard(disk.file(), 0, disk.bytes()).map_err(|error| {
        refuse(
            format!("{name} cannot discard its blocks: {error}"),
            "choose signatures or overwrite for this disk",
        )
    })?;
    Ok(format!("{name}: BLKDISCARD of {} bytes accepted", disk.bytes()))
}

fn overwrite(disk: &Disk, name: &str, control: &Control) -> Result<Vec<String>> {
    let mut done = 0;
    disk.overwrite(&mut |step| {
        done += step;
        control.at(done);
        control.check()
    })?;
    disk.sync().map_err(io(format_args!("writing out {name}")))?;
    let samples = read_back(disk, name, control)?;
    Ok(vec![
        format!("{name}: {} bytes overwritten with zeros", disk.bytes()),
        format!("{name}: {samples} MiB in {samples} places read back, all zero"),
    ])
}

/// Reads a MiB at both ends and at places spread evenly between them.
fn read_back(disk: &Disk, name: &str, control: &Control) -> Result<u64> {
    let last = disk.bytes().saturating_sub(MIB) / MIB;
    let step = (last / SAMPLES).max(1);
    let mut buffer = Buffer::new(MIB as usize);
    let mut count = 0;
    for place in (0..=last).step_by(usize::try_from(step).unwrap_or(1)).chain([last]) {
        control.check()?;
        let offset = place * MIB;
        let length = (disk.bytes() - offset).min(MIB) as usize;
        let part = buffer.get_mut(..length).unwrap_or_default();
        disk.read(part, offset)
            .map_err(io(format_args!("reading {name} at byte {offset}")))?;
        if !is_zero(part) {
            return Err(refuse(
                format!("{name} gives back data at byte {offset} after it was overwritten with zeros"),
                "the disk does not keep what it is told: replace it, and destroy it",
            ));
        }
        count += 1;
    }
    Ok(count)
}

/// What lies at places spread over a disk, to see that a disk that says it erased itself did: what it gives back afterwards
/// is its own affair (zeros, ones, noise), but not what was there.
struct Remembered(Vec<(u64, [u8; 32])>);

impl Remembered {
    fn of(disk: &Disk, name: &str, control: &Control) -> Result<Self> {
        let mut places = Vec::new();
        let mut buffer = Buffer::new(LOOK as usize);
        let last = disk.bytes().saturating_sub(MIB) / MIB;
        let step = (last / SAMPLES).max(1);
        for place in (0..=last).step_by(usize::try_from(step).unwrap_or(1)) {
            control.check()?;
            let part = look(disk, name, place * MIB, &mut buffer)?;
            // A place of one byte over and over tells nothing: that is how many disks come back.
            let plain = part.first().is_none_or(|first| part.iter().all(|byte| byte == first));
            if !plain {
                places.push((place * MIB, rackbar_trust::sha256(part)));
            }
        }
        Ok(Self(places))
    }

    fn is_gone(&self, disk: &Disk, name: &str, control: &Control) -> Result<String> {
        let mut buffer = Buffer::new(LOOK as usize);
        for (offset, before) in &self.0 {
            control.check()?;
            if rackbar_trust::sha256(look(disk, name, *offset, &mut buffer)?) == *before {
                return Err(refuse(
                    format!("{name} says it erased itself, and still has what was at byte {offset}"),
                    "choose overwrite, or destroy the disk",
                ));
            }
        }
        Ok(format!(
            "{name}: {} places that held data were read back; none holds it still",
            self.0.len()
        ))
    }
}

/// [`LOOK`] bytes of the disk, or what is left of it there.
fn look<'b>(disk: &Disk, name: &str, offset: u64, buffer: &'b mut Buffer) -> Result<&'b [u8]> {
    let length = disk.bytes().saturating_sub(offset).min(LOOK) as usize;
    let part = buffer.get_mut(..length).unwrap_or_default();
    disk.read(part, offset)
        .map_err(io(format_args!("reading {name} at byte {offset}")))?;
    Ok(part)
}

/// Makes the kernel forget partitions that are gone.
fn forget_partitions(disk: &Disk, name: &str) -> Result<()> {
    if block::reread_partitions(disk.file()).is_ok() {
        return Ok(());
    }
    // A kernel without a parser for what was there was told its partitions one by one.
    for number in 1..=128 {
        match block::remove_partition(disk.file(), number) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::libc::EBUSY) => {
                return Err(refuse(
                    format!("partition {number} of {name} is in use"),
                    "boot the machine again",
                ));
            }
            Err(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
