//! Booting an installer of the catalogue on a machine and waiting until it says that the system is on the disk.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rackbar_artifacts::images::boot_names;
use rackbar_boot::{BootSpec, SpecFile};
use rackbar_installers::{
    Debian, DebianRelease, Install, RedHat, RedHatKind, System, Ubuntu, UbuntuRelease, Url, render,
};
use rackbar_model::{
    Digest, FirmwareMode, ImageEntry, Installer, InstallerSystem, MacAddr, Node, NodeId, OsFile, OsSetup, RootTarget,
};
use rackbar_plan::site::Enrol;
use rackbar_plan::{OwnService, Progress};
use rackbar_trust::Secret;

use super::{Appliance, Done, Learned, Task, enrol};
use crate::course::Course;
use crate::installs::{Material, Order, Seen, Step};
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
        let ended = self.follow(task, node, before, &order).await;
        let seen = match ended {
            Ok(seen) => seen,
            Err(done) => {
                order.end();
                return done;
            }
        };
        let mut details = vec![format!(
            "{} requests to {} went through us",
            seen.requests,
            order.course.source()
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
        let from = self.fetches_from(client, setup.proxy.as_deref())?;
        let install = self.asked(client, &token, setup, wanted.target, firmware, mac)?;
        let material = material(&entry, installer, install, from)?;
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

    /// The same as URLs of boot HTTP name it.
    fn own_host(&self, client: Option<IpAddr>) -> Result<String, Done> {
        let own = self.own_address(client)?;
        Ok(match self.reach.http_port {
            80 => own.to_string(),
            port => SocketAddr::new(own, port).to_string(),
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
        let host = self.own_host(client)?;
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

    /// Where the installer of a system with this proxy fetches from.
    fn fetches_from(&self, client: Option<IpAddr>, proxy: Option<&str>) -> Result<Source, Done> {
        let at = SocketAddr::new(self.own_address(client)?, PROXY_PORT);
        let networks = self.rack.look(|mind| mind.settings.networks.clone());
        let ours = networks.iter().filter_map(|network| network.address).map(IpAddr::from);
        let own = ours
            .chain([at.ip()])
            .any(|address| proxy.is_none_or(|proxy| proxy == OwnService::Proxy.at(address)));
        Ok(Source {
            host: self.own_host(client)?,
            own: own.then_some(at),
            mirrors: self.rack.look(|mind| mind.settings.mirrors.clone()),
        })
    }

    /// Waits for the installer's end. `before` is the boot of our agent that the machine was in.
    async fn follow(
        &self,
        task: &mut Task,
        node: NodeId,
        before: Option<[u8; 32]>,
        order: &Order,
    ) -> Result<Seen, Done> {
        let course = order.course;
        loop {
            let now = order.seen.borrow().clone();
            if now.step == Step::Finished {
                return Ok(now);
            }
            (task.progress)(Progress {
                doing: doing(course, &now),
                ..Progress::default()
            });
            if let Some(why) = now.failed {
                let reason = format!("{}; its last step: {}", why.words(), words(course, &now));
                return Err(Done::failed(reason, why.advice(), why.again()));
            }
            if let Some(failed) = stalled(course, &now, self.reach.installer_silent, self.reach.installer_refused) {
                return Err(failed);
            }
            if self.rack.agent(node).is_some_and(|link| Some(link.boot) != before) {
                let reason = format!(
                    "the machine booted our agent, and the last of its installer was: {}",
                    words(course, &now)
                );
                let advice = "its timeline says how it booted; an installer that is interrupted is begun anew";
                return Err(Done::failed(reason, advice, true));
            }
            tokio::select! {
                () = tokio::time::sleep(self.reach.look) => {}
                Ok(_) = task.give_up.wait_for(|give_up| *give_up) => {
                    let reason = format!("it was ended before the installer was; its last step: {}", words(course, &now));
                    return Err(Done::failed(reason, course.look(), true));
                }
            }
        }
    }
}

fn words(course: Course, seen: &Seen) -> String {
    let (step, source) = (course.words(seen.step), course.source());
    match seen.missing.as_slice() {
        [] => step.to_owned(),
        missing => format!("{step}; {source} did not give {}", missing.join(", ")),
    }
}

fn doing(course: Course, seen: &Seen) -> String {
    let (words, source) = (words(course, seen), course.source());
    match seen.requests {
        0 => words,
        count => format!("{words} ({count} requests to {source})"),
    }
}

/// Why no more is to be waited for: nothing was heard for `silent`, or the archive refused a package and nothing followed
/// for `refused`.
fn stalled(course: Course, seen: &Seen, silent: Duration, refused: Duration) -> Option<Done> {
    let quiet = Duration::from_millis(now().since(seen.heard));
    let limit = if seen.missing.is_empty() { silent } else { refused };
    if quiet < limit {
        return None;
    }
    let reason = format!(
        "nothing was heard of the installer for {} s; its last step: {}",
        quiet.as_secs(),
        words(course, seen)
    );
    Some(match seen.missing.as_slice() {
        // The same archive gives the same answer.
        [_, ..] => Done::failed(reason, course.cure(), false),
        [] if seen.step <= Step::Booting => {
            let advice = "its timeline says how far its boot came; look at its boot order and its console";
            Done::failed(reason, advice, true)
        }
        [] => Done::failed(reason, course.look(), true),
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
    inventory(task, boots_from, "which network interface it boots from")
}

/// The NIC that a machine boots from, as far as its inventory says.
pub(crate) fn boots_from(node: &Node) -> Option<MacAddr> {
    let inventory = node.inventory.as_ref()?;
    let nic = || inventory.nics.iter().find(|nic| nic.boot).map(|nic| nic.mac);
    inventory.boot.mac.or_else(nic)
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

/// Where an installer fetches from.
struct Source {
    /// Our boot HTTP.
    host: String,
    /// Our proxy; `None` where the machine has one of others, and asks the upstreams of the mirrors through that.
    own: Option<SocketAddr>,
    /// The mirrors by name, with their upstreams.
    mirrors: BTreeMap<String, Vec<String>>,
}

impl Source {
    /// A mirror of our own proxy, or its upstream. The plan saw to it that it is there and that the machine uses the proxy.
    fn mirror(&self, name: &str, system: InstallerSystem) -> Result<String, Done> {
        let upstreams = self.mirrors.get(name);
        let place = match self.own {
            Some(proxy) => upstreams.map(|_| format!("http://{proxy}/mirror/{name}")),
            None => upstreams.and_then(|all| Some(system.asks(all)?.trim_end_matches('/').to_owned())),
        };
        place.ok_or_else(|| {
            let reason = format!("the proxy's mirror {name}, which the installer was to fetch from, is gone");
            let advice = "name it in rackbar.toml, then commit again";
            Done::failed(reason, advice, false)
        })
    }
}

/// Boot files, arguments and answers of one machine.
fn material(entry: &ImageEntry, installer: &Installer, mut install: Install, from: Source) -> Result<Material, Done> {
    let system = match installer.system {
        InstallerSystem::Debian => System::Debian(debian(installer, &mut install, &from)?),
        InstallerSystem::Ubuntu => System::Ubuntu(ubuntu(entry, installer, &mut install, &from)?),
        InstallerSystem::Rhel => System::RedHat(anaconda(entry, installer, RedHatKind::Rhel, &install, &from)?),
        InstallerSystem::Rocky => System::RedHat(anaconda(entry, installer, RedHatKind::Rocky, &install, &from)?),
        InstallerSystem::Alma => System::RedHat(anaconda(entry, installer, RedHatKind::Alma, &install, &from)?),
        InstallerSystem::CentosStream => {
            System::RedHat(anaconda(entry, installer, RedHatKind::CentosStream, &install, &from)?)
        }
        InstallerSystem::Fedora => System::RedHat(anaconda(entry, installer, RedHatKind::Fedora, &install, &from)?),
    };
    let wrong = |error: &dyn std::fmt::Display| {
        let reason = format!("the answers for {} cannot be made: {error}", entry.name);
        Done::failed(reason, "mend the role in the site file", false)
    };
    let rendered = render(&install, &system).map_err(|error| wrong(&error))?;
    let [kernel, initrd] = boot_names(installer.system);
    let find = |path: &str| {
        let part = match path.rsplit('/').next() {
            Some(name) if name == kernel => (kernel, installer.kernel),
            Some(name) if name == initrd => (initrd, installer.initrd),
            _ => return None,
        };
        SpecFile::new(part.0, part.1.bytes, part.1.sha256).ok()
    };
    let spec: Option<BootSpec> = rendered.boot.spec(find);
    // The first file holds what is secret; those behind it say whose it is.
    let mut files = rendered
        .files
        .into_iter()
        .map(|file| (file.name, file.content.into_bytes().into()));
    match (spec, files.next()) {
        (Some(spec), Some(answers)) => Ok(Material {
            spec,
            answers,
            beside: files.collect(),
            course: Course::of(installer),
        }),
        _ => Err(wrong(&"its archive has not what is booted")),
    }
}

fn debian(installer: &Installer, install: &mut Install, from: &Source) -> Result<Debian, Done> {
    let release = match installer.release.as_str() {
        "trixie" => DebianRelease::Trixie,
        _ => DebianRelease::Bookworm,
    };
    let steps = Some(install.answers.clone());
    let mirror = archive(&mut install.setup, installer.system, from)?;
    let security = from
        .mirror(SECURITY, installer.system)
        .ok()
        .map(|security| url(&security))
        .transpose()?;
    Ok(Debian {
        release,
        mirror,
        security,
        steps,
    })
}

/// What subiquity fetches: its whole disc, whose name casper wants to end so, and packages from our mirror.
fn ubuntu(entry: &ImageEntry, installer: &Installer, install: &mut Install, from: &Source) -> Result<Ubuntu, Done> {
    let release = match installer.suite() {
        "jammy" => UbuntuRelease::Jammy,
        _ => UbuntuRelease::Noble,
    };
    let iso = url(&format!(
        "http://{}/boot/v1/files/{}/ubuntu.iso",
        from.host, entry.sha256
    ))?;
    let steps = Some(install.answers.clone());
    Ok(Ubuntu {
        release,
        iso,
        mirror: Some(archive(&mut install.setup, installer.system, from)?),
        security: None,
        steps,
    })
}

/// What Anaconda fetches: all of it from the disc, or with a disc that only boots the packages from our mirror.
fn anaconda(
    entry: &ImageEntry,
    installer: &Installer,
    kind: RedHatKind,
    install: &Install,
    from: &Source,
) -> Result<RedHat, Done> {
    let disc = url(&format!("http://{}/boot/v1/tree/{}", from.host, entry.sha256))?;
    let (mut tree, mut stage2, mut repositories, mut near) = (disc, None, Vec::new(), true);
    if let Some(mirror) = installer.mirror() {
        let path = installer.tree();
        let base = format!("{}/{path}", from.mirror(mirror, installer.system)?);
        let more = base.replace("/BaseOS/", "/AppStream/");
        if more != base {
            repositories.push(("AppStream".to_owned(), url(&more)?));
        }
        stage2 = Some(std::mem::replace(&mut tree, url(&base)?));
        near = from.own.is_some();
    }
    let major = installer.release.split('.').next().unwrap_or_default();
    Ok(RedHat {
        kind,
        version: major.parse().unwrap_or_default(),
        tree,
        repositories,
        stage2,
        near,
        steps: Some(install.answers.clone()),
    })
}

/// The archive of apt's: a mirror of our own proxy, or through one of others its upstream. The plan saw to it that the machine
/// uses that.
fn archive(setup: &mut OsSetup, system: InstallerSystem, from: &Source) -> Result<Url, Done> {
    let mirror = url(&from.mirror(system.mirror(), system)?)?;
    // Installer and installed system ask a proxy of others for everything.
    let Some(own) = from.own else { return Ok(mirror) };
    let proxy = format!("http://{own}");
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
    Ok(mirror)
}
