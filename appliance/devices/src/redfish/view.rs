//! What we look for in Redfish resources, over plain JSON: every property may be missing, null, or of another type than
//! the schema says, because on real BMCs they are.

use rackbar_model::{FirmwareMode, MacAddr, PowerState};
use serde_json::Value;

use crate::{BootOption, BootOverride, BootTarget};

/// A string, trimmed; nothing when it is empty or a usual placeholder for "unknown".
pub(crate) fn text(resource: &Value, pointer: &str) -> Option<String> {
    let text = resource.pointer(pointer)?.as_str()?.trim();
    let unknown = [
        "",
        "n/a",
        "na",
        "none",
        "null",
        "unknown",
        "not available",
        "to be filled by o.e.m.",
        "default string",
    ];
    (!unknown.contains(&text.to_lowercase().as_str())).then(|| text.to_owned())
}

/// The link in a property: `{"@odata.id": "/redfish/v1/..."}`.
pub(crate) fn link(resource: &Value, pointer: &str) -> Option<String> {
    let path = resource.pointer(pointer)?.get("@odata.id")?.as_str()?;
    own_path(path)
}

/// A path on this BMC. Links elsewhere are not followed: credentials would go along.
pub(crate) fn own_path(path: &str) -> Option<String> {
    (path.starts_with('/') && !path.starts_with("//")).then(|| path.to_owned())
}

/// Links of a collection's members, in order.
pub(crate) fn members(collection: &Value) -> Vec<String> {
    let members = collection
        .get("Members")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    members.filter_map(|member| link(member, "")).collect()
}

/// Path of the page after this one of a collection (DSP0266, "Members@odata.nextLink"); old firmware leaves the first word out.
pub(crate) fn next_page(collection: &Value) -> Option<String> {
    let next = collection
        .get("Members@odata.nextLink")
        .or_else(|| collection.get("@odata.nextLink"))?;
    own_path(next.as_str().or_else(|| next.get("@odata.id")?.as_str())?)
}

/// The power state. States in between count as the one they leave: "PoweringOn" is not on yet.
pub(crate) fn power(system: &Value) -> PowerState {
    match system
        .get("PowerState")
        .and_then(Value::as_str)
        .map(str::to_lowercase)
        .as_deref()
    {
        Some("on" | "poweringoff" | "paused") => PowerState::On,
        Some("off" | "poweringon") => PowerState::Off,
        _ => PowerState::Unknown,
    }
}

/// Permanent MAC address of an interface, else its current one.
pub(crate) fn mac(interface: &Value) -> Option<MacAddr> {
    ["/PermanentMACAddress", "/MACAddress"]
        .iter()
        .filter_map(|pointer| text(interface, pointer)?.parse::<MacAddr>().ok())
        .find(MacAddr::is_unicast)
}

/// Strings of an array.
pub(crate) fn strings(resource: &Value, pointer: &str) -> Option<Vec<String>> {
    let array = resource.pointer(pointer)?.as_array()?;
    Some(array.iter().filter_map(Value::as_str).map(str::to_owned).collect())
}

/// The reset action: where to post, and the values it takes when the resource itself says so.
pub(crate) fn reset(system: &Value) -> Option<(String, Option<Vec<String>>)> {
    let action = system.pointer("/Actions/#ComputerSystem.Reset")?;
    let target = own_path(action.get("target")?.as_str()?)?;
    Some((target, strings(action, "/ResetType@Redfish.AllowableValues")))
}

/// The values of `ResetType` in an `ActionInfo` resource.
pub(crate) fn action_info_values(info: &Value) -> Option<Vec<String>> {
    let parameters = info.get("Parameters")?.as_array()?;
    let parameter = parameters
        .iter()
        .find(|p| p.get("Name").and_then(Value::as_str) == Some("ResetType"))?;
    strings(parameter, "/AllowableValues")
}

