//! Discs in the catalogue: what xorriso makes of a few files is taken for the installer that they say, served file by file,
//! and refused in words where something does not fit.

use std::collections::HashSet;
use std::process::Command;
use std::sync::Arc;

use rackbar_model::{Digest, ImageEntry, InstallerSystem};
use rackbar_trust::sha256;

use super::tests::{add, open, pack, silent};
use crate::Artifacts;

const ROOM: u64 = 64 << 20;
const LABEL: &str = "Rocky-9-4-x86_64-dvd";
const KERNEL: &[u8] = &[0x4b; 9_000];
const INITRD: &[u8] = &[0x49; 5_000];

/// A disc with a volume's name and files.
fn disc(label: &str, files: &[(&str, &[u8])]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    std::fs::create_dir(&root).unwrap();
    for (path, content) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
    let out = folder.path().join("disc.iso");
    let mut xorriso = Command::new("xorriso");
    xorriso.args(["-as", "mkisofs", "-quiet", "-R", "-V", label, "-o"]);
    let output = xorriso.arg(&out).arg(&root).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(out).unwrap()
}

fn treeinfo(family: &str, version: &str, arch: &str) -> String {
    let sum = |content| Digest(sha256(content));
    format!(
        "[general]\nfamily = {family}\nversion = {version}\narch = {arch}\nname = {family} {version}\n\
         [checksums]\nimages/pxeboot/vmlinuz = sha256:{}\nimages/pxeboot/initrd.img = sha256:{}\n\
         images/install.img = sha256:{}\nimages/boot.iso = sha256:00\n\
         [images-x86_64]\nkernel = images/pxeboot/vmlinuz\ninitrd = images/pxeboot/initrd.img\n\
         [stage2]\nmainimage = images/install.img\n\
         [variant-AppStream]\nrepository = AppStream\n[variant-BaseOS]\nrepository = BaseOS/\n\
         [variant-Away]\nrepository = ../../etc\n",
        sum(KERNEL),
        sum(INITRD),
        sum(b"stage2")
    )
}

fn whole(label: &str, treeinfo: Option<&str>, packages: bool) -> Vec<u8> {
    let mut files = vec![
        ("images/pxeboot/vmlinuz", KERNEL),
        ("images/pxeboot/initrd.img", INITRD),
        ("images/install.img", b"stage2"),
    ];
    files.extend(treeinfo.map(|text| (".treeinfo", text.as_bytes())));
    if packages {
        files.extend([
            ("BaseOS/repodata/repomd.xml", &b"<repomd/>"[..]),
            ("AppStream/repodata/repomd.xml", b"<repomd/>"),
            ("BaseOS/Packages/l/libstdc++-11.4.1.rpm", b"package"),
        ]);
    }
    disc(label, &files)
}

#[test]
fn a_disc_of_packages_is_known_by_its_treeinfo_and_all_of_its_files_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let check = |artifacts: &Artifacts, entry: &Arc<ImageEntry>| {
        let installer = entry.installer.as_ref().unwrap();
        assert_eq!(
            (installer.system, installer.release.as_str()),
            (InstallerSystem::Rocky, "9.4")
        );
        assert_eq!(installer.disc.as_ref().unwrap().repositories, ["AppStream", "BaseOS"]);
        assert_eq!(installer.mirror(), None);
        for (name, part, wanted) in [
            ("vmlinuz", installer.kernel, KERNEL),
            ("initrd.img", installer.initrd, INITRD),
        ] {
            assert_eq!(part.sha256, Digest(sha256(wanted)));
            let served = artifacts.get(&part.sha256).unwrap();
            assert_eq!((served.name(), served.size()), (name, wanted.len() as u64));
            served.verify().unwrap();
        }
        let file = artifacts
            .on_disc(&entry.sha256, "BaseOS/Packages/l/libstdc++-11.4.1.rpm")
            .unwrap();
        let mut read = [0; 20];
        let count = file.read_at(0, &mut read).unwrap();
        assert_eq!(&read[..count], b"package");
        let other = artifacts.on_disc(&entry.sha256, "images/install.img").unwrap();
        assert_ne!(file.etag(), other.etag());
        for path in [
            "",
            "images",
            "/images/install.img",
            "../x.json",
            "images/../images/install.img",
        ] {
            assert!(artifacts.on_disc(&entry.sha256, path).is_none(), "{path}");
        }
    };
    {
        let (images, artifacts) = open(folder.path(), ROOM);
        let info = treeinfo("Rocky Linux", "9.4", "x86_64");
        let entry = add(&images, "rocky-9", &whole(LABEL, Some(&info), true)).unwrap();
        check(&artifacts, &entry);
    }
    let (images, artifacts) = open(folder.path(), ROOM);
    let entry = images.get("rocky-9").unwrap();
    check(&artifacts, &entry);
    images.remove("rocky-9", &HashSet::new()).unwrap();
    assert!(artifacts.on_disc(&entry.sha256, "images/install.img").is_none());
}

#[test]
fn a_disc_in_a_pack_is_served_file_by_file_from_where_it_lies() {
    let folder = tempfile::tempdir().unwrap();
    let (images, artifacts) = open(&folder.path().join("images"), ROOM);
    let content = whole(LABEL, Some(&treeinfo("Rocky Linux", "9.4", "x86_64")), true);
    let packed = pack(folder.path(), "rocky-9", &content);
    images.mount("base", vec![packed], &silent()).unwrap();
    let entry = images.get("rocky-9").unwrap();
    let installer = entry.installer.as_ref().unwrap();
    artifacts.get(&installer.kernel.sha256).unwrap().verify().unwrap();
    let file = artifacts.on_disc(&entry.sha256, "images/install.img").unwrap();
    let mut read = [0; 20];
    let count = file.read_at(0, &mut read).unwrap();
    assert_eq!(&read[..count], b"stage2");
    images.unmount("base");
    assert!(artifacts.on_disc(&entry.sha256, "images/install.img").is_none());
}

