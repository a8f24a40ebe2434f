//! Identity written into trees that look like images.

use super::*;
use rackbar_model::{MacAddr, OsFile, OsNetwork, SecretText};
use std::path::Path;

/// A key of ssh-keygen's, made for this test; it opens nothing.
fn host_key() -> (String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let mut command = std::process::Command::new("ssh-keygen");
    command
        .args(["-q", "-t", "ed25519", "-N", "", "-C", "root@node-001", "-f"])
        .arg(&path);
    let status = command
        .status()
        .expect("ssh-keygen: `cargo xtask setup test` installs it");
    assert!(status.success());
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    (read(&path), read(&path.with_extension("pub")))
}

fn image(files: &[&str]) -> (tempfile::TempDir, Tree) {
    let folder = tempfile::tempdir().unwrap();
    let me = (nix::unistd::geteuid(), nix::unistd::getegid());
    let passwd = format!(
        "root:x:0:0:root:/root:/bin/bash\ndebian:x:{}:{}::/home/debian:/bin/bash\n",
        me.0, me.1
    );
    for (path, text) in files.iter().map(|path| (*path, "")).chain([
        ("etc/passwd", passwd.as_str()),
        ("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 template\n"),
        ("usr/share/zoneinfo/Europe/Berlin", "TZif"),
    ]) {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let tree = Tree::open(folder.path()).unwrap();
    (folder, tree)
}

fn sample() -> OsSetup {
    OsSetup {
        hostname: "node-001".into(),
        domain: Some("rack.example".into()),
        machine_id: "0123456789abcdef0123456789abcdef".into(),
        user: "debian".into(),
        ssh_keys: vec!["ssh-ed25519 AAAA op@x".into()],
        networks: vec![OsNetwork {
            name: "mgmt".into(),
            nics: vec![MacAddr([2, 0, 0, 0, 0, 1])],
            bond: None,
            vlan: None,
            mtu: None,
            addresses: vec!["10.0.0.5/24".into()],
            gateway: None,
        }],
        dns: vec!["10.0.0.2".parse().unwrap()],
        ntp: vec!["10.0.0.1".into()],
        proxy: Some("http://10.0.0.1:3142".into()),
        timezone: Some("Europe/Berlin".into()),
        files: vec![OsFile {
            path: "/etc/motd".into(),
            content: "hello\n".into(),
            mode: 0o640,
        }],
        ..OsSetup::default()
    }
}

/// The keys of a file of them, without what else it says.
fn keys(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: files can be given to root by root only");
    }
    root
}

#[test]
fn an_image_with_networkd_becomes_the_node() {
    if !is_root() {
        return;
    }
    let (folder, mut tree) = image(&[
        "lib/systemd/systemd-networkd",
        "lib/systemd/system/systemd-networkd.service",
        "lib/systemd/systemd-timesyncd",
        "sbin/ifup",
        "etc/network/interfaces.d/eth0",
        "etc/apt/sources.list",
        "var/lib/dbus/machine-id",
        "etc/ssh/ssh_host_rsa_key",
        "etc/ssh/ssh_host_rsa_key.pub",
    ]);
    let mut setup = sample();
    let (private, public) = host_key();
    setup.ssh_host_key = SecretText(private.clone());
    apply(&mut tree, &setup).unwrap();
    let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).unwrap();
    assert_eq!(read("etc/hostname"), "node-001\n");
    assert_eq!(
        read("etc/hosts"),
        "127.0.0.1 localhost\n127.0.1.1 node-001.rack.example node-001\n"
    );
    assert_eq!(read("etc/machine-id"), "0123456789abcdef0123456789abcdef\n");
    assert!(folder.path().join("var/lib/dbus/machine-id").is_symlink());
    assert!(
        ["", ".pub"]
            .iter()
            .all(|end| !folder.path().join(format!("etc/ssh/ssh_host_rsa_key{end}")).exists()),
        "a key that every machine of this image would have"
    );
    assert!(read("etc/systemd/network/40-mgmt.network").contains("Address=10.0.0.5/24"));
    assert!(
        folder
            .path()
            .join("etc/systemd/system/multi-user.target.wants/systemd-networkd.service")
            .is_symlink()
    );
    assert!(
        !folder.path().join("etc/network/interfaces.d/eth0").exists(),
        "the other one is switched off"
    );
    assert_eq!(
        keys(&read("home/debian/.ssh/authorized_keys")),
        ["ssh-ed25519 AAAA op@x"]
    );
    assert_eq!(read("etc/resolv.conf"), "search rack.example\nnameserver 10.0.0.2\n");
    assert!(read("etc/apt/apt.conf.d/90rackbar-proxy").contains("http://10.0.0.1:3142"));
    assert_eq!(
        read("etc/systemd/timesyncd.conf.d/rackbar.conf"),
        "[Time]\nNTP=10.0.0.1\n"
    );
    assert_eq!(read("etc/motd"), "hello\n");
    assert!(!folder.path().join("var/lib/cloud").exists(), "no cloud-init, no seed");
    use std::os::unix::fs::MetadataExt;
    let mode = |path: &str| std::fs::metadata(folder.path().join(path)).unwrap().mode() & 0o7777;
    assert_eq!(
        (
            mode("home/debian/.ssh"),
            mode("home/debian/.ssh/authorized_keys"),
            mode("etc/motd")
        ),
        (0o700, 0o600, 0o640)
    );
    assert_eq!(read("etc/ssh/ssh_host_ed25519_key"), private);
    assert_eq!(mode("etc/ssh/ssh_host_ed25519_key"), 0o600);
    assert_eq!(read("etc/ssh/ssh_host_ed25519_key.pub"), public);
}

