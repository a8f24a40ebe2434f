//! `rackbar adopt`: takes a machine in that somebody else installed.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::Args;
use rackbar_control::client::Client;
use rackbar_control::operations::{AdoptRequest, Adoption, LoginKey};
use rackbar_model::SecretText;

use super::output;

/// Which machine, and how it is reached.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rackbar adopt --show-key\n      the line for the machine's authorized_keys\n  \
    rackbar adopt node-003 --ssh root@10.10.0.23 --host-key SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU\n  \
    rackbar adopt --name db-1 --ssh root@10.10.0.24:2222 --key-file id_ed25519 --trust-first-use --dry-run\n\n\
    The machine is looked at and recorded as ready with the system that it has; nothing is written to its disks. From then \
    on it is checked (`rackbar verify`) and handed over like the others, and no plan changes it until another system is \
    asked for by name (`rackbar plan NODE --reinstall`). `rackbar node forget` takes it back. Exit code 6 when it cannot be \
    adopted as things are."
)]
pub struct Options {
    /// The machine, when it is known: name, id or MAC address
    #[arg(conflicts_with = "name")]
    node: Option<String>,
    /// Where it answers over SSH
    #[arg(long, value_name = "[USER@]ADDRESS[:PORT]", value_parser = place, required_unless_present = "show_key")]
    ssh: Option<Place>,
    /// Name for a machine that was never seen
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Fingerprint of its Ed25519 host key, as `ssh-keygen -lf` prints it there
    #[arg(long, value_name = "SHA256:...", conflicts_with = "trust_first_use")]
    host_key: Option<String>,
    /// Take whatever host key it shows
    #[arg(long)]
    trust_first_use: bool,
    /// Private Ed25519 key that it lets in, without a passphrase; the appliance keeps it sealed. Its own key when left out
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Only say what would be recorded
    #[arg(long)]
    dry_run: bool,
    /// Print the appliance's own public key, and nothing else
    #[arg(long, exclusive = true)]
    show_key: bool,
}

/// An account on a machine.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Place {
    user: String,
    address: IpAddr,
    port: u16,
}

/// Reads `root@10.0.0.7`, `10.0.0.7:2222`, `root@[fd00::7]:22`, `fd00::7`.
fn place(text: &str) -> Result<Place, String> {
    let (user, rest) = text.split_once('@').unwrap_or(("root", text));
    let bare = rest
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(rest);
    let at = match (bare.parse::<IpAddr>(), rest.parse::<SocketAddr>()) {
        (Ok(address), _) => SocketAddr::new(address, 22),
        (Err(_), Ok(at)) => at,
        (Err(_), Err(_)) => {
            return Err(format!(
                "{rest:?} is no address: write an IP address, with a port where it is not 22 (names are not looked up)"
            ));
        }
    };
    Ok(Place {
        user: user.to_owned(),
        address: at.ip(),
        port: at.port(),
    })
}

/// Runs it.
pub async fn run(client: &Client, options: &Options, as_json: bool) -> Result<()> {
    let Some(place) = &options.ssh else {
        let key: LoginKey = client.get("/api/v1/adopt").await?;
        if as_json {
            return output::json(&key);
        }
        println!("{}", output::plain(&key.public_key));
        return Ok(());
    };
    let read =
        |file: &PathBuf| std::fs::read_to_string(file).with_context(|| format!("reading the key {}", file.display()));
    let key = options.key_file.as_ref().map(read).transpose()?;
    let request = AdoptRequest {
        node: options.node.clone(),
        name: options.name.clone(),
        address: place.address,
        port: place.port,
        user: place.user.clone(),
        key: key.map(SecretText),
        host_key: options.host_key.clone(),
        trust_first_use: options.trust_first_use,
        dry_run: options.dry_run,
    };
    let answer = client.post("/api/v1/adopt", &request).await?;
    let adoption: Adoption = serde_json::from_slice(&answer)?;
    if as_json {
        return output::json(&adoption);
    }
    lines(&adoption)
        .iter()
        .for_each(|line| println!("{}", output::plain(line)));
    adoption
        .notes
        .iter()
        .for_each(|note| eprintln!("note: {}", output::plain(note)));
    Ok(())
}

/// What came of it, for people.
fn lines(adoption: &Adoption) -> Vec<String> {
    let system = &adoption.adopted.system;
    let name = adoption.node.as_deref().unwrap_or("a new machine, named by order");
    let what = match (adoption.recorded, adoption.new) {
        (true, true) => "adopted; it was not known before",
        (true, false) => "adopted",
        (false, true) => "would be adopted; it is not known yet",
        (false, false) => "would be adopted",
    };
    let mut lines = vec![
        format!("{name}: {what}"),
        format!("  machine  {}", adoption.machine),
        format!(
            "  system   {}, kernel {}, host name {}",
            system.name, system.kernel, system.hostname
        ),
        format!(
            "  login    {} at {} port {}",
            adoption.adopted.user, adoption.adopted.address, adoption.adopted.port
        ),
    ];
    let disks = system.in_use.iter();
    lines.extend(disks.map(|disk| format!("  in use   {} ({}): {}", disk.name, disk.disk, disk.uses.join(", "))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_account_at_an_address() {
        let read = |text| place(text).map(|place| (place.user, place.address.to_string(), place.port));
        let is = |user: &str, address: &str, port| Ok((user.to_owned(), address.to_owned(), port));
        assert_eq!(read("10.0.0.7"), is("root", "10.0.0.7", 22));
        assert_eq!(read("admin@10.0.0.7:2222"), is("admin", "10.0.0.7", 2222));
        assert_eq!(read("root@[fd00::7]:22"), is("root", "fd00::7", 22));
        assert_eq!(read("fd00::7"), is("root", "fd00::7", 22));
        assert_eq!(read("[fd00::7]"), is("root", "fd00::7", 22));
        for wrong in ["", "db-1", "root@", "10.0.0.7:", "10.0.0.7:99999", "10.0.0"] {
            assert!(place(wrong).is_err(), "{wrong}");
        }
    }
}
