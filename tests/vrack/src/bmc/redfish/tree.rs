//! The resources, rendered from the state at each request.

use std::net::Ipv4Addr;

use rackbar_ipmi::Privilege;
use serde_json::{Value, json};

use super::super::state::{Account, BmcState, LOCK_AFTER, LOCK_FOR, SHORTEST, SLOTS};
use super::parts;
use crate::seat::PowerState;

/// Values the Reset action takes.
pub(super) const RESETS: [&str; 6] = [
    "On",
    "ForceOff",
    "GracefulShutdown",
    "ForceRestart",
    "PowerCycle",
    "ForceOn",
];
/// Boot targets this machine knows.
pub(super) const TARGETS: [&str; 5] = ["None", "Pxe", "Hdd", "Cd", "UefiHttp"];

pub(super) fn link(path: &str) -> Value {
    json!({"@odata.id": path})
}

pub(super) fn collection(path: &str, kind: &str, name: &str, members: Vec<String>) -> Value {
    json!({"@odata.id": path, "@odata.type": format!("#{kind}.{kind}"), "Name": name,
        "Members@odata.count": members.len(), "Members": members.iter().map(|path| link(path)).collect::<Vec<_>>()})
}

/// The resource at a path, or nothing.
pub(super) fn resource(state: &BmcState, path: &str) -> Option<Value> {
    if path == "/redfish" {
        return Some(json!({"v1": "/redfish/v1/"}));
    }
    let rest = path.strip_prefix("/redfish/v1")?;
    let parts: Vec<&str> = rest.split('/').skip(1).collect();
    match parts.as_slice() {
        [] => Some(root(state)),
        ["odata"] => Some(json!({"@odata.context": "/redfish/v1/$metadata", "value": []})),
        ["Systems"] => Some(collection(
            path,
            "ComputerSystemCollection",
            "Systems",
            vec![format!("{path}/1")],
        )),
        ["Systems", "1", rest @ ..] => system(state, path, rest),
        ["Chassis"] => Some(collection(
            path,
            "ChassisCollection",
            "Chassis",
            vec![format!("{path}/1")],
        )),
        ["Chassis", "1"] => Some(chassis(state, path)),
        ["Managers"] => Some(collection(
            path,
            "ManagerCollection",
            "Managers",
            vec![format!("{path}/1")],
        )),
        ["Managers", "1", rest @ ..] => manager(state, path, rest),
        ["Chassis", "1", "Thermal"] => Some(parts::thermal(state, path)),
        ["Chassis", "1", "Power"] => Some(parts::power(state, path)),
        ["Registries", rest @ ..] => parts::registries(path, rest),
        ["TaskService", rest @ ..] => parts::tasks(state, path, rest),
        ["AccountService", rest @ ..] => accounts(state, path, rest),
        ["SessionService", rest @ ..] => sessions(state, path, rest),
        _ => None,
    }
}

fn root(state: &BmcState) -> Value {
    json!({"@odata.id": "/redfish/v1", "@odata.type": "#ServiceRoot.v1_16_0.ServiceRoot", "Id": "RootService",
        "Name": "Root Service", "RedfishVersion": "1.18.0", "UUID": state.identity.uuid, "Product": "Virtual BMC",
        "Systems": link("/redfish/v1/Systems"), "Chassis": link("/redfish/v1/Chassis"),
        "Managers": link("/redfish/v1/Managers"), "AccountService": link("/redfish/v1/AccountService"),
        "SessionService": link("/redfish/v1/SessionService"), "Registries": link("/redfish/v1/Registries"),
        "Tasks": link("/redfish/v1/TaskService"),
        "Links": {"Sessions": link("/redfish/v1/SessionService/Sessions")}})
}

