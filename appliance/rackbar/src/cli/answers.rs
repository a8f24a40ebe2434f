//! `rackbar os answers`: answer files of installers for a boot server or medium of somebody else's.

use std::fs::{self, DirBuilder};
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use rackbar_control::client::Client;
use rackbar_model::SecretText;
use rackbar_orchestrator::answers::{Answers, AnswersRequest, NetBoot, TalosOptions, WindowsOptions};

use super::state::new_file;
use super::{output, segment};

/// Longest file of an option: a cluster's secrets have some 10 KiB.
const LONGEST: u64 = 1 << 20;

/// For which machine and system, and what its installer must be told besides.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  rackbar os answers node-003 --as debian-13 --answers-url http://10.0.0.5/node-003/ \\\n      \
    --mirror http://deb.example.org/debian --out node-003\n  \
    rackbar os answers node-003 --as fedora-coreos --release 42.20250914.3.0 --answers-url http://10.0.0.5/node-003/ \\\n      \
    --mirror http://10.0.0.5/fcos --out node-003\n  \
    rackbar os answers node-003 --as talos --without ssh-keys,syslog --answers-url http://10.0.0.5/node-003/ \\\n      \
    --talos-secrets secrets.yaml --talos-cluster rack --talos-endpoint https://10.0.0.10:6443 \\\n      \
    --talos-installer registry.example/siderolabs/installer:v1.11.0 --out node-003\n\n\
    Systems: debian-12, debian-13, ubuntu-22.04, ubuntu-24.04, rhel|rocky|alma|centos-stream-8|9|10, fedora-40..43, \
    fedora-coreos, flatcar, sles|leap-15|16, talos, esxi-7|8, windows-server-2019|2022|2025.\n\n\
    What an install by the appliance would make of the machine is rendered: name, disks, networks, keys, servers. Nothing is \
    recorded or kept, and the machine is not touched. What an installer cannot express is refused by name; --without leaves \
    it out. The files hold password hashes and keys: they are written for you alone, and printed only with --print or --json."
)]
pub struct Options {
    /// The machine: name, id or MAC address
    node: String,
    /// The system, such as rocky-9
    #[arg(long = "as", value_name = "SYSTEM")]
    system: String,
    /// Folder that your server will give the answer files from
    #[arg(long, value_name = "URL")]
    answers_url: String,
    /// What the installer asks for at its end; the first answer file once more when left out
    #[arg(long, value_name = "URL")]
    done_url: Option<String>,
    /// Release of Fedora CoreOS or Flatcar
    #[arg(long, value_name = "R")]
    release: Option<String>,
    /// Archive (Debian, Ubuntu), installation tree (Red Hat family, SUSE), images (Fedora CoreOS, Flatcar), medium's files
    /// (ESXi, Windows)
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// Archive of security updates (Debian, Ubuntu)
    #[arg(long, value_name = "URL")]
    security: Option<String>,
    /// The live server's ISO (Ubuntu)
    #[arg(long, value_name = "URL")]
    iso: Option<String>,
    /// Repositories besides (Red Hat family, SUSE)
    #[arg(long = "repository", value_name = "NAME=URL")]
    repositories: Vec<String>,
    /// Locale; en_US.UTF-8 when left out
    #[arg(long)]
    locale: Option<String>,
    /// Keyboard layout as XKB calls it; us when left out
    #[arg(long)]
    keyboard: Option<String>,
    /// File with the hash of root's password, as mkpasswd prints it; ESXi needs one
    #[arg(long, value_name = "FILE")]
    root_password_hash_file: Option<PathBuf>,
    /// Have the installer install the role's packages too
    #[arg(long)]
    packages: bool,
    /// Leave out what the role says: ssh-keys, user, dns, ntp, domain, proxy, syslog, timezone, files, kernel-arguments
    #[arg(long, value_name = "PART", value_delimiter = ',')]
    without: Vec<String>,
    #[command(flatten)]
    talos: Talos,
    /// The boot.cfg of ESXi's medium
    #[arg(long, value_name = "FILE")]
    esxi_boot_cfg: Option<PathBuf>,
    #[command(flatten)]
    windows: Windows,
    /// New folder that the files are written to, for you alone
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Print the files' content, secrets included
    #[arg(long)]
    print: bool,
}

/// A machine's place in a cluster of Talos.
#[derive(Debug, Args)]
struct Talos {
    /// File that `talosctl gen secrets` wrote
    #[arg(long, value_name = "FILE", requires_all = ["talos_cluster", "talos_endpoint", "talos_installer"])]
    talos_secrets: Option<PathBuf>,
    /// The cluster's name
    #[arg(long, value_name = "NAME", requires = "talos_secrets")]
    talos_cluster: Option<String>,
    /// URL of its Kubernetes API
    #[arg(long, value_name = "URL", requires = "talos_secrets")]
    talos_endpoint: Option<String>,
    /// Image of Talos' installer
    #[arg(long, value_name = "IMAGE", requires = "talos_secrets")]
    talos_installer: Option<String>,
    /// The machine runs the control plane; a worker when left out
    #[arg(long, requires = "talos_secrets")]
    talos_control_plane: bool,
    /// Name or address besides its own that its API's certificate is for
    #[arg(long = "talos-name", value_name = "NAME", requires = "talos_secrets")]
    talos_names: Vec<String>,
}

