//! Orders about a machine while an attempt of a run is past the point where it could stop: no late end, however good, undoes
//! hands off or a recovery.
#![allow(clippy::unwrap_used, reason = "a test may unwrap")]

mod common;

use std::sync::Arc;

use common::life::{Life, Sim};
use common::{PATIENCE, desk, mac};
use rackbar_model::NodeId;
use rackbar_orchestrator::executor::PlanRequest;
use rackbar_plan::{RunId, RunState, Stand};
use rackbar_services::{BootDesk as _, BootReply};

/// A run whose attempt of this kind is past the point where it could stop: told to give up, it ends well all the same.
async fn past_stopping(folder: &std::path::Path, kind: &'static str) -> (Life, Arc<Sim>, NodeId, RunId) {
    let sim = Arc::new(Sim::default());
    let (life, node) = Life::first(folder, &sim).await;
    *sim.hang.lock().unwrap() = Some(kind);
    *sim.ends_well.lock().unwrap() = true;
    let run = life.commit(node);
    tokio::time::timeout(PATIENCE, sim.stopped.notified())
        .await
        .expect(kind);
    (life, sim, node, run)
}

/// True when the machine gets our agent from the network.
fn boots_agent(life: &Life) -> bool {
    let script = desk(&life.rack, 80).script(mac(1), "10.10.0.50".parse().unwrap());
    let BootReply::Bytes { body, .. } = script else {
        panic!("no script");
    };
    String::from_utf8_lossy(&body).contains("rackbar.server=")
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_that_pass_after_all_end_no_maintenance_and_undo_no_recovery() {
    for maintenance in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let (life, _sim, node, run) = past_stopping(folder.path(), "verify").await;
        let wanted = if maintenance {
            life.executor.maintenance(node, true, "a fan", "anna").unwrap();
            "maintenance"
        } else {
            life.executor.recover(node, "anna").unwrap();
            "discovered"
        };
        let ended = life.run_ended(run).await;
        let mut stands = ended.actions.values();
        let well = stands.all(|stand| matches!(stand, Stand::Done { .. }));
        assert!(well, "it ended well: {:?}", ended.actions);
        assert_eq!(life.state(node), wanted);
        let request = PlanRequest {
            nodes: Some(vec![node]),
            ..PlanRequest::default()
        };
        life.executor.set_site("version = 1\n", "anna").unwrap();
        let plan = life.executor.plan(&request).unwrap();
        let hands_off = plan.left_out.iter().any(|left| left.reason.contains("hands off"));
        assert_eq!(hands_off, maintenance, "{:?}", plan.left_out);
        life.kill().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_recovered_while_its_boot_order_is_set_boots_our_agent() {
    for kind in ["boot.order", "restart"] {
        let folder = tempfile::tempdir().unwrap();
        let (life, _sim, node, run) = past_stopping(folder.path(), kind).await;
        life.executor.recover(node, "anna").unwrap();
        assert_eq!(life.run_ended(run).await.state, RunState::Failed);
        assert!(boots_agent(&life), "after {kind}");
        assert_eq!(life.state(node), "discovered", "after {kind}");
        life.kill().await;
    }
}
