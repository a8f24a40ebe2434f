//! What a person sees while a rack comes up: a line per machine on a terminal, plain lines elsewhere, a table at the
//! end.

use std::collections::HashMap;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

use comfy_table::{Table, presets};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::follow::{Followed, Timings};

/// The view.
pub(super) struct View {
    start: Instant,
    /// `None`: plain lines.
    terminal: Option<MultiProgress>,
    bars: HashMap<String, ProgressBar>,
    last: HashMap<String, String>,
}

impl View {
    /// A view that suits where the output goes.
    pub(super) fn new(headless: bool) -> Self {
        let terminal = (!headless && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Self {
            start: Instant::now(),
            terminal,
            bars: HashMap::new(),
            last: HashMap::new(),
        }
    }

    /// Says what a machine does now; repeating it shows nothing new.
    pub(super) fn say(&mut self, name: &str, text: &str) {
        if self.last.get(name).is_some_and(|last| last == text) {
            return;
        }
        self.last.insert(name.to_owned(), text.to_owned());
        match &self.terminal {
            Some(terminal) => {
                let bar = self
                    .bars
                    .entry(name.to_owned())
                    .or_insert_with(|| spinner(terminal, name));
                bar.set_message(text.to_owned());
            }
            None => println!("[{:6.1} s] {name}: {text}", self.start.elapsed().as_secs_f64()),
        }
    }

    /// A machine has got where it should; its clock stops.
    pub(super) fn done(&mut self, name: &str, text: &str) {
        self.say(name, text);
        if let Some(bar) = self.bars.get(name) {
            bar.finish_with_message(text.to_owned());
        }
    }

    /// Leaves the lines as they are and lets others print.
    pub(super) fn end(&mut self) {
        for bar in self.bars.values() {
            bar.abandon();
        }
    }
}

fn spinner(terminal: &MultiProgress, name: &str) -> ProgressBar {
    let bar = terminal.add(ProgressBar::new_spinner());
    // A template that does not parse would be a mistake of ours; the default style then does.
    if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:10} {elapsed:>4} {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(name.to_owned());
    bar.enable_steady_tick(Duration::from_millis(150));
    bar
}

/// The closing table of machines.
pub(super) fn machines(followed: &[Followed]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header([
        "port", "name", "state", "firmware", "serial", "memory", "disks", "NICs", "BMC", "verdict",
    ]);
    for machine in followed {
        let empty = String::new;
        let Some(node) = &machine.node else {
            table.add_row([machine.name.clone(), empty(), "not seen".into()]);
            continue;
        };
        let inventory = node.inventory.clone().unwrap_or_default();
        let memory = inventory.memory.total_bytes >> 20;
        table.add_row([
            machine.name.clone(),
            node.name.clone(),
            node.state.name().to_owned(),
            inventory.firmware.mode.map_or_else(empty, |mode| format!("{mode:?}")),
            inventory.system.serial.unwrap_or_default(),
            if memory > 0 { format!("{memory} MiB") } else { empty() },
            inventory.disks.len().to_string(),
            inventory.nics.len().to_string(),
            node.bmc_address.map_or_else(empty, |address| address.to_string()),
            node.verdict.clone(),
        ]);
    }
    table
}

/// The times of a run, one per line.
pub(super) fn timings(timings: &Timings, followed: &[Followed]) -> String {
    let seconds =
        |time: Option<Duration>| time.map_or_else(|| "-".to_owned(), |time| format!("{:.1} s", time.as_secs_f64()));
    let mut text = format!("appliance, power-on to serving:   {}\n", seconds(timings.serving));
    for machine in followed {
        let took = machine
            .powered
            .zip(machine.discovered)
            .map(|(from, to)| to.duration_since(from));
        text.push_str(&format!(
            "{:10} power-on to discovered: {}\n",
            machine.name,
            seconds(took)
        ));
    }
    text.push_str(&format!(
        "whole rack, power-on of the appliance to the last machine discovered: {}\n",
        seconds(timings.discovered)
    ));
    if timings.ready.is_some() {
        text.push_str(&format!(
            "whole rack, commit to the last machine ready: {}\n\
             whole rack, power-on of the appliance to ready: {}\n",
            seconds(timings.ready),
            seconds(timings.all)
        ));
    }
    text
}
