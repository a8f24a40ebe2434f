//! One message: what it says of itself, made harmless.

use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::LONGEST;

/// How bad it is, as the sender says (RFC 5424 section 6.2.1); lower is worse.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// The system cannot be used.
    Emergency,
    /// Something must be done at once.
    Alert,
    /// Critical.
    Critical,
    /// An error.
    Error,
    /// A warning.
    Warning,
    /// Normal but of note; what a message without a priority has (RFC 3164 section 4.3.3).
    #[default]
    Notice,
    /// Information.
    Info,
    /// For those who look for errors.
    Debug,
}

const LEVELS: [(Level, &str); 8] = [
    (Level::Emergency, "emerg"),
    (Level::Alert, "alert"),
    (Level::Critical, "crit"),
    (Level::Error, "err"),
    (Level::Warning, "warning"),
    (Level::Notice, "notice"),
    (Level::Info, "info"),
    (Level::Debug, "debug"),
];

impl Level {
    /// From its number; numbers above 7 are read as the lowest.
    pub fn of(number: u8) -> Self {
        LEVELS.get(usize::from(number)).map_or(Self::Debug, |one| one.0)
    }

    /// Its number, 0 to 7.
    pub const fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = LEVELS.iter().find(|one| one.0 == *self).map_or("debug", |one| one.1);
        f.pad(name)
    }
}

impl FromStr for Level {
    type Err = String;

    /// By name, short or long, or by number.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.to_ascii_lowercase();
        let found = LEVELS
            .iter()
            .find(|(level, name)| *name == text || level.number().to_string() == text)
            .map(|one| one.0);
        let long = match text.as_str() {
            "emergency" | "panic" => Some(Level::Emergency),
            "critical" => Some(Level::Critical),
            "error" => Some(Level::Error),
            "warn" => Some(Level::Warning),
            _ => None,
        };
        found.or(long).ok_or_else(|| {
            let names: Vec<&str> = LEVELS.iter().map(|one| one.1).collect();
            format!("{text:?} is no severity: write one of {}", names.join(", "))
        })
    }
}

/// Which part of the sender it came from (RFC 5424 table 1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Facility(pub u8);

const FACILITIES: [&str; 24] = [
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp", "ntp",
    "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
];

impl fmt::Display for Facility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(FACILITIES.get(usize::from(self.0)).copied().unwrap_or("other"))
    }
}

/// What a message says of itself.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// How bad.
    pub level: Level,
    /// From which part.
    pub facility: Facility,
    /// The host it names itself; not believed.
    pub host: String,
    /// The program, with its process number when it has one: `sshd[812]`.
    pub program: String,
    /// The text.
    pub text: String,
}

/// Reads a message. There is none that cannot be read: what fits no standard is text.
pub fn parse(bytes: &[u8]) -> Message {
    let bytes = bytes.get(..LONGEST).unwrap_or(bytes);
    let text = harmless(bytes);
    let (priority, rest) = priority(&text);
    let (level, facility) = match priority {
        Some(number) => (Level::of(number & 7), Facility(number >> 3)),
        None => (Level::Notice, Facility(1)),
    };
    let (host, program, text) = match rest.strip_prefix("1 ").and_then(modern) {
        Some(parts) => parts,
        None => old(rest),
    };
    Message {
        level,
        facility,
        host,
        program,
        text,
    }
}

