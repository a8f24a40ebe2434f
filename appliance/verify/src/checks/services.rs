//! What the system gets from others (names, time, packages), and whether its own services are up.

use std::net::IpAddr;

use super::{Probed, Verdict, quoted};
use crate::{Context, WantedName};

type Probe = Result<Option<String>, String>;

/// Names to look up: those the role needs to resolve. Addresses need no looking up.
fn names(context: &Context) -> Vec<WantedName> {
    let wanted = &context.wanted;
    let proxy = wanted.setup.proxy.as_deref().and_then(host_of);
    let ntp = wanted.setup.ntp.iter().map(String::as_str);
    let others = ntp.chain(proxy).map(WantedName::from);
    let mut names: Vec<WantedName> = Vec::new();
    for one in wanted.names.iter().cloned().chain(others) {
        if one.name.is_empty() || one.name.parse::<IpAddr>().is_ok() {
            continue;
        }
        match names.iter_mut().find(|known| known.name == one.name) {
            Some(known) => known.addresses.extend(one.addresses),
            None => names.push(one),
        }
    }
    names
}

/// The host of `http://host:port/...`; of an address in brackets, the address.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('/').next()?;
    let rest = rest.rsplit_once('@').map_or(rest, |(_, rest)| rest);
    match rest.strip_prefix('[') {
        Some(inside) => inside.split(']').next(),
        None => rest.split(':').next(),
    }
}

pub(super) fn dns_probe(context: &Context) -> Probe {
    let names = names(context);
    if context.wanted.setup.dns.is_empty() && names.is_empty() {
        return Err("the role wants no name servers and no names".into());
    }
    // systemd-resolved writes a stub into resolv.conf and the real servers beside it.
    let mut script = String::from(
        "cat /run/systemd/resolve/resolv.conf /etc/resolv.conf 2>/dev/null | sed -n 's/^nameserver */server=/p'\n\
         look() { getent -s dns hosts \"$1\" 2>/dev/null </dev/null || getent hosts \"$1\" </dev/null; }\n",
    );
    // DNS is asked first, as what a hosts file says shows nothing of it; a getent without `-s` asks all there is.
    for (number, one) in names.iter().enumerate() {
        script += &format!(
            "echo \"name={number} $(look {} | sed 's/[[:space:]].*//' | tr '\\n' ' ')\"\n",
            quoted(&one.name)
        );
    }
    Ok(Some(script))
}

/// What was found of the name with this number, or what is wrong with it.
fn looked_up(number: usize, wanted: &WantedName, probed: &Probed) -> Result<String, String> {
    let name = &wanted.name;
    let line = probed
        .all("name")
        .find_map(|line| line.strip_prefix(&format!("{number} ")));
    let found: Vec<IpAddr> = line
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|word| word.parse().ok())
        .collect();
    let list = |addresses: &[IpAddr]| {
        let texts: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        texts.join(" and ")
    };
    if found.is_empty() {
        return Err(format!("{name} does not resolve"));
    }
    if !wanted.addresses.is_empty() && !found.iter().any(|one| wanted.addresses.contains(one)) {
        return Err(format!(
            "{name} is {}, and not {}",
            list(&found),
            list(&wanted.addresses)
        ));
    }
    Ok(format!("{name} is {}", list(&found)))
}

