//! A thin SSH client for the systems we installed: one pinned host key, one key of our own, one command at a time.
//!
//! The appliance makes the host key of every system it installs ([`HostKeyPair`]), so it never has to trust a key on
//! first use: a machine that shows another one is another machine, or no longer the system we installed. A system that
//! somebody else installed is met once ([`Session::meet`]), with a fingerprint or on an operator's word. All keys are
//! Ed25519. Passwords, agents, forwarding and terminals are left out on purpose.
//!
//! The protocol is `russh`'s (RFC 4251 to 4254). What this crate adds is limits: of time, of output, of a peer that
//! stops talking in the middle of a handshake.

mod error;
mod keys;
mod script;
mod session;

pub use error::SshError;
pub use keys::{ClientKey, HostKeyPair, fingerprint, known_hosts_line};
pub use script::interpreter;
pub use session::{ENDED_AFTER, Output, Program, Session, Trust};
