//! Figures and their table.

use anyhow::Result;
use comfy_table::{Table, presets};
use serde::Serialize;

/// One figure of one server.
#[derive(Clone, Serialize)]
pub(crate) struct Row {
    /// What was measured.
    pub(crate) measure: String,
    /// Whose server.
    pub(crate) server: String,
    /// The figure.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// Whether more is better.
    pub(crate) more_is_better: bool,
}

impl Row {
    pub(crate) fn more(measure: impl Into<String>, server: &str, value: f64, unit: &'static str) -> Self {
        Self {
            measure: measure.into(),
            server: server.to_owned(),
            value,
            unit,
            more_is_better: true,
        }
    }

    pub(crate) fn less(measure: impl Into<String>, server: &str, value: f64, unit: &'static str) -> Self {
        Self {
            more_is_better: false,
            ..Self::more(measure, server, value, unit)
        }
    }
}

/// The one in the middle; of an even number the lower of the two, and 0 of none.
pub(crate) fn median(figures: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = figures.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// The name our own servers have in the table.
pub(crate) const OURS: &str = "rackbar";

/// How many times better we are than `row`'s server in the same measure; below 1 we are behind.
fn ratio(rows: &[Row], row: &Row) -> Option<f64> {
    let ours = rows.iter().find(|r| r.server == OURS && r.measure == row.measure)?;
    let (better, worse) = if row.more_is_better {
        (ours.value, row.value)
    } else {
        (row.value, ours.value)
    };
    (row.server != OURS && worse > 0.0).then_some(better / worse)
}

pub(crate) fn print(rows: &[Row], json: bool) -> Result<()> {
    if json {
        println!("{}", serde_json::to_string_pretty(rows)?);
        return Ok(());
    }
    let mut table = Table::new();
    table
        .load_style(presets::ASCII_MARKDOWN)
        .set_header(["measure", "server", "figure", "unit", "rackbar is"]);
    for row in rows {
        let ratio = ratio(rows, row).map_or_else(String::new, |ratio| format!("{ratio:.1} x better"));
        let figure = if row.value < 10.0 {
            format!("{:.2}", row.value)
        } else {
            format!("{:.0}", row.value)
        };
        table.add_row([&row.measure, &row.server, &figure, row.unit, &ratio]);
    }
    println!("{table}");
    Ok(())
}
