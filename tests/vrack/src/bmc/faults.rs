//! What can be wrong with a BMC, switched on and off by a test.

use std::time::{Duration, Instant};

/// Faults in force.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Faults {
    /// Answers so many Redfish requests well before any of the others begins.
    pub after: u32,
    /// Takes packets and connections, answers nothing.
    pub deaf: bool,
    /// Thinks this long before each answer.
    pub slow: Duration,
    /// Answers this many Redfish requests with this status first: 503 as a busy BMC, 401 as one that lost its sessions.
    pub status: Option<(u16, u32)>,
    /// Asks with those answers to be left alone for so many seconds (`Retry-After`).
    pub retry_after: u64,
    /// Answers nothing until then.
    pub deaf_until: Option<Instant>,
    /// Is deaf for so long from the next request on.
    pub deaf_next: Option<Duration>,
    /// Carries this many Redfish requests out and keeps the answer to itself.
    pub lost: u32,
    /// Sends this many Redfish requests on (307) to the same path behind this: nothing, or another server.
    pub moved: Option<(&'static str, u32)>,
    /// Makes a task of each change, which takes this long.
    pub slow_task: Option<Duration>,
    /// Gives at most this many sessions.
    pub session_limit: Option<usize>,
    /// Refuses this many changes because of their entity tag, as when somebody else changed the resource in between.
    pub stale_etags: u32,
    /// Gives entity tags that it then does not take.
    pub wrong_etag: bool,
    /// Gives no entity tags.
    pub no_etags: bool,
    /// Has fixed slots for accounts over Redfish, as IPMI has: empty ones are members without a name, nothing is posted
    /// or deleted there.
    pub fixed_slots: bool,
    /// Wants another password of whoever logs in before anything else, until it is given one (DSP0266 section 13.2.6).
    pub must_change: bool,
    /// Takes passwords and keeps others.
    pub spoils_passwords: bool,
    /// Knows no test of a password over IPMI.
    pub no_password_test: bool,
    /// Has no Redfish service: every path is 404.
    pub no_redfish: bool,
    /// Says of a wrong password at its sessions that the request is bad (400).
    pub bad_login: bool,
    /// Has no sessions: only Basic authentication works.
    pub no_sessions: bool,
}

impl Faults {
    /// Nothing is wrong.
    pub const NONE: Self = Self {
        after: 0,
        deaf: false,
        slow: Duration::ZERO,
        status: None,
        retry_after: 0,
        deaf_until: None,
        deaf_next: None,
        lost: 0,
        moved: None,
        slow_task: None,
        session_limit: None,
        stale_etags: 0,
        wrong_etag: false,
        no_etags: false,
        fixed_slots: false,
        must_change: false,
        spoils_passwords: false,
        no_password_test: false,
        no_redfish: false,
        bad_login: false,
        no_sessions: false,
    };

    /// Deaf for so long, then well.
    pub fn deaf_for(length: Duration) -> Self {
        Self {
            deaf_until: Some(Instant::now() + length),
            ..Self::NONE
        }
    }

    /// True while it answers nothing.
    pub(super) fn is_deaf(&self) -> bool {
        self.deaf || self.deaf_until.is_some_and(|until| Instant::now() < until)
    }
}
