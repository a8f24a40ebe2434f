//! How a script gets to the other machine without a quoting rule of any shell touching it.
//!
//! The text travels on standard input into a file of its own, which the program of its first line then reads, with an
//! empty standard input. Feeding the text to `sh -s` would be shorter, but the first command in it that reads its input
//! (`ssh`, `apt-get`, `read`) would eat the rest of the script, silently. Running the file itself would fail where `/tmp`
//! is mounted `noexec`.

use crate::SshError;

/// The program a script's first line names, with its arguments.
///
/// # Errors
/// [`SshError::NoInterpreter`] when there is no such line, the path is not absolute, or it holds anything but plain words.
pub fn interpreter(text: &str) -> Result<&str, SshError> {
    let first = text.lines().next().unwrap_or_default();
    let refuse = |why: String| SshError::NoInterpreter(why);
    let words = first
        .strip_prefix("#!")
        .ok_or_else(|| refuse("its first line does not begin with #!".into()))?
        .trim();
    if !words.starts_with('/') {
        return Err(refuse(format!("{words:?} is no absolute path")));
    }
    // These go into a command line between single quotes, so nothing that any shell reads as more than a letter.
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._+-= ".contains(c);
    match words.chars().find(|c| !plain(*c)) {
        Some(odd) => Err(refuse(format!("its first line holds {odd:?}, which is not taken"))),
        None => Ok(words),
    }
}

/// The command that takes a script of `length` bytes for `interpreter` on its standard input and runs it. Its status is
/// the script's; 125 when the script could not be put down whole. A line behind the script ends it, and what it began in
/// its process group: SSH has signals for that, but not every server passes them on, least of all to processes of root.
/// The end of the input, which may be a broken connection, ends nothing.
pub(crate) fn command(interpreter: &str, length: usize) -> String {
    // Any login shell reads this as three words. The shell stays (no exec), so that the file goes when it ends.
    format!(
        "/bin/sh -c 'umask 077; f=$(mktemp) || exit 125; trap \"rm -f $f\" EXIT; trap \"exit 129\" HUP; \
         trap \"exit 143\" TERM; head -c {length} > \"$f\" && [ $(wc -c < \"$f\") -eq {length} ] || exit 125; \
         exec 3<&0; (read line <&3 && {{ trap \"\" TERM; kill -TERM 0; sleep 5; rm -f \"$f\"; kill -KILL 0; }}) \
         > /dev/null 2>&1 & w=$!; {interpreter} \"$f\" < /dev/null 3<&-; s=$?; kill $w 2> /dev/null; exit $s'"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_line_names_the_program() {
        assert_eq!(interpreter("#!/bin/sh\necho"), Ok("/bin/sh"));
        assert_eq!(interpreter("#! /usr/bin/env python3\n"), Ok("/usr/bin/env python3"));
        assert_eq!(interpreter("#!/bin/sh -eu\r\n"), Ok("/bin/sh -eu"));
        for bad in [
            "",
            "echo",
            "#!sh",
            "#!",
            "#!/bin/sh'; reboot",
            "#!/bin/$(id)",
            "#!/bin/\"x",
        ] {
            assert!(interpreter(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_cannot_leave_its_quotes(text in "#!/[ -~]{0,40}") {
            if let Ok(words) = interpreter(&text) {
                prop_assert!(!words.contains(['\'', '"', '$', '`', '\\', ';', '&', '|', '!', '\n', '<', '>']));
            }
        }
    }
}
