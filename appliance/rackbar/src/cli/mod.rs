//! The command line: a client of the API like any other. Data goes to standard output, everything else to standard
//! error; `--json` gives what the API gives. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 not allowed,
//! 5 the appliance could not be reached.

mod connect;
mod events;
mod nodes;
mod output;
mod services;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use rackbar_control::client::{Client, ClientError};

pub use connect::{Login, SOCKET};

/// Options of every command that talks to an appliance.
#[derive(Debug, Args)]
pub struct Global {
    /// The appliance, as host or host:port; on the appliance itself nothing is needed
    #[arg(long, global = true, env = "RACKBAR_ENDPOINT", value_name = "HOST[:PORT]")]
    endpoint: Option<String>,
    /// SHA-256 of the site CA certificate, from the appliance's console
    #[arg(long, global = true, env = "RACKBAR_FINGERPRINT", value_name = "HEX")]
    fingerprint: Option<String>,
    /// File that holds the token; `-` reads it from standard input
    #[arg(long, global = true, env = "RACKBAR_TOKEN_FILE", value_name = "FILE")]
    token_file: Option<String>,
    /// Print JSON, as the API gives it
    #[arg(long, global = true)]
    json: bool,
}

/// Commands that talk to an appliance.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See and switch the machines of the rack
    #[command(subcommand)]
    Node(nodes::Command),
    /// See the DHCP leases
    #[command(subcommand)]
    Lease(services::LeaseCommand),
    /// See how the appliance's services are doing
    #[command(subcommand)]
    Service(services::ServiceCommand),
    /// See what happened, and what happens
    Events(events::Options),
    /// Remember an appliance and its token for later commands
    Login(Login),
}

/// Runs a command; the exit code tells how it went.
pub async fn run(global: &Global, command: &Command) -> ExitCode {
    match dispatch(global, command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            exit_code(&error)
        }
    }
}

async fn dispatch(global: &Global, command: &Command) -> anyhow::Result<()> {
    if let Command::Login(login) = command {
        return connect::log_in(global, login).await;
    }
    let client = Client::new(connect::endpoint(global)?)?;
    match command {
        Command::Node(command) => nodes::run(&client, command, global.json).await,
        Command::Lease(command) => services::leases(&client, command, global.json).await,
        Command::Service(command) => services::services(&client, command, global.json).await,
        Command::Events(options) => events::run(&client, options, global.json).await,
        Command::Login(_) => Ok(()),
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused { status: 404, .. }) => ExitCode::from(3),
        Some(ClientError::Refused { status: 401 | 403, .. }) => ExitCode::from(4),
        Some(ClientError::Unreachable { .. }) => ExitCode::from(5),
        _ => ExitCode::FAILURE,
    }
}