/// The boot override in force.
pub(crate) fn boot(system: &Value) -> Option<BootOverride> {
    let boot = system.get("Boot")?;
    let enabled = boot
        .get("BootSourceOverrideEnabled")
        .and_then(Value::as_str)
        .unwrap_or("Disabled");
    let target = match boot.get("BootSourceOverrideTarget").and_then(Value::as_str) {
        _ if enabled == "Disabled" => BootTarget::Default,
        Some("Pxe") => BootTarget::Network,
        Some("UefiHttp") => BootTarget::Http,
        Some("Hdd" | "UefiHdd") => BootTarget::Disk,
        Some("Cd" | "CD/DVD" | "UefiCd" | "UsbCd" | "UefiUsbCd" | "RemoteDrive") => BootTarget::Cd,
        Some("BiosSetup") => BootTarget::Setup,
        None | Some("None") => BootTarget::Default,
        Some(other) => BootTarget::Other(other.to_owned()),
    };
    let mode = match boot.get("BootSourceOverrideMode").and_then(Value::as_str) {
        Some("UEFI") => Some(FirmwareMode::Uefi),
        Some("Legacy") => Some(FirmwareMode::Bios),
        _ => None,
    };
    // One that was given for an earlier boot may still stand there.
    let url = text(system, "/Boot/HttpBootUri").filter(|_| target == BootTarget::Http);
    Some(BootOverride {
        target,
        once: enabled == "Once",
        mode,
        url,
    })
}

/// A boot option and what kind of device it is. The device path says most (UEFI 2.10 section 10.3); some firmware writes
/// it with underscores, or leaves only a vendor's node, and then the name has to do.
pub(crate) fn boot_option(id: &str, option: &Value) -> BootOption {
    let path = text(option, "/UefiDevicePath");
    let name = text(option, "/DisplayName")
        .or_else(|| text(option, "/Name"))
        .unwrap_or_else(|| id.to_owned());
    let alias = text(option, "/Alias").unwrap_or_default();
    BootOption {
        target: kind(&alias, path.as_deref().unwrap_or_default(), &name),
        id: id.to_owned(),
        name,
        path,
        enabled: option.get("BootOptionEnabled").and_then(Value::as_bool) != Some(false),
    }
}

fn kind(alias: &str, path: &str, name: &str) -> BootTarget {
    let has = |text: &str, words: &[&str]| words.iter().any(|word| text.contains(word));
    let path = path.to_lowercase();
    let name = name.to_lowercase();
    match alias {
        "Pxe" => return BootTarget::Network,
        "UefiHttp" => return BootTarget::Http,
        "Hdd" => return BootTarget::Disk,
        "Cd" => return BootTarget::Cd,
        "BiosSetup" => return BootTarget::Setup,
        _ => {}
    }
    if has(&path, &["/uri("]) || (has(&name, &["http"]) && !has(&path, &["hd("])) {
        BootTarget::Http
    } else if path.starts_with("hd(") || path.starts_with("hd_") || has(&path, &["/hd(", "bbs(hd"]) {
        BootTarget::Disk
    } else if has(&path, &["/mac(", "/ipv4(", "/ipv6(", "bbs(network"]) || has(&name, &["pxe", "network", "nic "]) {
        BootTarget::Network
    } else if has(&path, &["/cdrom(", "bbs(cdrom"]) || has(&name, &["cd", "dvd", "optical"]) {
        BootTarget::Cd
    } else if has(&path, &["/nvme(", "/sata(", "/scsi(", "/sas("])
        || has(&name, &["hard disk", "hard drive", "harddisk", "hdd", "ssd", "nvme"])
    {
        BootTarget::Disk
    } else if has(&name, &["setup"]) {
        BootTarget::Setup
    } else {
        BootTarget::Other(if name.is_empty() { "unknown".to_owned() } else { name })
    }
}

/// The words of an error answer: every message of `@Message.ExtendedInfo`, in `error` or at the property it is about
/// (DSP0266 section 8.6), else the short one.
pub(crate) fn error_words(body: &Value) -> String {
    let top = body.as_object().into_iter().flatten();
    let at_properties = top
        .filter(|(key, _)| key.ends_with("@Message.ExtendedInfo"))
        .map(|(_, infos)| infos);
    let infos = body
        .pointer("/error/@Message.ExtendedInfo")
        .into_iter()
        .chain(at_properties);
    let messages: Vec<&str> = infos
        .filter_map(Value::as_array)
        .flatten()
        .filter_map(|info| info.get("Message").or_else(|| info.get("MessageId"))?.as_str())
        .collect();
    if messages.is_empty() {
        let short = body.pointer("/error/message").and_then(Value::as_str);
        short.unwrap_or_default().to_owned()
    } else {
        messages.join(" ")
    }
}

