//! What a person sees on the page while a rack is installed, and after: in a real browser. Pictures are kept in the folder of
//! the test's temporary files.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use rackbar_browser::Browser;
use rackbar_scenarios::cli::Cli;

/// From the commit to the first per cent of an image, and from there to another, on a machine that emulates two and their
/// appliance.
const SOON: Duration = Duration::from_secs(240);

fn kept(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// The share of an image that is written, as the page of a run says it.
fn written(source: &str) -> Option<u64> {
    let (_, rest) = source.split_once("running ")?;
    let (percent, rest) = rest.split_once(" %")?;
    match percent.parse() {
        Ok(percent) => Some(percent),
        // Another action that runs and has no share.
        Err(_) => written(rest),
    }
}

/// The address of the newest run that the page of runs names.
fn newest_run(source: &str) -> Option<String> {
    let (_, rest) = source.split_once("href=\"/runs/")?;
    let (number, _) = rest.split_once('"')?;
    number.parse::<u64>().ok().map(|number| format!("/runs/{number}"))
}

/// Looks on at an install from a phone: what is written moves on while one looks, and nobody loads the page again.
pub(crate) fn follows_an_install_on_a_phone(home: &str, token: &str) {
    let browser = Browser::open(390, 844, true);
    browser.log_in(home, token);
    browser.go(&format!("{home}/runs"));
    let run = browser.until("the run is listed", SOON, newest_run);
    browser.go(&format!("{home}{run}"));
    browser.run("window.sameDocument = true;");
    let first = browser.until("an image is being written", SOON, written);
    browser.assert_fits("the page of a run");
    browser.picture(&kept("install-run.png"));
    let next = browser.until("more of it is written", SOON, |source| {
        written(source).filter(|percent| *percent > first)
    });
    println!("seen on the page: {first} % written, then {next} %");
    assert_eq!(browser.run("return window.sameDocument === true;"), true);
    browser.go(&format!("{home}/"));
    browser.until_shown("state provisioning");
    browser.assert_fits("the page of the rack");
    browser.picture(&kept("install-rack.png"));
}

/// Reads the signed report as a page, without JavaScript, and prints it.
fn prints_the_report(home: &str, token: &str, names: &[String]) -> Result<()> {
    let browser = Browser::open(1200, 900, false);
    browser.log_in(home, token);
    browser.go(&format!("{home}/report"));
    let said = browser.text("main");
    for wanted in names
        .iter()
        .map(String::as_str)
        .chain(["all checks passed", "time.sync", "emptied by"])
    {
        ensure!(
            said.contains(wanted),
            "{wanted:?} is not on the page of the report: {said}"
        );
    }
    browser.picture(&kept("install-report.png"));
    let paper = browser.print();
    ensure!(
        paper.starts_with(b"%PDF-") && paper.len() > 10_000,
        "no paper: {} bytes",
        paper.len()
    );
    std::fs::write(kept("install-report.pdf"), paper)?;
    browser.go(&format!("{home}/"));
    browser.picture(&kept("install-ready.png"));
    Ok(())
}

/// As [`prints_the_report`], beside what waits in the story.
pub(crate) async fn proves(cli: &Cli, names: &[String]) -> Result<()> {
    let (home, token, names) = (cli.home(), cli.token()?, names.to_vec());
    tokio::task::spawn_blocking(move || prints_the_report(&home, &token, &names)).await?
}
