//! The appliance's face to people and programs: the HTTPS API, the page, the event stream, and the client the
//! command line uses. Holds no state of its own beyond sessions of the page; everything shown comes from
//! [`rackbar_orchestrator::Rack`].
//!
//! The API follows RFC 9110 (HTTP), RFC 9457 (problems) and OpenAPI 3.1; `openapi.json` beside this crate is what it
//! promises, and a test compares.

mod accounts;
mod api;
mod auth;
mod boot;
mod cache;
mod captures;
pub mod client;
mod hardware;
pub mod operations;
mod packs;
mod page;
mod places;
mod profiles;
mod programs;
mod registrations;
mod repositories;
mod saved;
mod server;
mod storage;
mod webhooks;
mod words;

use std::sync::Arc;

use rackbar_orchestrator::Rack;

pub use api::{AtConsole, ConsoleDeed, openapi_json};
pub use auth::{Access, Role, Token, TokenEntry, TokenError};
pub use server::{Handle, Limits, Listeners, ServeError, serve, serve_boot};

/// What the API says about the appliance itself.
#[derive(Clone, Debug)]
pub struct About {
    /// The site's name from its configuration.
    pub site: String,
    /// Version of this program.
    pub version: String,
    /// SHA-256 of the site CA certificate, in hexadecimal: what an operator compares with the console.
    pub fingerprint: String,
    /// True when state is lost with the power: there is no data partition.
    pub volatile: bool,
}

/// Everything a request handler needs.
#[derive(Clone)]
pub struct Context {
    /// The live view of the rack.
    pub rack: Rack,
    /// The appliance.
    pub about: Arc<About>,
    /// What a person can ask for beyond looking.
    pub operations: Arc<dyn operations::Operations>,
    /// Who may do what.
    pub access: Arc<Access>,
    /// Prometheus text of the services' own counters, appended to `/metrics`.
    pub counters: Arc<dyn Fn() -> String + Send + Sync>,
}
