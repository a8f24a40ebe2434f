//! How a node's state changes. Pure: a state and a happening in, the next state out.
//!
//! ```text
//!                    boot files, loader, agent                inventory
//!   first sight ─▶ Enrolled ──────────────────▶ Inspecting ──────────────▶ Discovered
//!                    ▲  │                        ▲   │  ▲                     │
//!                    │  └──── boot failed ───┐   │   │  └──── boots again ────┘
//!                    │                       ▼   │   │
//!                    └───── retry is due ─── Failed ◀┘ boot failed, or nothing heard for too long
//!                                              └──────── inventory ─────────▶ Discovered
//! ```
//!
//! | state | limit | then |
//! | --- | --- | --- |
//! | Enrolled, seen by its packets only | 10 minutes without another packet | forgotten (24 hours once it fetched boot files) |
//! | Enrolled otherwise | none | a machine may stay switched off for months |
//! | Inspecting | 10 minutes without progress | its agent is asked again when it is connected, else Failed |
//! | Discovered | 24 hours | its agent, when connected, is asked to look again |
//! | Failed | its `retry` | Enrolled: the next boot counts as a new try; without one (work on it failed) it stays |
//! | the others | set by the work that enters them | nothing here moves a node that was given away or is held |

use rackbar_model::{FailedIn, NodeState, Timestamp};

/// Longest silence while a machine boots: firmware that counts a terabyte of memory takes some minutes between the
/// boot file and the kernel.
pub const INSPECTING_LIMIT: u64 = 10 * 60 * 1000;

/// Age of an inventory at which the agent is asked again.
pub const DISCOVERED_LIMIT: u64 = 24 * 60 * 60 * 1000;

/// Time from a failure to the state in which the next boot counts as new.
pub const RETRY_AFTER: u64 = 10 * 60 * 1000;

/// What moves a node's state.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Happening {
    /// A boot began: script or manifest given, or the loader says it started.
    BootStarted,
    /// A boot file was fetched or a boot program told how far it is.
    BootProgress,
    /// The boot program gave up; the words say why.
    BootFailed(String),
    /// The agent proved itself; `again` when it did so before in this boot.
    AgentUp {
        /// It had been connected before in this boot.
        again: bool,
    },
    /// An inventory came.
    Facts,
    /// A clock tick.
    Tick {
        /// Milliseconds since the last progress in this state.
        idle: u64,
        /// Its agent is connected.
        connected: bool,
    },
}

/// What follows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Next {
    /// The state stays.
    Stay,
    /// The state stays, and the agent is asked for a new inventory.
    AskFacts,
    /// A new state, and why.
    Go(NodeState, String),
}

/// The transition from `state` on `happening` at `now`.
pub fn next(state: &NodeState, now: Timestamp, happening: &Happening) -> Next {
    match state {
        NodeState::Enrolled => enrolled(now, happening),
        NodeState::Inspecting => inspecting(now, happening),
        NodeState::Discovered => discovered(now, happening),
        NodeState::Failed(failure) => failed(failure, now, happening),
        // Entered and left by work of its own or by an operator; what boots there is recorded and moves nothing.
        NodeState::Available
        | NodeState::Configuring
        | NodeState::Provisioning
        | NodeState::Ready
        | NodeState::HandedOver
        | NodeState::Cleaning
        | NodeState::Maintenance => Next::Stay,
    }
}

fn enrolled(now: Timestamp, happening: &Happening) -> Next {
    match happening {
        Happening::BootStarted | Happening::BootProgress => go(NodeState::Inspecting, "it fetches its boot files"),
        Happening::BootFailed(reason) => fail("enrolled", reason, now),
        Happening::AgentUp { .. } => go(NodeState::Inspecting, "its agent is here"),
        Happening::Facts => go(NodeState::Discovered, "its inventory is here"),
        Happening::Tick { .. } => Next::Stay,
    }
}

fn inspecting(now: Timestamp, happening: &Happening) -> Next {
    match happening {
        Happening::BootStarted | Happening::BootProgress | Happening::AgentUp { .. } => Next::Stay,
        Happening::BootFailed(reason) => fail("inspecting", reason, now),
        Happening::Facts => go(NodeState::Discovered, "its inventory is here"),
        Happening::Tick { idle, .. } if *idle < INSPECTING_LIMIT => Next::Stay,
        Happening::Tick { connected: true, .. } => Next::AskFacts,
        Happening::Tick { connected: false, .. } => fail(
            "inspecting",
            "it began to boot and was not heard of for 10 minutes: look at its console, then boot it again",
            now,
        ),
    }
}

fn discovered(now: Timestamp, happening: &Happening) -> Next {
    match happening {
        Happening::BootStarted => go(NodeState::Inspecting, "it boots again"),
        Happening::AgentUp { again: false } => go(NodeState::Inspecting, "its agent is here after a boot"),
        Happening::BootFailed(reason) => fail("discovered", reason, now),
        Happening::BootProgress | Happening::AgentUp { again: true } | Happening::Facts => Next::Stay,
        Happening::Tick { idle, connected } if *connected && *idle >= DISCOVERED_LIMIT => Next::AskFacts,
        Happening::Tick { .. } => Next::Stay,
    }
}

