//! What a person searches for.

use core::net::IpAddr;

use crate::{Level, Record};

/// Which records are wanted; everything that is left out fits all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter {
    /// From one of these addresses.
    pub sources: Option<Vec<IpAddr>>,
    /// At least this bad.
    pub level: Option<Level>,
    /// Not before this, in milliseconds since 1970.
    pub since: Option<u64>,
    /// With this in program or text, whatever the case of its letters.
    pub grep: Option<String>,
}

impl Filter {
    /// Whether a record is wanted.
    pub fn fits(&self, record: &Record) -> bool {
        let holds = |text: &str, part: &str| text.to_lowercase().contains(part);
        self.sources.as_ref().is_none_or(|all| all.contains(&record.source))
            && self.level.is_none_or(|level| record.level <= level)
            && self.since.is_none_or(|since| record.at >= since)
            && self.grep.as_ref().is_none_or(|part| {
                let part = part.to_lowercase();
                holds(&record.text, &part) || holds(&record.program, &part)
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    #[test]
    fn each_part_of_a_filter_counts() {
        let record = Record::new(1, 5000, [10, 0, 0, 5].into(), parse(b"<11>sshd[7]: Failed password"));
        let fits = |filter: Filter| filter.fits(&record);
        assert!(fits(Filter::default()));
        let grep = |text: &str| Filter {
            grep: Some(text.into()),
            ..Filter::default()
        };
        assert!(fits(grep("failed PASS")) && fits(grep("SSHD")) && !fits(grep("ok")));
        let level = |level| Filter {
            level: Some(level),
            ..Filter::default()
        };
        assert!(fits(level(Level::Error)) && fits(level(Level::Debug)) && !fits(level(Level::Critical)));
        let since = |since| Filter {
            since: Some(since),
            ..Filter::default()
        };
        assert!(fits(since(5000)) && !fits(since(5001)));
        let from = |last: u8| Filter {
            sources: Some(vec![[10, 0, 0, last].into()]),
            ..Filter::default()
        };
        assert!(fits(from(5)) && !fits(from(6)));
    }
}
