//! The appliance's own hands: each kind of action, and who does it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rackbar_artifacts::Programs;
use rackbar_artifacts::images::{self, Images};
use rackbar_messages::JobId;
use rackbar_model::{Digest, ImageSource, NodeId, SecretText, Timestamp};
use rackbar_plan::{Action, ActionKind, RunId};
use rackbar_ssh::{ClientKey, SshError};
use rackbar_store::{Store, StoreError, Table};

use super::installer::Installing;
use super::{Done, Hands, Task, Working};
use crate::{Rack, begun};

/// Under which the appliance's SSH key lies among the secrets.
const CLIENT_KEY: &[u8] = b"ssh-client";

/// How installed systems and images are reached.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    /// TCP port of the boot HTTP server, where agents fetch images.
    pub http_port: u16,
    /// TCP port of SSH on installed systems.
    pub ssh_port: u16,
    /// Between two looks at a machine that restarts.
    pub look: Duration,
    /// Time in which a step that lost its connection has surely ended on its machine.
    pub step_ends: Duration,
    /// Time without any progress after which the writing of an image is taken for stuck. Longer than an agent tries to
    /// fetch on, which ends in better words.
    pub stuck: Duration,
    /// Silence of an installer, requests to its archive included, that is taken for a hang.
    pub installer_silent: Duration,
    /// The same after its archive refused a package.
    pub installer_refused: Duration,
    /// How long one attempt waits for a service of our own.
    pub service_wait: Duration,
    /// UDP port of external DNS servers.
    pub dns_port: u16,
    /// UDP port of external NTP servers.
    pub ntp_port: u16,
}

impl Default for Reach {
    fn default() -> Self {
        Self {
            http_port: 80,
            ssh_port: 22,
            look: Duration::from_secs(2),
            step_ends: rackbar_ssh::ENDED_AFTER,
            stuck: Duration::from_secs(6 * 60),
            // A server's firmware and the unpacking of a large package take minutes, a slow disk some more.
            installer_silent: Duration::from_secs(30 * 60),
            installer_refused: Duration::from_secs(90),
            // Less than an attempt may take.
            service_wait: Duration::from_secs(50),
            dns_port: 53,
            ntp_port: 123,
        }
    }
}

