//! Runs of the executor with a real store and a real view of nodes; only the hands are simulated.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use common::life::{Life, Sim, Stop, hardware};
use common::{boot, mac, until, until_node};
use rackbar_model::EventKind;
use rackbar_orchestrator::executor::{CommitError, Install, PlanRequest, RunOrder};
use rackbar_plan::{Plan, RunId, RunState, Stand};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_installed_checked_reported_and_ready() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    let plan = life.install(node);
    let refused = life.executor.commit(&plan.id, &[], "test").unwrap_err();
    assert!(
        matches!(&refused, CommitError::Consent { missing } if missing.len() == 1),
        "{refused}"
    );
    assert!(life.executor.runs().is_empty());
    let run = life.commit(node);
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    let ended = until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await;
    assert_eq!(ended.state, RunState::Done);
    let report = life.executor.report(node).unwrap();
    assert!(rackbar_verify::check(&report.to_bytes(), None).unwrap().report.passed());
    assert!(life.rack.node(&node.to_string()).unwrap().installed.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_racks_report_lists_what_is_not_proved_and_forgets_what_is_written_over() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    let report = || {
        let file = life.executor.rack_report()?.to_bytes();
        Some(rackbar_verify::check(&file, None).unwrap().report)
    };
    assert!(report().is_none(), "no checks were run at all");
    life.commit(node);
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    let proved = report().unwrap();
    assert!(proved.passed());
    assert_eq!(proved.nodes[0].state.as_deref(), Some("ready"));

    // One that is expected and nobody has seen, and one that is there and has a role.
    let text = "version = 1\n[role.worker]\nos = \"debian-12\"\n[[rule]]\nname = \"second\"\nrole = \"worker\"\n\
                when = \"name == 'node-002'\"\n[[machine]]\nname = \"db-9\"\nserial = \"NEVER\"\nrole = \"worker\"\n";
    life.executor.set_site(text, "anna").unwrap();
    let (server, _, site) = life.machine.as_ref().unwrap();
    let (agent, second) = boot(site, server, &[mac(2)], hardware(2, 40)).await;
    until("the second has its role", || {
        let shown = life.rack.node(&second.node.to_string())?;
        shown.role.clone().filter(|_| shown.state.name() == "available")
    })
    .await;
    let told = report().unwrap();
    assert!(!told.passed());
    let expected = life.executor.expected();
    assert!(
        expected.len() == 1 && expected[0].machine.name == "db-9" && expected[0].node.is_none(),
        "{expected:?}"
    );
    let listed: Vec<_> = told
        .nodes
        .iter()
        .map(|node| (node.name.as_str(), node.passed(), node.state.as_deref().unwrap()))
        .collect();
    assert_eq!(
        listed,
        [
            ("db-9", false, "expected, and never seen"),
            ("n", true, "ready"),
            ("node-002", false, "available")
        ]
    );

    // What is written over is not proved any more, also when nothing comes after it.
    *sim.hang.lock().unwrap() = Some("os.write");
    let run = life.commit(node);
    until("the proof is gone", || {
        life.executor.report(node).is_none().then_some(())
    })
    .await;
    assert!(report().is_none(), "nothing is proved of any machine");
    life.executor.order(run, RunOrder::Cancel, "anna").unwrap();
    drop(agent);
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_hardware_bore_stays_in_every_later_report() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    let text = "version = 1\n\
                ssh_keys = [\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test\"]\n\
                [role.worker]\nos = \"debian-12\"\nburn_in = { cpu_seconds = 1 }\n\
                [[rule]]\nname = \"all\"\nrole = \"worker\"\nwhen = \"true\"\n";
    life.executor.set_site(text, "anna").unwrap();
    until_node(&life.rack, "it has its role", |node| node.role.is_some()).await;
    let plan = life.executor.plan(&PlanRequest::default()).unwrap();
    let name = life.rack.node(&node.to_string()).unwrap().name.clone();
    life.executor.commit(&plan.id, &[name], "test").unwrap();
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    let bore = || {
        let file = life.executor.report(node)?.to_bytes();
        let mut report = rackbar_verify::check(&file, None).unwrap().report;
        let node = report.nodes.remove(0);
        (node.run.is_some() && !node.burned_in.is_empty()).then_some(node)
    };
    let first = bore().unwrap();
    assert_eq!(first.burned_in[0].id, "burnin.cpu");
    // Checks are run again, and nothing is burnt in again.
    let again = life.executor.verify(Some(vec![node]), "anna").unwrap();
    until("checked again", || bore().filter(|report| report.run == Some(again.0))).await;
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_every_action_boundary_the_node_still_ends_ready() {
    let steps = {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (life, node) = Life::first(folder.path(), &sim).await;
        life.install(node).actions.len()
    };
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, node) = Life::first(folder.path(), &sim).await;
    // One run, many kills: each action is killed once before and once after its work.
    *sim.stop.lock().unwrap() = Some(Stop::Before(1));
    let run = life.commit(node);
    for step in 0..steps {
        for after in [false, true] {
            tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
                .await
                .expect("an attempt begins");
            // Taken up, it is asked for again: once to be killed after its work, once to end.
            let next = *sim.begun.lock().unwrap() + 1;
            *sim.stop.lock().unwrap() = Some(if after {
                Stop::Before(next + 1)
            } else {
                Stop::After(next)
            });
            life.kill().await;
            life = Life::start(folder.path(), &sim).await;
        }
        assert!(sim.done.lock().unwrap().len() <= step + 2);
    }
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    let ended = until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await;
    assert_eq!(ended.state, RunState::Done);
    let done = sim.done.lock().unwrap();
    assert_eq!(
        done.len(),
        steps,
        "no action is lost, and none has a second job: {done:?}"
    );
}

