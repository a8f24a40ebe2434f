//! A machine is installed with a role that hands it over to Puppet: Debian's agent comes as a package through our proxy, the
//! token lies in the installed system, and a real Puppet server asks us whether to sign and what the machine is.

#[path = "../../../appliance/rackbar/tests/puppet/mod.rs"]
mod puppet;

use std::net::SocketAddrV4;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rackbar_model::Node;
use rackbar_scenarios::cli::Cli;
use rackbar_scenarios::install::{READY, commit_all, light_image, until_done};
use rackbar_scenarios::{Stage, eventually, rack_file};
use rackbar_vrack::host::{Host, Ipv4};
use rackbar_vrack::rack::neighbour;
use rackbar_vrack::seat::{MachinePower as _, PowerAction};
use rackbar_vrack::site::Archive;

use crate::install::{all_ready, discovered, done};
use crate::offline::common::apt::hex;
use crate::offline::common::{Origin, doc};
use crate::operator::SOON;

const MACHINE: &str = "n1";
/// The Puppet server's name, and where it listens by its own tradition.
const SERVER: &str = "puppet.stories.test";
const PORT: u16 = 8140;
/// An emulated machine's agent, with a server that compiles its first catalogue.
const RUN: Duration = Duration::from_secs(300);

/// The step of `docs/handoff.md` is the machine's first run: it waits for its certificate, and changes one thing.
const SITE: &str = r#"
version = 1
domain = "stories.test"
ssh_keys = ["KEY"]

[network.rack]
subnet = "10.77.10.0/24"
gateway = "10.77.10.1"
addresses = "10.77.10.20-10.77.10.60"
proxy = "own"

[role.worker]
os = "debian-12"
packages = ["puppet-agent"]
root = { pick = "smallest" }
erase = "signatures"
restart = "kexec"

[[role.worker.network]]
name = "mgmt"
network = "rack"
nics = ["boot"]

[[role.worker.file]]
path = "/etc/apt/sources.list"
content = "deb [trusted=yes] http://STATION/debian stable main\n"

[[role.worker.step]]
name = "enrol"
script = """
#!/bin/sh
echo 'STATION SERVER' >>/etc/hosts
puppet agent --test --waitforcert 10 --color false
case $? in 0|2) cat /etc/probed ;; *) exit 1 ;; esac
"""
expect_output = "worker in north"
timeout = 600

[[rule]]
name = "everything"
when = "true"
role = "worker"

[handoff.puppet]
server = "SERVER"
confdir = "/etc/puppet"

[handoff.role.worker]
enrol = ["puppet"]
puppet_classes = ["probe"]
parameters = { region = "north", probe_path = "/etc/probed" }
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_installed_machine_enrols_at_a_real_puppet_server_by_the_token_that_was_laid() -> Result<()> {
    let program = rackbar_scenarios::media()?.join("rackbar");
    // It starts, and the packages come, while the machine is discovered.
    let mut server = puppet::Server::start(SERVER, &program);
    let archive = tokio::task::spawn_blocking(archive);
    // Booted and not continued from an earlier time: the machine has its clock from it, and what was signed now must be valid.
    let mut file = rack_file("demo")?;
    file.nodes.retain(|node| node.name == MACHINE);
    let stage = Stage::set(file).await?;
    stage.start_appliance().await?;
    let stage = discovered(stage, &[MACHINE], "version = 1\n", &light_image()?).await?;
    let origin = archive.await??;
    let station = neighbour(stage.rack.file().appliance.rack_address, 240);
    let host = stage.rack.host("rack", Ipv4::fixed(station, 24));
    let gate = Archive::start(&host, &origin.address.to_string())?;
    let _leads = tokio::spawn(lead(host, server.port()));
    let cli = Cli::new(&stage).await?;
    let made = cli
        .run(&["token", "create", "puppet", "--role", "operator"], SOON)
        .await?;
    let token = made.lines().next().context("a token")?;
    let pin = stage.api.pin().context("a certificate")?;
    tokio::task::block_in_place(|| {
        server.login(&stage.api.address().to_string(), &pin, token);
        server.until_serves();
    });

    let door = tokio::task::block_in_place(Door::new)?;
    stage.api.upload(&light_image()?).await?;
    let site = SITE
        .replace("STATION", &station.to_string())
        .replace("SERVER", SERVER)
        .replace("KEY", &door.public()?);
    stage.api.set_site(&site).await?;
    let (_, id) = commit_all(&stage.api).await?;
    let run = until_done(&stage.api, id, READY).await?;
    all_ready(&stage, &[MACHINE]).await?;
    let node = stage.node(MACHINE).await?.context("known")?;
    let probed = format!("worker in north, certified as {}", node.id);
    let said = done(&run, "/step.enrol")?;
    ensure!(said.contains(&probed), "{said}");
    ensure!(
        gate.requests()
            .iter()
            .any(|one| one.contains("puppet-agent_") && one.starts_with("GET")),
        "the agent is no package of ours: {:?}",
        gate.requests()
    );
    let name = format!("{}.stories.test", node.name);
    ensure!(server.signed(&name), "{}", server.said());
    told(&cli, &format!("asked for the certificate of {name}: sign")).await?;

    // Its address is a static one, which other tools are told by what is known of the node.
    let reached = done(&run, "/os.reachable")?;
    let address = node.address.context("an address")?;
    ensure!(reached.contains(&format!(" at {address} ")), "{address}: {reached}");
    let machine = door.open(&stage, &node, &reached).await?;
    its_token_is_good_no_more(&cli, &server, &machine, &name).await?;
    it_goes_on_without_us(&stage, &machine, &probed).await?;
    stage.end().await;
    Ok(())
}

