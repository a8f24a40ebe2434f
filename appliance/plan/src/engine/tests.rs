//! Stories of one feature each; whole runs with faults are in `simulation`.

use std::collections::BTreeMap;
use std::sync::Arc;

use rackbar_model::{BurnIn, Digest, NodeId, Timestamp};

use super::{BadPlan, Bounds, Engine, Failure, Input, Output};
use crate::site::RunLimits;
use crate::{
    Action, ActionId, ActionKind, Inputs, Layer, Limits, Outcome, OwnService, Plan, PlanId, Run, RunId, RunState,
    ServiceSpec, Stand, StepSpec, Target,
};

/// A service that others may need; no node's.
pub(super) fn service(id: &str) -> Action {
    let spec = ServiceSpec {
        service: OwnService::Dns,
        own: None,
        at: vec!["10.0.0.2".into()],
        networks: vec!["lan".into()],
        unasked: false,
    };
    Action {
        node: None,
        target: Target::Service(id.into()),
        layer: Layer::Clients,
        kind: ActionKind::Service(spec),
        ..action(id, 0, "agent", &[])
    }
}

/// An action of a kind by its name, on the node with this number.
pub(super) fn action(id: &str, node: u8, kind: &str, needs: &[&str]) -> Action {
    let kind = match kind {
        "agent" => ActionKind::Agent { fresh: false },
        "barrier" => ActionKind::Barrier { name: "all".into() },
        "verify" => ActionKind::Verify { checks: Vec::new() },
        "os.write" => ActionKind::WriteImage {
            target: rackbar_model::RootTarget::Disk(rackbar_model::DiskRef::default()),
            image: "debian".into(),
            sha256: Digest([0; 32]),
            format: rackbar_model::ImageFormat::Raw,
            bytes: 1,
        },
        "step" => ActionKind::Step(StepSpec {
            name: "mine".into(),
            script: "#!/bin/sh".into(),
            program: None,
            user: "root".into(),
            expect_status: 0,
            expect_output: None,
        }),
        _ => ActionKind::BurnIn(BurnIn::default()),
    };
    let node = NodeId([node; 16]);
    Action {
        id: ActionId(id.into()),
        node: Some(node),
        target: Target::Node(node),
        layer: Layer::System,
        kind,
        changes: Vec::new(),
        needs: needs.iter().map(|need| ActionId((*need).into())).collect(),
        destroys: None,
        reboots: false,
        estimate_seconds: 1,
        reason: "a test".into(),
        limits: Limits { seconds: 60, tries: 3 },
    }
}

pub(super) fn plan(actions: Vec<Action>) -> Plan {
    Plan {
        id: PlanId("0123456789ab".into()),
        made: Timestamp(0),
        inputs: Inputs::of(Digest([0; 32])),
        actions,
        refused: Vec::new(),
        unchanged: Vec::new(),
        left_out: Vec::new(),
        scope: crate::Scope::default(),
        limits: RunLimits::default(),
    }
}

/// An engine and what it said last.
struct Told {
    engine: Engine,
    now: u64,
    jobs: u64,
    out: Vec<Output>,
}

impl Told {
    fn new(actions: Vec<Action>) -> Self {
        Self::bounded(actions, Bounds::default())
    }

    fn bounded(actions: Vec<Action>, bounds: Bounds) -> Self {
        let run = Run::new(RunId(1), Arc::new(plan(actions)), "test", Timestamp(0));
        let mut told = Self {
            engine: Engine::new(run, bounds).unwrap(),
            now: 0,
            jobs: 0,
            out: Vec::new(),
        };
        told.tell(Input::Tick);
        told
    }

    fn tell(&mut self, input: Input) {
        self.out.clear();
        let jobs = &mut self.jobs;
        let mut job = || {
            *jobs += 1;
            format!("{jobs:032x}")
        };
        self.engine.step(Timestamp(self.now), input, &mut job, &mut self.out);
    }

    /// Tells that the running attempt of `id` ended.
    fn ends(&mut self, id: &str, result: Result<Outcome, Failure>) {
        let Stand::Running(attempt) = self.stand(id).clone() else {
            panic!("{id} is {:?}", self.stand(id));
        };
        let action = ActionId(id.into());
        self.tell(Input::Ended {
            action,
            job: attempt.job,
            result,
        });
    }

