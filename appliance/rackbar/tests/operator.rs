//! What an operator asks of a rack at the command line: leases, services, power, and events as they happen.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod hall;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Instant;

use hall::{Hall, PATIENCE};
use rackbar_vrack::seat::{MachinePower as _, PowerState};
use serde_json::{Value, json};

/// `rackbar events --follow`, and the lines that it prints.
struct Followed {
    child: Child,
    lines: Receiver<String>,
}

impl Followed {
    fn start(hall: &Hall, arguments: &[&str]) -> Self {
        let mut command = hall.command(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output
                .lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Self { child, lines }
    }

    /// The next line that is wanted.
    #[track_caller]
    fn until(&self, what: &str, wanted: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("not in time: {what}; it printed {seen:#?}");
            };
            if wanted(&line) {
                return line;
            }
            seen.push(line);
        }
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        // It follows until it is ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn events_are_printed_as_they_happen_while_power_is_switched() {
    let hall = Hall::open();
    let node = hall.node.as_str();
    let followed = Followed::start(&hall, &["events", "--follow"]);
    // What there was before comes first.
    followed.until("the BMC that was found", |line| line.contains("10.79.0.1"));
    let machine_wise = Followed::start(&hall, &["--json", "events", "--follow", "--node", node]);

    let said = hall.ask(&["node", "power", node, "off"]);
    assert!(said.code == 0 && said.err.contains("its BMC took it"), "{said:?}");
    hall.until("it is off", |hall| (now(hall) == PowerState::Off).then_some(()));
    followed.until("the order", |line| line.contains("off asked by admin"));
    let line = machine_wise.until("the order as JSON", |line| line.contains("off"));
    let event: Value = serde_json::from_str(&line).unwrap();
    assert!(event["seq"].as_u64().is_some_and(|seq| seq > 0), "{event}");
    assert!(event["text"].as_str().is_some_and(|text| !text.is_empty()), "{event}");

    let answer = hall.ask(&["node", "power", node, "on", "--json"]).well();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer, json!({ "way": "bmc" }));
    followed.until("the next order", |line| line.contains("on asked by admin"));
    is_traced_for_programs(&hall, node);
    hall.until("it is on", |hall| (now(hall) == PowerState::On).then_some(()));

    let unknown = hall.ask(&["node", "power", "nobody", "on"]).failed(3);
    assert!(unknown.contains("nobody"), "{unknown}");
    hall.ask(&["node", "power", node, "sideways"]).failed(2);
}

/// A program gets the timeline whole: the verdict, and each event with its words.
fn is_traced_for_programs(hall: &Hall, node: &str) {
    let trace = hall.ask(&["node", "trace", node, "--json"]).well();
    let trace: Value = serde_json::from_str(&trace).unwrap();
    assert_eq!(trace["name"], node, "{trace}");
    assert!(
        trace["verdict"].as_str().is_some_and(|verdict| !verdict.is_empty()),
        "{trace}"
    );
    let items = trace["items"].as_array().unwrap();
    let place = |part: &str| {
        let told = |item: &Value| item["text"].as_str().is_some_and(|text| text.contains(part));
        items
            .iter()
            .position(told)
            .unwrap_or_else(|| panic!("nothing of {part:?}: {trace}"))
    };
    assert!(place("off asked by admin") < place("on asked by admin"), "{trace}");
    let numbers: Vec<u64> = items.iter().filter_map(|item| item["seq"].as_u64()).collect();
    assert!(numbers.len() == items.len() && numbers.is_sorted(), "{trace}");
}

fn now(hall: &Hall) -> PowerState {
    hall.machine.state()
}

#[test]
fn leases_and_services_are_listed_for_people_and_programs() {
    let hall = Hall::open();
    let table = hall.ask(&["lease", "list"]).well();
    let line = table
        .lines()
        .find(|line| line.contains("10.79.0.1"))
        .unwrap_or_default();
    assert!(line.contains("02:00:00:00:00:65") && line.contains("bmc"), "{table}");
    let leases = hall.json(&["lease", "list"]);
    let lease = &leases.as_array().unwrap()[0];
    assert_eq!(lease["mac"], "02:00:00:00:00:65", "{leases}");
    assert!(lease["address"].as_str().unwrap().starts_with("10.79.0.1"), "{leases}");

    let table = hall.ask(&["service", "status"]).well();
    for service in ["dhcp", "tftp", "http"] {
        assert!(
            table.lines().any(|line| line.contains(service)),
            "no {service}: {table}"
        );
    }
    let services = hall.json(&["service", "status"]);
    let named = |name: &str| services.as_array().unwrap().iter().any(|one| one["name"] == name);
    assert!(named("dhcp"), "{services}");
    let table = hall.ask(&["service", "boot"]).well();
    assert!(
        table.lines().any(|line| line.contains("tftp") && line.contains("1024")),
        "{table}"
    );
    let boot = hall.json(&["service", "boot"]);
    assert_eq!(boot["servers"][1]["name"], "http", "{boot}");
    assert_eq!(
        (&boot["servers"][1]["limit"], &boot["servers"][1]["waiting"]),
        (&8192.into(), &0.into()),
        "{boot}"
    );
}