pub(super) fn dns(context: &Context, probed: &Probed) -> Verdict {
    let servers: Vec<IpAddr> = probed
        .all("server")
        .filter_map(|text| text.split('%').next()?.trim().parse().ok())
        .collect();
    let names = names(context);
    let mut faults: Vec<String> = context
        .wanted
        .setup
        .dns
        .iter()
        // The C library reads three, and where it is asked alone no more are written.
        .take(3)
        .filter(|wanted| !servers.contains(wanted))
        .map(|wanted| format!("the name server {wanted} is not set"))
        .collect();
    let mut found = Vec::new();
    for (number, wanted) in names.iter().enumerate() {
        match looked_up(number, wanted, probed) {
            Ok(says) => found.push(says),
            Err(fault) => faults.push(fault),
        }
    }
    let dns: Vec<_> = context.wanted.setup.dns.iter().map(IpAddr::to_string).collect();
    // That servers are set shows nothing of whether they answer.
    if faults.is_empty() && found.is_empty() {
        return Verdict::Skipped(format!(
            "the name servers {} are set, but no name is known that they must know, so none was looked up",
            dns.join(", ")
        ));
    }
    let list: Vec<&str> = names.iter().map(|one| one.name.as_str()).collect();
    Verdict::by(
        &faults,
        match (dns.is_empty(), list.is_empty()) {
            (false, true) => format!("name servers {}", dns.join(", ")),
            (false, false) => format!("name servers {}; {} resolve", dns.join(", "), list.join(", ")),
            (true, _) => format!("{} resolve", list.join(", ")),
        },
        found.join(", "),
        "ask the name server from the node (getent hosts NAME), and see that the node reaches it on port 53",
    )
}

pub(super) fn time_probe(_: &Context) -> Probe {
    // The fraction is GNU's; others print %N as it is, and then only whole seconds are told.
    Ok(Some(
        "echo \"clock=$(date +%s.%N)\"\n\
         [ -e /run/systemd/timesync/synchronized ] && echo sync=systemd-timesyncd\n\
         command -v chronyc >/dev/null && chronyc -n tracking 2>/dev/null </dev/null | grep -q '^Leap status *: Normal' \
         && echo sync=chrony\n\
         command -v ntpq >/dev/null && ntpq -c 'rv 0 leap' 2>/dev/null </dev/null | grep -q 'leap=0[0-2]' && echo sync=ntpd\n\
         for c in /proc/[0-9]*/comm; do read -r n 2>/dev/null < \"$c\"; case \"$n\" in\n\
         systemd-timesyn|chronyd|ntpd|ntpd-rs) echo \"runs=$n\";; esac; done 2>/dev/null\n\
         true\n"
            .into(),
    ))
}

/// Milliseconds. Farther off than this, logs of several machines can no longer be laid side by side.
const KEPT: i128 = 1_000;
/// Milliseconds, for a clock that the site wants kept by nobody: a machine's own clock tells whole seconds when the system
/// starts, and drifts from there on.
const UNKEPT: i128 = 5_000;

pub(super) fn time(context: &Context, probed: &Probed) -> Verdict {
    let (limit, wanted) = match context.wanted.setup.ntp.as_slice() {
        [] => (UNKEPT, "less than 5 s from the appliance's clock".to_owned()),
        ntp => (
            KEPT,
            format!("less than 1 s from the appliance's clock, kept by {}", ntp.join(", ")),
        ),
    };
    let clock = probed.one("clock").and_then(millis);
    let (Some((clock, exact)), Some((sent, back))) = (clock, probed.between) else {
        return Verdict::of(false, wanted, "the node does not tell its clock", ADVICE);
    };
    // The node read its clock at some moment between the two: nothing in there is held against it.
    let last = clock + if exact { 0 } else { 999 };
    let (early, late) = (i128::from(sent.0) - last, clock - i128::from(back.0));
    let offset = early.max(late).max(0);
    let mut faults = Vec::new();
    if offset >= limit {
        let side = if early > late { "behind" } else { "ahead of" };
        faults.push(format!(
            "the clock is {}.{:03} s {side} the appliance's",
            offset / 1000,
            offset % 1000
        ));
    }
    let (sync, runs) = (probed.one("sync"), probed.one("runs"));
    if !context.wanted.setup.ntp.is_empty() && sync.is_none() {
        faults.push(match runs {
            Some(service) => format!("{service} runs but has not synchronised yet"),
            None => "no time service runs".into(),
        });
    }
    let kept = sync.map_or_else(|| "kept by nobody".into(), |service| format!("kept by {service}"));
    Verdict::by(
        &faults,
        wanted,
        match offset {
            0 => format!("no difference that could be told, {kept}"),
            offset => format!("{offset} ms off, {kept}"),
        },
        ADVICE,
    )
}

