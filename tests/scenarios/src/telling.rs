//! The appliance's events for a run's timeline: asked for while somebody writes one.

use std::sync::Weak;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rackbar_vrack::rack::Rack;

use crate::api::Api;

/// Between two questions. What happened meanwhile still comes in its place: captures wait for the answer.
const LOOK: Duration = Duration::from_secs(1);
/// Clocks further apart than this are two clocks: the appliance of a story may go on from where it was saved.
const ONE_CLOCK: Duration = Duration::from_secs(20);

/// Tells a rack's timeline what the appliance says happened, until the rack is gone: from the first event on where
/// somebody writes from the start, else from when they begin.
pub async fn tell_events(rack: Weak<Rack>, api: Api) {
    let mut after = Some(0);
    loop {
        tokio::time::sleep(LOOK).await;
        let Some(rack) = rack.upgrade() else { return };
        if !rack.switch().is_heard() {
            after = None;
            continue;
        }
        let asked = SystemTime::now();
        // An appliance that does not serve is asked again.
        after = match after {
            None => newest(&api).await.ok(),
            Some(last) => Some(tell_new(&rack, &api, last).await.unwrap_or(last)),
        };
        rack.switch().told_until(asked);
    }
}

async fn newest(api: &Api) -> anyhow::Result<u64> {
    Ok(api.events().await?.last().map_or(0, |last| last.event.seq))
}

/// Tells what came after an event; gives the newest one's number.
async fn tell_new(rack: &Rack, api: &Api, after: u64) -> anyhow::Result<u64> {
    let events = api.events_after(after).await?;
    for worded in &events {
        let said = UNIX_EPOCH + Duration::from_millis(worded.event.at.0);
        rack.tell(placed(said, SystemTime::now()), "appliance", &in_line(worded));
    }
    Ok(events.last().map_or(after, |last| last.event.seq))
}

/// The event's own time where the appliance's clock goes with ours, else now.
fn placed(said: SystemTime, now: SystemTime) -> SystemTime {
    let apart = now.duration_since(said).unwrap_or_else(|early| early.duration());
    if apart <= ONE_CLOCK { said.min(now) } else { now }
}

fn in_line(worded: &crate::api::Worded) -> String {
    match worded.event.mac {
        Some(mac) => format!("{mac} {}", worded.text),
        None => worded.text.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_placed_by_its_own_clock_only_where_that_is_ours() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let near = now - Duration::from_secs(2);
        assert_eq!(placed(near, now), near);
        assert_eq!(placed(now + Duration::from_secs(2), now), now);
        assert_eq!(placed(now - Duration::from_secs(3600), now), now);
    }
}
