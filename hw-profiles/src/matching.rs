//! How well a profile fits a machine.

use std::cmp::Ordering;

use crate::Subject;
use crate::profile::Match;

/// How exactly it fits; nothing when it does not. A firmware outweighs a board, a board a product, a product a maker;
/// among equals the longer pattern wins.
pub(crate) fn score(wanted: &Match, subject: &Subject) -> Option<usize> {
    let mut score = 0;
    for (weight, pattern, text) in [
        (1 << 10, &wanted.manufacturer, &subject.manufacturer),
        (1 << 14, &wanted.model, &subject.model),
        (1 << 18, &wanted.board, &subject.board),
        (1 << 22, &wanted.firmware, &subject.firmware),
    ] {
        if let Some(pattern) = pattern {
            if !fits(&pattern.to_lowercase(), &text.trim().to_lowercase()) {
                return None;
            }
            score += weight + pattern.len().min(255);
        }
    }
    for (bound, sides) in [
        (&wanted.firmware_from, [Ordering::Greater, Ordering::Equal].as_slice()),
        (&wanted.firmware_before, [Ordering::Less].as_slice()),
    ] {
        if let Some(bound) = bound {
            // A BMC that tells no version is in no range.
            if version(&subject.firmware).is_empty() || !sides.contains(&compare(&subject.firmware, bound)) {
                return None;
            }
            score += 1 << 22;
        }
    }
    Some(score)
}

/// True when `text` fits `pattern`, where `*` stands for any text.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|head| text.strip_prefix(head)) else {
        return false;
    };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = rest.get(at + part.len()..).unwrap_or_default();
    }
    true
}

/// The numbers of a version. The version is the word with a digit in front and a dot in it (`iLO 5 v2.70 Aug 2022` is
/// 2.70), else all of the text.
fn version(text: &str) -> Vec<u64> {
    let word = text
        .split_whitespace()
        .map(|word| word.trim_start_matches(['v', 'V']))
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()) && word.contains('.'))
        .unwrap_or(text);
    let numbers = word
        .split(|c: char| !c.is_ascii_digit())
        .filter(|digits| !digits.is_empty());
    numbers.map(|digits| digits.parse().unwrap_or(u64::MAX)).collect()
}

/// Compares versions by their numbers; missing ones count as zero.
fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (version(a), version(b));
    let at = |numbers: &[u64], place: usize| numbers.get(place).copied().unwrap_or(0);
    (0..a.len().max(b.len()))
        .map(|place| at(&a, place).cmp(&at(&b, place)))
        .find(|order| order.is_ne())
        .unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, expected) in [
            ("dell*", "dell inc.", true),
            ("dell", "dell inc.", false),
            ("*x10*", "super x10drt", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*", "", true),
            ("a*a", "a", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn versions_compare_by_their_numbers() {
        for (a, b, expected) in [
            ("7.10.30", "7.9", Ordering::Greater),
            ("2.70", "2.7", Ordering::Greater),
            ("1.0", "1", Ordering::Equal),
            ("iLO 5 v2.70 Aug 2022", "2.71", Ordering::Less),
            ("6.10.00.00", "6.10", Ordering::Equal),
        ] {
            assert_eq!(compare(a, b), expected, "{a} {b}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(pattern in ".{0,12}", text in ".{0,24}") {
            let _ = fits(&pattern, &text);
            prop_assert_eq!(compare(&text, &text), Ordering::Equal);
        }
    }
}
