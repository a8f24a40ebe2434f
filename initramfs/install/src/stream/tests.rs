//! Images from a server that breaks connections, onto plain files.

use super::*;
use crate::testing::serve;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Data with holes: five MiB and a half in all, sectors whole.
fn content() -> Vec<u8> {
    let mut disk = vec![0u8; (21 << 20) / 4 * 2 + 512];
    let mut state = 1u32;
    let length = disk.len();
    for (index, byte) in disk.iter_mut().enumerate() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let is_hole = (2 << 20..5 << 20).contains(&index) || (length - 900_000..length - 600).contains(&index);
        if !is_hole {
            *byte = (state >> 24) as u8 & 0x3f;
        }
    }
    disk
}

fn pack(bytes: &[u8], program: &str, arguments: &[&str]) -> Vec<u8> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup test` installs it"));
    let mut stdin = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let feeder = std::thread::spawn(move || stdin.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    output.stdout
}

/// A disk full of old bytes.
fn target(bytes: usize) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("disk");
    std::fs::write(&path, vec![0xaa; bytes]).unwrap();
    (folder, path)
}

fn image(file: &[u8], url: String, format: ImageFormat) -> ImageSource {
    ImageSource {
        name: "debian".to_owned(),
        url,
        format,
        sha256: Digest(rackbar_trust::sha256(file)),
        bytes: file.len() as u64,
        disk_bytes: None,
    }
}

fn open(path: &std::path::Path) -> Arc<Disk> {
    Arc::new(Disk::open(path).unwrap())
}

const SIZE: usize = 16 << 20;

/// Everything is there, holes are zeros in place of the old bytes, and what lies behind the image is untouched but for
/// the last MiB.
#[track_caller]
fn check(path: &std::path::Path, content: &[u8]) {
    let disk = std::fs::read(path).unwrap();
    assert!(disk[..content.len()] == *content, "content differs");
    let padded = content.len().next_multiple_of(4096);
    assert!(disk[padded..SIZE - (1 << 20)].iter().all(|b| *b == 0xaa));
    assert!(disk[SIZE - (1 << 20)..].iter().all(|b| *b == 0));
}

#[test]
fn every_packing_arrives_whole_over_connections_that_break() {
    let content = content();
    let packings: [(ImageFormat, &str, &[&str]); 7] = [
        (ImageFormat::Raw, "cat", &[]),
        (ImageFormat::Zstd, "zstd", &["-c"]),
        (ImageFormat::Zstd, "zstd", &["-c", "-19", "--long=26", "--no-check"]),
        (ImageFormat::Xz, "xz", &["-c", "-9"]),
        (ImageFormat::Xz, "xz", &["-c", "--check=sha256", "--block-size=1MiB"]),
        (ImageFormat::Gzip, "gzip", &["-c"]),
        (ImageFormat::Gzip, "gzip", &["-c", "-1"]),
    ];
    for (format, program, arguments) in packings {
        let file = pack(&content, program, arguments);
        let (_folder, path) = target(SIZE);
        let (_folder2, second) = target(SIZE);
        let url = serve(file.clone(), 1_700_003);
        let disks = [open(&path), open(&second)];
        let written = write(&image(&file, url, format), &disks, &Control::default()).unwrap();
        assert_eq!(written.disk_bytes, content.len() as u64, "{program}");
        assert_eq!(written.fetched, file.len() as u64, "{program}");
        assert!(written.holes >= 3 << 20, "{program}: {} bytes of holes", written.holes);
        assert!(written.resumed >= 1, "{program}: the server does break connections");
        check(&path, &content);
        check(&second, &content);
    }
}

#[test]
fn several_frames_and_skippable_ones_are_one_image() {
    let content = content();
    let (first, rest) = content.split_at(3_000_000);
    let (first, rest) = (pack(first, "zstd", &["-c"]), pack(rest, "zstd", &["-c"]));
    let skippable = [&[0x5e, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..]].concat();
    let file = [first, skippable.clone(), rest, skippable].concat();
    let (_folder, path) = target(SIZE);
    let url = serve(file.clone(), usize::MAX);
    write(
        &image(&file, url, ImageFormat::Zstd),
        &[open(&path)],
        &Control::default(),
    )
    .unwrap();
    check(&path, &content);
}

#[test]
fn a_qcow2_image_is_read_by_its_tables() {
    let folder = tempfile::tempdir().unwrap();
    let (raw, packed) = (folder.path().join("raw"), folder.path().join("qcow2"));
    std::fs::write(&raw, content()).unwrap();
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-c", "-O", "qcow2", "-f", "raw"])
        .args([&raw, &packed]);
    let status = command
        .status()
        .expect("qemu-img: `cargo xtask setup test` installs it");
    assert!(status.success());
    let file = std::fs::read(packed).unwrap();
    let (_disk, path) = target(SIZE);
    let url = serve(file.clone(), 1_500_000);
    let written = write(
        &image(&file, url, ImageFormat::Qcow2),
        &[open(&path)],
        &Control::default(),
    )
    .unwrap();
    assert!(written.resumed >= 1);
    check(&path, &content());
}

/// After a refusal nothing is on the disk that firmware would start.
#[track_caller]
fn refused(file: &[u8], change: impl FnOnce(&mut ImageSource), format: ImageFormat, word: &str) {
    let (_folder, path) = target(SIZE);
    let mut image = image(file, serve(file.to_vec(), usize::MAX), format);
    change(&mut image);
    let failure = write(&image, &[open(&path)], &Control::default()).unwrap_err();
    assert!(failure.reason.contains(word), "{failure:?}");
    let disk = std::fs::read(&path).unwrap();
    let first = &disk[..1 << 20];
    assert!(
        first.iter().all(|b| *b == 0) || first.iter().all(|b| *b == 0xaa),
        "the first MiB must not be the image's"
    );
}

#[test]
fn a_flipped_bit_leaves_a_disk_that_does_not_boot() {
    let content = content();
    let good = Digest(rackbar_trust::sha256(&content));
    let mut bad = content.clone();
    bad[9_000_000] ^= 4;
    refused(&bad, |image| image.sha256 = good, ImageFormat::Raw, "SHA-256");
    let packed = pack(&content, "zstd", &["-c"]);
    let good = Digest(rackbar_trust::sha256(&packed));
    for at in [20, packed.len() / 2, packed.len() - 2] {
        let mut bad = packed.clone();
        bad[at] ^= 4;
        refused(&bad, |image| image.sha256 = good, ImageFormat::Zstd, "SHA-256");
    }
}

#[test]
fn an_image_that_does_not_fit_is_refused() {
    let large = vec![1u8; SIZE + 512];
    refused(
        &large,
        |image| image.disk_bytes = Some(large.len() as u64),
        ImageFormat::Raw,
        "needs a disk",
    );
    refused(&large, |_| (), ImageFormat::Raw, "needs a disk");
    refused(
        &content(),
        |image| image.disk_bytes = Some(512),
        ImageFormat::Raw,
        "unpacked to",
    );
    refused(
        &content(),
        |image| image.bytes += 1,
        ImageFormat::Raw,
        "is not the file",
    );
    let mut other = content();
    other[4096..4104].copy_from_slice(b"EFI PART");
    other[512..520].fill(0);
    refused(&other, |_| (), ImageFormat::Raw, "sectors of 4096");
}

#[test]
fn a_job_that_is_given_up_stops() {
    let control = Control::default();
    control.give_up();
    let (_folder, path) = target(SIZE);
    let file = content();
    let image = image(&file, serve(file.clone(), usize::MAX), ImageFormat::Raw);
    assert!(
        write(&image, &[open(&path)], &control)
            .unwrap_err()
            .reason
            .contains("given up")
    );
}

mod corrupted {
    use super::*;
    use proptest::prelude::*;

    fn packed(format: ImageFormat) -> Vec<u8> {
        let bytes = &content()[..200_000];
        match format {
            ImageFormat::Zstd => pack(bytes, "zstd", &["-c"]),
            ImageFormat::Xz => pack(bytes, "xz", &["-c", "-1"]),
            _ => pack(bytes, "gzip", &["-c"]),
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn decoders_end_in_words(at in 0usize..200_000, value: u8, cut in 0usize..200_000, which in 0usize..3) {
            static GOOD: std::sync::OnceLock<Vec<Vec<u8>>> = std::sync::OnceLock::new();
            let formats = [ImageFormat::Zstd, ImageFormat::Xz, ImageFormat::Gzip];
            let good = GOOD.get_or_init(|| formats.iter().map(|format| packed(*format)).collect());
            let mut bad = good[which].clone();
            let index = at % bad.len();
            bad[index] ^= value;
            bad.truncate(cut.max(1));
            let mut out = Vec::new();
            let unpacked = source::unpack(formats[which], bad.as_slice()).unwrap();
            let _ = unpacked.take(4 << 20).read_to_end(&mut out);
        }
    }
}
