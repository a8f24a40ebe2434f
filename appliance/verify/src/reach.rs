//! How a probe gets to a node.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use rackbar_model::Timestamp;
use rackbar_ssh::Session;

/// What is asked of [`Reach`]: an answer in the future.
pub type Asked<'a> = Pin<Box<dyn Future<Output = Result<String, String>> + Send + 'a>>;

/// A way to run a probe on one node. Tests have scripted ones.
pub trait Reach: Send + Sync {
    /// Runs the probe of the check `id`: `script`, POSIX shell without first line, with the rights of root where that can be had, and gives its
    /// standard output. The script's status means nothing.
    ///
    /// # Errors
    /// In words, when it could not be run or took longer than `limit`.
    fn ask<'a>(&'a self, id: &'a str, script: &'a str, limit: Duration) -> Asked<'a>;

    /// Whether the probe of the check `id` can be run this way at all.
    ///
    /// # Errors
    /// Why it does not apply, in words.
    fn applies(&self, _id: &str) -> Result<(), String> {
        Ok(())
    }

    /// When what [`Self::ask`] gives was looked at, where that was before it was asked.
    fn between(&self) -> Option<(Timestamp, Timestamp)> {
        None
    }

    /// The appliance's clock.
    fn now(&self) -> Timestamp;
}

/// Kept of a probe's output. The longest is a list of routes.
const MAX_OUTPUT: usize = 256 << 10;

/// Root by sudo where the account is another one; a probe that then still sees too little says so.
const SHELL: &str = "/bin/sh -c 'PATH=/usr/sbin:/usr/bin:/sbin:/bin; export PATH; LC_ALL=C; export LC_ALL; \
     if [ \"$(id -u)\" != 0 ] && sudo -n true 2>/dev/null; then exec sudo -n /bin/sh -s; fi; exec /bin/sh -s'";

/// Over SSH.
pub struct OverSsh<'a> {
    /// The session, logged in.
    pub session: &'a Session,
    /// The appliance's clock.
    pub clock: &'a (dyn Fn() -> Timestamp + Send + Sync),
}

impl Reach for OverSsh<'_> {
    fn ask<'a>(&'a self, _: &'a str, script: &'a str, limit: Duration) -> Asked<'a> {
        Box::pin(async move {
            let asked = self.session.run(SHELL, script.as_bytes(), limit, MAX_OUTPUT).await;
            asked
                .map(|output| output.text().into_owned())
                .map_err(|error| error.to_string())
        })
    }

    fn now(&self) -> Timestamp {
        (self.clock)()
    }
}