const ADVICE: &str = "a time service needs up to a minute after a start: run `rackbar verify` again. If it stays so, see \
                      that the node reaches its NTP server on port 123 and that the appliance's own clock is right";

/// Milliseconds of `seconds.nanoseconds`, and whether the fraction was there.
fn millis(text: &str) -> Option<(i128, bool)> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i128 = i128::from(seconds.parse::<i64>().ok()?) * 1000;
    let nanos = (fraction.len() == 9).then(|| fraction.parse::<u32>().ok()).flatten();
    Some((seconds + i128::from(nanos.unwrap_or(0) / 1_000_000), nanos.is_some()))
}

pub(super) fn proxy_probe(context: &Context) -> Probe {
    let Some(proxy) = &context.wanted.setup.proxy else {
        return Err("the role has no proxy".into());
    };
    Ok(Some(proxy_script(proxy)))
}

/// Has the system's package manager fetch its lists with the system's own settings, as an administrator would, but into a folder
/// that goes away again, without what the system does after an update, and for less time than the whole check has. Without one
/// that is known here the proxy itself is asked: an answer of any status shows that it can be reached.
fn proxy_script(proxy: &str) -> String {
    format!(
        "begin() {{ echo with=$1; d=$(mktemp -d) || exit; trap 'rm -rf \"$d\"' EXIT; mkdir -p \"$d/partial\"; t=\n\
         command -v timeout >/dev/null && t='timeout -k 5 {PACKAGES_SECONDS}'; }}\n\
         ended() {{ case $2 in 0) echo result=good;; 124|137) echo \"why=$1 did not end within {PACKAGES_SECONDS} s\";;\n\
         *) grep -E \"$3\" \"$d/log\" | head -n 3 | sed 's/^/why=/';; esac; }}\n\
         if command -v apt-get >/dev/null; then begin apt\n\
         apt-config dump 2>/dev/null | sed -n 's/^Acquire::http::Proxy \"\\(.*\\)\";/set=\\1/p'\n\
         printf '#clear APT::Update::%s;\\n' Pre-Invoke Post-Invoke Post-Invoke-Success >\"$d/conf\"\n\
         apt-get indextargets --format '$(REPO_URI)' 2>/dev/null </dev/null | sort -u | sed 's/^/uri=/'\n\
         $t apt-get -q -c \"$d/conf\" update -o Dir::State::lists=\"$d\" -o Dir::Cache=\"$d\" -o Acquire::Retries=1 \
         -o Acquire::http::Timeout=20 --error-on=any >\"$d/log\" 2>&1 </dev/null\nended apt $? '^(E|W|Err)'\n\
         elif command -v dnf >/dev/null; then begin dnf\n\
         sed -n 's/^[[:space:]]*proxy[[:space:]]*=[[:space:]]*//p' /etc/dnf/dnf.conf 2>/dev/null | tail -n 1 | sed 's/^/set=/'\n\
         $t dnf -q -y --refresh --setopt=cachedir=\"$d\" --setopt=timeout=20 --setopt=retries=1 makecache >\"$d/log\" 2>&1 \
         </dev/null\nended dnf $? .\n\
         elif command -v zypper >/dev/null; then begin zypper\n\
         sed -n 's/^HTTP_PROXY=\"\\{{0,1\\}}\\([^\"]*\\).*/set=\\1/p' /etc/sysconfig/proxy 2>/dev/null | tail -n 1\n\
         $t zypper -n -q --cache-dir \"$d\" refresh -f >\"$d/log\" 2>&1 </dev/null\nended zypper $? .\n\
         elif command -v curl >/dev/null; then echo with=curl\n\
         curl -sS -o /dev/null -m 30 {0} 2>&1 </dev/null | sed 's/^/why=/' | grep . || echo result=good\n\
         fi\n",
        quoted(proxy)
    )
}

