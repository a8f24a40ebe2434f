//! A job that does not move: noticed, and explained as far as the kernel explains it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rackbar_hardware::Root;
use rackbar_install::{KernelLog, Progress};

use crate::report::say;

/// Stillness that is worth a word: longer than a large disk takes to write its cache out.
const LONG: Duration = Duration::from_secs(60);

/// Between two looks at what the threads wait for.
const LOOK: Duration = Duration::from_secs(30);

/// Callers of the function a thread waits in that are named.
const FRAMES: usize = 4;

/// Newest words of the kernel that are told.
const SAID: usize = 2;

/// How long a job has been at one point.
#[derive(Default)]
pub(crate) struct Still {
    last: Option<(Progress, Instant)>,
    words: Option<(String, Instant)>,
}

impl Still {
    /// Takes how far the job is at `now`. Gives words when it has not moved for long.
    pub(crate) fn look(&mut self, progress: &Progress, now: Instant) -> Option<String> {
        let since = match &self.last {
            Some((last, since)) if last == progress => *since,
            _ => {
                self.last = Some((progress.clone(), now));
                self.words = None;
                return None;
            }
        };
        let still = now.saturating_duration_since(since);
        if still < LONG {
            return None;
        }
        let due = |(_, at): &(String, Instant)| now.saturating_duration_since(*at) >= LOOK;
        if self.words.as_ref().is_none_or(due) {
            let waits = waits(Path::new("/proc/self/task")) + &said(&Root::default(), still);
            say!("{} has not moved for {} s: {waits}", progress.doing, still.as_secs());
            self.words = Some((waits, now));
        }
        let waits = self.words.as_ref().map_or("", |(words, _)| words);
        Some(format!("has not moved for {} s; {waits}", still.as_secs()))
    }
}

/// What the threads of a job wait for, by the names of kernel functions, from a folder as `/proc/self/task` is one.
fn waits(tasks: &Path) -> String {
    let Ok(entries) = fs::read_dir(tasks) else {
        return "what its threads wait for cannot be read".to_owned();
    };
    let mut words: Vec<String> = entries.flatten().filter_map(|entry| wait(&entry.path())).collect();
    words.sort();
    if words.is_empty() {
        return "its threads are gone".to_owned();
    }
    words.join(", ")
}

/// What the kernel said was wrong in the last `still`: a driver whose device does not answer says so there and nowhere else.
fn said(root: &Root, still: Duration) -> String {
    let uptime = fs::read_to_string(root.path("proc/uptime")).unwrap_or_default();
    let up = uptime.split(' ').next().and_then(|seconds| seconds.parse().ok());
    let Some(up) = up.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) else {
        return String::new();
    };
    let log = KernelLog::read(root, up.saturating_sub(still));
    let words: Vec<&str> = log.newest(SAID).collect();
    match words.is_empty() {
        true => String::new(),
        false => format!("; the kernel said: {}", words.join("; ")),
    }
}

/// One thread, when it is one of a job's.
fn wait(task: &Path) -> Option<String> {
    let read = |name: &str| fs::read_to_string(task.join(name)).unwrap_or_default();
    let name = read("comm").trim().to_owned();
    if !matches!(name.as_str(), "job" | "writer") {
        return None;
    }
    // The state follows the name in brackets, which may itself hold brackets (proc(5)).
    let stat = read("stat");
    let state = match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        Some('R') => "runs",
        Some('D') => "waits in the kernel for a device",
        Some(_) => "waits",
        None => "is in a state that cannot be read",
    };
    let frames = frames(&read("stack"));
    Some(match frames.is_empty() {
        true => format!("{name} {state}"),
        false => format!("{name} {state} ({frames})"),
    })
}

/// The functions at the top of a stack as the kernel prints it: `[<0>] blk_execute_rq+0x8a/0x160`.
fn frames(stack: &str) -> String {
    let function = |line: &str| {
        let (_, rest) = line.split_once("] ")?;
        let name = rest.split('+').next()?.trim();
        let clean = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
        (clean && !name.is_empty()).then(|| name.to_owned())
    };
    let names: Vec<String> = stack.lines().filter_map(function).take(FRAMES).collect();
    names.join(" < ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(done: u64) -> Progress {
        Progress {
            doing: "writing debian-12".to_owned(),
            done,
            total: 10,
        }
    }

    #[test]
    fn a_job_that_moves_is_not_called_still_and_one_that_stops_is() {
        let (mut still, begin) = (Still::default(), Instant::now());
        for second in 0..300 {
            let now = begin + Duration::from_secs(second);
            assert_eq!(still.look(&at(second), now), None, "after {second} s");
        }
        let stopped = begin + Duration::from_secs(299);
        assert_eq!(still.look(&at(299), stopped + LONG - Duration::from_secs(1)), None);
        let words = still.look(&at(299), stopped + LONG).unwrap();
        assert!(words.starts_with("has not moved for 60 s; "), "{words}");
        assert_eq!(still.look(&at(300), stopped + LONG), None, "it goes on");
        assert_eq!(still.look(&at(300), stopped + LONG), None);
    }

    #[test]
    fn threads_of_a_job_are_told_with_what_they_wait_for() {
        let folder = tempfile::tempdir().unwrap();
        let thread = |id: &str, comm: &str, stat: &str, stack: &str| {
            let folder = folder.path().join(id);
            fs::create_dir(&folder).unwrap();
            fs::write(folder.join("comm"), comm).unwrap();
            fs::write(folder.join("stat"), stat).unwrap();
            fs::write(folder.join("stack"), stack).unwrap();
        };
        thread("1", "rackbar-agent\n", "1 (rackbar-agent) S 0", "");
        thread(
            "7",
            "job\n",
            "7 (job) S 0",
            "[<0>] futex_wait_queue+0x60/0x90\n[<0>] futex_wait+0x1/0x2\n",
        );
        let stack = "[<0>] blk_execute_rq+0x8a/0x160\n[<0>] \u{1b}[31m+0x1/0x2\n[<0>] a+0/1\n[<0>] b+0/1\n[<0>] c+0/1\n\
                     [<0>] d+0/1\n";
        thread("8", "writer\n", "8 (wri) ter) D 0", stack);
        assert_eq!(
            waits(folder.path()),
            "job waits (futex_wait_queue < futex_wait), writer waits in the kernel for a device \
             (blk_execute_rq < a < b < c)"
        );
        assert_eq!(
            waits(&folder.path().join("gone")),
            "what its threads wait for cannot be read"
        );
    }

    #[test]
    fn what_the_kernel_said_meanwhile_is_told_and_nothing_older() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path());
        assert_eq!(said(&root, LONG), "");
        for (name, text) in [
            ("proc/uptime", "100.25 12.00\n"),
            ("dev/kmsg", "4,9,40250000,-;nvme nvme0: I/O 7 QID 1 timeout, aborting"),
        ] {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        assert_eq!(
            said(&root, LONG),
            "; the kernel said: nvme nvme0: I/O 7 QID 1 timeout, aborting"
        );
        assert_eq!(said(&root, LONG - Duration::from_secs(1)), "");
    }
}
