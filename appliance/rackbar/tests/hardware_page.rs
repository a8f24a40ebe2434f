//! The pages of a machine's hardware in a real browser on a phone's screen: the live serial console, sensors, event log,
//! virtual media. Pictures of what was seen are kept in the folder of the test's temporary files.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod hall;

use std::path::Path;

use hall::Hall;
use rackbar_browser::Browser;

fn log_in(browser: &Browser, hall: &Hall) -> String {
    let home = "https://127.0.0.1".to_owned();
    let token = std::fs::read_to_string(hall.folder.path().join("run/admin-token")).unwrap();
    browser.log_in(&home, &token);
    home
}

fn picture(browser: &Browser, name: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    browser.picture(&folder.join(format!("hardware-{name}.png")));
}

#[test]
fn a_serial_console_is_live_on_the_page_of_its_machine() {
    let hall = Hall::open();
    hall.enter();
    let browser = Browser::open(390, 844, true);
    let home = log_in(&browser, &hall);
    browser.go(&format!("{home}/nodes/{}", hall.node));
    browser.assert_fits("the machine's page");
    browser.click("details.serial summary");
    // The console is open when the BMC shows what is printed from then on.
    hall.until("the console is shown", |hall| {
        hall.serial.printed(b"\x1b[1mGRUB\x1b[0m <b>loading</b>\r\n");
        browser.text("#console").contains("GRUB <b>loading</b>").then_some(())
    });
    // What happens meanwhile is shown, and the console stays.
    hall.ask(&["node", "boot", &hall.node, "cd"]).well();
    browser.until_shown("its next boot is to come from CD");
    hall.serial.printed(b"node login: ");
    browser.until_shown("node login:");
    assert!(browser.text("#console").contains("GRUB <b>loading</b>"));
    picture(&browser, "console");
    // Pages that ask the BMC do so once, not with every event of the rack.
    let follows = |browser: &Browser| {
        browser.run("return document.querySelector('script[src=\"/assets/live.js\"]') !== null;") == true
    };
    assert!(follows(&browser));
    for page in ["sensors", "log", "accounts", "media"] {
        browser.go(&format!("{home}/nodes/{}/{page}", hall.node));
        assert!(!follows(&browser), "{page}");
    }
}

#[test]
fn sensors_log_and_media_are_read_and_worked_on_a_phone_without_javascript() {
    let hall = Hall::open();
    hall.bmc.set_reading("CPU1 Temp", 95);
    hall.bmc
        .add_entry("Fan 2 stands still, says a very long line of a controller that likes to talk about its fans");
    hall.enter();
    let browser = Browser::open(390, 844, false);
    let home = log_in(&browser, &hall);
    for (page, words) in [
        ("sensors", "95 °C"),
        ("log", "Fan 2 stands still"),
        ("accounts", "used by Rackbar"),
        ("media", "used by Rackbar"),
    ] {
        browser.go(&format!("{home}/nodes/{}/{page}", hall.node));
        browser.until_shown(words);
        browser.assert_fits(page);
        picture(&browser, page);
    }
    browser.fill("#image", "http://10.79.0.1/rescue.iso");
    browser.click("form[action$='/media'] button");
    browser.until_shown("http://10.79.0.1/rescue.iso");
    assert_eq!(hall.bmc.media().as_deref(), Some("http://10.79.0.1/rescue.iso"));
    browser.click("form[action$='/boot'] button");
    browser.until_shown("From <b>cd</b>, once.");
    picture(&browser, "media-in");
}
