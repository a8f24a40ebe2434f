//! Stories of an operator at the command line, against a daemon on loopback. Each has an appliance of its own.

#![allow(clippy::unwrap_used, reason = "tests: a panic is the failure")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use common::{Appliance, rackbar};

const SITE: &str = r#"
version = 1
[role.worker]
os = "tiny"
[[rule]]
name = "all"
when = "true"
role = "worker"
"#;

#[test]
fn site_file_is_checked_set_shown_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let site = appliance.file("site.toml", SITE);
    let bad = appliance.file("bad.toml", SITE.replace("os = \"tiny\"", "osx = \"tiny\""));

    let words = appliance.ask(&["site", "check", &bad]);
    assert!(format!("{}{}", words.out, words.err).contains("osx"), "{words:?}");
    assert_eq!(words.code, 1);
    appliance.ask(&["site", "check", &site]).well();
    // Of the appliance itself: what is set is what is found right before.
    let own =
        "[network.rack]\nsubnet = \"10.9.0.0/24\"\ndns = \"own\"\nntp = \"own\"\nproxy = \"own\"\nsyslog = \"own\"\n";
    let own = appliance.file("own.toml", format!("{SITE}{own}"));
    appliance.ask(&["site", "check", &own]).well();
    appliance.ask(&["site", "set", &own]).well();
    let differs = appliance.ask(&["site", "diff", &site]).well();
    assert!(differs.contains("rack"), "{differs}");
    let wrong = appliance.file("wrong.toml", SITE.replace("os =", "checks = [\"disk.layot\"]\nos ="));
    let words = appliance.ask(&["site", "check", &wrong]);
    assert!(
        words.code == 1 && format!("{}{}", words.out, words.err).contains("`disk.layout`"),
        "{words:?}"
    );

    let refused = appliance.ask(&["site", "set", &bad]).failed(1);
    assert!(refused.contains("line 4"), "{refused}");
    assert!(
        appliance.ask(&["site", "show"]).well().contains("network.rack"),
        "a refused file changes nothing"
    );

    appliance.ask(&["site", "set", &site]).well();
    assert_eq!(appliance.ask(&["site", "show"]).well().trim(), SITE.trim());
    let other = appliance.file("other.toml", SITE.replace("tiny", "debian-12"));
    let differs = appliance.ask(&["site", "diff", &other]).well();
    assert!(differs.contains("debian-12") && differs.contains("tiny"), "{differs}");
    let schema: serde_json::Value = serde_json::from_str(&appliance.ask(&["site", "schema"]).well()).unwrap();
    assert!(schema.pointer("/properties/role").is_some(), "{schema}");
    appliance.ask(&["rule", "test"]).well();
}

#[test]
fn machines_that_are_expected_and_never_seen_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let none = appliance.ask(&["site", "machines"]).well();
    assert!(!none.contains("db-1"), "{none}");
    let machines = "[[machine]]\nname = \"db-1\"\nserial = \"S1\"\nrole = \"worker\"\n\
                    [[machine]]\nname = \"db-2\"\nbmc_mac = \"52:54:00:00:00:02\"\n";
    let site = appliance.file("site.toml", format!("{SITE}{machines}"));
    appliance.ask(&["site", "set", &site]).well();
    let said = appliance.ask(&["site", "machines"]);
    assert_eq!(said.code, 1, "{said:?}");
    let line = |name: &str| said.out.lines().find(|line| line.contains(name)).unwrap_or_default();
    assert!(
        line("db-1").contains("serial S1") && line("db-1").contains("never seen"),
        "{said:?}"
    );
    assert!(line("db-2").contains("BMC 52:54:00:00:00:02"), "{said:?}");
    let said = appliance.ask(&["--json", "site", "machines"]);
    let machines: serde_json::Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(machines[0]["role"], "worker", "{machines}");
    assert!(machines[0]["node"].is_null(), "{machines}");
    let list = appliance.ask(&["node", "list"]).well();
    assert!(list.contains("expected and never seen: db-1, db-2"), "{list}");
}

