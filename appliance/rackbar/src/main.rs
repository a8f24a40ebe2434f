//! The program on the appliance and on an operator's laptop: daemon, console screen and command line in one binary.

mod cli;
mod config;
mod console;
mod daemon;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

/// Takes a rack from bare metal to ready state.
#[derive(Debug, Parser)]
#[command(name = "rackbar", version, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    global: cli::Global,
    #[command(subcommand)]
    program: Program,
}

/// What to be.
#[derive(Debug, Subcommand)]
enum Program {
    /// Be the appliance: serve the rack until told to stop
    Daemon(Box<daemon::Options>),
    /// Draw the appliance's screen on a console
    Console(console::Options),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  rackbar completion bash > /etc/bash_completion.d/rackbar")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
    #[command(flatten)]
    Client(cli::Command),
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match arguments.program {
        Program::Daemon(options) => match daemon::run(*options).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
        Program::Console(options) => match console::run(&options).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
        Program::Completion { shell } => {
            clap_complete::generate(shell, &mut Arguments::command(), "rackbar", &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Program::Client(command) => cli::run(&arguments.global, &command).await,
    }
}