/// The BMC wants another password of this account before anything else (DSP0266 section 13.2.6; `PasswordChangeRequired`
/// of the Base registry, whose first argument is the account): its path, where it is told.
pub(crate) fn password_to_change(body: &Value) -> Option<Option<String>> {
    let infos = body.pointer("/error/@Message.ExtendedInfo")?.as_array()?;
    let says = |info: &&Value| {
        let id = info.get("MessageId").and_then(Value::as_str).unwrap_or_default();
        id.rsplit('.').next() == Some("PasswordChangeRequired")
    };
    let info = infos.iter().find(says)?;
    Some(text(info, "/MessageArgs/0").and_then(|path| own_path(&path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn placeholders_are_nothing() {
        let system = json!({"SerialNumber": " To Be Filled By O.E.M. ", "Model": "R1 ", "UUID": null, "SKU": 5});
        assert_eq!(text(&system, "/SerialNumber"), None);
        assert_eq!(text(&system, "/Model").as_deref(), Some("R1"));
        assert_eq!(
            (text(&system, "/UUID"), text(&system, "/SKU"), text(&system, "/Absent")),
            (None, None, None)
        );
    }

    #[test]
    fn links_stay_on_the_bmc() {
        let members_of = json!({"Members": [{"@odata.id": "/redfish/v1/Systems/1"}, {"@odata.id": "//evil/x"}, {}, 7,
            {"@odata.id": "https://evil/redfish/v1/Systems/1"}]});
        assert_eq!(members(&members_of), ["/redfish/v1/Systems/1"]);
        assert_eq!(members(&json!({"Members": "none"})), Vec::<String>::new());
    }

    #[test]
    fn an_override_that_is_off_is_none() {
        let boot_of = |enabled: &str, target: &str| {
            boot(&json!({"Boot": {"BootSourceOverrideEnabled": enabled, "BootSourceOverrideTarget": target}})).unwrap()
        };
        assert_eq!(boot_of("Disabled", "Pxe").target, BootTarget::Default);
        assert_eq!(
            boot_of("Once", "Pxe"),
            BootOverride {
                target: BootTarget::Network,
                once: true,
                mode: None,
                url: None,
            }
        );
        assert_eq!(
            boot_of("Continuous", "SDCard").target,
            BootTarget::Other("SDCard".to_owned())
        );
        assert_eq!(boot(&json!({})), None);
    }

    #[test]
    fn a_boot_option_is_known_by_alias_path_or_name() {
        for (alias, path, name, expected) in [
            ("Pxe", "", "x", BootTarget::Network),
            (
                "",
                "HD(2,GPT,F75)/\\EFI\\BOOT\\bootx64.efi",
                "Integrated PCIe SSD 1",
                BootTarget::Disk,
            ),
            (
                "",
                "HD_1_GPT_80230AA1_EFI_ubuntu_shimx64_efi",
                "ubuntu",
                BootTarget::Disk,
            ),
            (
                "",
                "PciRoot(0x0)/Pci(0x3,0x0)/MAC(525400000001,0x1)/IPv4(0.0.0.0)",
                "UEFI PXEv4",
                BootTarget::Network,
            ),
            (
                "",
                "PciRoot(0x0)/Pci(0x3,0x0)/MAC(525400000001,0x1)/IPv4(0.0.0.0)/Uri()",
                "UEFI",
                BootTarget::Http,
            ),
            (
                "",
                "VenHw(3A191845-5F86)",
                "PXE Device 1: NIC in Slot 2 Port 1",
                BootTarget::Network,
            ),
            (
                "",
                "PciRoot(0x0)/Pci(0x14,0x0)/USB(0x9,0x0)",
                "Virtual Optical Drive",
                BootTarget::Cd,
            ),
            ("", "VenHw_B2AD3248", "HardDisk", BootTarget::Disk),
            (
                "",
                "PciRoot(0x0)/Pci(0x5,0x0)/NVMe(0x1,00)",
                "UEFI QEMU",
                BootTarget::Disk,
            ),
            ("", "", "Shell", BootTarget::Other("shell".to_owned())),
        ] {
            assert_eq!(kind(alias, path, name), expected, "{alias} {path} {name}");
        }
    }

    #[test]
    fn the_permanent_address_comes_first() {
        let interface = json!({"MACAddress": "02:00:00:00:00:01", "PermanentMACAddress": "00:1B:21:00:00:01"});
        assert_eq!(mac(&interface).unwrap().to_string(), "00:1b:21:00:00:01");
        assert_eq!(mac(&json!({"MACAddress": "00:00:00:00:00:00"})), None);
    }

    #[test]
    fn an_error_says_all_it_has() {
        let body = json!({"error": {"code": "Base.1.0", "message": "short", "@Message.ExtendedInfo": [
            {"Message": "First."}, {"MessageId": "Base.1.0.Second"}]}});
        assert_eq!(error_words(&body), "First. Base.1.0.Second");
        assert_eq!(error_words(&json!({"error": {"message": "short"}})), "short");
        assert_eq!(error_words(&Value::Null), "");
    }
}