    fn well(&mut self, id: &str) {
        self.ends(id, Ok(Outcome::default()));
    }

    fn badly(&mut self, id: &str, again: bool) {
        let (reason, advice) = ("it broke".into(), "mend it".into());
        self.ends(id, Err(Failure { reason, advice, again }));
    }

    fn stand(&self, id: &str) -> &Stand {
        &self.engine.run().actions[&ActionId(id.into())]
    }

    fn started(&self) -> Vec<&str> {
        let names = self.out.iter().filter_map(|one| match one {
            Output::Start(id, _) => Some(id.0.as_str()),
            _ => None,
        });
        names.collect()
    }
}

#[test]
fn actions_begin_when_what_they_need_is_done_and_the_run_is_done_after_the_last() {
    let mut told = Told::new(vec![
        action("a/agent", 1, "agent", &[]),
        action("a/write", 1, "os.write", &["a/agent"]),
        action("b/agent", 2, "agent", &[]),
    ]);
    assert_eq!(told.started(), ["a/agent", "b/agent"]);
    told.well("b/agent");
    assert!(told.started().is_empty());
    told.well("a/agent");
    assert_eq!(told.started(), ["a/write"]);
    told.well("a/write");
    assert_eq!(told.out.last(), Some(&Output::RunEnded));
    assert_eq!(told.engine.run().state, RunState::Done);
}

#[test]
fn an_attempt_is_written_down_before_it_begins() {
    let told = Told::new(vec![action("a/agent", 1, "agent", &[])]);
    let [
        Output::Journal(id, Stand::Running(written)),
        Output::Start(started, attempt),
    ] = told.out.as_slice()
    else {
        panic!("{:?}", told.out);
    };
    assert_eq!((id, written), (started, attempt));
}

#[test]
fn one_target_does_one_thing_at_a_time_and_kinds_have_their_bounds() {
    let mut told = Told::bounded(
        vec![
            action("a/x", 1, "burn", &[]),
            action("a/y", 1, "burn", &[]),
            action("b/w", 2, "os.write", &[]),
            action("c/w", 3, "os.write", &[]),
        ],
        Bounds {
            kinds: BTreeMap::from([("os.write", 1)]),
            ..Bounds::default()
        },
    );
    assert_eq!(told.started(), ["a/x", "b/w"]);
    told.badly("b/w", false);
    assert_eq!(told.started(), ["c/w"]);
    told.well("a/x");
    assert_eq!(told.started(), ["a/y"]);
}

#[test]
fn the_limits_of_a_plan_go_before_the_usual_ones() {
    let writes = || -> Vec<Action> {
        let one = |node: u8| action(&format!("{node}/w"), node, "os.write", &[]);
        (1..=6).map(one).collect()
    };
    let begun = |limits: RunLimits| {
        let plan = Plan {
            limits,
            ..plan(writes())
        };
        let run = Run::new(RunId(1), Arc::new(plan), "test", Timestamp(0));
        let mut engine = Engine::new(run, Bounds::default()).unwrap();
        let (mut jobs, mut out) = (0, Vec::new());
        let mut job = || {
            jobs += 1;
            format!("{jobs:032x}")
        };
        engine.step(Timestamp(0), Input::Tick, &mut job, &mut out);
        let starts = out.iter().filter(|output| matches!(output, Output::Start(..)));
        starts.count()
    };
    assert_eq!(begun(RunLimits::default()), 6);
    let kinds = BTreeMap::from([("os.write".to_owned(), 2)]);
    assert_eq!(begun(RunLimits { at_once: None, kinds }), 2);
    assert_eq!(
        begun(RunLimits {
            at_once: Some(3),
            kinds: BTreeMap::new()
        }),
        3
    );
}

