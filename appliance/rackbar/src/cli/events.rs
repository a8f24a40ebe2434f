//! `rackbar events`

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use rackbar_control::client::{Client, ClientError};
use serde::Deserialize;
use serde_json::Value;

use super::nodes::Worded;
use super::{output, segment};

/// Waiting before the stream is taken up again after it broke, so that a restarting appliance is not hammered.
const AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Which events.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rackbar events --follow\n  rackbar events --node node-002 --json")]
pub struct Options {
    /// Go on and print events as they happen
    #[arg(long, short)]
    follow: bool,
    /// Only events of this machine: name, id or MAC address
    #[arg(long)]
    node: Option<String>,
    /// Only events after this number
    #[arg(long, value_name = "NUMBER")]
    after: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

#[derive(Deserialize)]
struct Items {
    items: Vec<Value>,
}

/// Prints events.
pub async fn run(client: &Client, options: &Options, as_json: bool) -> Result<()> {
    let node = options
        .node
        .as_ref()
        .map(|node| format!("&node={}", segment(node)))
        .unwrap_or_default();
    let after = options.after.map(|after| format!("&after={after}")).unwrap_or_default();
    let items: Items = client
        .get(&format!("/api/v1/events?limit={}{node}{after}", options.limit))
        .await?;
    let mut last = options.after.unwrap_or(0);
    for item in items.items {
        last = last.max(print(item, as_json)?);
    }
    if !options.follow {
        return Ok(());
    }
    loop {
        match follow(client, &node, &mut last, as_json).await {
            Ok(()) => eprintln!("the appliance ended the stream; taking it up again"),
            // The token is gone, or may not: asking again would not change that.
            Err(error)
                if matches!(
                    error.downcast_ref(),
                    Some(ClientError::Refused { status: 401 | 403, .. })
                ) =>
            {
                return Err(error);
            }
            Err(error) => eprintln!("{error:#}; trying again"),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn follow(client: &Client, node: &str, last: &mut u64, as_json: bool) -> Result<()> {
    let mut stream = client
        .follow(&format!("/api/v1/events/stream?after={last}{node}"))
        .await?;
    while let Some(event) = stream.next().await? {
        // Not the greater of both: an appliance that lost its state begins its numbers anew.
        *last = print(serde_json::from_str(&event)?, as_json)?;
    }
    Ok(())
}

/// Prints one event, gives its number. As JSON, one object a line.
fn print(event: Value, as_json: bool) -> Result<u64> {
    if as_json {
        println!("{event}");
        return Ok(event.get("seq").and_then(Value::as_u64).unwrap_or(0));
    }
    let Worded { event, text } = serde_json::from_value(event)?;
    let about = event.mac.map(|mac| mac.to_string()).unwrap_or_default();
    let line = format!("{}  {about:17}  {}", event.at, output::plain(&text));
    println!("{}", output::line(&line, event.kind.severity()));
    Ok(event.seq)
}
