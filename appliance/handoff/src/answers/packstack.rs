//! Packstack: the host lines of an answer file. `packstack --answer-file` takes defaults for all that is not there.

use std::fmt::Write as _;
use std::net::IpAddr;

use rackbar_plan::site::PackstackHost;

use super::super::render::ExportError;
use crate::member::Rack;

/// An answer file with the hosts of the rack.
///
/// # Errors
/// When there is not exactly one controller with an address: Packstack would install over one that runs.
pub fn packstack(rack: &Rack<'_>) -> Result<String, ExportError> {
    let members = rack.members();
    let of = |kind: PackstackHost| -> Vec<IpAddr> {
        let fits = members
            .iter()
            .filter(|one| one.role.is_some_and(|role| role.packstack.contains(&kind)));
        fits.filter_map(|one| one.address).collect()
    };
    let controllers = of(PackstackHost::Controller);
    let [controller] = controllers.as_slice() else {
        return Err(ExportError::Missing(format!(
            "Packstack wants exactly one controller, and {} installed nodes with an address are: set `packstack = \
             [\"controller\"]` in the [handoff.role] of one role with one node",
            controllers.len()
        )));
    };
    let list = |mut addresses: Vec<IpAddr>| {
        if addresses.is_empty() {
            addresses.push(*controller);
        }
        let texts: Vec<_> = addresses.iter().map(ToString::to_string).collect();
        texts.join(",")
    };
    let mut out = String::from("[general]\n");
    let mut put = |key: &str, value: &str| {
        let _ = writeln!(out, "{key}={value}");
    };
    put("CONFIG_CONTROLLER_HOST", &controller.to_string());
    put("CONFIG_COMPUTE_HOSTS", &list(of(PackstackHost::Compute)));
    put("CONFIG_NETWORK_HOSTS", &list(of(PackstackHost::Network)));
    put("CONFIG_STORAGE_HOST", &controller.to_string());
    put("CONFIG_AMQP_HOST", &controller.to_string());
    put("CONFIG_MARIADB_HOST", &controller.to_string());
    Ok(out)
}
