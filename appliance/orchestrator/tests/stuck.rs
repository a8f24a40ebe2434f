//! The writing of an image that stands still: a disk that answers no more holds the agent's thread inside the kernel, where
//! nothing can end it, while the agent itself goes on talking.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use common::bmcs::task;
use common::life::{Life, Sim};
use common::{Agent, settings, until_node};
use rackbar_messages::{Ask, FromAgent, JobId, ToAgent, Work};
use rackbar_model::{DiskRef, ImageFormat, RootTarget};
use rackbar_orchestrator::Settings;
use rackbar_orchestrator::hands::{Appliance, Hands as _, Reach};
use rackbar_plan::ActionKind;

/// Far longer than a busy machine keeps this test from running, or a job that moves would be taken for stuck.
const STUCK: Duration = Duration::from_secs(6);

async fn says(agent: &mut Agent, job: JobId, done: u64, doing: &str) {
    let total = 100;
    let doing = doing.into();
    let progress = FromAgent::Progress {
        job,
        doing,
        done,
        total,
    };
    agent.say(&progress).await.unwrap();
}

/// Moves for longer than the limit, then stands still and says so over and over, until it is restarted. Gives when it
/// stopped.
async fn write_and_stop(mut agent: Agent) -> Instant {
    let job = loop {
        if let ToAgent::Ask { id, ask } = agent.hear().await.unwrap() {
            agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
            if let Ask::Begin { job, work } = ask {
                assert!(matches!(*work, Work::Write { .. }));
                break job;
            }
        }
    };
    let began = Instant::now();
    let (mut done, mut stopped) = (0, began);
    while began.elapsed() < STUCK * 2 {
        (done, stopped) = (done + 1, Instant::now());
        says(&mut agent, job, done, "writing debian-12").await;
        tokio::time::sleep(STUCK / 10).await;
    }
    loop {
        let words = format!(
            "writing debian-12: has not moved for {} ms",
            stopped.elapsed().as_millis()
        );
        says(&mut agent, job, done, &words).await;
        let heard = tokio::time::timeout(STUCK / 10, agent.hear()).await;
        if let Ok(Ok(ToAgent::Ask { id, ask: Ask::Reboot })) = heard {
            agent.say(&FromAgent::Done { id, result: Ok(()) }).await.unwrap();
            return stopped;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writing_that_stands_still_ends_with_the_machines_restart_and_says_what_it_was_at() {
    let folder = tempfile::tempdir().unwrap();
    let (mut life, node) = Life::first(folder.path(), &Arc::new(Sim::default())).await;
    let mut reached: Settings = settings();
    reached.networks[0].address = Some([127, 0, 0, 1].into());
    reached.networks[0].prefix = 8;
    life.rack.configure(reached);
    let node = until_node(&life.rack, "its address", |one| one.id == node && one.address.is_some()).await;
    let image = life.images.get("debian-12").unwrap();
    let (server, agent, _site) = life.machine.take().unwrap();
    let machine = tokio::spawn(write_and_stop(agent));
    let reach = Reach {
        look: Duration::from_millis(10),
        stuck: STUCK,
        ..Reach::default()
    };
    let store = life.rack.store().clone();
    let hands = Appliance::new(life.rack.clone(), store, Some(life.images.clone()), reach).unwrap();
    let kind = ActionKind::WriteImage {
        target: RootTarget::Disk(DiskRef::default()),
        image: "debian-12".into(),
        sha256: image.sha256,
        format: ImageFormat::Raw,
        bytes: image.bytes,
    };
    let (task, _give_up) = task(&node, kind);
    let failure = hands.carry_out(task).await.result.unwrap_err();
    let stopped = machine.await.unwrap();
    assert!(stopped.elapsed() >= STUCK, "it was given the time that it has");
    assert!(failure.again, "on a machine that was restarted it may work");
    assert!(
        failure.reason.contains("stood still") && failure.reason.contains("writing debian-12: has not moved for"),
        "{}",
        failure.reason
    );
    assert!(
        failure.reason.ends_with("the machine was restarted"),
        "{}",
        failure.reason
    );
    assert!(failure.advice.contains("disk"), "{}", failure.advice);
    server.stop().await;
}