/// The medium of Windows Server.
#[derive(Debug, Args)]
struct Windows {
    /// Image of install.wim, by number or name
    #[arg(long, value_name = "IMAGE", requires = "share_password_file")]
    windows_image: Option<String>,
    /// File with the product key
    #[arg(long, value_name = "FILE", requires = "share_password_file")]
    product_key_file: Option<PathBuf>,
    /// Language of the medium; en-US when left out
    #[arg(long, value_name = "LANGUAGE", requires = "share_password_file")]
    windows_language: Option<String>,
    /// URL of the boot loader wimboot
    #[arg(long, value_name = "URL", requires = "share_password_file")]
    wimboot: Option<String>,
    /// The medium's files for Setup, such as \\server\share
    #[arg(long, value_name = "SHARE", requires = "share_password_file")]
    windows_share: Option<String>,
    /// Account that may read there, and nothing else
    #[arg(long, value_name = "NAME", requires = "share_password_file")]
    share_user: Option<String>,
    /// File with its password
    #[arg(long, value_name = "FILE", requires_all = ["windows_image", "wimboot", "windows_share", "share_user"])]
    share_password_file: Option<PathBuf>,
}

/// Runs it.
pub async fn run(client: &Client, options: &Options, as_json: bool) -> Result<()> {
    let shows = as_json && options.out.is_none() && !options.print;
    if shows && std::io::stdout().is_terminal() {
        bail!("the answers hold secrets and are not printed on a terminal: say --print, or --out DIR");
    }
    let path = format!("/api/v1/nodes/{}/answers", segment(&options.node));
    let answer = client.post(&path, &request(options)?).await?;
    let answers: Answers = serde_json::from_slice(&answer)?;
    if let Some(folder) = &options.out {
        write(folder, &answers)?;
    }
    if as_json {
        let mut all = serde_json::to_value(&answers)?;
        if options.out.is_some() && !options.print {
            let files = all.get_mut("files").and_then(|files| files.as_array_mut());
            let files = files.into_iter().flatten();
            files
                .filter_map(|file| file.as_object_mut())
                .for_each(|file| drop(file.remove("content")));
        }
        return output::json(&all);
    }
    show(&answers, options.print);
    Ok(())
}

fn request(options: &Options) -> Result<AnswersRequest> {
    let read = |file: &Option<PathBuf>| file.as_deref().map(read).transpose();
    let word =
        |file: &Option<PathBuf>| Ok::<_, anyhow::Error>(read(file)?.map(|text| SecretText(text.trim().to_owned())));
    let (talos, windows) = (&options.talos, &options.windows);
    let text = |option: &Option<String>| option.clone().unwrap_or_default();
    Ok(AnswersRequest {
        system: options.system.clone(),
        answers_url: options.answers_url.clone(),
        done_url: options.done_url.clone(),
        release: options.release.clone(),
        mirror: options.mirror.clone(),
        security: options.security.clone(),
        iso: options.iso.clone(),
        repositories: options.repositories.clone(),
        locale: options.locale.clone(),
        keyboard: options.keyboard.clone(),
        root_password_hash: word(&options.root_password_hash_file)?,
        packages: options.packages,
        without: options.without.clone(),
        talos: read(&talos.talos_secrets)?.map(|secrets| TalosOptions {
            cluster: text(&talos.talos_cluster),
            endpoint: text(&talos.talos_endpoint),
            control_plane: talos.talos_control_plane,
            installer: text(&talos.talos_installer),
            names: talos.talos_names.clone(),
            secrets: SecretText(secrets),
        }),
        esxi_boot_cfg: read(&options.esxi_boot_cfg)?,
        windows: match word(&windows.share_password_file)? {
            None => None,
            Some(share_password) => Some(WindowsOptions {
                image: text(&windows.windows_image),
                product_key: word(&windows.product_key_file)?,
                language: windows.windows_language.clone(),
                wimboot: text(&windows.wimboot),
                share: text(&windows.windows_share),
                share_user: text(&windows.share_user),
                share_password,
            }),
        },
    })
}

fn read(file: &Path) -> Result<String> {
    let reading = || format!("reading {}", file.display());
    let mut text = String::new();
    let opened = fs::File::open(file).with_context(reading)?;
    opened
        .take(LONGEST + 1)
        .read_to_string(&mut text)
        .with_context(reading)?;
    if text.len() as u64 > LONGEST {
        bail!("{} is longer than 1 MiB: it is another file", file.display());
    }
    Ok(text)
}

