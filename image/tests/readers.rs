//! What we write, read by programs that share no code with us: sgdisk, fsck.fat, mtools, e2fsck, xorriso, cpio, zstd
//! and objdump.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use std::process::Command;

use common::{cut, noise, pe, run};
use rackbar_boot_media::iso::{self as disc, Disc};
use rackbar_image::disk::{self, DiskSpec};
use rackbar_image::fat::Volume;
use rackbar_image::iso::{self, IsoSpec};
use rackbar_image::packs::MediumPack;
use rackbar_image::pe::{Section, append, section};
use rackbar_image::{compress, cpio};

const MIB: u64 = 1 << 20;
const CONFIG: &str = "[network]\n# as a person would write it\n";

#[test]
fn a_disk_is_clean_for_partition_and_filesystem_tools() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let efi = noise(3_000_001);
    disk::write(
        &DiskSpec {
            efi: &efi,
            config: Some(CONFIG),
            packs: &[],
            data_mib: 64,
        },
        &file("disk.img"),
    )
    .unwrap();

    let verdict = run("sgdisk", &["--verify", &path("disk.img")]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let table = run("sgdisk", &["--print", &path("disk.img")]);
    assert!(
        table.contains("EF00  rackbar-esp") && table.contains("8300  rackbar-data"),
        "{table}"
    );

    cut(&file("disk.img"), MIB, 256 * MIB, &file("esp.fat"));
    run("fsck.fat", &["-n", "-v", &path("esp.fat")]);
    run(
        "mcopy",
        &["-i", &path("esp.fat"), "::EFI/BOOT/BOOTX64.EFI", &path("out.efi")],
    );
    assert_eq!(std::fs::read(file("out.efi")).unwrap(), efi);
    run("mcopy", &["-i", &path("esp.fat"), "::rackbar.toml", &path("out.toml")]);
    assert_eq!(std::fs::read_to_string(file("out.toml")).unwrap(), CONFIG);

    cut(&file("disk.img"), 257 * MIB, 64 * MIB, &file("data.ext4"));
    run("e2fsck", &["-f", "-n", &path("data.ext4")]);
    let facts = run("dumpe2fs", &["-h", &path("data.ext4")]);
    assert!(
        facts.contains("rackbar-data") && facts.contains("has_journal"),
        "{facts}"
    );
}

#[test]
fn a_disk_takes_little_room_and_may_lack_a_data_partition() {
    use std::os::unix::fs::MetadataExt;
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk.img");
    disk::write(
        &DiskSpec {
            efi: &noise(1000),
            config: None,
            packs: &[],
            data_mib: 0,
        },
        &disk,
    )
    .unwrap();
    let facts = std::fs::metadata(&disk).unwrap();
    assert!(
        facts.blocks() * 512 < 4 * MIB,
        "{} blocks are not sparse",
        facts.blocks()
    );
    let table = run("sgdisk", &["--print", disk.to_str().unwrap()]);
    assert!(
        table.contains("rackbar-esp") && !table.contains("rackbar-data"),
        "{table}"
    );
}

#[test]
fn an_iso_is_a_cd_and_a_disk_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let efi = noise(5_000_003);
    iso::write(
        &IsoSpec {
            efi: &efi,
            config: Some(CONFIG),
            packs: &[],
        },
        &file("cd.iso"),
    )
    .unwrap();

    let boot = run(
        "xorriso",
        &["-indev", &path("cd.iso"), "-report_el_torito", "plain", "-pvd_info"],
    );
    assert!(boot.contains("El Torito boot img :   1  UEFI  y   none"), "{boot}");
    assert!(boot.contains("Volume Id    : RACKBAR"), "{boot}");
    assert!(!boot.contains("WARNING") && !boot.contains("FAILURE"), "{boot}");
    for (inside, outside) in [("/EFI/BOOT/BOOTX64.EFI", "out.efi"), ("/RACKBAR.TOML", "out.toml")] {
        run(
            "xorriso",
            &[
                "-osirrox",
                "on",
                "-indev",
                &path("cd.iso"),
                "-extract",
                inside,
                &path(outside),
            ],
        );
    }
    assert_eq!(std::fs::read(file("out.efi")).unwrap(), efi);
    assert_eq!(std::fs::read_to_string(file("out.toml")).unwrap(), CONFIG);

    let verdict = run("sgdisk", &["--verify", &path("cd.iso")]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let size = std::fs::metadata(file("cd.iso")).unwrap().len();
    cut(&file("cd.iso"), MIB, (size - MIB) / MIB * MIB, &file("esp.fat"));
    run("fsck.fat", &["-n", "-v", &path("esp.fat")]);
    run("mcopy", &["-i", &path("esp.fat"), "::rackbar.toml", &path("fat.toml")]);
    assert_eq!(std::fs::read_to_string(file("fat.toml")).unwrap(), CONFIG);
}

