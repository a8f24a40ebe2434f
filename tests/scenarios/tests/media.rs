//! The appliance boots from every medium it is delivered on, and serves.

use anyhow::{Result, ensure};
use rackbar_scenarios::Stage;
use rackbar_vrack::rack::RackFile;

/// A rack of nothing but the appliance.
async fn boots(medium: &str, firmware: &str) -> Result<()> {
    let text = format!(
        "name = \"media\"\ndescription = \"nothing but the appliance\"\nnode = []\n\
         [appliance]\nmedium = \"{medium}\"\nfirmware = \"{firmware}\"\n"
    );
    let stage = Stage::set(RackFile::parse(&text, "media")?).await?;
    let time = stage.start_appliance().await?;
    println!("{medium} under {firmware}: serving after {:.1} s", time.as_secs_f64());
    let services = stage.api.ready().await?;
    ensure!(services.starts_with("ready"), "a service is not well: {services}");
    stage.end().await;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn appliance_boots_from_a_disk() -> Result<()> {
    boots("disk", "uefi").await
}

#[tokio::test(flavor = "multi_thread")]
async fn appliance_boots_from_a_cd() -> Result<()> {
    boots("iso-cd", "uefi").await
}

#[tokio::test(flavor = "multi_thread")]
async fn appliance_boots_from_the_iso_on_a_stick() -> Result<()> {
    boots("iso-disk", "uefi").await
}

#[tokio::test(flavor = "multi_thread")]
async fn appliance_boots_by_ipxe_under_uefi() -> Result<()> {
    boots("ipxe", "uefi").await
}

#[tokio::test(flavor = "multi_thread")]
async fn appliance_boots_by_ipxe_under_bios() -> Result<()> {
    boots("ipxe", "bios").await
}
