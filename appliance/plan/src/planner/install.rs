//! Simple mode: one operating system on some nodes, without a site file.

use rackbar_model::DiskIntent;

use crate::site::{Role, RoleNetwork, Root, Site};

/// The role's name in the site that [`install`] makes. Bind the nodes to it by hand.
pub const INSTALL_ROLE: &str = "install";

/// A site for one command: the base's networks, domain and keys, one role [`INSTALL_ROLE`], no rules. With a single
/// network in the base the nodes are on it with the NIC they booted from; with several or none, that NIC asks for an
/// address by DHCP. Expected machines stay known, so that their names and bills of materials hold, but
/// lose their roles: only nodes bound by hand are touched.
pub fn install(base: Option<&Site>, os: &str, root: DiskIntent, ssh_keys: Vec<String>) -> Site {
    let base = base.cloned().unwrap_or_default();
    let only = if base.network.len() == 1 {
        base.network.keys().next()
    } else {
        None
    };
    let network = only.map(|name| RoleNetwork {
        name: "lan".to_owned(),
        network: name.clone(),
        nics: vec!["boot".to_owned()],
        bond: None,
        default_route: true,
    });
    let role = Role {
        os: Some(os.to_owned()),
        root: Root::new(root, false),
        network: network.into_iter().collect(),
        ssh_keys,
        ..Role::default()
    };
    let machine = base
        .machine
        .into_iter()
        .map(|machine| crate::site::Machine { role: None, ..machine })
        .collect();
    Site {
        version: 1,
        extends: None,
        role: [(INSTALL_ROLE.to_owned(), role)].into(),
        rule: Vec::new(),
        machine,
        ..base
    }
}
