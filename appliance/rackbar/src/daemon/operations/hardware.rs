//! What BMCs tell of the hardware, virtual media and the next boot, in the words of the API.

use rackbar_control::operations::{
    BootRequest, BootSource, BootState, Condition, HardwareLog, HardwareLogLine, MediaDrive, MediaList, Refused,
    SensorList, SensorReading,
};
use rackbar_devices::{BootOverride, BootTarget, HealthState, MediaDrive as Drive};
use rackbar_model::{Node, PowerAction, PowerState};
use rackbar_orchestrator::{Consoles, Rack};

use crate::daemon::refusals::of_bmc;

const fn condition(state: HealthState) -> Condition {
    match state {
        HealthState::Unknown => Condition::Unknown,
        HealthState::Ok => Condition::Ok,
        HealthState::Warning => Condition::Warning,
        HealthState::Critical => Condition::Critical,
    }
}

pub(super) fn address(node: &Node) -> String {
    node.bmc_address.map(|address| address.to_string()).unwrap_or_default()
}

/// What is recorded of a machine's serial console.
pub(super) async fn console_record(consoles: &Consoles, node: &Node) -> Result<Vec<u8>, Refused> {
    consoles.record(&node.name).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Refused::NotFound(format!(
            "nothing of the console of {} was recorded: nobody looked on yet, and [bmc] record_consoles is off",
            node.name
        )),
        _ => Refused::Internal(format!("the record cannot be read: {error}")),
    })
}

pub(super) async fn sensors(rack: &Rack, node: &Node) -> Result<SensorList, Refused> {
    let told = rack.sensors(node.id).await.map_err(of_bmc)?;
    let items = told.what.into_iter().map(|sensor| SensorReading {
        name: sensor.name,
        reading: sensor.reading,
        unit: sensor.unit,
        state: condition(sensor.state),
    });
    let items: Vec<_> = items.collect();
    Ok(SensorList {
        node: node.name.clone(),
        bmc: address(node),
        way: told.way.to_string(),
        why: told.why,
        state: items
            .iter()
            .map(|sensor| sensor.state)
            .max()
            .unwrap_or(Condition::Unknown),
        items,
    })
}

pub(super) async fn log(rack: &Rack, node: &Node, limit: u16) -> Result<HardwareLog, Refused> {
    let told = rack.event_log(node.id, limit.into()).await.map_err(of_bmc)?;
    let items = told.what.into_iter().map(|line| HardwareLogLine {
        time: line.time,
        severity: condition(line.severity),
        message: line.message,
        id: line.id,
    });
    Ok(HardwareLog {
        node: node.name.clone(),
        bmc: address(node),
        way: told.way.to_string(),
        why: told.why,
        items: items.collect(),
    })
}

pub(super) async fn media(rack: &Rack, node: &Node) -> Result<MediaList, Refused> {
    Ok(drives(node, rack.virtual_media(node.id).await.map_err(of_bmc)?))
}

pub(super) async fn set_media(rack: &Rack, node: &Node, image: Option<&str>) -> Result<MediaList, Refused> {
    Ok(drives(
        node,
        rack.set_virtual_media(node.id, image).await.map_err(of_bmc)?,
    ))
}

fn drives(node: &Node, drives: Vec<Drive>) -> MediaList {
    let items = drives.into_iter().map(|drive| MediaDrive {
        id: drive.id,
        kinds: drive.kinds,
        inserted: drive.inserted,
        image: drive.image,
        ours: drive.ours,
    });
    MediaList {
        node: node.name.clone(),
        bmc: address(node),
        items: items.collect(),
    }
}

pub(super) async fn boot(rack: &Rack, node: &Node) -> Result<BootState, Refused> {
    Ok(state(node, rack.boot_override(node.id).await.map_err(of_bmc)?))
}

pub(super) async fn set_boot(rack: &Rack, node: &Node, request: BootRequest, by: &str) -> Result<BootState, Refused> {
    let target = match request.from {
        BootSource::Default => BootTarget::Default,
        BootSource::Network => BootTarget::Network,
        BootSource::Http => BootTarget::Http,
        BootSource::Disk => BootTarget::Disk,
        BootSource::Cd => BootTarget::Cd,
        BootSource::Setup => BootTarget::Setup,
    };
    let set = rack.boot_once(node.id, target, request.url).await.map_err(of_bmc)?;
    if request.restart {
        let off = rack
            .node(&node.id.to_string())
            .is_some_and(|node| node.power == PowerState::Off);
        let action = if off { PowerAction::On } else { PowerAction::Reset };
        rack.power(node.id, action, by).await.map_err(of_bmc)?;
    }
    Ok(state(node, set))
}

fn state(node: &Node, set: BootOverride) -> BootState {
    let known = match set.target {
        BootTarget::Default => BootSource::Default,
        BootTarget::Network => BootSource::Network,
        BootTarget::Http => BootSource::Http,
        BootTarget::Disk => BootSource::Disk,
        BootTarget::Cd => BootSource::Cd,
        BootTarget::Setup => BootSource::Setup,
        BootTarget::Other(word) => return told(node, word, set.once, set.url),
    };
    told(node, known.name().to_owned(), set.once, set.url)
}

fn told(node: &Node, from: String, once: bool, url: Option<String>) -> BootState {
    BootState {
        node: node.name.clone(),
        bmc: address(node),
        from,
        once,
        url,
    }
}
