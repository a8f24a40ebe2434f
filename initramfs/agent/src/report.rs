//! One line per step on standard output; init keeps it and shows it on the console.

use std::io::Write;

/// Milliseconds since the kernel started.
pub(crate) fn uptime_millis() -> u64 {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
    now.map_or(0, |t| {
        t.tv_sec().unsigned_abs() * 1000 + t.tv_nsec().unsigned_abs() / 1_000_000
    })
}

/// Writes one line; a reader that is gone costs the line and nothing else.
pub(crate) fn line(text: &str) {
    let uptime = uptime_millis();
    let line = format!("rackbar-agent: [{:5}.{:03}] {text}\n", uptime / 1000, uptime % 1000);
    let _ = std::io::stdout().lock().write_all(line.as_bytes());
}

/// Says what the agent does, formatted like `println!`.
macro_rules! say {
    ($($words:tt)*) => { $crate::report::line(&format!($($words)*)) };
}
pub(crate) use say;
