//! Booting an installer of the catalogue on a machine and waiting until it says that the system is on the disk.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rackbar_artifacts::images::{INITRD, KERNEL};
use rackbar_boot::{BootSpec, SpecFile};
use rackbar_installers::{Debian, DebianRelease, Install, System, Url, render};
use rackbar_model::{
    Digest, FirmwareMode, ImageEntry, Installer, InstallerSystem, MacAddr, Node, NodeId, OsFile, OsSetup, RootTarget,
};
use rackbar_plan::site::Enrol;
use rackbar_plan::{DEBIAN_MIRROR, Progress};
use rackbar_trust::Secret;

use super::{Appliance, Done, Learned, Task, enrol};
use crate::installs::{CURE, Material, Order, Seen, Step};
use crate::rack::now;

/// The proxy's mirror of Debian's security updates.
const SECURITY: &str = "debian-security";

/// The port that our own proxy listens on.
const PROXY_PORT: u16 = 3128;

/// What is to be installed.
#[derive(Clone, Copy)]
pub(super) struct Installing<'a> {
    pub(super) target: &'a RootTarget,
    pub(super) image: &'a str,
    pub(super) sha256: Digest,
    pub(super) setup: &'a OsSetup,
    pub(super) enrol: &'a [Enrol],
}

impl Appliance {
    /// Has the machine install itself.
    pub(super) async fn install(&self, task: &mut Task, node: NodeId, wanted: Installing<'_>) -> Done {
        let host_key = match self.host_key(node, task.run.0, &wanted.setup.hostname) {
            Ok(pair) => pair,
            Err(reason) => return Done::failed(reason, "look at the state of the store", true),
        };
        let before = self.rack.agent(node).map(|link| link.boot);
        let resumed = task
            .taken_up
            .then(|| self.rack.resume_installer(node, task.job))
            .flatten();
        let (order, firmware) = match resumed {
            Some(order) => (order, firmware(task).ok()),
            None => match self.begin(task, node, wanted, &host_key.private).await {
                Ok((order, firmware)) => (order, Some(firmware)),
                Err(done) => return done,
            },
        };
        let ended = self.follow(task, node, before, order.seen.clone()).await;
        let seen = match ended {
            Ok(seen) => seen,
            Err(done) => {
                order.end();
                return done;
            }
        };
        let mut details = vec![format!(
            "{} requests to its archive went through our proxy",
            seen.requests
        )];
        details.push(
            match self.boot_first_by_bmc(node, firmware == Some(FirmwareMode::Uefi)).await {
                Ok(true) => "its BMC boots the disk first".to_owned(),
                Ok(false) => "it has no BMC to set the boot order through: the installer's own entry counts".to_owned(),
                Err(reason) => format!("its BMC did not take the boot order: {reason}"),
            },
        );
        let (image, target) = (wanted.image.to_owned(), wanted.target.clone());
        Done::well(format!("{} installed {}", wanted.image, wanted.setup.hostname))
            .with_details(details)
            .and(Learned::Written {
                image,
                sha256: wanted.sha256,
                target,
            })
            .and(Learned::SetUp {
                setup: Box::new(wanted.setup.clone()),
                host_key: host_key.public,
            })
    }

    /// Makes the order, and restarts the machine.
    async fn begin(
        &self,
        task: &Task,
        node: NodeId,
        wanted: Installing<'_>,
        host_key: &rackbar_model::SecretText,
    ) -> Result<(Order, FirmwareMode), Done> {
        let firmware = firmware(task)?;
        let mac = boot_mac(task)?;
        let token = Secret::<32>::random().map_err(|error| Done::failed(error.to_string(), "", true))?;
        let mut setup = wanted.setup.clone();
        setup.ssh_host_key = host_key.clone();
        // Ours, for the checks. Not part of the plan, which is the operator's.
        let own = self.key.public_openssh();
        setup
            .ssh_keys
            .push(own.map_err(|error| Done::failed(error.to_string(), "", false))?);
        let installing = enrol::Installing {
            target: wanted.target,
            image: wanted.image,
            sha256: wanted.sha256,
        };
        let by = (wanted.enrol, wanted.setup);
        // The role's own files come after them, and win.
        let files = self.enrolment_files(task, node, by, installing).await?;
        drop(setup.files.splice(0..0, files));
        let images = self.images.as_ref();
        let entry = images.and_then(|images| images.exact(wanted.image, wanted.sha256));
        let entry = entry.ok_or_else(|| {
            let reason = format!("the installer {} of this plan is not in the catalogue", wanted.image);
            Done::failed(
                reason,
                "add it (`rackbar os add FILE`), then plan and commit again",
                false,
            )
        })?;
        let installer = entry.installer.as_ref().ok_or_else(|| {
            let reason = format!("{} is no installer", wanted.image);
            Done::failed(reason, "plan and commit again", false)
        })?;
        let client = task.node.as_ref().and_then(|node| node.address);
        let install = self.asked(client, &token, setup, wanted.target, firmware, mac)?;
        let material = material(&entry, installer, install, self.mirrors(client)?)?;
        let order = self.rack.order_installer(node, task.job, mac, &token, material);
        let connected = self.rack.agent(node).is_some();
        if let Err(reason) = self.to_network(task, node, connected).await {
            order.end();
            let advice = "switch it on or press its reset button, and let it boot from the network";
            return Err(Done::failed(reason, advice, true));
        }
        Ok((order, firmware))
    }

