//! `cargo xtask VERB`: the one door for developers and CI. One file per verb; this file only picks the verb.

mod bench;
mod beside;
mod check;
mod fuzz;
mod image;
mod os_image;
mod pack;
mod project;
mod rack;
mod setup;
mod sign;
mod step;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Build, run and check Rackbar.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

/// One variant per verb; each verb's file holds its `Arguments` and a `run`.
#[derive(Debug, Subcommand)]
enum Verb {
    /// Install or fetch whatever the other verbs need, saying what and why
    Setup(setup::Arguments),
    /// Build the boot media and everything on them into target/image
    Image(image::Arguments),
    /// Sign the boot media, so that who downloads them can check them
    Sign(sign::Arguments),
    /// Build an image of an operating system for the nodes into target/os
    OsImage(os_image::Arguments),
    /// Make a data pack of an operating system and of packages for it in target/packs
    Pack(pack::Arguments),
    /// Start a virtual rack with the appliance in it, and watch its machines come up
    Rack(rack::Arguments),
    /// Run every test, from unit tests to whole racks in QEMU
    Test(test::Arguments),
    /// Measure the network services against dnsmasq, tftpd-hpa and nginx
    Bench(bench::Arguments),
    /// Fuzz everything that reads bytes from outside
    Fuzz(fuzz::Arguments),
    /// Check formatting, lints, documentation, dependencies and the rules of this repository
    Check,
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().verb {
        Verb::Setup(arguments) => setup::run(&arguments),
        Verb::Image(arguments) => image::run(&arguments),
        Verb::Sign(arguments) => sign::run(&arguments),
        Verb::OsImage(arguments) => os_image::run(&arguments),
        Verb::Pack(arguments) => pack::run(&arguments),
        Verb::Rack(arguments) => rack::run(&arguments),
        Verb::Test(arguments) => test::run(&arguments),
        Verb::Bench(arguments) => bench::run(&arguments),
        Verb::Fuzz(arguments) => fuzz::run(&arguments),
        Verb::Check => check::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