#[test]
fn limits_of_boot_files_follow_the_configuration_while_they_run() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let limits = || {
        let boot: serde_json::Value =
            serde_json::from_str(&appliance.ask(&["--json", "service", "boot"]).well()).unwrap();
        (boot["servers"][0]["limit"].clone(), boot["servers"][1]["limit"].clone())
    };
    assert_eq!(limits(), (1024.into(), 8192.into()));
    let config = folder.path().join("rackbar.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let limited = |transfers| format!("{text}[boot]\ntftp_transfers = {transfers}\nhttp_connections = 9\n");
    std::fs::write(&config, limited(7)).unwrap();
    until("the limits are in force", || limits() == (7.into(), 9.into()));
    // A wrong one changes nothing; taken out again it is as it was.
    std::fs::write(&config, limited(0)).unwrap();
    until("the mistake is told", || {
        appliance.ask(&["events"]).well().contains("boot.tftp_transfers")
    });
    assert_eq!(limits(), (7.into(), 9.into()));
    std::fs::write(&config, &text).unwrap();
    until("the usual limits are back", || limits() == (1024.into(), 8192.into()));
}

fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < end, "not within a minute: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_site_file_is_checked_and_compared_before_there_is_an_appliance() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: String| {
        std::fs::write(folder.path().join(name), text).unwrap();
        name.to_owned()
    };
    let rackbar = |arguments: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_rackbar"));
        let command = command.args(arguments).current_dir(folder.path());
        // Nobody who could be asked is known.
        let output = command.env_clear().env("HOME", folder.path()).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let good = file("good.toml", SITE.to_owned());
    let bad = file("bad.toml", SITE.replace("os = \"tiny\"", "os = \"tiny\"\nosx = 1"));
    assert_eq!(rackbar(&["site", "check", &good]).0, Some(0));
    let (code, text) = rackbar(&["site", "check", &bad]);
    assert!(code == Some(1) && text.contains("bad.toml:5:"), "{text}");
    assert!(
        text.contains("bad.toml has 1 mistake") && !text.contains("1 mistakes"),
        "{text}"
    );
    let (code, text) = rackbar(&["site", "check", &bad, "--json"]);
    assert!(code == Some(1) && text.contains("\"line\": 5"), "{text}");
    let other = file("other.toml", SITE.replace("tiny", "debian-12"));
    let (code, text) = rackbar(&["site", "diff", &good, &other]);
    assert!(
        code == Some(0) && text.contains("tiny") && text.contains("debian-12"),
        "{text}"
    );
    let (code, text) = rackbar(&["site", "diff", &good, &bad]);
    assert!(code == Some(1) && text.contains("bad.toml:5:"), "{text}");
    assert_eq!(rackbar(&["site", "schema"]).0, Some(0));
    let (code, text) = rackbar(&["site", "show"]);
    assert!(code != Some(0) && text.contains("rackbar login"), "{text}");
}

#[test]
fn plan_and_run_of_nothing_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let refused = appliance.ask(&["plan"]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(refused.err.contains("site"), "{refused:?}");
    appliance.ask(&["commit", "0123456789abcdef"]).failed(3);
    appliance.ask(&["run", "show", "7"]).failed(3);
    appliance.ask(&["node", "show", "nobody"]).failed(3);
    appliance.ask(&["report", "show"]).failed(3);
    let nobody = rackbar(folder.path(), &["node", "list"], "");
    assert!(nobody.err.contains("rackbar login"), "{nobody:?}");
}

#[test]
fn image_comes_in_is_listed_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    // A protective MBR and nothing else: the catalogue wants something that a firmware could boot.
    let mut disk = vec![0u8; 1 << 20];
    disk[510..512].copy_from_slice(&[0x55, 0xaa]);
    let file = appliance.file("tiny.raw", &disk);
    appliance
        .ask(&["os", "add", &file, "--name", "tiny", "--user", "root"])
        .well();
    let list = appliance.ask(&["os", "list"]).well();
    assert!(list.contains("tiny") && list.contains("root"), "{list}");
    let entries: serde_json::Value = serde_json::from_str(&appliance.ask(&["os", "list", "--json"]).well()).unwrap();
    assert_eq!(entries[0]["name"], "tiny");
    appliance.ask(&["os", "remove", "tiny"]).well();
    appliance.ask(&["os", "remove", "tiny"]).failed(3);
}

