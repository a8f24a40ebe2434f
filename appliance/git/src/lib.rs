//! Git repositories of others: asking what a name is now, reading the pack that holds a commit, and proving it.
//!
//! ```text
//! id        names of objects, and the digest that makes them, which notices known attacks on SHA-1
//! packet    pkt-lines (gitprotocol-common(5))
//! protocol  what is asked and answered over smart HTTP, version 2 (gitprotocol-v2(5))
//! object    what commits, trees and tags name
//! unpack    entries of a pack: zlib streams and deltas (gitformat-pack(5))
//! history   what commits and tags of a pack say, and walks from commit to commit
//! pack      a pack, read to its end and proven: every object is what its name says, and everything named is there
//! index     the index of such a pack, version 2 (gitformat-pack(5))
//! tree      the files of a commit
//! dumb      the files by which any Git client clones a commit and nothing else (gitprotocol-http(5), dumb clients)
//! ```
//! Contracts: nothing reads a clock, a file or a socket; no bytes, however hostile, make anything here panic, or take more memory
//! or work than [`Limits`] say; no object is given out whose name was not computed from its content.

mod dumb;
mod history;
mod id;
mod index;
mod object;
mod pack;
mod packet;
mod protocol;
mod tree;
mod unpack;

pub use dumb::{Served, served};
pub use id::Id;
pub use object::Kind;
pub use pack::{Limits, Pack};
pub use protocol::{Found, Wanted, advertised, ask_pack, ask_refs, read_pack, read_refs};
pub use tree::TreeFile;

/// Bytes of the answers that come before a pack: what the origin can do, and the names it has.
pub const MAX_REFS: usize = 8 << 20;

/// Why something of an origin is not taken.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GitError {
    /// It is no answer of such a server.
    #[error("the answer is none of Git's smart HTTP: {0}")]
    Answer(&'static str),
    /// It speaks an older version of the protocol.
    #[error("the server does not speak version 2 of Git's protocol, which servers have since Git 2.18")]
    Version,
    /// Its objects have other names.
    #[error("its objects are named by {0}, and only repositories with SHA-1 are known")]
    Format(String),
    /// It says why it gives nothing.
    #[error("the server says: {0}")]
    Said(String),
    /// The name is not there.
    #[error("it has no {0}")]
    Missing(String),
    /// Two things have the name.
    #[error("it has a branch and a tag of the name {0}; write refs/heads/{0} or refs/tags/{0}")]
    Ambiguous(String),
    /// It ended early.
    #[error("it is cut short")]
    Short,
    /// It makes no sense.
    #[error("at byte {at} of the pack: {why}")]
    Pack {
        /// Offset in the pack.
        at: u64,
        /// What is wrong.
        why: &'static str,
    },
    /// An object makes no sense.
    #[error("object {id}: {why}")]
    Object {
        /// Its name.
        id: Id,
        /// What is wrong.
        why: &'static str,
    },
    /// Something is named and not there.
    #[error("it is not whole: {what} {id} is missing")]
    Incomplete {
        /// What kind of object.
        what: &'static str,
        /// Its name.
        id: Id,
    },
    /// An object is made of too many deltas.
    #[error("at byte {at} of the pack: an object that is made of more than {most} deltas, one upon the other")]
    Deep {
        /// Offset in the pack.
        at: u64,
        /// How many there may be.
        most: u32,
    },
    /// A commit's files cost too much, since they are made of the same deltas again and again.
    #[error(
        "object {id}: with it, more than {most} bytes would be unpacked for the files of one commit, out of deltas upon deltas"
    )]
    Work {
        /// The object at which it was enough.
        id: Id,
        /// How many bytes there may be.
        most: u64,
    },
    /// A limit is passed.
    #[error("it has more than {most} {what}")]
    Large {
        /// Of what.
        what: &'static str,
        /// How many there may be.
        most: u64,
    },
}
