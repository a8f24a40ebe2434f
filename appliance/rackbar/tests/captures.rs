//! Packet captures as a person gets them: by command line, page and support bundle, read by tcpdump.
#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod hall;

use std::path::Path;
use std::process::{Command, Stdio};

use hall::Hall;

/// The packets of a capture file, a line each.
fn read(file: &Path) -> String {
    let read = Command::new("tcpdump").arg("-nvr").arg(file).output();
    let read = read.expect("tcpdump: `cargo xtask setup test` installs it");
    assert!(read.status.success(), "{read:?}");
    String::from_utf8(read.stdout).unwrap()
}

fn holds(file: &[u8], text: &str) -> bool {
    file.windows(text.len()).any(|part| part == text.as_bytes())
}

#[test]
fn a_boot_that_failed_an_hour_ago_is_looked_at_in_its_packets() {
    let hall = Hall::open();
    let (node, folder) = (hall.node.as_str(), hall.folder.path());
    let file = folder.join("recent.pcapng");
    let to = file.display().to_string();
    hall.ask(&["capture", "--recent", "--node", node, "--to", &to]).well();
    let told = read(&file);
    // The BMC's request, and our answer.
    for part in [
        "BOOTP/DHCP, Request from 02:00:00:00:00:65",
        "DHCP-Message (53), length 1: ACK",
    ] {
        assert!(told.contains(part), "{part:?} is not in {told}");
    }
    // A file that is there stays as it is.
    let refused = hall.ask(&["capture", "--recent", "--to", &to]).failed(1);
    assert!(refused.contains("recent.pcapng"), "{refused}");

    // For operators alone, and the audit trail has who it was.
    let token = hall.ask(&["token", "create", "anna", "--role", "viewer"]).well();
    std::fs::write(folder.join("anna"), token.trim()).unwrap();
    let by = hall
        .command_by("anna", &["capture", "--recent", "--to", "-"])
        .output()
        .unwrap();
    assert_eq!(by.status.code(), Some(4), "{by:?}");
    let audit = hall.audit();
    for part in ["admin", &format!("read the newest boot packets of {node}")] {
        assert!(audit.contains(part), "{part:?} is not in {audit}");
    }

    for (arguments, part) in [
        (&["--interface", "eth9"][..], "bmc0"),
        (&["--node", "nobody"], "nobody"),
        (&["--seconds", "0"], "1 to 3600"),
        (&["--max-bytes", "10"], "4096"),
    ] {
        let to = folder.join("never").display().to_string();
        let said = hall.ask(&[&["capture", "--to", &to], arguments].concat());
        assert!(said.code != 0 && said.err.contains(part), "{said:?}");
        assert!(!folder.join("never").exists(), "{arguments:?} left a file");
    }
}

#[test]
fn what_comes_from_now_on_is_captured_while_it_is_read() {
    let hall = Hall::open();
    let node = hall.node.as_str();
    let file = hall.folder.path().join("live.pcapng");
    let to = file.display().to_string();
    let mut capture = hall.command(&[
        "capture",
        "--node",
        node,
        "--all",
        "--seconds",
        "600",
        "--max-bytes",
        "8192",
        "--to",
        &to,
    ]);
    let mut capture = capture.stdin(Stdio::null()).spawn().unwrap();
    hall.until("it has begun", |_| {
        std::fs::metadata(&file).ok().filter(|file| file.len() > 0)
    });
    // The BMC is spoken to until the file is full.
    hall.until("it ended", |hall| {
        hall.ask(&["node", "sensors", node]);
        capture.try_wait().unwrap()
    });
    let content = std::fs::read(&file).unwrap();
    assert!(
        content.len() <= 8_192 && content.len() > 4_096,
        "{} bytes",
        content.len()
    );
    let address = hall.bmc_address();
    let told = read(&file);
    assert!(
        told.lines().filter(|line| line.contains(&address)).count() > 10,
        "{told}"
    );
    let audit = hall.audit();
    assert!(
        audit.contains(&format!("capture all packets' headers of {node}")),
        "{audit}"
    );
}

#[test]
fn a_support_bundle_has_the_boot_packets_and_no_secret_of_them() {
    // The site's name is told to machines by DHCP; here it is a password too, so the sweep must find it in a packet.
    let more = "[[bmc.credential]]\nusername = \"other\"\npassword = \"bundle.example\"\n";
    let hall = Hall::prepared_with(more, |_| {});
    let folder = hall.folder.path();
    let script = folder.join("ask");
    std::fs::write(&script, "#!/bin/sh\nexit 0\n").unwrap();
    let to = folder.join("bundle.tar.zst").display().to_string();
    let asked = hall.inside_client(
        "busybox",
        &[
            "udhcpc",
            "-i",
            "c0",
            "-n",
            "-q",
            "-f",
            "-t",
            "5",
            "-T",
            "1",
            "-x",
            "hostname:bundle.example",
            "-s",
            script.to_str().unwrap(),
        ],
    );
    assert!(asked.status.success(), "{asked:?}");
    let recent = folder.join("recent.pcapng");
    hall.until("its name is in a capture", |hall| {
        let _ = std::fs::remove_file(&recent);
        hall.ask(&["capture", "--recent", "--to", recent.to_str().unwrap()])
            .well();
        holds(&std::fs::read(&recent).unwrap(), "bundle.example").then_some(())
    });
    hall.ask(&["support-bundle", &to]).well();
    let unpacked = Command::new("tar")
        .args(["--zstd", "-xf", &to, "-C"])
        .arg(folder)
        .status();
    assert!(unpacked.unwrap().success());
    let capture = folder.join("rackbar-support/captures/recent.pcapng");
    let content = std::fs::read(&capture).unwrap();
    assert!(!holds(&content, "bundle.example"), "a password is in it");
    let told = read(&capture);
    assert!(
        told.contains("xxxxxxxxxxxxxx") && told.contains("BOOTP/DHCP, Request from 02:00:00:00:00:65"),
        "{told}"
    );
}

#[test]
fn captures_can_be_switched_off() {
    let hall = Hall::prepared_with("[capture]\nrecent = false\non_demand = false\n", |_| {});
    let recent = hall.ask(&["capture", "--recent", "--to", "-"]);
    assert!(recent.code != 0 && recent.err.contains("recent = false"), "{recent:?}");
    let live = hall.ask(&["capture", "--to", "-"]);
    assert!(live.code != 0 && live.err.contains("on_demand = false"), "{live:?}");
    let services = hall.ask(&["service", "status"]).well();
    assert!(services.contains("keeping no boot packets"), "{services}");
}
