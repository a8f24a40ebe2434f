//! Stories of the catalogue: uploads that end well and badly, restarts, damage.

use super::*;
use proptest::prelude::*;
use rackbar_trust::sha256;

pub(super) const ROOM: u64 = 16 << 20;

pub(super) fn open(folder: &Path, budget: u64) -> (Images, Arc<Artifacts>) {
    let artifacts = Arc::new(Artifacts::new());
    (Images::open(folder, budget, Arc::clone(&artifacts)).unwrap(), artifacts)
}

pub(super) fn meta(name: &str) -> ImageMeta {
    ImageMeta {
        name: name.into(),
        source: "a test".into(),
        ..ImageMeta::default()
    }
}

/// A raw disk of `sectors`, each filled with `fill`, with a boot signature.
pub(super) fn raw(sectors: usize, fill: u8) -> Vec<u8> {
    let mut disk = vec![fill; sectors * 512];
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    disk
}

pub(super) fn add(images: &Images, name: &str, content: &[u8]) -> Result<Arc<ImageEntry>, ImageError> {
    let mut upload = images.begin(meta(name))?;
    for piece in content.chunks(1000) {
        upload.write(piece)?;
    }
    upload.finish(Some(Digest(sha256(content))))
}

pub(super) fn files(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn an_upload_is_served_at_once_and_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let content = raw(100, 7);
    let entry = {
        let (images, artifacts) = open(folder.path(), ROOM);
        let entry = add(&images, "debian-12", &content).unwrap();
        let mut head = [0; 4];
        let served = artifacts.get(&entry.sha256).unwrap();
        assert_eq!(served.read_at(0, &mut head).unwrap(), 4);
        assert_eq!((head, served.size(), served.name()), ([7; 4], 51_200, "debian-12.img"));
        assert!(artifacts.by_name("debian-12").is_none(), "images are not boot files");
        assert_eq!(images.space(), (51_200, ROOM));
        entry
    };
    assert_eq!((entry.format, entry.disk_bytes), (ImageFormat::Raw, Some(51_200)));
    assert_eq!((entry.arch.as_str(), entry.user.as_str()), ("x86_64", "root"));
    let (images, artifacts) = open(folder.path(), ROOM);
    images.settle();
    assert_eq!(images.list(), [Arc::clone(&entry)]);
    assert!(images.problems().is_empty());
    assert!(artifacts.get(&entry.sha256).is_some());
    let path = url_path(&entry);
    assert_eq!(path, format!("/boot/v1/files/{}/debian-12.img", entry.sha256));
}

#[test]
fn a_broken_upload_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = open(folder.path(), ROOM);
    let mut upload = images.begin(meta("cut")).unwrap();
    upload.write(&raw(10, 1)).unwrap();
    assert_eq!(images.space().0, 5120);
    drop(upload);
    assert!(files(folder.path()).is_empty());
    assert_eq!(images.space().0, 0);

    let mut upload = images.begin(meta("other")).unwrap();
    upload.write(&raw(10, 1)).unwrap();
    let error = upload.finish(Some(Digest([9; 32]))).unwrap_err();
    assert!(matches!(error, ImageError::Digest { .. }), "{error}");
    assert!(files(folder.path()).is_empty());
    assert!(images.list().is_empty());
}

#[test]
fn what_a_power_cut_left_is_cleared_away() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.1.part", "b.image", "c.part"] {
        std::fs::write(folder.path().join(name), b"x").unwrap();
    }
    std::fs::write(folder.path().join("README"), b"not ours").unwrap();
    let (images, _) = open(folder.path(), ROOM);
    assert!(images.list().is_empty());
    assert_eq!(files(folder.path()), ["README"]);
}

