//! The program on the appliance and on an operator's laptop: daemon, console screen and command line in one binary.

mod cli;
mod config;
mod console;
mod daemon;
mod mistakes;

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
    /// A machine's serial console, live; without a machine, the appliance's own screen
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

/// Ends quietly when who reads our output has had enough, as in `rackbar events | head`. Not by SIGPIPE: that would also
/// end us when an appliance hangs up.
fn end_with_the_reader() {
    /// 128 and the number of SIGPIPE, as a shell has it.
    const READER_LEFT: i32 = 141;
    let otherwise = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let words = panic.payload_as_str().unwrap_or_default();
        if words.starts_with("failed printing to stdout") && words.contains("Broken pipe") {
            std::process::exit(READER_LEFT);
        }
        otherwise(panic);
    }));
}

#[tokio::main]
async fn main() -> ExitCode {
    end_with_the_reader();
    let arguments = Arguments::parse();
    match arguments.program {
        Program::Daemon(options) => match daemon::run(*options).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
        Program::Console(options) if options.node.is_some() => {
            let node = options.node.unwrap_or_default();
            if options.record {
                cli::console_record(&arguments.global, &node).await
            } else {
                cli::look_on(&arguments.global, &node).await
            }
        }
        Program::Console(options) => match console::run(&options).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
        Program::Completion { shell } => {
            // Into memory first: writing to a reader that left would be a panic inside.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "rackbar", &mut script);
            print!("{}", String::from_utf8_lossy(&script));
            ExitCode::SUCCESS
        }
        Program::Client(command) => cli::run(&arguments.global, &command).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The commands that do something, as `node list`.
    fn leaves(command: &clap::Command, before: &[String], found: &mut Vec<Vec<String>>) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let path = [before, &[sub.get_name().to_owned()]].concat();
            if sub.has_subcommands() {
                leaves(sub, &path, found);
            } else {
                found.push(path);
            }
        }
    }

    #[test]
    fn every_command_is_in_the_documentation() {
        let page = include_str!("../../../docs/api.md");
        let page = page.split("## Command line").nth(1).unwrap();
        // Several commands may share a line, and several last words a command: `rackbar run list|show`.
        let told: Vec<Vec<&str>> = page
            .split("rackbar ")
            .skip(1)
            .map(|rest| rest.lines().next().unwrap_or_default())
            .map(|line| line.split([' ', '|', ';']).filter(|word| !word.is_empty()).collect())
            .collect();
        let mut commands = Vec::new();
        leaves(&Arguments::command(), &[], &mut commands);
        assert!(commands.len() > 40, "{commands:?}");
        let missing: Vec<_> = commands
            .iter()
            .filter(|path| path[0] != "daemon")
            .filter(|path| {
                !told.iter().any(|words| {
                    words.first() == Some(&path[0].as_str()) && path.iter().all(|word| words.contains(&word.as_str()))
                })
            })
            .map(|path| path.join(" "))
            .collect();
        assert!(missing.is_empty(), "docs/api.md does not name: {missing:#?}");
    }
}
