//! One story per rule: the events as they would come, and what the flight recorder says to them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rackbar_model::{BootStage, BootWay, ClientArch, EventKind, MacAddr, PowerState};

use super::*;

const T0: u64 = 1_800_000_000_000;

/// A timeline: seconds after the start, and what happened.
pub(super) fn timeline(steps: &[(f64, EventKind)]) -> Vec<Event> {
    let event = |(n, (at, kind)): (usize, &(f64, EventKind))| Event {
        seq: n as u64 + 1,
        at: Timestamp(T0 + (at * 1000.0) as u64),
        node: None,
        mac: Some(MacAddr([0x52, 0x54, 0, 0, 0, 1])),
        kind: kind.clone(),
    };
    steps.iter().enumerate().map(event).collect()
}

pub(super) fn at(steps: &[(f64, EventKind)], now: f64) -> Verdict {
    verdict(&timeline(steps), Timestamp(T0 + (now * 1000.0) as u64))
}

pub(super) fn discover(user_class: Option<&str>) -> EventKind {
    EventKind::DhcpDiscover {
        network: "rack".into(),
        arch: Some(ClientArch::X64Uefi),
        vendor_class: Some("PXEClient".into()),
        user_class: user_class.map(String::from),
        relay: None,
        circuit_id: None,
        remote_id: None,
    }
}

fn offer(way: BootWay) -> EventKind {
    EventKind::DhcpOffer {
        address: None,
        way: Some(way),
        boot_file: Some("loader.efi".into()),
    }
}

fn request(server: &str) -> EventKind {
    EventKind::DhcpRequest {
        address: None,
        server: server.parse().ok(),
    }
}

pub(super) fn ack() -> EventKind {
    EventKind::DhcpAck {
        address: None,
        lease_seconds: Some(3600),
        boot_file: None,
    }
}

fn tftp(file: &str) -> EventKind {
    EventKind::TftpRequest {
        file: file.into(),
        client: [192, 0, 2, 9].into(),
        block_size: 1468,
        window_size: 4,
    }
}

fn tftp_done(file: &str) -> EventKind {
    EventKind::TftpDone {
        file: file.into(),
        client: [192, 0, 2, 9].into(),
        bytes: 1,
        millis: 1,
        resent: 0,
    }
}

pub(super) fn http(what: &str, status: u16) -> EventKind {
    EventKind::HttpSent {
        what: what.into(),
        client: [192, 0, 2, 9].into(),
        status,
        bytes: 1,
        millis: 1,
    }
}

fn started() -> EventKind {
    EventKind::Boot(BootStage::LoaderStarted { version: "1".into() })
}

pub(super) fn agent_up() -> EventKind {
    EventKind::AgentUp {
        address: [192, 0, 2, 9].into(),
        again: false,
    }
}

pub(super) fn facts() -> EventKind {
    EventKind::Facts { changed: Vec::new() }
}

pub(super) fn power(to: PowerState) -> EventKind {
    EventKind::PowerChanged {
        from: PowerState::Unknown,
        to,
    }
}

/// The usual way up to the loader in the machine's memory.
pub(super) fn up_to_loader() -> Vec<(f64, EventKind)> {
    [
        (0.0, discover(None)),
        (0.01, offer(BootWay::FullDhcp)),
        (4.0, request("192.0.2.1")),
        (4.0, ack()),
        (4.1, tftp("loader.efi")),
        (4.3, tftp_done("loader.efi")),
    ]
    .to_vec()
}

pub(super) fn with(mut steps: Vec<(f64, EventKind)>, more: &[(f64, EventKind)]) -> Vec<(f64, EventKind)> {
    steps.extend_from_slice(more);
    steps
}

/// A story: the rule it is for, its events, the second at which somebody looks, the words and the severity to find.
pub(super) type Story = (&'static str, Vec<(f64, EventKind)>, f64, &'static str, Severity);

