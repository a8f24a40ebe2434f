//! Ways of booting that lead through the BMC: what the DHCP engine decided for a firmware that takes neither proxy offers
//! nor addresses of ours (negotiation, A3), carried out.
//!
//! ```text
//! redfish_url     the BMC is given the URL of our loader (Redfish HttpBootUri) ──────┐
//! virtual_media   our disc into the BMC's virtual drive, the next boot from it ──────┴─▶ the machine is restarted
//!                   └─ taken out again when its agent is there, or after a while
//! ```
//! A machine whose BMC has led it before is led so again as soon as its firmware asks the network.
//!
//! Only machines that nobody works with are touched: one that is installed boots its disk, whatever its firmware thinks
//! of us. Whether our disc is in a drive is looked up there and not remembered, so a restart of ours leaves none behind.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use rackbar_devices::BootTarget;
use rackbar_model::{
    BootWay, Event, EventKind, FirmwareHabit, Node, NodeId, NodeState, PowerAction, PowerState, Severity,
};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::{PowerError, Rack};

/// Who asks, in the machine's timeline.
const BY: &str = "boot negotiation";
/// Where boot HTTP has the disc of our loader.
const DISC: &str = "/boot/v1/loader.iso";
/// And the loader itself.
const LOADER: &str = "/boot/v1/loader.efi";

/// How patient we are with machines that boot through their BMC.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// A machine that has not booted from our disc by then has it taken away: servers take minutes to their first
    /// instruction of a boot program.
    pub disc: Duration,
    /// A machine is led again not sooner than this after the last time: the boot by its BMC asks the network, too, and a
    /// server takes minutes until then.
    pub rest: Duration,
    /// Between two tries to take it out.
    pub again: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            disc: Duration::from_secs(20 * 60),
            rest: Duration::from_secs(10 * 60),
            again: Duration::from_secs(30),
        }
    }
}

/// How often taking a disc out is tried.
const EJECTS: u32 = 5;

/// What is to be done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Deed {
    /// The BMC is to lead the machine to us.
    Lead(BootWay),
    /// A firmware asks the network.
    Asks,
    /// The machine has booted.
    TidyUp,
}

/// Carries out every way through a BMC that is decided from now on, until told to stop. `http_port`: where boot files are.
pub async fn run(rack: Rack, http_port: u16, patience: Patience, mut stop: watch::Receiver<bool>) {
    let mut events = rack.subscribe();
    let mut under_way = JoinSet::new();
    let mut led: HashMap<NodeId, Instant> = HashMap::new();
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        while under_way.try_join_next().is_some() {}
        match event {
            Ok(event) => {
                let Some((id, deed)) = deed(&event) else { continue };
                led.retain(|_, at| at.elapsed() < patience.rest);
                let way = match deed {
                    Deed::Lead(way) => Some(way),
                    Deed::Asks if !led.contains_key(&id) => led_before(&rack, id),
                    Deed::Asks => None,
                    Deed::TidyUp => {
                        if habits(&rack, id).iter().any(|habit| habit.way == BootWay::VirtualMedia) {
                            let tidied = take_out(rack.clone(), id, patience);
                            under_way.spawn(async {
                                let _was_in = tidied.await;
                            });
                        }
                        None
                    }
                };
                if let Some(way) = way {
                    led.insert(id, Instant::now());
                    under_way.spawn(lead(rack.clone(), id, way, http_port, patience));
                }
            }
            // A machine that is still not booting comes to the same decision again after its memory is forgotten.
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
    }
}

fn deed(event: &Arc<Event>) -> Option<(NodeId, Deed)> {
    let deed = match event.kind {
        EventKind::WayChanged {
            to: to @ (BootWay::RedfishUrl | BootWay::VirtualMedia),
            ..
        } => Deed::Lead(to),
        // Our own programs say who they are, and iPXE has been led already.
        EventKind::DhcpDiscover {
            user_class: None,
            arch: Some(_),
            ..
        } => Deed::Asks,
        EventKind::AgentUp { .. } => Deed::TidyUp,
        _ => return None,
    };
    Some((event.node?, deed))
}

/// What DHCP learnt of a machine's firmware.
fn habits(rack: &Rack, id: NodeId) -> Vec<FirmwareHabit> {
    let node = rack.node(&id.to_string());
    node.and_then(|node| rack.firmware_of(&node).ok()).unwrap_or_default()
}

