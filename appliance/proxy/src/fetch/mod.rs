//! Fetching: one request to the origin however many clients wait, and what comes of it.
//!
//! ```text
//!  Asking ──head──▶ Arriving ──whole──▶ stored; the flight ends, later clients find the entry
//!     │                └──broken and not to be resumed──▶ clients are cut off, nothing is stored
//!     ├── 304, or whole at once ──▶ Entry
//!     ├── an error of the origin ──▶ Small: the same answer for all who wait
//!     ├── not to be shared ──▶ Private: the first client gets it, the others ask for themselves
//!     └── nobody answers ──▶ Failed, or a stale Entry where that is allowed
//! ```
//! A flight is a task of its own: the client that started it may go away like any other.

mod arrive;
mod ask;
mod run;

use std::collections::HashMap;
use std::fs::File;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::{HeaderMap, Response};
use hyper::body::Incoming;
use tokio::sync::{oneshot, watch};

use crate::rules::vary::Selecting;
use crate::store::Entry;

pub use ask::{Ask, Upstream};

/// The last bytes of a content whose digest is promised are held back until it has proved right, so that nobody ever has
/// the whole of a wrong one.
pub const HELD_BACK: u64 = 64 << 10;

/// How far a content has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Progress {
    /// Bytes that may be read.
    pub ready: u64,
    /// Whether more will come.
    pub end: End,
}

/// Whether more will come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// Yes.
    Open,
    /// All is there.
    Whole,
    /// It broke off, or is not what was promised.
    Broken,
}

/// A content while it arrives.
pub struct Arriving {
    /// Status of the answer.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Request fields it depends on.
    pub selecting: Selecting,
    /// Where it is written.
    pub file: Arc<File>,
    /// When it was asked for, in seconds since 1970.
    pub(crate) asked_at: u64,
    /// Size of the whole, when the origin said it.
    pub size: Option<u64>,
    /// How far it is.
    pub progress: watch::Sender<Progress>,
    pub(crate) prelude: Vec<u8>,
    /// Its last bytes are held back until it has proved right, or what it promises is known.
    pub(crate) hold: bool,
}

/// A small answer for everybody who waits.
pub struct Small {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// Content.
    pub body: Bytes,
}

/// How far a flight is.
#[derive(Clone)]
pub enum Phase {
    /// The origin was asked.
    Asking,
    /// The content arrives.
    Arriving(Arc<Arriving>),
    /// It is stored. The second: how it came to that.
    Entry(Arc<Entry>, How),
    /// The same small answer for all.
    Small(Arc<Small>),
    /// Not to be shared; the word says why.
    Private(&'static str),
    /// No answer; the status to give and why.
    Failed(u16, Arc<str>),
}

/// How a flight came to a stored entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum How {
    /// The origin said it still holds.
    Validated,
    /// It was fetched.
    Fetched,
    /// It is stale, but the origin gave an error or nothing.
    StaleIfError,
}

/// One request to the origin and all who wait for it.
pub struct Flight {
    pub(crate) phase: watch::Sender<Phase>,
}

/// The flights under way.
#[derive(Default)]
pub struct Flights(Mutex<HashMap<String, Arc<Flight>>>);

/// A place in a flight.
pub struct Seat {
    /// The flight.
    pub flight: Arc<Flight>,
    /// The first client's alone: an answer that is not to be shared.
    pub private: Option<oneshot::Receiver<Response<Incoming>>>,
    /// The first client's alone: the other end of `private`, for the flight's task.
    pub lead: Option<oneshot::Sender<Response<Incoming>>>,
}

impl Flights {
    /// Joins the flight of this name or begins one.
    pub fn board(&self, name: &str) -> Seat {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = flights.get(name) {
            return Seat {
                flight: flight.clone(),
                private: None,
                lead: None,
            };
        }
        let flight = Arc::new(Flight {
            phase: watch::channel(Phase::Asking).0,
        });
        flights.insert(name.to_owned(), flight.clone());
        let (lead, private) = oneshot::channel();
        Seat {
            flight,
            private: Some(private),
            lead: Some(lead),
        }
    }

    /// Ends the flight of this name: whoever comes now does not join it.
    pub fn land(&self, name: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// Whether this very flight is still under way.
    pub(crate) fn is_flying(&self, name: &str, flight: &Arc<Flight>) -> bool {
        let flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        flights.get(name).is_some_and(|other| Arc::ptr_eq(other, flight))
    }

    /// How many are under way.
    pub fn count(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

/// Lands the flight also when its task is dropped or panics: nobody shall wait for it for ever.
pub(crate) struct Landing<'a> {
    pub(crate) flights: &'a Flights,
    pub(crate) name: &'a str,
    pub(crate) flight: &'a Flight,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        self.flights.land(self.name);
        self.flight.phase.send_if_modified(|phase| {
            let forgotten = matches!(phase, Phase::Asking);
            if forgotten {
                *phase = Phase::Failed(502, "the fetch was given up".into());
            }
            forgotten
        });
    }
}