fn stories() -> Vec<Story> {
    use EventKind::*;
    use Severity::{Error, Info, Warning};
    let client = [192, 0, 2, 9].into();
    let verified = [(5.0, started()), (5.2, Boot(BootStage::ManifestVerified))];
    let kernel = (6.0, Boot(BootStage::StartingKernel));
    let pxe = || [(0.0, discover(None)), (0.0, offer(BootWay::FullDhcp))].to_vec();
    let undionly = [
        (0.0, discover(None)),
        (0.1, offer(BootWay::FullDhcp)),
        (1.0, ack()),
        (2.0, tftp_done("undionly.kpxe")),
    ]
    .to_vec();
    let ipxe = with(undionly.clone(), &[(3.0, discover(Some("iPXE"))), (3.1, ack())]);
    let lost = AgentLost {
        reason: "reset by peer".into(),
    };
    let refused = AgentRefused {
        address: client,
        reason: "token used before".into(),
    };
    let failed = Boot(BootStage::Failed {
        reason: "vmlinuz has another digest".into(),
    });
    let tftp_failed = TftpFailed {
        file: "loader.efi".into(),
        client,
        reason: "timed out".into(),
    };
    let agent_started = Boot(BootStage::AgentStarted { uptime_millis: 1 });
    let file = Boot(BootStage::FileVerified {
        name: "vmlinuz".into(),
        bytes: 1,
        millis: 1,
    });
    let proxy = [(0.0, discover(None)), (0.1, offer(BootWay::Proxy))].to_vec();
    [
        (
            "discovered",
            with(up_to_loader(), &[(9.0, agent_up()), (11.2, facts())]),
            400.0,
            "discovered 11.2 s after the first DHCP packet",
            Info,
        ),
        (
            "agent_refused",
            with(up_to_loader(), &[kernel.clone(), (9.0, refused)]),
            10.0,
            "refused: token used before",
            Error,
        ),
        (
            "agent_lost",
            with(up_to_loader(), &[(9.0, agent_up()), (10.0, facts()), (50.0, lost)]),
            200.0,
            "ended 150 s ago: reset by peer",
            Warning,
        ),
        (
            "agent_up",
            with(up_to_loader(), &[(9.0, agent_up())]),
            10.0,
            "connected 1.0 s ago",
            Info,
        ),
        (
            "agent_started_alone",
            with(up_to_loader(), &[kernel.clone(), (9.0, agent_started)]),
            60.0,
            "has not connected",
            Warning,
        ),
        (
            "loader_failed",
            with(up_to_loader(), &[(5.0, started()), (6.0, failed)]),
            7.0,
            "gave up: vmlinuz has another digest",
            Error,
        ),
        (
            "kernel_started",
            with(up_to_loader(), &[kernel]),
            101.0,
            "kernel started 95 s ago, agent silent",
            Warning,
        ),
        (
            "loader_fetches",
            with(with(up_to_loader(), &verified), &[(6.0, file)]),
            7.0,
            "verified vmlinuz (1.0 s ago)",
            Info,
        ),
        (
            "loader_unverified",
            with(up_to_loader(), &[(5.0, started()), (5.1, http("manifest", 200))]),
            30.0,
            "has not accepted it for 25.0 s",
            Warning,
        ),
        (
            "script_files",
            with(ipxe.clone(), &[(4.0, http("script", 200)), (5.0, http("vmlinuz", 404))]),
            6.0,
            "asked for vmlinuz and did not get it: HTTP status 404",
            Error,
        ),
        (
            "script_alone",
            with(ipxe.clone(), &[(4.0, http("script", 200))]),
            5.0,
            "iPXE got its script 1.0 s ago",
            Info,
        ),
        (
            "ipxe_without_script",
            ipxe,
            40.0,
            "has not asked for its script",
            Warning,
        ),
        (
            "first_file_failed",
            with(pxe(), &[(1.0, ack()), (1.0, tftp("loader.efi")), (30.0, tftp_failed)]),
            31.0,
            "transfer of loader.efi failed: timed out",
            Warning,
        ),
        (
            "first_file_running",
            with(pxe(), &[(1.0, ack()), (1.0, tftp("loader.efi"))]),
            31.0,
            "asked for loader.efi 30.0 s ago",
            Warning,
        ),
        (
            "loader_never_asked",
            up_to_loader(),
            64.3,
            "manifest was never asked",
            Warning,
        ),
        (
            "ipxe_never_came",
            undionly,
            32.0,
            "got undionly.kpxe 30.0 s ago",
            Warning,
        ),
        (
            "ack_without_file",
            with(pxe(), &[(4.0, ack())]),
            30.0,
            "no boot file was asked for",
            Warning,
        ),
        (
            "refused_lease",
            with(
                pxe(),
                &[(
                    4.0,
                    DhcpNak {
                        reason: "not our network".into(),
                    },
                )],
            ),
            5.0,
            "refused 1.0 s ago: not our network",
            Info,
        ),
        (
            "chose_other_server",
            with(proxy.clone(), &[(4.0, request("192.0.2.254"))]),
            30.0,
            "address from 192.0.2.254 26.0 s ago",
            Warning,
        ),
        (
            "request_unanswered",
            with(pxe(), &[(4.0, request("192.0.2.1"))]),
            30.0,
            "not answered by us",
            Warning,
        ),
        (
            "offer_ignored",
            proxy,
            30.0,
            "this firmware ignores proxy offers",
            Warning,
        ),
        (
            "client_ignored",
            [
                (0.0, discover(None)),
                (
                    0.0,
                    ClientIgnored {
                        reason: "unknown machine".into(),
                    },
                ),
            ]
            .to_vec(),
            30.0,
            "left alone: unknown machine",
            Info,
        ),
        (
            "discover_unanswered",
            [(0.0, discover(None)), (4.0, discover(None))].to_vec(),
            30.0,
            "2 times since 30.0 s; we made no offer",
            Warning,
        ),
        (
            "powered_on_silent",
            [(0.0, power(PowerState::On))].to_vec(),
            300.0,
            "powered on 300 s ago",
            Warning,
        ),
    ]
    .into_iter()
    .chain(super::rest_tests::stories())
    .collect()
}

