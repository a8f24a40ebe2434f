//! What a shared cache may do (RFC 9111), as pure functions: no clock, file or socket. Times are seconds since 1970.
//!
//! `http-cache-semantics` is the peer the tests compare with, and not the base: it builds header maps on every hit, and
//! knows neither `stale-if-error` nor ranges.

pub mod cache_control;
pub mod conditional;
pub mod destination;
pub mod freshness;
pub mod range;
pub mod resume;
pub mod status;
pub mod target;
pub mod upstream;
pub mod vary;
