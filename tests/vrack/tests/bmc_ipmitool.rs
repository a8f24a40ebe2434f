//! Debian's ipmitool against the simulated BMC, over the loopback, with both cipher suites.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use rackbar_model::MacAddr;
use rackbar_vrack::bmc::{Faults, Loopback, LoopbackConfig, Pretend};
use rackbar_vrack::console::Console;
use rackbar_vrack::seat::{BootDevice, BootOverride, Identity, MachinePower, PowerAction, PowerState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);

struct Stand {
    bmc: Loopback,
    machine: Arc<Pretend>,
    console: Console,
    _dir: tempfile::TempDir,
}

async fn stand(state: PowerState) -> Stand {
    let dir = tempfile::tempdir().unwrap();
    let console = Console::new(&dir.path().join("serial.log")).unwrap();
    let machine = Arc::new(Pretend::new(state));
    let identity = Identity {
        manufacturer: "Virtual".into(),
        product: "Node".into(),
        serial: "SN-1".into(),
        uuid: "4c4c4544-0042-4410-8056-b4c04f363132".into(),
        board_serial: "B-1".into(),
        asset_tag: "A-1".into(),
        firmware_version: "1".into(),
    };
    let power = Arc::clone(&machine) as Arc<dyn MachinePower>;
    let bmc = Loopback::start(LoopbackConfig {
        power,
        console: console.clone(),
        identity,
        nics: vec![MacAddr([0x52, 0x54, 0, 0, 0, 1])],
        mac: MacAddr([0x52, 0x54, 0, 0, 1, 1]),
        username: "admin".into(),
        password: "secret".into(),
        kcs_socket: None,
    })
    .await
    .unwrap();
    Stand {
        bmc,
        machine,
        console,
        _dir: dir,
    }
}

impl Stand {
    fn command(&self, suite: &str, password: &str, arguments: &[&str]) -> Command {
        let port = self.bmc.ipmi().port().to_string();
        // Its output is a pipe here: unbuffered, or the console's first words would wait for 4 KiB more.
        let mut command = Command::new("stdbuf");
        command.args(["-o0", "ipmitool"]);
        command.args([
            "-I",
            "lanplus",
            "-H",
            "127.0.0.1",
            "-p",
            &port,
            "-C",
            suite,
            "-U",
            "admin",
            "-P",
            password,
        ]);
        command.args(["-N", "2", "-R", "3"]).args(arguments).kill_on_drop(true);
        command
    }