fn failed(failure: &FailedIn, now: Timestamp, happening: &Happening) -> Next {
    // Work on it failed: what its agent or firmware do does not mend that. A person recovers it or commits anew.
    if failure.retry.is_none() {
        return Next::Stay;
    }
    match happening {
        Happening::BootStarted | Happening::BootProgress => go(NodeState::Inspecting, "it boots again"),
        Happening::AgentUp { .. } => go(NodeState::Inspecting, "its agent is here after all"),
        Happening::Facts => go(NodeState::Discovered, "its inventory is here"),
        // The first failure is the one to read: what follows is its echo.
        Happening::BootFailed(_) => Next::Stay,
        Happening::Tick { .. } => match failure.retry {
            Some(retry) if now >= retry => go(NodeState::Enrolled, "its next boot counts as a new try"),
            Some(_) | None => Next::Stay,
        },
    }
}

fn go(state: NodeState, reason: &str) -> Next {
    Next::Go(state, reason.into())
}

fn fail(during: &str, reason: &str, now: Timestamp) -> Next {
    let failure = FailedIn {
        during: during.into(),
        reason: reason.into(),
        retry: Some(now.plus(RETRY_AFTER)),
    };
    Next::Go(NodeState::Failed(failure), reason.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn after(state: NodeState, happenings: &[Happening]) -> &'static str {
        let mut state = state;
        for happening in happenings {
            if let Next::Go(to, _) = next(&state, Timestamp(1_000_000), happening) {
                state = to;
            }
        }
        state.name()
    }

    fn tick(idle: u64, connected: bool) -> Happening {
        Happening::Tick { idle, connected }
    }

    #[test]
    fn the_usual_way_ends_in_discovered() {
        use Happening::{AgentUp, BootProgress, BootStarted, Facts};
        let way = [BootStarted, BootProgress, AgentUp { again: false }, Facts];
        assert_eq!(after(NodeState::Enrolled, &way[..1]), "inspecting");
        assert_eq!(after(NodeState::Enrolled, &way), "discovered");
        assert_eq!(after(NodeState::Discovered, &[AgentUp { again: true }]), "discovered");
        assert_eq!(after(NodeState::Discovered, &way[..1]), "inspecting");
    }

    #[test]
    fn silence_fails_a_boot_but_not_one_whose_agent_is_connected() {
        assert_eq!(
            after(NodeState::Inspecting, &[tick(INSPECTING_LIMIT - 1, false)]),
            "inspecting"
        );
        assert_eq!(after(NodeState::Inspecting, &[tick(INSPECTING_LIMIT, false)]), "failed");
        let asked = next(&NodeState::Inspecting, Timestamp(0), &tick(INSPECTING_LIMIT, true));
        assert_eq!(asked, Next::AskFacts);
    }

    #[test]
    fn a_failed_node_is_tried_again_after_its_time_and_keeps_its_first_reason() {
        let Next::Go(state, _) = next(
            &NodeState::Inspecting,
            Timestamp(0),
            &Happening::BootFailed("bad digest".into()),
        ) else {
            panic!("a failed boot must fail the node");
        };
        assert_eq!(
            next(&state, Timestamp(1), &Happening::BootFailed("echo".into())),
            Next::Stay
        );
        assert_eq!(next(&state, Timestamp(RETRY_AFTER - 1), &tick(0, false)), Next::Stay);
        let Next::Go(to, _) = next(&state, Timestamp(RETRY_AFTER), &tick(0, false)) else {
            panic!("the retry is due");
        };
        assert_eq!(to, NodeState::Enrolled);
    }

    proptest! {
        #[test]
        fn nodes_that_are_held_or_given_away_are_never_moved(which in 0usize..7, happening in 0usize..6) {
            let held = [NodeState::Available, NodeState::Configuring, NodeState::Provisioning, NodeState::Ready,
                NodeState::HandedOver, NodeState::Cleaning, NodeState::Maintenance];
            let happenings = [Happening::BootStarted, Happening::BootProgress, Happening::BootFailed("x".into()),
                Happening::AgentUp { again: false }, Happening::Facts, tick(u64::MAX, false)];
            prop_assert_eq!(next(&held[which], Timestamp(u64::MAX), &happenings[happening]), Next::Stay);
        }

        #[test]
        fn an_inventory_always_discovers(happenings in prop::collection::vec(0usize..6, 0..30)) {
            let all = [Happening::BootStarted, Happening::BootProgress, Happening::BootFailed("x".into()),
                Happening::AgentUp { again: false }, tick(INSPECTING_LIMIT, false), tick(0, true)];
            let mut way: Vec<_> = happenings.into_iter().map(|n| all[n].clone()).collect();
            way.push(Happening::Facts);
            prop_assert_eq!(after(NodeState::Enrolled, &way), "discovered");
        }
    }
}
