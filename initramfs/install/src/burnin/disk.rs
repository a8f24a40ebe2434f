//! Disks: all at once, half of the time read from front to back, half at random places, past the page cache.

use std::path::Path;
use std::time::Duration;

use rackbar_hardware::disks;
use rackbar_model::{CheckResult, Disk as DiskInfo};

use super::Span;
use crate::control::Control;
use crate::disk::{ALIGN, Buffer, Disk, MIB};
use crate::{Machine, Result};

/// Errors that are listed for a disk; a disk with that many has failed.
const LISTED: usize = 4;

/// Reads of all disks.
pub(super) fn run(machine: &Machine, length: Duration, control: &Control) -> Result<Vec<CheckResult>> {
    let span = Span::begin("reading the disks", length, control);
    let disks = disks::read(&machine.root);
    let results = std::thread::scope(|scope| {
        let workers: Vec<_> = disks
            .iter()
            .map(|info| {
                let (path, span) = (machine.root.path(format!("dev/{}", info.name)), &span);
                scope.spawn(move || exercise(info, &path, span))
            })
            .collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).collect()
    });
    control.check()?;
    Ok(results)
}

/// What reading a disk gave.
#[derive(Default)]
struct Reads {
    bytes: u64,
    random: u64,
    errors: u64,
    faults: Vec<String>,
}

impl Reads {
    fn failed(&mut self, offset: u64, error: &std::io::Error) {
        self.errors += 1;
        if self.faults.len() < LISTED {
            self.faults.push(format!("byte {offset}: {error}"));
        }
    }
}

fn exercise(info: &DiskInfo, path: &Path, span: &Span<'_>) -> CheckResult {
    // One id for all: it is the name of a check. Which disk it is the words say.
    let id = "burnin.disk".to_owned();
    let wanted = format!(
        "{} ({}, {}) reads without an error",
        info.name,
        info.model.as_deref().unwrap_or("no model"),
        info.serial.as_deref().map_or_else(
            || "no serial number".to_owned(),
            |serial| format!("serial number {serial}")
        )
    );
    let advice = "replace the disk, or look at its cable and controller";
    let disk = match Disk::open_to_read(path) {
        Ok(disk) if disk.bytes() >= MIB => disk,
        Ok(_) => {
            return span.result(
                id,
                wanted,
                &["it has less than a MiB".to_owned()],
                String::new(),
                advice,
            );
        }
        Err(error) => {
            return span.result(
                id,
                wanted,
                &[format!("it cannot be opened: {error}")],
                String::new(),
                advice,
            );
        }
    };
    let mut reads = Reads::default();
    let half = span.length / 2;
    let (sequential, random) = (
        front_to_back(&disk, span, half, &mut reads),
        at_random(&disk, span, &mut reads),
    );
    let observed = format!(
        "{} MiB in sequence at {:.0} MB/s, {} random reads at {:.0} a second, {} errors",
        reads.bytes / MIB,
        reads.bytes as f64 / 1e6 / sequential.as_secs_f64().max(0.001),
        reads.random,
        reads.random as f64 / random.as_secs_f64().max(0.001),
        reads.errors
    );
    span.result(id, wanted, &reads.faults, observed, advice)
}

fn front_to_back(disk: &Disk, span: &Span<'_>, until: Duration, reads: &mut Reads) -> Duration {
    let begun = std::time::Instant::now();
    let mut buffer = Buffer::new(MIB as usize);
    let mut offset = 0;
    while span.begun.elapsed() < until && span.goes_on() && reads.errors < 100 {
        match disk.read(&mut buffer, offset) {
            Ok(()) => reads.bytes += MIB,
            Err(error) => reads.failed(offset, &error),
        }
        offset += MIB;
        if offset + MIB > disk.bytes() {
            offset = 0;
        }
    }
    begun.elapsed()
}

fn at_random(disk: &Disk, span: &Span<'_>, reads: &mut Reads) -> Duration {
    let begun = std::time::Instant::now();
    let mut buffer = Buffer::new(ALIGN);
    let places = (disk.bytes() / ALIGN as u64).max(1);
    // Xorshift: any sequence will do that leaves no place out in the long run.
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    while span.goes_on() && reads.errors < 100 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        let offset = state % places * ALIGN as u64;
        match disk.read(&mut buffer, offset) {
            Ok(()) => reads.random += 1,
            Err(error) => reads.failed(offset, &error),
        }
    }
    begun.elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rackbar_model::CheckStatus;

    #[test]
    fn a_disk_is_read_and_one_that_ends_early_is_found() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 * MIB).unwrap();
        let info = DiskInfo {
            name: "vda".into(),
            serial: Some("S1".into()),
            ..DiskInfo::default()
        };
        let control = Control::default();
        let good = exercise(
            &info,
            file.path(),
            &Span::begin("", Duration::from_millis(200), &control),
        );
        assert_eq!(
            (good.id.as_str(), good.status),
            ("burnin.disk", CheckStatus::Passed),
            "{good:?}"
        );
        assert!(good.wanted.contains("vda") && good.wanted.contains("S1"), "{good:?}");
        let gone = exercise(
            &info,
            Path::new("/nonexistent"),
            &Span::begin("", Duration::from_millis(10), &control),
        );
        assert_eq!(gone.status, CheckStatus::Failed);
        // Reads past the end are what a disk with dead blocks gives: errors, counted.
        let disk = Disk::open_to_read(file.path()).unwrap();
        file.as_file().set_len(MIB).unwrap();
        let mut reads = Reads::default();
        let span = Span::begin("", Duration::from_millis(200), &control);
        front_to_back(&disk, &span, Duration::from_millis(200), &mut reads);
        assert!(reads.errors > 0 && reads.faults.len() <= LISTED);
    }
}
