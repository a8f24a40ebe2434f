//! The checks: each a probe and a judge.

mod boot;
mod burnin;
mod disk;
mod link;
mod network;
mod services;
mod system;

use std::time::Duration;

use rackbar_model::Timestamp;

use crate::Context;

/// What came of a check.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Verdict {
    Passed {
        wanted: String,
        observed: String,
    },
    Failed {
        wanted: String,
        observed: String,
        advice: String,
    },
    /// It does not apply; says why.
    Skipped(String),
}

impl Verdict {
    /// Passed when `good`; else failed with `advice`.
    pub(crate) fn of(good: bool, wanted: impl Into<String>, observed: impl Into<String>, advice: &str) -> Self {
        let (wanted, observed) = (wanted.into(), observed.into());
        match good {
            true => Self::Passed { wanted, observed },
            false => Self::Failed {
                wanted,
                observed,
                advice: advice.into(),
            },
        }
    }

    /// Passed when there are no `faults`; else failed with all of them.
    pub(crate) fn by(faults: &[String], wanted: impl Into<String>, observed: impl Into<String>, advice: &str) -> Self {
        let observed = match faults {
            [] => observed.into(),
            faults => faults.join("; "),
        };
        Self::of(faults.is_empty(), wanted, observed, advice)
    }
}

/// A check's code.
pub(crate) struct Check {
    pub(crate) id: &'static str,
    /// The script to run on the node; `None` when the judge needs nothing from it, an error when the check does not
    /// apply.
    pub(crate) probe: fn(&Context) -> Result<Option<String>, String>,
    /// Decides.
    pub(crate) judge: fn(&Context, &Probed) -> Verdict,
    /// More time than usual.
    pub(crate) limit: Option<Duration>,
    /// What it looks at comes right by itself in the first minute of a system's life.
    pub(crate) settles: bool,
}

const fn check(
    id: &'static str,
    probe: fn(&Context) -> Result<Option<String>, String>,
    judge: fn(&Context, &Probed) -> Verdict,
) -> Check {
    Check {
        id,
        probe,
        judge,
        limit: None,
        settles: false,
    }
}

const fn settling(check: Check) -> Check {
    Check { settles: true, ..check }
}

const fn slow(seconds: u64, check: Check) -> Check {
    Check {
        limit: Some(Duration::from_secs(seconds)),
        ..check
    }
}

const CHECKS: &[Check] = &[
    check(crate::REACHABLE, system::reachable_probe, system::reachable),
    check("os.identity", system::identity_probe, system::identity),
    check("disk.layout", disk::layout_probe, disk::layout),
    check("disk.errors", disk::errors_probe, disk::errors),
    check("memory.total", system::memory_probe, system::memory),
    check("cpu.threads", system::threads_probe, system::threads),
    check("firmware.bios", boot::bios_probe, boot::bios),
    check("boot.order", boot::order_probe, boot::order),
    check("net.addresses", network::addresses_probe, network::addresses),
    // A switch takes some seconds to agree to a bond.
    settling(check("net.link", link::link_probe, link::link)),
    settling(slow(120, check("net.pairs", network::pairs_probe, network::pairs))),
    slow(120, check("net.mtu", network::mtu_probe, network::mtu)),
    settling(slow(60, check("dns.resolve", services::dns_probe, services::dns))),
    settling(check("time.sync", services::time_probe, services::time)),
    settling(slow(
        120,
        check("proxy.packages", services::proxy_probe, services::proxy),
    )),
    check("ssh.hostkey", system::hostkey_probe, system::hostkey),
    check("services.failed", services::failed_probe, services::failed),
    check("kernel.taint", system::taint_probe, system::taint),
    check("security.nopassword", system::passwords_probe, system::passwords),
    check("burnin.machine", burnin::probe, burnin::machine),
    check("burnin.cpu", burnin::probe, burnin::cpu),
    check("burnin.memory", burnin::probe, burnin::memory),
    check("burnin.disk", burnin::probe, burnin::disk),
];

pub(crate) use burnin::was_asked_for;

/// What a check looks for in the kernel's log, and what it passes over there.
pub(crate) fn log_patterns(id: &str) -> Option<(&'static str, &'static str)> {
    match id {
        "disk.errors" => Some((disk::ERRORS, disk::NO_ERRORS)),
        "kernel.taint" => Some((system::FAULTS, system::NO_FAULTS)),
        _ => None,
    }
}

pub(crate) fn all() -> &'static [Check] {
    CHECKS
}

pub(crate) fn find(id: &str) -> Option<&'static Check> {
    CHECKS.iter().find(|check| check.id == id)
}

/// What a probe printed: lines of `name=value`, read as they come. A name may come several times.
#[derive(Default)]
pub(crate) struct Probed {
    text: String,
    /// The appliance's clock when the probe was sent and when its answer was there.
    pub(crate) between: Option<(Timestamp, Timestamp)>,
}

impl Probed {
    pub(crate) fn new(text: String, sent: Timestamp, back: Timestamp) -> Self {
        Self {
            text,
            between: Some((sent, back)),
        }
    }