    /// Our address as the machine reaches it.
    fn own_address(&self, client: Option<IpAddr>) -> Result<IpAddr, Done> {
        let near = client.unwrap_or(IpAddr::from([0, 0, 0, 0]));
        let own = self.rack.look(|mind| mind.settings.own_address(near));
        own.map(IpAddr::from).ok_or_else(|| {
            let advice = "look at the networks in rackbar.toml and at their cables";
            Done::failed("none of our networks leads to the machine", advice, true)
        })
    }

    /// Everything that the answers say.
    fn asked(
        &self,
        client: Option<IpAddr>,
        token: &Secret<32>,
        setup: OsSetup,
        target: &RootTarget,
        firmware: FirmwareMode,
        boot_mac: MacAddr,
    ) -> Result<Install, Done> {
        let own = self.own_address(client)?;
        let host = match self.reach.http_port {
            80 => own.to_string(),
            port => SocketAddr::new(own, port).to_string(),
        };
        let base = format!("http://{host}/boot/v1/installer/{}/", token.expose_hex().as_str());
        Ok(Install {
            setup,
            target: target.clone(),
            firmware,
            boot_mac,
            root_password: None,
            accounts: Vec::new(),
            packages: Vec::new(),
            locale: "en_US.UTF-8".into(),
            keyboard: "us".into(),
            kernel_arguments: self.rack.look(|mind| mind.settings.kernel_arguments.clone()),
            answers: url(&base)?,
            done: url(&format!("{base}finished"))?,
        })
    }

    /// The mirrors of our own proxy that an installer may use: where the proxy is, and their names.
    fn mirrors(&self, client: Option<IpAddr>) -> Result<(SocketAddr, Vec<String>), Done> {
        let at = SocketAddr::new(self.own_address(client)?, PROXY_PORT);
        Ok((at, self.rack.look(|mind| mind.settings.mirrors.clone())))
    }

    /// Waits for the installer's end. `before` is the boot of our agent that the machine was in.
    async fn follow(
        &self,
        task: &mut Task,
        node: NodeId,
        before: Option<[u8; 32]>,
        seen: tokio::sync::watch::Receiver<Seen>,
    ) -> Result<Seen, Done> {
        loop {
            let now = seen.borrow().clone();
            if now.step == Step::Finished {
                return Ok(now);
            }
            (task.progress)(Progress {
                doing: doing(&now),
                ..Progress::default()
            });
            if let Some(failed) = stalled(&now, self.reach.installer_silent, self.reach.installer_refused) {
                return Err(failed);
            }
            if self.rack.agent(node).is_some_and(|link| Some(link.boot) != before) {
                let reason = format!(
                    "the machine booted our agent, and the last of its installer was: {}",
                    words(&now)
                );
                let advice = "its timeline says how it booted; an installer that is interrupted is begun anew";
                return Err(Done::failed(reason, advice, true));
            }
            tokio::select! {
                () = tokio::time::sleep(self.reach.look) => {}
                Ok(_) = task.give_up.wait_for(|give_up| *give_up) => {
                    let reason = format!("it was ended before the installer was; its last step: {}", words(&now));
                    return Err(Done::failed(reason, LOOK, true));
                }
            }
        }
    }
}

/// Where a person sees what an installer waits for.
const LOOK: &str =
    "look at the machine's console: the installer shows there what it waits for (its log is on the fourth)";

fn words(seen: &Seen) -> String {
    match seen.missing.as_slice() {
        [] => seen.step.words().to_owned(),
        missing => format!("{}; its archive did not give {}", seen.step.words(), missing.join(", ")),
    }
}

fn doing(seen: &Seen) -> String {
    match seen.requests {
        0 => words(seen),
        count => format!("{} ({count} requests to its archive)", words(seen)),
    }
}

