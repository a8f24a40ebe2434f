//! How a script or a program gets to the other machine without a quoting rule of any shell touching it.
//!
//! It travels on standard input into a file of its own. A script's is then read by the program of its first line, with an
//! empty standard input; a program's is held against its digest and run. Feeding the text to `sh -s` would be shorter, but the first command in it that reads its input
//! (`ssh`, `apt-get`, `read`) would eat the rest of the script, silently. Running a script's file itself would fail where
//! `/tmp` is mounted `noexec`; for a program, a folder is looked for that is not.

use std::time::Duration;

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

/// What is carried to the machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Load<'a> {
    /// A script for this program and its arguments, as [`interpreter`] gives them.
    Script(&'a str),
    /// A program that the kernel runs by itself.
    Program {
        /// SHA-256 that it must have there, in hexadecimal.
        sha256: &'a str,
        /// What it is started with.
        arguments: &'a [String],
    },
}

/// Status of a load that was not run, with a reason behind [`SAYS`] on standard error.
pub(crate) const NOT_RUN: i32 = 125;

/// What the reason begins with.
pub(crate) const SAYS: &str = "rackbar: ";

/// What ends a load, as a line of input.
pub(crate) const END: &[u8] = b"end\n";

/// A sign of life of ours, as a line of input.
pub(crate) const BEAT: &[u8] = b".\n";

/// Looks for a sign of life within a lease.
const LOOKS: u32 = 9;

/// The command that takes `length` bytes on its standard input into a folder of its own and runs them. Its status is the
/// load's, or [`NOT_RUN`].
///
/// Behind the load come lines: [`BEAT`] as long as somebody is interested. [`END`], the end of the input, or `lease`
/// without any line ends the load: a connection that broke must not leave it running beside the next try. Ended is its
/// process group, and whatever else has the mark in its environment that the load was started with: a process that left
/// the group still has that. SSH has signals, but not every server passes them on, least of all to processes of root.
pub(crate) fn command(load: Load<'_>, length: u64, lease: Duration) -> String {
    let (folder, check, run) = match load {
        Load::Script(interpreter) => (":", String::new(), format!("{interpreter} \"$f/own\"")),
        // An empty file is a program that does nothing: where it cannot be run, nothing can.
        Load::Program { sha256, arguments } => (
            "{ : > \"$f/own\" && chmod 700 \"$f/own\" && \"$f/own\"; } 2> /dev/null",
            format!(
                "s=$(sha256sum < \"$f/own\"); [ \"${{s%% *}}\" = {sha256} ] || \
                 no \"what arrived has the SHA-256 ${{s%% *}} and not {sha256}\"; chmod 700 \"$f/own\"; {}",
                words(arguments)
            ),
            "\"$f/own\" \"$@\"".into(),
        ),
    };
    let look = lease.as_secs_f32() / LOOKS as f32;
    // Any login shell reads this as three words. The shell stays (no exec), so that the folder goes when it ends.
    format!(
        "/bin/sh -c 'no() {{ echo \"{SAYS}$1\" >&2; exit {NOT_RUN}; }}; umask 077; \
         for d in /tmp /var/tmp \"${{HOME:-/tmp}}\"; do f=$(mktemp -d \"$d/rackbar.XXXXXXXXXX\" 2> /dev/null) || continue; \
         {folder} && break; rm -rf \"$f\"; f=; done; \
         [ -n \"$f\" ] || no \"none of /tmp, /var/tmp and the home folder takes a file that can be run\"; \
         trap \"rm -rf \\\"\\$f\\\"\" EXIT; trap \"exit 129\" HUP; trap \"exit 141\" PIPE; trap \"wait; exit 143\" TERM; \
         head -c {length} > \"$f/own\" && [ $(wc -c < \"$f/own\") -eq {length} ] || no \"it did not arrive whole\"; \
         {check} {ENDING} exec 3<&0; \
         (while read -r b <&3 && [ \"$b\" = . ]; do : > \"$f/beat\"; done; ending) > /dev/null 2>&1 & w=$!; \
         (i=0; while sleep {look:.2}; do if rm \"$f/beat\"; then i=0; else i=$((i + 1)); [ $i -lt {LOOKS} ] || break; fi; \
         done; ending) < /dev/null > /dev/null 2>&1 3<&- & t=$!; \
         RACKBAR_STEP=\"$f\" {run} < /dev/null 3<&-; s=$?; kill $w $t 2> /dev/null; exit $s'"
    )
}

/// Tells all to terminate, and kills what has not done so five seconds later. Processes are known by the group, and by
/// their environment where /proc shows it to us.
const ENDING: &str = "marked() { for p in $(grep -lsF \"RACKBAR_STEP=$f\" /proc/[0-9]*/environ); do p=${p#/proc/}; \
     echo ${p%/environ}; done; }; \
     ending() { trap \"\" TERM; p=$(marked); kill -TERM 0 $p; i=0; \
     while [ $i -lt 50 ] && [ -n \"$(marked)\" ]; do sleep .1; i=$((i + 1)); done; rm -rf \"$f\"; i=0; \
     while [ $i -lt 50 ] && p=$(marked) && [ -n \"$p\" ]; do kill -KILL $p; sleep .1; i=$((i + 1)); done; kill -KILL 0; };";

/// Makes these the shell's arguments. They are written in octal: no shell on the way finds anything in them to read.
fn words(arguments: &[String]) -> String {
    let mut out = String::from("set --;");
    for argument in arguments {
        let octal: String = argument.bytes().map(|byte| format!("\\0{byte:03o}")).collect();
        // The x keeps line ends at the end, which a substitution would take off.
        out.push_str(&format!(" a=$(printf %bx \"{octal}\"); set -- \"$@\" \"${{a%x}}\";"));
    }
    out
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

    /// What a shell makes of arguments written in octal.
    fn through_a_shell(arguments: &[String]) -> Vec<u8> {
        let script = format!("{} for a; do printf '%s\\0' \"$a\"; done", words(arguments));
        let ran = std::process::Command::new("/bin/sh").arg("-c").arg(script).output();
        ran.unwrap().stdout
    }

    #[test]
    fn arguments_arrive_as_they_are() {
        let hostile = [
            "",
            "a b",
            "\n",
            "'; reboot #",
            "$(id)`id`\\\"",
            "%s\\n",
            "ü\n\n",
            "-n",
            "*",
        ]
        .map(String::from);
        let wanted: Vec<u8> = hostile.iter().flat_map(|one| one.bytes().chain([0])).collect();
        assert_eq!(through_a_shell(&hostile), wanted);
        assert!(through_a_shell(&[]).is_empty());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn arguments_of_any_kind_arrive_and_cannot_leave_their_quotes(one in "[^\\x00]{0,20}", other in "[^\\x00]{0,20}") {
            let given = [one, other];
            let wanted: Vec<u8> = given.iter().flat_map(|one| one.bytes().chain([0])).collect();
            prop_assert!(!words(&given).contains('\''));
            prop_assert_eq!(through_a_shell(&given), wanted);
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
