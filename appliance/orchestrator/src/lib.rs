//! The live view of the rack: which machines there are, what state each is in, what happened to it, and the
//! conversations with their agents and BMCs.
//!
//! [`Rack`] is the handle everyone holds. Inside, one synchronous [`mind`](mod@mind) takes what services, agents and BMCs
//! saw and changes the view; [`identity`] and [`state`] are its pure judgement. The journal in the store comes before
//! subscribers: whoever is told of an event can read it again, save those of a flood that it does not keep ([`floods`](mod@floods)).

pub mod adopt;
pub mod agents;
pub mod answers;
mod begun;
pub mod bmc;
mod bmc_accounts;
mod bmc_clock;
mod bmc_login;
pub mod desk;
pub mod devices;
pub mod enrolments;
pub mod executor;
pub mod hands;
pub mod identity;
pub mod repositories;
pub mod state;
pub mod ways;

mod console;
mod course;
mod doors;
mod error;
mod facts;
mod firmware;
mod floods;
mod hardware;
mod held;
mod installs;
mod jobs;
mod knowledge;
mod mind;
mod pins;
mod ports;
mod power;
mod rack;
mod record;
mod records;
mod serving;
mod settings;
mod tokens;
mod wrong;

pub use console::{Consoles, Watcher};
pub use desk::{Desk, DeskOptions};
pub use devices::Devices;
pub use error::{PowerError, RenameError};
pub use executor::Executor;
pub use knowledge::BmcSight;
pub use power::PowerWay;
pub use rack::{Options, Rack};
pub use settings::{Network, Role, Settings, Unknown};
