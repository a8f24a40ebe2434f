//! What a switch port says of itself beside LLDP, as a machine behind it hears it.

use core::fmt;

use serde::{Deserialize, Serialize};

/// What a switch port's own frames say to the machine behind it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum PortSays {
    /// BPDUs: spanning tree runs on it (IEEE 802.1D-2004, clause 9).
    SpanningTree {
        /// Rapid or multiple spanning tree, whose BPDUs say the port's state.
        rapid: bool,
        /// Time in listening and again in learning, in milliseconds.
        forward_delay_millis: u32,
        /// Whether it forwards; `None` where the BPDUs do not say.
        forwards: Option<bool>,
    },
    /// LACPDUs: it is one of a bundle (IEEE 802.1AX-2020, 6.4).
    Lacp {
        /// It takes and sends frames, although this machine does not speak LACP: it falls back.
        forwards: bool,
    },
}

impl PortSays {
    /// True when both speak of the same protocol.
    pub const fn same_protocol(&self, other: &Self) -> bool {
        matches!(
            (self, other),
            (Self::SpanningTree { .. }, Self::SpanningTree { .. }) | (Self::Lacp { .. }, Self::Lacp { .. })
        )
    }
}

impl fmt::Display for PortSays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SpanningTree {
                rapid,
                forward_delay_millis,
                forwards,
            } => {
                let kind = if *rapid { "rapid spanning tree" } else { "spanning tree" };
                let (seconds, tenth) = (forward_delay_millis / 1000, forward_delay_millis % 1000 / 100);
                write!(f, "its switch port runs {kind} (forward delay {seconds}.{tenth} s)")?;
                match forwards {
                    Some(false) => f.write_str(" and does not forward yet"),
                    Some(true) | None => Ok(()),
                }
            }
            Self::Lacp { forwards: true } => {
                f.write_str("its switch port is one of a bundle (LACP) and forwards alone, as nobody answers")
            }
            Self::Lacp { forwards: false } => f.write_str(
                "its switch port is one of a bundle (LACP) and carries nothing for a machine that does not speak LACP: \
                 enable LACP fallback on it (also called individual, suspend-individual off, or force-up)",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn ports_are_told_of_in_words() {
        let tree = |rapid, forwards| {
            let forward_delay_millis = 15_000;
            PortSays::SpanningTree {
                rapid,
                forward_delay_millis,
                forwards,
            }
            .to_string()
        };
        assert_eq!(
            tree(false, None),
            "its switch port runs spanning tree (forward delay 15.0 s)"
        );
        assert_eq!(
            tree(true, Some(false)),
            "its switch port runs rapid spanning tree (forward delay 15.0 s) and does not forward yet"
        );
        assert!(
            PortSays::Lacp { forwards: false }
                .to_string()
                .contains("enable LACP fallback")
        );
    }
}
