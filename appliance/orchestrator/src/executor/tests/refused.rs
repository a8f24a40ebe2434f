//! A disk that does not take what is to be written, and power that goes between two commits.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_whose_forgetting_is_cut_off_is_there_to_be_forgotten_and_enrols_no_more() {
    let bench = Bench::new(Bounds::default());
    let node = bench.adopt(None, 1).unwrap();
    let book = Enrolments::new(bench.store.clone());
    let secret = || book.for_run(Enrol::Puppet, node, "a.example", RunId(1), now()).unwrap();
    let told = || {
        bench.store.flush().unwrap();
        let timeline = bench.rack.timeline(node).unwrap();
        let words =
            |kind: &EventKind| matches!(kind, EventKind::Note { text, .. } if text.contains("forgotten by anna"));
        timeline.iter().filter(|event| words(&event.kind)).count()
    };
    for commits in 0..2 {
        secret();
        bench.store.flush().unwrap();
        bench.store.cut_power_after(commits);
        bench.executor.forget(node, "anna").unwrap_err();
        bench.store.cut_power_after(u64::MAX);
        assert_eq!(book.list().unwrap().is_empty(), commits == 1);
        assert!(bench.on_disk(node).adopted.is_some() && bench.rack.node_by_id(node).is_some());
        assert_eq!(told(), 0, "{commits}");
    }
    bench.executor.forget(node, "anna").unwrap();
    assert!(bench.rack.node_by_id(node).is_none() && bench.on_disk(node).adopted.is_none());
    assert_eq!(told(), 1);
    assert!(!bench.has_key());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_a_power_cut_kept_from_removal_goes_at_the_next_start_and_no_other() {
    let mut bench = Bench::new(Bounds::default());
    let node = bench.adopt(None, 1).unwrap();
    for print in ["SHA256:gone", "SHA256:never"] {
        bench.store.put(Table::Secrets, &key_place(print), b"secret").unwrap();
    }
    bench.store.put(Table::Secrets, b"bmc/other", b"secret").unwrap();
    let kept = |bench: &Bench| -> Vec<String> {
        bench.store.flush().unwrap();
        let all = bench.store.list(Table::Secrets).unwrap();
        let names = all.into_iter().map(|(place, _)| String::from_utf8(place).unwrap());
        names
            .filter(|name| name.starts_with("adopted-key/") || name == "bmc/other")
            .collect()
    };
    let own = format!("adopted-key/{PRINT}");
    // While a record cannot be read, nobody knows what it needs.
    let unreadable = b"node/00000009-0000-0000-0000-000000000000";
    bench.store.put(Table::Work, unreadable, b"of a newer program").unwrap();
    bench.again();
    assert_eq!(kept(&bench).len(), 4);
    bench.store.put_all(Table::Work, &[(unreadable, None)]).unwrap();
    bench.again();
    assert_eq!(kept(&bench), [own, "bmc/other".to_owned()]);
    assert!(bench.on_disk(node).adopted.is_some());
    // The record of what ended the need was written, and the removal was not.
    memory::write(&bench.store, &[memory::no_node_entry(node)]).unwrap();
    bench.again();
    assert_eq!(kept(&bench), ["bmc/other"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_the_disk_does_not_take_is_said_to_wait_and_what_is_refused_changes_nothing() {
    let bench = Bench::new(Bounds::default());
    let (busy, other) = (bench.machine(1), bench.machine(2));
    let run = bench.begin(&[(busy, agent()), (busy, erase())]);
    bench.store.flush().unwrap();
    locked(&bench.executor.inner.book).work(other, |work| work.role = Some("old".into()));
    bench.executor.inner.turn(Vec::new(), now());
    let told = |wanted: &str| {
        bench.store.flush().unwrap();
        let events = bench.store.events(0, 1_000).unwrap();
        let words = |kind: &EventKind| matches!(kind, EventKind::RunChanged { state, .. } if state == wanted);
        events.iter().filter(|event| words(&event.kind)).count()
    };

    bench.store.cut_power_after(0);
    let waits = bench.executor.order(run, RunOrder::Pause, "anna").unwrap_err();
    assert!(matches!(waits, OrderError::Unwritten(_)), "{waits}");
    let waits = bench.executor.maintenance(busy, true, "", "anna").unwrap_err();
    assert!(matches!(waits, NodeError::Unwritten(_)), "{waits}");
    assert_eq!(bench.state(busy), "maintenance", "hands are off at once");
    let refused = bench.executor.bind(other, None, "anna").unwrap_err();
    assert!(matches!(refused, NodeError::Store(_)), "{refused}");
    assert_eq!(bench.work(other).role.as_deref(), Some("old"));

    bench.store.cut_power_after(u64::MAX);
    assert_eq!(told("paused"), 0);
    bench.executor.inner.turn(Vec::new(), now());
    assert_eq!(told("paused"), 1);
    assert!(bench.on_disk(busy).maintenance.is_some());
    assert_eq!(bench.on_disk(other).role.as_deref(), Some("old"));

    bench.store.cut_power_after(0);
    let refused = bench.executor.maintenance(busy, false, "", "anna").unwrap_err();
    assert!(matches!(refused, NodeError::Store(_)), "{refused}");
    assert!(bench.work(busy).maintenance.is_some() && bench.state(busy) == "maintenance");
    bench.store.cut_power_after(u64::MAX);
    bench.executor.maintenance(busy, false, "", "anna").unwrap();
    assert!(bench.work(busy).maintenance.is_none());
}