#[test]
fn cloud_init_gets_a_seed_and_leaves_the_network_to_networkd() {
    if !is_root() {
        return;
    }
    let (folder, mut tree) = image(&[
        "usr/bin/cloud-init",
        "lib/systemd/systemd-networkd",
        "etc/netplan/50-cloud-init.yaml",
    ]);
    apply(&mut tree, &sample()).unwrap();
    let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).unwrap();
    let user = read("var/lib/cloud/seed/nocloud/user-data");
    assert!(
        user.starts_with("#cloud-config\n") && user.contains("- \"ssh-ed25519 AAAA op@x\""),
        "{user}"
    );
    assert!(read("var/lib/cloud/seed/nocloud/meta-data").contains("local-hostname: \"node-001\""));
    assert!(read("etc/cloud/cloud.cfg.d/99-rackbar-network.cfg").contains("disabled"));
    assert!(!folder.path().join("etc/netplan/50-cloud-init.yaml").exists());
}

#[test]
fn an_image_without_any_network_program_is_refused() {
    if !is_root() {
        return;
    }
    let (_folder, mut tree) = image(&[]);
    let failure = apply(&mut tree, &sample()).unwrap_err();
    assert!(
        failure.reason.contains("neither systemd-networkd nor ifupdown"),
        "{failure:?}"
    );
}

#[test]
fn values_that_would_add_lines_are_refused() {
    type Change = fn(&mut OsSetup);
    let (_folder, mut tree) = image(&[]);
    let changes: [(&str, Change); 8] = [
        ("host name", |s| s.hostname = "a\nb".into()),
        ("host name", |s| s.hostname = String::new()),
        ("domain", |s| s.domain = Some("a b".into())),
        ("machine-id", |s| s.machine_id = "XYZ".into()),
        ("NTP", |s| s.ntp = vec!["a\nNTP=b".into()]),
        ("proxy", |s| s.proxy = Some("http://x\";".into())),
        ("time zone", |s| s.timezone = Some("../../etc/shadow".into())),
        ("SSH key", |s| s.ssh_keys = vec!["a\ncommand=x".into()]),
    ];
    for (word, change) in changes {
        let mut setup = sample();
        change(&mut setup);
        let failure = apply(&mut tree, &setup).unwrap_err();
        assert!(failure.reason.contains(word), "{failure:?}");
    }
    assert!(tree.written().is_empty());
}

