//! What `rackbar daemon` can be told on its command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

/// Options of `rackbar daemon`. In the image nothing needs to be given.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    rackbar daemon\n      as the image's init starts it\n  \
    rackbar daemon --config site.toml --data /tmp/rackbar --boot-files target/image/boot --no-network-setup\n      \
    on a machine whose network is set up already\n  \
    rackbar daemon --check --config site.toml\n      reads the file, says what is wrong with it, and ends\n\n\
    SIGHUP reads the configuration again, SIGTERM ends it in good order. Logs are JSON lines on standard error; \
    RUST_LOG chooses what is logged.")]
pub(crate) struct Options {
    /// The configuration file
    #[arg(long, default_value = "/esp/rackbar.toml", value_name = "FILE")]
    pub(super) config: PathBuf,
    /// Only check the configuration file
    #[arg(long)]
    pub(super) check: bool,
    /// Folder for the store
    #[arg(long, default_value = "/data", value_name = "FOLDER")]
    pub(super) data: PathBuf,
    /// Folder for the API's socket and the admin token; gone with the power
    #[arg(long, default_value = "/run/rackbar", value_name = "FOLDER")]
    pub(super) run: PathBuf,
    /// Folder of vmlinuz, base.cpio.zst, loader.efi, undionly.kpxe and snponly.efi
    #[arg(long, default_value = "/boot", value_name = "FOLDER")]
    pub(super) boot_files: PathBuf,
    /// The static program that is brought to machines which are adopted, to look at them
    #[arg(long, default_value = "/bin/rackbar-agent", value_name = "FILE")]
    pub(super) agent: PathBuf,
    /// Folder to look for data packs in; may be given more than once
    #[arg(long, default_value = "/esp/packs", value_name = "FOLDER")]
    pub(super) packs: Vec<PathBuf>,
    /// Look for data packs on all disks as well: partitions named rackbar-pack-..., and whole sticks that hold one
    #[arg(long)]
    pub(super) pack_devices: bool,
    /// Take interfaces and addresses as they are
    #[arg(long)]
    pub(super) no_network_setup: bool,
    /// Where the API and the page listen
    #[arg(long, default_value = "0.0.0.0:443", value_name = "ADDRESS:PORT")]
    pub(super) listen_api: SocketAddr,
    /// Where boot files are served over HTTP
    #[arg(long, default_value = "0.0.0.0:80", value_name = "ADDRESS:PORT")]
    pub(super) listen_http: SocketAddr,
    /// Where boot files are served over TFTP
    #[arg(long, default_value = "0.0.0.0:69", value_name = "ADDRESS:PORT")]
    pub(super) listen_tftp: SocketAddr,
    /// Where boot files are served over TLS, for HTTPS boot
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDRESS:PORT")]
    pub(super) listen_boot_tls: SocketAddr,
    /// Where agents connect
    #[arg(long, default_value = "0.0.0.0:4917", value_name = "ADDRESS:PORT")]
    pub(super) listen_agents: SocketAddr,
}
