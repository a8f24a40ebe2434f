//! What each machine boots: our kernel and initial RAM filesystem, with a command line that names this appliance and
//! holds a fresh one-time token, as an iPXE script or a signed manifest. A site's own script takes the place of ours and
//! can go on to it.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use rackbar_boot::{
    BootSpec, NodeArguments, SpecFile, node_command_line, render_ipxe, render_local_disk, signed_local_disk_manifest,
    signed_manifest, site_script,
};
use rackbar_messages::BootReport;
use rackbar_model::{BootStage, Digest, EventKind, MacAddr};
use rackbar_services::{BootDesk, BootReply};
use rackbar_trust::Signer;

use crate::Rack;
use crate::installs::Boot;
use crate::mind::Mind;
use crate::rack::{locked, now};
use crate::record::Boots;

/// Says what machines boot.
pub struct Desk {
    rack: Rack,
    options: DeskOptions,
}

/// What all machines have in common.
pub struct DeskOptions {
    /// The kernel; `None` when the appliance has no boot files, which it then says to whoever asks.
    pub kernel: Option<SpecFile>,
    /// Parts of the initial RAM filesystem.
    pub initrds: Vec<SpecFile>,
    /// SHA-256 of the site CA certificate's DER.
    pub pin: Digest,
    /// Signs manifests.
    pub signer: Arc<dyn Signer + Send + Sync>,
    /// TCP port of the agents' server.
    pub agent_port: u16,
    /// TCP port of the boot HTTP server.
    pub http_port: u16,
}

/// Status code and words.
type Refusal = (u16, String);

impl Desk {
    /// A desk for `rack`.
    pub fn new(rack: Rack, options: DeskOptions) -> Self {
        Self { rack, options }
    }

    /// True for a machine that is installed and is not wanted in our agent: whatever its firmware's boot order is, it
    /// ends up in its own system.
    fn boots_disk(&self, mac: MacAddr) -> bool {
        let boots = |mind: &Mind| Some(mind.records.get(mind.by_mac.get(&mac)?)?.boots);
        self.rack.look(boots) == Some(Boots::Disk)
    }

    /// What the machine with `mac` boots now.
    fn boots(&self, mac: MacAddr) -> Booted {
        match self.rack.installer_boot(mac) {
            Some(Boot::Disk) => Booted::Disk,
            Some(Boot::Installer(spec)) => Booted::Installer(spec),
            None if self.boots_disk(mac) => Booted::Disk,
            None => Booted::Agent,
        }
    }

    /// Our address as the client reaches it.
    fn own(&self, client: IpAddr) -> Result<IpAddr, Refusal> {
        let own = self.rack.look(|mind| mind.settings.own_address(client));
        let none = || (503, "no network of role `rack` has an address".to_owned());
        own.map(IpAddr::from).ok_or_else(none)
    }

    /// The specification for one boot, with our address as the client reaches it.
    fn spec(&self, mac: MacAddr, client: IpAddr) -> Result<(BootSpec, IpAddr), Refusal> {
        let kernel = self.options.kernel.clone().ok_or_else(|| {
            let text = "this appliance has no boot files: it was started without its own boot medium's kernel";
            (503, text.to_owned())
        })?;
        if !mac.is_unicast() {
            return Err((400, format!("{mac} is no address of a machine")));
        }
        let (admitted, extra) = self.rack.with(|mind, _| {
            let admitted = mind.by_mac.contains_key(&mac) || mind.settings.admits(mac);
            (admitted, mind.settings.kernel_arguments.clone())
        });
        if !admitted {
            return Err((
                403,
                format!("{mac} is not a machine of this site: `clients.unknown` in rackbar.toml excludes it"),
            ));
        }
        // Its token would make whoever asks this machine's agent.
        if self.rack.speaks_for_another(client, mac) {
            return Err((403, format!("{client} is the address of another machine than {mac}")));
        }
        let own = self.own(client)?;
        let token = locked(&self.rack.inner.tokens)
            .mint(mac, now())
            .map_err(|error| (503, error.to_string()))?;
        let server = SocketAddr::new(own, self.options.agent_port);
        let arguments = NodeArguments {
            server,
            pin: self.options.pin,
            token: &token,
            mac,
            extra: &extra,
        };
        let command_line = node_command_line(&arguments).map_err(|error| {
            (
                500,
                format!("boot.kernel_arguments in rackbar.toml cannot be used: {error}"),
            )
        })?;
        let spec = BootSpec {
            kernel,
            initrds: self.options.initrds.clone(),
            command_line,
        };
        Ok((spec, own))
    }
}

