//! What services and the kernel say, kept in `/run/log` within a bound.
//!
//! `/run` is memory: each log may take twice [`LOG_LIMIT`], the older half is dropped when the newer one is full.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use crate::report::say;

/// Folder of the logs.
pub(crate) const LOG_FOLDER: &str = "/run/log";

/// Bytes in one half of a log: some 5,000 lines, hours of a busy service.
pub(crate) const LOG_LIMIT: u64 = 512 << 10;

/// A longer line is cut here; a service that never ends its lines must not fill our memory.
const LINE_LIMIT: u64 = 8 << 10;

/// A log file and its predecessor `<name>.old`.
pub(crate) struct BoundedLog {
    path: PathBuf,
    file: Option<File>,
    written: u64,
    limit: u64,
}

impl BoundedLog {
    /// Goes on with the log at `path`; nothing is created before the first write.
    pub(crate) fn new(path: impl Into<PathBuf>, limit: u64) -> Self {
        let path = path.into();
        let written = std::fs::metadata(&path).map_or(0, |m| m.len());
        Self {
            path,
            file: None,
            written,
            limit,
        }
    }

    /// Appends. A write that fails is dropped: a full `/run` must not stop a service.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        if self.written >= self.limit {
            self.file = None;
            let _ = std::fs::rename(&self.path, self.path.with_extension("old"));
            self.written = 0;
        }
        if self.file.is_none() {
            // Logs may quote what clients sent; only root reads them.
            self.file = OpenOptions::new()
                .create(true)
                .append(true)
                .mode(0o600)
                .open(&self.path)
                .ok();
        }
        if let Some(file) = &mut self.file
            && file.write_all(bytes).is_ok()
        {
            self.written += bytes.len() as u64;
        }
    }
}

/// Keeps what comes out of a service's pipe, line by line, until the last holder of its other end is gone. With
/// `mirror` the lines go to the console as well.
pub(crate) fn service(name: &str, pipe: impl Read + Send + 'static, mirror: bool) {
    let path = Path::new(LOG_FOLDER).join(name);
    let result = thread::Builder::new()
        .name(format!("log-{name}"))
        .stack_size(64 << 10)
        .spawn(move || {
            let mut log = BoundedLog::new(path, LOG_LIMIT);
            let mut reader = BufReader::new(pipe);
            let mut line = Vec::new();
            while matches!(reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line), Ok(n) if n > 0) {
                if line.last() != Some(&b'\n') {
                    line.push(b'\n');
                }
                log.write(&line);
                if mirror {
                    let _ = io::stdout().lock().write_all(&line);
                }
                line.clear();
            }
        });
    if let Err(error) = result {
        say!("cannot keep the log of {name}: {error}");
    }
}

/// Keeps the kernel's log in `/run/log/kernel`.
pub(crate) fn kernel() {
    let result = thread::Builder::new()
        .name("log-kernel".to_owned())
        .stack_size(64 << 10)
        .spawn(|| {
            let Ok(mut kmsg) = File::open("/dev/kmsg") else {
                say!("the kernel's log cannot be kept: /dev/kmsg does not open");
                return;
            };
            let mut log = BoundedLog::new(Path::new(LOG_FOLDER).join("kernel"), LOG_LIMIT);
            // One read gives one record; 8 KiB is the longest the kernel makes.
            let mut record = vec![0u8; 8 << 10];
            loop {
                match kmsg.read(&mut record) {
                    Ok(length) => {
                        if let Some(line) = kernel_line(record.get(..length).unwrap_or_default()) {
                            log.write(line.as_bytes());
                        }
                    }
                    // EPIPE: the ring overtook us and some records are lost; the next read goes on behind the gap.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => log.write(b"(kernel messages lost)\n"),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(_) => return,
                }
            }
        });
    if let Err(error) = result {
        say!("cannot keep the kernel's log: {error}");
    }
}

/// A record of `/dev/kmsg`, `priority,sequence,microseconds,flags;text`, as `dmesg` would print it.
fn kernel_line(record: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(record);
    let (head, body) = text.split_once(';')?;
    let mut fields = head.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let micros: u64 = fields.nth(1)?.parse().ok()?;
    let line = body.lines().next().unwrap_or_default();
    Some(format!(
        "<{}> [{:5}.{:06}] {line}\n",
        priority & 7,
        micros / 1_000_000,
        micros % 1_000_000
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_log_keeps_its_newest_lines_and_stays_within_twice_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut log = BoundedLog::new(&path, 100);
        for i in 0..100 {
            log.write(format!("line {i:3}\n").as_bytes());
        }
        let new = std::fs::read_to_string(&path).unwrap();
        let old = std::fs::read_to_string(folder.path().join("x.old")).unwrap();
        assert!(new.ends_with("line  99\n"), "{new}");
        assert!(old.len() <= 110 && new.len() <= 110);
    }

    #[test]
    fn a_kernel_record_reads_like_dmesg() {
        let line = kernel_line(b"6,339,5140900,-;NET: Registered PF_NETLINK\n SUBSYSTEM=net\n").unwrap();
        assert_eq!(line, "<6> [    5.140900] NET: Registered PF_NETLINK\n");
    }

    proptest! {
        #[test]
        fn any_record_is_read(bytes: Vec<u8>) {
            let _ = kernel_line(&bytes);
        }
    }
}
