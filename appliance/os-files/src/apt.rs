//! Where apt gets packages from: a source in the form of deb822, the certificates it must be signed with, and the way there.

use rackbar_model::OsFile;

use crate::{BadSetup, Result, named_with_keys};

/// Permission bits of files that everybody may read.
const PUBLIC: u32 = 0o644;

/// A repository that an installed system gets packages from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AptSource<'a> {
    /// Its name: part of file names.
    pub name: &'a str,
    /// URL of the folder that has `dists`, or that a flat suite is below.
    pub url: &'a str,
    /// Suite; with a slash at its end a flat one.
    pub suite: &'a str,
    /// Components; none of a flat suite.
    pub components: &'a [String],
    /// Debian's names of the architectures.
    pub architectures: &'a [String],
    /// OpenPGP certificates in ASCII armor.
    pub keys: &'a str,
}

/// The source and its certificates, as files. Its state is locked by whoever serves it, so the end that its publisher gave it
/// does not count.
///
/// # Errors
/// When a value would be more than one word there, or the certificates are no armored text.
pub fn source(one: &AptSource<'_>) -> Result<[OsFile; 2]> {
    let word = |what: &str, text: &str| match is_word(text) {
        true => Ok(()),
        false => Err(BadSetup::new(
            format!("repository {}: {text:?} is no {what}", one.name),
            "correct it in the site",
        )),
    };
    named_with_keys(one.name, one.keys)?;
    word("URL", one.url)?;
    word("suite", one.suite)?;
    one.components.iter().try_for_each(|text| word("component", text))?;
    one.architectures
        .iter()
        .try_for_each(|text| word("architecture", text))?;
    let keyring = format!("/etc/apt/keyrings/rackbar-{}.asc", one.name);
    let components = match one.components {
        [] => String::new(),
        some => format!("Components: {}\n", some.join(" ")),
    };
    let content = format!(
        "# Written by Rackbar: the state that this repository was locked to there.\nTypes: deb\nURIs: {}\nSuites: {}\n\
         {components}Architectures: {}\nSigned-By: {keyring}\nCheck-Valid-Until: no\n",
        one.url,
        one.suite,
        one.architectures.join(" "),
    );
    let sources = OsFile {
        path: format!("/etc/apt/sources.list.d/rackbar-{}.sources", one.name),
        content,
        mode: PUBLIC,
    };
    let keys = OsFile {
        path: keyring,
        content: format!("{}\n", one.keys.trim()),
        mode: PUBLIC,
    };
    Ok([sources, keys])
}

/// Has apt ask this host itself, and not by the proxy that it uses for others.
///
/// # Errors
/// When the host is none.
pub fn direct(host: &str) -> Result<OsFile> {
    // A colon would be another name to apt: its settings are written with two of them between names.
    let sound = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b));
    if !sound {
        return Err(BadSetup::new(
            format!("{host:?} is no host that apt can be told of"),
            "let the role be on an IPv4 network of the appliance's proxy",
        ));
    }
    Ok(OsFile {
        path: "/etc/apt/apt.conf.d/91rackbar-repositories".to_owned(),
        content: format!("Acquire::http::Proxy::{host} \"DIRECT\";\n"),
        mode: PUBLIC,
    })
}

fn is_word(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    !text.is_empty() && !text.starts_with('#') && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n";

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_source_names_its_keyring_and_lies_where_apt_reads_it() {
        let (components, architectures) = (words(&["main", "extra"]), words(&["amd64"]));
        let one = AptSource {
            name: "ours",
            url: "http://10.0.0.1:3128/repository/ours",
            suite: "stable",
            components: &components,
            architectures: &architectures,
            keys: KEYS,
        };
        let [sources, keys] = source(&one).unwrap();
        assert_eq!(sources.path, "/etc/apt/sources.list.d/rackbar-ours.sources");
        assert_eq!(
            sources.content,
            "# Written by Rackbar: the state that this repository was locked to there.\nTypes: deb\n\
             URIs: http://10.0.0.1:3128/repository/ours\nSuites: stable\nComponents: main extra\nArchitectures: amd64\n\
             Signed-By: /etc/apt/keyrings/rackbar-ours.asc\nCheck-Valid-Until: no\n"
        );
        assert_eq!(
            (keys.path.as_str(), keys.content.as_str()),
            ("/etc/apt/keyrings/rackbar-ours.asc", KEYS)
        );
        let flat = source(&AptSource {
            suite: "./",
            components: &[],
            ..one
        });
        let text = &flat.unwrap()[0].content;
        assert!(text.contains("\nSuites: ./\nArchitectures: amd64\n"), "{text}");
        let direct = direct("10.0.0.1").unwrap();
        assert_eq!(direct.content, "Acquire::http::Proxy::10.0.0.1 \"DIRECT\";\n");
    }

    #[test]
    fn no_value_becomes_a_line_of_its_own() {
        let (good, bad) = (words(&["main"]), words(&["main\nTrusted: yes"]));
        let one = |name, url, suite, components, keys| {
            let architectures = &good;
            source(&AptSource {
                name,
                url,
                suite,
                components,
                architectures,
                keys,
            })
        };
        assert!(one("ours", "http://a/b", "stable", &good, KEYS).is_ok());
        assert!(one("../ours", "http://a/b", "stable", &good, KEYS).is_err());
        assert!(one("ours", "http://a/b c", "stable", &good, KEYS).is_err());
        assert!(one("ours", "http://a/b", "stable\nTrusted: yes", &good, KEYS).is_err());
        assert!(one("ours", "http://a/b", "stable", &bad, KEYS).is_err());
        assert!(one("ours", "http://a/b", "stable", &good, "/etc/keys").is_err());
        assert!(direct("a\"; x \"").is_err() && direct("").is_err() && direct("fd00::1").is_err());
    }
}
