//! Talos Linux: a machine configuration (`v1alpha1`) that the system in memory fetches, and installs itself by.
//!
//! Talos has no accounts, no SSH, no packages and no shell, and no way to tell us that it is done: who waits for it asks
//! its API. All that is refused by name rather than left out. Locale and keyboard are for who logs in, and nobody does.

mod network;
mod secrets;

use rackbar_model::{DiskRef, OsFile, RootTarget, SecretText};
use serde_json::{Value, json};

use crate::error::{For, Result};
use crate::input::{Install, Url};
use crate::{AnswerFile, Rendered, boot, check, document};

pub use secrets::{BadTalosSecrets, talos_secrets};

const AT: For = For("talos");

/// What a machine is in its cluster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TalosKind {
    /// Runs the control plane and etcd.
    Controlplane,
    /// Runs workloads alone. It gets no private key of the cluster.
    Worker,
}

/// A certificate authority: PEM texts in base64, as `talosctl gen secrets` writes them.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TalosAuthority {
    /// Its certificate.
    pub certificate: String,
    /// Its private key.
    pub key: SecretText,
}

/// A cluster, as `talosctl gen secrets` makes it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct TalosCluster {
    /// Its name.
    pub name: String,
    /// URL of its Kubernetes API, such as `https://10.0.0.10:6443`.
    pub endpoint: String,
    /// `cluster.id`.
    pub id: SecretText,
    /// `cluster.secret`.
    pub secret: SecretText,
    /// `trustdinfo.token`.
    pub machine_token: SecretText,
    /// `secrets.bootstraptoken`.
    pub bootstrap_token: SecretText,
    /// `secrets.secretboxencryptionsecret`.
    pub secretbox: SecretText,
    /// `certs.os`.
    pub os: TalosAuthority,
    /// `certs.k8s`.
    pub kubernetes: TalosAuthority,
    /// `certs.k8saggregator`.
    pub aggregator: TalosAuthority,
    /// `certs.etcd`.
    pub etcd: TalosAuthority,
    /// `certs.k8sserviceaccount.key`.
    pub service_account: SecretText,
}

/// Talos, what the machine is there, and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Talos {
    /// What the machine is.
    pub kind: TalosKind,
    /// Its cluster.
    pub cluster: TalosCluster,
    /// Image of the installer, such as `registry/siderolabs/installer:v1.11.0`.
    pub installer: String,
    /// Names and addresses besides its own that its API's certificate is for.
    pub names: Vec<String>,
}

/// Renders the machine configuration.
pub(crate) fn render(install: &Install, system: &Talos) -> Result<Rendered> {
    let bases = check::install(AT, install)?;
    limits(install, system)?;
    let setup = &install.setup;
    let mut machine = json!({
        "type": match system.kind { TalosKind::Controlplane => "controlplane", TalosKind::Worker => "worker" },
        "token": system.cluster.machine_token.0,
        "ca": authority(&system.cluster.os, system.kind),
        "certSANs": system.names,
        "install": {
            "diskSelector": disk(install)?,
            "image": system.installer,
            "wipe": true,
        },
        "network": network::network(setup, &bases),
    });
    let extra = boot::extra(AT, install)?;
    if !extra.is_empty() {
        machine["install"]["extraKernelArgs"] = extra.split(' ').collect::<Vec<_>>().into();
    }
    if !setup.ntp.is_empty() {
        machine["time"] = json!({"servers": setup.ntp});
    }
    if let Some(proxy) = check::proxy(AT, install)? {
        // The cluster's own API, its services and pods (Talos' defaults) are not behind the proxy.
        let (_, endpoint) = system.cluster.endpoint.split_once("://").unwrap_or_default();
        let host = endpoint.split('/').next().unwrap_or_default();
        let host = host
            .rsplit_once(':')
            .map_or(host, |(host, _)| host)
            .trim_matches(['[', ']']);
        machine["env"] = json!({"http_proxy": proxy.as_str(), "https_proxy": proxy.as_str(),
            "no_proxy": format!("localhost,127.0.0.1,::1,{host},10.96.0.0/12,10.244.0.0/16")});
    }
    if !setup.files.is_empty() {
        let file = |file: &OsFile| json!({"path": file.path, "permissions": file.mode, "op": "create", "content": file.content});
        machine["files"] = setup.files.iter().map(file).collect();
    }
    let document = json!({"version": "v1alpha1", "machine": machine, "cluster": cluster(system)});
    let arguments = [
        "talos.platform=metal".to_owned(),
        format!("talos.config={}", install.answers.file("config.yaml")),
        "init_on_alloc=1".to_owned(),
        "slab_nomerge".to_owned(),
        "pti=on".to_owned(),
        "ip=dhcp".to_owned(),
    ];
    Ok(Rendered {
        files: vec![AnswerFile::new("config.yaml", document::yaml(document))],
        boot: boot::linux(AT, install, ["kernel-amd64", "initramfs-amd64.xz"], &arguments)?,
    })
}

