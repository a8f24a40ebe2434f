//! One timeline of a run: packets and what happened beside them in one file, in order, read by Wireshark's own programs.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rackbar_vrack::host::Ipv4;
use rackbar_vrack::rack::{Rack, RackFile, RackOptions};
use rackbar_vrack::seat::{MachinePower, PowerAction};

const RACK: &str = "name = \"told\"\ndescription = \"\"\n[[node]]\nname = \"n1\"\nfirmware = \"bios-ipxe\"\nbmc = false\n\
                    [[node]]\nname = \"n2\"\nfirmware = \"bios-ipxe\"\nbmc = false\n";

fn tshark(path: &Path, arguments: &[&str]) -> String {
    let read = Command::new("tshark")
        .arg("-n")
        .arg("-r")
        .arg(path)
        .args(arguments)
        .output();
    let read = read.expect("tshark: `cargo xtask setup test` installs it");
    // As root it warns on its error output, which is not looked at.
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    String::from_utf8_lossy(&read.stdout).into_owned()
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Lets a rack live a little; gives the file of the run and that of its first machine.
async fn run(folder: &Path) -> (PathBuf, PathBuf) {
    let options = RackOptions {
        keep: true,
        parent: Some(folder.to_path_buf()),
        ..RackOptions::default()
    };
    let rack = Arc::new(
        Rack::build(RackFile::parse(RACK, "told").unwrap(), options)
            .await
            .unwrap(),
    );
    let all = rack.directory().join("run.pcapng");
    let one = folder.join("n1.pcapng");
    let capture = rack.capture(Some("n1"), &one).unwrap();
    let _station = rack.host("rack", Ipv4::dhcp("station"));
    for node in rack.nodes() {
        node.machine.act(PowerAction::On).await.unwrap();
    }
    for node in rack.nodes() {
        let booted = node.machine.console().wait_for("SeaBIOS");
        tokio::time::timeout(Duration::from_secs(60), booted)
            .await
            .unwrap()
            .unwrap();
    }
    rack.cut("n1", true).await.unwrap();
    // What is told late comes in its place: before the cut.
    let early = SystemTime::now() - Duration::from_secs(1);
    rack.tell(
        early,
        "appliance",
        "52:54:00:0a:00:00 asks for an address\nin two lines",
    );
    let iface = Duration::from_secs(60);
    let n2 = rack.node("n2").unwrap();
    let asked = tokio::time::timeout(iface, async {
        while rack.switch().counters(n2.ports[0]).rx_frames == 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    asked.await.expect("n2 never sent a packet");
    rack.switch().stop_capture(&capture);
    drop(capture);
    rack.shut_down().await;
    (all, one)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wireshark_reads_packets_consoles_and_faults_of_a_run_in_one_file_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let (all, one) = run(folder.path()).await;
    let text = all.with_extension("timeline.txt");
    // The writer's thread closes its files after the last handle is gone.
    let told = until("the timeline is whole", || {
        let told = std::fs::read_to_string(&text).ok()?;
        (told.contains("Ethernet1/2 its link is down") && !tshark(&all, &["-c", "1"]).is_empty()).then_some(told)
    })
    .await;
    let at = |part: &str| told.find(part).unwrap_or_else(|| panic!("{part} is missing:\n{told}"));
    assert!(
        at("Ethernet1/1 its link is up") < at("console n1         SeaBIOS"),
        "{told}"
    );
    assert!(
        at("asks for an address in two lines") < at("the cables of n1 are pulled"),
        "{told}"
    );
    assert!(
        at("the cables of n1 are pulled") < at("Ethernet1/1 has its cable pulled"),
        "{told}"
    );
    // The same as JSON.
    let json = std::fs::read_to_string(all.with_extension("timeline.jsonl")).unwrap();
    let entries: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(entries.len(), told.lines().count());
    assert!(
        entries
            .windows(2)
            .all(|pair| pair[0]["at"].as_str() <= pair[1]["at"].as_str())
    );
    // Wireshark shows what happened as lines among the packets, and all of it in order of time.
    let lines = tshark(
        &all,
        &[
            "-T",
            "fields",
            "-e",
            "frame.time_epoch",
            "-e",
            "frame.protocols",
            "-e",
            "systemd_journal.message",
        ],
    );
    let times: Vec<f64> = lines
        .lines()
        .map(|line| line.split('\t').next().unwrap().parse().unwrap())
        .collect();
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1]), "{lines}");
    for part in [
        "dhcp",
        "rack: the cables of n1 are pulled",
        "console n2: SeaBIOS",
        "switch: Ethernet1/1 its link is up",
    ] {
        assert!(lines.contains(part), "{part} is missing:\n{lines}");
    }
    let about = Command::new("capinfos")
        .arg(&all)
        .output()
        .expect("capinfos: comes with tshark");
    let about = String::from_utf8_lossy(&about.stdout).into_owned();
    assert!(about.contains("Strict time order:   True"), "{about}");
    // A machine's own capture has its console and no other's.
    let own = std::fs::read_to_string(one.with_extension("timeline.txt")).unwrap();
    assert!(own.contains("console n1") && !own.contains("console n2"), "{own}");
    // tcpdump passes over what it does not know.
    let read = Command::new("tcpdump")
        .args(["-n", "-r"])
        .arg(&all)
        .output()
        .expect("tcpdump");
    assert!(
        String::from_utf8_lossy(&read.stdout).contains("DHCP"),
        "tcpdump reads the packets"
    );
}
