//! The formats of text in a site file, by the name the schema gives them.

use std::net::IpAddr;

use ipnet::IpNet;
use rackbar_model::MacAddr;

use super::values::Addresses;
use crate::rules;

/// Why a text is not of its format.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Refusal {
    pub(crate) message: String,
    pub(crate) suggestion: Option<String>,
}

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self {
            message,
            suggestion: None,
        }
    }
}

/// Checks a text against a format. Formats that are not ours always fit.
pub(super) fn check(format: &str, text: &str) -> Result<(), Refusal> {
    let sound = match format {
        "subnet" => return subnet(text),
        "ip" => text.parse::<IpAddr>().is_ok(),
        "addresses" => return text.parse::<Addresses>().map(drop).map_err(Refusal::from),
        "hostname" => is_hostname(text),
        "domain" => is_domain(text),
        "mac" => text.parse::<MacAddr>().is_ok(),
        "ssh-key" => return ssh_key(text),
        "path" => return path(text),
        "user" => is_user(text),
        "timezone" => is_timezone(text),
        "interface" => is_interface(text),
        "name" | "image-name" => is_name(text),
        "label" => (1..=64).contains(&text.chars().count()) && !text.chars().any(char::is_control),
        "script" => text.starts_with("#!/"),
        "sha256" => is_sha256(text),
        "source" => (1..=500).contains(&text.chars().count()) && !text.chars().any(char::is_control),
        "expression" => return rules::check_expression(text),
        "template" => return rules::check_template(text),
        "nic" => return rules::check_nic(text),
        "openpgp" => return super::repository::certificates(text),
        "repository-url" => super::repository::is_url(text),
        "suite" => super::repository::is_suite(text),
        "git-ref" => rackbar_git::Wanted::read(text).is_some(),
        "component" => super::repository::is_component(text),
        "architecture" => super::repository::is_architecture(text),
        "package" => is_package(text),
        _ => true,
    };
    if sound {
        Ok(())
    } else {
        Err(format!("`{}` is not {}", shown(text), meaning(format)).into())
    }
}

fn shown(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(60).collect()
}

fn meaning(format: &str) -> &'static str {
    match format {
        "ip" => "an IP address, such as 10.10.0.1",
        "hostname" => "a host name: letters, digits and hyphens, at most 63, no hyphen at either end",
        "domain" => "a DNS domain, such as rack.example.org",
        "mac" => "a MAC address, such as 52:54:00:12:34:56",
        "user" => "an account name: lower-case letters, digits, `_`, `-`, at most 32",
        "timezone" => "a time zone's name, such as Europe/Berlin",
        "interface" => "an interface name: letters, digits, `.`, `_`, `-`, at most 15",
        "label" => "a name: one line of at most 64 characters",
        "sha256" => "a SHA-256 digest: 64 lower-case hexadecimal digits, as `sha256sum` and `rackbar os list` print it",
        "source" => "a place to fetch from: one line of at most 500 characters",
        "repository-url" => {
            "a URL of a folder, such as https://packages.example.org/debian: http or https, no user name, no `?`, at most 500 \
             characters"
        }
        "git-ref" => {
            "a name in a Git repository such as main, v1.2, refs/heads/main or a commit's 40 digits: letters, digits and `._-/+`, at \
             most 200"
        }
        "suite" => {
            "a suite such as stable: letters, digits, `.`, `_`, `-` and `/` inside, at most 100; with a `/` at its end, such as ./, a \
             flat one"
        }
        "component" => "a component such as main: letters, digits, `.`, `_`, `-` and `/` inside, at most 100",
        "architecture" => "Debian's name of an architecture, such as amd64",
        "package" => {
            "a package: letters, digits and `+._~:=-`, at most 128, as nginx, or nginx=1.22.1-9 with apt; a group of dnf begins with `@`"
        }
        "script" => "a script: its first line must name the program that runs it, such as #!/bin/sh",
        _ => "a name: letters, digits, `.`, `_`, `-`, at most 64",
    }
}