#[test]
fn more_than_the_budget_is_refused_with_the_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = open(folder.path(), 3 << 20);
    add(&images, "one", &raw(4096, 1)).unwrap();
    let error = add(&images, "two", &raw(4096, 2)).unwrap_err();
    assert!(matches!(error, ImageError::Full { used: 2_097_152, .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("may take 3 MiB here, 2 MiB are taken"), "{text}");
    assert_eq!(files(folder.path()), ["one.image", "one.json"]);
    assert_eq!(images.space().0, 2 << 20);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = open(folder.path(), ROOM);
    // Every write to this device finds the disk full.
    std::os::unix::fs::symlink("/dev/full", folder.path().join("big.1.part")).unwrap();
    let error = add(&images, "big", &raw(4096, 1)).unwrap_err();
    assert!(error.to_string().contains("No space left"), "{error}");
    assert!(files(folder.path()).is_empty());
    assert_eq!(images.space().0, 0);
}

#[test]
fn the_same_image_twice_is_one_and_another_of_its_name_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = open(folder.path(), ROOM);
    let first = add(&images, "debian-12", &raw(10, 1)).unwrap();
    let again = add(&images, "debian-12", &raw(10, 1)).unwrap();
    assert!(Arc::ptr_eq(&first, &again));
    let error = add(&images, "debian-12", &raw(10, 2)).unwrap_err();
    assert!(matches!(error, ImageError::Exists { .. }), "{error}");
    assert_eq!(files(folder.path()), ["debian-12.image", "debian-12.json"]);
}

#[test]
fn what_a_run_uses_stays() {
    let folder = tempfile::tempdir().unwrap();
    let (images, artifacts) = open(folder.path(), ROOM);
    let entry = add(&images, "debian-12", &raw(10, 1)).unwrap();
    let twin = add(&images, "twin", &raw(10, 1)).unwrap();
    let used = HashSet::from([entry.sha256]);
    assert!(matches!(images.remove("debian-12", &used), Err(ImageError::InUse(_))));
    assert!(matches!(images.remove("nobody", &used), Err(ImageError::Unknown(_))));
    images.remove("debian-12", &HashSet::new()).unwrap();
    assert!(artifacts.get(&twin.sha256).is_some(), "the twin has the same content");
    images.remove("twin", &HashSet::new()).unwrap();
    assert!(artifacts.get(&entry.sha256).is_none());
    assert!(files(folder.path()).is_empty());
}

#[test]
fn damage_is_found_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = open(folder.path(), ROOM);
    for (name, fill) in [("flipped", 1), ("shorter", 2), ("recordless", 3), ("whole", 4)] {
        add(&images, name, &raw(10, fill)).unwrap();
    }
    drop(images);
    std::fs::write(folder.path().join("flipped.image"), raw(10, 9)).unwrap();
    std::fs::write(folder.path().join("shorter.image"), raw(9, 2)).unwrap();
    std::fs::write(folder.path().join("recordless.json"), b"{").unwrap();
    let (images, artifacts) = open(folder.path(), ROOM);
    images.settle();
    let names: Vec<_> = images.list().iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names, ["whole"]);
    assert_eq!(files(folder.path()), ["broken", "whole.image", "whole.json"]);
    assert_eq!(
        files(&folder.path().join("broken")),
        ["flipped.image", "recordless.image", "shorter.image"]
    );
    let problems = images.problems().join("\n");
    for part in [
        "shorter is out of use: it has 4608 bytes, and had 5120",
        "flipped is out of use: its SHA-256",
    ] {
        assert!(problems.contains(part), "{problems}");
    }
    assert!(artifacts.get(&Digest(sha256(&raw(10, 1)))).is_none());
}

#[test]
fn names_are_plain() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = open(folder.path(), ROOM);
    for bad in ["", ".hidden", "-x", "a/b", "..", "Debian", "a b", &"x".repeat(65)] {
        assert!(matches!(images.begin(meta(bad)), Err(ImageError::Name(_))), "{bad:?}");
    }
}

/// What `detect` makes of `content`.
fn detected(content: &[u8]) -> Result<(ImageFormat, Option<u64>), DetectError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), content).unwrap();
    detect::detect(file.as_file(), content.len() as u64, None)
}

