//! A user's own step, run by the appliance's hands on a real SSH server: what it came to is judged by what the site file
//! wants of it.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;
#[path = "../../ssh/tests/sshd/mod.rs"]
mod sshd;

use std::path::Path;
use std::sync::Arc;

use common::bmcs::task;
use common::life::{Life, Sim};
use common::{until, until_node};
use rackbar_model::{Digest, DiskRef, Installed, Node, RootTarget, Timestamp};
use rackbar_orchestrator::hands::{Appliance, Done, Hands as _, Reach, Task};
use rackbar_plan::{ActionKind, StepSpec};
use rackbar_store::Table;
use sshd::Sshd;
use tokio::sync::watch;

/// A machine with a system that lets us in, and hands that reach it.
struct Ready {
    life: Life,
    node: Arc<Node>,
    hands: Appliance,
    sshd: Sshd,
}

impl Ready {
    async fn new(folder: &Path) -> Self {
        let (life, node) = Life::first(folder, &Arc::new(Sim::default())).await;
        let node = until_node(&life.rack, "its address", |one| one.id == node && one.address.is_some()).await;
        let sshd = Sshd::start();
        let store = life.rack.store().clone();
        let key = sshd.key.to_openssh().unwrap().0;
        store.put(Table::Secrets, b"ssh-client", key.as_bytes()).unwrap();
        let reach = Reach {
            ssh_port: sshd.addr.port(),
            ..Reach::default()
        };
        let hands = Appliance::new(life.rack.clone(), store, None, reach).unwrap();
        Self {
            life,
            node,
            hands,
            sshd,
        }
    }

    fn task(&self, step: StepSpec) -> (Task, watch::Sender<bool>) {
        let (mut task, give_up) = task(&self.node, ActionKind::Step(step));
        task.system.installed = Some(Installed {
            image: "debian-12".into(),
            sha256: Digest([0; 32]),
            target: RootTarget::Disk(DiskRef::default()),
            hostname: "node-001".into(),
            user: self.sshd.user.clone(),
            host_key: self.sshd.host.public.clone(),
            proved: true,
            at: Timestamp(1),
            run: 1,
        });
        (task, give_up)
    }

    async fn run(&self, step: StepSpec) -> Done {
        let (task, _give_up) = self.task(step);
        self.hands.carry_out(task).await
    }
}

fn step(script: &str) -> StepSpec {
    StepSpec {
        name: "own".into(),
        script: script.into(),
        program: None,
        user: String::new(),
        expect_status: 0,
        expect_output: None,
    }
}

/// Why it failed; whether another try may help is the second.
fn failure(done: Done) -> (String, bool) {
    let failure = done.result.unwrap_err();
    assert!(!failure.advice.is_empty());
    (failure.reason, failure.again)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_of_the_users_is_judged_by_the_status_and_the_output_that_it_was_to_have() {
    let folder = tempfile::tempdir().unwrap();
    let ready = Ready::new(folder.path()).await;
    let three = "#!/bin/sh\necho first\necho 'now there are 2 $HOME'\nexit 3\n";
    let wanted = StepSpec {
        expect_status: 3,
        expect_output: Some("2 $HOME".into()),
        ..step(three)
    };
    let outcome = ready.run(wanted.clone()).await.result.unwrap();
    assert_eq!(outcome.summary, "the step own ended with status 3");
    assert_eq!(outcome.details, ["first", "now there are 2 $HOME"]);

    let (reason, again) = failure(ready.run(step(three)).await);
    assert!(again, "the step's tries decide");
    assert!(
        reason.contains("status 3, wanted status 0; it printed last: now there are 2"),
        "{reason}"
    );
    let other = StepSpec {
        expect_output: Some("5 machines".into()),
        ..wanted
    };
    let (reason, _) = failure(ready.run(other).await);
    assert!(reason.contains("has no \"5 machines\""), "{reason}");
    // What is no script fails before anything ran, and no further try of it can help.
    let (reason, again) = failure(ready.run(step("touch /tmp/x")).await);
    assert!(!again && reason.contains("#!"), "{reason}");
    ready.life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_takes_too_long_is_ended_on_the_machine_before_it_is_tried_again() {
    let folder = tempfile::tempdir().unwrap();
    let ready = Ready::new(folder.path()).await;
    let (begun, ended) = (folder.path().join("begun"), folder.path().join("ended"));
    let script = format!(
        "#!/bin/sh\ntrap 'kill $!; touch {}; exit 1' TERM\ntail -f /dev/null & touch {}\nwait\n",
        ended.display(),
        begun.display()
    );
    let (task, give_up) = ready.task(step(&script));
    let (done, ()) = tokio::join!(ready.hands.carry_out(task), async {
        until("it has begun", || begun.exists().then_some(())).await;
        give_up.send(true).unwrap();
    });
    let (reason, again) = failure(done);
    assert!(again && reason.contains("it was ended"), "{reason}");
    assert!(ended.exists(), "nothing of it runs on beside the next try");
    ready.life.kill().await;
}
