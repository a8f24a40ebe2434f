//! `rackbar lease ...` and `rackbar service ...`

use anyhow::Result;
use clap::Subcommand;
use rackbar_control::client::Client;
use rackbar_control::operations::BootControl;
use rackbar_model::{Lease, ServiceStatus};

use super::output;

/// What to do with leases.
#[derive(Debug, Subcommand)]
pub enum LeaseCommand {
    /// List the DHCP leases
    List,
}

/// What to do with services.
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Show what each service does now
    Status,
    /// Show how many machines fetch boot files, how many may at a time, and who waits
    Boot,
}

/// Prints the leases.
pub async fn leases(client: &Client, command: &LeaseCommand, as_json: bool) -> Result<()> {
    let LeaseCommand::List = command;
    let leases: Vec<Lease> = client.list("/api/v1/leases").await?;
    if as_json {
        return output::json(&leases);
    }
    let mut table = output::table(&["ADDRESS", "MAC", "NETWORK", "HOST NAME", "STATE", "ENDS"]);
    for lease in leases {
        table.add_row(vec![
            lease.address.to_string(),
            lease.mac.to_string(),
            lease.network,
            output::plain(&lease.hostname.unwrap_or_default()),
            format!("{:?}", lease.state).to_lowercase(),
            lease.expires.to_string(),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// Prints the services.
pub async fn services(client: &Client, command: &ServiceCommand, as_json: bool) -> Result<()> {
    if matches!(command, ServiceCommand::Boot) {
        return boot(client, as_json).await;
    }
    let services: Vec<ServiceStatus> = client.list("/api/v1/services").await?;
    if as_json {
        return output::json(&services);
    }
    let mut table = output::table(&["SERVICE", "NOW", "SINCE"]);
    for service in services {
        table.add_row(vec![
            service.name.into(),
            output::severity(output::plain(&service.state), service.severity),
            service.since.to_string().into(),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// Prints how busy the servers of boot files are.
async fn boot(client: &Client, as_json: bool) -> Result<()> {
    let boot: BootControl = client.get("/api/v1/boot").await?;
    if as_json {
        return output::json(&boot);
    }
    let mut table = output::table(&["SERVER", "SERVED NOW", "AT MOST", "WAITING", "TIMES FULL"]);
    for server in boot.servers {
        table.add_row(vec![
            server.name,
            server.taken.to_string(),
            server.limit.to_string(),
            server.waiting.to_string(),
            server.full.to_string(),
        ]);
    }
    println!("{table}");
    if !boot.waiting.is_empty() {
        let mut table = output::table(&["NEXT", "AT", "FROM", "MAC", "SECONDS"]);
        for one in boot.waiting {
            table.add_row(vec![
                one.node.unwrap_or_default(),
                one.server,
                one.client.to_string(),
                one.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                one.seconds.map(|seconds| seconds.to_string()).unwrap_or_default(),
            ]);
        }
        println!("{table}");
    }
    if !boot.again.is_empty() {
        let mut table = output::table(&["ASKS AGAIN", "FROM", "MAC", "FOR", "TIMES", "LAST (S AGO)", "PAUSE (S)"]);
        for one in boot.again {
            table.add_row(vec![
                one.node.unwrap_or_default(),
                one.client.to_string(),
                one.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                output::plain(&one.what),
                one.times.to_string(),
                one.seconds.to_string(),
                one.pause.to_string(),
            ]);
        }
        println!("{table}");
    }
    Ok(())
}