/// 1500 bytes as liblzma packs them.
const XZ: &[u8] = &[
    0xFD, 0x37, 0x7A, 0x58, 0x5A, 0x00, 0x00, 0x04, 0xE6, 0xD6, 0xB4, 0x46, 0x02, 0x00, 0x21, 0x01, 0x16, 0x00, 0x00,
    0x00, 0x74, 0x2F, 0xE5, 0xA3, 0xE0, 0x05, 0xDB, 0x00, 0x14, 0x5D, 0x00, 0x39, 0x18, 0x48, 0x99, 0xC9, 0x18, 0xDB,
    0x14, 0x21, 0x62, 0x4F, 0xE8, 0x42, 0xB1, 0xAD, 0x36, 0xDD, 0x29, 0xCE, 0x00, 0x00, 0x63, 0x12, 0x31, 0xB9, 0x15,
    0x52, 0xB1, 0x77, 0x00, 0x01, 0x30, 0xDC, 0x0B, 0x00, 0x00, 0x00, 0x29, 0xC6, 0x2B, 0x5C, 0xB1, 0xC4, 0x67, 0xFB,
    0x02, 0x00, 0x00, 0x00, 0x00, 0x04, 0x59, 0x5A,
];

#[test]
fn sizes_are_read_from_headers() {
    let zstd_known = [0x28, 0xB5, 0x2F, 0xFD, 0x60, 0x00, 0x01, 0x03, 0x10, 0x00, 7];
    assert_eq!(detected(&zstd_known).unwrap(), (ImageFormat::Zstd, Some(512)));
    let two: Vec<u8> = [
        &zstd_known[..],
        &[0x50, 0x2A, 0x4D, 0x18, 2, 0, 0, 0, 1, 2],
        &zstd_known[..],
    ]
    .concat();
    assert_eq!(detected(&two).unwrap(), (ImageFormat::Zstd, Some(1024)));
    let unknown = [0x28, 0xB5, 0x2F, 0xFD, 0x00, 0x58, 0x01, 0x00, 0x00];
    assert_eq!(detected(&unknown).unwrap(), (ImageFormat::Zstd, None));
    assert!(matches!(detected(&two[..two.len() - 1]), Err(DetectError::CutOff(_))));
    assert_eq!(
        detected(&[0x1F, 0x8B, 8, 0, 0, 0, 0]).unwrap(),
        (ImageFormat::Gzip, None)
    );
    assert_eq!(detected(XZ).unwrap(), (ImageFormat::Xz, Some(1500)));
    let padded_twice = [XZ, &[0; 8], XZ].concat();
    assert_eq!(detected(&padded_twice).unwrap(), (ImageFormat::Xz, Some(3000)));
    assert!(matches!(detected(&XZ[..XZ.len() - 1]), Err(DetectError::CutOff(_))));
    let mut qcow2 = [0; 104];
    qcow2[..8].copy_from_slice(b"QFI\xFB\0\0\0\x03");
    qcow2[24..32].copy_from_slice(&(8u64 << 30).to_be_bytes());
    assert_eq!(detected(&qcow2).unwrap(), (ImageFormat::Qcow2, Some(8 << 30)));
    qcow2[15] = 1;
    assert!(matches!(detected(&qcow2), Err(DetectError::Unusable(_))));
}