/// A run's timeline lacks nothing of what its record holds, and has nothing twice.
fn tells_all(life: &Life, plan: &Plan, run: RunId, commits: u64) {
    let events = life.rack.events(0, 10_000).unwrap();
    let run = life.executor.run(run).unwrap();
    let mut told: BTreeMap<(&str, &str), Vec<u64>> = BTreeMap::new();
    for event in &events {
        let what = match &event.kind {
            EventKind::ActionStarted { action, .. } => (action.as_str(), "began"),
            EventKind::ActionDone { action, .. } => (action.as_str(), "done"),
            EventKind::ActionFailed { action, .. } => (action.as_str(), "failed"),
            EventKind::ActionSkipped { action, .. } => (action.as_str(), "skipped"),
            EventKind::RunChanged { state, .. } => ("", state.as_str()),
            _ => continue,
        };
        told.entry(what).or_default().push(event.seq);
    }
    let mut wanted = BTreeSet::from([("", "going"), ("", run.state.name())]);
    for action in &plan.actions {
        let id = action.id.0.as_str();
        match run.actions[&action.id] {
            Stand::Done { .. } => wanted.extend([(id, "began"), (id, "done")]),
            Stand::Failed { .. } => wanted.extend([(id, "began"), (id, "failed")]),
            _ => wanted.extend([(id, "skipped")]),
        }
    }
    let seen: BTreeSet<_> = told.keys().copied().collect();
    assert_eq!(seen, wanted, "{commits}");
    assert!(told.values().all(|places| places.len() == 1), "{commits}: {told:?}");
    let ends = told
        .iter()
        .filter(|((_, what), _)| *what == "done" || *what == "failed");
    for ((action, _), end) in ends.filter(|((action, _), _)| !action.is_empty()) {
        assert!(told[&(*action, "began")] < *end, "{commits}: {told:?}");
    }
}