#[test]
fn every_member_is_known_and_a_disc_that_only_boots_by_its_volume_s_name() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = open(folder.path(), ROOM);
    let mut number = 0;
    let mut known = |content: &[u8]| {
        number += 1;
        let entry = add(&images, &format!("disc-{number}"), content).unwrap();
        let installer = entry.installer.clone().unwrap();
        (installer.system, installer.release.clone(), installer.mirror())
    };
    for (family, version, system) in [
        ("Red Hat Enterprise Linux", "8.10", InstallerSystem::Rhel),
        ("AlmaLinux", "10.0", InstallerSystem::Alma),
        ("CentOS Stream", "9", InstallerSystem::CentosStream),
        ("Fedora", "42", InstallerSystem::Fedora),
    ] {
        let info = treeinfo(family, version, "x86_64");
        let found = known(&whole("x", Some(&info), false));
        assert_eq!(found, (system, version.to_owned(), Some(system.mirror())));
    }
    let info = "Ubuntu-Server 24.04.2 LTS \"Noble Numbat\" - Release amd64 (20250217)\n";
    let files = [
        (".disk/info", info.as_bytes()),
        ("casper/vmlinuz", KERNEL),
        ("casper/initrd", INITRD),
    ];
    let found = known(&disc("Ubuntu-Server 24.04.2 LTS amd64", &files));
    assert_eq!(found, (InstallerSystem::Ubuntu, "24.04".to_owned(), Some("ubuntu")));
    for (label, system, version) in [
        (LABEL, InstallerSystem::Rocky, "9.4"),
        ("RHEL-9-4-0-BaseOS-x86_64", InstallerSystem::Rhel, "9.4"),
        ("AlmaLinux-8-10-x86_64-dvd", InstallerSystem::Alma, "8.10"),
        ("CentOS-Stream-9-BaseOS-x86_64", InstallerSystem::CentosStream, "9"),
        ("Fedora-E-dvd-x86_64-41", InstallerSystem::Fedora, "41"),
    ] {
        let found = known(&whole(label, None, false));
        assert_eq!(found, (system, version.to_owned(), Some(system.mirror())), "{label}");
    }
}

#[test]
fn discs_that_are_no_installer_for_us_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = open(folder.path(), ROOM);
    let refused = |content: &[u8]| add(&images, "x", content).unwrap_err().to_string();
    let says = |content: &[u8], words: &[&str]| {
        let said = refused(content);
        for word in words {
            assert!(said.contains(word), "no {word:?} in {said}");
        }
    };
    let ubuntu = |info: &str| disc("Ubuntu", &[(".disk/info", info.as_bytes()), ("casper/vmlinuz", KERNEL)]);
    says(
        &ubuntu("Ubuntu 24.04 LTS - Release amd64"),
        &["Ubuntu 24.04", "Ubuntu-Server"],
    );
    says(&ubuntu("Ubuntu-Server 20.04 LTS - Release amd64"), &["22.04 and 24.04"]);
    says(&ubuntu("Ubuntu-Server 24.04 LTS - Release arm64"), &["amd64"]);
    says(
        &ubuntu("Ubuntu-Server 24.04 LTS - Release amd64"),
        &["it has no casper/initrd"],
    );
    let looked_for = &[".treeinfo", "images/pxeboot/vmlinuz", "cloud or disk image"];
    says(&disc("SomeLive", &[("casper/vmlinuz", KERNEL)]), looked_for);
    says(&whole("Gentoo", None, false), looked_for);
    says(&disc(LABEL, &[("images/pxeboot/vmlinuz", KERNEL)]), looked_for);
    let info = |family, version, arch| whole(LABEL, Some(&treeinfo(family, version, arch)), true);
    says(
        &info("Oracle Linux", "9.4", "x86_64"),
        &["\"Oracle Linux\"", "Rocky Linux"],
    );
    says(&info("Rocky Linux", "9.4", "aarch64"), &["\"aarch64\"", "x86_64"]);
    says(
        &info("Rocky Linux", "7.9", "x86_64"),
        &["Rocky Linux \"7.9\"", "8 to 10"],
    );
    says(&info("Fedora", "39", "x86_64"), &["Fedora \"39\"", "40 to 43"]);
    let damaged =
        treeinfo("Rocky Linux", "9.4", "x86_64").replace(&Digest(sha256(INITRD)).to_string(), &"0".repeat(64));
    says(
        &whole(LABEL, Some(&damaged), true),
        &["images/pxeboot/initrd.img", "came damaged", "fetch it again"],
    );
    let text = treeinfo("Rocky Linux", "9.4", "x86_64");
    let without = disc(
        LABEL,
        &[(".treeinfo", text.as_bytes()), ("images/pxeboot/initrd.img", INITRD)],
    );
    says(&without, &["it has no images/pxeboot/vmlinuz"]);
    let good = info("Rocky Linux", "9.4", "x86_64");
    let place = good.windows(INITRD.len()).position(|part| part == INITRD).unwrap();
    says(&good[..place + 10], &["it is cut off"]);
    assert_eq!(super::tests::files(folder.path()), Vec::<String>::new());
}
