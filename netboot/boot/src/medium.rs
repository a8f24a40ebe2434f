//! The file beside the loader on a disc that the appliance makes: where the appliance is.

use alloc::string::String;
use core::fmt::{Display, Write as _};

/// Its name, in the root folder of the disc's FAT volume.
pub const MEDIUM_FILE: &str = "rackbar.url";

/// Largest such file in bytes: addresses on some dozen networks.
pub const MEDIUM_FILE_LONGEST: usize = 4096;

/// The file: a URL a line, best first. What would not fit is left out.
pub fn medium_file(urls: impl IntoIterator<Item = impl Display>) -> String {
    let mut text = String::from("# Where the loader on this disc finds its appliance, a URL a line.\n");
    for url in urls {
        let before = text.len();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{url}");
        if text.len() > MEDIUM_FILE_LONGEST {
            text.truncate(before);
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_url_has_a_line_and_the_file_stays_short() {
        let text = medium_file(["http://192.0.2.1", "http://198.51.100.1:8080"]);
        assert!(
            text.ends_with("\nhttp://192.0.2.1\nhttp://198.51.100.1:8080\n"),
            "{text}"
        );
        let long = medium_file((0..1000).map(|n| alloc::format!("http://192.0.2.1:{n}")));
        assert!(long.len() <= MEDIUM_FILE_LONGEST && long.ends_with('\n'));
    }
}
