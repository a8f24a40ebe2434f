//! What the kernel of the running machine said was wrong.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::Duration;

use nix::libc;
use rackbar_hardware::Root;

/// Bytes told of one line.
const LINE: usize = 240;

/// Least severe level that is told: warnings (RFC 5424's 4). What is wrong is never said more quietly.
const LEVEL: u32 = 4;

/// The kernel's own records of one look at its log.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct KernelLog {
    /// How many records the kernel itself wrote, of any level.
    pub records: usize,
    /// Those that are warnings or worse, oldest first.
    told: Vec<String>,
}

impl KernelLog {
    /// Reads what `/dev/kmsg` under `root` holds now and was said when the machine had been up for `since` or longer. What
    /// cannot be read counts as nothing said.
    pub fn read(root: &Root, since: Duration) -> Self {
        Self::of(&log(root), since)
    }

    /// The last `count` warnings and errors, oldest first, each without control characters and at most 240 letters long.
    pub fn newest(&self, count: usize) -> impl Iterator<Item = &str> {
        let from = self.told.len().saturating_sub(count);
        self.told.iter().skip(from).map(String::as_str)
    }

    fn of(records: &[Vec<u8>], since: Duration) -> Self {
        let mut all = Self::default();
        for record in records {
            let text = String::from_utf8_lossy(record);
            let Some((head, message)) = text.split_once(';') else {
                continue;
            };
            // Level and facility, a number, microseconds since the machine was started (kernel documentation, dev-kmsg).
            let mut fields = head.split(',');
            let Some(priority) = fields.next().and_then(|word| word.parse::<u32>().ok()) else {
                continue;
            };
            let at = fields
                .nth(1)
                .and_then(|word| word.parse().ok())
                .map(Duration::from_micros);
            // Programs write into it too (facility 1 and above), and speak of other things.
            if priority >> 3 != 0 || at.unwrap_or_default() < since {
                continue;
            }
            all.records += 1;
            if priority & 7 <= LEVEL {
                let first = message.lines().next().unwrap_or_default();
                let plain = first
                    .chars()
                    .map(|letter| if letter.is_control() { ' ' } else { letter });
                all.told.push(plain.take(LINE).collect());
            }
        }
        all
    }
}

/// What is in the kernel's log now, record by record.
fn log(root: &Root) -> Vec<Vec<u8>> {
    let mut records = Vec::new();
    let open = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(root.path("dev/kmsg"));
    let Ok(mut device) = open else { return records };
    let mut buffer = vec![0; 8192];
    // Each read gives one record; more than this the ring never holds.
    for _ in 0..100_000 {
        match device.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => records.push(buffer.get(..length).unwrap_or_default().to_vec()),
            // A record was overwritten before it could be read: the next read gives the oldest that is left.
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::Interrupted) => {}
            Err(_) => break,
        }
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn records(lines: &[&str]) -> Vec<Vec<u8>> {
        lines.iter().map(|line| line.as_bytes().to_vec()).collect()
    }

    #[test]
    fn the_kernels_own_warnings_are_told_and_nothing_of_programs() {
        let log = records(&[
            "6,1,0,-;Linux version 6.1",
            "3,2,10,-;I/O error, dev sda, sector 8\n SUBSYSTEM=block",
            "11,3,20,-;systemd[1]: disk corrupted",
            "4,4,30,c;nvme nvme0: I/O 1 timeout\u{7}",
            "nonsense",
            "x,1;y",
        ]);
        let all = KernelLog::of(&log, Duration::ZERO);
        assert_eq!(all.records, 3);
        let told: Vec<&str> = all.newest(9).collect();
        assert_eq!(told, ["I/O error, dev sda, sector 8", "nvme nvme0: I/O 1 timeout "]);
        assert_eq!(all.newest(1).collect::<Vec<_>>(), told[1..]);
        let late = KernelLog::of(&log, Duration::from_micros(30));
        assert_eq!((late.records, late.newest(9).collect()), (1, told[1..].to_vec()));
    }

    proptest! {
        #[test]
        fn any_log_is_read(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
            let log = KernelLog::of(&records, Duration::ZERO);
            prop_assert!(log.newest(usize::MAX).all(|line| !line.contains(char::is_control)));
        }
    }
}