fn limits(install: &Install, system: &Talos) -> Result<()> {
    let setup = &install.setup;
    let left: [(&str, bool, &str); 9] = [
        ("packages", install.packages.is_empty(), "packages"),
        ("accounts", install.accounts.is_empty(), "accounts"),
        (
            "root_password",
            install.root_password.is_none(),
            "a password: nobody logs in to it",
        ),
        ("setup.ssh_keys", setup.ssh_keys.is_empty(), "SSH keys: it has no SSH"),
        (
            "setup.ssh_host_key",
            setup.ssh_host_key.0.is_empty(),
            "a host key: it has no SSH",
        ),
        (
            "setup.machine_id",
            setup.machine_id.is_empty(),
            "a machine ID: it makes its own",
        ),
        (
            "setup.syslog",
            setup.syslog.is_none(),
            "a syslog server: it sends JSON of its own",
        ),
        (
            "setup.timezone",
            matches!(setup.timezone.as_deref(), None | Some("UTC" | "Etc/UTC")),
            "a time zone but UTC",
        ),
        ("target", matches!(install.target, RootTarget::Disk(_)), "a mirror"),
    ];
    if let Some((field, _, what)) = left.into_iter().find(|(_, good, _)| !good) {
        return AT.cannot(field, what);
    }
    files(&setup.files)?;
    cluster_words(system)
}

fn files(files: &[OsFile]) -> Result<()> {
    for (index, file) in files.iter().enumerate() {
        if !file.path.starts_with("/var/") {
            return AT.cannot(format!("setup.files[{index}].path"), "a new file outside of /var");
        }
        if file.content.contains('\0') {
            return AT.cannot(format!("setup.files[{index}].content"), "a file with a NUL byte");
        }
    }
    Ok(())
}

fn cluster_words(system: &Talos) -> Result<()> {
    let word = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"-._:/@".contains(&b))
    };
    check::demand(AT, word(&system.installer), "installer", "it is no image's name")?;
    check::demand(
        AT,
        word(&system.cluster.name),
        "cluster.name",
        "it is no name of a cluster",
    )?;
    let endpoint = system.cluster.endpoint.parse::<Url>();
    let good = endpoint.is_ok_and(|url| !url.is_http());
    check::demand(AT, good, "cluster.endpoint", "it is no https:// URL")?;
    for (index, name) in system.names.iter().enumerate() {
        check::demand(AT, word(name), &format!("names[{index}]"), "it is no name or address")?;
    }
    Ok(())
}

/// Talos takes the first disk that fits, in words that it compares as a whole.
fn disk(install: &Install) -> Result<Value> {
    let disk: DiskRef = install.target.disks().first().cloned().unwrap_or_default();
    let mut selector = json!({});
    if let Some(wwn) = &disk.wwn {
        selector["wwid"] = wwn.as_str().into();
    }
    if let Some(serial) = &disk.serial {
        selector["serial"] = serial.trim().into();
    }
    if disk.wwn.is_none() && disk.serial.is_none() {
        return AT.cannot(
            "target.disks[0]",
            "a disk of which only the path is known: it needs the WWN or the serial number",
        );
    }
    Ok(selector)
}

/// Workers get certificates alone.
fn authority(authority: &TalosAuthority, kind: TalosKind) -> Value {
    let key = match kind {
        TalosKind::Controlplane => authority.key.0.as_str(),
        TalosKind::Worker => "",
    };
    json!({"crt": authority.certificate, "key": key})
}

fn cluster(system: &Talos) -> Value {
    let TalosCluster {
        name,
        endpoint,
        id,
        secret,
        machine_token: _,
        bootstrap_token,
        secretbox,
        os: _,
        kubernetes,
        aggregator,
        etcd,
        service_account,
    } = &system.cluster;
    let mut all = json!({
        "clusterName": name,
        "controlPlane": {"endpoint": endpoint},
        "id": id.0,
        "secret": secret.0,
        "token": bootstrap_token.0,
        "ca": authority(kubernetes, system.kind),
    });
    if system.kind == TalosKind::Controlplane {
        all["secretboxEncryptionSecret"] = secretbox.0.as_str().into();
        all["aggregatorCA"] = authority(aggregator, system.kind);
        all["serviceAccount"] = json!({"key": service_account.0});
        all["etcd"] = json!({"ca": authority(etcd, system.kind)});
    }
    all
}
