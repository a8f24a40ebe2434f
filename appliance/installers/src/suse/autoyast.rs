//! AutoYaST's XML profile. It names the disk by a word of ours, which a script puts right before the profile is used; a
//! word that nobody put right is no disk, and the install stops there.

use rackbar_model::{BondMode, FirmwareMode, OsNetwork};
use rackbar_os_files::network::Base;

use super::xml::{Node, flag, number, profile, symbol, text};
use super::{Suse, SuseRelease, done, limits, packages};
use crate::error::{For, Result};
use crate::finish::Finish;
use crate::input::Install;
use crate::{AnswerFile, Rendered, boot, check, disks};

const AT: For = For("autoyast");
const DISK: &str = "RACKBAR_DISK0";

pub(super) fn render(install: &Install, system: &Suse) -> Result<Rendered> {
    let bases = check::install(AT, install)?;
    limits(AT, install, system)?;
    bounds(install)?;
    let setup = &install.setup;
    let mut finish = Finish::new();
    finish.accounts(install);
    finish.identity(AT, install)?;
    finish.file("/etc/vconsole.conf", 0o644, &format!("KEYMAP={}\n", install.keyboard));
    finish.role_files(install);
    let language = install.locale.split('.').next().unwrap_or_default();
    let zone = setup.timezone.as_deref().unwrap_or("Etc/UTC");
    let mode = Node::Map(vec![("confirm", flag(false)), ("second_stage", flag(false))]);
    let global = Node::Map(vec![
        ("append", text(boot::extra(AT, install)?)),
        ("timeout", number(5)),
    ]);
    let mut sections = vec![
        ("general", Node::Map(vec![("mode", mode)])),
        ("bootloader", Node::Map(vec![("global", global)])),
        ("language", Node::Map(vec![("language", text(language))])),
        (
            "timezone",
            Node::Map(vec![("hwclock", text("UTC")), ("timezone", text(zone))]),
        ),
        ("partitioning", Node::List("drive", vec![drive(install)])),
        ("software", software(install, system)),
        ("networking", networking(install, &bases)),
        ("services-manager", services(install)),
        ("users", Node::List("user", vec![root(install)])),
        ("scripts", scripts(install, &finish)),
    ];
    services_of_the_rack(&mut sections, install)?;
    repositories(&mut sections, system);
    let arguments = [
        format!("install={}", system.source.as_str()),
        format!("autoyast={}", install.answers.file("autoinst.xml")),
        "netsetup=dhcp".to_owned(),
        boot::bootif(install),
    ];
    let files = ["boot/x86_64/loader/linux", "boot/x86_64/loader/initrd"];
    Ok(Rendered {
        files: vec![AnswerFile::new("autoinst.xml", profile(sections))],
        boot: boot::linux(AT, install, files, &arguments)?,
    })
}

