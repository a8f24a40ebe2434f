//! OpenStack's Redfish client (PyPI `sushy`, which `cargo xtask setup test` installs) against the simulated BMC: a judge
//! that shares no code with us.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rackbar_model::MacAddr;
use rackbar_vrack::bmc::{Loopback, LoopbackConfig, Pretend};
use rackbar_vrack::console::Console;
use rackbar_vrack::seat::{BootDevice, BootOverride, Identity, MachinePower, PowerAction, PowerState};
use tokio::process::Command;

/// What an operator's script would do: look, change, look again. Prints one line per thing that held.
const SCRIPT: &str = r#"
import sys, sushy, urllib3
urllib3.disable_warnings()
root = sushy.Sushy(sys.argv[1], username="admin", password="secret", verify=False)
system = root.get_system_collection().get_members()[0]
assert system.power_state == sushy.POWER_STATE_OFF, system.power_state
system.set_system_boot_options(target=sushy.BOOT_SOURCE_TARGET_PXE, enabled=sushy.BOOT_SOURCE_ENABLED_ONCE)
system.refresh()
assert system.boot.target == sushy.BOOT_SOURCE_TARGET_PXE, system.boot
print("boot")
system.reset_system(sushy.RESET_ON)
system.refresh()
assert system.power_state == sushy.POWER_STATE_ON
print("power")
bios = system.bios
assert bios.attributes["NumLock"] == "On" and bios.supported_apply_times is not None
bios.set_attribute("NumLock", "Off")
bios.refresh(force=True)
assert bios.attributes["NumLock"] == "On" and bios.pending_attributes["NumLock"] == "Off", bios.pending_attributes
registry = bios.get_attribute_registry()
assert any(a.name == "BootRetries" and a.upper_bound == 10 for a in registry.registry_entries.attributes)
print("bios")
media = root.get_manager_collection().get_members()[0].virtual_media.get_members()[0]
media.insert_media("http://192.0.2.1/x.iso")
media.refresh()
assert media.inserted
media.eject_media()
print("media")
chassis = root.get_chassis_collection().get_members()[0]
assert [t.name for t in chassis.thermal.temperatures] == ["Inlet Temp", "CPU1 Temp"]
print("sensors")
"#;

#[tokio::test(flavor = "multi_thread")]
async fn sushy_is_content() {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/python");
    let dir = tempfile::tempdir().unwrap();
    let machine = Arc::new(Pretend::new(PowerState::Off));
    let bmc = Loopback::start(LoopbackConfig {
        power: Arc::clone(&machine) as Arc<dyn MachinePower>,
        console: Console::new(&dir.path().join("serial.log")).unwrap(),
        identity: Identity {
            manufacturer: "Virtual".into(),
            product: "Node".into(),
            serial: "SN-1".into(),
            uuid: "4c4c4544-0042-4410-8056-b4c04f363132".into(),
            board_serial: "B-1".into(),
            asset_tag: "A-1".into(),
            firmware_version: "1".into(),
        },
        nics: vec![MacAddr([0x52, 0x54, 0, 0, 0, 1])],
        mac: MacAddr([0x52, 0x54, 0, 0, 1, 1]),
        username: "admin".into(),
        password: "secret".into(),
        kcs_socket: None,
    })
    .await
    .unwrap();
    let url = format!("https://{}/redfish/v1", bmc.https());
    let script = Command::new(python)
        .args(["-c", SCRIPT, &url])
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(Duration::from_secs(120), script)
        .await
        .unwrap()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        said.split_whitespace().collect::<Vec<_>>(),
        ["boot", "power", "bios", "media", "sensors"]
    );
    let once = BootOverride {
        device: BootDevice::Network,
        once: true,
    };
    assert_eq!(
        (machine.acts(), machine.starts()),
        (vec![PowerAction::On], vec![Some(once)])
    );
}