fn system(state: &BmcState, path: &str, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(computer(state, path)),
        ["EthernetInterfaces"] => {
            let members = (1..=state.nics.len())
                .map(|number| format!("{path}/{number}"))
                .collect();
            Some(collection(
                path,
                "EthernetInterfaceCollection",
                "Ethernet Interfaces",
                members,
            ))
        }
        ["EthernetInterfaces", number] => {
            let mac = state.nics.get(number.parse::<usize>().ok()?.checked_sub(1)?)?;
            Some(
                json!({"@odata.id": path, "@odata.type": "#EthernetInterface.v1_12_0.EthernetInterface", "Id": number,
                "Name": format!("NIC {number}"), "MACAddress": mac.to_string(), "PermanentMACAddress": mac.to_string(),
                "Status": {"State": "Enabled", "Health": "OK"}}),
            )
        }
        ["Bios"] => {
            let (attributes, _) = state.settings();
            Some(
                json!({"@odata.id": path, "@odata.type": "#Bios.v1_2_1.Bios", "Id": "Bios", "Name": "BIOS",
                "Attributes": attributes, "AttributeRegistry": parts::REGISTRY,
                "@Redfish.Settings": {"@odata.type": "#Settings.v1_3_5.Settings",
                    "SettingsObject": link(&format!("{path}/Settings")), "SupportedApplyTimes": ["OnReset"]},
                "Actions": {"#Bios.ResetBios": {"target": format!("{path}/Actions/Bios.ResetBios")}}}),
            )
        }
        ["BootOptions", rest @ ..] => parts::boot_options(state, path, rest),
        ["Bios", "Settings"] => {
            let (_, pending) = state.settings();
            Some(
                json!({"@odata.id": path, "@odata.type": "#Bios.v1_2_1.Bios", "Id": "Settings",
                "Name": "Pending BIOS settings", "Attributes": pending}),
            )
        }
        _ => None,
    }
}

fn computer(state: &BmcState, path: &str) -> Value {
    let power = if state.power.state() == PowerState::On {
        "On"
    } else {
        "Off"
    };
    let identity = &state.identity;
    json!({"@odata.id": path, "@odata.type": "#ComputerSystem.v1_22_0.ComputerSystem", "Id": "1", "Name": "System",
        "SystemType": "Physical", "Manufacturer": identity.manufacturer, "Model": identity.product,
        "SerialNumber": identity.serial, "UUID": identity.uuid, "BiosVersion": identity.firmware_version,
        "AssetTag": state.inner().asset_tag, "PowerState": power, "Status": {"State": "Enabled", "Health": "OK"},
        "Boot": boot(state), "Bios": link(&format!("{path}/Bios")),
        "EthernetInterfaces": link(&format!("{path}/EthernetInterfaces")),
        "Links": {"Chassis": [link("/redfish/v1/Chassis/1")], "ManagedBy": [link("/redfish/v1/Managers/1")]},
        "Actions": {"#ComputerSystem.Reset": {"target": format!("{path}/Actions/ComputerSystem.Reset"),
            "ResetType@Redfish.AllowableValues": RESETS}}})
}

fn boot(state: &BmcState) -> Value {
    let (active, words) = state.boot();
    let enabled = match active {
        None => "Disabled",
        Some(active) if active.once => "Once",
        Some(_) => "Continuous",
    };
    json!({"BootOrder": parts::boot_order(state), "BootOptions": link("/redfish/v1/Systems/1/BootOptions"),
        "BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": words.target,
        "BootSourceOverrideMode": if words.uefi { "UEFI" } else { "Legacy" },
        "BootSourceOverrideTarget@Redfish.AllowableValues": TARGETS,
        "BootSourceOverrideMode@Redfish.AllowableValues": ["UEFI", "Legacy"],
        "UefiTargetBootSourceOverride": words.uefi_target, "HttpBootUri": words.http_uri})
}

fn chassis(state: &BmcState, path: &str) -> Value {
    json!({"@odata.id": path, "@odata.type": "#Chassis.v1_25_0.Chassis", "Id": "1", "Name": "Chassis",
        "ChassisType": "RackMount", "Manufacturer": state.identity.manufacturer, "Model": state.identity.product,
        "SerialNumber": state.identity.serial, "AssetTag": state.inner().asset_tag,
        "Thermal": link(&format!("{path}/Thermal")), "Power": link(&format!("{path}/Power")),
        "Status": {"State": "Enabled", "Health": "OK"}, "PowerState": if state.power.state() == PowerState::On { "On" } else { "Off" },
        "Links": {"ComputerSystems": [link("/redfish/v1/Systems/1")], "ManagedBy": [link("/redfish/v1/Managers/1")]}})
}

/// Its clock as an operator two hours east of Greenwich sees it.
fn date_time(state: &BmcState) -> String {
    let there = rackbar_model::Timestamp((state.clock() + 2 * 3600) * 1000).to_string();
    format!("{}+02:00", there.get(..19).unwrap_or_default())
}

