//! Quoting for the formats that no library writes: POSIX shell, kickstart's commands, preseed's lines.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::error::{For, Result};

/// One word of a POSIX shell (2.2.2 Single-Quotes). NUL, which no argument can hold, is for the caller to refuse.
pub(crate) fn shell(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Base64 (RFC 4648 section 4): no shell, preseed or kickstart reads any of its characters as its own.
pub(crate) fn base64(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

/// One argument of a PowerShell command. Its files are read in the system's code page, and it takes typographic quotes for
/// plain ones: what is not ASCII goes through a function `Text` of the script's own, in base64.
pub(crate) fn powershell(text: &str) -> String {
    if text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        format!("'{}'", text.replace('\'', "''"))
    } else {
        format!("(Text '{}')", base64(text))
    }
}

/// Refuses what cannot stand in one line.
pub(crate) fn one_line(at: For, field: &str, text: &str) -> Result<()> {
    match text
        .chars()
        .find(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
    {
        None => Ok(()),
        Some(bad) => Err(at.error(
            field,
            format!("it has the control character {}", bad.escape_unicode()),
            "write it in one line of printable characters",
        )),
    }
}

/// One word of a kickstart command, which is read by Python's `shlex` in POSIX mode.
pub(crate) fn kickstart(at: For, field: &str, text: &str) -> Result<String> {
    one_line(at, field, text)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-_./:,=+@%*~".contains(&b);
    if !text.is_empty() && text.bytes().all(plain) {
        return Ok(text.to_owned());
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    Ok(quoted)
}

/// One line of a preseed file: owner, question, type, and the value, which is the rest of the line.
pub(crate) fn preseed(at: For, owner: &str, question: &str, kind: &str, value: &str) -> Result<String> {
    one_line(at, question, value)?;
    // A backslash at the end joins the next line to this one; white space at the ends is cut off.
    if value.ends_with('\\') || value.trim() != value {
        return Err(at.error(
            question,
            "its value begins or ends with white space, or ends with a backslash",
            "write it without",
        ));
    }
    Ok(format!("{owner} {question} {kind} {value}\n"))
}
