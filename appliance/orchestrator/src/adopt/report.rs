//! What our agent printed on a machine that is to be adopted, read. The machine is somebody else's: any text may come.

use rackbar_model::MachineReport;

/// Reads it: the last line, behind what the agent may have said of a part that it could not read.
pub(super) fn read(output: &str) -> Result<MachineReport, String> {
    let line = output.lines().rfind(|line| !line.trim().is_empty());
    let line = line.ok_or("it printed nothing")?;
    serde_json::from_str(line).map_err(|error| error.to_string())
}
