//! How long each story took, for the table at the end of `cargo xtask test`.

use std::io::Write as _;
use std::time::Instant;

/// Where the times are collected: a file that `cargo xtask test` names and reads.
const FILE: &str = "RACKBAR_STORY_TIMES";

/// A story that is being told. Its time is written down when this is dropped, also when it fails.
pub struct Told {
    name: String,
    begun: Instant,
}

impl Told {
    /// The story of the test that this thread runs.
    pub fn begin() -> Self {
        Self {
            name: std::thread::current().name().unwrap_or("a story").to_owned(),
            begun: Instant::now(),
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        let Some(file) = std::env::var_os(FILE) else { return };
        let line = format!("{:.0} {}\n", self.begun.elapsed().as_secs_f64(), self.name);
        // One write to a file opened for appending: lines of stories that are told side by side do not mix.
        let opened = std::fs::File::options().create(true).append(true).open(file);
        if let Err(error) = opened.and_then(|mut file| file.write_all(line.as_bytes())) {
            eprintln!("the time of {} was not written down: {error}", self.name);
        }
    }
}
