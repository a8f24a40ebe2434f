//! Leaving our agent for the installed system: through the firmware, or by a jump into its kernel (kexec).

use std::time::Duration;

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
            tokio::time::sleep(self.reach.look.min(Duration::from_millis(500))).await;
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

/// What to make of an agent that is there while the installed system is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Seen {
    /// It leaves.
    Leaves,
    /// It should have left by now, and is to be told once more, by another way.
    Lingers,
    /// It is another boot of the machine, or it does not leave.
    Stays,
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
        match self.look(link.boot, self.since.elapsed()) {
            Seen::Leaves => true,
            Seen::Lingers => {
                // Refused or gone: the next look shows what became of it.
                let _ = link.try_ask(Ask::Reboot).await;
                true
            }
            Seen::Stays => false,
        }
    }

    fn look(&mut self, boot: [u8; 32], waited: Duration) -> Seen {
        if self.boot.is_none() && self.late && waited < COMES_BACK {
            self.boot = Some(boot);
        }
        if self.boot != Some(boot) || waited >= GOES_DOWN {
            return Seen::Stays;
        }
        if waited >= COMES_BACK && !std::mem::replace(&mut self.told, true) {
            return Seen::Lingers;
        }
        Seen::Leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: [u8; 32] = [1; 32];
    const NEW: [u8; 32] = [2; 32];
    const SOON: Duration = Duration::from_millis(1);

    fn leaving(boot: Option<[u8; 32]>, late: bool) -> Leaving {
        Leaving {
            boot,
            ..Leaving::new(None, late)
        }
    }

    #[test]
    fn an_agent_that_did_not_hear_that_it_may_jump_is_told_to_restart_once() {
        let mut leaving = leaving(Some(OLD), false);
        let seen = [SOON, COMES_BACK - SOON, COMES_BACK, COMES_BACK + SOON, GOES_DOWN];
        assert_eq!(
            seen.map(|waited| leaving.look(OLD, waited)),
            [Seen::Leaves, Seen::Leaves, Seen::Lingers, Seen::Leaves, Seen::Stays]
        );
    }

    #[test]
    fn another_boot_of_our_agent_is_no_leaving() {
        assert_eq!(leaving(Some(OLD), false).look(NEW, SOON), Seen::Stays);
        assert_eq!(leaving(None, false).look(NEW, SOON), Seen::Stays);
    }

    #[test]
    fn after_a_restart_of_the_appliance_the_agent_may_come_back_before_it_leaves() {
        let mut late = leaving(None, true);
        assert_eq!(late.look(OLD, COMES_BACK - SOON), Seen::Leaves);
        assert_eq!(late.look(OLD, COMES_BACK), Seen::Lingers);
        assert_eq!(late.look(NEW, COMES_BACK + SOON), Seen::Stays);
        assert_eq!(leaving(None, true).look(OLD, COMES_BACK), Seen::Stays);
    }
}
