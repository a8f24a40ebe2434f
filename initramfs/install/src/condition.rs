//! How the running machine is: what the appliance's checks ask of an installed system by script, of a machine that runs this
//! agent and no system. The words are those of the checks' own probes: lines of `name=value`.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rackbar_hardware::Root;

use crate::kernel_log::KernelLog;

/// Lines of the kernel's log that are told, the newest ones.
const LINES: usize = 400;

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
    let log = KernelLog::read(root, Duration::ZERO);
    out.push(format!("lines={}", log.records));
    out.extend(log.newest(LINES).map(|line| format!("log={line}")));
    // Last, so that it is as new as can be.
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    out.push(format!("clock={}.{:09}", clock.as_secs(), clock.subsec_nanos()));
    out.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
