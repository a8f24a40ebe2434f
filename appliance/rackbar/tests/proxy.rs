//! The story of an operator with the caching proxy: the real daemon, the real command line, an origin on loopback.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod apart;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use apart::{Appliance, OURS};

fn config(upstream: &str, proxy: &str) -> String {
    format!(
        "version = 1\n[[network]]\nname = \"rack\"\nrole = \"rack\"\ninterface = \"rack0\"\n\
         address = \"{OURS}/24\"\ndhcp = \"off\"\n{proxy}\n[[network]]\nname = \"bmc\"\nrole = \"bmc\"\n\
         interface = \"bmc0\"\naddress = \"10.20.0.1/24\"\ndhcp = \"off\"\n[[proxy.mirror]]\nname = \"m\"\n\
         upstream = [\"{upstream}\"]\n"
    )
}

/// An origin that gives everybody the same, or nobody anything when the second is true.
fn origin() -> (String, Arc<AtomicBool>) {
    let gone = Arc::new(AtomicBool::new(false));
    let down = gone.clone();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/base", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            if down.load(Ordering::SeqCst) {
                continue;
            }
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let _ = stream.write_all(
                b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
            );
        }
    });
    (url, gone)
}

fn get(path: &str) -> String {
    let mut stream = TcpStream::connect((OURS, 3128)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut out = String::new();
    stream.read_to_string(&mut out).unwrap();
    out
}

#[test]
fn the_proxy_follows_the_file_and_the_site_and_its_cache_is_ruled_by_the_command_line() {
    let appliance = Appliance::start(&config("http://127.0.0.1:9/", ""), "");
    let refused = appliance.refused(&["cache", "list"]);
    assert!(refused.contains("the proxy does not run"), "{refused}");

    // The file is read while the daemon runs.
    let (upstream, gone) = origin();
    appliance.file("rackbar.toml", config(&upstream, "proxy = \"own\""));
    appliance.until("listening on 10.10.0.1:3128, online");
    assert!(get("/mirror/m/a").ends_with("\r\n\r\nhello"));
    for address in ["127.0.0.1", "10.10.0.1", "10.20.0.7"] {
        let refused = get(&format!("http://{address}/x"));
        assert!(refused.starts_with("HTTP/1.1 403"), "{address}: {refused}");
    }

    // Whoever is in another network of ours reaches that address too, and is served nothing.
    let foreign = std::process::Command::new("curl")
        .args(["-sS", "--max-time", "60", "--interface", "10.20.0.1"])
        .arg(format!("http://{OURS}:3128/mirror/m/a"))
        .output()
        .unwrap();
    let foreign = String::from_utf8_lossy(&foreign.stdout).into_owned();
    assert!(
        foreign.contains("10.20.0.1 is in no network that this proxy serves"),
        "{foreign}"
    );

    appliance.well(&["cache", "pin", "mirror:m/b"]);
    let list = appliance.well(&["cache", "list"]);
    assert!(
        list.contains("mirror:m/a") && list.contains("mirror:m/b") && list.contains("yes"),
        "{list}"
    );
    let verified = appliance.well(&["cache", "verify"]);
    assert!(verified.contains("1 objects are whole, 0 were damaged"), "{verified}");
    appliance.well(&["cache", "refresh", "mirror:m/a"]);
    gone.store(true, Ordering::SeqCst);
    let stands = appliance.refused(&["cache", "refresh", "mirror:m/a"]);
    assert!(
        stands.contains("the origin gave nothing") && stands.contains("and stays"),
        "{stands}"
    );
    gone.store(false, Ordering::SeqCst);
    appliance.well(&["cache", "mode", "offline"]);
    let missed = get("/mirror/m/c");
    assert!(
        missed.starts_with("HTTP/1.1 504") && missed.contains("rackbar cache pin mirror:m/c"),
        "{missed}"
    );
    assert!(get("/mirror/m/b").ends_with("hello"));

    // What was ordered outlives a change of anything else, and the proxy's own end.
    let more = format!("[[proxy.mirror]]\nname = \"n\"\nupstream = [\"{upstream}\"]\n");
    appliance.file("rackbar.toml", config(&upstream, "proxy = \"own\"") + &more);
    let deadline = Instant::now() + Duration::from_secs(60);
    while !get("/mirror/n/a").starts_with("HTTP/1.1 504") {
        assert!(Instant::now() < deadline, "the new mirror is not known, or not offline");
        std::thread::sleep(Duration::from_millis(100));
    }
    appliance.file("rackbar.toml", config(&upstream, "proxy = \"off\""));
    appliance.until("no network wants it");
    appliance.file("rackbar.toml", config(&upstream, "proxy = \"own\""));
    appliance.until("listening on 10.10.0.1:3128, offline");
    appliance.well(&["cache", "mode", "online"]);
    appliance.well(&["cache", "unpin", "mirror:m/b"]);
    for (end, says) in [
        ("/*", "is pinned as mirror:m/*; "),
        ("*", "pins of their own: mirror:m/*"),
    ] {
        let key = format!("{upstream}{end}");
        for (order, says) in [("pin", says), ("unpin", "is no longer pinned")] {
            let done = appliance.well(&["cache", order, &key]);
            assert!(done.contains(says), "{order} {key}: {done}");
        }
    }
    let wrong = appliance.refused(&["cache", "pin", "mirror:x/*"]);
    assert!(
        wrong.contains("there is no mirror \"x\"") && wrong.contains("there are m"),
        "{wrong}"
    );
    let wrong = appliance.refused(&["cache", "pin", "no key"]);
    assert!(wrong.contains("mirror:NAME/PATH"), "{wrong}");

    // Without a word in the file nobody is served, until the site wants it; "off" rules over that.
    appliance.file("rackbar.toml", config(&upstream, ""));
    appliance.until("no network wants it");
    let site = "version = 1\n[network.rack]\nsubnet = \"10.10.0.0/24\"\nproxy = \"own\"\n";
    let site = appliance.file("site.toml", site);
    appliance.well(&["site", "set", &site]);
    appliance.until("listening on 10.10.0.1:3128");
    assert!(get("/mirror/m/a").ends_with("hello"), "what was stored is still there");
    appliance.file("rackbar.toml", config(&upstream, "proxy = \"off\""));
    appliance.until("no network wants it");
}
