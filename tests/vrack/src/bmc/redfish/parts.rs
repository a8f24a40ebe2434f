//! Resources besides the plain tree: the attribute registry, boot options, sensors, tasks.

use serde_json::{Value, json};

use super::super::sensors::{Kind, SENSORS, SimSensor};
use super::super::state::BmcState;
use super::tree::{collection, link};
use crate::seat::{BootDevice, BootEntry};

/// Name of the attribute registry.
pub(super) const REGISTRY: &str = "BiosAttributeRegistry.1.0.0";
const FILE: &str = "/redfish/v1/Registries/BiosAttributeRegistry.1.0.0/File";

/// What a setting may be: its own small table, apart from the client's reading of the registry.
pub(super) enum Rule {
    Choice(&'static [&'static str]),
    Number(i64, i64),
    Switch,
    Text(usize),
}

/// The settings of the simulated firmware.
pub(super) const SETTINGS: [(&str, Rule); 8] = [
    ("BootMode", Rule::Choice(&["Uefi", "Bios"])),
    ("PxeDev1EnDis", Rule::Choice(&["Enabled", "Disabled"])),
    ("SriovGlobalEnable", Rule::Choice(&["Enabled", "Disabled"])),
    ("ProcVirtualization", Rule::Choice(&["Enabled", "Disabled"])),
    ("NumLock", Rule::Choice(&["On", "Off"])),
    ("SetupBanner", Rule::Text(32)),
    ("BootRetries", Rule::Number(0, 10)),
    ("QuietBoot", Rule::Switch),
];

/// True when a setting takes a value.
pub(super) fn takes(name: &str, value: &Value) -> bool {
    let rule = SETTINGS.iter().find(|(known, _)| *known == name).map(|(_, rule)| rule);
    match rule {
        Some(Rule::Choice(values)) => value.as_str().is_some_and(|value| values.contains(&value)),
        Some(Rule::Number(least, most)) => value.as_i64().is_some_and(|value| (*least..=*most).contains(&value)),
        Some(Rule::Switch) => value.is_boolean(),
        Some(Rule::Text(most)) => value.as_str().is_some_and(|value| value.len() <= *most),
        None => false,
    }
}

pub(super) fn registries(path: &str, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(collection(
            path,
            "MessageRegistryFileCollection",
            "Registries",
            vec![format!("{path}/{REGISTRY}")],
        )),
        [REGISTRY] => Some(
            json!({"@odata.id": path, "@odata.type": "#MessageRegistryFile.v1_1_3.MessageRegistryFile",
            "Id": REGISTRY, "Name": "BIOS Attribute Registry", "Registry": "BiosAttributeRegistry.1.0",
            "Languages": ["en"], "Location": [{"Language": "en", "Uri": FILE}]}),
        ),
        [REGISTRY, "File"] => Some(registry()),
        _ => None,
    }
}

fn registry() -> Value {
    let entries: Vec<Value> = SETTINGS
        .iter()
        .map(|(name, rule)| {
            let mut entry =
                json!({"AttributeName": name, "DisplayName": name, "ReadOnly": false, "ResetRequired": true});
            let more = match rule {
                Rule::Choice(values) => {
                    let values: Vec<Value> = values
                        .iter()
                        .map(|value| json!({"ValueName": value, "ValueDisplayName": value}))
                        .collect();
                    json!({"Type": "Enumeration", "Value": values})
                }
                Rule::Number(least, most) => json!({"Type": "Integer", "LowerBound": least, "UpperBound": most}),
                Rule::Switch => json!({"Type": "Boolean"}),
                Rule::Text(most) => json!({"Type": "String", "MinLength": 0, "MaxLength": most}),
            };
            if let (Some(entry), Some(more)) = (entry.as_object_mut(), more.as_object()) {
                entry.extend(more.clone());
            }
            entry
        })
        .collect();
    json!({"@odata.type": "#AttributeRegistry.v1_3_8.AttributeRegistry", "Id": REGISTRY, "Language": "en",
        "Name": "BIOS Attribute Registry", "OwningEntity": "Virtual", "RegistryVersion": "1.0.0",
        "RegistryEntries": {"Attributes": entries}})
}

/// The boot entries in the order they are numbered: as the machine is built, whatever its order is now.
fn entries(state: &BmcState) -> Vec<BootEntry> {
    let mut entries = state.power.boot_order();
    entries.sort_by_key(|entry| (entry.device as u8, entry.at));
    entries
}

fn reference(at: usize) -> String {
    format!("Boot{at:04X}")
}

/// `BootOrder`, or nothing when the machine does not know one.
pub(super) fn boot_order(state: &BmcState) -> Option<Vec<String>> {
    let numbered = entries(state);
    let order = state.power.boot_order();
    let name = |entry: &BootEntry| numbered.iter().position(|known| known == entry).map(reference);
    (!order.is_empty()).then(|| order.iter().filter_map(name).collect())
}

