//! `rackbar capture`

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Args;
use rackbar_control::client::Client;
use rackbar_control::operations::CaptureOrder;

use super::{segment, state};

/// Capture packets on the appliance's rack interfaces.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rackbar capture --recent --node n1 --to n1.pcapng\n  \
    rackbar capture --node n1 --seconds 300 --to n1.pcapng\n  rackbar capture --to - | tshark -r -\n\n\
    Boot packets are ARP, LLDP, DHCP, ICMP, requests and first blocks of TFTP, and beginnings and ends of connections to boot \
    HTTP. Payloads of boot files, HTTP, TLS and SSH are never in it. What the appliance had no room for is counted in the \
    file. Needs the role operator; the audit trail has who captured what.")]
pub struct Options {
    /// The file; must not exist. `-` writes to standard output
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Only on this interface of the appliance
    #[arg(long, value_name = "IF")]
    interface: Option<String>,
    /// Only of this machine and its BMC: name, id or MAC address
    #[arg(long)]
    node: Option<String>,
    /// What the appliance has kept of the last boots, instead of what comes from now on
    #[arg(long, conflicts_with_all = ["seconds", "max_bytes", "all"])]
    recent: bool,
    /// For so long, 1 to 3600; 60 when left out
    #[arg(long, value_name = "N")]
    seconds: Option<u32>,
    /// No larger than so many bytes; 64 MiB when left out
    #[arg(long, value_name = "N")]
    max_bytes: Option<u64>,
    /// The headers of everything else too
    #[arg(long)]
    all: bool,
}

/// Runs it.
pub async fn run(client: &Client, options: &Options) -> Result<()> {
    if options.recent {
        return recent(client, options).await;
    }
    let order = CaptureOrder {
        interface: options.interface.clone(),
        node: options.node.clone(),
        all: options.all,
        seconds: options.seconds,
        max_bytes: options.max_bytes,
    };
    // What is refused leaves no file behind.
    let mut pieces = client.post_for_pieces("/api/v1/captures", &order).await?;
    let mut out = out(&options.to)?;
    eprintln!("capturing; Ctrl-C ends it earlier, and what was captured until then is in the file");
    let mut written = 0;
    while let Some(piece) = pieces.try_next().await? {
        out.write_all(&piece)
            .and_then(|()| out.flush())
            .with_context(|| format!("writing {}", options.to.display()))?;
        written += piece.len();
    }
    told(&options.to, written);
    Ok(())
}

async fn recent(client: &Client, options: &Options) -> Result<()> {
    let query = [("interface", &options.interface), ("node", &options.node)];
    let query: Vec<String> = query
        .iter()
        .filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_deref()?))))
        .collect();
    let file = client
        .get_bytes(&format!("/api/v1/captures/recent?{}", query.join("&")))
        .await?;
    out(&options.to)?
        .write_all(&file)
        .with_context(|| format!("writing {}", options.to.display()))?;
    told(&options.to, file.len());
    Ok(())
}

fn out(to: &Path) -> Result<Box<dyn Write>> {
    Ok(match to.to_str() {
        Some("-") => Box::new(std::io::stdout()),
        _ => Box::new(state::new_file(to)?),
    })
}

fn told(to: &Path, bytes: usize) {
    if to.to_str() != Some("-") {
        eprintln!("{}: {bytes} bytes", to.display());
    }
}
