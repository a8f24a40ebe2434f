//! Texts of the installed system's files. Pure; what comes from outside is checked first, so that no value can add a
//! line of its own to a file.

use rackbar_model::OsSetup;

use crate::network::quote;
use crate::{BadSetup, Result};

/// Refuses values that would be more than one word or line in a file.
///
/// # Errors
/// Says which value is no what.
pub fn check(setup: &OsSetup) -> Result<()> {
    let is_name = |text: &str| {
        let part = |part: &str| {
            (1..=63).contains(&part.len())
                && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
                && !part.starts_with('-')
        };
        text.len() <= 253 && text.split('.').all(part)
    };
    let is_word =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    let wrong = |what: &str, value: &str| {
        Err(BadSetup::new(
            format!("{value:?} is no {what}"),
            "correct it in the site",
        ))
    };
    if !is_name(&setup.hostname) || setup.hostname.contains('.') {
        return wrong("host name", &setup.hostname);
    }
    if let Some(domain) = setup.domain.as_deref().filter(|domain| !is_name(domain)) {
        return wrong("DNS domain", domain);
    }
    let id = &setup.machine_id;
    if !id.is_empty() && (id.len() != 32 || !id.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))) {
        return wrong("machine-id of 32 hexadecimal digits", id);
    }
    let servers = setup.ntp.iter().map(|server| ("NTP server", server));
    let proxy = setup.proxy.iter().map(|proxy| ("HTTP proxy", proxy));
    let all = servers
        .chain(proxy)
        .chain(setup.syslog.iter().map(|server| ("syslog server", server)));
    for (what, value) in all {
        if !is_word(value) {
            return wrong(what, value);
        }
    }
    let zone =
        |zone: &str| is_word(zone) && !zone.starts_with('/') && zone.split('/').all(|part| part != ".." && part != ".");
    if let Some(zone) = setup.timezone.as_deref().filter(|name| !zone(name)) {
        return wrong("time zone", zone);
    }
    if !setup.user.is_empty()
        && !setup
            .user
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
    {
        return wrong("account", &setup.user);
    }
    match setup
        .ssh_keys
        .iter()
        .find(|key| key.trim().is_empty() || key.trim().contains(['\n', '\r', '\0']))
    {
        Some(_) => wrong("SSH key", "a key of several lines"),
        None => Ok(()),
    }
}

/// `/etc/hosts`: the image's lines but for those of the old name (Debian's 127.0.1.1), and ours.
pub fn hosts(setup: &OsSetup, old: &str) -> String {
    let name = match &setup.domain {
        Some(domain) => format!("{0}.{domain} {0}", setup.hostname),
        None => setup.hostname.clone(),
    };
    let kept = old
        .lines()
        .filter(|line| line.split_whitespace().next() != Some("127.0.1.1"));
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    let has = |text: &str, address: &str| text.lines().any(|line| line.split_whitespace().next() == Some(address));
    if !has(&text, "127.0.0.1") {
        text.insert_str(0, "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    }
    text.push_str(&format!("127.0.1.1 {name}\n"));
    text
}

/// `/etc/resolv.conf` for images without systemd-resolved.
pub fn resolv_conf(setup: &OsSetup) -> String {
    let mut text = setup
        .domain
        .as_ref()
        .map_or(String::new(), |domain| format!("search {domain}\n"));
    // The C library reads three and no more.
    for server in setup.dns.iter().take(3) {
        text.push_str(&format!("nameserver {server}\n"));
    }
    text
}

/// Sources for chrony.
pub fn chrony(setup: &OsSetup) -> String {
    setup
        .ntp
        .iter()
        .map(|server| format!("server {server} iburst\n"))
        .collect()
}

/// chrony.conf that also reads the files of `/etc/chrony.d`. As RHEL, Fedora and SUSE ship it, it reads no folder, or that one
/// by `include` or `confdir`.
pub fn chrony_conf(old: &str) -> String {
    let reads = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        matches!(words.next(), Some("include" | "confdir")) && words.any(|word| word.starts_with("/etc/chrony.d"))
    };
    let mut text = old.to_owned();
    if !old.lines().any(reads) {
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str("include /etc/chrony.d/*.conf\n");
    }
    text
}

/// True when SELinux is in use by its `config` (selinux(8)): it enforces or tells what it would have refused.
pub fn selinux(config: &str) -> bool {
    // Of one that is written twice the last counts.
    let mut modes = config.lines().rev();
    let mode = modes.find_map(|line| line.trim().strip_prefix("SELINUX="));
    mode.map(|mode| mode.trim().trim_matches('"'))
        .is_some_and(|mode| mode.eq_ignore_ascii_case("enforcing") || mode.eq_ignore_ascii_case("permissive"))
}

/// `/etc/sysconfig/proxy` without a proxy.
pub fn without_sysconfig_proxy(old: &str) -> String {
    const OURS: [&str; 3] = ["PROXY_ENABLED", "HTTP_PROXY", "HTTPS_PROXY"];
    let others = |line: &&str| {
        let name = line.split('=').next().unwrap_or_default().trim();
        !OURS.contains(&name)
    };
    old.lines().filter(others).flat_map(|line| [line, "\n"]).collect()
}

/// `/etc/sysconfig/proxy`, which SUSE's programs, zypper among them, read, with our proxy. Other settings stay.
pub fn sysconfig_proxy(old: &str, proxy: &str) -> String {
    let mut text = without_sysconfig_proxy(old);
    text.push_str(&format!(
        "PROXY_ENABLED=\"yes\"\nHTTP_PROXY=\"{proxy}\"\nHTTPS_PROXY=\"{proxy}\"\n"
    ));
    text
}

/// Above the line of ours in dnf.conf.
const DNF_OURS: &str = "# The next line is Rackbar's, which takes it out again.";

/// Before a line that ours stands in for.
const DNF_THEIRS: &str = "# Set aside by Rackbar: ";

/// dnf.conf without our proxy; one that the system came with, or that somebody wrote, stays or stands again.
pub fn without_dnf_proxy(old: &str) -> String {
    let mut text = String::new();
    let mut lines = old.lines().peekable();
    while let Some(line) = lines.next() {
        if line == DNF_OURS {
            let _ = lines.next_if(|next| is_dnf_proxy(next));
            continue;
        }
        text.push_str(line.strip_prefix(DNF_THEIRS).unwrap_or(line));
        text.push('\n');
    }
    text
}

fn is_dnf_proxy(line: &str) -> bool {
    line.split_once('=').is_some_and(|(key, _)| key.trim() == "proxy")
}

/// dnf.conf with our proxy in its main section.
pub fn dnf(old: &str, proxy: &str) -> String {
    let ours = format!("{DNF_OURS}\nproxy={proxy}\n");
    let old = without_dnf_proxy(old);
    let (mut text, mut main, mut said) = (String::new(), false, false);
    for line in old.lines() {
        if line.trim_start().starts_with('[') {
            main = line.trim() == "[main]";
        }
        if main && is_dnf_proxy(line) {
            text.push_str(DNF_THEIRS);
        }
        text.push_str(&format!("{line}\n"));
        if line.trim() == "[main]" && !said {
            text.push_str(&ours);
            said = true;
        }
    }
    if said { text } else { format!("[main]\n{ours}{text}") }
}

/// An account of the installed system.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Account {
    /// User ID.
    pub uid: u32,
    /// Group ID of its own group.
    pub gid: u32,
    /// Its home folder, without a slash at the end.
    pub home: String,
}

