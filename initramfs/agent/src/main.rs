//! The agent of a node: looks at the machine, reports to the appliance, obeys. See the library's description. With
//! `--report` it looks once at the machine that it was brought to, prints what it found as JSON, and ends.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [] => rackbar_agent::run(),
        [one] if one == "--report" => rackbar_agent::report_once(),
        _ => {
            eprintln!("rackbar-agent: no arguments make it a node's agent; --report looks once and prints JSON");
            ExitCode::from(2)
        }
    }
}
