//! Where a Git repository is to be had: a file that the role's steps read. Nothing on the system reads it by itself.

use rackbar_model::OsFile;

use crate::{BadSetup, Result, named};

/// The file `/etc/rackbar/repositories/NAME` with the URL in its one line.
///
/// # Errors
/// When the name is none of a file, or the URL is more than one word.
pub fn place(name: &str, url: &str) -> Result<OsFile> {
    named(name)?;
    // A shell that reads it without quotes must see one word.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b":/._-[]%".contains(&b);
    if url.is_empty() || !url.bytes().all(plain) {
        return Err(BadSetup::new(
            format!("repository {name}: {url:?} is no URL"),
            "correct it in the site",
        ));
    }
    Ok(OsFile {
        path: format!("/etc/rackbar/repositories/{name}"),
        content: format!("{url}\n"),
        mode: 0o644,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_has_the_url_and_nothing_that_a_shell_would_run() {
        let file = place("ours", "http://10.0.0.1:3128/repository/ours").unwrap();
        assert_eq!(file.path, "/etc/rackbar/repositories/ours");
        assert_eq!(file.content, "http://10.0.0.1:3128/repository/ours\n");
        for (name, url) in [
            ("../ours", "http://a/b"),
            ("ours", "http://a/$(b)"),
            ("ours", "http://a/b\nc"),
            ("ours", ""),
        ] {
            assert!(place(name, url).is_err(), "{name} {url}");
        }
    }
}
