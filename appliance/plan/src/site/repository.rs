//! Repositories of the site: their texts, and what roles say of them.

use std::collections::BTreeSet;

use rackbar_model::RepositoryKind;
use rackbar_upstream::Keyring;

use super::formats::Refusal;
use super::semantics::Checker;
use super::types::Repository;

/// Certificates that signatures can be judged by, in the form that apt reads too.
pub(super) fn certificates(text: &str) -> Result<(), Refusal> {
    Keyring::read(text.as_bytes()).map_err(|error| Refusal::from(error.to_string()))?;
    if text.trim_start().starts_with("-----BEGIN PGP PUBLIC KEY BLOCK-----") {
        return Ok(());
    }
    Err(Refusal::from(
        "these certificates are not in ASCII armor from their first line on".to_owned(),
    ))
}

/// A folder of a web server, without anything that would end up in logs.
pub(super) fn is_url(text: &str) -> bool {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some((host, path)) = rest.map(|rest| rest.split_once('/').unwrap_or((rest, ""))) else {
        return false;
    };
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"\\?#@<>^`{|}".contains(&b);
    let port = |text: &str| text.parse::<u16>().is_ok_and(|port| port > 0);
    let named = match host.rsplit_once(':').filter(|_| !host.ends_with(']')) {
        Some((name, number)) => is_host(name) && port(number),
        None => is_host(host),
    };
    named && text.len() <= 500 && path.bytes().all(plain) && !path.split('/').any(|part| part == "..")
}

fn is_host(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    match inside {
        Some(inside) => inside.parse::<std::net::Ipv6Addr>().is_ok(),
        None => super::formats::is_domain(text) || text.parse::<std::net::Ipv4Addr>().is_ok(),
    }
}

/// A folder of `dists`, or a flat suite: `stable`, `stable/updates`, `./`, `amd64/`.
pub(super) fn is_suite(text: &str) -> bool {
    match text.strip_suffix('/') {
        Some(flat) => flat == "." || is_component(flat.strip_prefix("./").unwrap_or(flat)),
        None => is_component(text),
    }
}

/// A component, or the folder of one: `main`, `updates/main`.
pub(super) fn is_component(text: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    text.len() <= 100 && text.split('/').all(part)
}

/// Debian's name of an architecture.
pub(super) fn is_architecture(text: &str) -> bool {
    (1..=40).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
}

impl Checker<'_, '_, '_> {
    /// Fields that this kind of repository needs, and those of others.
    fn fields_of_kind(&mut self, name: &str, one: &Repository) {
        let (needed, of_others, found): (&[&str], &[&str], _) = match one.kind {
            RepositoryKind::Deb => (&["suite", "keys"], &["ref"], "Debian packages"),
            RepositoryKind::Rpm => (
                &["keys"],
                &["suite", "components", "architectures", "ref"],
                "RPM packages",
            ),
            RepositoryKind::Git => (&[], &["suite", "components", "architectures", "keys"], "Git"),
        };
        for field in of_others {
            let path = ["repository", name, field];
            if self.is_written(&path) {
                let of = match *field {
                    "ref" => "Git repositories",
                    "keys" => "packages",
                    _ => "Debian packages",
                };
                let words = format!("is of {of}, and this repository is one of {found}");
                self.add(&path, &words, Some("leave it out".to_owned()));
            }
        }
        for field in needed {
            if !self.is_written(&["repository", name, field]) {
                let help = "RPM packages have `kind = \"rpm\"`, Git repositories `kind = \"git\"`";
                let words = format!("`{field}` is missing");
                self.add(&["repository", name], &words, Some(help.to_owned()));
            }
        }
    }

    /// Repositories, and roles that name them.
    pub(super) fn repositories(&mut self) {
        let site = self.site;
        for (name, one) in &site.repository {
            self.name(&["repository", name], name);
            self.fields_of_kind(name, one);
            if one.is_flat() && self.is_written(&["repository", name, "components"]) {
                let help = Some("leave it out".to_owned());
                let path = ["repository", name, "components"];
                self.add(&path, "is not of flat suites, whose name ends with `/`", help);
            }
            for (field, list) in [("components", &one.components), ("architectures", &one.architectures)] {
                let path = ["repository", name, field];
                let Some(list) = list else { continue };
                if list.is_empty() {
                    self.add(&path, "names none", Some("leave it out for the usual one".to_owned()));
                }
                let once: BTreeSet<&String> = list.iter().collect();
                if once.len() < list.len() {
                    self.add(&path, "names one twice", None);
                }
            }
        }
        for (role_name, role) in &site.role {
            let mut seen = BTreeSet::new();
            for (index, name) in role.repositories.iter().enumerate() {
                let index = index.to_string();
                let path = ["role", role_name, "repositories", &index];
                self.refers(&path, "repository", name, site.repository.keys().map(String::as_str));
                if !seen.insert(name) {
                    self.add(&path, "is named twice", None);
                }
            }
        }
    }
}