/// Clock and proxy.
fn services_of_the_rack(sections: &mut Vec<(&'static str, Node)>, install: &Install) -> Result<()> {
    let setup = &install.setup;
    if !setup.ntp.is_empty() {
        let servers = setup.ntp.iter().map(|server| {
            let fields = vec![
                ("address", text(server)),
                ("iburst", flag(true)),
                ("offline", flag(false)),
            ];
            Node::Map(fields)
        });
        let fields = vec![
            ("ntp_policy", text("auto")),
            ("ntp_servers", Node::List("ntp_server", servers.collect())),
            ("ntp_sync", text("systemd")),
        ];
        sections.push(("ntp-client", Node::Map(fields)));
    }
    if let Some(proxy) = check::proxy(AT, install)? {
        let fields = vec![
            ("enabled", flag(true)),
            ("http_proxy", text(proxy.as_str())),
            ("https_proxy", text(proxy.as_str())),
            ("no_proxy", text("localhost,127.0.0.1,::1")),
        ];
        sections.push(("proxy", Node::Map(fields)));
    }
    Ok(())
}

fn repositories(sections: &mut Vec<(&'static str, Node)>, system: &Suse) {
    if !system.repositories.is_empty() {
        let all = system.repositories.iter().map(|(name, url)| {
            let fields = vec![
                ("media_url", text(url.as_str())),
                ("alias", text(name)),
                ("name", text(name)),
            ];
            Node::Map(fields)
        });
        let list = Node::List("listentry", all.collect());
        sections.push(("add-on", Node::Map(vec![("add_on_products", list)])));
    }
}

fn bounds(install: &Install) -> Result<()> {
    for (index, network) in install.setup.networks.iter().enumerate() {
        if network.addresses.len() > 1 {
            return AT.cannot(
                format!("setup.networks[{index}].addresses"),
                "more than one address on an interface",
            );
        }
        if network.nics.len() > 4 {
            return AT.cannot(
                format!("setup.networks[{index}].nics"),
                "a bond of more than four interfaces",
            );
        }
    }
    Ok(())
}

fn drive(install: &Install) -> Node {
    let partition = |mut fields: Vec<(&'static str, Node)>, size: &str| {
        fields.extend([("create", flag(true)), ("size", text(size))]);
        Node::Map(fields)
    };
    let mounted = |path: &str, kind: &str, id: i64| {
        vec![
            ("mount", text(path)),
            ("filesystem", symbol(kind)),
            ("format", flag(true)),
            ("partition_id", number(id)),
        ]
    };
    // The numbers are YaST's: EFI system partition, BIOS boot partition, Linux.
    let start = match install.firmware {
        FirmwareMode::Uefi => partition(mounted("/boot/efi", "vfat", 259), "512M"),
        FirmwareMode::Bios => partition(vec![("format", flag(false)), ("partition_id", number(263))], "8M"),
    };
    let root = partition(mounted("/", "ext4", 131), "max");
    Node::Map(vec![
        ("type", symbol("CT_DISK")),
        ("device", text(DISK)),
        ("disklabel", text("gpt")),
        ("initialize", flag(true)),
        ("use", text("all")),
        ("partitions", Node::List("partition", vec![start, root])),
    ])
}

fn software(install: &Install, system: &Suse) -> Node {
    let names = |kind, names: Vec<&str>| Node::List(kind, names.into_iter().map(text).collect());
    let product = match system.release {
        SuseRelease::Sles15 | SuseRelease::Sles16 => "SLES",
        SuseRelease::Leap15 | SuseRelease::Leap16 => "Leap",
    };
    Node::Map(vec![
        ("products", names("product", vec![product])),
        ("patterns", names("pattern", vec!["minimal_base"])),
        ("packages", names("package", packages(install))),
    ])
}

fn services(install: &Install) -> Node {
    let mut names = vec!["sshd", "chronyd"];
    if install.setup.syslog.is_some() {
        names.push("rsyslog");
    }
    let enable = Node::List("service", names.into_iter().map(text).collect());
    Node::Map(vec![("services", Node::Map(vec![("enable", enable)]))])
}

fn root(install: &Install) -> Node {
    let hash = install.root_password.as_ref().map_or("!", |hash| hash.as_str());
    Node::Map(vec![
        ("username", text("root")),
        ("user_password", text(hash)),
        ("encrypted", flag(true)),
    ])
}

fn networking(install: &Install, bases: &[Base]) -> Node {
    let setup = &install.setup;
    let mut dns = vec![("dhcp_hostname", flag(false)), ("hostname", text(&setup.hostname))];
    if let Some(domain) = &setup.domain {
        dns.push(("domain", text(domain)));
        dns.push(("searchlist", Node::List("search", vec![text(domain)])));
    }
    if !setup.dns.is_empty() {
        let servers = setup.dns.iter().map(|server| text(server.to_string()));
        dns.push(("nameservers", Node::List("nameserver", servers.collect())));
    }
    let mut fields = vec![
        ("keep_install_network", flag(bases.is_empty())),
        ("dns", Node::Map(dns)),
    ];
    if bases.is_empty() {
        return Node::Map(fields);
    }
    let rules = bases.iter().flat_map(|base| &base.ports).map(|port| {
        Node::Map(vec![
            ("name", text(&port.name)),
            ("rule", text("ATTR{address}")),
            ("value", text(port.mac.to_string())),
        ])
    });
    fields.push(("net-udev", Node::List("rule", rules.collect())));
    let interfaces = bases.iter().flat_map(interfaces).map(Node::Map);
    fields.push(("interfaces", Node::List("interface", interfaces.collect())));
    let all = bases.iter().flat_map(|base| base.untagged.iter().chain(&base.tagged));
    let routes = all.filter_map(|network| {
        let fields = vec![
            ("destination", text("default")),
            ("gateway", text(network.gateway?.to_string())),
            ("device", text(&network.name)),
        ];
        Some(Node::Map(fields))
    });
    let routes = Node::List("route", routes.collect());
    fields.push(("routing", Node::Map(vec![("routes", routes)])));
    Node::Map(fields)
}

/// The members of a bond, what is untagged, and the VLANs on it.
fn interfaces(base: &Base) -> Vec<Vec<(&'static str, Node)>> {
    let head = |name: &str| vec![("device", text(name)), ("startmode", text("auto"))];
    let mut all = Vec::new();
    let mut own = head(&base.name);
    if let Some(mode) = base.bond {
        let mode = match mode {
            BondMode::Lacp => "mode=802.3ad miimon=100 lacp_rate=fast xmit_hash_policy=layer3+4",
            BondMode::ActiveBackup => "mode=active-backup miimon=100",
        };
        own.extend([("bonding_master", text("yes")), ("bonding_module_opts", text(mode))]);
        // YaST knows as many names as this.
        let names = ["bonding_slave0", "bonding_slave1", "bonding_slave2", "bonding_slave3"];
        for (name, port) in names.into_iter().zip(&base.ports) {
            own.push((name, text(&port.name)));
            let mut member = head(&port.name);
            member.push(("bootproto", text("none")));
            all.push(member);
        }
    }
    addresses(&mut own, base.untagged.as_ref(), base.mtu);
    all.push(own);
    for network in &base.tagged {
        let mut vlan = head(&network.name);
        vlan.push(("etherdevice", text(&base.name)));
        vlan.push(("vlan_id", text(network.vlan.unwrap_or_default().to_string())));
        addresses(&mut vlan, Some(network), network.mtu);
        all.push(vlan);
    }
    all
}

fn addresses(fields: &mut Vec<(&'static str, Node)>, network: Option<&OsNetwork>, mtu: Option<u16>) {
    if let Some(mtu) = mtu {
        fields.push(("mtu", text(mtu.to_string())));
    }
    let Some(network) = network else {
        fields.push(("bootproto", text("none")));
        return;
    };
    let Some(first) = network.addresses.first() else {
        fields.push(("bootproto", text("dhcp")));
        return;
    };
    fields.push(("bootproto", text("static")));
    let (ip, prefix) = first.split_once('/').unwrap_or((first, ""));
    fields.extend([("ipaddr", text(ip)), ("prefixlen", text(prefix))]);
}

fn scripts(install: &Install, finish: &Finish) -> Node {
    let script = |name: &str, source: String, chrooted: Option<bool>| {
        let mut fields = vec![
            ("filename", text(name)),
            ("interpreter", text("shell")),
            ("source", text(source)),
        ];
        fields.extend(chrooted.map(|chrooted| ("chrooted", flag(chrooted))));
        Node::Map(fields)
    };
    let disk = format!(
        "#!/bin/sh\n{}sed \"s|{DISK}|$disk0|g\" /tmp/profile/autoinst.xml > /tmp/profile/modified.xml\n",
        disks::find(&install.target)
    );
    let here = format!("#!/bin/sh\nset -eu\n{}", finish.here());
    let end = vec![
        script("rackbar-finish.sh", here, Some(true)),
        script("rackbar-done.sh", done(install), Some(false)),
    ];
    Node::Map(vec![
        (
            "pre-scripts",
            Node::List("script", vec![script("rackbar-disks.sh", disk, None)]),
        ),
        ("chroot-scripts", Node::List("script", end)),
    ])
}
