//! A program on a terminal of its own.

#![allow(clippy::unwrap_used, reason = "a helper of tests: a panic is the failure")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::pty::{OpenptyResult, Winsize, openpty};
use nix::sys::termios::LocalFlags;

const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal of 24 lines of 80, as a serial console is, with the program on it.
pub(crate) struct Terminal {
    program: Child,
    keys: std::fs::File,
    slave: std::os::fd::OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Starts a program on it.
    pub(crate) fn start(mut program: Command) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        let program = program
            .env("TERM", "linux")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keys = std::fs::File::from(master);
        let (lines, columns) = (NonZero::new(size.ws_row).unwrap(), NonZero::new(size.ws_col).unwrap());
        let screen = Arc::new(Mutex::new(vt100::Parser::new(lines, columns, 0)));
        let (mut output, drawn) = (keys.try_clone().unwrap(), Arc::clone(&screen));
        std::thread::spawn(move || {
            let mut piece = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut piece) {
                drawn.lock().unwrap().process(&piece[..length]);
            }
        });
        Self {
            program,
            keys,
            slave,
            screen,
        }
    }

    pub(crate) fn press(&mut self, key: &str) {
        self.keys.write_all(key.as_bytes()).unwrap();
    }

    pub(crate) fn shown(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    pub(crate) fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !wanted(&self.shown()) {
            assert!(Instant::now() < end, "not shown: {what}\n{}", self.shown());
            std::thread::yield_now();
        }
    }

    /// Waits for the program's end; gives its exit code.
    pub(crate) fn end(&mut self) -> i32 {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.program.try_wait().unwrap() {
                return status.code().unwrap();
            }
            assert!(Instant::now() < end, "it did not end\n{}", self.shown());
            std::thread::yield_now();
        }
    }

    /// True while keys are gathered into lines and shown, as a shell wants it.
    pub(crate) fn is_cooked(&self) -> bool {
        let modes = nix::sys::termios::tcgetattr(&self.slave).unwrap().local_flags;
        modes.contains(LocalFlags::ICANON | LocalFlags::ECHO)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}