/// Writes the files to a new folder. When one of them cannot be written, nothing is left.
fn write(folder: &Path, answers: &Answers) -> Result<()> {
    let place = folder.display();
    let made = DirBuilder::new().mode(0o700).create(folder);
    made.with_context(|| format!("making the folder {place}, which must be new"))?;
    let written = write_in(folder, answers);
    if written.is_err() {
        let _ = fs::remove_dir_all(folder);
    }
    written
}

fn write_in(folder: &Path, answers: &Answers) -> Result<()> {
    let files = answers
        .files
        .iter()
        .map(|file| (file.name.as_str(), file.content.0.clone()));
    let boot = match &answers.boot {
        NetBoot::Linux { .. } => ("boot.txt", lines(&answers.boot).join("\n") + "\n"),
        NetBoot::Ipxe { script, .. } => ("boot.ipxe", script.clone()),
    };
    for (name, content) in files.chain([boot]) {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            bail!("the appliance names a file {name:?}, which is none for this folder");
        }
        let path = folder.join(name);
        let mut file = new_file(&path)?;
        let writing = || format!("writing {}", path.display());
        file.write_all(content.as_bytes()).with_context(writing)?;
        file.sync_all().with_context(writing)?;
    }
    Ok(())
}

/// How the installer is started.
fn lines(boot: &NetBoot) -> Vec<String> {
    match boot {
        NetBoot::Linux {
            kernel,
            initrds,
            command_line,
        } => {
            let mut lines = vec![format!("kernel  {kernel}")];
            lines.extend(initrds.iter().map(|initrd| format!("initrd  {initrd}")));
            lines.push(format!("append  {command_line}"));
            lines
        }
        NetBoot::Ipxe { script, files } => {
            let mut lines: Vec<String> = script.lines().map(|line| format!("ipxe    {line}")).collect();
            lines.extend(files.iter().map(|file| format!("medium  {file}")));
            lines
        }
    }
}

fn show(answers: &Answers, print: bool) {
    let (system, node, name) = (&answers.system, &answers.node, &answers.hostname);
    println!(
        "{}",
        output::plain(&format!(
            "{system} for {node}, as {name}, on {}",
            answers.disks.join(" and ")
        ))
    );
    let mut table = output::table(&["FILE", "BYTES"]);
    for file in &answers.files {
        table.add_row([output::plain(&file.name), file.content.0.len().to_string()]);
    }
    println!("{table}");
    lines(&answers.boot)
        .iter()
        .for_each(|line| println!("{}", output::plain(line)));
    if let Some(asked) = &answers.asked_at_the_end {
        println!("asks    {} at its end", output::plain(asked));
    }
    if print {
        for file in &answers.files {
            println!("\n==> {} <==", output::plain(&file.name));
            file.content
                .0
                .lines()
                .for_each(|line| println!("{}", output::plain(line)));
        }
    }
    answers
        .notes
        .iter()
        .for_each(|note| eprintln!("note: {}", output::plain(note)));
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use rackbar_orchestrator::answers::AnswerText;

    use super::*;

    fn answers(names: &[&str]) -> Answers {
        let file = |name: &&str| AnswerText {
            name: (*name).to_owned(),
            content: SecretText("secret".into()),
        };
        Answers {
            node: "node-001".into(),
            role: "worker".into(),
            system: "debian-13".into(),
            hostname: "node-001".into(),
            disks: vec!["serial DISK1".into()],
            files: names.iter().map(file).collect(),
            boot: NetBoot::Linux {
                kernel: "linux".into(),
                initrds: vec!["initrd.gz".into()],
                command_line: "auto=true".into(),
            },
            asked_at_the_end: None,
            notes: Vec::new(),
        }
    }

    #[test]
    fn answers_are_written_for_their_owner_alone_and_whole_or_not_at_all() {
        let home = tempfile::tempdir().unwrap();
        let folder = home.path().join("out");
        write(&folder, &answers(&["preseed.cfg"])).unwrap();
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        for (name, content) in [
            ("preseed.cfg", "secret"),
            ("boot.txt", "kernel  linux\ninitrd  initrd.gz\nappend  auto=true\n"),
        ] {
            assert_eq!(mode(&folder.join(name)), 0o600, "{name}");
            assert_eq!(fs::read_to_string(folder.join(name)).unwrap(), content);
        }
        let again = write(&folder, &answers(&["preseed.cfg"])).unwrap_err();
        assert!(format!("{again:#}").contains("must be new"), "{again:#}");
        assert!(folder.join("preseed.cfg").exists(), "what was there before stays");
        for name in ["../x", "", ".", "/etc/x"] {
            let folder = home.path().join("bad");
            assert!(write(&folder, &answers(&["ks.cfg", name])).is_err(), "{name}");
            assert!(!folder.exists() && !home.path().join("x").exists());
        }
    }
}
