//! Debian's own installer on a BIOS and a UEFI machine, its archive through our proxy.
//!
//! The archive that can be reached where this is run may lack packages that the installer consists of. Then everything up
//! to that answer is asserted, and that it is told by name with what to do. With an archive that is whole
//! (`RACKBAR_ARCHIVE`, which `cargo xtask test --archive URL` sets) the machines must become ready.

use std::net::SocketAddrV4;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_model::EventKind;
use rackbar_plan::{RunId, Stand};
use rackbar_scenarios::install::{Image, commit_all, is_ready, troubles};
use rackbar_scenarios::{Stage, eventually, media, rack_file};
use rackbar_vrack::host::Ipv4;
use rackbar_vrack::rack::neighbour;
use rackbar_vrack::site::Archive;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const NAMES: [&str; 2] = ["n1", "n2"];

/// From the commit until an emulated machine has its answers.
const ANSWERED: Duration = Duration::from_secs(15 * 60);
/// From there until its archive refused a package and the run said so.
const REFUSED: Duration = Duration::from_secs(15 * 60);
/// An emulated installation of Debian, to its end.
const INSTALLED: Duration = Duration::from_secs(3 * 60 * 60);

const SITE: &str = r#"
version = 1
domain = "stories.test"

[network.rack]
subnet = "10.77.10.0/24"
gateway = "10.77.10.1"
addresses = "10.77.10.20-10.77.10.60"
proxy = "own"

[role.worker]
os = "debian-12-installer"
root = { pick = "smallest" }
erase = "signatures"

[[role.worker.network]]
name = "mgmt"
network = "rack"
nics = ["boot"]

[[rule]]
name = "everything"
when = "true"
role = "worker"
"#;

/// `http://host[:port]/path` of an archive, and whether it is said to be whole.
fn archive() -> Result<(String, bool)> {
    if let Ok(url) = std::env::var("RACKBAR_ARCHIVE") {
        return Ok((url, true));
    }
    // This machine's own: no address of an archive is written down here.
    let format = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)";
    let output = Command::new("apt-get")
        .args(["indextargets", "--format", format, "Created-By: Packages"])
        .output()
        .context("running apt-get")?;
    let text = String::from_utf8(output.stdout)?;
    let found = text
        .lines()
        .find_map(|line| match line.split('|').collect::<Vec<_>>()[..] {
            ["Debian", url, "bookworm", "main"] => Some(url.to_owned()),
            _ => None,
        });
    Ok((found.context("this machine's apt has no Debian 12")?, false))
}

/// Events of a machine.
async fn events(stage: &Stage, name: &str) -> Result<Vec<EventKind>> {
    let node = stage.node(name).await?.context("known")?;
    Ok(stage
        .timeline(&node)
        .await?
        .into_iter()
        .map(|item| item.event.kind)
        .collect())
}

fn notes<'e>(events: &'e [EventKind], words: &str) -> Vec<&'e str> {
    let note = |kind: &'e EventKind| match kind {
        EventKind::Note { text, .. } if text.contains(words) => Some(text.as_str()),
        _ => None,
    };
    events.iter().filter_map(note).collect()
}

