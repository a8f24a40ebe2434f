//! What publishers of operating systems say of their files, and whether it was they who said it.
//!
//! ```text
//! armor     frames of OpenPGP texts (RFC 9580 sections 6 and 7), strict           pure
//! keyring   trusted certificates, and whether a key of theirs may sign at a time  pure
//! minisign  signatures of minisign's, which our own releases have                 pure
//! signed    a signed text, judged: what was signed, by whom, when                 pure
//! sums      lists of digests, as sha256sum and BSD's sha256 write them            pure
//! archive   which lists of packages a set of components and architectures needs   pure
//! release   Debian's Release: its date, its end, its list; and replays of it      pure
//! repomd    the signed head of an RPM repository: its data files and its date     pure
//! primary   its list of packages, one by one                                      pure
//! rpm       what both say of a file, and where that may lie                       pure
//! xml       what both are written in, bounded                                     pure
//! ```
//! Contracts: only text that a good signature covers is given out; nothing reads a clock, a file or a socket; no text, however
//! hostile, makes anything here panic. Secrets are nowhere near: signatures are verified, none is made and nothing is
//! decrypted.

mod archive;
mod armor;
mod keyring;
mod minisign;
mod primary;
mod release;
mod repomd;
mod rpm;
mod signed;
mod sums;
mod xml;

pub use archive::PackageList;
pub use armor::ArmorError;
pub use keyring::{Keyring, KeyringError};
pub use minisign::{KeyId, MinisignError, MinisignKey, minisign};
pub use primary::{RpmPackage, read_primary};
pub use release::{Accepted, Release, ReleaseError, ReplayError};
pub use repomd::{RepoData, Repomd};
pub use rpm::RpmError;
pub use signed::{Refusal, Refused, Signed, cleartext, detached};
pub use sums::{Sum, Summing, Sums, SumsError};
pub use xml::XmlError;

/// Bytes of a text that is signed, or of a list of digests. Debian's largest Release has a fifth of it.
pub const MAX_TEXT: usize = 1 << 20;
/// Bytes of a signature that lies beside its text.
pub const MAX_SIGNATURE: usize = 64 << 10;
/// Bytes of a file of trusted certificates. Debian's whole keyring has 60 KiB.
pub const MAX_KEYS: usize = 512 << 10;
/// So many seconds a signature may be ahead of our clock.
pub const MAX_AHEAD: u64 = 300;
