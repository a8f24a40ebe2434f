//! The site of a virtual rack: the appliance's configuration, its token, its medium.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rackbar_image::disk::{self, DiskSpec};
use rackbar_image::iso::{self, IsoSpec};
use rackbar_image::packs::MediumPack;
use rackbar_vrack::rack::{BMC_PASSWORD, BMC_USERNAME, DhcpRole, Interface, Medium, Rack, neighbour};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};

/// Size of the data partition in MiB: images of operating systems lie there. The file is sparse.
const DATA_MIB: u64 = 3072;

/// An admin token nobody used before: 32 random bytes, hex.
///
/// # Errors
/// When the system gives no random bytes.
pub fn token() -> Result<String> {
    let mut bytes = [0; 32];
    SystemRandom::new()
        .fill(&mut bytes)
        .ok()
        .context("the system gave no random bytes")?;
    Ok(hex(&bytes))
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What a person would write for this rack.
pub fn configuration(rack: &Rack, token: &str) -> String {
    let file = &rack.file().appliance;
    let dhcp = match file.dhcp {
        DhcpRole::Own => "own",
        DhcpRole::Proxy => "proxy",
        DhcpRole::Auto => "auto",
    };
    let [inside, bmc, outside] = rack.appliance_interfaces();
    let uplink = if file.uplink {
        format!(
            "[[network]]\nname = \"uplink\"\nrole = \"uplink\"\ninterface = \"{}\"\n\n",
            outside.mac
        )
    } else {
        String::new()
    };
    let network = |name: &str, interface: Interface, address, dhcp: &str| {
        let (first, last) = (neighbour(address, 100), neighbour(address, 199));
        let vlan = interface.vlan.map(|vlan| format!("vlan = {vlan}\n"));
        format!(
            "[[network]]\nname = \"{name}\"\nrole = \"{name}\"\ninterface = \"{}\"\n{}address = \"{address}/24\"\n\
             dhcp = \"{dhcp}\"\npool = [\"{first}-{last}\"]\n\n",
            interface.mac,
            vlan.unwrap_or_default()
        )
    };
    let digest = hex(digest(&SHA256, token.as_bytes()).as_ref());
    format!(
        "# Written for the virtual rack `{name}`.\nversion = 1\nname = \"{name}\"\n\n{}{}{uplink}\
         [boot]\nkernel_arguments = \"console=ttyS0,115200n8 no_timer_check\"\n\n\
         [[bmc.credential]]\nusername = \"{BMC_USERNAME}\"\npassword = \"{BMC_PASSWORD}\"\n\n\
         [api]\nadmin_token_sha256 = \"{digest}\"\n",
        network("rack", inside, file.rack_address, dhcp),
        network("bmc", bmc, file.bmc_address, "own"),
        name = rack.file().name,
    )
}

/// Writes the medium of a rack's appliance into its run directory, out of what `cargo xtask image` built, with these data
/// packs on it.
///
/// # Errors
/// When what was built is missing or the run directory cannot be written.
pub fn medium(rack: &Rack, image: &Path, configuration: &str, packs: &[MediumPack<'_>]) -> Result<PathBuf> {
    let efi_path = image.join("rackbar.efi");
    let efi = || std::fs::read(&efi_path).with_context(|| format!("reading {}", efi_path.display()));
    match rack.file().appliance.medium {
        Medium::Disk => {
            let path = rack.directory().join("rackbar.img");
            disk::write(
                &DiskSpec {
                    efi: &efi()?,
                    config: Some(configuration),
                    packs,
                    data_mib: DATA_MIB,
                },
                &path,
            )?;
            Ok(path)
        }
        Medium::IsoCd | Medium::IsoDisk => {
            let path = rack.directory().join("rackbar.iso");
            iso::write(
                &IsoSpec {
                    efi: &efi()?,
                    config: Some(configuration),
                    packs,
                },
                &path,
            )?;
            Ok(path)
        }
        Medium::Ipxe | Medium::None => Ok(image.to_path_buf()),
    }
}
