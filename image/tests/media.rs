//! A whole build out of stand-ins: the same inputs give the same bytes, and nothing unlisted gets in.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use common::{deb, module, noise, pe};
use rackbar_image::cache::Cache;
use rackbar_image::contents::{Contents, Sources};
use rackbar_image::kernel::Kernel;
use rackbar_image::media::{self, Inputs};
use rackbar_image::modules::List;
use rackbar_image::sbom::{Component, Origin};
use rackbar_image::{audit, pe as portable};

/// Who signed the pack on the media.
const PACK_KEY: &str = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29";
const LIST: &str = "[[group]]\npurpose = \"test\"\nmodules = [\"nic\", \"xfs\"]\n";

/// Builds in `folder`, with a cache of its own.
fn build(folder: &Path) -> Vec<media::Output> {
    let package = folder.join("linux.deb");
    deb(
        &package,
        &[
            ("boot/vmlinuz-6.1.0-test", noise(20_000)),
            ("lib/modules/6.1.0-test/modules.builtin", b"kernel/fs/fat.ko\n".to_vec()),
            (
                "lib/modules/6.1.0-test/kernel/net/nic.ko",
                module("depends=mii\0alias=pci:v1\0"),
            ),
            ("lib/modules/6.1.0-test/kernel/net/mii.ko", module("depends=\0")),
            (
                "lib/modules/6.1.0-test/kernel/fs/xfs.ko",
                module("alias=fs-xfs\0softdep=pre: crc32c\0"),
            ),
            (
                "lib/modules/6.1.0-test/kernel/crypto/crc32c_generic.ko",
                module("alias=crc32c\0"),
            ),
            ("lib/modules/6.1.0-test/kernel/sound/beep.ko", module("alias=beep\0")),
        ],
    );
    let cache = Cache::open(folder.join("cache")).unwrap();
    let kernel = Kernel::load(&package, "digest", &List::parse(LIST).unwrap(), &cache).unwrap();
    let again = Kernel::load(Path::new("/nowhere"), "digest", &List::parse(LIST).unwrap(), &cache).unwrap();
    assert_eq!(kernel.modules, again.modules, "the second time comes from the cache");
    let mut sources: Sources = Contents::shipped()
        .unwrap()
        .sources()
        .map(|from| (from.to_owned(), from.as_bytes().to_vec()))
        .collect();
    sources.insert("loader".into(), pe(8));
    let components = vec![Component {
        origin: Origin::Debian,
        name: "linux".into(),
        version: "6.1".into(),
        sha256: None,
        license: None,
    }];
    std::fs::write(folder.join("kit.pack"), vec![5; 4096]).unwrap();
    let pack = media::Pack {
        name: "kit".into(),
        path: folder.join("kit.pack"),
        key: PACK_KEY.into(),
    };
    let inputs = Inputs {
        version: "0.1.0".into(),
        sources,
        kernel,
        components,
        packs: vec![pack],
        level: 3,
    };
    media::build(&inputs, &folder.join("image"), &cache).unwrap()
}

#[test]
fn two_builds_in_two_folders_give_the_same_bytes() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (build(one.path()), build(two.path()));
    assert_eq!(first, second);
    assert_eq!(first.len(), 11);
    for output in &first {
        let read = |folder: &Path| std::fs::read(folder.join("image").join(output.name)).unwrap();
        assert!(read(one.path()) == read(two.path()), "{} differs", output.name);
    }
}

#[test]
fn a_signature_stays_with_its_media_and_goes_when_they_become_others() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    let at = |name: &str| folder.path().join("image").join(name);
    std::fs::write(at("SHA256SUMS.minisig"), "of these media").unwrap();
    build(folder.path());
    assert!(at("SHA256SUMS.minisig").exists());
    std::fs::write(at("SHA256SUMS"), "of others").unwrap();
    build(folder.path());
    assert!(!at("SHA256SUMS.minisig").exists());
}

#[test]
fn the_sums_are_those_of_the_files() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    let command = format!(
        "cd {} && sha256sum --check --strict SHA256SUMS",
        folder.path().join("image").display()
    );
    let said = common::run("sh", &["-c", &command]);
    let program = std::fs::metadata(folder.path().join("image/rackbar")).unwrap();
    assert_eq!(program.permissions().mode() & 0o777, 0o755);
    assert_eq!(said.lines().filter(|line| line.ends_with(": OK")).count(), 10, "{said}");
}

#[test]
fn every_file_of_the_initramfs_is_on_a_list() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    let image = folder.path().join("image");
    let list = List::parse(LIST).unwrap();
    audit::folder(&image, &list).unwrap();

    let base = audit::unpack(&std::fs::read(image.join("base.cpio.zst")).unwrap()).unwrap();
    let paths: Vec<_> = base.keys().map(String::as_str).collect();
    let expected = [
        "bin/rackbar-agent",
        "init",
        "lib/modules/6.1.0-test/kernel/crypto/crc32c_generic.ko",
        "lib/modules/6.1.0-test/kernel/fs/xfs.ko",
        "lib/modules/6.1.0-test/kernel/net/mii.ko",
        "lib/modules/6.1.0-test/kernel/net/nic.ko",
        "lib/modules/6.1.0-test/modules.alias",
        "lib/modules/6.1.0-test/modules.dep",
        "lib/modules/6.1.0-test/modules.softdep",
    ];
    assert_eq!(paths, expected);

    // The audit can fail: with the list shortened, the very same image holds a driver too many.
    let shorter = List::parse("[[group]]\npurpose = \"test\"\nmodules = [\"xfs\"]\n").unwrap();
    let error = format!("{:#}", audit::folder(&image, &shorter).unwrap_err());
    assert!(error.contains("kernel/net/mii.ko"), "{error}");
    let appliance = std::fs::read(image.join("appliance.cpio.zst")).unwrap();
    let mut base = std::fs::read(image.join("base.cpio.zst")).unwrap();
    base.extend(appliance);
    std::fs::write(image.join("base.cpio.zst"), base).unwrap();
    let error = format!("{:#}", audit::folder(&image, &list).unwrap_err());
    assert!(
        error.contains("bin/rackbar, which contents.toml does not list"),
        "{error}"
    );
}

#[test]
fn the_unified_image_holds_exactly_the_published_parts() {
    let folder = tempfile::tempdir().unwrap();
    build(folder.path());
    let read = |name: &str| std::fs::read(folder.path().join("image").join(name)).unwrap();
    let efi = read("rackbar.efi");
    for (name, file) in [
        (".linux", "vmlinuz"),
        (".initrd", "base.cpio.zst"),
        (".initrd2", "appliance.cpio.zst"),
    ] {
        assert!(
            portable::section(&efi, name).unwrap() == Some(&read(file)),
            "{name} is not {file}"
        );
    }
    let line = portable::section(&efi, ".cmdline").unwrap().unwrap();
    let line = std::str::from_utf8(line).unwrap();
    assert!(line.starts_with("rackbar.role=appliance") && line.ends_with(&format!(" rackbar.pack_key={PACK_KEY}")));
}

#[test]
fn the_shipped_lists_can_be_read() {
    let names = List::shipped().unwrap();
    let mut names: Vec<_> = names.names().collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count, "modules.toml names something twice");
    assert!(count > 100);
}