/// Seconds that a package manager may take.
const PACKAGES_SECONDS: u32 = 100;

pub(super) fn proxy(context: &Context, probed: &Probed) -> Verdict {
    let wanted = context.wanted.setup.proxy.as_deref().unwrap_or_default();
    let wanted = wanted.trim_end_matches('/');
    let Some(with) = probed.one("with") else {
        return Verdict::Skipped("the image has none of apt, dnf, zypper and curl to try the proxy with".into());
    };
    let mut faults = Vec::new();
    let set = probed.one("set").map(|url| url.trim_end_matches('/'));
    // Sources that are mirrors of the proxy lead through it by themselves.
    let of_mirror = |uri: &str| uri.strip_prefix(wanted).is_some_and(|rest| rest.starts_with('/'));
    let mut uris = probed.all("uri").peekable();
    let by_mirror = set.is_none() && uris.peek().is_some() && uris.all(of_mirror);
    // No package manager that is known here, so nothing that could be set.
    let alone = with == "curl";
    if set != Some(wanted) && !by_mirror && !alone {
        faults.push(format!("{with} is set to use {}", set.unwrap_or("no proxy")));
    }
    if probed.one("result") != Some("good") {
        let why: Vec<_> = probed.all("why").collect();
        faults.push(match why.is_empty() {
            true if alone => "the proxy did not answer".into(),
            true => "package lists could not be fetched".into(),
            false => why.join(" / "),
        });
    }
    let how = match (alone, by_mirror) {
        (true, _) => "curl reached it; no package manager was tried".to_owned(),
        (false, true) => format!("{with} fetched from its mirrors"),
        (false, false) => format!("{with} fetched through it"),
    };
    Verdict::by(
        &faults,
        format!("packages through {wanted}"),
        how,
        "see that the proxy runs and lets the packages' servers through, and that the node reaches it",
    )
}

pub(super) fn failed_probe(_: &Context) -> Probe {
    Ok(Some(
        "[ -d /run/systemd/system ] && { echo manager=systemd\n\
         systemctl --failed --no-legend --plain --no-pager | sed 's/^[^a-zA-Z0-9]*//; s/ .*//; s/^/failed=/'; }\ntrue\n"
            .into(),
    ))
}

