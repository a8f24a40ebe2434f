//! What Rackbar asks of a system: who it is, its power, where it boots from.

use std::net::IpAddr;

use rackbar_model::{FirmwareMode, MacAddr, PowerState};
use serde_json::{Map, Value, json};

use super::{Redfish, view};
use crate::error::{Cause, Error};
use crate::{BmcIdentity, BootOverride, BootTarget};

/// Members of a collection we look at; blades and dual-port cards stay far below.
const MEMBERS: usize = 64;

impl Redfish {
    /// The system this BMC manages. A BMC with several (multi-node chassis, GPU trays) names the physical one first.
    pub(super) async fn system_path(&mut self) -> Result<String, Error> {
        if let Some(path) = &self.system {
            return Ok(path.clone());
        }
        let root = self.root().await?;
        let systems = view::link(&root, "/Systems").unwrap_or_else(|| "/redfish/v1/Systems".to_owned());
        let paths = view::members(&self.get(&systems).await?);
        let mut found = paths.first().cloned();
        let named = |path: &&String| self.quirks.system.as_deref() == path.trim_end_matches('/').rsplit('/').next();
        if let Some(path) = paths.iter().find(named).filter(|_| self.quirks.system.is_some()) {
            found = Some(path.clone());
        } else if paths.len() > 1 {
            for path in paths.iter().take(MEMBERS) {
                let system = self.get(path).await?;
                if system.get("SystemType").and_then(Value::as_str) == Some("Physical")
                    && view::reset(&system).is_some()
                {
                    found = Some(path.clone());
                    break;
                }
            }
        }
        let nothing = || Cause::Unsupported("the Systems collection is empty".to_owned());
        let path = found.ok_or_else(|| self.error(format!("GET {systems}"), nothing()))?;
        self.system = Some(path.clone());
        Ok(path)
    }