#[test]
fn token_opens_what_its_role_may_and_the_audit_trail_tells_who() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let token = appliance.ask(&["token", "create", "anna", "--role", "viewer"]).well();
    let anna = folder.path().join("anna.token");
    std::fs::write(&anna, &token).unwrap();
    appliance.by(&anna, &["node", "list"], "").well();
    let site = appliance.file("site.toml", SITE);
    let refused = appliance.by(&anna, &["site", "set", &site], "").failed(4);
    assert!(refused.contains("viewer") && refused.contains("operator"), "{refused}");
    let list = appliance.ask(&["token", "list"]).well();
    assert!(list.contains("anna") && !list.contains(token.trim()), "{list}");
    let audit = appliance.ask(&["audit", "--by", "anna"]).well();
    assert!(audit.contains("refused"), "{audit}");
    assert!(!appliance.ask(&["audit"]).well().contains(token.trim()));
    appliance.ask(&["token", "revoke", "anna"]).well();
    appliance.by(&anna, &["node", "list"], "").failed(4);
}

#[test]
fn state_moves_to_another_appliance_which_then_is_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let first = Appliance::start(&folder.path().join("first"));
    let words = first.file("pass", "correct horse battery\n");
    let site = first.file("site.toml", SITE);
    first.ask(&["site", "set", &site]).well();
    let saved = folder.path().join("saved").display().to_string();
    first.ask(&["export", &saved, "--passphrase-file", &words]).well();
    let again = first.ask(&["export", &saved, "--passphrase-file", &words]).failed(1);
    assert!(
        again.contains("exists"),
        "a file that is there is not written over: {again}"
    );
    let short = first.file("short", "short\n");
    first
        .ask(&["export", "/nonexistent", "--passphrase-file", &short])
        .failed(1);

    let mut second = Appliance::start(&folder.path().join("second"));
    let own = second.fingerprint().to_owned();
    let wrong = second.file("wrong", "another horse battery\n");
    let refused = second.ask(&["import", &saved, "--passphrase-file", &wrong]).failed(1);
    assert!(refused.contains("passphrase"), "{refused}");
    second.ask(&["import", &saved, "--passphrase-file", &words]).well();
    second.await_service();
    assert_ne!(second.fingerprint(), own);
    assert_eq!(second.fingerprint(), first.fingerprint());
    let token = first.run_folder().join("admin-token");
    assert_eq!(second.by(&token, &["site", "show"], "").well().trim(), SITE.trim());
    // The deed is written when the imported state is in use, a moment after the API is up.
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let audit = second.by(&token, &["audit"], "").well();
        if audit.contains("put a state file in") {
            break;
        }
        assert!(Instant::now() < end, "{audit}");
    }
    assert!(second.folder().join("data/rackbar.before-import").exists());
}

#[test]
fn locked_appliance_waits_for_its_passphrase_and_serves_then() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let fingerprint = appliance.fingerprint().to_owned();
    let words = appliance.file("pass", "correct horse battery\n");
    assert!(appliance.ask(&["secrets", "show"]).well().contains("key file"));
    let told = appliance
        .ask(&["secrets", "passphrase", "--passphrase-file", &words])
        .well();
    assert!(told.contains("rackbar unlock"), "{told}");
    appliance.stop();

    let mut appliance = Appliance::start_locked(folder.path());
    let run = appliance.run_folder().display().to_string();
    let wrong = rackbar(folder.path(), &["unlock", "--run", &run], "another horse battery\n").failed(1);
    assert!(wrong.contains("passphrase"), "{wrong}");
    rackbar(
        folder.path(),
        &["unlock", "--run", &run, "--passphrase-file", &words],
        "",
    )
    .well();
    appliance.await_service();
    assert_eq!(appliance.fingerprint(), fingerprint);
    let audit = appliance.ask(&["audit", "--by", "console"]).well();
    assert!(
        audit.contains("open the stored secrets") && audit.contains("after 1 that were refused"),
        "{audit}"
    );
    assert!(appliance.ask(&["secrets", "key-file"]).well().contains("key file"));
    appliance.stop();
    Appliance::start(folder.path());
}

#[test]
fn bmc_accounts_are_opened_without_an_appliance() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let words = appliance.file("pass", "correct horse battery\n");
    let wrong = appliance.file("wrong", "another horse battery\n");
    let file = folder.path().join("bmc.sealed").display().to_string();
    appliance
        .ask(&["secrets", "break-glass", &file, "--passphrase-file", &words])
        .well();
    appliance.stop();
    let read = |words: &str| {
        rackbar(
            folder.path(),
            &["secrets", "read", &file, "--passphrase-file", words],
            "",
        )
    };
    assert!(read(&words).well().contains("PASSWORD"));
    read(&wrong).failed(1);
}