#[test]
fn what_is_no_disk_is_refused_with_the_reason() {
    let mut iso = raw(100, 0);
    iso[32_769..32_774].copy_from_slice(b"CD001");
    assert!(detected(&iso).unwrap_err().to_string().contains("ISO 9660"));
    assert!(
        detected(&vec![1; 2048])
            .unwrap_err()
            .to_string()
            .contains("no partition table")
    );
    assert!(detected(b"").unwrap_err().to_string().contains("no content"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn no_content_panics(
        magic in prop::sample::select(vec![
            &[0x28u8, 0xB5, 0x2F, 0xFD][..], &[0xFD, b'7', b'z', b'X', b'Z', 0], b"QFI\xFB", &[0x50, 0x2A, 0x4D, 0x18],
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..200),
        tail in prop::sample::select(vec![&b""[..], &[0, 0, 0, 0, 1, 0, 0, 0, 0, 1, b'Y', b'Z']]),
    ) {
        let _ = detected(&[magic, &rest, tail].concat());
    }
}

/// Nothing is to be complained of.
pub(super) fn silent() -> Complaint {
    Arc::new(|why| panic!("{why}"))
}

/// A file with something before and behind an image, as in a data pack.
pub(super) fn pack(folder: &Path, name: &str, content: &[u8]) -> PackedImage {
    let path = folder.join("a.pack");
    std::fs::write(&path, [&[1; 4096], content, &[2; 4096]].concat()).unwrap();
    let entry = ImageEntry {
        name: name.into(),
        format: ImageFormat::Raw,
        sha256: Digest(sha256(content)),
        bytes: content.len() as u64,
        disk_bytes: None,
        arch: "x86_64".into(),
        source: "a test".into(),
        licence: String::new(),
        user: "root".into(),
        added: rackbar_model::Timestamp(1),
        installer: None,
    };
    PackedImage {
        entry: Arc::new(entry),
        file: Arc::new(File::open(&path).unwrap()),
        path,
        offset: 4096,
    }
}

#[test]
fn an_image_in_a_pack_is_served_where_it_lies_and_is_not_ours_to_remove() {
    let folder = tempfile::tempdir().unwrap();
    let (images, artifacts) = open(&folder.path().join("images"), ROOM);
    let content = raw(20, 3);
    let packed = pack(folder.path(), "debian-12", &content);
    images.mount("base", vec![packed.clone()], &silent()).unwrap();
    let served = artifacts.get(&packed.entry.sha256).unwrap();
    let mut read = vec![0; content.len() + 100];
    assert_eq!(
        served.read_at(0, &mut read).unwrap(),
        content.len(),
        "not a byte behind it"
    );
    assert!(read.starts_with(&content));
    assert_eq!(served.read_at(content.len() as u64 - 2, &mut read).unwrap(), 2);
    served.verify().unwrap();
    assert_eq!(images.list(), std::slice::from_ref(&packed.entry));
    assert_eq!(images.pack_of("debian-12").as_deref(), Some("base"));
    assert_eq!(images.space().0, 0, "it takes no room of ours");
    let refused = images.remove("debian-12", &HashSet::new()).unwrap_err().to_string();
    assert!(refused.contains("data pack base"), "{refused}");
    images.unmount("base");
    assert!(images.list().is_empty() && artifacts.get(&packed.entry.sha256).is_none());
}

#[test]
fn an_own_image_comes_before_a_pack_s_and_each_outlives_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let (images, artifacts) = open(&folder.path().join("images"), ROOM);
    let content = raw(20, 3);
    let packed = pack(folder.path(), "debian-12", &content);
    let own = add(&images, "debian-12", &content).unwrap();
    images.mount("base", vec![packed.clone()], &silent()).unwrap();
    assert_eq!(images.list(), std::slice::from_ref(&own));
    assert_eq!(images.pack_of("debian-12"), None);
    images.remove("debian-12", &HashSet::new()).unwrap();
    assert_eq!(images.list(), std::slice::from_ref(&packed.entry));
    artifacts.get(&own.sha256).unwrap().verify().unwrap();
    let own = add(&images, "other", &content).unwrap();
    images.unmount("base");
    assert_eq!(images.list(), std::slice::from_ref(&own));
    artifacts.get(&own.sha256).unwrap().verify().unwrap();
}

/// An archive laid out like Debian's netboot.tar.
fn netboot(version: &str, members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let version = format!("Debian version:  {version}\nInstaller build: 20230607\n");
    let all = members.iter().copied().chain([("./version.info", version.as_bytes())]);
    for (path, content) in all {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, path, content).unwrap();
    }
    archive.into_inner().unwrap()
}

const LINUX: &str = "debian-installer/amd64/linux";
const RAM: &str = "debian-installer/amd64/initrd.gz";

#[test]
fn an_installer_s_archive_is_known_and_its_kernel_and_initrd_are_served_from_it() {
    let folder = tempfile::tempdir().unwrap();
    let (kernel, initrd) = (vec![3; 70_000], vec![4; 5_000]);
    let content = netboot("12 (bookworm)", &[(LINUX, &kernel), ("other", b"x"), (RAM, &initrd)]);
    let check = |artifacts: &Artifacts, entry: &ImageEntry| {
        let installer = entry.installer.as_ref().expect("an installer");
        assert_eq!(installer.release, "bookworm");
        for (name, part, wanted) in [
            ("linux", installer.kernel, &kernel),
            ("initrd.gz", installer.initrd, &initrd),
        ] {
            assert_eq!(part.sha256, Digest(sha256(wanted)));
            let served = artifacts.get(&part.sha256).unwrap();
            assert_eq!((served.name(), served.size()), (name, wanted.len() as u64));
            let mut read = vec![0; wanted.len() + 100];
            let count = served.read_at(0, &mut read).unwrap();
            assert_eq!(&read[..count], wanted.as_slice());
            assert_eq!(served.read_at(wanted.len() as u64 - 2, &mut read).unwrap(), 2);
            served.verify().unwrap();
        }
    };
    {
        let (images, artifacts) = open(folder.path(), ROOM);
        let entry = add(&images, "debian-12-installer", &content).unwrap();
        check(&artifacts, &entry);
    }
    let (images, artifacts) = open(folder.path(), ROOM);
    let entry = images.get("debian-12-installer").unwrap();
    check(&artifacts, &entry);
    images.remove("debian-12-installer", &HashSet::new()).unwrap();
    assert!(
        artifacts
            .get(&entry.installer.as_ref().unwrap().kernel.sha256)
            .is_none()
    );
}

/// What was complained of.
fn listening() -> (Complaint, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let listener = heard.clone();
    let complaint: Complaint = Arc::new(move |why| listener.lock().unwrap().push(why));
    (complaint, heard)
}

/// Waits until a large installer was read through.
fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !holds() {
        assert!(std::time::Instant::now() < deadline, "{what}");
        std::thread::yield_now();
    }
}