#[test]
fn failures_are_tried_again_after_a_growing_pause_and_only_as_often_as_allowed() {
    let mut told = Told::new(vec![action("a/x", 1, "burn", &[])]);
    for pause in [5_000, 10_000] {
        told.badly("a/x", true);
        assert_eq!(told.engine.deadline(), Some(Timestamp(told.now + pause)));
        told.now += pause - 1;
        told.tell(Input::Tick);
        assert!(told.started().is_empty());
        told.now += 1;
        told.tell(Input::Tick);
        assert_eq!(told.started(), ["a/x"]);
    }
    told.badly("a/x", true);
    let Stand::Failed {
        tries: 3,
        reason,
        advice,
        ..
    } = told.stand("a/x")
    else {
        panic!("{:?}", told.stand("a/x"));
    };
    assert_eq!((reason.as_str(), advice.as_str()), ("it broke", "mend it"));
    assert_eq!(told.engine.run().state, RunState::Failed);
}

#[test]
fn a_failure_takes_down_what_needs_it_and_nothing_else() {
    let mut told = Told::new(vec![
        action("a/x", 1, "burn", &[]),
        action("a/y", 1, "burn", &["a/x"]),
        action("b/x", 2, "burn", &[]),
        action("b/y", 2, "burn", &["b/x"]),
        action("all", 9, "barrier", &["a/y", "b/x"]),
    ]);
    told.badly("a/x", false);
    assert_eq!(
        *told.stand("a/y"),
        Stand::Skipped {
            reason: "a/x, which it needs, did not end well".into()
        }
    );
    assert!(matches!(told.stand("all"), Stand::Skipped { .. }));
    told.well("b/x");
    told.well("b/y");
    assert_eq!(told.engine.run().state, RunState::Failed);
}

#[test]
fn a_barrier_holds_until_all_are_there_and_takes_no_time() {
    let mut told = Told::new(vec![
        action("a/x", 1, "burn", &[]),
        action("b/x", 2, "burn", &[]),
        action("all", 9, "barrier", &["a/x", "b/x"]),
        action("a/y", 1, "burn", &["all"]),
    ]);
    told.well("a/x");
    assert!(told.started().is_empty());
    told.well("b/x");
    assert_eq!(told.started(), ["a/y"]);
}

#[test]
fn an_attempt_over_its_time_is_given_up_and_then_lost() {
    let mut told = Told::new(vec![action("a/x", 1, "burn", &[])]);
    told.now = 60_000;
    told.tell(Input::Tick);
    assert!(matches!(told.out.as_slice(), [Output::GiveUp(..)]), "{:?}", told.out);
    told.now += Bounds::default().grace;
    told.tell(Input::Tick);
    let Stand::Again { tries: 1, reason, .. } = told.stand("a/x") else {
        panic!("{:?}", told.stand("a/x"));
    };
    assert_eq!(reason, "not done within 60 s: nothing was heard of it");
}

#[test]
fn an_end_that_comes_too_late_is_passed_over() {
    let mut told = Told::new(vec![action("a/x", 1, "burn", &[])]);
    let Stand::Running(first) = told.stand("a/x").clone() else {
        panic!()
    };
    told.badly("a/x", true);
    told.now += 5_000;
    told.tell(Input::Tick);
    let action = ActionId("a/x".into());
    told.tell(Input::Ended {
        action,
        job: first.job,
        result: Ok(Outcome::default()),
    });
    assert!(matches!(told.stand("a/x"), Stand::Running(_)));
}

#[test]
fn a_paused_run_begins_nothing_and_lets_what_runs_end() {
    let mut told = Told::new(vec![action("a/x", 1, "burn", &[]), action("a/y", 1, "burn", &["a/x"])]);
    told.tell(Input::Pause);
    told.well("a/x");
    assert!(told.started().is_empty());
    assert_eq!(told.engine.deadline(), None);
    told.tell(Input::Resume);
    assert_eq!(told.started(), ["a/y"]);
}

#[test]
fn a_cancelled_run_gives_up_what_runs_and_ends_when_that_has_ended() {
    let mut told = Told::new(vec![action("a/x", 1, "burn", &[]), action("a/y", 1, "burn", &["a/x"])]);
    told.tell(Input::Cancel { by: "anna".into() });
    assert!(matches!(told.out.last(), Some(Output::Journal(..))), "{:?}", told.out);
    assert!(told.out.iter().any(|one| matches!(one, Output::GiveUp(..))));
    assert_eq!(
        *told.stand("a/y"),
        Stand::Skipped {
            reason: "the run was cancelled by anna".into()
        }
    );
    assert_eq!(told.engine.run().state, RunState::Going);
    told.badly("a/x", true);
    assert!(matches!(told.stand("a/x"), Stand::Skipped { .. }));
    assert_eq!(told.engine.run().state, RunState::Cancelled);
}

