//! The command line: a client of the API like any other. Data goes to standard output, everything else to standard
//! error; `--json` gives what the API gives. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 not allowed,
//! 5 the appliance could not be reached, 6 it does not go together with how things are now, such as a plan that no longer
//! fits or lacks consent.

mod accounts;
mod adopt;
mod answers;
mod burn_in;
mod cache;
mod capture;
mod connect;
mod console;
mod events;
mod handoff;
mod hardware;
mod images;
mod kept;
mod log;
mod media;
mod nodes;
mod output;
mod packs;
mod plans;
mod profiles;
mod programs;
mod proof;
mod refresh;
mod registrations;
mod repositories;
mod runs;
mod secrets;
mod services;
mod site;
mod state;
mod storage;
mod support;
mod tokens;
mod webhooks;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use rackbar_control::client::{Client, ClientError};

pub use connect::{Login, SOCKET};

/// Options of every command that talks to an appliance.
#[derive(Debug, Args)]
pub struct Global {
    /// The appliance, as host or host:port; on the appliance itself nothing is needed
    #[arg(
        long,
        global = true,
        env = "RACKBAR_ENDPOINT",
        help_heading = "Which appliance, and how it answers",
        value_name = "HOST[:PORT]"
    )]
    endpoint: Option<String>,
    /// SHA-256 of the site CA certificate, from the appliance's console
    #[arg(
        long,
        global = true,
        env = "RACKBAR_FINGERPRINT",
        help_heading = "Which appliance, and how it answers",
        value_name = "HEX"
    )]
    fingerprint: Option<String>,
    /// File that holds the token; `-` reads it from standard input
    #[arg(
        long,
        global = true,
        env = "RACKBAR_TOKEN_FILE",
        help_heading = "Which appliance, and how it answers",
        value_name = "FILE"
    )]
    token_file: Option<String>,
    /// Print JSON, as the API gives it
    #[arg(long, global = true, help_heading = "Which appliance, and how it answers")]
    json: bool,
}

/// Commands that talk to an appliance.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// See and switch the machines of the rack
    #[command(subcommand)]
    Node(nodes::Command),
    /// Check, set and compare the site file
    #[command(subcommand)]
    Site(site::Command),
    /// See which rule fits which machine
    #[command(subcommand)]
    Rule(site::RuleCommand),
    /// Say what would be done to make the rack as the site file wants it
    Plan(plans::Options),
    /// Carry a plan out
    Commit(plans::Commit),
    /// Install an operating system without a site file
    Install(plans::InstallOptions),
    /// Take a machine in that somebody else installed, as it is
    Adopt(adopt::Options),
    /// Exercise the hardware of machines, and take them back to what they were
    BurnIn(burn_in::Options),
    /// See, pause and cancel what is under way
    #[command(subcommand)]
    Run(runs::Command),
    /// Manage the operating systems that can be installed
    #[command(subcommand)]
    Os(images::Command),
    /// Manage the programs that steps of the site file run
    #[command(subcommand)]
    Program(programs::Command),
    /// See, lock and check the site's own package repositories
    #[command(subcommand)]
    Repository(repositories::Command),
    /// Check machines now
    Verify(proof::Options),
    /// See signed reports, and check one offline
    #[command(subcommand)]
    Report(proof::ReportCommand),
    /// See the appliance's own disks, and have it keep its state on one
    #[command(subcommand)]
    Storage(storage::Command),
    /// Save the whole state as one sealed file
    Export(state::Export),
    /// Put a saved state in the place of this appliance's own
    Import(state::Import),
    /// Make one file for somebody elsewhere: logs, events, machines, configuration without secrets
    SupportBundle(support::Options),
    /// See and change how the stored passwords and keys are locked
    #[command(subcommand)]
    Secrets(secrets::Command),
    /// Give the passphrase to an appliance that waits for it; on the appliance itself
    Unlock(secrets::Unlock),
    /// Hand the rack over to other tools
    #[command(subcommand)]
    Handoff(state::Handoff),
    /// Manage who may use the appliance
    #[command(subcommand)]
    Token(tokens::Command),
    /// See who changed what
    Audit(tokens::Audit),
    /// See and keep what the caching proxy has stored
    #[command(subcommand)]
    Cache(cache::Command),
    /// Carry operating systems and packages to where there is no network
    #[command(subcommand)]
    Pack(packs::Command),
    /// Check downloaded media of Rackbar
    #[command(subcommand)]
    Media(media::Command),
    /// See how machines of a kind are treated, and whose word that is
    #[command(subcommand)]
    Profile(profiles::Command),
    /// See which services are registered elsewhere, and give the registry's token
    #[command(subcommand)]
    Registration(registrations::Command),
    /// See the webhooks, and give them secrets
    #[command(subcommand)]
    Webhook(webhooks::Command),
    /// See the DHCP leases
    #[command(subcommand)]
    Lease(services::LeaseCommand),
    /// See how the appliance's services are doing
    #[command(subcommand)]
    Service(services::ServiceCommand),
    /// Capture packets on the rack's networks, or get what is kept of the last boots
    Capture(capture::Options),
    /// See and search the logs that machines sent
    Log(log::Options),
    /// See what happened, and what happens
    Events(events::Options),
    /// Remember an appliance and its token for later commands
    Login(Login),
}

