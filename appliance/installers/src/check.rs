//! What is refused for every installer alike: values that are none, before any of them is written anywhere.

use rackbar_model::{DiskRef, OsFile};
use rackbar_os_files::network::{Base, arrange};
use rackbar_os_files::text;

use crate::error::{For, Result};
use crate::input::{Account, Install, Url};
use crate::quote::one_line;

/// Checks everything and arranges the networks.
pub(crate) fn install(at: For, install: &Install) -> Result<Vec<Base>> {
    let setup = &install.setup;
    text::check(setup).map_err(|bad| at.setup(bad))?;
    let bases = arrange(setup).map_err(|bad| at.setup(bad))?;
    words(at, install)?;
    for (index, file) in setup.files.iter().enumerate() {
        self::file(at, &format!("setup.files[{index}]"), file)?;
    }
    keys(at, "setup.ssh_keys", &setup.ssh_keys)?;
    if !setup.ssh_host_key.0.is_empty() {
        text::public_key(&setup.ssh_host_key.0, &setup.hostname).map_err(|bad| at.setup(bad))?;
    }
    accounts(at, install)?;
    for (index, package) in install.packages.iter().enumerate() {
        self::package(at, &format!("packages[{index}]"), package)?;
    }
    for (index, disk) in install.target.disks().iter().enumerate() {
        self::disk(at, &format!("target.disks[{index}]"), disk)?;
    }
    if !install.answers.as_str().ends_with('/') {
        return Err(at.error("answers", "it is no folder", "end the URL with /"));
    }
    Ok(bases)
}

fn words(at: For, install: &Install) -> Result<()> {
    let setup = &install.setup;
    let host =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b));
    for (index, server) in setup.ntp.iter().enumerate() {
        let what = "it is no host name or address";
        demand(at, host(server), &format!("setup.ntp[{index}]"), what)?;
    }
    if let Some(server) = &setup.syslog {
        let good = server
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        demand(at, good && host(server), "setup.syslog", "it is no host:port")?;
    }
    proxy(at, install)?;
    let zone = setup.timezone.as_deref().unwrap_or("UTC");
    let zone_like = |b: u8| b.is_ascii_alphanumeric() || b"/_+-".contains(&b);
    demand(at, zone.bytes().all(zone_like), "setup.timezone", "it is no time zone")?;
    let locale_like = |b: u8| b.is_ascii_alphanumeric() || b"_.@-".contains(&b);
    let locale = &install.locale;
    demand(
        at,
        !locale.is_empty() && locale.bytes().all(locale_like),
        "locale",
        "it is no locale",
    )?;
    let layout_like = |b: u8| b.is_ascii_alphanumeric() || b"_-".contains(&b);
    let keyboard = &install.keyboard;
    let what = "it is no keyboard layout";
    demand(
        at,
        !keyboard.is_empty() && keyboard.bytes().all(layout_like),
        "keyboard",
        what,
    )
}

/// The proxy as a URL without anything that a file could take for its own.
pub(crate) fn proxy(at: For, install: &Install) -> Result<Option<Url>> {
    let parse = |text: &String| {
        let wrong = |bad: crate::input::BadUrl| at.error("setup.proxy", bad.to_string(), "correct it in the site");
        text.parse::<Url>().map_err(wrong)
    };
    install.setup.proxy.as_ref().map(parse).transpose()
}

pub(crate) fn demand(at: For, good: bool, field: &str, what: &str) -> Result<()> {
    if good {
        return Ok(());
    }
    Err(at.error(field, what, "correct it in the site"))
}

fn file(at: For, field: &str, file: &OsFile) -> Result<()> {
    one_line(at, &format!("{field}.path"), &file.path)?;
    let parts: Vec<&str> = file.path.split('/').skip(1).collect();
    let sound = file.path.starts_with('/') && parts.iter().all(|part| !matches!(*part, "" | "." | ".."));
    demand(
        at,
        sound,
        &format!("{field}.path"),
        "it is no absolute path without `..` of a file",
    )?;
    demand(
        at,
        file.mode <= 0o7777,
        &format!("{field}.mode"),
        "it is no set of permission bits",
    )
}

