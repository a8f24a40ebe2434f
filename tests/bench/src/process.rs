//! A server process under measurement: its processor time and memory, children included.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

pub(crate) struct Server {
    child: Child,
}

impl Server {
    /// Starts it and waits until `ready` holds.
    pub(crate) fn start(mut command: Command, mut ready: impl FnMut() -> bool) -> Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut server = Self {
            child: child.with_context(|| format!("starting {command:?}"))?,
        };
        let end = Instant::now() + Duration::from_secs(20);
        while !ready() {
            if let Some(status) = server.child.try_wait()? {
                let mut text = String::new();
                if let Some(mut stderr) = server.child.stderr.take() {
                    let _ = std::io::Read::read_to_string(&mut stderr, &mut text);
                }
                bail!("{command:?} ended with {status}: {text}");
            }
            if Instant::now() > end {
                bail!("{command:?} does not answer");
            }
            std::thread::yield_now();
        }
        Ok(server)
    }

    /// The process and all its descendants.
    fn tree(&self) -> Vec<u32> {
        let mut tree = vec![self.child.id()];
        let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let pid = entry.file_name().to_str()?.parse().ok()?;
                Some((pid, stat(pid)?.get(1)?.parse().ok()?))
            })
            .collect();
        let mut at = 0;
        while let Some(&parent) = tree.get(at) {
            tree.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
            at += 1;
        }
        tree
    }

    /// Processor time used so far by the tree, ended children included.
    pub(crate) fn cpu(&self) -> Duration {
        let ticks: u64 = self
            .tree()
            .into_iter()
            .filter_map(stat)
            .map(|fields| {
                fields
                    .iter()
                    .skip(11)
                    .take(4)
                    .filter_map(|f| f.parse::<u64>().ok())
                    .sum::<u64>()
            })
            .sum();
        // USER_HZ is 100 on every Linux there is.
        Duration::from_millis(ticks * 10)
    }

    /// Resident memory of the tree in KiB, shared pages counted in proportion.
    pub(crate) fn memory_kib(&self) -> u64 {
        self.tree()
            .into_iter()
            .filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok())
            .filter_map(|text| {
                let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
                line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()
            })
            .sum()
    }

    /// As [`memory_kib`](Self::memory_kib), in MiB.
    pub(crate) fn memory_mib(&self) -> f64 {
        self.memory_kib() as f64 / 1024.0
    }
}

/// Fields of /proc/PID/stat from the state on: state 0, parent 1, ..., utime 11, stime 12, cutime 13, cstime 14.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

impl Drop for Server {
    fn drop(&mut self) {
        // Parents first: nginx starts a worker anew that ends before it.
        for pid in self.tree() {
            // Gone already is as good.
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid.cast_signed()),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        let _ = self.child.wait();
    }
}