/// What the appliance's audit trail must tell, which is written behind its answers.
async fn told(cli: &Cli, line: &str) -> Result<()> {
    let look = || async {
        let audit = cli.run(&["audit"], SOON).await.map_err(|error| format!("{error:#}"))?;
        if audit.contains(line) { Ok(()) } else { Err(audit) }
    };
    eventually(line, SOON, look).await
}

/// The token still lies in the machine. Under another name it opens nothing, and under its own nothing but the key it was first
/// shown with: not even when the server's authority has lost its records.
async fn its_token_is_good_no_more(cli: &Cli, server: &puppet::Server, machine: &Machine, name: &str) -> Result<()> {
    let other = "other.stories.test";
    let ask = |name: &str| format!("puppet agent --test --color false --ssldir /root/of-a-thief --certname {name}");
    let said = machine.ssh(&ask(other)).await?;
    ensure!(said.status.code() == Some(1) && !server.signed(other), "{said:?}");
    told(cli, &format!("asked for the certificate of {other}: do not sign")).await?;
    server.forget(name);
    let said = machine.ssh(&format!("rm -r /root/of-a-thief; {}", ask(name))).await?;
    ensure!(said.status.code() == Some(1) && !server.signed(name), "{said:?}");
    let why = "do not sign, the token was used already, for another key";
    told(cli, &format!("asked for the certificate of {name}: {why}")).await?;
    let listed = cli.run(&["handoff", "enrolments"], SOON).await?;
    ensure!(listed.contains(name) && listed.contains("used"), "{listed}");
    println!("{name} enrolled; its token was refused with another name and with another key");
    Ok(())
}

/// The appliance is gone, so the classifier fails: the agent applies the catalogue that it has.
async fn it_goes_on_without_us(stage: &Stage, machine: &Machine, probed: &str) -> Result<()> {
    stage.appliance.machine.act(PowerAction::ForceOff).await?;
    let said = machine
        .ssh("rm /etc/probed; puppet agent --onetime --no-daemonize --verbose --color false; cat /etc/probed")
        .await?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    ensure!(
        text.contains("Using cached catalog") && text.contains(probed),
        "{text}\n{said:?}"
    );
    println!("with the appliance off the agent went on by its cached catalogue");
    Ok(())
}

/// Leads whoever connects to the server's port at `host` to the real one, on this machine.
async fn lead(host: Host, port: u16) -> std::io::Result<()> {
    let mut listener = host.listen(PORT, 8)?;
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (mut inside, _) = listener.accept().await?;
        connections.spawn(async move {
            let mut outside = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
            tokio::io::copy_bidirectional(&mut inside, &mut outside).await
        });
        while connections.try_join_next().is_some() {}
    }
}