/// What a machine boots.
enum Booted {
    /// Its own disk.
    Disk,
    /// An installer that is ordered for it.
    Installer(BootSpec),
    /// Our agent.
    Agent,
}

impl BootDesk for Desk {
    fn script(&self, mac: MacAddr, client: IpAddr) -> BootReply {
        let base = |own: IpAddr| match self.options.http_port {
            80 => format!("http://{own}"),
            port => format!("http://{}", SocketAddr::new(own, port)),
        };
        match self.boots(mac) {
            Booted::Disk => return reply(Ok(("text/plain; charset=utf-8", render_local_disk(mac).into()))),
            // An order for this machine goes before the site's own scripts.
            Booted::Installer(spec) => {
                let script = self.own(client).map(|own| render_ipxe(&spec, &base(own), mac));
                return reply(script.map(|text| ("text/plain; charset=utf-8", text.into())));
            }
            Booted::Agent => {}
        }
        let script = self.spec(mac, client).map(|(spec, own)| {
            let base = base(own);
            let own = self
                .rack
                .with(|mind, _| site_script(&mind.settings.scripts, mac).cloned());
            own.map_or_else(
                || render_ipxe(&spec, &base, mac),
                |script| script.render(&spec, &base, mac),
            )
        });
        reply(script.map(|text| ("text/plain; charset=utf-8", text.into())))
    }

    fn manifest(&self, mac: MacAddr, nonce: [u8; 16], client: IpAddr) -> BootReply {
        let spec = match self.boots(mac) {
            Booted::Disk => {
                let bytes = signed_local_disk_manifest(nonce, mac, now().0, self.options.signer.as_ref());
                return reply(Ok(("application/octet-stream", bytes.into())));
            }
            Booted::Installer(spec) => Ok(spec),
            Booted::Agent => self.spec(mac, client).map(|(spec, _)| spec),
        };
        // The time makes the number of the attempt: it grows, also across restarts.
        let manifest = spec.map(|spec| signed_manifest(&spec, nonce, mac, now().0, self.options.signer.as_ref()));
        reply(manifest.map(|bytes| ("application/octet-stream", bytes.into())))
    }

    fn installer(&self, token: &str, what: &str, client: IpAddr) -> (BootReply, Option<MacAddr>) {
        self.rack.installer_asks(token, what, client)
    }

    fn disc_answered(&self, client: IpAddr, path: &str, status: u16) {
        self.rack.archive_answered(client, path, status);
    }

    fn report(&self, report: BootReport, client: IpAddr) {
        if self.rack.speaks_for_another(client, report.mac) {
            return;
        }
        self.rack
            .queue_event(Some(report.mac), EventKind::Boot(told(report.stage)));
    }
}

/// Characters that are kept of each text in a report: anybody can send one, and it lies in the journal for long.
const TEXT: usize = 256;

/// A stage as it is written down.
fn told(mut stage: BootStage) -> BootStage {
    let text = match &mut stage {
        BootStage::LoaderStarted { version: text }
        | BootStage::FileVerified { name: text, .. }
        | BootStage::Failed { reason: text } => text,
        BootStage::ManifestVerified
        | BootStage::StartingKernel
        | BootStage::AgentStarted { .. }
        | BootStage::LocalDisk => return stage,
    };
    *text = text.chars().filter(|c| !c.is_control()).take(TEXT).collect();
    stage
}

fn reply(result: Result<(&'static str, Bytes), Refusal>) -> BootReply {
    match result {
        Ok((content_type, body)) => BootReply::Bytes { content_type, body },
        Err((status, text)) => BootReply::Refused { status, text },
    }
}
