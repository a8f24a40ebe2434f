//! Services of ready machines, kept registered in a Consul-compatible catalogue outside, and taken out of it again.
//!
//! What is wanted comes from `rackbar_handoff::consul`; [`Registrar`] brings the catalogue there over the HTTP API
//! (version 1) and keeps it there: at once after a change, and by a look at everything now and then. What it is about to
//! register is in the store before the catalogue hears of it, so that nothing of ours is ever left behind: a machine that
//! is taken away, renamed, moved to another catalogue or put into maintenance is deregistered, also after a power cut in
//! the middle. An entry that somebody else made is never touched.

mod catalogue;
mod record;
mod registrar;

pub use catalogue::{Place, read_node, said};
pub use record::{Record, records};
pub use registrar::{Entry, Registrar, Report, Source, Standing, Wanted};

/// Where the ACL token of a catalogue is among the store's secrets.
pub fn token_key(url: &str) -> Vec<u8> {
    format!("registry/consul/{url}").into_bytes()
}