fn keys(at: For, field: &str, keys: &[String]) -> Result<()> {
    for (index, key) in keys.iter().enumerate() {
        let field = format!("{field}[{index}]");
        one_line(at, &field, key.trim())?;
        let kinds = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
        let sound = kinds.iter().any(|kind| key.trim().starts_with(kind)) && key.trim().contains(' ');
        demand(
            at,
            sound,
            &field,
            "it is no OpenSSH public key (options before the key are not taken)",
        )?;
    }
    Ok(())
}

fn accounts(at: For, install: &Install) -> Result<()> {
    user(at, "setup.user", &install.setup.user)?;
    let mut names: Vec<&str> = Vec::new();
    for (index, account) in install.accounts.iter().enumerate() {
        let field = |name: &str| format!("accounts[{index}].{name}");
        let Account { name, full_name, .. } = account;
        demand(at, !name.is_empty(), &field("name"), "it is empty")?;
        user(at, &field("name"), name)?;
        demand(
            at,
            name != "root",
            &field("name"),
            "it is root, whose password is `root_password`",
        )?;
        demand(at, !names.contains(&name.as_str()), &field("name"), "it is there twice")?;
        names.push(name);
        one_line(at, &field("full_name"), full_name)?;
        // passwd(5) ends its fields with colons.
        demand(at, !full_name.contains(':'), &field("full_name"), "it has a colon")?;
        keys(at, &field("ssh_keys"), &account.ssh_keys)?;
    }
    Ok(())
}

fn user(at: For, field: &str, name: &str) -> Result<()> {
    let first = name.bytes().next().is_none_or(|b| b.is_ascii_lowercase() || b == b'_');
    let rest = name
        .bytes()
        .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
    let what = "it is no account name (up to 32 lower-case letters, digits, _ and -, not beginning with a digit)";
    demand(at, first && rest && name.len() <= 32, field, what)
}

fn package(at: For, field: &str, name: &str) -> Result<()> {
    let body = name.trim_start_matches(['@', '^']);
    let first = body.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let rest = body.bytes().all(|b| b.is_ascii_alphanumeric() || b"+._-".contains(&b));
    let group = matches!(name.len() - body.len(), 0..=2) && !name.starts_with('^');
    demand(at, first && rest && group, field, "it is no package name")
}

fn disk(at: For, field: &str, disk: &DiskRef) -> Result<()> {
    if disk.serial.is_none() && disk.wwn.is_none() && disk.by_path.is_none() {
        let advice = "name the disk in the site by serial, wwn or by_path";
        return Err(at.error(field, "the disk has neither serial, WWN nor path", advice));
    }
    let given = [("serial", &disk.serial), ("wwn", &disk.wwn), ("by_path", &disk.by_path)];
    for (name, value) in given {
        let Some(value) = value else { continue };
        // Read from the device itself: what a file could take for its own is not worth the risk.
        let plain = |b: u8| b.is_ascii_alphanumeric() || b" -_.:+=@,".contains(&b);
        let good = !value.trim().is_empty() && value.bytes().all(plain);
        let what = "it has other characters than letters, digits and -_.:+=@,";
        demand(at, good, &format!("{field}.{name}"), what)?;
    }
    Ok(())
}

/// Every account with its keys: those that are given, and the one that `setup.ssh_keys` are for.
pub(crate) fn everybody(install: &Install) -> Vec<Account> {
    let mut all = install.accounts.clone();
    let setup = &install.setup;
    if is_root(install) {
        return all;
    }
    match all.iter_mut().find(|account| account.name == setup.user) {
        Some(account) => {
            let more: Vec<String> = setup
                .ssh_keys
                .iter()
                .filter(|key| !account.ssh_keys.contains(key))
                .cloned()
                .collect();
            account.ssh_keys.extend(more);
        }
        None => all.insert(
            0,
            Account {
                name: setup.user.clone(),
                full_name: String::new(),
                password: None,
                ssh_keys: setup.ssh_keys.clone(),
                admin: true,
            },
        ),
    }
    all
}

/// True when `setup.ssh_keys` are root's.
pub(crate) fn is_root(install: &Install) -> bool {
    matches!(install.setup.user.as_str(), "" | "root")
}

/// Keys of root.
pub(crate) fn root_keys(install: &Install) -> &[String] {
    if is_root(install) { &install.setup.ssh_keys } else { &[] }
}