pub(super) fn failed(_: &Context, probed: &Probed) -> Verdict {
    if probed.one("manager").is_none() {
        return Verdict::Skipped("the system is not run by systemd".into());
    }
    let failed: Vec<String> = probed
        .all("failed")
        .filter(|unit| !unit.is_empty())
        .map(str::to_owned)
        .collect();
    Verdict::by(
        &failed,
        "no failed unit",
        "none failed",
        "read why with `systemctl status UNIT` and `journalctl -u UNIT` on the node",
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rackbar_model::Timestamp;

    use super::*;

    #[test]
    fn a_clock_is_judged_by_what_the_round_trip_allows() {
        let context = super::super::tests::wishes();
        let judge = |clock: &str, sync: &str| {
            let text = format!("clock={clock}\n{sync}\n");
            time(&context, &Probed::new(text, Timestamp(100_000), Timestamp(100_400)))
        };
        let sync = "sync=chrony";
        for good in [
            "100.200000000",
            "99.001000000",
            "101.399000000",
            "100.%N",
            "100",
            "101.",
            "99.1",
        ] {
            assert!(
                matches!(judge(good, sync), Verdict::Passed { .. }),
                "{good}: {:?}",
                judge(good, sync)
            );
        }
        for bad in [
            "99.000000000",
            "101.400000000",
            "98",
            "102",
            "",
            "x",
            "-9223372036854775808",
        ] {
            assert!(
                matches!(judge(bad, sync), Verdict::Failed { .. }),
                "{bad}: {:?}",
                judge(bad, sync)
            );
        }
        assert!(
            matches!(judge("100.2", "runs=chronyd"), Verdict::Failed { observed, .. } if observed.contains("chronyd"))
        );
        let mut unkept = super::super::tests::wishes();
        unkept.wanted.setup.ntp.clear();
        for (clock, passes) in [
            ("95.001", true),
            ("105.399", true),
            ("95.000", false),
            ("105.400", false),
        ] {
            let text = format!("clock={clock}000000\n");
            let verdict = time(&unkept, &Probed::new(text, Timestamp(100_000), Timestamp(100_400)));
            assert_eq!(
                matches!(verdict, Verdict::Passed { .. }),
                passes,
                "{clock}: {verdict:?}"
            );
        }
    }

    #[test]
    fn names_come_from_what_the_role_uses() {
        let mut context = super::super::tests::wishes();
        context.wanted.setup.ntp = vec!["10.0.0.1".into(), "ntp.example.org".into()];
        context.wanted.setup.proxy = Some("http://user:x@cache.example.org:3142/".into());
        let listed: Vec<String> = names(&context).into_iter().map(|one| one.name).collect();
        assert_eq!(listed, ["example.org", "ntp.example.org", "cache.example.org"]);
        assert_eq!(host_of("http://[fd00::1]:3142"), Some("fd00::1"));
        let text = "server=10.0.0.1\nname=0 93.184.216.34 example.org\nname=1 \nname=2 10.0.0.9 cache\n";
        let verdict = dns(&context, &Probed::new(text.into(), Timestamp(0), Timestamp(0)));
        assert!(
            matches!(&verdict, Verdict::Failed { observed, .. } if observed == "ntp.example.org does not resolve"),
            "{verdict:?}"
        );
    }

    #[test]
    fn a_server_that_nothing_was_asked_of_proves_nothing() {
        let mut context = super::super::tests::wishes();
        context.wanted.setup.dns = vec![[10, 0, 0, 1].into()];
        context.wanted.setup.ntp.clear();
        context.wanted.setup.proxy = None;
        context.wanted.names.clear();
        let judge = |context: &Context, text: &str| dns(context, &Probed::new(text.into(), Timestamp(0), Timestamp(0)));
        assert!(matches!(judge(&context, "server=10.0.0.1\n"), Verdict::Skipped(_)));
        assert!(
            matches!(judge(&context, ""), Verdict::Failed { .. }),
            "it is not even set"
        );
        let peer = |last: u8| WantedName {
            name: "n2.site.test".into(),
            addresses: vec![[10, 0, 0, last].into()],
        };
        // A node on two networks has one name with two addresses.
        context.wanted.names = vec![peer(2), peer(3)];
        let judge = |answer: &str| judge(&context, &format!("server=10.0.0.1\nname=0 {answer}\n"));
        for good in ["10.0.0.2", "10.0.0.3 ", "fd00::2 10.0.0.2"] {
            assert!(
                matches!(judge(good), Verdict::Passed { .. }),
                "{good}: {:?}",
                judge(good)
            );
        }
        for (bad, says) in [
            ("10.0.0.9", "n2.site.test is 10.0.0.9, and not 10.0.0.2 and 10.0.0.3"),
            ("", "n2.site.test does not resolve"),
        ] {
            let Verdict::Failed { observed, .. } = judge(bad) else {
                panic!("{bad} passed");
            };
            assert_eq!(observed, says);
        }
    }

    #[test]
    fn packages_come_by_the_proxy_that_is_set_or_by_its_mirrors_and_by_nothing_else() {
        let context = super::super::tests::wishes();
        let judge = |text: &str| proxy(&context, &Probed::new(text.into(), Timestamp(0), Timestamp(0)));
        for good in [
            "with=apt\nset=http://10.0.0.1:3142/\nresult=good\n",
            "with=dnf\nset=http://10.0.0.1:3142\nresult=good\n",
            "with=curl\nresult=good\n",
            "with=apt\nuri=http://10.0.0.1:3142/mirror/debian/\nuri=http://10.0.0.1:3142/mirror/x/\nresult=good\n",
        ] {
            assert!(
                matches!(judge(good), Verdict::Passed { .. }),
                "{good}: {:?}",
                judge(good)
            );
        }
        for (bad, says) in [
            (
                "with=apt\nuri=http://archive.example.org/debian/\nresult=good\n",
                "set to use no proxy",
            ),
            (
                "with=apt\nuri=http://10.0.0.1:3142/mirror/debian/\nuri=http://archive.example.org/debian/\nresult=good\n",
                "set to use no proxy",
            ),
            (
                "with=apt\nuri=http://10.0.0.1:31427/x/\nresult=good\n",
                "set to use no proxy",
            ),
            ("with=apt\nresult=good\n", "set to use no proxy"),
            (
                "with=apt\nset=http://10.0.0.9:1\nresult=good\n",
                "set to use http://10.0.0.9:1",
            ),
            (
                "with=apt\nset=http://10.0.0.1:3142\nwhy=E: no\nwhy=W: so\n",
                "E: no / W: so",
            ),
            ("with=apt\nset=http://10.0.0.1:3142\n", "could not be fetched"),
            ("with=dnf\nresult=good\n", "dnf is set to use no proxy"),
            ("with=curl\n", "the proxy did not answer"),
        ] {
            let Verdict::Failed { observed, advice, .. } = judge(bad) else {
                panic!("{bad} passed")
            };
            assert!(observed.contains(says) && !advice.is_empty(), "{bad}: {observed}");
        }
        assert!(matches!(judge(""), Verdict::Skipped(why) if why.contains("none of apt, dnf, zypper and curl")));
        let mut without = super::super::tests::wishes();
        without.wanted.setup.proxy = None;
        assert_eq!(proxy_probe(&without), Err("the role has no proxy".into()));
    }

    /// What the script prints in a system that has no more programs than these; `manager` is a script of its own.
    fn printed(manager: &str, script: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        for tool in ["mktemp", "rm", "mkdir", "grep", "head", "tail", "sed", "timeout"] {
            let found = ["/usr/bin", "/bin"].map(|at| std::path::Path::new(at).join(tool));
            let found = found.iter().find(|path| path.exists()).unwrap();
            std::os::unix::fs::symlink(found, folder.path().join(tool)).unwrap();
        }
        let path = folder.path().join(manager);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut shell = std::process::Command::new("/bin/sh");
        let ran = shell.args(["-c", &proxy_script("http://10.0.0.1:3142")]);
        let ran = ran.env_clear().env("PATH", folder.path()).output().unwrap();
        assert!(ran.stderr.is_empty(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    }

    #[test]
    fn each_package_manager_is_asked_and_its_complaints_are_told() {
        let asked = "for word in \"$@\"; do case $word in makecache|refresh) exit 0;; esac; done; exit 9";
        for manager in ["dnf", "zypper"] {
            let said = printed(manager, asked);
            assert!(
                said.starts_with(&format!("with={manager}\n")) && said.ends_with("result=good\n"),
                "{said}"
            );
            let said = printed(manager, "echo 'Error: no such host' >&2; exit 1");
            assert!(said.ends_with("why=Error: no such host\n"), "{said}");
        }
        assert_eq!(printed("curl", "exit 0"), "with=curl\nresult=good\n");
        let said = printed("curl", "echo 'curl: (7) refused'");
        assert_eq!(said, "with=curl\nwhy=curl: (7) refused\n");
        assert_eq!(printed("nothing", ""), "");
    }

    proptest! {
        #[test]
        fn no_url_panics(url in "\\PC{0,40}") {
            let _ = host_of(&url);
        }
    }
}
