//! What can be wrong with a BMC, switched on and off by a test.

use std::time::Duration;

/// Faults in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Takes packets and connections, answers nothing.
    pub deaf: bool,
    /// Thinks this long before each answer.
    pub slow: Duration,
    /// Answers this many Redfish requests with this status first: 503 as a busy BMC, 401 as one that lost its sessions.
    pub status: Option<(u16, u32)>,
    /// Gives entity tags that it then does not take.
    pub wrong_etag: bool,
    /// Has no Redfish service: every path is 404.
    pub no_redfish: bool,
    /// Has no sessions: only Basic authentication works.
    pub no_sessions: bool,
}

impl Faults {
    /// Nothing is wrong.
    pub const NONE: Self = Self {
        deaf: false,
        slow: Duration::ZERO,
        status: None,
        wrong_etag: false,
        no_redfish: false,
        no_sessions: false,
    };
}
