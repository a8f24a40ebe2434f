//! Files of an installed system that get other content while the rest of them stays as it is found: whoever runs the system may have
//! added to them. Pure.

use std::collections::BTreeMap;

/// Before the keys of the site file in `authorized_keys`.
const KEYS_BEGIN: &str = "# Keys of Rackbar's site file: what stands from here to their end is written anew.";
/// After them.
const KEYS_END: &str = "# End of the keys of Rackbar's site file.";

/// `authorized_keys` of sshd(8) with `keys`, one a line.
pub fn authorized_keys(keys: &[String]) -> String {
    let keys: String = keys.iter().map(|key| format!("{}\n", key.trim())).collect();
    format!("{KEYS_BEGIN}\n{keys}{KEYS_END}\n")
}

/// The same in a file that is there: the part between our two marks is replaced and everything else stays. A file without marks
/// is cloud-init's, which wrote the keys of `seed` into it at the first start: those lines are ours. Without a seed all of it
/// is, as the image or an older Rackbar left it.
///
/// # Errors
/// When the first mark is there and the second is not: nobody can tell then which keys are ours.
pub fn authorized_keys_in(old: &str, seed: Option<&str>, keys: &[String]) -> crate::Result<String> {
    let block = authorized_keys(keys);
    if let Some((before, rest)) = old.split_once(KEYS_BEGIN) {
        let Some((_, after)) = rest.split_once(KEYS_END) else {
            return Err(crate::BadSetup::new(
                format!("authorized_keys has the line {KEYS_BEGIN:?} and none that ends these keys"),
                format!("put the line {KEYS_END:?} behind them in the system, then plan again"),
            ));
        };
        return Ok(format!("{before}{block}{}", after.strip_prefix('\n').unwrap_or(after)));
    }
    let Some(seed) = seed else { return Ok(block) };
    // The kind and the key itself: cloud-init may put options in front, and drops nothing.
    let is_ours = |line: &str| {
        let mut words = line.split_whitespace();
        words.any(|word| word.len() > 40 && word.starts_with("AAAA") && seed.contains(word))
    };
    let others = old.lines().filter(|line| !is_ours(line));
    Ok(others.flat_map(|line| [line, "\n"]).chain([block.as_str()]).collect())
}

/// A `.network` file of systemd-networkd with the name servers and search domains of `wanted`, which is the same file as it
/// would be written today; nothing else of `old` changes.
pub fn networkd(old: &str, wanted: &str) -> String {
    let is_resolver = |line: &&str| {
        ["DNS=", "Domains="]
            .iter()
            .any(|key| line.trim_start().starts_with(key))
    };
    let new: Vec<&str> = wanted.lines().filter(is_resolver).collect();
    if old.lines().filter(is_resolver).eq(new.iter().copied()) {
        return old.to_owned();
    }
    let mut lines: Vec<&str> = old.lines().filter(|line| !is_resolver(line)).collect();
    let section = lines.iter().position(|line| line.trim() == "[Network]");
    let at = section.unwrap_or_else(|| {
        lines.push("[Network]");
        lines.len() - 1
    });
    lines.splice(at + 1..at + 1, new);
    whole(&lines)
}

/// Whether two seeds of cloud-init tell of the same name servers and search domains.
pub fn same_resolvers(seed: &str, wanted: &str) -> bool {
    let resolvers = |text: &'_ str| -> Vec<String> {
        let lines = text.lines().map(str::trim);
        lines
            .filter(|line| line.starts_with("nameservers:"))
            .map(str::to_owned)
            .collect()
    };
    resolvers(seed) == resolvers(wanted)
}

/// `interfaces` of ifupdown with the name servers that `wanted`, the same file as it would be written today, has for its
/// interfaces; nothing else of `old` changes.
pub fn interfaces(old: &str, wanted: &str) -> String {
    let new = servers(wanted);
    if servers(old)
        .into_iter()
        .filter(|(name, _)| new.contains_key(name))
        .eq(new.clone())
    {
        return old.to_owned();
    }
    let mut lines = Vec::new();
    let mut told: Option<&str> = None;
    let mut given: Vec<&str> = Vec::new();
    for line in old.lines() {
        told = interface(line).or(told);
        let ours = told.filter(|name| new.contains_key(name));
        if ours.is_some() && is_servers(line) {
            continue;
        }
        lines.push(line);
        if let Some(name) = interface(line).filter(|name| !given.contains(name)) {
            given.push(name);
            lines.extend(new.get(name).copied().flatten());
        }
    }
    whole(&lines)
}

/// The interface of which the lines that follow tell (interfaces(5)).
fn interface(line: &str) -> Option<&str> {
    let mut words = line.split_whitespace();
    (words.next() == Some("iface")).then(|| words.next()).flatten()
}

fn is_servers(line: &str) -> bool {
    line.split_whitespace().next() == Some("dns-nameservers")
}

/// The line of name servers of each interface but the loopback.
fn servers(text: &str) -> BTreeMap<&str, Option<&str>> {
    let mut found = BTreeMap::new();
    let mut told = None;
    for line in text.lines() {
        told = interface(line).or(told);
        if let Some(name) = told.filter(|name| *name != "lo") {
            let servers = found.entry(name).or_default();
            if is_servers(line) {
                *servers = Some(line);
            }
        }
    }
    found
}

