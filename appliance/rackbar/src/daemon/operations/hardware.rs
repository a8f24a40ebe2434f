//! What BMCs tell of the hardware, in the words of the API.

use rackbar_control::operations::{Condition, HardwareLog, HardwareLogLine, Refused, SensorList, SensorReading};
use rackbar_devices::HealthState;
use rackbar_model::Node;
use rackbar_orchestrator::Rack;

use crate::daemon::refusals::of_bmc;

const fn condition(state: HealthState) -> Condition {
    match state {
        HealthState::Unknown => Condition::Unknown,
        HealthState::Ok => Condition::Ok,
        HealthState::Warning => Condition::Warning,
        HealthState::Critical => Condition::Critical,
    }
}

fn address(node: &Node) -> String {
    node.bmc_address.map(|address| address.to_string()).unwrap_or_default()
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