/// The appliance was carried away after the rack was brought up.
#[test]
fn tools_go_on_by_what_was_kept_when_the_appliance_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let token = appliance.run_folder().join("admin-token").display().to_string();
    let (api, fingerprint) = (appliance.api().to_string(), appliance.fingerprint().to_owned());
    let away = |arguments: &[&str]| {
        let appliance = [
            "--endpoint",
            &api,
            "--fingerprint",
            &fingerprint,
            "--token-file",
            &token,
        ];
        rackbar(folder.path(), &[&appliance[..], arguments].concat(), "")
    };
    let list = ["handoff", "ansible", "--list", "--kept"];
    let roster = ["handoff", "show", "salt", "roster", "--kept"];
    let before = [&list[..], &roster[..]].map(|asked| away(asked).well());
    assert!(before[0].contains("_meta"), "{}", before[0]);
    // What nobody wanted kept is not.
    away(&["handoff", "show", "chef", "first-boot", "stranger"]).well();
    appliance.stop();

    let after = [&list[..], &roster[..]].map(&away);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&after.out, after.code), (before, 0));
        assert!(
            after.err.contains("cannot be reached") || after.err.contains("cannot reach"),
            "{}",
            after.err
        );
        assert!(after.err.contains("this is what it said at 20"), "{}", after.err);
    }
    let of_host = away(&["handoff", "ansible", "--host", "nobody", "--kept"]).well();
    assert_eq!(of_host.trim(), "{}");
    assert!(away(&list[..3]).failed(5).contains("cannot reach"));
    let none = away(&["handoff", "show", "chef", "first-boot", "stranger", "--kept"]).failed(5);
    assert!(none.contains("nothing that it said before is kept"), "{none}");
    let kept: Vec<_> = std::fs::read_dir(folder.path().join("rackbar/kept")).unwrap().collect();
    assert_eq!(kept.len(), 2, "{kept:?}");
    for file in kept {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    // Ansible itself, by the script of the documentation.
    let script = folder.path().join("inventory");
    let text = format!(
        "#!/bin/sh\nexec {} --endpoint {api} --fingerprint {fingerprint} --token-file {token} handoff ansible --kept \"$@\"\n",
        env!("CARGO_BIN_EXE_rackbar")
    );
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = std::process::Command::new("ansible-inventory")
        .args(["--list", "-i"])
        .arg(&script)
        .env("HOME", folder.path())
        .env("XDG_CACHE_HOME", folder.path())
        .env("ANSIBLE_INVENTORY_UNPARSED_FAILED", "true")
        .output()
        .expect("ansible-core: `cargo xtask setup test` installs it");
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("_meta"));
}

#[test]
fn tools_go_on_with_a_machine_that_we_do_not_know() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let enc = appliance.ask(&["handoff", "puppet", "enc", "stranger.example"]).well();
    assert_eq!(enc, "---\n\"classes\": {}\n\"parameters\": {}\n");
    assert_eq!(
        appliance.ask(&["handoff", "puppet", "facts", "stranger"]).well().trim(),
        "{}"
    );
    assert_eq!(
        appliance.ask(&["handoff", "show", "salt", "pillar", "stranger"]).well(),
        "---\n{}\n"
    );
    assert_eq!(
        appliance.ask(&["handoff", "show", "salt", "roster"]).well(),
        "---\n{}\n"
    );
    assert_eq!(
        appliance
            .ask(&["handoff", "show", "chef", "first-boot", "stranger"])
            .well()
            .trim(),
        "{}"
    );
    let token = appliance.run_folder().join("admin-token");
    let no = appliance
        .by(&token, &["handoff", "puppet", "autosign", "stranger"], "no request")
        .failed(1);
    assert!(no.contains("not signed"), "{no}");
    // The audit trail is written behind the answer.
    let deadline = Instant::now() + Duration::from_secs(20);
    while !appliance.ask(&["audit"]).well().contains("do not sign") {
        assert!(Instant::now() < deadline, "the audit trail does not tell of it");
    }
    assert!(appliance.ask(&["handoff", "list"]).well().contains("cephadm"));
    let refused = appliance.ask(&["handoff", "show", "cephadm", "spec"]).failed(6);
    assert!(refused.contains("monitor"), "{refused}");
    appliance.ask(&["handoff", "show", "salt", "nothing"]).failed(3);
    appliance
        .ask(&["handoff", "enrol", "nobody", "--tool", "puppet"])
        .failed(3);
    appliance
        .ask(&["node", "facts", "nobody", "--format", "ohai"])
        .failed(3);
    assert_eq!(appliance.ask(&["handoff", "enrolments", "--json"]).well().trim(), "[]");
}