fn manager(state: &BmcState, path: &str, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(
            json!({"@odata.id": path, "@odata.type": "#Manager.v1_19_1.Manager", "Id": "1", "Name": "Manager",
            "ManagerType": "BMC", "FirmwareVersion": "1.04", "DateTime": date_time(state), "DateTimeLocalOffset": "+02:00", "PowerState": "On", "UUID": state.identity.uuid,
            "EthernetInterfaces": link(&format!("{path}/EthernetInterfaces")),
            "NetworkProtocol": link(&format!("{path}/NetworkProtocol")),
            "VirtualMedia": link(&format!("{path}/VirtualMedia")), "LogServices": link(&format!("{path}/LogServices")),
            "Links": {"ManagerForServers": [link("/redfish/v1/Systems/1")]},
            "Actions": {"#Manager.Reset": {"target": format!("{path}/Actions/Manager.Reset"),
                "ResetType@Redfish.AllowableValues": ["ForceRestart", "GracefulRestart"]}}}),
        ),
        ["EthernetInterfaces"] => Some(collection(
            path,
            "EthernetInterfaceCollection",
            "Ethernet Interfaces",
            vec![format!("{path}/1")],
        )),
        ["EthernetInterfaces", "1"] => Some(manager_interface(state, path)),
        ["NetworkProtocol"] => Some(json!({"@odata.id": path,
            "@odata.type": "#ManagerNetworkProtocol.v1_10_0.ManagerNetworkProtocol", "Id": "NetworkProtocol",
            "Name": "Network Protocol", "NTP": {"ProtocolEnabled": state.inner().follows_ntp, "NTPServers": []}, "HTTPS": {"ProtocolEnabled": true, "Port": 443},
            "IPMI": {"ProtocolEnabled": true, "Port": rackbar_ipmi::PORT}})),
        ["VirtualMedia"] => Some(collection(
            path,
            "VirtualMediaCollection",
            "Virtual Media",
            vec![format!("{path}/Cd")],
        )),
        ["VirtualMedia", "Cd"] => {
            let image = state.media();
            Some(
                json!({"@odata.id": path, "@odata.type": "#VirtualMedia.v1_6_3.VirtualMedia", "Id": "Cd",
                "Name": "Virtual CD", "MediaTypes": ["CD", "DVD"], "Image": image, "Inserted": image.is_some(),
                "WriteProtected": true, "ConnectedVia": if image.is_some() { "URI" } else { "NotConnected" },
                "Actions": {
                    "#VirtualMedia.InsertMedia": {"target": format!("{path}/Actions/VirtualMedia.InsertMedia")},
                    "#VirtualMedia.EjectMedia": {"target": format!("{path}/Actions/VirtualMedia.EjectMedia")}}}),
            )
        }
        ["LogServices", rest @ ..] => logs(state, path, rest),
        _ => None,
    }
}

fn manager_interface(state: &BmcState, path: &str) -> Value {
    let lan = state.lan();
    let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(u32::from(32 - lan.prefix.min(32))).unwrap_or(0));
    let origin = if lan.dhcp { "DHCP" } else { "Static" };
    let address = json!({"Address": lan.address, "SubnetMask": mask, "Gateway": lan.gateway, "AddressOrigin": origin});
    json!({"@odata.id": path, "@odata.type": "#EthernetInterface.v1_12_0.EthernetInterface", "Id": "1",
        "Name": "Management", "InterfaceEnabled": true, "MACAddress": lan.mac.to_string(),
        "PermanentMACAddress": lan.mac.to_string(), "DHCPv4": {"DHCPEnabled": lan.dhcp}, "IPv4Addresses": [address],
        "VLAN": {"VLANEnable": lan.vlan.is_some(), "VLANId": lan.vlan.unwrap_or(0)}})
}

fn logs(state: &BmcState, path: &str, rest: &[&str]) -> Option<Value> {
    let entry = |number: usize, path: String| {
        let inner = state.inner();
        let entry = inner.log.get(number.checked_sub(1)?)?;
        let created = rackbar_model::Timestamp(entry.time.saturating_mul(1000));
        Some(
            json!({"@odata.id": path, "@odata.type": "#LogEntry.v1_16_1.LogEntry", "Id": number.to_string(),
            "Name": format!("Entry {number}"), "EntryType": "Event", "Severity": "OK", "Created": created,
            "Message": entry.message}),
        )
    };
    match rest {
        [] => Some(collection(
            path,
            "LogServiceCollection",
            "Logs",
            vec![format!("{path}/Log")],
        )),
        ["Log"] => Some(
            json!({"@odata.id": path, "@odata.type": "#LogService.v1_7_0.LogService", "Id": "Log",
            "Name": "Event Log", "OverWritePolicy": "Never", "Entries": link(&format!("{path}/Entries")),
            "Actions": {"#LogService.ClearLog": {"target": format!("{path}/Actions/LogService.ClearLog")}}}),
        ),
        ["Log", "Entries"] => {
            let count = state.inner().log.len();
            let members: Vec<Value> = (1..=count).filter_map(|n| entry(n, format!("{path}/{n}"))).collect();
            Some(
                json!({"@odata.id": path, "@odata.type": "#LogEntryCollection.LogEntryCollection",
                "Name": "Log Entries", "Members@odata.count": members.len(), "Members": members}),
            )
        }
        ["Log", "Entries", number] => entry(number.parse().ok()?, path.to_owned()),
        _ => None,
    }
}

