//! How the running machine is: what the appliance's checks ask of an installed system by script, of a machine that runs this
//! agent and no system. The words are those of the checks' own probes: lines of `name=value`.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::libc;
use rackbar_hardware::Root;

/// Lines of the kernel's log that are told, the newest ones.
const LINES: usize = 400;

/// Bytes told of one line.
const LINE: usize = 240;

/// Least severe level of the kernel's log that is told: warnings (RFC 5424's 4). What is wrong is never said more quietly.
const LEVEL: u32 = 4;

/// All of it.
pub(crate) fn read(root: &Root) -> String {
    let mut out = Vec::new();
    let file = |path: &str| fs::read_to_string(root.path(path)).unwrap_or_default();
    let memory = file("proc/meminfo");
    if let Some(total) = memory.lines().find_map(|line| line.strip_prefix("MemTotal:")) {
        out.push(format!("memory={}", total.trim()));
    }
    out.push(format!("online={}", file("sys/devices/system/cpu/online").trim()));
    out.push(format!("tainted={}", file("proc/sys/kernel/tainted").trim()));
    let (lines, told) = kernel_log(&log(root));
    out.push(format!("lines={lines}"));
    out.extend(told.into_iter().map(|line| format!("log={line}")));
    // Last, so that it is as new as can be.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    out.push(format!("clock={}.{:09}", clock.as_secs(), clock.subsec_nanos()));
    out.join("\n")
}

/// What is in the kernel's log now, record by record (kernel documentation, dev-kmsg).
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

/// How many records the kernel itself wrote, and the newest of those that are warnings or worse.
fn kernel_log(records: &[Vec<u8>]) -> (usize, Vec<String>) {
    let (mut count, mut told) = (0, std::collections::VecDeque::new());
    for record in records {
        let text = String::from_utf8_lossy(record);
        let Some((head, message)) = text.split_once(';') else {
            continue;
        };
        let Some(priority) = head.split(',').next().and_then(|word| word.parse::<u32>().ok()) else {
            continue;
        };
        // Programs write into it too (facility 1 and above), and speak of other things.
        if priority >> 3 != 0 {
            continue;
        }
        count += 1;
        if priority & 7 > LEVEL {
            continue;
        }
        let first = message.lines().next().unwrap_or_default();
        let plain = first
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter });
        told.push_back(plain.take(LINE).collect());
        if told.len() > LINES {
            told.pop_front();
        }
    }
    (count, told.into())
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
        assert_eq!(
            kernel_log(&log),
            (
                3,
                vec![
                    "I/O error, dev sda, sector 8".to_owned(),
                    "nvme nvme0: I/O 1 timeout ".to_owned()
                ]
            )
        );
    }

    #[test]
    fn a_machine_tells_of_itself_in_the_words_of_the_probes() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [
            ("proc/meminfo", "MemTotal:       16384256 kB\nMemFree: 1 kB\n"),
            ("sys/devices/system/cpu/online", "0-3\n"),
            ("proc/sys/kernel/tainted", "4096\n"),
            ("dev/kmsg", "3,2,10,-;I/O error, dev sda"),
        ] {
            let path = dir.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let told = read(&Root::new(dir.path()));
        let told: Vec<&str> = told.lines().collect();
        assert_eq!(
            told[..5],
            [
                "memory=16384256 kB",
                "online=0-3",
                "tainted=4096",
                "lines=1",
                "log=I/O error, dev sda"
            ]
        );
        assert!(told[5].starts_with("clock="));
    }

    proptest! {
        #[test]
        fn any_log_is_read(records in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..20)) {
            let (_, told) = kernel_log(&records);
            prop_assert!(told.iter().all(|line| !line.contains(char::is_control)));
        }
    }
}