#[test]
fn inventory_is_one_that_ansible_takes() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    let list: serde_json::Value =
        serde_json::from_str(&appliance.ask(&["handoff", "ansible", "--list"]).well()).unwrap();
    assert_eq!(list["_meta"]["hostvars"], serde_json::json!({}));
    assert_eq!(
        appliance.ask(&["handoff", "ansible", "--host", "nobody"]).well().trim(),
        "{}"
    );
    appliance.ask(&["handoff", "ansible"]).failed(2);
}

#[test]
fn what_needs_no_appliance_asks_none() {
    let folder = tempfile::tempdir().unwrap();
    let alone = |arguments: &[&str]| rackbar(folder.path(), arguments, "");
    let checks = alone(&["verify", "--list"]).well();
    assert!(
        ["os.identity", "net.pairs", "burnin.disk"]
            .iter()
            .all(|id| checks.contains(id)),
        "{checks}"
    );
    // Times are written with their unit.
    alone(&["verify", "node-001", "--burn-in", "10"]).failed(2);
    let file = folder.path().join("no.report");
    std::fs::write(&file, "{}").unwrap();
    alone(&["report", "check", file.to_str().unwrap()]).failed(1);
    assert!(alone(&["completion", "bash"]).well().contains("_rackbar"));
    let token = folder.path().join("token");
    std::fs::write(&token, "any").unwrap();
    // Port 1 of loopback: nobody listens there.
    let place = [
        "--endpoint",
        "127.0.0.1:1",
        "--fingerprint",
        &"00".repeat(32),
        "--token-file",
        token.to_str().unwrap(),
    ];
    let mut asked = place.to_vec();
    asked.extend(["node", "list"]);
    let nobody = alone(&asked).failed(5);
    assert!(nobody.contains("127.0.0.1:1"), "{nobody}");
}

#[test]
fn an_operating_system_is_retired_and_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let appliance = Appliance::start(folder.path());
    for (name, fill) in [("debian-11", 1), ("debian-12", 2)] {
        let mut disk = vec![fill; 1 << 20];
        disk[510..512].copy_from_slice(&[0x55, 0xAA]);
        let file = appliance.file(name, disk);
        appliance.ask(&["os", "add", &file, "--name", name]).well();
    }
    let retired = |appliance: &Appliance| {
        let list = appliance.ask(&["os", "list", "--json"]).well();
        let list: serde_json::Value = serde_json::from_str(&list).unwrap();
        list[0]["retired"]["instead"].as_str().map(str::to_owned)
    };
    let refused = |arguments: &[&str]| {
        let said = appliance.ask(arguments);
        assert_ne!(said.code, 0, "{said:?}");
        said.err
    };
    let unknown = refused(&["os", "retire", "debian-11", "--instead", "debian-13"]);
    assert!(unknown.contains("no image is named debian-13"), "{unknown}");
    let itself = refused(&["os", "retire", "debian-11", "--instead", "debian-11"]);
    assert!(itself.contains("cannot take its place"), "{itself}");
    assert!(refused(&["os", "retire", "debian-11", "--undo"]).contains("is not retired"));
    assert_eq!(retired(&appliance), None);

    let done = appliance.ask(&["os", "retire", "debian-11", "--instead", "debian-12"]);
    assert!(
        done.err.contains("no new plan takes it, and debian-12 takes its place"),
        "{done:?}"
    );
    assert!(appliance.ask(&["os", "list"]).well().contains("take debian-12"));
    let appliance = Appliance::start(&appliance.stop());
    assert_eq!(retired(&appliance).as_deref(), Some("debian-12"));

    appliance.ask(&["os", "retire", "debian-11", "--undo"]).well();
    assert_eq!(retired(&appliance), None);
}