/// Redfish's roles for IPMI's privileges.
pub(super) const ROLES: [(&str, Privilege); 3] = [
    ("Administrator", Privilege::Administrator),
    ("Operator", Privilege::Operator),
    ("ReadOnly", Privilege::User),
];

fn role(account: &Account) -> &'static str {
    ROLES
        .iter()
        .find(|(_, privilege)| *privilege == account.privilege)
        .map_or("ReadOnly", |(name, _)| name)
}

fn accounts(state: &BmcState, path: &str, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(
            json!({"@odata.id": path, "@odata.type": "#AccountService.v1_15_1.AccountService",
            "Id": "AccountService", "Name": "Account Service", "ServiceEnabled": true, "MinPasswordLength": SHORTEST,
            "MaxPasswordLength": 20, "AccountLockoutThreshold": LOCK_AFTER, "AccountLockoutDuration": LOCK_FOR.as_secs(), "Accounts": link(&format!("{path}/Accounts")), "Roles": link(&format!("{path}/Roles"))}),
        ),
        ["Accounts"] => {
            let slots: Vec<u8> = if state.faults().fixed_slots {
                (1..=SLOTS).collect()
            } else {
                state.inner().accounts.keys().copied().collect()
            };
            let members = slots.iter().map(|slot| format!("{path}/{slot}")).collect();
            Some(collection(path, "ManagerAccountCollection", "Accounts", members))
        }
        ["Accounts", slot] => {
            let slot = slot.parse::<u8>().ok().filter(|slot| *slot <= SLOTS)?;
            let there = state.inner().accounts.get(&slot).cloned();
            let empty = || state.faults().fixed_slots.then(Account::nobody);
            let account = there.or_else(empty)?;
            let locked = state.is_locked(&account.name);
            Some(
                json!({"@odata.id": path, "@odata.type": "#ManagerAccount.v1_12_1.ManagerAccount",
                "Id": slot.to_string(), "Name": "User Account", "UserName": account.name, "Password": null,
                "Enabled": account.enabled, "Locked": locked, "RoleId": role(&account), "AccountTypes": ["Redfish", "IPMI"],
                "Links": {"Role": link(&format!("/redfish/v1/AccountService/Roles/{}", role(&account)))}}),
            )
        }
        ["Roles"] => {
            let members = ROLES.iter().map(|(name, _)| format!("{path}/{name}")).collect();
            Some(collection(path, "RoleCollection", "Roles", members))
        }
        ["Roles", name] => {
            let (name, _) = ROLES.iter().find(|(known, _)| known == name)?;
            Some(
                json!({"@odata.id": path, "@odata.type": "#Role.v1_3_2.Role", "Id": name, "Name": name,
                "RoleId": name, "IsPredefined": true}),
            )
        }
        _ => None,
    }
}

fn sessions(state: &BmcState, path: &str, rest: &[&str]) -> Option<Value> {
    match rest {
        [] => Some(
            json!({"@odata.id": path, "@odata.type": "#SessionService.v1_1_9.SessionService",
            "Id": "SessionService", "Name": "Session Service", "ServiceEnabled": true, "SessionTimeout": 1800,
            "Sessions": link(&format!("{path}/Sessions"))}),
        ),
        ["Sessions"] => {
            let members = state
                .inner()
                .sessions
                .values()
                .map(|(id, _)| format!("{path}/{id}"))
                .collect();
            Some(collection(path, "SessionCollection", "Sessions", members))
        }
        ["Sessions", id] => {
            let id = id.parse::<u32>().ok()?;
            let inner = state.inner();
            let (_, slot) = inner.sessions.values().find(|(known, _)| *known == id)?;
            Some(
                json!({"@odata.id": path, "@odata.type": "#Session.v1_7_1.Session", "Id": id.to_string(),
                "Name": "User Session", "UserName": inner.accounts.get(slot).map(|account| account.name.clone())}),
            )
        }
        _ => None,
    }
}
