//! `rackbar console NODE` on a terminal, through the daemon and a simulated BMC's Serial over LAN to the machine's serial
//! port, and back. That the BMC's one console is taken and given back is seen by `ipmitool`; the API is asked by `curl`.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod hall;
mod terminal;

use std::io::{Read as _, Write as _};
use std::process::Stdio;

use hall::{Hall, Said};
use terminal::Terminal;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Leaves the console: Ctrl-].
const LEAVE: &str = "\u{1d}";

/// What is typed at the machine, as it arrives at its serial port.
struct Keyboard(UnboundedReceiver<Vec<u8>>, Vec<u8>);

impl Keyboard {
    fn of(hall: &Hall) -> Self {
        let (typed, arrives) = unbounded_channel();
        hall.serial.set_input(Some(typed));
        Self(arrives, Vec::new())
    }

    /// Waits until all of this has arrived and nothing else.
    fn until(&mut self, hall: &Hall, keys: &[u8]) {
        hall.until("keys arrive at the machine", |_| {
            while let Ok(more) = self.0.try_recv() {
                self.1.extend(more);
            }
            assert!(keys.starts_with(&self.1), "{:?}", self.1);
            (self.1 == keys).then_some(())
        });
        self.1.clear();
    }
}

/// Whether the BMC's console is in use, by the word of the BMC (Get Payload Activation Status, IPMI 2.0 section 24.4).
fn is_taken(hall: &Hall) -> bool {
    let address = hall.bmc_address();
    let arguments = [
        "-I", "lanplus", "-H", &address, "-U", "admin", "-P", "secret", "raw", "0x06", "0x4a", "0x01",
    ];
    let said: Said = hall.program("ipmitool", &arguments).output().unwrap().into();
    let bytes = said.well();
    let bytes: Vec<_> = bytes.split_whitespace().collect();
    assert_eq!(bytes.len(), 3, "{bytes:?}");
    bytes[1] != "00"
}

/// `curl` on the console of the machine, as admin.
fn curl(hall: &Hall, arguments: &[&str]) -> std::process::Command {
    let token = std::fs::read_to_string(hall.folder.path().join("run/admin-token")).unwrap();
    let header = hall.folder.path().join("header");
    std::fs::write(&header, format!("Authorization: Bearer {}", token.trim())).unwrap();
    let mut curl = hall.program("curl", &["-s", "-k", "-N", "-m", "60", "-H"]);
    curl.arg(format!("@{}", header.display())).args(arguments);
    curl.arg(format!("https://127.0.0.1/api/v1/nodes/{}/console", hall.node));
    curl
}

#[test]
fn consoles_are_recorded_all_the_time_where_the_configuration_wants_it() {
    let hall = Hall::open();
    let node = hall.node.as_str();
    let nothing = hall.ask(&["console", node, "--record"]).failed(3);
    assert!(nothing.contains("record_consoles is off"), "{nothing}");
    let file = hall.folder.path().join("rackbar.toml");
    let off = std::fs::read_to_string(&file).unwrap();
    let on = off.replace("[bmc]\n", "[bmc]\nrecord_consoles = true\n");
    assert_ne!(on, off);
    std::fs::write(&file, on).unwrap();
    hall.until("its console is open with nobody looking on", |hall| {
        is_taken(hall).then_some(())
    });
    hall.serial.printed(b"Kernel panic - not syncing\r\n");
    hall.until("what it printed is on record", |hall| {
        let said = hall.ask(&["console", &hall.node, "--record"]);
        said.out.contains("Kernel panic").then_some(())
    });
    // A person sees it too, and who may only look may not.
    let mut terminal = Terminal::start(hall.command(&["console", node]));
    terminal.until("what was before", |text| text.contains("Kernel panic"));
    terminal.press(LEAVE);
    assert_eq!(terminal.end(), 0);
    let token = hall.ask(&["token", "create", "anna", "--role", "viewer"]).well();
    std::fs::write(hall.folder.path().join("anna"), token).unwrap();
    let said: Said = hall
        .command_by("anna", &["console", node, "--record"])
        .output()
        .unwrap()
        .into();
    assert_ne!(said.code, 0, "{said:?}");
    assert!(!said.out.contains("panic"), "{said:?}");

    std::fs::write(&file, off).unwrap();
    hall.until("it is given back", |hall| (!is_taken(hall)).then_some(()));
}