impl Account {
    /// Looks `user` up in the text of `/etc/passwd` (passwd(5)).
    pub fn find(passwd: &str, user: &str) -> Option<Self> {
        let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>());
        let fields = fields.into_iter().find(|fields| fields.first() == Some(&user))?;
        Some(Self {
            uid: fields.get(2)?.parse().ok()?,
            gid: fields.get(3)?.parse().ok()?,
            home: fields
                .get(5)
                .filter(|home| home.starts_with('/'))?
                .trim_end_matches('/')
                .to_owned(),
        })
    }
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    Some(bytes)
}

fn base64(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let at = |index: usize| u32::from(chunk.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for place in 0..4 {
            let letter = LETTERS[(bits >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// The line of the public key that an OpenSSH private key file has inside (PROTOCOL.key: magic, cipher, KDF, KDF
/// options, number of keys, public key).
///
/// # Errors
/// When it is no unencrypted Ed25519 key.
pub fn public_key(private: &str, comment: &str) -> Result<String> {
    let read = || {
        let body = private.split("-----BEGIN OPENSSH PRIVATE KEY-----").nth(1)?;
        let bytes = base64_decode(body.split("-----END").next()?)?;
        let mut rest = bytes.strip_prefix(b"openssh-key-v1\0")?;
        let mut field = || {
            let (length, tail) = rest.split_first_chunk::<4>()?;
            let (field, tail) = tail.split_at_checked(u32::from_be_bytes(*length) as usize)?;
            rest = tail;
            Some(field)
        };
        (field()? == b"none").then_some(())?;
        field()?;
        field()?;
        rest = rest.strip_prefix(&[0, 0, 0, 1])?;
        let (length, tail) = rest.split_first_chunk::<4>()?;
        let blob = tail.get(..u32::from_be_bytes(*length) as usize)?;
        let kind = blob.get(4..15)?;
        (kind == b"ssh-ed25519").then(|| format!("ssh-ed25519 {} root@{comment}\n", base64(blob)))
    };
    read().ok_or_else(|| {
        BadSetup::new(
            "the host's SSH key is no unencrypted Ed25519 key of OpenSSH",
            "report this as a fault of the appliance",
        )
    })
}

/// NoCloud's meta-data. A new instance ID makes cloud-init do its first-boot work again.
pub fn meta_data(setup: &OsSetup) -> String {
    let id = if setup.machine_id.is_empty() {
        &setup.hostname
    } else {
        &setup.machine_id
    };
    format!(
        "instance-id: {}\nlocal-hostname: {}\n",
        quote(id),
        quote(&setup.hostname)
    )
}

/// NoCloud's user-data: what cloud-init would otherwise undo at the first boot, and the keys for its own account.
pub fn user_data(setup: &OsSetup) -> String {
    let mut text = String::from("#cloud-config\npreserve_hostname: false\nmanage_etc_hosts: false\n");
    text.push_str(&format!("hostname: {}\n", quote(&setup.hostname)));
    if let Some(domain) = &setup.domain {
        text.push_str(&format!("fqdn: {}\n", quote(&format!("{}.{domain}", setup.hostname))));
    }
    // The appliance knows the host by this key.
    text.push_str(&format!("ssh_deletekeys: {}\n", setup.ssh_host_key.0.is_empty()));
    if !setup.ssh_keys.is_empty() {
        if setup.user.is_empty() || setup.user == "root" {
            text.push_str("disable_root: false\n");
        } else {
            // The keys go to cloud-init's default account; this is its name then.
            text.push_str(&format!("user: {{name: {}}}\n", quote(&setup.user)));
        }
        text.push_str("ssh_authorized_keys:\n");
        for key in &setup.ssh_keys {
            text.push_str(&format!("  - {}\n", quote(key.trim())));
        }
    }
    // The image's partitions were grown already.
    text.push_str("growpart: {mode: \"off\"}\nresize_rootfs: false\n");
    if let Some(zone) = &setup.timezone {
        text.push_str(&format!("timezone: {}\n", quote(zone)));
    }
    text
}
