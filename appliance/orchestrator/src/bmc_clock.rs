//! Clocks of BMCs. One that is off dates its log, its certificates and whatever it checks of others wrongly; many come from
//! the warehouse in 1970 and have nobody to ask.

use std::net::IpAddr;
use std::time::Duration;

use rackbar_model::{EventKind, NodeId, NodeState, Severity, Timestamp};

use crate::Rack;
use crate::bmc::{BmcDoor, BmcError};
use crate::rack::now;

/// Between two looks at a clock. The worst crystals are off by ten seconds a day.
pub(crate) const LOOK: Duration = Duration::from_secs(24 * 60 * 60);

/// Farther off than this, in milliseconds, a clock is set.
const OFF: u64 = 60_000;

/// Looks at a BMC's clock and sets it when it is off, unless the site leaves these clocks alone or the machine is another
/// owner's. What was set, or why it could not be, is told in the machine's timeline.
pub(crate) async fn look(rack: &Rack, door: &dyn BmcDoor, address: IpAddr, node: NodeId) {
    let leave = rack.look(|mind| mind.settings.leave_bmc_clocks);
    let state = rack.node_by_id(node).map(|node| node.state.clone());
    if leave || matches!(state, None | Some(NodeState::Maintenance | NodeState::HandedOver)) {
        return;
    }
    let clock = match door.clock(address).await {
        Ok(clock) => clock,
        // One that tells no time has none that could be wrong.
        Err(error) => {
            tracing::debug!(%address, %error, "a BMC's clock cannot be read");
            return;
        }
    };
    let Some(off) = off(clock, now()) else { return };
    // Read anew: a slow BMC took its time.
    let (text, severity) = match door.set_clock(address, now()).await {
        Ok(()) => (format!("the clock of its BMC was {off}; it was set"), Severity::Info),
        Err(BmcError::Silent(_)) => return,
        Err(error) => (
            format!("the clock of its BMC is {off}, and could not be set: {error}"),
            Severity::Warning,
        ),
    };
    rack.tell(Some(node), EventKind::Note { text, severity });
}

/// How far off a clock is, in words; `None` for one that is right.
fn off(clock: Option<Timestamp>, now: Timestamp) -> Option<String> {
    let Some(clock) = clock else {
        return Some("never set".to_owned());
    };
    let millis = clock.0.abs_diff(now.0);
    let side = if clock < now { "behind" } else { "ahead" };
    (millis > OFF).then(|| format!("{} {side}", words(millis / 1000)))
}

/// A length of time for people: its two greatest parts.
fn words(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        (_, _, _) => format!("{days} days {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_minute_is_let_pass_and_more_is_told() {
        let now = Timestamp(1_700_000_000_000);
        let at = |seconds: i64| off(Some(Timestamp(now.0.saturating_add_signed(seconds * 1000))), now);
        assert_eq!((at(0), at(60), at(-60)), (None, None, None));
        assert_eq!(at(61).as_deref(), Some("1 min 1 s ahead"));
        assert_eq!(at(-7_500).as_deref(), Some("2 h 5 min behind"));
        assert_eq!(at(-200_000).as_deref(), Some("2 days 7 h behind"));
        assert_eq!(off(None, now).as_deref(), Some("never set"));
    }
}