/// A repository of Debian's agent and all that it needs, as this machine's apt gets them.
fn archive() -> Result<Origin> {
    let folder = tempfile::tempdir()?;
    if !fetched(folder.path(), &[])? {
        // This machine's lists are older than its archive.
        let lists = folder.path().join("lists");
        std::fs::create_dir(&lists)?;
        let lists = format!("Dir::State::lists={}", lists.display());
        let update = apt(folder.path(), &[&lists, "update"])?;
        ensure!(update.status.success(), "{update:?}");
        ensure!(fetched(folder.path(), &[&lists])?, "the archive lacks a package");
    }
    let origin = Origin::start();
    let mut list = String::new();
    for file in std::fs::read_dir(folder.path().join("archives"))? {
        let path = file?.path();
        if path.extension().is_none_or(|end| end != "deb") {
            continue;
        }
        let control = Command::new("dpkg-deb").arg("-f").arg(&path).output()?;
        let control = String::from_utf8(control.stdout)?;
        let name = path.file_name().and_then(|name| name.to_str()).context("a name")?;
        // A colon in a version.
        let (name, deb) = (name.replace("%3a", "-"), std::fs::read(&path)?);
        list.push_str(&format!(
            "{control}Filename: pool/{name}\nSize: {}\nSHA256: {}\n\n",
            deb.len(),
            hex(&deb)
        ));
        origin.put(&format!("/debian/pool/{name}"), doc(deb));
    }
    let release = format!(
        "Origin: x\nSuite: stable\nCodename: stable\nDate: Sat, 28 Nov 2026 00:00:00 UTC\nArchitectures: amd64 all\n\
         Components: main\nSHA256:\n {} {} main/binary-amd64/Packages\n",
        hex(list.as_bytes()),
        list.len()
    );
    origin.put("/debian/dists/stable/Release", doc(release.into_bytes()));
    origin.put(
        "/debian/dists/stable/main/binary-amd64/Packages",
        doc(list.into_bytes()),
    );
    Ok(origin)
}

/// This machine's apt with its sources, as if nothing were installed, and with a cache in `folder`.
fn apt(folder: &Path, more: &[&str]) -> Result<Output> {
    let at = |name: &str| format!("{}/{name}", folder.display());
    std::fs::create_dir_all(at("archives/partial"))?;
    std::fs::write(at("status"), "")?;
    let options = [
        format!("Dir::State::status={}", at("status")),
        format!("Dir::Cache={}", folder.display()),
        "APT::Sandbox::User=root".into(),
        "Debug::NoLocking=true".into(),
    ];
    let mut command = Command::new("apt-get");
    command.args(["-q", "-y", "--no-install-recommends"]);
    for option in options.iter().map(String::as_str).chain(more.iter().copied()) {
        match option.contains('=') {
            true => command.args(["-o", option]),
            false => command.arg(option),
        };
    }
    command.env("LC_ALL", "C").output().context("running apt-get")
}

fn fetched(folder: &Path, more: &[&str]) -> Result<bool> {
    let what = ["--download-only", "install", "puppet-agent"];
    let said = apt(folder, &[more, &what].concat())?;
    if !said.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&said.stderr));
    }
    Ok(said.status.success())
}

/// A key that opens the machine, for what is done in it while there is no appliance.
struct Door {
    folder: tempfile::TempDir,
}

impl Door {
    fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let made = Command::new("ssh-keygen")
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "story", "-f"])
            .arg(folder.path().join("key"))
            .status()?;
        ensure!(made.success(), "ssh-keygen: {made}");
        Ok(Self { folder })
    }

    fn public(&self) -> Result<String> {
        let text = std::fs::read_to_string(self.folder.path().join("key.pub"))?;
        Ok(text.trim().to_owned())
    }

    /// A way to the machine, whose host key is the one that the appliance gave it; `told` says where it was reached.
    async fn open(self, stage: &Stage, node: &Node, told: &str) -> Result<Machine> {
        let mut words = told.split_whitespace().skip_while(|word| *word != "at").skip(1);
        let address = words.next().with_context(|| format!("no address in {told:?}"))?;
        let address = address.parse().with_context(|| format!("{address:?} in {told:?}"))?;
        let installed = node.installed.as_ref().context("installed")?;
        let station = neighbour(stage.rack.file().appliance.rack_address, 241);
        let to = SocketAddrV4::new(address, 22);
        let relay = stage.rack.relay("rack", Ipv4::fixed(station, 24), to).await?;
        let known = format!("[127.0.0.1]:{} {}\n", relay.address().port(), installed.host_key);
        std::fs::write(self.folder.path().join("known"), known)?;
        Ok(Machine { door: self, relay })
    }
}

/// The machine, from outside.
struct Machine {
    door: Door,
    relay: rackbar_vrack::host::Relay,
}

impl Machine {
    async fn ssh(&self, command: &str) -> Result<Output> {
        let folder = self.door.folder.path();
        let mut ssh = tokio::process::Command::new("ssh");
        ssh.args(["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-F", "none", "-i"])
            .arg(folder.join("key"))
            .arg("-o")
            .arg(format!("UserKnownHostsFile={}", folder.join("known").display()))
            .args(["-p", &self.relay.address().port().to_string(), "root@127.0.0.1"])
            .arg(command)
            .kill_on_drop(true);
        let ended = tokio::time::timeout(RUN, ssh.output()).await;
        Ok(ended.with_context(|| format!("{command:?} did not end"))??)
    }
}
