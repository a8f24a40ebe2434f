//! What a machine's switch port did to its boot: the agent hears what the port says of itself, and the firmware's own count
//! says how long it was not heard.

use alloc::format;
use alloc::string::String;

use super::reading::Reading;
use super::rules::seconds;

/// What its switch port does to a machine that netboots, and what to set there.
pub(super) fn held_back(r: &Reading) -> Option<(String, &'static str)> {
    const EDGE: &str = "make its switch port an edge port (PortFast)";
    match (r.late, r.spanning_tree) {
        (Some(late), Some(delay)) => Some((
            format!(
                "by its own count it had asked for {late} s before anything of it arrived: spanning tree holds its port \
                 for {} after link-up",
                seconds(u64::from(delay) * 2)
            ),
            EDGE,
        )),
        (Some(late), None) => Some((
            format!("by its own count it had asked for {late} s before anything of it arrived: its port forwards late"),
            "look at its switch port: spanning tree without PortFast, LACP without fallback, 802.1X, or a slow link",
        )),
        (None, _) if r.waits_for_lacp => Some((
            "a switch port of it is in a bundle (LACP) and carries nothing for it".into(),
            "enable LACP fallback on that bundle, or take the port out of it until the installed system has its bond",
        )),
        (None, _) => None,
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use rackbar_model::{EventKind, PortSays, Severity};

    use super::super::tests::{agent_up, at, discover, facts, up_to_loader, with};

    fn tree() -> EventKind {
        EventKind::PortSays(PortSays::SpanningTree {
            rapid: false,
            forward_delay_millis: 15_000,
            forwards: None,
        })
    }

    fn lacp(forwards: bool) -> EventKind {
        EventKind::PortSays(PortSays::Lacp { forwards })
    }

    fn boot(late: Option<u16>, says: &[EventKind]) -> super::super::Verdict {
        let mut steps = up_to_loader();
        if let Some(seconds) = late {
            steps.insert(1, (0.0, EventKind::AskedLate { seconds }));
        }
        let mut more = alloc::vec![(9.0, agent_up()), (11.2, facts())];
        more.extend(says.iter().map(|says| (12.0, says.clone())));
        at(&with(steps, &more), 20.0)
    }

    #[test]
    fn a_port_that_spanning_tree_held_is_named_with_its_cure() {
        let verdict = boot(Some(31), &[tree()]);
        assert_eq!(
            verdict.text,
            "discovered 11.2 s after the first DHCP packet; by its own count it had asked for 31 s before anything of it \
             arrived: spanning tree holds its port for 30.0 s after link-up"
        );
        assert_eq!(verdict.severity, Severity::Warning);
        assert!(verdict.next_step.contains("PortFast"));
    }

    #[test]
    fn a_late_port_without_bpdus_is_not_blamed_on_spanning_tree() {
        let verdict = boot(Some(31), &[]);
        assert!(verdict.text.ends_with("its port forwards late"), "{}", verdict.text);
        assert!(verdict.next_step.contains("LACP without fallback"));
    }

    #[test]
    fn a_bundle_that_carries_nothing_is_named_and_one_that_falls_back_is_not() {
        let verdict = boot(None, &[tree(), lacp(false)]);
        assert!(verdict.text.contains("carries nothing"), "{}", verdict.text);
        assert!(verdict.next_step.contains("enable LACP fallback"));
        let plain = boot(None, &[]);
        assert_eq!(boot(None, &[lacp(true)]), plain);
        assert_eq!(boot(None, &[lacp(false), lacp(true)]), plain);
        // Spanning tree that cost nothing is nobody's trouble.
        assert_eq!(boot(None, &[tree()]), plain);
    }

    #[test]
    fn the_next_boot_begins_without_the_last_ones_troubles() {
        let mut steps = with(up_to_loader(), &[(0.0, EventKind::AskedLate { seconds: 31 })]);
        steps.extend([
            (9.0, agent_up()),
            (10.0, facts()),
            (500.0, discover(None)),
            (510.0, facts()),
        ]);
        assert_eq!(
            at(&steps, 511.0).text.to_string(),
            "discovered 10.0 s after the first DHCP packet"
        );
    }
}
