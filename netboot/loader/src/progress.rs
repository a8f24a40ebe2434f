//! One line on the console that says how a download goes. Plain ASCII and a carriage return: serial consoles show it.

use alloc::format;
use alloc::string::String;

/// The line for `done` of `size` bytes after `millis` milliseconds. Always of one width, so that it overwrites itself.
pub fn line(name: &str, done: u64, size: u64, millis: u64) -> String {
    let percent = done.saturating_mul(100).checked_div(size).unwrap_or(100).min(100);
    let rate = done.saturating_mul(1000) / millis.max(1);
    let amounts = format!("{} of {} MiB", mebibytes(done), mebibytes(size));
    format!(
        "\r  {name:<24.24} {amounts:>20} {percent:>3}% {:>7} MiB/s",
        mebibytes(rate)
    )
}

/// Bytes as MiB with one decimal.
pub fn mebibytes(bytes: u64) -> String {
    let tenths = bytes.saturating_mul(10) / (1 << 20);
    format!("{}.{}", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_and_how_fast_in_one_width() {
        let half = line("vmlinuz", 4 << 20, 8 << 20, 250);
        assert!(half.contains("vmlinuz ") && half.contains("4.0 of 8.0 MiB") && half.contains(" 50%"));
        assert!(half.ends_with("16.0 MiB/s"));
        for other in [line("", 0, 0, 0), line(&"x".repeat(99), 500 << 20, 900 << 20, 9)] {
            assert_eq!(other.len(), half.len(), "{other}");
        }
    }
}
