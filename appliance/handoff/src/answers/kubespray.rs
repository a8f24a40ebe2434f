//! Kubespray: an Ansible inventory (YAML) in its groups.

use rackbar_plan::site::KubernetesGroup as Group;
use serde_json::{Map, Value, json};

use super::super::render::ExportError;
use crate::member::Rack;
use crate::yaml;

/// The inventory. Host keys come with it (`ansible_ssh_common_args` is not touched: write `rackbar_known_hosts` to a file).
///
/// # Errors
/// When there is no control plane or no etcd, or an even number of etcd members: Kubespray refuses that after minutes.
pub fn kubespray(rack: &Rack<'_>) -> Result<String, ExportError> {
    let mut hosts = Map::new();
    let mut groups: Map<String, Value> = Map::new();
    for group in [Group::KubeControlPlane, Group::KubeNode, Group::Etcd, Group::CalicoRr] {
        groups.insert(group.name().into(), json!({ "hosts": {} }));
    }
    for member in rack.members() {
        let (Some(role), Some(address)) = (member.role, member.address) else {
            continue;
        };
        if role.kubernetes.is_empty() {
            continue;
        }
        let mut host = json!({
            "ansible_host": address, "ip": address, "access_ip": address, "ansible_user": member.user(),
            "rackbar_id": member.node.id, "rackbar_known_hosts": member.known_hosts(),
        });
        if let Some(port) = member.port() {
            host["ansible_port"] = json!(port);
        }
        hosts.insert(member.name.clone(), host);
        for group in &role.kubernetes {
            groups[group.name()]["hosts"][member.name.as_str()] = json!({});
        }
    }
    let count = |group: Group| groups[group.name()]["hosts"].as_object().map_or(0, Map::len);
    if count(Group::KubeControlPlane) == 0 {
        return Err(ExportError::Missing(
            "no installed node is in `kube_control_plane`: set `kubernetes` in a [handoff.role]".into(),
        ));
    }
    match count(Group::Etcd) {
        0 => {
            return Err(ExportError::Missing(
                "no installed node is in `etcd`: set `kubernetes` in a [handoff.role]".into(),
            ));
        }
        even if even % 2 == 0 => {
            let words = format!("etcd has {even} members, and Kubespray wants an odd number: one more, or one less");
            return Err(ExportError::Missing(words));
        }
        _ => {}
    }
    groups.insert(
        "k8s_cluster".into(),
        json!({ "children": { "kube_control_plane": {}, "kube_node": {} } }),
    );
    Ok(yaml::document(
        &json!({ "all": { "hosts": hosts, "children": groups } }),
    ))
}
