//! Signed reports: believed whole, or not at all.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::sync::LazyLock;

use proptest::prelude::*;
use rackbar_model::{CheckResult, CheckStatus, Digest, DiskRef, EraseEvidence, EraseMethod, NodeId, Timestamp};
use rackbar_trust::{Secret, Signer as _, SigningKey};
use rackbar_verify::{NodeReport, REPORT_VERSION, Report, ReportError, check, sign, text};

fn signer(byte: u8) -> SigningKey {
    SigningKey::from_seed(&Secret::new([byte; 32])).unwrap()
}

fn result(id: &str, status: CheckStatus, observed: &str) -> CheckResult {
    CheckResult {
        id: id.into(),
        status,
        wanted: "something".into(),
        observed: observed.into(),
        advice: "do something".into(),
        at: Timestamp(1_000),
        millis: 3,
    }
}

fn report() -> Report {
    Report {
        version: REPORT_VERSION,
        site: "rack 7".into(),
        site_sha256: Some(Digest([1; 32])),
        appliance: "0.1.0".into(),
        capabilities: 1,
        at: Timestamp(1_700_000_000_000),
        nodes: vec![NodeReport {
            node: NodeId([5; 16]),
            name: "db-1".into(),
            role: Some("database".into()),
            serial: None,
            image: Some(("debian-12".into(), Digest([2; 32]))),
            plan: Some("p1".into()),
            run: Some(3),
            checks: vec![
                result("disk.layout", CheckStatus::Passed, "vda \"quoted\" \u{e9}"),
                result("net.mtu", CheckStatus::Skipped, ""),
            ],
            erased: vec![EraseEvidence {
                disk: DiskRef::default(),
                model: None,
                asked: EraseMethod::Discard,
                steps: vec!["BLKDISCARD 0..10".into()],
                began: Timestamp(1),
                ended: Timestamp(2),
            }],
            burned_in: Vec::new(),
            state: None,
        }],
    }
}

static FILE: LazyLock<Vec<u8>> = LazyLock::new(|| sign(&report(), &signer(1)).unwrap().to_bytes());

#[test]
fn a_report_is_read_back_and_its_signer_is_known() {
    let checked = check(&FILE, None).unwrap();
    assert_eq!(checked.report, report());
    assert_eq!(checked.key, signer(1).public_key());
    assert!(check(&FILE, Some(&signer(1).public_key())).is_ok());
    let error = check(&FILE, Some(&signer(2).public_key())).unwrap_err();
    assert!(matches!(error, ReportError::OtherKey { .. }), "{error}");
}

#[test]
fn of_a_burn_in_what_came_last_is_told() {
    let at = |seconds: u64, one: CheckResult| CheckResult {
        at: Timestamp(1_000 * seconds),
        ..one
    };
    let told = |node: &NodeReport| -> Vec<(String, CheckStatus)> {
        node.results().map(|one| (one.id.clone(), one.status)).collect()
    };
    let mut node = report().nodes.remove(0);
    let [bore, failed] = [CheckStatus::Passed, CheckStatus::Failed].map(|status| result("burnin.disk", status, ""));
    node.checks = vec![
        at(20, bore.clone()),
        at(20, result("disk.layout", CheckStatus::Passed, "")),
    ];
    node.burned_in = vec![at(10, bore)];
    let layout = ("disk.layout".to_owned(), CheckStatus::Passed);
    assert_eq!(
        told(&node),
        [("burnin.disk".to_owned(), CheckStatus::Passed), layout.clone()]
    );
    // It is exercised again, does not bear it, and so is not checked.
    node.burned_in = vec![at(30, failed)];
    assert_eq!(told(&node), [layout, ("burnin.disk".to_owned(), CheckStatus::Failed)]);
    assert!(!node.passed());
}

