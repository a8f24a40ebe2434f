//! Who wants to know what happens in the rack beside its packets.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::SystemTime;

use super::capture::{CaptureFile, Entry};
use super::locked;

/// Captures that hear stories.
#[derive(Default)]
pub(super) struct Stories {
    heard: AtomicBool,
    files: Mutex<Vec<Hearer>>,
}

struct Hearer {
    file: CaptureFile,
    /// Of the consoles only this machine's.
    console: Option<String>,
}

impl Stories {
    /// Has a capture hear what is told from now on; with a name, of the consoles only that machine's.
    pub(super) fn hear(&self, file: &CaptureFile, console: Option<&str>) {
        locked(&self.files).push(Hearer {
            file: file.clone(),
            console: console.map(str::to_owned),
        });
        self.heard.store(true, Relaxed);
    }

    pub(super) fn stop(&self, file: &CaptureFile) {
        let mut files = locked(&self.files);
        files.retain(|hearer| !hearer.file.is(file));
        self.heard.store(!files.is_empty(), Relaxed);
    }

    /// False while telling would be for nothing.
    pub(super) fn are_heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    pub(super) fn told_until(&self, at: SystemTime) {
        for hearer in locked(&self.files).iter() {
            hearer.file.told_until(at);
        }
    }

    pub(super) fn tell(&self, at: SystemTime, source: &str, text: &str) {
        // A line break would be another entry in the text, and another field in the capture.
        let text = text.replace(|c: char| c.is_control(), " ");
        for hearer in locked(&self.files).iter() {
            let foreign = source
                .strip_prefix("console ")
                .is_some_and(|name| hearer.console.as_deref().is_some_and(|wanted| wanted != name));
            if !foreign {
                hearer.file.tell(Entry {
                    at,
                    source: source.to_owned(),
                    text: text.clone(),
                });
            }
        }
    }
}
