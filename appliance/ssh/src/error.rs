//! What can go wrong over SSH, in words for the operator.

use std::net::SocketAddr;
use std::time::Duration;

/// Why there is no session, or no output.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SshError {
    /// Nothing listens on the port.
    #[error(
        "{0} refuses SSH: the machine answers, but no SSH server listens there. The system may still be starting, or its \
         image has no SSH server"
    )]
    Refused(SocketAddr),
    /// The machine does not answer at all.
    #[error(
        "{addr} cannot be reached for SSH ({reason}): look at the machine's console, its link and its network settings"
    )]
    Unreachable {
        /// The machine.
        addr: SocketAddr,
        /// What the kernel says.
        reason: String,
    },
    /// Something took too long.
    #[error("{addr} did not {what} within {} s", limit.as_secs_f32())]
    TimedOut {
        /// The machine.
        addr: SocketAddr,
        /// What it should have done.
        what: &'static str,
        /// How long it had.
        limit: Duration,
    },
    /// The host key is not the pinned one.
    #[error(
        "{addr} shows another SSH host key than the system that is known there ({seen} instead of {wanted}): another machine \
         may have this address, the machine may have booted something else, or somebody is in between. Nothing was sent \
         to it"
    )]
    OtherHostKey {
        /// The machine.
        addr: SocketAddr,
        /// Fingerprint that was wanted.
        wanted: String,
        /// Fingerprint that was seen, or what was seen instead.
        seen: String,
    },
    /// The server does not accept our key for the account.
    #[error(
        "{addr} does not let the appliance's key log in as {user}: the account is missing, or its authorized_keys does \
         not hold the key (the line that ends in rackbar-appliance)"
    )]
    LoginRefused {
        /// The machine.
        addr: SocketAddr,
        /// The account.
        user: String,
    },
    /// The connection ended, or the other end does not speak SSH as it should.
    #[error("the SSH connection to {addr} failed while {doing}: {reason}")]
    Broken {
        /// The machine.
        addr: SocketAddr,
        /// What was being done.
        doing: &'static str,
        /// What went wrong.
        reason: String,
    },
    /// A script or program was not begun.
    #[error("{addr} did not run it, nothing of it was begun: {reason}")]
    NotRun {
        /// The machine.
        addr: SocketAddr,
        /// What was in the way.
        reason: String,
    },
    /// A key that cannot be read. Does not repeat the key.
    #[error("{what} is not an Ed25519 key in OpenSSH's format: {reason}")]
    BadKey {
        /// Which key.
        what: &'static str,
        /// What the reader says.
        reason: String,
    },
    /// The text is no fingerprint of a host key.
    #[error(
        "{0:?} is no fingerprint of a host key: it is SHA256: and 43 letters, digits, + and /, as `ssh-keygen -lf \
         /etc/ssh/ssh_host_ed25519_key.pub` prints it on the machine"
    )]
    BadFingerprint(String),
    /// The system gives no random numbers.
    #[error("no key could be made: {0}")]
    NoRandomness(rackbar_trust::TrustError),
    /// The script does not say what runs it.
    #[error("the script cannot be run: {0}. Its first line must name a program by its whole path, such as #!/bin/sh")]
    NoInterpreter(String),
}
