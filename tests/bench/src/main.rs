//! `rackbar-bench`: our services and Debian's under the same load, one after the other, in one run.
//!
//! Each server runs as a process of its own in a network namespace; the load comes from another over a veth pair, all on
//! this machine. Trust the ratios, not the absolute figures: server and load share the processors. And whole racks of
//! simulated machines, from power-on to Ready (`whole`).

mod boot;
mod cache;
mod client;
mod dhcp;
mod http;
mod names;
mod net;
mod peers;
mod process;
mod report;
mod serve;
mod tftp;
mod time;
mod whole;

use anyhow::{Result, ensure};
use clap::Parser;

use net::Net;
use report::Row;

/// Measure the network services against Debian's: dnsmasq, tftpd-hpa, nginx, Squid, apt-cacher-ng, Unbound, chrony.
#[derive(Debug, Parser)]
struct Arguments {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Measure these areas only: dhcp, tftp, http, cache, dns, ntp, boot, rack. The last needs no root.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Seconds of load per figure.
    #[arg(long, default_value_t = 2)]
    seconds: u64,
    /// Rounds in which servers of http, cache, dns and ntp take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Be one of our services, for a run of this program. Takes the folder with its files.
    #[arg(long, hide = true, num_args = 2, value_names = ["SERVICE", "FOLDER"])]
    serve: Vec<String>,
    /// Be one rack of so many machines, for a run of this program.
    #[arg(long, hide = true, value_name = "MACHINES")]
    rack: Option<u32>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    if let [service, folder] = arguments.serve.as_slice() {
        return serve::run(service, folder.as_ref());
    }
    if let Some(machines) = arguments.rack {
        return whole::print_one(machines);
    }
    let wanted = |area: &str| arguments.only.is_empty() || arguments.only.iter().any(|only| only == area);
    let mut rows: Vec<Row> = Vec::new();
    if ["dhcp", "tftp", "http", "cache", "dns", "ntp", "boot"]
        .into_iter()
        .any(wanted)
    {
        rows.extend(services(&arguments, wanted)?);
    }
    if wanted("rack") {
        rows.extend(whole::measure()?);
    }
    report::print(&rows, arguments.json)
}

/// Our services beside Debian's.
fn services(arguments: &Arguments, wanted: impl Fn(&str) -> bool) -> Result<Vec<Row>> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "the benchmark makes network namespaces and needs root: run `sudo -E env PATH=\"$PATH\" cargo xtask bench`; \
         `--only rack` does without"
    );
    let net = Net::new()?;
    let mut rows = Vec::new();
    if wanted("dhcp") {
        rows.extend(dhcp::measure(&net, arguments.seconds)?);
    }
    if wanted("tftp") {
        rows.extend(tftp::measure(&net)?);
    }
    if wanted("http") {
        rows.extend(http::measure(&net, arguments.seconds, arguments.rounds)?);
    }
    if wanted("cache") {
        rows.extend(cache::measure(&net, arguments.seconds, arguments.rounds)?);
    }
    if wanted("dns") {
        rows.extend(names::measure(&net, arguments.seconds, arguments.rounds)?);
    }
    if wanted("boot") {
        rows.extend(boot::measure(&net)?);
    }
    if wanted("ntp") {
        rows.extend(time::measure(&net, arguments.seconds, arguments.rounds)?);
    }
    Ok(rows)
}