#[test]
fn a_service_that_the_role_wants_is_started_where_the_image_leaves_it_off() {
    let (folder, mut tree) = image(&[
        "usr/sbin/rsyslogd",
        "lib/systemd/system/rsyslog.service",
        "lib/systemd/systemd-timesyncd",
        "lib/systemd/system/systemd-timesyncd.service",
        "usr/share/zoneinfo/Etc/UTC",
    ]);
    let mut setup = sample();
    setup.user = "root".into();
    setup.networks.clear();
    setup.ssh_keys.clear();
    setup.timezone = None;
    let local = folder.path().join("etc/localtime");
    std::os::unix::fs::symlink("../usr/share/zoneinfo/Asia/Tokyo", &local).unwrap();
    apply(&mut tree, &setup).unwrap();
    assert_eq!(
        std::fs::read_link(&local).unwrap(),
        std::path::Path::new("../usr/share/zoneinfo/Etc/UTC")
    );
    let link = |name: &str| std::fs::read_link(folder.path().join("etc/systemd/system").join(name));
    let unit = |name: &str| std::path::PathBuf::from(format!("/lib/systemd/system/{name}"));
    let clock = "systemd-timesyncd.service";
    assert_eq!(link(&format!("sysinit.target.wants/{clock}")).unwrap(), unit(clock));
    assert!(
        link("multi-user.target.wants/rsyslog.service").is_err(),
        "nobody wants it"
    );
    setup.syslog = Some("10.0.0.1".into());
    apply(&mut tree, &setup).unwrap();
    for name in ["multi-user.target.wants/rsyslog.service", "syslog.service"] {
        assert_eq!(link(name).unwrap(), unit("rsyslog.service"), "{name}");
    }
}