#[test]
fn a_serial_console_is_looked_on_typed_at_recorded_and_given_back() {
    let hall = Hall::open();
    let mut keyboard = Keyboard::of(&hall);
    assert!(!is_taken(&hall));
    let mut terminal = Terminal::start(hall.command(&["console", &hall.node]));
    terminal.until("how to leave", |text| text.contains("Ctrl-] leaves"));
    assert!(is_taken(&hall) && !terminal.is_cooked());
    hall.serial.printed(b"GRUB loading\r\n\r\nnode login: ");
    terminal.until("what the machine prints", |text| text.contains("node login:"));

    // Every key goes through, Ctrl-C too: it is meant for the machine.
    terminal.press("root\r");
    keyboard.until(&hall, b"root\r");
    terminal.press("\u{3}");
    keyboard.until(&hall, b"\x03");
    hall.serial.printed(b"root\r\nPassword: ");
    terminal.until("the answer", |text| text.contains("Password:"));

    terminal.press(LEAVE);
    terminal.until("that it was left", |text| text.contains("left"));
    assert_eq!(terminal.end(), 0);
    assert!(terminal.is_cooked(), "the terminal is as it was");
    let record = hall.folder.path().join(format!("data/console/{}.log", hall.node));
    assert_eq!(
        std::fs::read_to_string(record).unwrap(),
        "GRUB loading\r\n\r\nnode login: root\r\nPassword: "
    );
    hall.until("the BMC has its console back", |hall| (!is_taken(hall)).then_some(()));
    let audit = hall.audit();
    let deed = format!("type on the serial console of {}", hall.node);
    assert!(audit.contains(&deed), "{audit}");
    assert!(
        !audit.contains("root\r"),
        "what was typed is in no audit trail: {audit}"
    );
}

#[test]
fn the_api_streams_a_console_to_all_who_look_on_and_types_for_them() {
    let hall = Hall::open();
    let mut keyboard = Keyboard::of(&hall);
    let code = ["-o", "/dev/null", "-w", "%{http_code}", "--data-binary", "lost"];
    let nobody = curl(&hall, &code).output().unwrap();
    assert_eq!(
        String::from_utf8_lossy(&nobody.stdout),
        "409",
        "nobody looks on: {nobody:?}"
    );

    let mut stream = curl(&hall, &[]).stdout(Stdio::piped()).spawn().unwrap();
    hall.until("the console is open", |hall| is_taken(hall).then_some(()));
    hall.serial.printed(b"early words, ");
    let mut seen = vec![0; 13];
    stream.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
    assert_eq!(seen, b"early words, ");

    // A second one, by a pipe, is shown what was before and takes it from nobody.
    let mut second = hall.command(&["console", &hall.node]);
    let mut second = second.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut shown = vec![0; 13];
    second.stdout.as_mut().unwrap().read_exact(&mut shown).unwrap();
    assert_eq!(shown, b"early words, ");
    hall.serial.printed(b"late words");
    for reader in [&mut stream, &mut second] {
        let mut seen = vec![0; 10];
        reader.stdout.as_mut().unwrap().read_exact(&mut seen).unwrap();
        assert_eq!(seen, b"late words");
    }

    let typed = curl(
        &hall,
        &["-o", "/dev/null", "-w", "%{http_code}", "--data-binary", "reboot\r"],
    )
    .output()
    .unwrap();
    assert_eq!(String::from_utf8_lossy(&typed.stdout), "204", "{typed:?}");
    keyboard.until(&hall, b"reboot\r");
    second.stdin.as_mut().unwrap().write_all(b"yes\r").unwrap();
    keyboard.until(&hall, b"yes\r");

    // Looking on needs more than looking: it takes the console from whoever has it.
    let token = hall.ask(&["token", "create", "anna", "--role", "viewer"]).well();
    std::fs::write(hall.folder.path().join("anna"), token).unwrap();
    let by_anna: Said = hall
        .command_by("anna", &["console", &hall.node])
        .output()
        .unwrap()
        .into();
    let refused = by_anna.failed(4);
    assert!(refused.contains("operator"), "{refused}");
    for mut one in [stream, second] {
        one.kill().unwrap();
        one.wait().unwrap();
    }
    hall.until("the BMC has its console back", |hall| (!is_taken(hall)).then_some(()));
}