/// Why the appliance has no hands.
#[derive(Debug, thiserror::Error)]
pub enum AppliancePartsError {
    /// The store failed.
    #[error("the appliance's SSH key cannot be read or kept: {0}")]
    Store(#[from] StoreError),
    /// The key in the store is no key, or none could be made.
    #[error("the appliance's SSH key: {0}")]
    Key(#[from] SshError),
}

/// The appliance's SSH key: made at the first start and kept among the secrets.
pub(crate) fn client_key(store: &Store) -> Result<ClientKey, AppliancePartsError> {
    if let Some(text) = store.get(Table::Secrets, CLIENT_KEY)? {
        let text = SecretText(String::from_utf8_lossy(&text).into_owned());
        return Ok(ClientKey::from_openssh(&text)?);
    }
    let key = ClientKey::generate()?;
    store.put(Table::Secrets, CLIENT_KEY, key.to_openssh()?.0.as_bytes())?;
    Ok(key)
}

/// The appliance's hands.
pub struct Appliance {
    pub(super) rack: Rack,
    pub(super) store: Store,
    pub(super) images: Option<Arc<Images>>,
    pub(super) programs: Option<Programs>,
    pub(super) reach: Reach,
    pub(super) key: ClientKey,
}

impl Appliance {
    /// Hands on the machines of `rack`. The key that installed systems let us in by is made at the first start and kept
    /// among the secrets.
    ///
    /// # Errors
    /// When that key cannot be read, made or kept.
    pub fn new(
        rack: Rack,
        store: Store,
        images: Option<Arc<Images>>,
        reach: Reach,
    ) -> Result<Self, AppliancePartsError> {
        let key = client_key(&store)?;
        Ok(Self {
            rack,
            store,
            images,
            programs: None,
            reach,
            key,
        })
    }

    /// The same hands with the users' programs, for steps that run one.
    #[must_use]
    pub fn with_programs(mut self, programs: Option<Programs>) -> Self {
        self.programs = programs;
        self
    }

    async fn work(&self, task: &mut Task) -> Done {
        let Some(action) = task.action().cloned() else {
            return Done::failed("the plan has no such action", "make the plan again", false);
        };
        let Some(node) = action.node else {
            return self.of_the_rack(task, &action).await;
        };
        // Also of an attempt that is taken up: the power may have gone before this was done.
        if action.kind.installs().is_some()
            && let Err(done) = self.take_back_earlier(node, task.run)
        {
            return done;
        }
        match &action.kind {
            ActionKind::RotatePassword => self.rotate_password(task, node).await,
            ActionKind::BiosSettings { attributes } => self.stage_bios(node, attributes).await,
            ActionKind::BiosVerify { attributes } => self.verify_bios(node, attributes).await,
            ActionKind::Agent { fresh } => self.agent(task, node, *fresh).await,
            ActionKind::StayInMemory { .. } => self.agent(task, node, false).await,
            ActionKind::BurnIn(burn_in) => self.burn_in(task, node, *burn_in).await,
            ActionKind::Erase { disks, method } => self.erase(task, node, disks.clone(), *method).await,
            ActionKind::WriteImage {
                target, image, sha256, ..
            } => self.write_image(task, node, target, image, *sha256).await,
            ActionKind::Setup {
                again: Some(again),
                target,
                setup,
                ..
            } => self.adjust(task, node, target, setup, again).await,
            ActionKind::Setup {
                target, setup, enrol, ..
            } => self.setup(task, node, target, setup, enrol).await,
            ActionKind::BootOrder { target } => self.boot_order(task, node, target).await,
            ActionKind::Restart { way, target } => self.restart(task, node, *way, target).await,
            ActionKind::Reachable { .. } => self.reachable(task, node).await,
            ActionKind::Step(step) => self.step(task, node, step).await,
            ActionKind::Rescue { target, step } => self.rescue(task, node, target, step).await,
            ActionKind::Verify { checks } => self.verify(task, node, checks).await,
            ActionKind::Barrier { .. } => Done::well("reached"),
            ActionKind::Service(spec) => self.service(task, spec).await,
            ActionKind::BmcSetUp { network, account } => {
                self.set_up_bmc(task, node, network.as_ref(), account.as_deref()).await
            }
            ActionKind::Installer {
                target,
                image,
                sha256,
                setup,
                enrol,
            } => {
                let installing = Installing {
                    target,
                    image,
                    sha256: *sha256,
                    setup,
                    enrol,
                };
                self.install(task, node, installing).await
            }
        }
    }

    async fn of_the_rack(&self, task: &mut Task, action: &Action) -> Done {
        match &action.kind {
            ActionKind::Barrier { .. } => Done::well("reached"),
            ActionKind::Service(spec) => self.service(task, spec).await,
            _ => Done::failed(
                format!("{} is for a node, and the plan names none", action.id),
                "make the plan again",
                false,
            ),
        }
    }

    /// The image that the plan was made for, also when another has its place now, as the agent at `client` fetches it from us.
    pub(super) fn source(&self, name: &str, sha256: Digest, client: IpAddr) -> Result<ImageSource, Done> {
        let images = self.images.as_ref();
        let entry = images.and_then(|images| images.exact(name, sha256));
        let entry = entry.ok_or_else(|| {
            if let Some(other) = images.and_then(|images| images.get(name)) {
                let other = other.sha256;
                let reason = format!("the image {name} is another than the plan was made for: SHA-256 {other}");
                return Done::failed(reason, "make the plan again", false);
            }
            let advice = format!("add it (`rackbar os add FILE --name {name}`), then plan and commit again");
            Done::failed(format!("the image {name} is not in the catalogue"), advice, false)
        })?;
        let own = self.rack.look(|mind| mind.settings.own_address(client));
        let own: IpAddr = own.map(IpAddr::from).ok_or_else(|| {
            let reason = format!("none of our networks leads to the machine at {client}");
            Done::failed(reason, "look at the networks in rackbar.toml and at their cables", true)
        })?;
        let path = images::url_path(&entry);
        let url = match self.reach.http_port {
            80 => format!("http://{own}{path}"),
            port => format!("http://{}{path}", SocketAddr::new(own, port)),
        };
        Ok(ImageSource {
            name: entry.name.clone(),
            url,
            format: entry.format,
            sha256: entry.sha256,
            bytes: entry.bytes,
            disk_bytes: entry.disk_bytes,
        })
    }

    pub(super) fn now() -> Timestamp {
        crate::rack::now()
    }
}

impl Hands for Appliance {
    fn carry_out(&self, mut task: Task) -> Working<'_> {
        Box::pin(async move { self.work(&mut task).await })
    }

    fn noted(&self, node: NodeId, job: JobId) {
        begun::forget(&self.store, job);
        self.rack.noted(node, job);
    }

    fn settled(&self, node: NodeId, run: RunId, kind: &ActionKind, well: bool) {
        self.enrolment_settled(node, run, kind, well);
    }
}