    pub(crate) async fn identify(&mut self) -> Result<BmcIdentity, Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        let mut identity = BmcIdentity {
            system_serial: view::text(&system, "/SerialNumber"),
            uuid: view::text(&system, "/UUID").map(|uuid| uuid.to_lowercase()),
            manufacturer: view::text(&system, "/Manufacturer"),
            model: view::text(&system, "/Model"),
            power: view::power(&system),
            ..BmcIdentity::default()
        };
        identity.nic_macs = self.system_macs(&system).await?;
        if let Some(path) = self.manager_path(&system).await? {
            let manager = self.get(&path).await?;
            identity.firmware = view::text(&manager, "/FirmwareVersion");
            identity.mac = self.manager_mac(&manager).await?;
        }
        Ok(identity)
    }

    /// The board, as the first chassis of the system names it.
    pub(crate) async fn board(&mut self) -> Result<Option<String>, Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        let Some(path) = view::link(&system, "/Links/Chassis/0") else {
            return Ok(None);
        };
        Ok(self
            .get_if_there(&path)
            .await?
            .and_then(|chassis| view::text(&chassis, "/Model")))
    }

    /// A resource that may be missing: what firmware links to but does not serve, or not to this user, is nothing, not an
    /// error.
    pub(super) async fn get_if_there(&mut self, path: &str) -> Result<Option<Value>, Error> {
        match self.get(path).await {
            Ok(value) => Ok(Some(value)),
            Err(Error {
                cause: Cause::Unsupported(_) | Cause::Malformed(_) | Cause::Forbidden(_),
                ..
            }) => Ok(None),
            // Busy is not missing: half an answer must not be taken for a whole one.
            Err(
                error @ Error {
                    cause: Cause::Refused { code: 429 | 503, .. },
                    ..
                },
            ) => Err(error),
            Err(Error {
                cause: Cause::Refused { .. },
                ..
            }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) async fn collection(&mut self, resource: &Value, pointer: &str) -> Result<Vec<Value>, Error> {
        self.collection_of(resource, pointer, MEMBERS).await
    }

    /// The members of a collection, at most so many.
    pub(super) async fn collection_of(
        &mut self,
        resource: &Value,
        pointer: &str,
        most: usize,
    ) -> Result<Vec<Value>, Error> {
        let Some(path) = view::link(resource, pointer) else {
            return Ok(Vec::new());
        };
        let Some(collection) = self.get_if_there(&path).await? else {
            return Ok(Vec::new());
        };
        let mut found = Vec::new();
        for path in view::members(&collection).iter().take(most) {
            found.extend(self.get_if_there(path).await?);
        }
        Ok(found)
    }

    /// MACs of the system's interfaces, without the one that only joins it to its own BMC: an address of the BMC's
    /// making, the same on many machines, is no witness. Firmware that leaves `EthernetInterfaces` empty until an agent runs in the
    /// operating system often knows them as ports of the adapters.
    async fn system_macs(&mut self, system: &Value) -> Result<Vec<MacAddr>, Error> {
        let mut macs: Vec<MacAddr> = self
            .collection(system, "/EthernetInterfaces")
            .await?
            .iter()
            .filter(|interface| view::link(interface, "/Links/HostInterface").is_none())
            .filter_map(view::mac)
            .collect();
        if macs.is_empty() {
            for interface in self.collection(system, "/NetworkInterfaces").await? {
                for function in self.collection(&interface, "/NetworkDeviceFunctions").await? {
                    macs.extend(function.get("Ethernet").and_then(view::mac));
                }
            }
        }
        macs.sort_unstable();
        macs.dedup();
        Ok(macs)
    }

    pub(super) async fn manager_path(&mut self, system: &Value) -> Result<Option<String>, Error> {
        if let Some(path) = view::link(system, "/Links/ManagedBy/0") {
            return Ok(Some(path));
        }
        let root = self.root().await?;
        let managers = view::link(&root, "/Managers").unwrap_or_else(|| "/redfish/v1/Managers".to_owned());
        Ok(self
            .get_if_there(&managers)
            .await?
            .and_then(|all| view::members(&all).into_iter().next()))
    }

    /// MAC of the manager's interface that we talk to; else of the first that is no host (USB) interface.
    async fn manager_mac(&mut self, manager: &Value) -> Result<Option<MacAddr>, Error> {
        let interfaces = self.collection(manager, "/EthernetInterfaces").await?;
        let ip = self.address.ip;
        let ours = interfaces
            .iter()
            .filter(|interface| has_address(interface, ip))
            .find_map(view::mac);
        let usb = |interface: &Value| {
            let name = |key| {
                interface
                    .get(key)
                    .and_then(Value::as_str)
                    .unwrap_or_default()
                    .to_lowercase()
            };
            name("Id").contains("usb") || name("Id").contains("tohost") || name("Name").contains("host")
        };
        Ok(ours
            .or_else(|| {
                interfaces
                    .iter()
                    .filter(|interface| !usb(interface))
                    .find_map(view::mac)
            })
            .or_else(|| interfaces.iter().find_map(view::mac)))
    }

    pub(crate) async fn power_state(&mut self) -> Result<PowerState, Error> {
        let path = self.system_path().await?;
        Ok(view::power(&self.get(&path).await?))
    }

    /// Resets with the first of the `wanted` types that the BMC takes; `false` when it takes none of them.
    pub(crate) async fn reset(&mut self, wanted: &[&str]) -> Result<bool, Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        let (target, mut allowed) = view::reset(&system).ok_or_else(|| {
            self.error(
                format!("GET {path}"),
                Cause::Unsupported("the system has no Reset action".to_owned()),
            )
        })?;
        if allowed.is_none()
            && let Some(info) = system
                .pointer("/Actions/#ComputerSystem.Reset/@Redfish.ActionInfo")
                .and_then(Value::as_str)
            && let Some(info) = view::own_path(info)
        {
            allowed = self
                .get_if_there(&info)
                .await?
                .as_ref()
                .and_then(view::action_info_values);
        }
        // A BMC that lists nothing has to be tried.
        let takes = |kind: &&&str| {
            allowed
                .as_ref()
                .is_none_or(|allowed| allowed.iter().any(|value| value == **kind))
        };
        let Some(kind) = wanted.iter().find(takes) else {
            return Ok(false);
        };
        self.post(&target, &json!({"ResetType": kind})).await?;
        Ok(true)
    }

    pub(crate) async fn get_boot(&mut self) -> Result<BootOverride, Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        view::boot(&system).ok_or_else(|| {
            self.error(
                format!("GET {path}"),
                Cause::Unsupported("the system has no Boot".to_owned()),
            )
        })
    }

    pub(crate) async fn set_boot_once(&mut self, target: &BootTarget, mode: Option<FirmwareMode>) -> Result<(), Error> {
        self.set_override(target, mode, "Once", None).await
    }

    /// Sets the override: `enabled` is `Once` or `Continuous`, `url` what HTTP boot fetches.
    pub(super) async fn set_override(
        &mut self,
        target: &BootTarget,
        mode: Option<FirmwareMode>,
        enabled: &str,
        url: Option<&str>,
    ) -> Result<(), Error> {
        let path = self.system_path().await?;
        let system = self.get(&path).await?;
        let boot = system.get("Boot").cloned().unwrap_or_default();
        let words = target_words(target, mode);
        let allowed = view::strings(&boot, "/BootSourceOverrideTarget@Redfish.AllowableValues");
        let word = words.iter().find(|word| {
            allowed
                .as_ref()
                .is_none_or(|all| all.iter().any(|value| value == *word))
        });
        let Some(word) = word else {
            let cause = Cause::Unsupported(format!(
                "booting from {target}; it offers {}",
                allowed.unwrap_or_default().join(", ")
            ));
            return Err(self.error(format!("PATCH {path}"), cause));
        };
        let mut wanted = Map::new();
        let enabled = if *target == BootTarget::Default {
            "Disabled"
        } else {
            enabled
        };
        wanted.insert("BootSourceOverrideEnabled".to_owned(), json!(enabled));
        wanted.insert("BootSourceOverrideTarget".to_owned(), json!(word));
        if let Some(mode) = self.mode_word(&boot, mode) {
            wanted.insert("BootSourceOverrideMode".to_owned(), json!(mode));
        }
        if let Some(url) = url {
            wanted.insert("HttpBootUri".to_owned(), json!(url));
        }
        let target_path = if self.quirks.boot_override_at_settings {
            view::link(&system, "/@Redfish.Settings/SettingsObject").unwrap_or_else(|| format!("{path}/SD"))
        } else {
            path
        };
        self.patch(&target_path, &json!({"Boot": wanted})).await
    }

    /// The mode to name: what the caller wants, where the BMC knows modes; else, only where it must be repeated, the
    /// one it has.
    fn mode_word(&self, boot: &Value, mode: Option<FirmwareMode>) -> Option<String> {
        let present = boot.get("BootSourceOverrideMode").and_then(Value::as_str);
        let wanted = mode.map(|mode| if mode == FirmwareMode::Uefi { "UEFI" } else { "Legacy" });
        match (wanted, present) {
            (Some(wanted), Some(_)) => Some(wanted.to_owned()),
            (None, Some(present)) if self.quirks.boot_override_mode_required => Some(present.to_owned()),
            // Firmware that shows no mode refuses a request that names one.
            _ => None,
        }
    }
}

