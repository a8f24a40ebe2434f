//! VMware ESXi 7 and 8: a kickstart file in weasel's dialect, and the medium's `boot.cfg` as it must be for the network.
//!
//! What weasel has no command for is done with `esxcli` at the first start, which secure boot does not let run. ESXi has no
//! packages, and accounts only with plain passwords: both are refused.

mod first_start;

use rackbar_model::{BondMode, FirmwareMode, OsNetwork, RootTarget};
use rackbar_os_files::network::Base;

use crate::error::{For, Result};
use crate::finish::ask_again;
use crate::input::{Install, Url};
use crate::{AnswerFile, NetBoot, Rendered, boot, check};

const AT: For = For("esxi");

/// ESXi and where it comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Esxi {
    /// The folder with the files of the ISO.
    pub source: Url,
    /// The ISO's own `boot.cfg`.
    pub boot_cfg: String,
}

/// Renders kickstart file and `boot.cfg`.
pub(crate) fn render(install: &Install, system: &Esxi) -> Result<Rendered> {
    let bases = check::install(AT, install)?;
    limits(install, &bases)?;
    let source = system.source.as_str().trim_end_matches('/');
    let (boot_cfg, mut files) = boot_cfg(install, system, source)?;
    let loader = match install.firmware {
        FirmwareMode::Uefi => "efi/boot/bootx64.efi",
        FirmwareMode::Bios => "mboot.c32",
    };
    files.insert(0, loader.to_owned());
    let script = format!(
        "#!ipxe\nkernel {source}/{loader} -c {}\nboot\n",
        install.answers.file("boot.cfg")
    );
    Ok(Rendered {
        files: vec![
            AnswerFile::new("ks.cfg", kickstart(install, &bases)?),
            AnswerFile::new("boot.cfg", boot_cfg),
        ],
        boot: NetBoot::Ipxe { script, files },
    })
}

fn limits(install: &Install, bases: &[Base]) -> Result<()> {
    let setup = &install.setup;
    let english = matches!(install.locale.as_str(), "C" | "C.UTF-8" | "en_US.UTF-8");
    let left: [(&str, bool, &str); 10] = [
        ("locale", english, "a language but English"),
        ("packages", install.packages.is_empty(), "packages"),
        (
            "accounts",
            install.accounts.is_empty(),
            "accounts without their plain passwords",
        ),
        ("setup.user", check::is_root(install), "another account than root"),
        (
            "setup.files",
            setup.files.is_empty(),
            "files: what it keeps over a restart is its own",
        ),
        (
            "setup.machine_id",
            setup.machine_id.is_empty(),
            "a machine ID: it makes its own",
        ),
        (
            "setup.ssh_host_key",
            setup.ssh_host_key.0.is_empty(),
            "an Ed25519 host key",
        ),
        ("setup.proxy", setup.proxy.is_none(), "a proxy"),
        (
            "setup.timezone",
            matches!(setup.timezone.as_deref(), None | Some("UTC" | "Etc/UTC")),
            "a time zone but UTC",
        ),
        (
            "keyboard",
            install.keyboard == "us",
            "keyboard layouts by the names of XKB, but `us`",
        ),
    ];
    if let Some((field, _, what)) = left.into_iter().find(|(_, good, _)| !good) {
        return AT.cannot(field, what);
    }
    if matches!(install.target, RootTarget::Mirror(_)) {
        return AT.cannot("target", "a mirror");
    }
    networks(install, bases)?;
    let Some(hash) = &install.root_password else {
        return Err(AT.error(
            "root_password",
            "ESXi does not install without one",
            "give root a password",
        ));
    };
    let known = hash.is_one_of(&["6", "5"]);
    check::demand(AT, known, "root_password", "ESXi knows SHA-512 ($6$) and SHA-256 ($5$)")?;
    if !install.done.is_http() || !install.answers.is_http() {
        return Err(AT.error(
            "done",
            "its wget and boot loader fetch over http only",
            "give URLs that begin with http://",
        ));
    }
    Ok(())
}

fn networks(install: &Install, bases: &[Base]) -> Result<()> {
    // What has no IPv4 address is left to DHCP by the installer's line.
    if let Some(network) = bases.first().and_then(management)
        && !network.addresses.is_empty()
        && v4(network).is_none()
    {
        return AT.cannot(
            "setup.networks",
            "a network for its management with IPv6 addresses alone",
        );
    }
    for (index, network) in install.setup.networks.iter().enumerate() {
        if network.bond == Some(BondMode::Lacp) {
            return AT.cannot(
                format!("setup.networks[{index}].bond"),
                "LACP: only a distributed switch has it",
            );
        }
        let v4 = network.addresses.iter().filter(|address| !address.contains(':'));
        if v4.count() > 1 {
            return AT.cannot(
                format!("setup.networks[{index}].addresses"),
                "two IPv4 addresses on an interface",
            );
        }
    }
    let first = bases.first().is_some_and(|base| management(base).is_some());
    check::demand(AT, first, "setup.networks", "there is none to manage it by")
}

/// The network that ESXi is managed by: the first of the first interface.
fn management(base: &Base) -> Option<&OsNetwork> {
    base.untagged.as_ref().or_else(|| base.tagged.first())
}

