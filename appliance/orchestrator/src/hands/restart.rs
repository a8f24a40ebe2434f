//! Leaving our agent for the installed system: through the firmware, or by a jump into its kernel (kexec).

use rackbar_messages::{Ask, JobReport, Work};
use rackbar_model::{NodeId, RootTarget};
use rackbar_plan::RestartWay;
use tokio::time::Instant;

use super::agent::{BY_HAND, COMES_BACK, GOES_DOWN, unexpected};
use super::{Appliance, Done, Task};
use crate::jobs::AskError;
use crate::record::AgentLink;

impl Appliance {
    /// Leaves our agent.
    pub(super) async fn restart(&self, task: &mut Task, node: NodeId, way: RestartWay, target: &RootTarget) -> Done {
        if task.taken_up || task.attempt > 1 {
            // It may be on its way already; an agent that only lost its connection is back soon.
            let back = tokio::time::timeout(COMES_BACK, self.rack.await_agent(node)).await;
            if back.is_err() {
                return Done::well("the machine has left our agent");
            }
        }
        let Some(link) = self.rack.agent(node) else {
            return Done::failed(
                "its agent is not connected, so it cannot be restarted in good order",
                BY_HAND,
                true,
            );
        };
        match way {
            RestartWay::Firmware => {
                self.through_firmware(node, &link, "it restarts through its firmware")
                    .await
            }
            RestartWay::Kexec => self.jump(task, node, &link, target).await,
        }
    }

    /// Has the installed kernel loaded. The agent jumps once it hears that this end was written down, so nobody waits here for
    /// it to leave. A kernel that cannot be jumped to, which Secure Boot and unusual systems bring about, is no reason to stop:
    /// the firmware starts it too.
    async fn jump(&self, task: &mut Task, node: NodeId, link: &AgentLink, target: &RootTarget) -> Done {
        let work = Work::Kexec { target: target.clone() };
        let refused = match self.job(task, node, work).await {
            Ok(JobReport::Jumping) => return Done::well("the installed kernel starts"),
            Err(Done {
                result: Err(failure), ..
            }) if !failure.again => failure.reason,
            other => return unexpected(other),
        };
        let summary = format!("it restarts through its firmware, as nothing can be jumped to: {refused}");
        self.through_firmware(node, link, &summary).await
    }

    /// Waits until the agent is gone.
    async fn through_firmware(&self, node: NodeId, link: &AgentLink, summary: &str) -> Done {
        if let Err(AskError::Refused(reason)) = link.try_ask(Ask::Reboot).await {
            return Done::failed(
                format!("the agent could not restart the machine: {reason}"),
                BY_HAND,
                true,
            );
        }
        let deadline = Instant::now() + GOES_DOWN;
        while let Some(now) = self.rack.agent(node) {
            if now.boot != link.boot {
                let reason = "it came back into our agent instead of its own system";
                let advice = "look at its boot order: the network is in front of the disk, and its network boot program \
                              did not go on to the disk";
                return Done::failed(reason, advice, true);
            }
            if Instant::now() >= deadline {
                let reason = format!(
                    "it was told to restart and still runs our agent after {} s",
                    GOES_DOWN.as_secs()
                );
                return Done::failed(reason, BY_HAND, true);
            }
            tokio::time::sleep(self.reach.look.min(std::time::Duration::from_millis(500))).await;
        }
        Done::well(summary)
    }
}

/// An agent that is on its way out while the installed system is waited for: after a jump the connection lasts until the
/// machine is down.
pub(super) struct Leaving {
    since: Instant,
    /// The boot of the machine that is to end.
    boot: Option<[u8; 32]>,
    /// The appliance was started anew meanwhile: the agent that is to leave may come back first.
    late: bool,
    told: bool,
}

impl Leaving {
    /// Of what is connected now.
    pub(super) fn new(link: Option<&AgentLink>, taken_up: bool) -> Self {
        Self {
            since: Instant::now(),
            boot: link.map(|link| link.boot),
            late: taken_up,
            told: false,
        }
    }

    /// True when this agent is still to be waited for. An order to jump that was lost with the appliance is made good by a
    /// restart through the firmware, once.
    pub(super) async fn is(&mut self, link: &AgentLink) -> bool {
        let waited = self.since.elapsed();
        if self.boot.is_none() && self.late && waited < COMES_BACK {
            self.boot = Some(link.boot);
        }
        if self.boot != Some(link.boot) || waited >= GOES_DOWN {
            return false;
        }
        if waited >= COMES_BACK && !std::mem::replace(&mut self.told, true) {
            // Refused or gone: the next look shows what became of it.
            let _ = link.try_ask(Ask::Reboot).await;
        }
        true
    }
}