/// Why no more is to be waited for: nothing was heard for `silent`, or the archive refused a package and nothing followed
/// for `refused`.
fn stalled(seen: &Seen, silent: Duration, refused: Duration) -> Option<Done> {
    let quiet = Duration::from_millis(now().since(seen.heard));
    let limit = if seen.missing.is_empty() { silent } else { refused };
    if quiet < limit {
        return None;
    }
    let reason = format!(
        "nothing was heard of the installer for {} s; its last step: {}",
        quiet.as_secs(),
        words(seen)
    );
    Some(match seen.missing.as_slice() {
        // The same archive gives the same answer.
        [_, ..] => Done::failed(reason, CURE, false),
        [] if seen.step <= Step::Booting => {
            let advice = "its timeline says how far its boot came; look at its boot order and its console";
            Done::failed(reason, advice, true)
        }
        [] => Done::failed(reason, LOOK, true),
    })
}

fn inventory<T>(task: &Task, read: impl Fn(&Node) -> Option<T>, what: &str) -> Result<T, Done> {
    task.node.as_ref().and_then(|node| read(node)).ok_or_else(|| {
        let reason = format!("its inventory does not say {what}");
        Done::failed(reason, "let it boot our agent from the network once more", false)
    })
}

fn firmware(task: &Task) -> Result<FirmwareMode, Done> {
    let mode = |node: &Node| node.inventory.as_ref()?.firmware.mode;
    inventory(task, mode, "whether its firmware is BIOS or UEFI")
}

fn boot_mac(task: &Task) -> Result<MacAddr, Done> {
    let mac = |node: &Node| {
        let inventory = node.inventory.as_ref()?;
        let nic = || inventory.nics.iter().find(|nic| nic.boot).map(|nic| nic.mac);
        inventory.boot.mac.or_else(nic)
    };
    inventory(task, mac, "which network interface it boots from")
}

fn url(text: &str) -> Result<Url, Done> {
    let wrong = |error| {
        Done::failed(
            format!("an address for the installer cannot be made: {error}"),
            "",
            false,
        )
    };
    text.parse().map_err(wrong)
}

/// Boot files, arguments and answers of one machine.
fn material(
    entry: &ImageEntry,
    installer: &Installer,
    mut install: Install,
    mirrors: (SocketAddr, Vec<String>),
) -> Result<Material, Done> {
    let InstallerSystem::Debian = installer.system;
    let release = match installer.release.as_str() {
        "trixie" => DebianRelease::Trixie,
        _ => DebianRelease::Bookworm,
    };
    let steps = Some(install.answers.clone());
    let (mirror, security) = archive(&mut install.setup, mirrors)?;
    let debian = Debian {
        release,
        mirror,
        security,
        steps,
    };
    let wrong = |error: &dyn std::fmt::Display| {
        let reason = format!("the answers for {} cannot be made: {error}", entry.name);
        Done::failed(reason, "mend the role in the site file", false)
    };
    let mut rendered = render(&install, &System::Debian(debian)).map_err(|error| wrong(&error))?;
    let find = |path: &str| {
        let (name, part) = match path.rsplit('/').next() {
            Some(KERNEL) => (KERNEL, installer.kernel),
            Some(INITRD) => (INITRD, installer.initrd),
            _ => return None,
        };
        SpecFile::new(name, part.bytes, part.sha256).ok()
    };
    let spec: Option<BootSpec> = rendered.boot.spec(find);
    match (spec, rendered.files.pop()) {
        (Some(spec), Some(answers)) => Ok(Material {
            spec,
            answers: (answers.name, answers.content.into_bytes().into()),
        }),
        _ => Err(wrong(&"its archive has not what is booted")),
    }
}

/// The archive, and that of security updates where there is one: mirrors of our own proxy. The plan saw to it that the
/// machine uses that.
fn archive(setup: &mut OsSetup, (own, mirrors): (SocketAddr, Vec<String>)) -> Result<(Url, Option<Url>), Done> {
    let proxy = format!("http://{own}");
    if !mirrors.iter().any(|name| name == DEBIAN_MIRROR) {
        let reason = format!("the proxy's mirror {DEBIAN_MIRROR}, which the installer was to fetch from, is gone");
        return Err(Done::failed(
            reason,
            "name it in rackbar.toml, then commit again",
            false,
        ));
    }
    // The installed system uses the proxy for all else, and the mirrors as they are: the proxy leads nobody to itself.
    setup.proxy = None;
    let content = format!(
        "Acquire::http::Proxy \"{proxy}\";\nAcquire::https::Proxy \"{proxy}\";\nAcquire::http::Proxy::{} \"DIRECT\";\n",
        own.ip()
    );
    let file = OsFile {
        path: "/etc/apt/apt.conf.d/90rackbar-proxy".into(),
        content,
        mode: 0o644,
    };
    setup.files.insert(0, file);
    let at = |name: &str| url(&format!("{proxy}/mirror/{name}"));
    let security = mirrors.iter().any(|name| name == SECURITY);
    Ok((at(DEBIAN_MIRROR)?, security.then(|| at(SECURITY)).transpose()?))
}