#[test]
fn a_node_that_is_taken_out_leaves_the_others_at_work() {
    let mut told = Told::new(vec![action("a/x", 1, "burn", &[]), action("b/x", 2, "burn", &[])]);
    let node = NodeId([1; 16]);
    told.tell(Input::Exclude {
        node,
        reason: "recovered by anna".into(),
    });
    told.badly("a/x", false);
    assert!(matches!(told.stand("a/x"), Stand::Skipped { .. }));
    told.well("b/x");
    assert_eq!(told.engine.run().state, RunState::Failed);
}

#[test]
fn a_plan_that_is_no_graph_is_refused() {
    let make = |actions| {
        let run = Run::new(RunId(1), Arc::new(plan(actions)), "test", Timestamp(0));
        Engine::new(run, Bounds::default()).map(drop)
    };
    let missing = make(vec![action("a", 1, "burn", &["b"]), action("b", 1, "burn", &[])]);
    assert!(matches!(missing, Err(BadPlan::NotBefore { .. })), "{missing:?}");
    let twice = make(vec![action("a", 1, "burn", &[]), action("a", 1, "burn", &[])]);
    assert_eq!(twice, Err(BadPlan::Twice(ActionId("a".into()))));
}

#[test]
fn a_service_that_nobody_needs_any_more_is_given_up_and_one_that_fails_is_named_by_all_who_need_it() {
    let two = || {
        vec![
            service("lan/dns"),
            action("n1/verify", 1, "verify", &["lan/dns"]),
            action("n2/verify", 2, "verify", &["lan/dns"]),
        ]
    };
    let take_out = |number: u8| Input::Exclude {
        node: NodeId([number; 16]),
        reason: "recovered".into(),
    };
    let gives_up = |told: &Told| {
        told.out
            .iter()
            .any(|one| matches!(one, Output::GiveUp(id, _) if id.0 == "lan/dns"))
    };
    let mut told = Told::new(two());
    assert_eq!(told.started(), ["lan/dns"]);
    told.tell(take_out(1));
    assert!(!gives_up(&told), "the other machine still needs it");
    told.tell(take_out(2));
    assert!(gives_up(&told));
    told.badly("lan/dns", true);
    let stand = told.stand("lan/dns");
    assert!(
        matches!(stand, Stand::Skipped { reason } if reason.contains("nothing that needs it")),
        "{stand:?}"
    );
    assert!(told.engine.run().ended.is_some());

    let mut told = Told::new(two());
    told.badly("lan/dns", false);
    for name in ["n1/verify", "n2/verify"] {
        let Stand::Skipped { reason } = told.stand(name) else {
            panic!("{:?}", told.stand(name))
        };
        assert_eq!(reason, "lan/dns, which it needs, did not end well: it broke");
    }
    assert_eq!(told.engine.run().state, RunState::Failed);

    // One that nothing in the plan needs was asked for itself.
    let mut told = Told::new(vec![service("lan/dns")]);
    told.well("lan/dns");
    assert_eq!(told.engine.run().state, RunState::Done);
}

#[test]
fn a_clock_that_is_set_ends_no_attempt_and_lengthens_no_pause() {
    for by in [30_i64 * 365 * 86_400_000, -5_000_000] {
        let mut told = Told::new(vec![
            action("a/agent", 1, "agent", &[]),
            action("b/agent", 2, "agent", &[]),
        ]);
        told.now = 10_000_000;
        told.engine.shift(10_000_000);
        let again = Failure {
            again: true,
            ..Failure::default()
        };
        told.ends("b/agent", Err(again));
        let left = told.engine.deadline().unwrap().0 - told.now;
        told.engine.shift(by);
        told.now = told.now.saturating_add_signed(by);
        told.tell(Input::Tick);
        assert!(told.out.is_empty(), "{:?}", told.out);
        assert_eq!(
            told.engine.deadline().unwrap().0 - told.now,
            left,
            "the pause is as long as it was"
        );
        assert!(matches!(told.stand("a/agent"), Stand::Running(_)));
    }
}
