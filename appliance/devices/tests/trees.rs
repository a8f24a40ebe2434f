//! The Redfish client walks whole published controller trees, where they are at hand: `RACKBAR_REDFISH_TREES`, or
//! `shared/data/redfish` in a folder above. They are third parties' data and no part of this project.
#![allow(clippy::unwrap_used, reason = "a test may")]

mod player;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use player::Player;
use rackbar_devices::{BiosKind, BootTarget, Cause, Error};
use rackbar_model::PowerState;

/// Unpacks a tree; nothing, with a message, where it is not at hand.
fn tree(name: &str) -> Option<tempfile::TempDir> {
    let above = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("shared/data/redfish"));
    let given = std::env::var_os("RACKBAR_REDFISH_TREES").map(PathBuf::from);
    let archive = given
        .into_iter()
        .chain(above)
        .map(|folder| folder.join(format!("{name}.tar.xz")))
        .find(|file| file.exists());
    let Some(archive) = archive else {
        eprintln!(
            "skipped: the tree {name} is not at hand (RACKBAR_REDFISH_TREES, or shared/data/redfish in a folder above)"
        );
        return None;
    };
    let folder = tempfile::tempdir().unwrap();
    let unpacked = Command::new("tar")
        .arg("xJf")
        .arg(&archive)
        .arg("-C")
        .arg(folder.path())
        .status();
    if !unpacked.as_ref().is_ok_and(std::process::ExitStatus::success) {
        eprintln!("skipped: {} cannot be unpacked ({unpacked:?})", archive.display());
        return None;
    }
    Some(folder)
}

/// An answer, or a refusal that names what the BMC lacks.
fn or_unsupported<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) if matches!(error.cause, Cause::Unsupported(_)) => None,
        Err(error) => panic!("{error}"),
    }
}

/// What a walk found.
struct Found {
    settings: usize,
    rules: usize,
    order: Vec<BootTarget>,
    sensors: usize,
    lines: usize,
}

async fn walk(name: &str, manufacturer: &str) -> Option<Found> {
    let folder = tree(name)?;
    let player = Player::tree(folder.path().to_path_buf()).await;
    let bmc = player.client();
    let identity = bmc.identify().await.unwrap();
    assert!(
        identity
            .manufacturer
            .as_deref()
            .unwrap_or_default()
            .to_lowercase()
            .contains(manufacturer),
        "{identity:?}"
    );
    assert!(
        identity.model.is_some() && identity.firmware.is_some() && identity.mac.is_some(),
        "{identity:?}"
    );
    assert_ne!(bmc.power_state().await.unwrap(), PowerState::Unknown);
    assert_eq!(bmc.get_boot().await.unwrap().target, BootTarget::Default);
    assert!(bmc.health().await.unwrap().state > rackbar_devices::HealthState::Unknown);
    let bios = or_unsupported(bmc.bios_attributes().await).unwrap_or_default();
    if !bios.attributes.is_empty() {
        let waiting = bmc.staged_bios().await.unwrap();
        let strange = BTreeMap::from([("NoSuchSettingAnywhere".to_owned(), "x".to_owned())]);
        let refused = bmc.stage_bios(&strange).await.unwrap_err();
        assert!(matches!(refused.cause, Cause::NotAllowed(_)), "{refused}");
        // What each setting is now needs no change, whatever its registry says.
        let same: BTreeMap<_, _> = bios
            .attributes
            .iter()
            .filter(|(name, _)| !waiting.contains_key(*name))
            .filter(|(_, a)| {
                a.rule
                    .as_ref()
                    .is_some_and(|r| !matches!(r.kind, BiosKind::Password) && !a.value.is_empty())
            })
            .map(|(name, attribute)| (name.clone(), attribute.value.clone()))
            .collect();
        let staged = bmc.stage_bios(&same).await;
        let staged = staged.unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(staged.sent, BTreeMap::new(), "nothing differs");
    }
    let nobody = bmc
        .change_password("rackbar-nobody", "Aa1!longer-pw")
        .await
        .unwrap_err();
    assert!(
        matches!(nobody.cause, Cause::NotAllowed(_)) && nobody.to_string().contains("no user"),
        "{nobody}"
    );
    let order = or_unsupported(bmc.boot_order().await).unwrap_or_default();
    let sensors = or_unsupported(bmc.sensors().await).unwrap_or_default();
    assert!(sensors.iter().all(|sensor| !sensor.name.is_empty()));
    let lines = or_unsupported(bmc.event_log(50).await).unwrap_or_default();
    bmc.close().await;
    player.finished();
    Some(Found {
        settings: bios.attributes.len(),
        rules: bios
            .attributes
            .values()
            .filter(|attribute| attribute.rule.is_some())
            .count(),
        order: order.into_iter().map(|option| option.target).collect(),
        sensors: sensors.len(),
        lines: lines.len(),
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dell_tree_is_walked() {
    let Some(found) = walk("dell_xr8620t_corpus", "dell").await else {
        return;
    };
    assert_eq!((found.settings, found.order.len()), (574, 19));
    assert!(found.rules > 500, "{}", found.rules);
    assert!(
        found.order.contains(&BootTarget::Network) && found.order[0] == BootTarget::Disk,
        "{:?}",
        found.order
    );
    assert!(
        found.sensors > 10 && found.lines > 0,
        "{} sensors, {} lines",
        found.sensors,
        found.lines
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lenovo_tree_is_walked() {
    let Some(found) = walk("lenovo_thinksystem_sr670", "lenovo").await else {
        return;
    };
    assert_eq!(found.settings, 373);
    assert!(found.rules > 300, "{}", found.rules);
    let expected = [
        BootTarget::Disk,
        BootTarget::Cd,
        BootTarget::Disk,
        BootTarget::Other("usbstorage".to_owned()),
        BootTarget::Network,
    ];
    assert_eq!(found.order, expected);
    assert!(
        found.sensors > 10 && found.lines > 0,
        "{} sensors, {} lines",
        found.sensors,
        found.lines
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_supermicro_tree_is_walked() {
    let Some(found) = walk("supermicro_x10_corpus", "supermicro").await else {
        return;
    };
    // Its generation shows neither settings nor an order over Redfish.
    assert_eq!((found.settings, found.order.len()), (0, 0));
    assert!(found.sensors > 10, "{} sensors", found.sensors);
}