fn sent(events: &[EventKind], name: &str) -> usize {
    let is = |kind: &&EventKind| matches!(kind, EventKind::HttpSent { what, status: 200, .. } if what == name);
    events.iter().filter(is).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn debians_installer_gets_kernel_answers_and_its_archive_from_us() -> Result<()> {
    let (url, whole) = archive()?;
    let place = url.strip_prefix("http://").context("an archive is reached over http")?;
    let (authority, path) = place.split_once('/').unwrap_or((place, ""));
    let authority = if authority.contains(':') {
        authority.to_owned()
    } else {
        format!("{authority}:80")
    };
    let mut file = rack_file("demo")?;
    file.nodes.retain(|node| NAMES.contains(&node.name.as_str()));
    file.nodes.iter_mut().for_each(|node| node.memory_mib = 1024);
    let station = neighbour(file.appliance.rack_address, 240);
    let path = path.trim_end_matches('/');
    let mirror = format!("\n[[proxy.mirror]]\nname = \"debian\"\nupstream = [\"http://{station}/{path}\"]\n");
    let stage = Stage::set_with(file, move |text| text + &mirror).await?;
    let address = |last| Ipv4::fixed(neighbour(stage.rack.file().appliance.rack_address, last), 24);
    let gate = Archive::start(&stage.rack.host("rack", address(240)), &authority)?;
    stage.start_appliance().await?;
    for name in NAMES {
        stage.power_on(name).await?;
    }
    let record = media()?
        .parent()
        .map(|folder| folder.join("os/debian-12-installer.json"));
    let image = Image::described(&record.context("a folder of images")?)
        .context("`cargo xtask os-image debian-12-installer` makes it")?;
    let entry = stage.api.upload(&image).await?;
    ensure!(entry.installer.is_some(), "no installer was found in {entry:?}");
    for name in NAMES {
        stage.until_discovered(name).await?;
        stage.until_complete(name).await?;
    }
    stage.api.set_site(SITE).await?;
    let (_, run) = commit_all(&stage.api).await?;
    a_stranger_gets_nothing(&stage, NAMES[0]).await?;
    for name in NAMES {
        let begun = || async {
            let events = events(&stage, name).await.map_err(|error| error.to_string())?;
            if notes(&events, "the installer begins").is_empty() {
                return Err(format!("{:?}", events.last()));
            }
            Ok(events)
        };
        let events = eventually(&format!("{name}'s installer begins"), ANSWERED, begun).await?;
        for file in ["linux", "initrd.gz", "installer preseed.cfg"] {
            ensure!(sent(&events, file) > 0, "{name} was not sent {file}");
        }
        ensure!(
            sent(&events, "installer preseed.cfg") == 1,
            "{name} got its answers more than once"
        );
        println!("{name}: kernel, initrd and answers came from the appliance, and its installer begins");
    }
    if whole {
        ready(&stage, run).await?;
    } else {
        refused(&stage, run).await?;
    }
    let asked = gate.requests();
    ensure!(
        asked.iter().any(|request| request.contains("/dists/bookworm/")),
        "the archive was asked for {asked:#?}"
    );
    println!("{} requests reached the archive, all through the proxy", asked.len());
    stage.end().await;
    Ok(())
}

/// Somebody on the rack's network who asks for a machine's script in its name, and has no address of it, gets no answers.
async fn a_stranger_gets_nothing(stage: &Stage, name: &str) -> Result<()> {
    let appliance = stage.rack.file().appliance.rack_address;
    let stranger = Ipv4::fixed(neighbour(appliance, 250), 24);
    let relay = stage
        .rack
        .relay("rack", stranger, SocketAddrV4::new(appliance, 80))
        .await?;
    let address = relay.address();
    let get = |path: String| async move {
        let mut tcp = TcpStream::connect(address).await?;
        tcp.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await?;
        let mut answer = Vec::new();
        tcp.read_to_end(&mut answer).await?;
        anyhow::Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let node = stage.node(name).await?.context("known")?;
    let mac = node
        .inventory
        .context("an inventory")?
        .boot
        .mac
        .context("a boot interface")?;
    let script = format!("/boot/v1/script.ipxe?mac={}", mac.to_string().replace(':', "-"));
    let asked = || async {
        let answer = get(script.clone()).await.map_err(|error| error.to_string())?;
        let path = answer
            .split(' ')
            .find_map(|word| word.strip_prefix("url=")?.split_once("/boot/"));
        path.map(|(_, path)| format!("/boot/{path}")).ok_or(answer)
    };
    let answers = eventually("the installer is ordered", ANSWERED, asked).await?;
    let answer = get(answers).await?;
    ensure!(answer.starts_with("HTTP/1.1 403"), "a stranger was answered {answer}");
    println!("a stranger who asked for {name}'s answers was refused");
    Ok(())
}

/// The archive lacks packages: each machine's timeline names one and what to do, and its action has failed with those words.
async fn refused(stage: &Stage, run: RunId) -> Result<()> {
    for name in NAMES {
        let missing = || async {
            let events = events(stage, name).await.map_err(|error| error.to_string())?;
            let found = notes(&events, "its archive did not give the installer")
                .first()
                .map(|text| (*text).to_owned());
            found.ok_or_else(|| format!("{:?}", events.last()))
        };
        let text = eventually(&format!("{name}'s archive refuses a package"), REFUSED, missing).await?;
        ensure!(
            text.contains(".udeb (HTTP 404") && text.contains("[[proxy.mirror]]"),
            "{text}"
        );
        println!("{name}: {text}");
    }
    let failed = || async {
        let run = stage.api.run(run).await.map_err(|error| vec![error.to_string()])?;
        let ends = run.actions.iter().filter(|(id, _)| id.0.ends_with("/os.install"));
        if ends.clone().all(|(_, stand)| matches!(stand, Stand::Failed { .. })) {
            return Ok(troubles(&run));
        }
        Err(ends.map(|(id, stand)| format!("{id}: {stand:?}")).collect::<Vec<_>>())
    };
    let words = eventually("both installations have failed", REFUSED, failed).await?;
    ensure!(words.iter().any(|line| line.contains("HTTP 404")), "{words:#?}");
    println!(
        "NOT SHOWN: an installation to its end. The archive at hand lacks packages that the installer consists of; \
         `cargo xtask test --archive URL` with one that is whole goes on to ready machines."
    );
    Ok(())
}

/// The archive is whole: the machines become ready.
async fn ready(stage: &Stage, run: RunId) -> Result<()> {
    rackbar_scenarios::install::until_done(&stage.api, run, INSTALLED).await?;
    for name in NAMES {
        is_ready(&stage.node(name).await?.context("known")?)?;
    }
    Ok(())
}
