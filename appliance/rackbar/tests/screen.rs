//! The console screen on a terminal of its own, with keys pressed as a person in the data hall does.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;

use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::Appliance;
use nix::pty::{OpenptyResult, Winsize, openpty};

const PATIENCE: Duration = Duration::from_secs(60);

/// A terminal of 24 lines of 80, as a serial console is, with the program on it.
struct Terminal {
    program: Child,
    keys: std::fs::File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(appliance: &Appliance) -> Self {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let OpenptyResult { master, slave } = openpty(&size, None).unwrap();
        let end = |fd: &std::os::fd::OwnedFd| Stdio::from(fd.try_clone().unwrap());
        let program = Command::new(env!("CARGO_BIN_EXE_rackbar"))
            .args(["console", "--socket"])
            .arg(appliance.run_folder().join("api.sock"))
            .env("TERM", "linux")
            .stdin(end(&slave))
            .stdout(end(&slave))
            .stderr(end(&slave))
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
        Self { program, keys, screen }
    }

    fn press(&mut self, key: &str) {
        self.keys.write_all(key.as_bytes()).unwrap();
    }

    fn shown(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    /// Waits until the screen is as wanted.
    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) {
        let end = Instant::now() + PATIENCE;
        while !wanted(&self.shown()) {
            assert!(Instant::now() < end, "not shown: {what}\n{}", self.shown());
            std::thread::yield_now();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.program.kill();
        let _ = self.program.wait();
    }
}

#[test]
fn keys_lead_to_the_log_and_the_token_and_ask_before_the_machine_stops() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let mut terminal = Terminal::start(&appliance);
    let fingerprint = appliance.fingerprint()[..16].to_owned();
    let is_status = |text: &str| text.contains(&fingerprint);
    terminal.until("the fingerprint of the page's certificate", is_status);

    // Both keys that stop the machine ask first; any answer but `y` leads back. `y` itself would signal PID 1.
    terminal.press("r");
    terminal.until("a question before the restart", |text| {
        text.contains("estart") && text.contains('?')
    });
    terminal.press("n");
    terminal.until("the status again", |text| is_status(text) && !text.contains('?'));
    terminal.press("p");
    terminal.until("a question before switching off", |text| {
        text.contains("ff") && text.contains('?')
    });
    terminal.press("\u{1b}");
    terminal.until("the status again", |text| is_status(text) && !text.contains('?'));

    let token = std::fs::read_to_string(appliance.run_folder().join("admin-token")).unwrap();
    let token = token.trim().to_owned();
    assert!(
        !terminal.shown().contains(&token[..16]),
        "the token is shown only when asked for"
    );
    terminal.press("t");
    terminal.until("the token", |text| text.replace(['\n', ' '], "").contains(&token[..16]));
    terminal.press("q");
    terminal.until("the status again", |text| {
        is_status(text) && !text.contains(&token[..16])
    });

    terminal.press("l");
    terminal.until("the log's view", |text| {
        text.contains(" Log: ") && text.contains("n next log")
    });
    terminal.press("q");
    terminal.until("the status again", |text| is_status(text) && text.contains(" Events "));
}