#[test]
fn an_installer_in_a_pack_is_found_there_and_one_with_a_flipped_bit_is_left_out() {
    for kernel in [70_000, 2 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let (images, artifacts) = open(&folder.path().join("images"), ROOM);
        let content = netboot("13 (trixie)", &[(LINUX, &vec![3; kernel]), (RAM, &[4; 5_000])]);
        images
            .mount("base", vec![pack(folder.path(), "debian-13", &content)], &silent())
            .unwrap();
        until("it is read through", || images.get("debian-13").is_some());
        let entry = images.get("debian-13").unwrap();
        let installer = entry.installer.clone().expect("an installer");
        assert_eq!(
            (installer.release.as_str(), installer.kernel.bytes),
            ("trixie", kernel as u64)
        );
        assert_eq!(images.pack_of("debian-13").as_deref(), Some("base"));
        for part in [installer.kernel, installer.initrd] {
            artifacts.get(&part.sha256).unwrap().verify().unwrap();
        }
        images.unmount("base");
        assert!(images.list().is_empty() && artifacts.get(&installer.kernel.sha256).is_none());

        // In the kernel, and in the header of the archive's first member.
        for at in [2_000, 300] {
            let packed = pack(folder.path(), "debian-13", &content);
            let mut bytes = std::fs::read(&packed.path).unwrap();
            bytes[4096 + at] ^= 1;
            std::fs::write(&packed.path, bytes).unwrap();
            let (complaint, heard) = listening();
            images.mount("base", vec![packed], &complaint).unwrap();
            until("it is complained of", || !heard.lock().unwrap().is_empty());
            assert!(heard.lock().unwrap()[0].contains("is damaged"), "{heard:?}");
            assert!(images.list().is_empty() && artifacts.get(&installer.initrd.sha256).is_none());
        }
    }
}

