//! One timeline of a run: what consoles print, what is done to the rack, and what others tell, beside the packets.

use std::io;
use std::path::Path;
use std::time::SystemTime;

use tokio::sync::broadcast::error::RecvError;

use super::{Rack, no_node};
use crate::console::Console;
use crate::host::Host;
use crate::switch::{CaptureFile, Switch, Tags};

/// What of a longer line is kept.
const LONGEST: usize = 400;

impl Rack {
    /// Captures one node's ports as they are on the wire, or with `None` the whole switch, each frame tagged with its
    /// VLAN. In the same file, and as text and JSON beside it, is what happened: lines of consoles (of the node's, or of
    /// all), faults, links, what spanning tree and LACP do, and what [`Rack::tell`] is told.
    ///
    /// # Errors
    /// When a file cannot be created or there is no such node.
    pub fn capture(&self, node: Option<&str>, path: &Path) -> io::Result<CaptureFile> {
        let Some(name) = node else {
            let file = CaptureFile::create_with_timeline(path, Tags::Always)?;
            self.switch.hear(&file, None);
            self.switch.capture_all(&file);
            return Ok(file);
        };
        let node = self.node(name).ok_or_else(|| no_node(self, name))?;
        let file = CaptureFile::create_with_timeline(path, Tags::Wire)?;
        self.switch.hear(&file, Some(name));
        for port in node.ports.iter().chain(node.bmc.as_ref().map(Host::port).as_ref()) {
            self.switch.capture(*port, &file);
        }
        Ok(file)
    }

    /// Tells the timeline of something; `source` says who, such as `appliance`.
    pub fn tell(&self, at: SystemTime, source: &str, text: &str) {
        self.switch.tell(at, source, text);
    }

    /// Tells of something that is done to the rack, now.
    pub(super) fn done(&self, text: &str) {
        self.tell(SystemTime::now(), "rack", text);
    }
}

/// Tells a console's lines for as long as it lives.
pub(super) async fn console(switch: Switch, name: String, console: Console) {
    let (_, mut output) = console.attach();
    let source = format!("console {name}");
    let mut lines = Lines::default();
    loop {
        match output.recv().await {
            Ok(bytes) if switch.is_heard() => {
                let now = SystemTime::now();
                lines.take(&bytes, |line| switch.tell(now, &source, line));
            }
            Ok(_) | Err(RecvError::Lagged(_)) => lines = Lines::default(),
            Err(RecvError::Closed) => return,
        }
    }
}

/// Lines out of what a terminal is sent.
#[derive(Default)]
struct Lines {
    line: String,
    escape: Escape,
}

#[derive(Default, Clone, Copy)]
enum Escape {
    #[default]
    Outside,
    Begun,
    /// A control sequence (ECMA-48, 5.4), until its final byte.
    Sequence,
}

impl Lines {
    /// Gives each line that ended, without the sequences that move the cursor or colour the text. Firmware moves the
    /// cursor where others end a line, so a move ends one too.
    fn take(&mut self, bytes: &[u8], mut tell: impl FnMut(&str)) {
        for byte in bytes {
            match (self.escape, byte) {
                (Escape::Outside, 0x1b) => self.escape = Escape::Begun,
                (Escape::Outside, b'\r' | b'\n') => self.end(&mut tell),
                (Escape::Outside, 0x20..=0x7e) if self.line.len() < LONGEST => self.line.push(char::from(*byte)),
                (Escape::Outside, _) => {}
                (Escape::Begun, b'[') => self.escape = Escape::Sequence,
                (Escape::Begun, _) => self.escape = Escape::Outside,
                (Escape::Sequence, 0x40..=0x7e) => {
                    self.escape = Escape::Outside;
                    if matches!(byte, b'H' | b'f' | b'J') {
                        self.end(&mut tell);
                    }
                }
                (Escape::Sequence, _) => {}
            }
        }
    }

    fn end(&mut self, tell: &mut impl FnMut(&str)) {
        let line = self.line.trim();
        if !line.is_empty() {
            tell(line);
        }
        self.line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_a_person_would_read() {
        let mut lines = Lines::default();
        let mut told = Vec::new();
        for part in [
            &b"\x1b[2J\x1b[01;01HBdsDxe: loading\x1b[0m Boot0001\r\n\r\n"[..],
            b"half ",
            b"a line\x07\n\x1b[1;3",
            b"1mred\x1b[0m\x1b[5;1Hnext\n",
        ] {
            lines.take(part, |line| told.push(line.to_owned()));
        }
        assert_eq!(told, ["BdsDxe: loading Boot0001", "half a line", "red", "next"]);
        lines.take(&[b'x'; 10_000], |_| {});
        assert_eq!(lines.line.len(), LONGEST);
    }
}