/// The way by which its BMC has led this machine to us before, if the site still allows it and the machine may be
/// restarted.
fn led_before(rack: &Rack, id: NodeId) -> Option<BootWay> {
    let through_bmc =
        |habit: &FirmwareHabit| habit.proven && matches!(habit.way, BootWay::RedfishUrl | BootWay::VirtualMedia);
    let way = habits(rack, id).into_iter().find(through_bmc)?.way;
    if !rack.look(|mind| mind.settings.ways.contains(&way)) {
        return None;
    }
    let node = rack.node(&id.to_string()).filter(|node| may_restart(node))?;
    let text = format!("its firmware asks the network again: led by {way}, as before");
    tell(rack, node.id, text, Severity::Info);
    Some(way)
}

/// True for a machine that only its firmware keeps from us.
fn may_restart(node: &Node) -> bool {
    let early = matches!(
        node.state,
        NodeState::Enrolled | NodeState::Inspecting | NodeState::Discovered
    );
    early && !node.agent_connected
}

async fn lead(rack: Rack, id: NodeId, way: BootWay, http_port: u16, patience: Patience) {
    let Some(node) = rack.node(&id.to_string()) else { return };
    if !may_restart(&node) {
        let state = node.state.name();
        let text = format!("not restarted to boot by {way}: it is {state}, and its work is not to be broken off");
        return tell(&rack, id, text, Severity::Info);
    }
    let disc = way == BootWay::VirtualMedia;
    // Who fetches is who must reach us: the firmware our loader, the BMC our disc.
    let fetches = if disc { node.bmc_address } else { node.address };
    let from = fetches.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let ours = rack.look(|mind| match disc {
        true => mind.settings.own_address_for_bmc(from),
        false => mind.settings.own_address(from),
    });
    let Some(ours) = ours else {
        let text = format!("no {way}: this appliance has no address on a network of the rack");
        return tell(&rack, id, text, Severity::Warning);
    };
    let mut url = format!("http://{ours}");
    if http_port != 80 {
        // Writing to a String cannot fail.
        let _ = write!(url, ":{http_port}");
    }
    url.push_str(if disc { DISC } else { LOADER });
    // What the site has firmware boot in place of our loader.
    let instead = rack.look(|mind| mind.settings.uefi_url.clone()).filter(|_| !disc);
    if let Some(instead) = instead {
        url = instead.replace("{server}", &ours.to_string());
    }
    if let Err(error) = carry_out(&rack, &node, disc, url).await {
        let what = if disc { "our disc" } else { "our boot URL" };
        tell(
            &rack,
            id,
            format!("its firmware could not be given {what}: {error}"),
            Severity::Warning,
        );
        if disc {
            // It may be in although the machine was not restarted.
            take_out(rack, id, patience).await;
        }
        return;
    }
    if disc {
        tokio::time::sleep(patience.disc).await;
        let booted = rack.node(&id.to_string()).is_none_or(|node| node.agent_connected);
        if !booted && take_out(rack.clone(), id, patience).await {
            let minutes = patience.disc.as_secs() / 60;
            let text = format!("it has not booted from our disc within {minutes} min; does its firmware boot by UEFI?");
            tell(&rack, id, text, Severity::Warning);
        }
    }
}

/// The BMC's part, then the restart.
async fn carry_out(rack: &Rack, node: &Node, disc: bool, url: String) -> Result<(), PowerError> {
    if disc {
        rack.set_virtual_media(node.id, Some(&url)).await?;
        rack.boot_once(node.id, BootTarget::Cd, None).await?;
    } else {
        rack.boot_once(node.id, BootTarget::Http, Some(url)).await?;
    }
    let off = node.power == PowerState::Off;
    let action = if off { PowerAction::On } else { PowerAction::Reset };
    rack.power(node.id, action, BY).await.map(drop)
}

/// Takes our disc out of a machine's virtual drive, if that is what is in; true when it was.
async fn take_out(rack: Rack, id: NodeId, patience: Patience) -> bool {
    let mut tries = 0;
    loop {
        let error = match take_out_once(&rack, id).await {
            Ok(was_in) => return was_in,
            Err(error) => error,
        };
        tries += 1;
        if tries == EJECTS {
            let text = format!("our disc may still be in its virtual drive: {error}");
            tell(&rack, id, text, Severity::Warning);
            return false;
        }
        tokio::time::sleep(patience.again).await;
    }
}

async fn take_out_once(rack: &Rack, id: NodeId) -> Result<bool, PowerError> {
    let drives = rack.virtual_media(id).await?;
    // Another image is somebody else's.
    let is_ours = |image: &String| image.ends_with(DISC);
    let ours = drives
        .iter()
        .any(|drive| drive.ours && drive.image.as_ref().is_some_and(is_ours));
    if ours {
        rack.set_virtual_media(id, None).await?;
    }
    Ok(ours)
}

fn tell(rack: &Rack, id: NodeId, text: String, severity: Severity) {
    rack.tell(Some(id), EventKind::Note { text, severity });
}