#[test]
fn archives_that_are_no_installer_are_refused_in_words() {
    let folder = tempfile::tempdir().unwrap();
    let (images, _) = open(folder.path(), ROOM);
    let refused = |content: &[u8]| add(&images, "x", content).unwrap_err().to_string();
    assert!(refused(&netboot("12 (bookworm)", &[(LINUX, b"k")])).contains("initrd.gz"));
    assert!(refused(&netboot("11 (bullseye)", &[(LINUX, b"k"), (RAM, b"i")])).contains("version.info"));
    let whole = netboot("12 (bookworm)", &[(LINUX, &[1; 4000]), (RAM, b"i")]);
    refused(&whole[..2000]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut packed, &whole).unwrap();
    let said = refused(&packed.finish().unwrap());
    assert!(said.contains("gunzip"), "{said}");
    assert_eq!(files(folder.path()), Vec::<String>::new());
}

proptest! {
    #[test]
    fn no_archive_whatever_is_in_it_stops_the_catalogue(mut bytes in proptest::collection::vec(any::<u8>(), 512..4096), cut in 0usize..4096) {
        let mut whole = netboot("12 (bookworm)", &[(LINUX, b"kernel"), (RAM, b"initrd")]);
        let at = cut.min(whole.len());
        whole.truncate(at);
        bytes[257..262].copy_from_slice(b"ustar");
        whole.append(&mut bytes);
        let folder = tempfile::tempdir().unwrap();
        let (images, _) = open(folder.path(), ROOM);
        let _ = add(&images, "x", &whole);
    }
}

#[test]
fn a_retired_image_stays_served_and_its_standing_outlives_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    {
        let (images, artifacts) = open(folder.path(), ROOM);
        let old = add(&images, "debian-11", &raw(1, 1)).unwrap();
        add(&images, "debian-12", &raw(1, 2)).unwrap();
        add(&images, "alma-9", &raw(1, 3)).unwrap();
        let say = |error: ImageError| error.to_string();
        assert!(say(images.retire("debian-10", None).unwrap_err()).contains("debian-10"));
        assert!(say(images.retire("debian-11", Some("debian-13")).unwrap_err()).contains("debian-13"));
        assert!(matches!(
            images.retire("debian-11", Some("debian-11")),
            Err(ImageError::Instead(_))
        ));
        assert!(matches!(images.reinstate("debian-11"), Err(ImageError::NotRetired(_))));
        assert!(images.retired().is_empty(), "what was refused has changed nothing");
        let first = images.retire("debian-11", None).unwrap();
        let again = images.retire("debian-11", Some("debian-12")).unwrap();
        assert_eq!(first.since, again.since);
        assert!(matches!(
            images.retire("alma-9", Some("debian-11")),
            Err(ImageError::Instead(_))
        ));
        assert!(images.get("debian-11").is_some() && artifacts.get(&old.sha256).is_some());
    }
    // What cannot be read errs on the safe side, and says so.
    std::fs::write(folder.path().join("alma-9.standing"), "{").unwrap();
    let (images, _) = open(folder.path(), ROOM);
    let retired = images.retired();
    assert_eq!(retired["debian-11"].instead.as_deref(), Some("debian-12"));
    assert!(retired.contains_key("alma-9"));
    assert!(
        images.problems()[0].contains("os retire alma-9 --undo"),
        "{:?}",
        images.problems()
    );
    images.reinstate("alma-9").unwrap();
    images.remove("debian-11", &HashSet::new()).unwrap();
    drop(images);
    assert!(open(folder.path(), ROOM).0.retired().is_empty());
    assert!(!files(folder.path()).iter().any(|file| file.ends_with("standing")));
}
