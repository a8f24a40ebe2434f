//! `rackbar burn-in`

use anyhow::Result;
use clap::Args;
use rackbar_control::client::Client;
use rackbar_control::operations::PlanRequest;
use rackbar_model::BurnIn;

use super::{packs, plans};

/// What to exercise, and for how long.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rackbar burn-in node-001\n  \
    rackbar burn-in node-001 node-002 --cpu 2h --memory 8h --disk 1h --detach\n  \
    rackbar burn-in db-1 --cpu 0 --memory 1h --disk 0\n\n\
    The parts are exercised one after the other, on all named machines at the same time. An installed machine is restarted \
    into Rackbar's agent for it and back into its system afterwards; disks are only read. A machine whose hardware does not \
    bear it stays in the agent and is not ready. Exit code 1 when one does not.")]
pub struct Options {
    /// Machines
    #[arg(required = true)]
    nodes: Vec<String>,
    /// Time for the processors: 30s, 10m, 2h, 1d; 0 leaves them out
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = seconds)]
    cpu: u32,
    /// Time for the memory; 0 leaves it out
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = seconds)]
    memory: u32,
    /// Time for the disks, which are read; 0 leaves them out
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = seconds)]
    disk: u32,
    /// Do not wait for the end
    #[arg(long)]
    detach: bool,
}

/// Reads `10m`, and `0`.
pub(super) fn seconds(text: &str) -> Result<u32, String> {
    if text == "0" {
        return Ok(0);
    }
    let time = packs::duration(text)?;
    u32::try_from(time.as_secs()).map_err(|_| format!("{text:?} is more than a century"))
}

/// Runs it.
pub async fn run(client: &Client, options: &Options, as_json: bool) -> Result<()> {
    let request = PlanRequest {
        nodes: options.nodes.clone(),
        burn_in: Some(BurnIn {
            cpu_seconds: options.cpu,
            memory_seconds: options.memory,
            disk_seconds: options.disk,
        }),
        ..PlanRequest::default()
    };
    plans::at_once(client, &request, &[], options.detach, as_json).await
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn times_are_written_with_their_unit_and_nothing_is_no_time() {
        assert_eq!(
            (seconds("10m"), seconds("2h"), seconds("0")),
            (Ok(600), Ok(7200), Ok(0))
        );
        for wrong in ["10", "", "m", "-1s", "99999999d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
