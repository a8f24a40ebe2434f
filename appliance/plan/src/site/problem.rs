//! What is wrong with a site file, where, and what to do.

use std::fmt;
use std::ops::Range;

use serde::Serialize;

/// One problem of a site file.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
pub struct SiteProblem {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// The field, such as `role.worker.root.pick`.
    pub field: String,
    /// What is wrong.
    pub message: String,
    /// What to do, where that is known.
    pub suggestion: Option<String>,
}

impl fmt::Display for SiteProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)?;
        match &self.suggestion {
            Some(suggestion) => write!(f, "; {suggestion}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SiteProblem {}

/// Problems as they are found in one text.
pub(super) struct Problems<'a> {
    text: &'a str,
    pub(super) list: Vec<SiteProblem>,
}

impl<'a> Problems<'a> {
    pub(super) const fn new(text: &'a str) -> Self {
        Self { text, list: Vec::new() }
    }

    pub(super) fn add(
        &mut self,
        place: Option<Range<usize>>,
        field: &str,
        message: String,
        suggestion: Option<String>,
    ) {
        let before = self
            .text
            .get(..place.map_or(0, |range| range.start))
            .unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        self.list.push(SiteProblem {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
            field: field.to_owned(),
            message,
            suggestion,
        });
    }
}

/// `did you mean X?`, when one of the candidates is near.
pub(crate) fn did_you_mean<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let word = word.to_lowercase();
    // Jaro-Winkler is hard on short words: one slip is near, too.
    let likeness = |candidate: &str| {
        let slip = word.len() > 2 && strsim::osa_distance(&word, candidate) <= 1;
        strsim::jaro_winkler(&word, candidate).max(if slip { 0.85 } else { 0.0 })
    };
    let near = candidates
        .into_iter()
        .map(|candidate| (likeness(candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.8)
        .max_by(|a, b| a.0.total_cmp(&b.0));
    near.map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// The known names of a table, for a message: nothing when there are none or too many to help.
pub(super) fn known<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    match names.len() {
        0 => "there is none".to_owned(),
        1..=24 => format!("known: {}", names.join(", ")),
        count => format!("{count} are known"),
    }
}
