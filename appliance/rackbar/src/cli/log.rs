//! `rackbar log`

use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::Args;
use rackbar_control::client::{Client, ClientError};
use rackbar_control::operations::{LogLine, LogPage};
use rackbar_model::Severity;

use super::{output, segment};

/// After the appliance did not answer.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

/// Which messages.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rackbar log node-002 --follow\n  rackbar log --severity err --since 2h\n  \
    rackbar log node-002 --grep \"failed password\" --json\n\n\
    Machines send their logs here on networks where rackbar.toml or the site file says syslog = \"own\"."
)]
pub struct Options {
    /// Only messages of this machine: name, id or MAC address
    node: Option<String>,
    /// Go on and print messages as they come
    #[arg(long, short)]
    follow: bool,
    /// Not older than this, such as 90s, 15m, 2h or 3d
    #[arg(long, value_name = "AGE", value_parser = age)]
    since: Option<u64>,
    /// At least this bad: emerg, alert, crit, err, warning, notice, info, debug
    #[arg(long)]
    severity: Option<String>,
    /// With this text, upper and lower case being the same
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// At most so many to begin with
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    limit: u16,
}

/// Seconds of an age.
fn age(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (&text[..at], 1),
        Some((at, 'm')) => (&text[..at], 60),
        Some((at, 'h')) => (&text[..at], 3600),
        Some((at, 'd')) => (&text[..at], 86_400),
        _ => (text, 1),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    seconds.ok_or_else(|| format!("{text:?} is no age: write 90s, 15m, 2h or 3d"))
}

/// Prints messages.
pub async fn run(client: &Client, options: &Options, as_json: bool) -> Result<()> {
    let mut query = String::new();
    let fields = [
        ("node", &options.node),
        ("severity", &options.severity),
        ("grep", &options.grep),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            query += &format!("&{name}={}", segment(value));
        }
    }
    let since = options
        .since
        .map(|seconds| format!("&since_seconds={seconds}"))
        .unwrap_or_default();
    let (lines, mut last) = newest(client, &format!("{query}{since}"), usize::from(options.limit)).await?;
    for line in &lines {
        print(line, as_json)?;
    }
    if !options.follow {
        return Ok(());
    }
    loop {
        match follow(client, &query, &mut last, as_json).await {
            Ok(()) => eprintln!("the appliance ended the stream; taking it up again"),
            // What is refused would be refused again, such as a token that is gone.
            Err(error) if matches!(error.downcast_ref(), Some(ClientError::Refused { .. })) => return Err(error),
            Err(error) => eprintln!("{error:#}; trying again"),
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

/// The newest messages, oldest first, from as many looks as it takes; and the number behind which what comes is new.
async fn newest(client: &Client, query: &str, limit: usize) -> Result<(Vec<LogLine>, u64)> {
    let (mut lines, mut newest, mut place) = (Vec::new(), None, String::new());
    loop {
        let left = limit - lines.len();
        let page: LogPage = client.get(&format!("/api/v1/logs?limit={left}{query}{place}")).await?;
        newest.get_or_insert(page.newest);
        lines = [page.items, lines].concat();
        if !page.more || lines.len() >= limit {
            return Ok((lines, newest.unwrap_or_default()));
        }
        place = format!("&before={}", page.position);
    }
}

async fn follow(client: &Client, query: &str, last: &mut u64, as_json: bool) -> Result<()> {
    let mut stream = client
        .follow(&format!("/api/v1/logs/stream?after={last}{query}"))
        .await?;
    while let Some(line) = stream.next().await? {
        let line: LogLine = serde_json::from_str(&line)?;
        print(&line, as_json)?;
        // Not the greater of both: logs that went with the power begin their numbers anew.
        *last = line.seq;
    }
    Ok(())
}

fn print(line: &LogLine, as_json: bool) -> Result<()> {
    if as_json {
        println!("{}", serde_json::to_string(line).context("a log message")?);
        return Ok(());
    }
    let severity = match line.severity.as_str() {
        "emerg" | "alert" | "crit" | "err" => Severity::Error,
        "warning" => Severity::Warning,
        _ => Severity::Info,
    };
    let who = line.node.as_deref().unwrap_or(&line.source);
    let colon = if line.program.is_empty() { "" } else { ": " };
    let text = format!(
        "{}  {who:16}  {:7}  {}{colon}{}",
        line.at, line.severity, line.program, line.text
    );
    println!("{}", output::line(&output::plain(&text), severity));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_read_as_people_write_them() {
        assert_eq!(
            ["90", "90s", "15m", "2h", "3d"].map(age),
            [90, 90, 900, 7200, 259_200].map(Ok)
        );
        for bad in ["", "h", "two hours", "-1h", "99999999999999999999d"] {
            assert!(age(bad).is_err(), "{bad}");
        }
    }
}
