//! A report as text for a terminal or a printer.

use std::fmt::Write as _;

use rackbar_model::{CheckResult, CheckStatus};

use crate::{NodeReport, Report};

/// The report as text: a line per check, and what is wrong below it.
pub fn text(report: &Report) -> String {
    let mut out = String::new();
    let passed = report.nodes.iter().filter(|node| node.passed()).count();
    let _ = writeln!(
        out,
        "Rackbar {} report{} of {}: {passed} of {} nodes as wanted",
        report.appliance,
        if report.site.is_empty() {
            String::new()
        } else {
            format!(" on {}", plain(&report.site))
        },
        report.at,
        report.nodes.len()
    );
    for node in &report.nodes {
        write_node(&mut out, node);
    }
    out
}

fn write_node(out: &mut String, node: &NodeReport) {
    let [passed, failed, skipped] = node.counts();
    let _ = writeln!(
        out,
        "\n{}  {}  {passed} passed, {failed} failed, {skipped} skipped",
        plain(&node.name),
        if node.passed() { "READY" } else { "NOT READY" },
    );
    if let Some(why) = node.unproved().or_else(|| node.gone()) {
        let _ = writeln!(out, "  {}", plain(&why));
    }
    for (what, value) in [
        ("state", &node.state),
        ("role", &node.role),
        ("serial", &node.serial),
        ("plan", &node.plan),
    ] {
        if let Some(value) = value {
            let _ = writeln!(out, "  {what:<8}{}", plain(value));
        }
    }
    if let Some((name, sha256)) = &node.image {
        let _ = writeln!(out, "  image   {} sha256:{sha256}", plain(name));
    }
    let width = node.results().map(|check| check.id.len()).max().unwrap_or(0);
    for check in node.results() {
        write_check(out, check, width);
    }
    for evidence in &node.erased {
        let _ = writeln!(
            out,
            "  erased  {} ({}), {}",
            plain(&evidence.disk.to_string()),
            evidence.asked.name(),
            evidence.ended
        );
        for step in &evidence.steps {
            let _ = writeln!(out, "          {}", plain(step));
        }
    }
}

fn write_check(out: &mut String, check: &CheckResult, width: usize) {
    let (mark, says) = match check.status {
        CheckStatus::Passed => ("pass", &check.observed),
        CheckStatus::Failed => ("FAIL", &check.observed),
        CheckStatus::Skipped => ("skip", &check.advice),
    };
    let (id, at) = (plain(&check.id), check.at);
    let _ = writeln!(out, "  {mark}  {id:<width$}  {at}  {}", plain(says));
    if check.status == CheckStatus::Failed {
        let space = " ".repeat(width + 8);
        let _ = writeln!(out, "{space}  wanted: {}", plain(&check.wanted));
        let _ = writeln!(out, "{space}  to do:  {}", plain(&check.advice));
    }
}

/// What a node said must not move a terminal's cursor or forge a line.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