    /// All values of a name, trimmed.
    pub(crate) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.text
            .lines()
            .filter_map(move |line| line.strip_prefix(name)?.strip_prefix('=').map(str::trim))
    }

    /// The first value of a name that is not empty.
    pub(crate) fn one<'a>(&'a self, name: &'a str) -> Option<&'a str> {
        self.all(name).find(|value| !value.is_empty())
    }

    /// The first value of a name as a number.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.one(name)?.parse().ok()
    }
}

/// A text between single quotes of a POSIX shell.
pub(crate) fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Programs write into the kernel's log too, and speak of other things: `systemd-journald[211]: .. corrupted`.
const BY_PROGRAMS: &str = "'^(\\[ *[0-9.]+\\] )?[A-Za-z0-9_.@-]+\\[[0-9]+\\]: '";

/// Reads lines of the kernel log that match `pattern`, whatever tool is there; `lines=` says how many there were in all,
/// so that no log is not taken for a clean one.
pub(crate) fn kernel_log(pattern: &str, except: &str) -> String {
    format!(
        "log() {{ {{ dmesg 2>/dev/null || journalctl -k -b -o cat --no-pager 2>/dev/null; }} | grep -avE {BY_PROGRAMS}; }}\n\
         echo \"lines=$(log | wc -l)\"\n\
         log | grep -aiE {} | grep -avE {} | tail -n 20 | sed 's/^/log=/'\n",
        quoted(pattern),
        quoted(except)
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_listed_check_has_code_and_the_other_way_round() {
        let list = crate::capabilities();
        assert_eq!(list.version, 1);
        let listed: Vec<_> = list.checks.iter().map(|check| check.id.as_str()).collect();
        let coded: Vec<_> = CHECKS.iter().map(|check| check.id).collect();
        assert_eq!(listed, coded);
        assert_eq!(coded, rackbar_model::CHECKS, "what a role may name");
        assert_eq!(coded.iter().collect::<BTreeSet<_>>().len(), coded.len());
        assert!(list.checks.iter().all(|check| (1..=7).contains(&check.layer)));
    }

    #[test]
    fn text_in_quotes_is_text() {
        assert_eq!(quoted("a'b"), "'a'\\''b'");
    }

    proptest! {
        #[test]
        fn no_answer_of_a_node_makes_a_judge_panic(
            text in "([a-z.-]{1,12}=[ -~]{0,40}\n|[0-9a-f ]{0,60}\n|\\PC{0,20}\n){0,20}"
        ) {
            let context = crate::checks::tests::wishes();
            for check in CHECKS {
                let _ = (check.judge)(&context, &Probed::new(text.clone(), Timestamp(5), Timestamp(9)));
            }
        }

        #[test]
        fn well_named_lines_with_odd_values_make_no_judge_panic(
            values in prop::collection::vec(("(root|disk|part|array|half|fs|entry|order|route|route6|fib|local|inet6|link|bond|partner|vlan|ping|clock|online|memory|tainted|lines|account|server|name)", "((mgmt|storage|bond0) )?[-0-9a-f:,./| ]{0,40}"), 0..20)
        ) {
            let text: String = values.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
            let context = crate::checks::tests::wishes();
            for check in CHECKS {
                let _ = (check.judge)(&context, &Probed::new(text.clone(), Timestamp(5), Timestamp(9)));
            }
        }
    }

    /// A context in which every check applies.
    pub(crate) fn wishes() -> Context {
        let mut context = Context::default();
        let disk = |serial: &str| rackbar_model::DiskRef {
            serial: Some(serial.into()),
            ..rackbar_model::DiskRef::default()
        };
        context.wanted.target = Some(rackbar_model::RootTarget::Mirror([disk("A"), disk("B")]));
        context.wanted.host_key = Some("ssh-ed25519 AAAA node".into());
        context.wanted.attributes.insert("X".into(), "On".into());
        context.wanted.names = vec!["example.org".into()];
        context.wanted.peers = vec![crate::Peer {
            name: "n2".into(),
            address: [10, 0, 0, 2].into(),
            mtu: Some(9000),
        }];
        let setup = &mut context.wanted.setup;
        setup.hostname = "n1".into();
        setup.machine_id = "00112233445566778899aabbccddeeff".into();
        setup.dns = vec![[10, 0, 0, 1].into()];
        setup.ntp = vec!["10.0.0.1".into()];
        setup.proxy = Some("http://10.0.0.1:3142".into());
        let mgmt = rackbar_model::OsNetwork {
            name: "mgmt".into(),
            nics: vec![rackbar_model::MacAddr([2, 0, 0, 0, 0, 1])],
            bond: Some(rackbar_model::BondMode::Lacp),
            vlan: None,
            mtu: Some(9000),
            addresses: vec!["10.0.0.7/24".into(), "fd00::7/64".into()],
            gateway: Some([10, 0, 0, 1].into()),
        };
        let storage = rackbar_model::OsNetwork {
            name: "storage".into(),
            nics: vec![rackbar_model::MacAddr([2, 0, 0, 0, 0, 9])],
            vlan: Some(30),
            addresses: vec!["fd01::7/64".into()],
            gateway: Some(std::net::Ipv6Addr::new(0xfd01, 0, 0, 0, 0, 0, 0, 1).into()),
            ..mgmt.clone()
        };
        setup.networks = vec![mgmt, storage];
        context.seen.inventory = Some(rackbar_model::Inventory::default());
        context
    }
}
