//! The console screen on a terminal of its own, with keys pressed as a person in the data hall does.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;
mod terminal;

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command};

use common::Appliance;
use nix::sys::signal::Signal;
use terminal::Terminal;

fn start(appliance: &Appliance, options: &[&str]) -> Terminal {
    let mut program = Command::new(env!("CARGO_BIN_EXE_rackbar"));
    program
        .args(["console", "--socket"])
        .arg(appliance.run_folder().join("api.sock"))
        .args(options);
    Terminal::start(program)
}

#[test]
fn keys_lead_to_the_log_and_the_token_and_ask_before_the_machine_stops() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let mut terminal = start(&appliance, &[]);
    let fingerprint = appliance.fingerprint()[..16].to_owned();
    let is_status = |text: &str| text.contains(&fingerprint);
    terminal.until("the fingerprint of the page's certificate", is_status);

    // Both keys that stop the machine ask first; any answer but `y` leads back.
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

/// A process that stands for PID 1, which a test must not end.
fn stand_in() -> Child {
    Command::new("sleep").arg("600").spawn().unwrap()
}

#[test]
fn what_is_done_at_the_screen_is_in_the_audit_trail_and_y_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let token = std::fs::read_to_string(appliance.run_folder().join("admin-token")).unwrap();
    let token = token.trim().to_owned();
    let kept = appliance.file("kept-token", &token);
    let audit = || appliance.by(Path::new(&kept), &["audit", "--by", "console"], "").well();
    let fingerprint = appliance.fingerprint()[..16].to_owned();
    let is_status = |text: &str| text.contains(&fingerprint) && !text.contains('?');
    for (key, asks, signal, deed) in [
        ("r", "estart", Signal::SIGTERM, "restart the appliance"),
        ("p", "ff", Signal::SIGUSR2, "switch the appliance off"),
    ] {
        let mut init = stand_in();
        let mut terminal = start(&appliance, &["--init", &init.id().to_string()]);
        terminal.until("the status", is_status);
        terminal.press(key);
        terminal.until("the question", |text| text.contains(asks) && text.contains('?'));
        assert!(!audit().contains(deed), "it was only asked: {}", audit());
        terminal.press("y");
        // It gets the signal after the journal has the deed, so there is nothing to wait for.
        assert_eq!(init.wait().unwrap().signal(), Some(signal as i32), "{deed}");
        assert!(audit().contains(deed), "{}", audit());
    }

    let mut terminal = start(&appliance, &[]);
    terminal.until("the status", is_status);
    let shows = |text: &str| text.replace(['\n', ' '], "").contains(&token[..16]);
    assert!(!audit().contains("token"), "{}", audit());
    terminal.press("t");
    terminal.until("the token", shows);
    assert!(audit().contains("show the first admin token"), "{}", audit());
    assert!(!audit().contains(&token[..16]));
    terminal.press("d");
    terminal.until("the status", |text| is_status(text) && !shows(text));
    assert!(audit().contains("put the first admin token away"), "{}", audit());
    assert!(!appliance.run_folder().join("admin-token").exists());

    // Nobody else says what was done at the console.
    let answer = Command::new("curl")
        .args([
            "--silent",
            "--insecure",
            "--output",
            "/dev/null",
            "--write-out",
            "%{http_code}",
        ])
        .args([
            "--header",
            &format!("Authorization: Bearer {token}"),
            "--json",
            r#"{"deed":"restart"}"#,
        ])
        .arg(format!("https://{}/api/v1/appliance/deeds", appliance.api()))
        .output()
        .expect("curl, which `cargo xtask setup` installs");
    assert_eq!(String::from_utf8_lossy(&answer.stdout), "403");
}

#[test]
fn without_its_daemon_the_screen_restarts_the_machine_and_shows_no_token() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let mut init = stand_in();
    let mut terminal = start(&appliance, &["--init", &init.id().to_string()]);
    let fingerprint = appliance.fingerprint()[..16].to_owned();
    terminal.until("the status", |text| text.contains(&fingerprint));
    let token = std::fs::read_to_string(appliance.run_folder().join("admin-token")).unwrap();
    let folder = appliance.stop();
    std::fs::write(folder.join("run/admin-token"), &token).unwrap();
    terminal.press("t");
    terminal.until("why it is not shown", |text| text.contains("audit trail"));
    assert!(!terminal.shown().replace(['\n', ' '], "").contains(&token[..16]));
    terminal.press("r");
    terminal.until("a question", |text| text.contains('?'));
    terminal.press("y");
    assert_eq!(init.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
}
