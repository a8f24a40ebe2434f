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
use rackbar_orchestrator::hands::{Appliance, Done, Hands as _, Learned, Reach, Task};
use rackbar_plan::{ActionKind, StepProgram, StepSpec};
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
        let hands = hands.with_programs(Some(life.programs.clone()));
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

    /// The checks of the machine, asked for at this port.
    async fn verify(&self, port: u16) -> (Done, rackbar_verify::NodeReport) {
        let reach = Reach {
            ssh_port: port,
            ..Reach::default()
        };
        let store = self.life.rack.store().clone();
        let hands = Appliance::new(self.life.rack.clone(), store, None, reach).unwrap();
        let (mut task, _give_up) = task(
            &self.node,
            ActionKind::Verify {
                checks: vec!["os.reachable".into()],
            },
        );
        task.system.installed = self.task(step("")).0.system.installed;
        let done = hands.carry_out(task).await;
        let report = done.learned.iter().find_map(|learned| match learned {
            Learned::Checked(report) => Some((**report).clone()),
            _ => None,
        });
        let report = report.expect("what the checks came to is told, also when nobody answers");
        (done, report)
    }

    /// One attempt whose end is written down.
    async fn run(&self, step: StepSpec) -> Done {
        let (task, _give_up) = self.task(step);
        let job = task.job;
        let done = self.hands.carry_out(task).await;
        self.hands.noted(self.node.id, job);
        self.life.rack.store().flush().unwrap();
        done
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
async fn a_machine_that_does_not_answer_fails_its_checks_whatever_they_came_to_before() {
    let folder = tempfile::tempdir().unwrap();
    let ready = Ready::new(folder.path()).await;
    let (done, report) = ready.verify(ready.sshd.addr.port()).await;
    assert!(done.result.is_ok() && report.passed(), "{report:?}");
    // A port that nobody listens on: it was taken, and let go of again.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let (done, report) = ready.verify(port).await;
    let (reason, again) = failure(done);
    assert!(again && !report.passed(), "{reason}");
    let failed: Vec<_> = report.checks.iter().map(|one| (one.id.as_str(), one.status)).collect();
    assert_eq!(failed, [("os.reachable", rackbar_model::CheckStatus::Failed)]);
    assert_eq!(report.checks[0].observed, reason);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_an_earlier_life_of_the_appliance_began_is_not_begun_again_under_its_number() {
    let folder = tempfile::tempdir().unwrap();
    let ready = Ready::new(folder.path()).await;
    let ran = folder.path().join("ran");
    let script = format!("#!/bin/sh\necho once >> {}\nsleep 1000\n", ran.display());
    let (task, _give_up) = ready.task(step(&script));
    let job = task.job;
    let begun = until("it has begun", || ran.exists().then_some(()));
    // The appliance ends in the middle of it: its hands let go.
    tokio::select! {
        done = ready.hands.carry_out(task) => panic!("{done:?}"),
        () = begun => {}
    }
    let reach = Reach {
        ssh_port: ready.sshd.addr.port(),
        step_ends: std::time::Duration::ZERO,
        ..Reach::default()
    };
    let store = ready.life.rack.store().clone();
    let hands = Appliance::new(ready.life.rack.clone(), store.clone(), None, reach).unwrap();
    let (task, _give_up) = ready.task(step(&script));
    let (reason, again) = failure(hands.carry_out(task).await);
    assert!(again, "the step's tries decide");
    assert!(reason.contains("restarted while the step ran"), "{reason}");
    assert_eq!(std::fs::read_to_string(&ran).unwrap(), "once\n");
    // When that end is written down, the number is free: each attempt has its own.
    hands.noted(ready.node.id, job);
    store.flush().unwrap();
    let outcome = ready.run(step("#!/bin/sh\ntrue\n")).await.result.unwrap();
    assert_eq!(outcome.summary, "the step own ended with status 0");
    ready.life.kill().await;
}

/// The static program of the tests of SSH in the store, as a step with these arguments that is to end with 9.
fn carried(ready: &Ready, folder: &Path, arguments: &[&str]) -> StepSpec {
    let mut upload = ready.life.programs.begin("own").unwrap();
    upload.write(&sshd::program(folder)).unwrap();
    let entry = upload.finish(None).unwrap().entry;
    StepSpec {
        script: String::new(),
        program: Some(StepProgram {
            name: entry.name.clone(),
            sha256: entry.sha256,
            bytes: entry.bytes,
            arguments: arguments.iter().map(|one| (*one).to_owned()).collect(),
        }),
        expect_status: 9,
        ..step("")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_s_program_is_carried_run_with_its_arguments_and_judged_like_a_script() {
    let folder = tempfile::tempdir().unwrap();
    let ready = Ready::new(folder.path()).await;
    let wanted = StepSpec {
        expect_output: Some("|two words|$HOME '|".into()),
        ..carried(&ready, folder.path(), &["two words", "$HOME '"])
    };
    let outcome = ready.run(wanted.clone()).await.result.unwrap();
    assert_eq!(outcome.summary, "the step own ended with status 9");
    let [line] = outcome.details.as_slice() else {
        panic!("{:?}", outcome.details)
    };
    // It prints where it lay: taken away again, with its folder.
    let place = Path::new(line.split('|').next().unwrap());
    assert!(place.is_absolute() && !place.parent().unwrap().exists(), "{line}");

    let other = StepSpec {
        expect_status: 0,
        ..wanted.clone()
    };
    let (reason, again) = failure(ready.run(other).await);
    assert!(
        again && reason.contains("ended with status 9, wanted status 0"),
        "{reason}"
    );

    // What is not in the store as the plan pinned it is not run, and no further try can help.
    let entry = ready.life.programs.get("own").unwrap();
    ready.life.programs.remove("own", &Default::default()).unwrap();
    let still = ready.run(wanted.clone()).await.result;
    assert!(still.is_ok(), "its content is there until nobody needs it: {still:?}");
    ready.life.programs.sweep(&Default::default());
    let (reason, again) = failure(ready.run(wanted).await);
    assert!(!again && reason.contains(&entry.sha256.to_string()), "{reason}");
    ready.life.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_s_program_that_takes_too_long_is_ended_on_the_machine() {
    let folder = tempfile::tempdir().unwrap();
    let ready = Ready::new(folder.path()).await;
    // Told to wait it waits for ever; nothing else has this mark among its arguments.
    let mark = format!("wait-{}", folder.path().display());
    let runs = || {
        let processes = std::fs::read_dir("/proc").unwrap().flatten();
        let mut lines = processes.filter_map(|one| std::fs::read(one.path().join("cmdline")).ok());
        let ends = |line: &Vec<u8>| {
            line.strip_suffix(b"\0")
                .is_some_and(|line| line.ends_with(mark.as_bytes()))
        };
        lines.any(|line| ends(&line))
    };
    let (task, give_up) = ready.task(carried(&ready, folder.path(), &[&mark]));
    let (done, ()) = tokio::join!(ready.hands.carry_out(task), async {
        until("it has begun", || runs().then_some(())).await;
        give_up.send(true).unwrap();
    });
    let (reason, again) = failure(done);
    assert!(again && reason.contains("it was ended"), "{reason}");
    assert!(!runs(), "it runs on beside the next try");
    ready.life.kill().await;
}