/// Walks a run with the power cut after its first commit, after its second, and so on, and goes on with what is on the disk; gives
/// how many commits there were in all.
async fn cut_off(fails: Option<&'static str>, node_ends: &str, run_ends: RunState) -> u64 {
    let mut commits = 0;
    loop {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        *sim.fail.lock().unwrap() = fails;
        let (life, node) = Life::first(folder.path(), &sim).await;
        let plan = life.install(node);
        life.store.flush().unwrap();
        life.store.cut_power_after(commits);
        let committed = life.executor.commit(&plan.id, &["node-001".into()], "test");
        let over = || {
            let whole = life.state(node) == node_ends && life.store.flush().is_ok();
            (whole || life.store.trouble().is_some()).then_some(whole)
        };
        let was_whole = committed.is_ok() && until("all is done, or the power is gone", over).await;
        life.kill().await;
        let life = Life::start(folder.path(), &sim).await;
        let Ok(run) = committed else {
            assert!(life.executor.runs().is_empty(), "{commits}");
            commits += 1;
            continue;
        };
        until_node(&life.rack, "its run has ended", |node| node.state.name() == node_ends).await;
        assert_eq!(life.run_ended(run).await.state, run_ends, "{commits}");
        life.store.flush().unwrap();
        tells_all(&life, &plan, run, commits);
        if was_whole {
            return commits;
        }
        commits += 1;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_between_any_two_commits_a_run_ends_well_and_its_timeline_lacks_nothing() {
    let commits = cut_off(None, "ready", RunState::Done).await;
    assert!(commits > 8, "{commits} commits are too few for a run");
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_off_between_any_two_commits_a_run_that_fails_says_so_on_its_machine() {
    let commits = cut_off(Some("os.write"), "failed", RunState::Failed).await;
    assert!(commits > 3, "{commits} commits are too few for a run");
}

/// Hands off, with the power cut after so many commits: either all of it was written or nothing.
#[tokio::test(flavor = "multi_thread")]
async fn cut_off_while_hands_are_taken_off_a_machine_is_worked_on_or_left_alone_and_not_both() {
    let mut seen = BTreeSet::new();
    for commits in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (life, node) = Life::first(folder.path(), &sim).await;
        *sim.hang.lock().unwrap() = Some("os.write");
        let run = life.commit(node);
        sim.stopped.notified().await;
        life.store.flush().unwrap();
        life.store.cut_power_after(commits);
        let ordered = life.executor.maintenance(node, true, "a new disk", "anna");
        assert_eq!(ordered.is_err(), commits == 0, "{ordered:?}");
        let _ = life.store.flush();
        life.kill().await;
        *sim.hang.lock().unwrap() = None;
        let life = Life::start(folder.path(), &sim).await;
        let ended = life.run_ended(run).await;
        let left = ended.excluded.contains_key(&node);
        let wanted = if left { "maintenance" } else { "ready" };
        until_node(&life.rack, wanted, |node| node.state.name() == wanted).await;
        assert_eq!(ended.state == RunState::Done, !left, "{commits}: {ended:?}");
        assert_eq!(left, commits > 0);
        seen.insert(wanted);
        // What is written is shown, also when nothing of a run says so.
        life.executor.maintenance(node, false, "", "anna").unwrap();
        life.store.flush().unwrap();
        life.store.cut_power_after(1);
        life.executor.maintenance(node, true, "again", "anna").unwrap();
        let _ = life.store.flush();
        life.kill().await;
        let life = Life::start(folder.path(), &sim).await;
        assert_eq!(life.state(node), "maintenance");
        life.store.cut_power_after(1);
        life.executor.maintenance(node, false, "", "anna").unwrap();
        let _ = life.store.flush();
        life.kill().await;
        let life = Life::start(folder.path(), &sim).await;
        assert_ne!(life.state(node), "maintenance");
    }
    assert_eq!(seen.len(), 2, "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_machine_is_installed_anew_only_when_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    life.make_ready(node).await;
    let install = |reinstall| PlanRequest {
        nodes: Some(vec![node]),
        reinstall,
        install: Some(Install {
            os: "debian-12".into(),
            ssh_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGv0 me".into()],
            ..Install::default()
        }),
        ..PlanRequest::default()
    };
    let same = life.executor.plan(&install(false)).unwrap();
    assert!(same.destructive().is_empty() && same.refused.is_empty(), "{same:?}");
    let anew = life.executor.plan(&install(true)).unwrap();
    assert_eq!(anew.destructive().len(), 1, "{anew:?}");
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_is_installed_by_name_is_not_checked_as_what_its_role_wants() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    let site = "version = 1\n[role.look]\nmemory = \"agent\"\nbios = { ProcVirtualization = \"Enabled\" }\n\
                [[rule]]\nname = \"all\"\nwhen = \"true\"\nrole = \"look\"\n";
    life.executor.set_site(site, "anna").unwrap();
    until_node(&life.rack, "bound", |node| node.role.is_some()).await;
    life.make_ready(node).await;
    let of = |sim: &Sim| {
        sim.told
            .lock()
            .unwrap()
            .iter()
            .rfind(|one| one.0 == "verify")
            .unwrap()
            .1
            .clone()
    };
    let told = of(&sim);
    assert!(!told.in_memory && told.bios.is_empty(), "{told:?}");
    // Also when its checks are run later: it boots its disk.
    let run = life.executor.verify(Some(vec![node]), "anna").unwrap();
    life.run_ended(run).await;
    assert!(!of(&sim).in_memory);
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_whose_inputs_changed_is_refused_and_says_which() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    let plan = life.install(node);
    life.images.remove("debian-12", &Default::default()).unwrap();
    let refused = life
        .executor
        .commit(&plan.id, &["node-001".into()], "test")
        .unwrap_err();
    let CommitError::Stale(changes) = &refused else {
        panic!("{refused}")
    };
    assert!(changes.iter().any(|change| change.contains("debian-12")), "{changes:?}");
    assert!(life.executor.runs().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retired_image_is_in_no_new_plan_and_runs_that_were_committed_with_it_end() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    *sim.hang.lock().unwrap() = Some("os.write");
    *sim.deaf.lock().unwrap() = true;
    let first = life.commit(node);
    sim.stopped.notified().await;
    // Waits until the first has let go, and is planned anew then.
    let second = life.commit(node);
    let uncommitted = life.install(node);
    life.images.retire("debian-12", None).unwrap();

    let request = PlanRequest {
        nodes: Some(vec![node]),
        install: Some(Install {
            os: "debian-12".into(),
            ..Install::default()
        }),
        ..PlanRequest::default()
    };
    let plan = life.executor.plan(&request).unwrap();
    assert!(plan.actions.is_empty(), "{:?}", plan.actions);
    assert!(
        plan.refused[0].reason.contains("debian-12, which is retired"),
        "{:?}",
        plan.refused
    );
    let stale = life
        .executor
        .commit(&uncommitted.id, &["node-001".into()], "test")
        .unwrap_err();
    assert!(
        matches!(&stale, CommitError::Stale(changes) if changes.iter().any(|change| change.contains("was retired"))),
        "{stale}"
    );

    *sim.hang.lock().unwrap() = None;
    sim.wake.notify_waiters();
    for (run, state) in [(first, RunState::Superseded), (second, RunState::Done)] {
        let ended = until("the run has ended", || {
            life.executor.run(run).filter(|run| run.ended.is_some())
        });
        assert_eq!(ended.await.state, state);
    }
    life.images.reinstate("debian-12").unwrap();
    let again = PlanRequest {
        reinstall: true,
        ..request
    };
    assert!(life.executor.plan(&again).unwrap().refused.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_is_recovered_in_the_middle_of_a_run_and_can_be_committed_again() {
    for kind in ["disk.erase", "os.write", "restart", "verify"] {
        let folder = tempfile::tempdir().unwrap();
        let sim = Arc::new(Sim::default());
        let (life, node) = Life::first(folder.path(), &sim).await;
        *sim.hang.lock().unwrap() = Some(kind);
        let run = life.commit(node);
        tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
            .await
            .expect(kind);
        let recovered = life.executor.recover(node, "anna").unwrap();
        assert_eq!(recovered.state, "discovered");
        let ended = until("the run has ended", || {
            life.executor.run(run).filter(|run| run.ended.is_some())
        })
        .await;
        assert_eq!(ended.state, RunState::Failed);
        assert_eq!(life.state(node), "discovered", "after {kind}");
        *sim.hang.lock().unwrap() = None;
        life.commit(node);
        until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn maintenance_takes_a_node_out_of_its_run_and_a_run_can_be_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder.path(), &sim).await;
    *sim.hang.lock().unwrap() = Some("os.write");
    let run = life.commit(node);
    tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
        .await
        .expect("it writes");
    life.executor.maintenance(node, true, "a fan", "anna").unwrap();
    until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await;
    assert_eq!(life.state(node), "maintenance");
    until_node(&life.rack, "why hands are off", |node| {
        node.verdict == "in maintenance: hands off, by anna: a fan"
    })
    .await;
    life.executor.maintenance(node, false, "", "anna").unwrap();
    assert_eq!(life.state(node), "discovered");
    let run = life.commit(node);
    tokio::time::timeout(common::PATIENCE, sim.stopped.notified())
        .await
        .expect("it writes");
    life.executor.order(run, RunOrder::Cancel, "anna").unwrap();
    let ended = until("the run has ended", || {
        life.executor.run(run).filter(|run| run.ended.is_some())
    })
    .await;
    assert_eq!(ended.state, RunState::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_machine_that_changes_shows_its_drift_until_it_is_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (mut life, node) = Life::first(folder.path(), &sim).await;
    life.commit(node);
    until_node(&life.rack, "ready", |node| node.state.name() == "ready").await;
    let mut changed = hardware(1, 20);
    changed.disks[0].serial = Some("DISK9".into());
    let agent = &mut life.machine.as_mut().unwrap().1;
    agent.facts(changed).await;
    let shown = until_node(&life.rack, "drift", |node| !node.drift.is_empty()).await;
    assert!(
        shown
            .drift
            .iter()
            .any(|what| what.contains("DISK1") && what.contains("is gone")),
        "{:?}",
        shown.drift
    );
    assert!(
        shown
            .drift
            .iter()
            .any(|what| what.contains("DISK9") && what.contains("is new")),
        "{:?}",
        shown.drift
    );
    assert_eq!(
        shown.state.name(),
        "ready",
        "drift is shown, and nothing is done about it"
    );
    agent.facts(hardware(1, 20)).await;
    until_node(&life.rack, "without drift", |node| node.drift.is_empty()).await;
    life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consent_by_name_never_reaches_another_machine_that_took_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let sim = Arc::new(Sim::default());
    let (life, first) = Life::first(folder.path(), &sim).await;
    let plan = life.install(first);
    let (server, _, site) = life.machine.as_ref().unwrap();
    let (agent, welcome) = boot(site, server, &[mac(2)], hardware(2, 40)).await;
    life.rack.rename(first, "broken").unwrap();
    life.rack.rename(welcome.node, "node-001").unwrap();
    let refused = life
        .executor
        .commit(&plan.id, &["node-001".into()], "anna")
        .unwrap_err();
    assert!(matches!(refused, CommitError::Stale(_)), "{refused}");
    assert!(life.executor.runs().is_empty());
    let run = life.commit(welcome.node);
    until("the run has ended", || {
        life.executor.run(run).filter(|run| run.state == RunState::Done)
    })
    .await;
    assert_eq!(life.state(welcome.node), "ready");
    assert_eq!(
        life.state(first),
        "discovered",
        "the one that had the name is left alone"
    );
    drop(agent);
    life.kill().await;
}