/// Text without anything that a terminal or a page could obey: control characters become `#033` as rsyslog writes them,
/// bytes that are no UTF-8 the replacement character, and the marks that turn the direction of writing around go.
fn harmless(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut out = String::with_capacity(text.len());
    for c in text.trim_end_matches(['\n', '\r', '\0']).chars() {
        match c {
            '\t' => out.push(' '),
            '\u{feff}' => {}
            c if c.is_control() => out.push_str(&format!("#{:03o}", u32::from(c))),
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

fn priority(text: &str) -> (Option<u8>, &str) {
    let parsed = text.strip_prefix('<').and_then(|rest| {
        let (number, rest) = rest.split_once('>')?;
        let sound = (1..=3).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
        let number = number.parse::<u8>().ok().filter(|number| sound && *number <= 191)?;
        Some((number, rest))
    });
    match parsed {
        Some((number, rest)) => (Some(number), rest),
        None => (None, text),
    }
}

type Parts = (String, String, String);

/// RFC 5424 behind the version: TIMESTAMP HOST APP PROCID MSGID STRUCTURED-DATA \[MSG\].
fn modern(rest: &str) -> Option<Parts> {
    let mut fields = rest.splitn(6, ' ');
    let [_stamp, host, app, process, _id] = std::array::from_fn(|_| fields.next());
    let (host, app, process) = (host?, app?, process?);
    let rest = fields.next()?;
    let text = match rest.strip_prefix('-') {
        // rsyslog keeps the blank that stood behind the old format's colon.
        Some(text) => text
            .strip_prefix("  ")
            .or_else(|| text.strip_prefix(' '))
            .unwrap_or(text),
        // Its elements are kept in front of the text: they say what it is about.
        None => rest.starts_with('[').then_some(rest)?,
    };
    let nil = |field: &str| if field == "-" { String::new() } else { field.to_owned() };
    let program = match (nil(app), process) {
        (app, "-") => app,
        (app, process) => format!("{app}[{process}]"),
    };
    Some((nil(host), program, text.to_owned()))
}

/// RFC 3164, and what is sent in its name: `Oct 11 22:14:15 host program[1]: text`, any part of which may be missing, and
/// the time in the form of RFC 3339 as rsyslog sends it.
fn old(rest: &str) -> Parts {
    let rest = rest.trim_start_matches(' ');
    let (stamped, rest) = match after_stamp(rest) {
        Some(after) => (true, after),
        None => (false, rest),
    };
    let (host, rest) = match rest.split_once(' ') {
        // A first word that ends in a colon is the program.
        Some((word, after)) if stamped && !word.ends_with(':') && !word.contains('[') => (word, after),
        _ => ("", rest),
    };
    let rest = rest.trim_start_matches(' ');
    let tag = rest
        .split_once(": ")
        .or_else(|| rest.strip_suffix(':').map(|tag| (tag, "")));
    let plain = |tag: &str| tag.len() <= 64 && !tag.is_empty() && !tag.contains(' ');
    match tag {
        Some((tag, text)) if plain(tag) => (host.to_owned(), tag.to_owned(), text.to_owned()),
        _ => (host.to_owned(), String::new(), rest.to_owned()),
    }
}

/// What follows a timestamp.
fn after_stamp(text: &str) -> Option<&str> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let is_clock = |word: &str| {
        word.len() >= 8
            && word.bytes().enumerate().take(8).all(|(n, b)| match n {
                2 | 5 => b == b':',
                _ => b.is_ascii_digit(),
            })
    };
    if MONTHS.iter().any(|month| text.starts_with(month)) {
        let clock = text
            .get(7..15)
            .filter(|clock| is_clock(clock) && text.get(3..4) == Some(" "))?;
        let _ = clock;
        let rest = text.get(15..)?;
        // Cisco and others write a year, a fraction or a colon here.
        let rest = rest.trim_start_matches(|c: char| c == '.' || c == ':' || c.is_ascii_digit());
        return rest.strip_prefix(' ').or_else(|| rest.is_empty().then_some(rest));
    }
    let (word, rest) = text.split_once(' ')?;
    let day = word.get(..10)?.bytes().enumerate().all(|(n, b)| match n {
        4 | 7 => b == b'-',
        _ => b.is_ascii_digit(),
    });
    (day && word.get(10..11) == Some("T") && is_clock(word.get(11..)?)).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(text: &str) -> (String, String, String, String) {
        let message = parse(text.as_bytes());
        let kind = format!("{}.{}", message.facility, message.level);
        (kind, message.host, message.program, message.text)
    }

    fn check(text: &str, wanted: [&str; 4]) {
        let got = parts(text);
        assert_eq!([&*got.0, &*got.1, &*got.2, &*got.3], wanted, "{text}");
    }

    #[test]
    fn what_real_senders_send_is_read() {
        // RFC 3164 section 5.4, RFC 5424 section 6.5.
        check(
            "<34>Oct 11 22:14:15 mymachine su: 'su root' failed for lonvick on /dev/pts/8",
            [
                "auth.crit",
                "mymachine",
                "su",
                "'su root' failed for lonvick on /dev/pts/8",
            ],
        );
        check(
            "<165>1 2003-08-24T05:14:15.000003-07:00 192.0.2.1 myproc 8710 - - %% It's time.",
            ["local4.notice", "192.0.2.1", "myproc[8710]", "%% It's time."],
        );
        check(
            "<165>1 2003-10-11T22:14:15.003Z m.example evntslog - ID47 [ex@32473 iut=\"3\"] \u{feff}An event",
            [
                "local4.notice",
                "m.example",
                "evntslog",
                "[ex@32473 iut=\"3\"] An event",
            ],
        );
        check("<13>1 - - - - - -", ["user.notice", "", "", ""]);
        // rsyslog's forwarding format, a kernel without host, a Cisco, logger without anything.
        check(
            "<30>2026-11-28T02:00:01.123456+00:00 node-001 systemd[1]: Started.",
            ["daemon.info", "node-001", "systemd[1]", "Started."],
        );
        check(
            "<4>Nov  8 02:00:01 kernel: usb 1-1: reset",
            ["kern.warning", "", "kernel", "usb 1-1: reset"],
        );
        check(
            "<189>Nov 28 02:00:01.123: %LINK-3-UPDOWN: Gi0/1 down",
            ["local7.notice", "", "%LINK-3-UPDOWN", "Gi0/1 down"],
        );
        check("<13>hello", ["user.notice", "", "", "hello"]);
        check("no priority at all", ["user.notice", "", "", "no priority at all"]);
        check("<999>x", ["user.notice", "", "", "<999>x"]);
        check("", ["user.notice", "", "", ""]);
    }

    #[test]
    fn hostile_content_is_made_harmless() {
        let text = parts("<13>a: \x1b[2J\x1b]0;owned\x07 b\u{202e}c\r\n").3;
        assert_eq!(text, "#033[2J#033]0;owned#007 b\u{fffd}c");
        let text = parse(b"<13>x: \xff\xfe\0 end").text;
        assert_eq!(text, "\u{fffd}\u{fffd}#000 end");
        assert!(parse(&[b'a'; 100_000]).text.len() <= LONGEST);
    }

    proptest::proptest! {
        #[test]
        fn everything_is_read_and_nothing_in_it_is_a_control_character(bytes in proptest::collection::vec(0u8.., 0..300)) {
            let message = parse(&bytes);
            for field in [message.host, message.program, message.text] {
                proptest::prop_assert!(!field.chars().any(char::is_control));
            }
        }

        #[test]
        fn everything_that_looks_like_a_message_is_read(text in "<[0-9]{0,4}>(1 )?(Oct [ 0-9]{2} [0-9:]{8}|[0-9T:-]{10,25})? ?[^\\x00]{0,40}") {
            parse(text.as_bytes());
        }
    }
}