#[test]
fn a_machine_without_proof_is_listed_and_no_rack_passes_with_it() {
    let mut rack = report();
    assert!(rack.passed());
    // What an earlier program signed has no states, and is still believed.
    let old = serde_json::to_string(&rack).unwrap();
    assert!(!old.contains("state"), "{old}");
    let unproved = NodeReport {
        name: "db-2".into(),
        checks: Vec::new(),
        state: Some("provisioning".into()),
        ..rack.nodes[0].clone()
    };
    rack.nodes.push(unproved);
    let file = sign(&rack, &signer(1)).unwrap().to_bytes();
    let checked = check(&file, None).unwrap().report;
    assert_eq!(checked, rack);
    assert!(!checked.passed() && checked.nodes[0].passed());
    let told = text(&checked);
    assert!(told.contains("1 of 2 nodes as wanted"), "{told}");
    assert!(
        told.contains("no proof") && told.contains("state: provisioning"),
        "{told}"
    );
    assert!(
        told.contains(&Timestamp(1_000).to_string()),
        "when a check was made: {told}"
    );
}

#[test]
fn checks_that_passed_prove_nothing_of_a_machine_that_is_not_ready_any_more() {
    let mut rack = report();
    for (state, good) in [
        ("ready", true),
        ("handed_over", true),
        ("discovered", false),
        ("maintenance", false),
        ("failed in provisioning: disk.erase: it broke", false),
    ] {
        rack.nodes[0].state = Some(state.into());
        assert_eq!(rack.passed(), good, "{state}");
        let told = text(&rack);
        assert_eq!(told.contains("it is not ready now"), !good, "{told}");
    }
}

#[test]
fn a_burn_in_is_shown_among_the_checks_and_one_that_failed_is_no_proof() {
    let mut rack = report();
    rack.nodes[0].burned_in = vec![
        result("burnin.cpu", CheckStatus::Passed, "8 processors for 600 s"),
        result("burnin.memory", CheckStatus::Failed, "a word changed"),
    ];
    let file = sign(&rack, &signer(1)).unwrap().to_bytes();
    let checked = check(&file, None).unwrap().report;
    assert_eq!(checked, rack);
    assert!(!checked.passed());
    let told = text(&checked);
    assert!(
        told.contains("pass  burnin.cpu") && told.contains("FAIL  burnin.memory"),
        "{told}"
    );
    rack.nodes[0].burned_in.truncate(1);
    assert!(rack.passed());
}

#[test]
fn another_signature_of_the_same_key_is_none_of_a_report() {
    let file = String::from_utf8(FILE.clone()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&file).unwrap();
    let payload = value["payload"].as_str().unwrap();
    let other: String = signer(1)
        .sign(payload.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let forged = file.replace(value["signature"].as_str().unwrap(), &other);
    assert_eq!(check(forged.as_bytes(), None), Err(ReportError::Changed));
}

#[test]
fn a_node_passes_only_when_something_passed_and_nothing_failed() {
    let mut report = report();
    assert!(report.passed());
    let checks = &mut report.nodes[0].checks;
    checks.push(result("net.link", CheckStatus::Failed, "no\nlink\u{1b}[2J"));
    assert!(!report.passed());
    let shown = text(&report);
    assert!(
        shown.contains("NOT READY") && shown.contains("FAIL  net.link     1970-01-01T00:00:01.000Z  no link [2J\n"),
        "{shown}"
    );
    assert!(
        shown.contains("wanted: something") && shown.contains("BLKDISCARD"),
        "{shown}"
    );
    report.nodes[0]
        .checks
        .retain(|check| check.status == CheckStatus::Skipped);
    assert!(!report.passed(), "nothing was shown");
    report.nodes.clear();
    assert!(!report.passed());
}

#[test]
fn every_changed_bit_of_a_report_is_refused() {
    for at in 0..FILE.len() {
        for bit in 0..8 {
            let mut file = FILE.clone();
            file[at] ^= 1 << bit;
            assert!(check(&file, None).is_err(), "byte {at}, bit {bit}");
        }
    }
}

proptest! {
    #[test]
    fn whatever_is_cut_out_or_put_in_is_refused(at: prop::sample::Index, cut in 0usize..40, put in prop::collection::vec(any::<u8>(), 0..8)) {
        let at = at.index(FILE.len());
        let mut file = FILE.clone();
        file.splice(at..(at + cut).min(FILE.len()), put);
        prop_assume!(file != *FILE);
        prop_assert!(check(&file, None).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        prop_assert!(check(&bytes, None).is_err());
    }
}
