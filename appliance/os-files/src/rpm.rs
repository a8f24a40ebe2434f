//! Where dnf, yum and zypper get packages from: a repository in the form of `.repo` files (dnf.conf(5)), and the certificates
//! that it and its packages must be signed with.

use rackbar_model::OsFile;

use crate::{BadSetup, Result, named_with_keys};

/// Permission bits of files that everybody may read.
const PUBLIC: u32 = 0o644;

/// Where zypper reads repositories.
const ZYPPER: &str = "/etc/zypp/repos.d";

/// A repository that an installed system gets packages from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RpmSource<'a> {
    /// Its name: part of file names.
    pub name: &'a str,
    /// URL of the folder that has `repodata`.
    pub url: &'a str,
    /// OpenPGP certificates in ASCII armor.
    pub keys: &'a str,
}

/// The repository for dnf and yum, the same for zypper, and its certificates, as files. Each of these programs reads a folder of
/// its own, so that one that is not there is no harm. The URL is asked directly, by no proxy that the system uses for others.
///
/// # Errors
/// When the name or URL would be more than one word there, or the certificates are no armored text.
pub fn source(one: &RpmSource<'_>) -> Result<[OsFile; 3]> {
    named_with_keys(one.name, one.keys)?;
    // A `$` would be a variable to them.
    let plain = |b: u8| b.is_ascii_graphic() && !b"\"$\\".contains(&b);
    let web = one.url.starts_with("http://") || one.url.starts_with("https://");
    if !web || !one.url.bytes().all(plain) {
        return Err(BadSetup::new(
            format!("repository {}: {:?} is no URL", one.name, one.url),
            "correct it in the site",
        ));
    }
    let key = format!("/etc/pki/rpm-gpg/RPM-GPG-KEY-rackbar-{}", one.name);
    let file = |folder: &str, more: &str| OsFile {
        path: format!("{folder}/rackbar-{}.repo", one.name),
        content: format!(
            "# Written by Rackbar: the state that this repository was locked to there.\n[rackbar-{name}]\n\
             name={name}, as Rackbar locked it\nbaseurl={}/\nenabled=1\ngpgcheck=1\nrepo_gpgcheck=1\ngpgkey=file://{key}\n\
             proxy=_none_\nsslverify=1\n{more}",
            one.url.trim_end_matches('/'),
            name = one.name,
        ),
        mode: PUBLIC,
    };
    let keys = OsFile {
        path: key.clone(),
        content: format!("{}\n", one.keys.trim()),
        mode: PUBLIC,
    };
    Ok([
        // Asking the appliance whether there is a new lock costs nothing; the usual two days would hide it.
        file("/etc/yum.repos.d", "metadata_expire=15m\n"),
        file(ZYPPER, "autorefresh=1\ntype=rpm-md\n"),
        keys,
    ])
}

/// Whether a file is one for zypper alone.
pub fn is_of_zypper(file: &OsFile) -> bool {
    file.path.starts_with(ZYPPER)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nAAAA\n-----END PGP PUBLIC KEY BLOCK-----\n";

    fn one<'a>(name: &'a str, url: &'a str, keys: &'a str) -> RpmSource<'a> {
        RpmSource { name, url, keys }
    }

    #[test]
    fn a_repository_names_its_key_and_lies_where_dnf_and_zypper_read_it() {
        let [dnf, zypper, keys] = source(&one("ours", "http://10.0.0.1:3128/repository/ours", KEYS)).unwrap();
        assert_eq!(dnf.path, "/etc/yum.repos.d/rackbar-ours.repo");
        assert_eq!(
            dnf.content,
            "# Written by Rackbar: the state that this repository was locked to there.\n[rackbar-ours]\n\
             name=ours, as Rackbar locked it\nbaseurl=http://10.0.0.1:3128/repository/ours/\nenabled=1\ngpgcheck=1\n\
             repo_gpgcheck=1\ngpgkey=file:///etc/pki/rpm-gpg/RPM-GPG-KEY-rackbar-ours\nproxy=_none_\nsslverify=1\n\
             metadata_expire=15m\n"
        );
        assert_eq!(zypper.path, "/etc/zypp/repos.d/rackbar-ours.repo");
        assert_eq!(
            zypper
                .content
                .replace("autorefresh=1\ntype=rpm-md\n", "metadata_expire=15m\n"),
            dnf.content
        );
        assert_eq!(
            (keys.path.as_str(), keys.content.as_str()),
            ("/etc/pki/rpm-gpg/RPM-GPG-KEY-rackbar-ours", KEYS)
        );
    }

    #[test]
    fn no_value_becomes_a_line_or_a_variable() {
        assert!(source(&one("ours", "http://a/b", KEYS)).is_ok());
        for (name, url, keys) in [
            ("../ours", "http://a/b", KEYS),
            ("ou\nrs", "http://a/b", KEYS),
            ("ours", "http://a/b\ngpgcheck=0", KEYS),
            ("ours", "http://a/$releasever", KEYS),
            ("ours", "file:///a", KEYS),
            ("ours", "http://a/b", "/etc/keys"),
        ] {
            assert!(source(&one(name, url, keys)).is_err(), "{name:?} {url:?}");
        }
    }
}