/// The words for a target, best first. Firmware from before the schema has its own: `CD/DVD`, and a second set for UEFI.
fn target_words(target: &BootTarget, mode: Option<FirmwareMode>) -> Vec<&str> {
    match target {
        BootTarget::Default => vec!["None"],
        BootTarget::Network => vec!["Pxe", "UefiHttp"],
        BootTarget::Http => vec!["UefiHttp"],
        BootTarget::Disk if mode == Some(FirmwareMode::Uefi) => vec!["UefiHdd", "Hdd"],
        BootTarget::Disk => vec!["Hdd"],
        BootTarget::Cd if mode == Some(FirmwareMode::Uefi) => vec!["UefiCd", "Cd", "UefiUsbCd", "UsbCd", "RemoteDrive"],
        BootTarget::Cd => vec!["Cd", "CD/DVD", "UsbCd", "RemoteDrive"],
        BootTarget::Setup => vec!["BiosSetup"],
        BootTarget::Other(word) => vec![word],
    }
}

fn has_address(interface: &Value, ip: IpAddr) -> bool {
    ["IPv4Addresses", "IPv6Addresses"].iter().any(|key| {
        let addresses = interface.get(key).and_then(Value::as_array).into_iter().flatten();
        addresses
            .filter_map(|a| a.get("Address")?.as_str()?.parse::<IpAddr>().ok())
            .any(|found| found == ip)
    })
}
