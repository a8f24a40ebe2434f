//! One look at a machine whose system somebody else installed. Nothing is changed there, and nobody is called: the report
//! goes to standard output, where whoever brought the agent reads it.

use std::io::Write as _;
use std::process::ExitCode;

use rackbar_hardware::{Root, running};
use rackbar_model::MachineReport;

use crate::facts;

/// Looks once and prints a [`MachineReport`] as one line of JSON. Not zero when it could not be printed.
pub fn report_once() -> ExitCode {
    let printed = serde_json::to_vec(&report(&Root::default())).map_err(std::io::Error::other);
    let printed = printed.and_then(|mut json| {
        json.push(b'\n');
        std::io::stdout().lock().write_all(&json)
    });
    match printed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rackbar-agent: the report could not be printed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(root: &Root) -> MachineReport {
    let inventory = facts::look_once(root);
    let system = running::read(root, &inventory.disks);
    MachineReport { inventory, system }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_is_looked_at_and_the_report_can_be_read_again() {
        let report = report(&Root::default());
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        assert_eq!(report.system.kernel, kernel.trim());
        assert!(report.inventory.memory.total_bytes > 0);
        let json = serde_json::to_vec(&report).unwrap();
        assert_eq!(serde_json::from_slice::<MachineReport>(&json).unwrap(), report);
    }
}