/// As the cloud images of the Red Hat family and SUSE are.
#[test]
fn an_image_with_selinux_dnf_or_zypper_gets_labels_time_and_proxy_where_its_programs_look() {
    if !is_root() {
        return;
    }
    let (folder, mut tree) = image(&[
        "usr/bin/cloud-init",
        "usr/sbin/chronyd",
        "etc/dnf/dnf.conf",
        "etc/zypp/zypp.conf",
    ]);
    let put = |path: &str, text: &str| {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    let read = |path: &str| std::fs::read_to_string(folder.path().join(path)).ok();
    put("etc/chrony.conf", "pool 2.pool.ntp.org iburst\nmakestep 1.0 3");
    put(
        "etc/sysconfig/proxy",
        "PROXY_ENABLED=\"no\"\nHTTP_PROXY=\"\"\nNO_PROXY=\"localhost\"\n",
    );
    for (config, labelled) in [
        ("# SELINUX= can take\nSELINUX=disabled\nSELINUXTYPE=targeted\n", false),
        ("SELINUX=enforcing\nSELINUXTYPE=targeted\n", true),
    ] {
        put("etc/selinux/config", config);
        for _ in 0..2 {
            apply(&mut tree, &sample()).unwrap();
        }
        assert_eq!(read(".autorelabel").is_some(), labelled, "{config}");
    }
    assert_eq!(read("etc/chrony.d/rackbar.conf").unwrap(), "server 10.0.0.1 iburst\n");
    assert_eq!(
        read("etc/chrony.conf").unwrap(),
        "pool 2.pool.ntp.org iburst\nmakestep 1.0 3\ninclude /etc/chrony.d/*.conf\n"
    );
    assert!(read("etc/dnf/dnf.conf").unwrap().contains("proxy=http://10.0.0.1:3142"));
    assert_eq!(
        read("etc/sysconfig/proxy").unwrap(),
        "NO_PROXY=\"localhost\"\nPROXY_ENABLED=\"yes\"\nHTTP_PROXY=\"http://10.0.0.1:3142\"\n\
         HTTPS_PROXY=\"http://10.0.0.1:3142\"\n"
    );
}

#[test]
fn an_identity_is_changed_and_what_others_wrote_stays() {
    if !is_root() {
        return;
    }
    let (folder, mut tree) = image(&[
        "lib/systemd/systemd-networkd",
        "lib/systemd/systemd-timesyncd",
        "usr/sbin/rsyslogd",
        "usr/share/zoneinfo/Etc/UTC",
        "etc/apt/sources.list",
        "etc/dnf/dnf.conf",
    ]);
    // What the image came with, in its main section and for a repository of its own.
    let came = "[main]\ngpgcheck=1\nproxy = http://10.9.9.9:8080\n[local]\nproxy=_none_\n";
    std::fs::write(folder.path().join("etc/dnf/dnf.conf"), came).unwrap();
    let mut setup = sample();
    setup.ssh_host_key = SecretText(host_key().0);
    setup.syslog = Some("10.0.0.1".into());
    apply(&mut tree, &setup).unwrap();
    let path = |name: &str| folder.path().join(name);
    let read = |name: &str| std::fs::read_to_string(path(name)).ok();
    let dnf = read("etc/dnf/dnf.conf").unwrap();
    let proxies = dnf.lines().filter(|line| line.starts_with("proxy")).collect::<Vec<_>>();
    assert_eq!(proxies, ["proxy=http://10.0.0.1:3142", "proxy=_none_"], "{dnf}");
    let before = ["etc/ssh/ssh_host_ed25519_key", "etc/machine-id", "etc/hostname"].map(read);
    std::fs::write(path("etc/apt/sources.list.d-own"), "mine").unwrap();
    for (name, content) in [
        ("etc/netplan/90-own.yaml", "mine"),
        ("etc/network/interfaces.d/br0", "iface br0 inet dhcp\n"),
    ] {
        std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        std::fs::write(path(name), content).unwrap();
    }
    for (name, more) in [
        ("home/debian/.ssh/authorized_keys", "ssh-rsa CCCC colleague\n"),
        ("etc/systemd/network/40-mgmt.network", "\n[Network]\nBridge=br0\n"),
    ] {
        std::fs::write(path(name), read(name).unwrap() + more).unwrap();
    }

    let next = OsSetup {
        machine_id: String::new(),
        ssh_keys: vec!["ssh-ed25519 BBBB new@x".into()],
        ssh_host_key: SecretText::default(),
        dns: vec!["10.0.0.9".parse().unwrap()],
        ntp: Vec::new(),
        proxy: None,
        syslog: None,
        timezone: None,
        files: vec![OsFile {
            path: "/etc/issue".into(),
            content: "new\n".into(),
            mode: 0o644,
        }],
        ..sample()
    };
    for _ in 0..2 {
        again::apply(&mut tree, &next, &["/etc/motd".into()]).unwrap();
    }
    assert_eq!(
        keys(&read("home/debian/.ssh/authorized_keys").unwrap()),
        ["ssh-ed25519 BBBB new@x", "ssh-rsa CCCC colleague"]
    );
    assert_eq!(read("etc/netplan/90-own.yaml").unwrap(), "mine");
    assert_eq!(read("etc/network/interfaces.d/br0").unwrap(), "iface br0 inet dhcp\n");
    let network = read("etc/systemd/network/40-mgmt.network").unwrap();
    assert!(
        network.contains("DNS=10.0.0.9") && network.contains("Bridge=br0"),
        "{network}"
    );
    assert!(!network.contains("DNS=10.0.0.2"), "{network}");
    assert!(read("etc/resolv.conf").unwrap().contains("nameserver 10.0.0.9"));
    for gone in [
        "etc/motd",
        "etc/apt/apt.conf.d/90rackbar-proxy",
        "etc/systemd/timesyncd.conf.d/rackbar.conf",
        "etc/rsyslog.d/90-rackbar.conf",
    ] {
        assert!(!path(gone).exists(), "{gone}");
    }
    assert_eq!(read("etc/dnf/dnf.conf").unwrap(), came);
    assert_eq!(read("etc/timezone").unwrap(), "Etc/UTC\n");
    assert_eq!(read("etc/issue").unwrap(), "new\n");
    assert_eq!(read("etc/apt/sources.list.d-own").unwrap(), "mine");
    assert_eq!(
        ["etc/ssh/ssh_host_ed25519_key", "etc/machine-id", "etc/hostname"].map(read),
        before
    );
}

/// cloud-init reads the network of its seed once, so another name server in it would be heard by nobody.
#[test]
fn name_servers_that_nobody_would_read_are_refused_and_keys_are_not() {
    if !is_root() {
        return;
    }
    let (folder, mut tree) = image(&["usr/bin/cloud-init"]);
    apply(&mut tree, &sample()).unwrap();
    let mut next = sample();
    next.ssh_keys = vec!["ssh-ed25519 BBBB new@x".into()];
    again::apply(&mut tree, &next, &[]).unwrap();
    next.dns = vec!["10.0.0.9".parse().unwrap()];
    let refused = again::apply(&mut tree, &next, &[]).unwrap_err();
    assert!(refused.reason.contains("cloud-init"), "{refused:?}");
    let keys = std::fs::read_to_string(folder.path().join("home/debian/.ssh/authorized_keys"));
    assert_eq!(self::keys(&keys.unwrap()), ["ssh-ed25519 BBBB new@x"]);
}