/// Name of the rule that speaks.
fn speaking(steps: &[(f64, EventKind)], now: f64) -> &'static str {
    let reading = Reading::of(&timeline(steps), Timestamp(T0 + (now * 1000.0) as u64));
    let rule = rules::RULES.iter().find(|rule| (rule.says)(&reading).is_some());
    rule.map_or("none", |rule| rule.name)
}

#[test]
fn every_story_is_read_by_its_rule() {
    for (rule, steps, now, words, severity) in stories() {
        let verdict = at(&steps, now);
        assert_eq!(speaking(&steps, now), rule, "{}", verdict.text);
        assert!(verdict.text.contains(words), "{rule}: {}", verdict.text);
        assert_eq!(verdict.severity, severity, "{rule}: {}", verdict.text);
        if severity != Severity::Info {
            assert!(
                !verdict.next_step.is_empty(),
                "{rule} leaves a person alone with the problem"
            );
        }
    }
}

#[test]
fn every_rule_has_a_story() {
    for rule in rules::RULES {
        assert!(
            stories().iter().any(|story| story.0 == rule.name),
            "no story for {}",
            rule.name
        );
    }
}

#[test]
fn nothing_seen_is_said_so() {
    assert_eq!(at(&[], 0.0).stage, Stage::Silent);
}

#[test]
fn an_ordinary_boot_is_never_called_a_problem_on_its_way() {
    let boot = with(
        up_to_loader(),
        &[
            (5.0, started()),
            (5.1, http("manifest", 200)),
            (5.2, EventKind::Boot(BootStage::ManifestVerified)),
            (6.0, http("vmlinuz", 200)),
            (6.5, EventKind::Boot(BootStage::StartingKernel)),
            (11.0, discover(Some("rackbar-agent"))),
            (12.0, agent_up()),
            (12.2, facts()),
        ],
    );
    let mut stage = Stage::Silent;
    for n in 1..=boot.len() {
        let verdict = at(&boot[..n], boot[n - 1].0);
        assert_eq!(verdict.severity, Severity::Info, "{}", verdict.text);
        assert!(verdict.stage >= stage, "{} goes back", verdict.text);
        stage = verdict.stage;
    }
    assert_eq!(stage, Stage::Discovered);
    assert_eq!(at(&boot, 12.2).text, "discovered 12.2 s after the first DHCP packet");
    let later: Vec<_> = boot.into_iter().chain([(95.0, facts())]).collect();
    assert_eq!(at(&later, 95.0).text, "discovered 12.2 s after the first DHCP packet");
}

#[test]
fn a_new_boot_makes_the_old_one_forgotten() {
    let again = with(
        up_to_loader(),
        &[(9.0, agent_up()), (10.0, facts()), (500.0, discover(None))],
    );
    assert_eq!(at(&again, 501.0).stage, Stage::Dhcp);
    let off = with(
        up_to_loader(),
        &[(9.0, agent_up()), (10.0, facts()), (20.0, power(PowerState::On))],
    );
    assert_eq!(at(&off, 21.0).stage, Stage::Silent);
}

#[test]
fn a_retry_is_not_a_new_boot() {
    let steps = [
        (0.0, discover(None)),
        (4.0, discover(None)),
        (12.0, discover(None)),
        (12.1, offer(BootWay::Proxy)),
    ];
    assert!(at(&steps, 12.2).text.contains("offer seen"));
    let done = with(steps.to_vec(), &[(20.0, agent_up()), (21.0, facts())]);
    assert!(
        at(&done, 22.0).text.contains("discovered 21.0 s"),
        "counted from the first packet"
    );
}

#[test]
fn the_reason_a_way_was_changed_is_told() {
    let changed = EventKind::WayChanged {
        from: BootWay::Proxy,
        to: BootWay::FullDhcp,
        reason: "two proxy offers were ignored; switching to full DHCP".to_string(),
    };
    let steps = [(0.0, discover(None)), (0.1, offer(BootWay::Proxy)), (5.0, changed)];
    assert!(
        at(&steps, 6.0).text.contains("switching to full DHCP"),
        "{}",
        format!("{:?}", at(&steps, 6.0))
    );
}

proptest::proptest! {
    /// Timelines come in any order: a machine with two NICs, an appliance restarted, a clock that steps.
    #[test]
    fn any_timeline_gets_a_verdict_in_words(
        picks in proptest::collection::vec((0usize..10_000, 0u32..400), 0..60), now in 0u32..500,
    ) {
        let kinds: Vec<EventKind> = stories().into_iter().flat_map(|story| story.1).map(|(_, kind)| kind).collect();
        let steps: Vec<_> = picks.iter().map(|(n, at)| (f64::from(*at), kinds[n % kinds.len()].clone())).collect();
        let verdict = at(&steps, f64::from(now));
        proptest::prop_assert!(!verdict.text.is_empty());
        let silent_problem = verdict.severity != Severity::Info && verdict.next_step.is_empty();
        proptest::prop_assert!(!silent_problem, "{}", verdict.text);
    }
}