/// The entries that a wanted `BootOrder` means; nothing unless it names each exactly once.
pub(super) fn order_of(state: &BmcState, wanted: &[&str]) -> Option<Vec<BootEntry>> {
    let numbered = entries(state);
    let named = |id: &&str| {
        numbered
            .iter()
            .enumerate()
            .find(|(at, _)| reference(*at) == **id)
            .map(|(_, entry)| *entry)
    };
    let found: Vec<BootEntry> = wanted.iter().map(named).collect::<Option<_>>()?;
    let each_once = numbered.iter().all(|entry| found.contains(entry)) && found.len() == numbered.len();
    each_once.then_some(found)
}

pub(super) fn boot_options(state: &BmcState, path: &str, rest: &[&str]) -> Option<Value> {
    let numbered = entries(state);
    match rest {
        [] => {
            let members = (0..numbered.len())
                .map(|at| format!("{path}/{}", reference(at)))
                .collect();
            Some(collection(path, "BootOptionCollection", "Boot Options", members))
        }
        [id] => {
            let (_, entry) = numbered.iter().enumerate().find(|(at, _)| reference(*at) == *id)?;
            let at = entry.at;
            let (name, device) = match entry.device {
                BootDevice::Network => {
                    let mac = state
                        .nics
                        .get(at)
                        .map(|mac| mac.to_string().replace(':', ""))
                        .unwrap_or_default();
                    (
                        format!("UEFI PXEv4 (NIC {at})"),
                        format!("PciRoot(0x0)/Pci(0x2,{at:#x})/MAC({mac},0x1)/IPv4(0.0.0.0)"),
                    )
                }
                BootDevice::Disk => (
                    format!("UEFI disk {at}"),
                    format!("PciRoot(0x0)/Pci(0x4,{at:#x})/NVMe(0x1,00)"),
                ),
                BootDevice::Cdrom => (
                    "UEFI CD".to_owned(),
                    "PciRoot(0x0)/Pci(0x1F,0x2)/Sata(0x5,0xFFFF,0x0)/CDROM(0x0)".to_owned(),
                ),
            };
            Some(
                json!({"@odata.id": path, "@odata.type": "#BootOption.v1_0_6.BootOption", "Id": id, "Name": name,
                "BootOptionReference": id, "DisplayName": name, "UefiDevicePath": device, "BootOptionEnabled": true}),
            )
        }
        _ => None,
    }
}

fn status(sensor: &SimSensor, state: &BmcState) -> Value {
    match (sensor.raw(state), sensor.crossed(state)) {
        (None, _) => json!({"State": "Absent"}),
        (_, 0) => json!({"State": "Enabled", "Health": "OK"}),
        _ => json!({"State": "Enabled", "Health": "Critical"}),
    }
}

fn list(state: &BmcState, key: &str, kind: Kind) -> Vec<Value> {
    let wanted = SENSORS.iter().enumerate().filter(|(_, sensor)| sensor.kind == kind);
    wanted
        .enumerate()
        .map(|(at, (number, sensor))| {
            let mut entry = json!({"MemberId": at.to_string(),
                "Name": sensor.name, "SensorNumber": number + 1, "Status": status(sensor, state)});
            if let Some(map) = entry.as_object_mut() {
                map.insert(key.to_owned(), json!(sensor.value(state)));
                if kind == Kind::Fan {
                    map.insert("ReadingUnits".to_owned(), json!("RPM"));
                }
            }
            entry
        })
        .collect()
}

pub(super) fn thermal(state: &BmcState, path: &str) -> Value {
    json!({"@odata.id": path, "@odata.type": "#Thermal.v1_7_1.Thermal", "Id": "Thermal", "Name": "Thermal",
        "Temperatures": list(state, "ReadingCelsius", Kind::Temperature),
        "Fans": list(state, "Reading", Kind::Fan)})
}

pub(super) fn power(state: &BmcState, path: &str) -> Value {
    json!({"@odata.id": path, "@odata.type": "#Power.v1_7_1.Power", "Id": "Power", "Name": "Power",
        "Voltages": list(state, "ReadingVolts", Kind::Voltage),
        "PowerControl": list(state, "PowerConsumedWatts", Kind::Power)})
}

/// Tasks: one that is running answers 202 at its monitor.
pub(super) fn tasks(state: &BmcState, path: &str, rest: &[&str]) -> Option<Value> {
    let inner = state.inner();
    match rest {
        [] => Some(
            json!({"@odata.id": path, "@odata.type": "#TaskService.v1_2_1.TaskService", "Id": "TaskService",
            "Name": "Task Service", "ServiceEnabled": true, "Tasks": link("/redfish/v1/TaskService/Tasks")}),
        ),
        ["Tasks"] => {
            let members = inner.tasks.keys().map(|id| format!("{path}/{id}")).collect();
            Some(collection(path, "TaskCollection", "Tasks", members))
        }
        ["Tasks", id] => {
            let ready = inner.tasks.get(&id.parse::<u32>().ok()?)?;
            let done = std::time::Instant::now() >= *ready;
            Some(
                json!({"@odata.id": path, "@odata.type": "#Task.v1_7_4.Task", "Id": id, "Name": format!("Task {id}"),
                "TaskState": if done { "Completed" } else { "Running" }, "TaskStatus": "OK", "Messages": []}),
            )
        }
        _ => None,
    }
}
