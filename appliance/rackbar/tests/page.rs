//! The page in a real browser: Debian's Chromium, on a phone's screen and on a desk's, with JavaScript and without.
//! Pictures of what was seen are kept in the folder of the test's temporary files, for a person to look at.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;

use std::path::Path;
use std::time::{Duration, Instant};

use common::Appliance;
use rackbar_browser::Browser;

/// Every page that the navigation leads to.
const PAGES: [&str; 8] = [
    "/",
    "/leases",
    "/events",
    "/services",
    "/site",
    "/runs",
    "/images",
    "/changes",
];

fn logged_in(browser: &Browser, appliance: &Appliance) -> String {
    let home = format!("https://{}", appliance.api());
    let token = std::fs::read_to_string(appliance.run_folder().join("admin-token")).unwrap();
    browser.log_in(&home, &token);
    home
}

fn kept(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

#[test]
fn page_fits_a_phone_and_tells_what_happens_while_one_looks() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let browser = Browser::open(390, 844, true);
    let home = logged_in(&browser, &appliance);
    for page in PAGES {
        browser.go(&format!("{home}{page}"));
        browser.picture(&kept(&format!("phone{}.png", page.replace('/', "-"))));
        browser.assert_fits(page);
        assert!(!browser.text("h1").is_empty(), "{page}");
    }
    // Something happens; the page is not loaded again.
    browser.go(&format!("{home}/events"));
    browser.run("window.sameDocument = true;");
    let config = appliance.folder().join("rackbar.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text + "[boot]\nkernel_argument = \"typo\"\n").unwrap();
    browser.until_shown("kernel_argument");
    assert_eq!(browser.run("return window.sameDocument === true;"), true);
}

#[test]
fn page_that_is_live_keeps_what_somebody_has_chosen_and_not_yet_sent() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let browser = Browser::open(1200, 900, true);
    let home = logged_in(&browser, &appliance);
    let until = |what: &str, script: &str| {
        let end = Instant::now() + Duration::from_secs(60);
        while browser.run(script) != true {
            assert!(Instant::now() < end, "not in time: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let config = appliance.folder().join("rackbar.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let happens = |what: &str| std::fs::write(&config, format!("{text}[boot]\n{what} = 1\n")).unwrap();
    // A list in which the page marks no option as chosen, and one in which it does.
    for (page, chosen) in [("/logs", "err"), ("/logs?severity=notice", "debug")] {
        browser.go(&format!("{home}{page}"));
        // Counts how often the page is fetched anew, and marks the field that a swap would exchange.
        browser.run(&format!(
            "const fetch = window.fetch; window.fetched = 0;
             window.fetch = async (...all) => {{ const answer = await fetch(...all); window.fetched += 1; return answer; }};
             const list = document.querySelector('select'); list.marked = true; window.came = list.value;
             list.value = '{chosen}';"
        ));
        // Once it is fetched a second time, the first one has been judged.
        for count in [1, 2] {
            happens(&format!("mistake_{count}"));
            let fetched = format!("return window.fetched >= {count};");
            until("the page is fetched again", &fetched);
        }
        let kept = format!(
            "const list = document.querySelector('select'); return list.marked === true && list.value === '{chosen}';"
        );
        assert_eq!(browser.run(&kept), true, "{page}");
        // What is as the page came keeps nothing from being shown.
        browser.run("document.querySelector('select').value = window.came;");
        happens("mistake_3");
        until(
            "the page is swapped",
            "return document.querySelector('select').marked !== true;",
        );
    }
}

#[test]
fn page_works_without_javascript_and_shows_mistakes_of_a_site_file() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let browser = Browser::open(1200, 900, false);
    let home = logged_in(&browser, &appliance);
    for page in PAGES {
        browser.go(&format!("{home}{page}"));
        assert!(!browser.text("h1").is_empty(), "{page}");
        browser.picture(&kept(&format!("desk{}.png", page.replace('/', "-"))));
    }
    browser.go(&format!("{home}/site"));
    browser.fill("textarea", "version = 1\n[role.worker]\nmemmory = \"agent\"\n");
    browser.click("button[value=check]");
    browser.until_shown("memmory");
    browser.until_shown("did you mean");
}
