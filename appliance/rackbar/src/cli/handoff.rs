//! `rackbar handoff ...` but for Ansible, and `rackbar node facts`.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};
use clap::{Args, Subcommand};
use rackbar_control::client::Client;
use rackbar_control::operations::{EnrolmentEntry, ExportEntry, Verdict};
use serde_json::json;

use super::kept::Kept;
use super::{Failed, output, segment};

/// A certificate request is smaller than this.
const LARGEST: u64 = 64 << 10;

/// For Puppet.
#[derive(Debug, Subcommand)]
pub enum Puppet {
    /// Be an external node classifier: print the classes and parameters of a node
    #[command(after_help = "Example, as the script that `external_nodes` names:\n  #!/bin/sh\n  \
        exec rackbar handoff puppet enc \"$1\"\n\n\
        A node that is not known gets an empty classification. When the appliance cannot be reached the command fails, and \
        Puppet goes on with its cached catalogue.")]
    Enc {
        /// Certificate name
        certname: String,
    },
    /// Print the external facts of a node, for a file in facts.d
    Facts {
        /// Node
        node: String,
        #[command(flatten)]
        kept: Kept,
    },
    /// Be a policy executable for autosigning: the request on standard input, exit code 0 to sign and 1 not to
    #[command(after_help = "Example, as the script that `autosign` names:\n  #!/bin/sh\n  \
        exec rackbar handoff puppet autosign \"$1\"")]
    Autosign {
        /// Certificate name
        certname: String,
    },
}

/// A secret to be made.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  rackbar handoff enrol web-1 --tool puppet > files.json\n\n\
    For a machine that is installed already. The files carry the secret and are shown this once, as JSON: path, content, \
    mode."
)]
pub struct EnrolOptions {
    /// Node
    node: String,
    /// puppet, salt or chef
    #[arg(long)]
    tool: String,
}

/// An export by its tool and name.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  rackbar handoff show salt roster --kept > roster\n  \
    rackbar handoff show salt pillar web-1\n  rackbar handoff show cephadm spec > ceph.yaml\n  \
    rackbar handoff list")]
pub struct Show {
    /// Tool
    tool: String,
    /// What of it
    what: String,
    /// Node, for exports that are of one
    node: Option<String>,
    #[command(flatten)]
    kept: Kept,
}

async fn export(client: &Client, tool: &str, what: &str, node: Option<&str>, kept: Kept) -> Result<()> {
    let of = node.map(|node| format!("?node={}", segment(node))).unwrap_or_default();
    let path = format!("/api/v1/handoff/{}/{}{of}", segment(tool), segment(what));
    print!("{}", kept.get(client, &path).await?);
    Ok(())
}

/// `rackbar handoff puppet ...`
pub async fn puppet(client: &Client, command: &Puppet) -> Result<()> {
    match command {
        Puppet::Enc { certname } => export(client, "puppet", "enc", Some(certname), Kept::default()).await,
        Puppet::Facts { node, kept } => export(client, "puppet", "facts", Some(node), *kept).await,
        Puppet::Autosign { certname } => autosign(client, certname).await,
    }
}

async fn autosign(client: &Client, certname: &str) -> Result<()> {
    let mut csr = String::new();
    std::io::stdin()
        .take(LARGEST)
        .read_to_string(&mut csr)
        .context("reading the request from standard input")?;
    let body = json!({ "certname": certname, "csr": csr });
    let answer = client.post("/api/v1/handoff/puppet/autosign", &body).await?;
    let verdict: Verdict = serde_json::from_slice(&answer)?;
    let why = output::plain(&verdict.why);
    if !verdict.sign {
        bail!(Failed(format!("not signed: {why}")));
    }
    eprintln!("signed: {why}");
    Ok(())
}

/// `rackbar handoff show`
pub async fn show(client: &Client, options: &Show) -> Result<()> {
    export(
        client,
        &options.tool,
        &options.what,
        options.node.as_deref(),
        options.kept,
    )
    .await
}

/// `rackbar handoff list`
pub async fn list(client: &Client, as_json: bool) -> Result<()> {
    let entries: Vec<ExportEntry> = client.list("/api/v1/handoff").await?;
    if as_json {
        return output::json(&entries);
    }
    let mut table = output::table(&["TOOL", "WHAT", "OF", "IS"]);
    for entry in &entries {
        let of = if entry.of_node { "one node" } else { "the rack" };
        table.add_row([&*entry.tool, &entry.what, of, &entry.words]);
    }
    println!("{table}");
    Ok(())
}

/// `rackbar handoff enrol`
pub async fn enrol(client: &Client, options: &EnrolOptions) -> Result<()> {
    let body = json!({ "node": options.node, "tool": options.tool });
    let files: serde_json::Value = serde_json::from_slice(&client.post("/api/v1/enrolments", &body).await?)?;
    output::json(&files)
}

/// `rackbar handoff enrolments`
pub async fn enrolments(client: &Client, as_json: bool) -> Result<()> {
    let entries: Vec<EnrolmentEntry> = client.list("/api/v1/enrolments").await?;
    if as_json {
        return output::json(&entries);
    }
    let mut table = output::table(&["NODE", "TOOL", "NAME", "STATE", "EXPIRES"]);
    for entry in &entries {
        let expires = entry.expires.to_string();
        table.add_row([
            &*output::plain(&entry.node),
            &entry.tool,
            &output::plain(&entry.name),
            &entry.state,
            &expires,
        ]);
    }
    println!("{table}");
    Ok(())
}

/// `rackbar handoff revoke`
pub async fn revoke(client: &Client, options: &EnrolOptions) -> Result<()> {
    let path = format!(
        "/api/v1/enrolments/{}/{}",
        segment(&options.tool),
        segment(&options.node)
    );
    client.delete(&path).await?;
    eprintln!(
        "{}: its secret of {} is refused from now on",
        output::plain(&options.node),
        options.tool
    );
    Ok(())
}

/// The tool in whose shape facts are given.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Shape {
    /// Facter's core facts
    Facter,
    /// Ohai's automatic attributes
    Ohai,
}

/// `rackbar node facts`
pub async fn facts(client: &Client, node: &str, shape: Shape) -> Result<()> {
    match shape {
        Shape::Facter => export(client, "facter", "facts", Some(node), Kept::default()).await,
        Shape::Ohai => export(client, "ohai", "attributes", Some(node), Kept::default()).await,
    }
}