fn subnet(text: &str) -> Result<(), Refusal> {
    let Ok(net) = text.parse::<IpNet>() else {
        return Err(format!("`{}` is not a subnet, such as 10.10.0.0/24", shown(text)).into());
    };
    if net.trunc() == net {
        return Ok(());
    }
    let suggestion = Some(format!("write `{}`", net.trunc()));
    Err(Refusal {
        message: format!("`{text}` has bits set behind its prefix"),
        suggestion,
    })
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Names and versions as Debian Policy (5.6.7, 5.6.12) and RPM spell them, and dnf's groups. A shell takes none of it for more
/// than letters.
fn is_package(text: &str) -> bool {
    let name = text.strip_prefix('@').unwrap_or(text);
    (1..=128).contains(&text.len())
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"+._~:=-".contains(&b))
}

/// RFC 1123 section 2.1, one label.
pub(crate) fn is_hostname(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

pub(crate) fn is_domain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(is_hostname)
}

fn is_user(text: &str) -> bool {
    (1..=32).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"_-".contains(&b))
}

fn is_timezone(text: &str) -> bool {
    !text.is_empty()
        && text.split('/').all(|part| {
            !part.is_empty() && part != ".." && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-".contains(&b))
        })
}

/// What the kernel's `dev_valid_name` takes, less what would need quoting in a configuration file, and less the names that the
/// kernel gives itself: a NIC cannot be renamed to one that another NIC may have. `all` and `default` are settings of every
/// interface in sysctl.
fn is_interface(text: &str) -> bool {
    let kernels_own = ["eth", "wlan", "usb"].iter().any(|kind| {
        let number = text.strip_prefix(kind);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    });
    (1..=15).contains(&text.len())
        && !["lo", "all", "default", ".", ".."].contains(&text)
        && !kernels_own
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

pub(super) fn is_name(text: &str) -> bool {
    (1..=64).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

fn path(text: &str) -> Result<(), Refusal> {
    let wrong = if !text.starts_with('/') {
        "is not an absolute path"
    } else if text.split('/').any(|part| part == ".." || part == ".") {
        "holds `.` or `..`"
    } else if text.ends_with('/') {
        "names a folder; a file is wanted"
    } else if text.bytes().any(|b| b < b' ') {
        "holds control characters"
    } else {
        return Ok(());
    };
    Err(format!("`{}` {wrong}", shown(text)).into())
}

/// The public key types of OpenSSH (sshd(8), AUTHORIZED_KEYS FILE FORMAT).
const KEY_TYPES: &[&str] = &[
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

/// One line of the form `type base64 [comment]`; the blob's first field repeats the type (RFC 4253 section 6.6). Options in
/// front are refused: they would be dropped where an image takes keys without them.
fn ssh_key(text: &str) -> Result<(), Refusal> {
    if text.contains("PRIVATE KEY") {
        let suggestion =
            Some("put the public key here, the file that ends in .pub, and keep the private one".to_owned());
        return Err(Refusal {
            message: "is a private key".to_owned(),
            suggestion,
        });
    }
    let mut words = text.split_ascii_whitespace();
    let (kind, blob) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if !KEY_TYPES.contains(&kind) || text.lines().count() != 1 {
        let suggestion = Some("copy one line of a .pub file, such as `ssh-ed25519 AAAA... you@host`".to_owned());
        return Err(Refusal {
            message: format!("`{}` is not an OpenSSH public key", shown(text)),
            suggestion,
        });
    }
    let bytes =
        base64(blob).ok_or_else(|| Refusal::from(format!("the {kind} key is cut or damaged: no sound base64")))?;
    let length = bytes
        .first_chunk::<4>()
        .map_or(0, |head| u32::from_be_bytes(*head) as usize);
    if bytes.get(4..4usize.saturating_add(length)) != Some(kind.as_bytes()) || bytes.len() < length + 20 {
        return Err(format!("the {kind} key is cut or damaged: its content does not begin with its type").into());
    }
    Ok(())
}

/// RFC 4648 section 4, padded.
fn base64(text: &str) -> Option<Vec<u8>> {
    let body = text.trim_end_matches('=');
    if text.is_empty() || !text.len().is_multiple_of(4) || text.len() - body.len() > 2 {
        return None;
    }
    let (mut out, mut bits, mut held) = (Vec::with_capacity(text.len() / 4 * 3), 0u32, 0u32);
    for byte in body.bytes() {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}
