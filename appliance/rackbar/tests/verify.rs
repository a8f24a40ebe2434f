//! What `rackbar verify` asks before it takes a rack from its work: the real daemon, the real command line.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;
mod terminal;

use common::{Appliance, CONFIG, ready};
use serde_json::{Value, json};
use terminal::Terminal;

/// A machine that an earlier life of the appliance installed; hands off.
fn installed(number: u8) -> Value {
    let mut node = ready(number);
    node["state"] = json!("maintenance");
    node
}

#[test]
fn a_whole_rack_is_taken_from_its_work_only_when_that_is_agreed_to() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rackbar.toml"), CONFIG).unwrap();
    common::keep(folder.path(), &[installed(1), installed(2)]);
    let appliance = Appliance::start(folder.path());
    let exercise = ["verify", "--rack", "--burn-in", "30s"];

    // Nobody can be asked.
    let refused = appliance.ask(&exercise);
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        ["web-1, web-2", "2 machines", "--yes-restart"]
            .iter()
            .all(|text| refused.err.contains(text)),
        "{refused:?}"
    );
    // From here on the appliance is asked, and says that it may not.
    let hands_off = |text: &str| text.contains("web-1") && text.contains("maintenance");
    let agreed = appliance.ask(&[&exercise[..], &["--yes-restart"]].concat());
    assert!(agreed.code == 1 && hands_off(&agreed.err), "{agreed:?}");
    let named = appliance.ask(&["verify", "web-1", "--burn-in", "30s"]);
    assert!(named.code == 1 && hands_off(&named.err), "{named:?}");

    for (typed, begun) in [("3", false), ("2", true)] {
        let mut terminal = Terminal::start(appliance.command(&exercise));
        terminal.until("the question", |shown| shown.contains("restarted (2): "));
        terminal.press(&format!("{typed}\n"));
        assert_eq!(terminal.end(), 1);
        terminal.until("the answer to it", |shown| {
            shown.contains("nothing was begun") != begun && hands_off(shown) == begun
        });
    }
}