fn whole(lines: &[&str]) -> String {
    lines.iter().flat_map(|line| [line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_others_stay_and_ours_are_replaced() {
        let first = authorized_keys(&["ssh-ed25519 AAAA a@x ".into()]);
        assert_eq!(first.lines().nth(1), Some("ssh-ed25519 AAAA a@x"));
        let changed = format!("ssh-rsa before\n{first}ssh-rsa after\n");
        let next = ["ssh-ed25519 BBBB b@x".into()];
        let second = authorized_keys_in(&changed, None, &next).unwrap();
        assert!(!second.contains("AAAA"), "{second}");
        let lines: Vec<&str> = second.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(lines, ["ssh-rsa before", "ssh-ed25519 BBBB b@x", "ssh-rsa after"]);
        assert_eq!(authorized_keys_in(&second, None, &next).unwrap(), second);
        // Who may log in is the site's to say where nobody can tell what is whose.
        assert!(
            !authorized_keys_in("ssh-rsa revoked\n", None, &[])
                .unwrap()
                .contains("revoked")
        );
        let cut = second.replace(KEYS_END, "");
        let refused = authorized_keys_in(&cut, None, &next).unwrap_err();
        assert!(refused.advice.contains(KEYS_END), "{refused}");
    }

    #[test]
    fn what_cloud_init_wrote_of_its_seed_is_ours_and_the_rest_is_not() {
        let key = |end: &str| format!("AAAAC3NzaC1lZDI1NTE5AAAAIJ0123456789abcdefghijklmnop{end}");
        let seed = format!("ssh_authorized_keys:\n  - \"ssh-ed25519 {} op@x\"\n", key("AA"));
        let old = format!("ssh-ed25519 {} op@x\nssh-ed25519 {} colleague\n", key("AA"), key("BB"));
        let new = authorized_keys_in(&old, Some(&seed), &[format!("ssh-ed25519 {} new@x", key("CC"))]).unwrap();
        assert!(!new.contains(&key("AA")), "{new}");
        assert!(
            new.starts_with(&format!("ssh-ed25519 {} colleague\n", key("BB"))),
            "{new}"
        );
        assert!(new.contains(&key("CC")), "{new}");
    }

    #[test]
    fn name_servers_change_in_a_network_file_and_nothing_else_does() {
        let wanted = "[Match]\nName=mgmt\n\n[Network]\nAddress=10.0.0.5/24\nDNS=10.0.0.9\nDomains=rack.example\n";
        let old =
            "[Match]\nName=mgmt\n\n[Network]\nDNS=10.0.0.2\nAddress=10.0.0.5/24\nBridge=br0\n\n[DHCPv4]\nUseDNS=no\n";
        let new = networkd(old, wanted);
        assert_eq!(
            new,
            "[Match]\nName=mgmt\n\n[Network]\nDNS=10.0.0.9\nDomains=rack.example\nAddress=10.0.0.5/24\nBridge=br0\n\n[DHCPv4]\nUseDNS=no\n"
        );
        assert_eq!(networkd(&new, wanted), new);
        let none = networkd(&new, "[Match]\n[Network]\n");
        assert!(!none.contains("\nDNS=") && none.contains("Bridge=br0"), "{none}");
        assert_eq!(
            networkd("[Match]\nName=a\n", wanted),
            "[Match]\nName=a\n[Network]\nDNS=10.0.0.9\nDomains=rack.example\n"
        );
    }

    #[test]
    fn name_servers_change_for_our_interfaces_and_bridges_of_others_stay() {
        let wanted = "auto lo\niface lo inet loopback\n\nauto mgmt\niface mgmt inet static\n    address 10.0.0.5/24\n    dns-nameservers 10.0.0.9\niface mgmt inet6 static\n    address fd00::5/64\n";
        let old = "auto lo\niface lo inet loopback\n\nauto mgmt\niface mgmt inet static\n    address 10.0.0.5/24\n    dns-nameservers 10.0.0.2\n    post-up ip route add 10.9.0.0/16 via 10.0.0.8\niface mgmt inet6 static\n    address fd00::5/64\n\nauto br0\niface br0 inet manual\n    dns-nameservers 10.5.5.5\n    bridge_ports none\n";
        let new = interfaces(old, wanted);
        assert_eq!(
            new,
            "auto lo\niface lo inet loopback\n\nauto mgmt\niface mgmt inet static\n    dns-nameservers 10.0.0.9\n    address 10.0.0.5/24\n    post-up ip route add 10.9.0.0/16 via 10.0.0.8\niface mgmt inet6 static\n    address fd00::5/64\n\nauto br0\niface br0 inet manual\n    dns-nameservers 10.5.5.5\n    bridge_ports none\n"
        );
        assert_eq!(interfaces(&new, wanted), new);
        let without = interfaces(&new, "iface mgmt inet static\n");
        assert!(
            !without.contains("10.0.0.9") && without.contains("10.5.5.5"),
            "{without}"
        );
    }
}
