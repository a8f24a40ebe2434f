//! Figures as a person says them.

/// `40 s`, `3 min`, `2 h 5 min`.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_a_person_says_them() {
        assert_eq!(duration(40), "40 s");
        assert_eq!(duration(170), "3 min");
        assert_eq!(duration(7_500), "2 h 5 min");
    }
}