/// Runs a command; the exit code tells how it went.
pub async fn run(global: &Global, command: &Command) -> ExitCode {
    ended(dispatch(global, command).await)
}

/// Prints what is recorded of a machine's serial console.
pub async fn console_record(global: &Global, node: &str) -> ExitCode {
    let printed = async { console::record(&Client::new(connect::endpoint(global)?)?, node).await };
    ended(printed.await)
}

/// Looks on at a machine's serial console.
pub async fn look_on(global: &Global, node: &str) -> ExitCode {
    let looked = async { console::look_on(&Client::new(connect::endpoint(global)?)?, node).await };
    ended(looked.await)
}

fn ended(result: anyhow::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            if let Some(ClientError::Refused { lines, .. }) = error.downcast_ref::<ClientError>() {
                lines.iter().for_each(|line| eprintln!("  {}", output::plain(line)));
            }
            exit_code(&error)
        }
    }
}

async fn dispatch(global: &Global, command: &Command) -> anyhow::Result<()> {
    if let Command::Login(login) = command {
        return connect::log_in(global, login).await;
    }
    if let Command::Media(command) = command {
        return media::run(command, global.json);
    }
    if let Command::Report(proof::ReportCommand::Check(options)) = command {
        return proof::check_file(options, global.json);
    }
    if let Command::Site(command) = command
        && let Some(done) = site::alone(command, global.json)
    {
        return done;
    }
    match command {
        Command::Verify(options) if options.list => return proof::list_checks(global.json),
        Command::Pack(packs::Command::Verify { name }) if packs::file_named(name).is_some() => {
            return packs::file_named(name).map_or(Ok(()), |file| packs::verify_file(file, global.json));
        }
        Command::Unlock(options) => return secrets::unlock(options).await,
        Command::Secrets(secrets::Command::Read(options)) => return secrets::read(options, global.json),
        _ => {}
    }
    let client = Client::new(connect::endpoint(global)?)?;
    match command {
        Command::Node(command) => nodes::run(&client, command, global.json).await,
        Command::Site(command) => site::run(&client, command, global.json).await,
        Command::Rule(command) => site::rules(&client, command, global.json).await,
        Command::Plan(options) => plans::plan(&client, options, global.json).await,
        Command::Commit(options) => plans::commit(&client, options, global.json).await,
        Command::Install(options) => plans::install(&client, options, global.json).await,
        Command::Adopt(options) => adopt::run(&client, options, global.json).await,
        Command::BurnIn(options) => burn_in::run(&client, options, global.json).await,
        Command::Run(command) => runs::run(&client, command, global.json).await,
        Command::Os(command) => images::run(&client, command, global.json).await,
        Command::Program(command) => programs::run(&client, command, global.json).await,
        Command::Repository(command) => repositories::run(&client, command, global.json).await,
        Command::Verify(options) => proof::verify(&client, options, global.json).await,
        Command::Report(command) => proof::reports(&client, command, global.json).await,
        Command::Export(options) => state::export(&client, options).await,
        Command::Import(options) => state::import(&client, options).await,
        Command::SupportBundle(options) => support::run(&client, options).await,
        Command::Secrets(command) => secrets::run(&client, command, global.json).await,
        Command::Handoff(command) => state::hand_off(&client, command, global.json).await,
        Command::Storage(command) => storage::run(&client, command, global.json).await,
        Command::Token(command) => tokens::run(&client, command, global.json).await,
        Command::Audit(options) => tokens::audit(&client, options, global.json).await,
        Command::Cache(command) => cache::run(&client, command, global.json).await,
        Command::Pack(command) => packs::run(&client, command, global.json).await,
        Command::Profile(command) => profiles::run(&client, command, global.json).await,
        Command::Registration(command) => registrations::run(&client, command, global.json).await,
        Command::Webhook(command) => webhooks::run(&client, command, global.json).await,
        Command::Lease(command) => services::leases(&client, command, global.json).await,
        Command::Service(command) => services::services(&client, command, global.json).await,
        Command::Capture(options) => capture::run(&client, options).await,
        Command::Log(options) => log::run(&client, options, global.json).await,
        Command::Events(options) => events::run(&client, options, global.json).await,
        Command::Login(_) | Command::Unlock(_) | Command::Media(_) => Ok(()),
    }
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    match error.downcast_ref::<ClientError>() {
        Some(ClientError::Refused { status: 404, .. }) => ExitCode::from(3),
        Some(ClientError::Refused { status: 401 | 403, .. }) => ExitCode::from(4),
        Some(ClientError::Refused { status: 409 | 428, .. }) => ExitCode::from(6),
        Some(ClientError::Unreachable { .. }) => ExitCode::from(5),
        _ => ExitCode::FAILURE,
    }
}

/// It was asked for and answered, and the answer is that it is not well: exit code 1.
#[derive(Debug)]
pub struct Failed(pub String);

impl std::fmt::Display for Failed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failed {}

/// Text as one segment of a path: everything but letters, digits and `-._~` in percent encoding (RFC 3986 section 2.1).
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place_in_a_path() {
        assert_eq!(segment("node-001"), "node-001");
        assert_eq!(segment("../x?a=b/ä"), "..%2Fx%3Fa%3Db%2F%C3%A4");
    }
}