/// The disc that BMCs fetch: small, so its volume is FAT16.
#[test]
fn a_small_disc_is_read_as_a_cd_and_its_volume_as_fat16() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let efi = noise(240_000);
    let disc = Disc {
        efi: &efi,
        beside: Some(("rackbar.url", b"http://192.0.2.1\n")),
        behind: &[],
        serial: 7,
        least: disc::FAT16,
    };
    let bytes = disc::bytes(&disc).unwrap();
    assert!(bytes.len() < 5 << 20, "{} bytes", bytes.len());
    assert_eq!(bytes, disc::bytes(&disc).unwrap(), "the same files give the same bytes");
    std::fs::write(file("cd.iso"), &bytes).unwrap();
    let args = ["-indev", &path("cd.iso"), "-report_el_torito", "plain"];
    let boot = run("xorriso", &args);
    assert!(boot.contains("UEFI") && boot.contains(" 6144"), "{boot}");
    for (name, out) in [("/RACKBAR.URL", "out.url"), ("/EFI/BOOT/BOOTX64.EFI", "out.efi")] {
        run(
            "xorriso",
            &[
                "-osirrox",
                "on",
                "-indev",
                &path("cd.iso"),
                "-extract",
                name,
                &path(out),
            ],
        );
    }
    assert_eq!(std::fs::read(file("out.efi")).unwrap(), efi);
    assert_eq!(std::fs::read(file("out.url")).unwrap(), b"http://192.0.2.1\n");
    cut(&file("cd.iso"), MIB, 3 * MIB, &file("esp.fat"));
    let verdict = run("fsck.fat", &["-n", "-v", &path("esp.fat")]);
    assert!(verdict.contains("16 bit"), "{verdict}");
    for (name, out) in [("::EFI/BOOT/BOOTX64.EFI", "fat.efi"), ("::rackbar.url", "fat.url")] {
        run("mcopy", &["-i", &path("esp.fat"), name, &path(out)]);
    }
    assert_eq!(std::fs::read(file("fat.efi")).unwrap(), efi);
    assert_eq!(std::fs::read(file("fat.url")).unwrap(), b"http://192.0.2.1\n");
}

#[test]
fn fat_holds_long_names_many_files_and_deep_folders() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("volume.fat");
    let names: Vec<String> = (0..40)
        .map(|number| format!("deep/er/A rather long name, number {number}.config"))
        .collect();
    let contents: Vec<Vec<u8>> = (0..40).map(|number| noise(number * 700)).collect();
    let mut files: Vec<(&str, &[u8])> = names
        .iter()
        .zip(&contents)
        .map(|(name, file)| (name.as_str(), &file[..]))
        .collect();
    files.extend([
        ("UPPER.TXT", &b"plain"[..]),
        ("lower.txt", b"long"),
        ("exactly13.abc", b"thirteen"),
        ("empty", b""),
    ]);
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(40 * MIB).unwrap();
    let volume = Volume {
        size: 40 * MIB,
        cluster: 512,
        align: 2048,
        label: "TEST",
        serial: 7,
        hidden_sectors: 0,
        files,
    };
    volume.write(&file, 0).unwrap();

    let path = path.to_str().unwrap();
    run("fsck.fat", &["-n", "-v", path]);
    let listing = run("mdir", &["-/", "-b", "-i", path, "::"]);
    for name in names
        .iter()
        .map(String::as_str)
        .chain(["UPPER.TXT", "lower.txt", "exactly13.abc", "empty"])
    {
        assert!(listing.contains(&format!("::/{name}\n")), "{name} is not in\n{listing}");
    }
    let out = folder.path().join("out");
    run(
        "mcopy",
        &["-i", path, &format!("::{}", names[39]), out.to_str().unwrap()],
    );
    assert_eq!(std::fs::read(out).unwrap(), contents[39]);
}

#[test]
fn a_fat_volume_that_cannot_be_written_is_refused_in_words() {
    let file = tempfile::tempfile().unwrap();
    let volume = |size, files| Volume {
        size,
        cluster: 512,
        align: 512,
        label: "T",
        serial: 1,
        hidden_sectors: 0,
        files,
    };
    let small = volume(MIB, vec![]).write(&file, 0).unwrap_err().to_string();
    assert!(small.contains("4085 clusters"), "{small}");
    let big = noise(35 * MIB as usize);
    let full = volume(34 * MIB, vec![("BIG", &big)])
        .write(&file, 0)
        .unwrap_err()
        .to_string();
    assert!(full.contains("do not fit"), "{full}");
    let name = volume(34 * MIB, vec![("what?", &[])])
        .write(&file, 0)
        .unwrap_err()
        .to_string();
    assert!(name.contains("what?"), "{name}");
}

#[test]
fn cpio_and_zstd_read_our_archives() {
    let folder = tempfile::tempdir().unwrap();
    let cache = rackbar_image::cache::Cache::open(folder.path().join("cache")).unwrap();
    let mut writer = cpio::Writer::new();
    writer.directory("dev");
    writer.file("bin/program", 0o755, &noise(70_001));
    let path = folder.path().join("archive.cpio.zst");
    std::fs::write(
        &path,
        compress::zstd(&writer.finish(), compress::LEVEL, &cache).unwrap(),
    )
    .unwrap();
    let path = path.to_str().unwrap();
    run("zstd", &["-d", "-q", path]);
    let archive = path.trim_end_matches(".zst");
    let list = run("cpio", &["-t", "-v", "-n", "-F", archive]);
    assert!(
        list.contains("-rwxr-xr-x   1 0        0           70001 Jan  1  2026 bin/program"),
        "{list}"
    );
    assert!(list.contains("drwxr-xr-x   2 0        0"), "{list}");
}

