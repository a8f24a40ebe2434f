//! Tables and colour, on a terminal that wants them.

use std::io::IsTerminal;
use std::time::Duration;

use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use rackbar_model::{NodeState, PowerState, Severity};

/// True when standard output is a terminal and `NO_COLOR` is unset (no-color.org).
pub fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// An empty table with these headings.
pub fn table(headings: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(headings);
    if !std::io::stdout().is_terminal() {
        // Piped output is for other programs: one line per entry, however long.
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table
}

/// A cell, coloured on a terminal.
fn coloured(text: String, color: Option<Color>) -> Cell {
    match color.filter(|_| colour()) {
        Some(color) => Cell::new(text).fg(color),
        None => Cell::new(text),
    }
}

/// A node's state.
pub fn state(state: &NodeState) -> Cell {
    let color = match state {
        NodeState::Discovered | NodeState::Available | NodeState::Ready => Some(Color::Green),
        NodeState::Inspecting | NodeState::Configuring | NodeState::Provisioning | NodeState::Cleaning => {
            Some(Color::Cyan)
        }
        NodeState::Maintenance => Some(Color::Yellow),
        NodeState::Failed(_) => Some(Color::Red),
        NodeState::Enrolled | NodeState::HandedOver => None,
    };
    coloured(state.name().to_owned(), color)
}

/// A power state.
pub fn power(power: PowerState) -> Cell {
    coloured(power.to_string(), (power == PowerState::On).then_some(Color::Green))
}

/// Any words, coloured by how bad they are.
pub fn severity(text: String, severity: Severity) -> Cell {
    let color = match severity {
        Severity::Info => None,
        Severity::Warning => Some(Color::Yellow),
        Severity::Error => Some(Color::Red),
    };
    coloured(text, color)
}

/// `text` between the escape codes of `severity`, for lines that are not in a table.
pub fn line(text: &str, severity: Severity) -> String {
    let code = match severity {
        Severity::Info => return text.to_owned(),
        Severity::Warning => "33",
        Severity::Error => "31",
    };
    if colour() {
        format!("\x1b[{code}m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// Waits for something that may take longer than a person likes to wait without a word, with the seconds counted on
/// standard error. Nothing is shown of what is over within two seconds.
pub async fn waiting<T>(what: String, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(Duration::from_secs(2), &mut work).await {
        return done;
    }
    let style = ProgressStyle::with_template("{spinner} {msg}, {elapsed}");
    let bar = ProgressBar::new_spinner().with_message(what);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
    bar.enable_steady_tick(Duration::from_millis(200));
    let done = work.await;
    bar.finish_and_clear();
    done
}

/// Text from a node, made harmless for a terminal: control characters become `?`.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// Prints a value as JSON.
pub fn json(value: &impl serde::Serialize) -> anyhow::Result<()> {
    println!("{}", serde_json::to_string_pretty(value)?);
    Ok(())
}