/// Address and mask, `None` for DHCP, or for IPv6 alone where it is not the network of the management.
fn v4(network: &OsNetwork) -> Option<(String, std::net::Ipv4Addr)> {
    let address = network.addresses.iter().find(|address| !address.contains(':'))?;
    let (ip, prefix) = address.split_once('/')?;
    let prefix: u32 = prefix.parse().ok()?;
    let mask = u32::MAX.checked_shl(32u32.saturating_sub(prefix)).unwrap_or(0);
    Some((ip.to_owned(), mask.into()))
}

fn kickstart(install: &Install, bases: &[Base]) -> Result<String> {
    let wwn = install
        .target
        .disks()
        .first()
        .and_then(|disk| disk.wwn.clone())
        .unwrap_or_default();
    if !wwn.starts_with("naa.") && !wwn.starts_with("eui.") {
        let what = "a disk by anything but a WWN that begins with naa. or eui.";
        return AT.cannot("target.disks[0]", what);
    }
    let hash = install.root_password.as_ref().map_or("", |hash| hash.as_str());
    let mut file = format!(
        "vmaccepteula\nkeyboard 'US Default'\nrootpw --iscrypted {hash}\ninstall --disk={wwn} --overwritevmfs\n"
    );
    file.push_str(&network(install, bases));
    file.push_str("reboot\n\n%post --interpreter=busybox\n");
    file.push_str(&format!("{}\n", ask_again(&install.done)));
    file.push_str("\n%firstboot --interpreter=busybox\n");
    file.push_str(&first_start::script(install, bases));
    Ok(file)
}

fn network(install: &Install, bases: &[Base]) -> String {
    let setup = &install.setup;
    let name = match &setup.domain {
        Some(domain) => format!("{}.{domain}", setup.hostname),
        None => setup.hostname.clone(),
    };
    let mut line = String::from("network");
    let mut add = |option: &str, value: &str| line.push_str(&format!(" --{option}={value}"));
    if let Some((base, network)) = bases.first().and_then(|base| Some((base, management(base)?))) {
        match v4(network) {
            Some((ip, mask)) => {
                add("bootproto", "static");
                add("ip", &ip);
                add("netmask", &mask.to_string());
                if let Some(gateway) = network.gateway.filter(|gateway| gateway.is_ipv4()) {
                    add("gateway", &gateway.to_string());
                }
                let servers: Vec<String> = setup
                    .dns
                    .iter()
                    .filter(|ip| ip.is_ipv4())
                    .map(ToString::to_string)
                    .collect();
                if !servers.is_empty() {
                    add("nameserver", &servers.join(","));
                }
            }
            None => add("bootproto", "dhcp"),
        }
        if let Some(port) = base.ports.first() {
            add("device", &port.mac.to_string());
        }
        if let Some(vlan) = network.vlan {
            add("vlanid", &vlan.to_string());
        }
    }
    add("hostname", &name);
    add("addvmportgroup", "0");
    line + "\n"
}

/// The medium's `boot.cfg` with the files by URL and our arguments, and the files that it names.
fn boot_cfg(install: &Install, system: &Esxi, source: &str) -> Result<(String, Vec<String>)> {
    let bad = |what: &str| AT.error("boot_cfg", what, "give the boot.cfg of the ISO as it is");
    let extra = boot::extra(AT, install)?;
    let mut text = format!("prefix={source}\n");
    let mut files = Vec::new();
    for line in system.boot_cfg.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if !line.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            return Err(bad("it has other characters than printable ones"));
        }
        let (key, value) = line.split_once('=').ok_or_else(|| bad("it has a line without `=`"))?;
        let paths = value
            .split(" --- ")
            .map(|path| path.trim().trim_start_matches('/').to_owned());
        match key.trim() {
            "prefix" => {}
            key @ ("kernel" | "modules") => {
                let paths: Vec<String> = paths.collect();
                text.push_str(&format!("{key}={}\n", paths.join(" --- ")));
                files.extend(
                    paths
                        .into_iter()
                        .map(|path| path.split(' ').next().unwrap_or_default().to_owned()),
                );
            }
            "kernelopt" => {
                let ours = |word: &&str| {
                    ["ks=", "netdevice=", "bootproto="]
                        .iter()
                        .any(|own| word.starts_with(own))
                };
                let kept = value
                    .split_ascii_whitespace()
                    .filter(|word| *word != "cdromBoot" && !ours(word));
                let own = [
                    format!("ks={}", install.answers.file("ks.cfg")),
                    format!("netdevice={}", install.boot_mac),
                    "bootproto=dhcp".to_owned(),
                    extra.clone(),
                ];
                let words: Vec<String> = kept.map(str::to_owned).chain(own).collect();
                text.push_str(&format!("kernelopt={}\n", words.join(" ").trim()));
            }
            key => text.push_str(&format!("{key}={value}\n")),
        }
    }
    for key in ["\nkernel=", "\nmodules=", "\nkernelopt="] {
        if !text.contains(key) {
            return Err(bad("it has no kernel, modules or kernelopt"));
        }
    }
    let plain = |path: &String| !path.is_empty() && !path.contains(':') && !path.split('/').any(|part| part == "..");
    if !files.iter().all(plain) {
        return Err(bad("it names a file outside of the medium"));
    }
    Ok((text, files))
}