#[test]
fn objdump_reads_the_sections_we_add_with_and_without_room_in_the_headers() {
    for room in [0, 1, 8] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out.efi");
        let kernel = noise(9001);
        let sections = [
            Section {
                name: ".cmdline",
                content: b"quiet",
            },
            Section {
                name: ".linux",
                content: &kernel,
            },
        ];
        let image = append(&pe(room), &sections).unwrap();
        std::fs::write(&path, &image).unwrap();
        let list = run("objdump", &["-h", path.to_str().unwrap()]);
        assert!(
            list.contains(".text")
                && list.contains(".cmdline      00000005")
                && list.contains(".linux        00002329"),
            "{list}"
        );
        assert_eq!(section(&image, ".linux").unwrap().unwrap(), kernel);
        assert_eq!(section(&image, ".cmdline").unwrap().unwrap(), b"quiet");
        assert_eq!(
            &section(&image, ".text").unwrap().unwrap()[..4],
            &[0xC3, 1, 2, 3],
            "with room for {room}"
        );
        assert!(
            append(&image, &sections)
                .unwrap_err()
                .to_string()
                .contains("already has a section")
        );
    }
}

#[test]
fn the_readers_are_there() {
    // `run` treats a missing tool as a failure, and so must this file as a whole: nothing here is ever skipped.
    for tool in [
        "sgdisk", "fsck.fat", "mcopy", "e2fsck", "dumpe2fs", "xorriso", "cpio", "zstd", "objdump",
    ] {
        let found = Command::new("sh")
            .args(["-c", &format!("PATH=$PATH:/usr/sbin:/sbin command -v {tool}")])
            .status();
        assert!(
            found.unwrap().success(),
            "{tool} is not installed; run `cargo xtask setup test`"
        );
    }
}

#[test]
fn packs_are_partitions_of_a_disk_and_both_partitions_and_files_of_an_iso() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let path = |name: &str| file(name).to_str().unwrap().to_owned();
    let (efi, one, two) = (noise(3_000_001), noise(40 * 4096), noise(300 * 4096));
    std::fs::write(file("one"), &one).unwrap();
    std::fs::write(file("two"), &two).unwrap();
    let packs = [("tools", "one"), ("debian-12.5", "two")].map(|(name, at)| (name, file(at)));
    let packs = [0, 1].map(|n| MediumPack {
        name: packs[n].0,
        path: &packs[n].1,
    });
    let spec = DiskSpec {
        efi: &efi,
        config: Some(CONFIG),
        packs: &packs,
        data_mib: 64,
    };
    disk::write(&spec, &file("disk.img")).unwrap();
    let spec = IsoSpec {
        efi: &efi,
        config: Some(CONFIG),
        packs: &packs,
    };
    iso::write(&spec, &file("cd.iso")).unwrap();
    let alike = ["debian-12.5", "debian-12_5"].map(|name| MediumPack { name, ..packs[0] });
    let spec = IsoSpec { packs: &alike, ..spec };
    let refusal = format!("{:#}", iso::write(&spec, &file("alike.iso")).unwrap_err());
    assert!(refusal.contains("another data pack on this medium"), "{refusal}");
    for medium in ["disk.img", "cd.iso"] {
        let verdict = run("sgdisk", &["--verify", &path(medium)]);
        assert!(verdict.contains("No problems found"), "{verdict}");
        for (number, content) in [("2", &one), ("3", &two)] {
            let facts = run("sgdisk", &["--info", number, &path(medium)]);
            let name = format!("rackbar-pack-{}", number.parse::<u32>().unwrap() - 1);
            assert!(facts.contains(&name), "{facts}");
            let first = facts
                .lines()
                .find_map(|line| line.strip_prefix("First sector: "))
                .unwrap();
            let first: u64 = first.split(' ').next().unwrap().parse().unwrap();
            cut(&file(medium), first * 512, content.len() as u64, &file("cut"));
            assert!(std::fs::read(file("cut")).unwrap() == *content, "{name} of {medium}");
        }
    }
    let table = run("sgdisk", &["--print", &path("disk.img")]);
    assert!(
        table.contains("   4 ") && table.contains("8300  rackbar-data"),
        "{table}"
    );
    let list = run("xorriso", &["-indev", &path("cd.iso"), "-find", "/"]);
    assert!(!list.contains("WARNING") && !list.contains("FAILURE"), "{list}");
    for (inside, content) in [("/PACKS/TOOLS.PACK", &one), ("/PACKS/DEBIAN-12_5.PACK", &two)] {
        let _ = std::fs::remove_file(file("out"));
        let all = [
            "-osirrox",
            "on",
            "-indev",
            &path("cd.iso"),
            "-extract",
            inside,
            &path("out"),
        ];
        run("xorriso", &all);
        assert!(std::fs::read(file("out")).unwrap() == *content, "{inside}");
    }
}