    async fn run(&self, suite: &str, password: &str, arguments: &[&str]) -> (bool, String) {
        let output = timeout(PATIENCE, self.command(suite, password, arguments).output())
            .await
            .unwrap();
        let output = output.expect("ipmitool is installed by `cargo xtask setup`");
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    async fn ok(&self, suite: &str, arguments: &[&str]) -> String {
        let (success, said) = self.run(suite, "secret", arguments).await;
        assert!(success, "ipmitool -C {suite} {arguments:?}: {said}");
        said
    }
}

async fn reads(suite: &str) {
    let stand = stand(PowerState::Off).await;
    assert!(
        stand
            .ok(suite, &["mc", "info"])
            .await
            .contains("IPMI Version              : 2.0")
    );
    assert!(
        stand
            .ok(suite, &["mc", "guid"])
            .await
            .to_lowercase()
            .contains("4c4c4544-0042-4410-8056-b4c04f363132")
    );
    let lan = stand.ok(suite, &["lan", "print", "1"]).await;
    for line in ["127.0.0.1", "52:54:00:00:01:01", "255.0.0.0", "Static Address"] {
        assert!(lan.contains(line), "{line} is missing in {lan}");
    }
    let users = stand.ok(suite, &["user", "list", "1"]).await;
    assert!(
        users
            .lines()
            .any(|line| line.contains("admin") && line.contains("ADMINISTRATOR")),
        "{users}"
    );
    assert!(stand.ok(suite, &["sel", "info"]).await.contains("Entries          : 1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn sensors_and_log_are_read() {
    let stand = stand(PowerState::On).await;
    stand.bmc.state().set_reading("CPU1 Temp", 95);
    let sdr = stand.ok("17", &["sdr", "list", "full"]).await;
    let line = |name: &str| {
        sdr.lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("{name}: {sdr}"))
    };
    assert!(
        line("Inlet Temp").contains("23 degrees C") && line("Inlet Temp").ends_with("ok"),
        "{sdr}"
    );
    assert!(
        line("CPU1 Temp").contains("95 degrees C") && line("CPU1 Temp").ends_with("cr"),
        "{sdr}"
    );
    assert!(
        line("FAN1").contains("8400 RPM") && line("12V").contains("12.06 Volts"),
        "{sdr}"
    );
    let sensor = stand.ok("3", &["sensor", "get", "System Power"]).await;
    assert!(sensor.contains("184") && sensor.contains("Watts"), "{sensor}");
    stand.bmc.state().add_entry("something happened");
    let log = stand.ok("17", &["sel", "list"]).await;
    assert_eq!(
        log.lines().filter(|line| line.contains("System Event")).count(),
        2,
        "{log}"
    );
    // A password its policy forbids is refused here as over Redfish.
    let (success, said) = stand
        .run("17", "secret", &["user", "set", "password", "2", "tiny"])
        .await;
    assert!(!success, "{said}");
    stand.ok("17", &["user", "set", "password", "2", "longer-secret"]).await;
    let (success, _) = stand.run("17", "secret", &["mc", "info"]).await;
    assert!(!success, "the old password is over");
    assert!(stand.run("17", "longer-secret", &["mc", "info"]).await.0);
}

async fn switches(suite: &str) {
    let stand = stand(PowerState::Off).await;
    assert!(
        stand
            .ok(suite, &["chassis", "power", "status"])
            .await
            .contains("is off")
    );
    stand.ok(suite, &["chassis", "bootdev", "pxe", "options=efiboot"]).await;
    let once = Some(BootOverride {
        device: BootDevice::Network,
        once: true,
    });
    assert_eq!(stand.machine.boot_override(), once);
    let shown = stand.ok(suite, &["chassis", "bootparam", "get", "5"]).await;
    assert!(
        shown.contains("Force PXE") && shown.contains("only next boot"),
        "{shown}"
    );
    stand.ok(suite, &["chassis", "power", "on"]).await;
    assert!(
        stand
            .ok(suite, &["chassis", "status"])
            .await
            .contains("System Power         : on")
    );
    stand.ok(suite, &["chassis", "power", "reset"]).await;
    assert_eq!(stand.machine.starts(), [once, None], "a one-time override is used once");
    stand
        .ok(suite, &["chassis", "bootdev", "disk", "options=persistent"])
        .await;
    assert_eq!(
        stand.machine.boot_override(),
        Some(BootOverride {
            device: BootDevice::Disk,
            once: false
        })
    );
    stand.ok(suite, &["chassis", "power", "off"]).await;
    assert_eq!(stand.machine.state(), PowerState::Off);
    let acts = [PowerAction::On, PowerAction::Reset, PowerAction::ForceOff];
    assert_eq!(stand.machine.acts(), acts, "each request was carried out once");
}

#[tokio::test(flavor = "multi_thread")]
async fn suite_3_reads() {
    reads("3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suite_17_reads() {
    reads("17").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suite_3_switches() {
    switches("3").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn suite_17_switches() {
    switches("17").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn weak_suites_and_wrong_passwords_stay_out() {
    let stand = stand(PowerState::On).await;
    for (suite, password) in [("0", "secret"), ("1", "secret"), ("3", "guess"), ("17", "guess")] {
        let (success, said) = stand.run(suite, password, &["chassis", "power", "off"]).await;
        assert!(!success, "suite {suite} with {password} got in: {said}");
    }
    assert_eq!(stand.machine.state(), PowerState::On);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_made_by_ipmitool_works() {
    let stand = stand(PowerState::On).await;
    stand.ok("17", &["user", "set", "name", "3", "op"]).await;
    stand.ok("17", &["user", "set", "password", "3", "operate"]).await;
    stand.ok("17", &["user", "enable", "3"]).await;
    stand
        .ok("17", &["channel", "setaccess", "1", "3", "privilege=3", "ipmi=on"])
        .await;
    let port = stand.bmc.ipmi().port().to_string();
    let mut command = Command::new("ipmitool");
    command.args([
        "-I",
        "lanplus",
        "-H",
        "127.0.0.1",
        "-p",
        &port,
        "-C",
        "17",
        "-U",
        "op",
        "-P",
        "operate",
    ]);
    let output = command
        .args(["-L", "OPERATOR", "chassis", "power", "reset"])
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(stand.machine.acts(), [PowerAction::Reset]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deaf_bmc_is_given_up() {
    let stand = stand(PowerState::On).await;
    stand.bmc.state().set_faults(Faults {
        deaf: true,
        ..Faults::default()
    });
    let (success, said) = stand
        .run("17", "secret", &["-N", "1", "-R", "1", "chassis", "power", "status"])
        .await;
    assert!(!success, "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_serial_console_talks_both_ways() {
    for suite in ["3", "17"] {
        let stand = stand(PowerState::On).await;
        let (typed, mut keyboard) = tokio::sync::mpsc::unbounded_channel();
        stand.console.set_input(Some(typed));
        let mut command = stand.command(suite, "secret", &["sol", "activate"]);
        let mut tool = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (mut keys, mut screen) = (tool.stdin.take().unwrap(), tool.stdout.take().unwrap());
        let mut shown = String::new();
        timeout(PATIENCE, async {
            wait_for(&mut screen, &mut shown, "operational").await;
            keys.write_all(b"ls\n").await.unwrap();
            keys.flush().await.unwrap();
            let mut got = Vec::new();
            while !got.starts_with(b"ls") {
                got.extend(keyboard.recv().await.unwrap());
            }
            stand
                .console
                .printed(&[b"node login: ".repeat(60), b"done".to_vec()].concat());
            wait_for(&mut screen, &mut shown, "done").await;
            assert_eq!(shown.matches("node login: ").count(), 60, "{shown}");
            keys.write_all(b"\n~.").await.unwrap();
            keys.flush().await.unwrap();
            tool.wait().await.unwrap();
        })
        .await
        .unwrap_or_else(|_| panic!("suite {suite}: the console showed only {shown:?}"));
    }
}

async fn wait_for(screen: &mut (impl AsyncReadExt + Unpin), shown: &mut String, text: &str) {
    let mut buffer = [0; 1024];
    while !shown.contains(text) {
        let length = screen.read(&mut buffer).await.unwrap();
        assert!(length > 0, "ipmitool ended; it showed {shown:?}");
        shown.push_str(&String::from_utf8_lossy(&buffer[..length]));
    }
}
