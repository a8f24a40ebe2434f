//! The memory that writing an image takes, whatever the image's size: in a process of its own, whose peak the kernel tells.

use super::*;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What the job may use in all; the process has the test harness besides.
const BOUND: u64 = 256 << 20;

/// Larger than the bound; most of it is holes.
const DISK: u64 = 320 << 20;

/// As much of it is content that packs badly: more than the largest window that is taken.
const DENSE: usize = 66 << 20;

/// What the process that writes is told: format, URL, digest, bytes, disk.
const TOLD: &str = "RACKBAR_TEST_WRITE";

/// In the process of its own: writes, and says its peak or why not. Otherwise nothing.
#[test]
fn writes_what_it_is_told() {
    let Ok(told) = std::env::var(TOLD) else { return };
    let words: Vec<&str> = told.split(' ').collect();
    let [format, url, sha256, bytes, disk] = words[..] else {
        panic!("{told}")
    };
    let image = ImageSource {
        name: "large".to_owned(),
        url: url.to_owned(),
        format: match format {
            "raw" => ImageFormat::Raw,
            "zstd" => ImageFormat::Zstd,
            "xz" => ImageFormat::Xz,
            "gzip" => ImageFormat::Gzip,
            _ => ImageFormat::Qcow2,
        },
        sha256: sha256.parse().unwrap(),
        bytes: bytes.parse().unwrap(),
        disk_bytes: None,
    };
    let disk = Arc::new(Disk::open(Path::new(disk)).unwrap());
    match write(&image, &[disk], &Control::default()) {
        Ok(written) => println!("\nwrote={}", written.disk_bytes),
        Err(failure) => println!("\nrefused={} {}", failure.reason, failure.advice),
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    println!("\npeak={}", peak.trim().trim_end_matches(" kB"));
}

/// Serves a file, holes and all, with ranges, from the disk.
fn serve(path: &Path) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/image", listener.local_addr().unwrap());
    let file = File::open(path).unwrap();
    std::thread::spawn(move || {
        let all = file.metadata().unwrap().len();
        while let Ok((mut stream, _)) = listener.accept() {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            loop {
                let asked = lines
                    .by_ref()
                    .map_while(|line| line.ok().filter(|line| !line.is_empty()));
                let range = asked
                    .filter_map(|line| line.strip_prefix("Range: bytes=").map(str::to_owned))
                    .last();
                let Some(range) = range else { break };
                let (from, to) = range.split_once('-').unwrap();
                let (from, to) = (from.parse::<u64>().unwrap(), to.parse::<u64>().unwrap().min(all - 1));
                let length = to + 1 - from;
                let head = format!(
                    "HTTP/1.1 206 Partial Content\r\nETag: \"x\"\r\nContent-Length: {length}\r\nContent-Range: bytes {from}-{to}/{all}\r\n\r\n"
                );
                let mut part = file.try_clone().unwrap();
                part.seek(SeekFrom::Start(from)).unwrap();
                let sent = stream.write_all(head.as_bytes());
                if sent
                    .and_then(|()| std::io::copy(&mut part.take(length), &mut stream))
                    .is_err()
                {
                    break;
                }
            }
        }
    });
    url
}

/// A disk of [`DISK`] bytes, with so many dense ones at its beginning, and a word at its end.
fn sparse(path: &Path, dense: usize) {
    let file = File::create(path).unwrap();
    let mut state = 7u64;
    let mut piece = vec![0u8; 1 << 20];
    for at in 0..dense as u64 >> 20 {
        for bytes in piece.chunks_exact_mut(8) {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            bytes.copy_from_slice(&state.to_le_bytes());
        }
        file.write_all_at(&piece, at << 20).unwrap();
    }
    file.set_len(DISK).unwrap();
    file.write_all_at(b"the end", DISK - 512).unwrap();
}

fn pack(program: &str, arguments: &[&str], from: &Path, to: &Path) {
    let packed = Command::new(program)
        .args(arguments)
        .stdin(File::open(from).unwrap())
        .stdout(File::create(to).unwrap())
        .status();
    let packed = packed.unwrap_or_else(|error| panic!("{program}: {error}; `cargo xtask setup test` installs it"));
    assert!(packed.success(), "{program}: {packed}");
}

/// What the process said, and its peak in bytes.
fn write_apart(format: &str, file: &Path, disk: &Path) -> (String, u64) {
    let (mut hash, mut piece, mut source) = (Sha256::new(), vec![0; 1 << 20], File::open(file).unwrap());
    loop {
        let count = source.read(&mut piece).unwrap();
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
    }
    let bytes = source.metadata().unwrap().len();
    File::create(disk).unwrap().set_len(DISK + (16 << 20)).unwrap();
    let told = format!(
        "{format} {} {} {bytes} {}",
        serve(file),
        Digest(hash.finish()),
        disk.display()
    );
    let ran = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "stream::memory_tests::writes_what_it_is_told", "--nocapture"])
        .env(TOLD, told)
        // As the allocator of the shipped agent does (musl): each large piece is a mapping of its own and goes when it is
        // freed. The C library here learns from the first one that is freed to keep them in its heap, where they leave gaps.
        .env("MALLOC_MMAP_THRESHOLD_", "131072")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    let line = |mark: &str| said.lines().find_map(|line| line.strip_prefix(mark)).map(str::to_owned);
    let peak = line("peak=").unwrap_or_else(|| panic!("{said} {}", String::from_utf8_lossy(&ran.stderr)));
    let outcome = line("wrote=").or_else(|| line("refused=")).unwrap();
    (outcome, peak.parse::<u64>().unwrap() << 10)
}

/// The word at the image's end is where it belongs, and the dense part as well.
fn arrived(disk: &Path, raw: &Path) {
    let (disk, raw) = (File::open(disk).unwrap(), File::open(raw).unwrap());
    for at in [0, DENSE as u64 / 2, DENSE as u64 - 4096, DISK - 4096] {
        let (mut here, mut there) = ([0; 4096], [0; 4096]);
        disk.read_exact_at(&mut here, at).unwrap();
        raw.read_exact_at(&mut there, at).unwrap();
        assert!(here == there, "at byte {at}");
    }
}

#[test]
fn an_image_larger_than_the_bound_is_written_within_it_in_every_packing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    sparse(&at("raw"), DENSE);
    // The largest windows that are taken.
    let packings: [(&str, &str, &[&str]); 3] = [
        ("zstd", "zstd", &["-c", "-q", "-1", "--long=26"]),
        (
            "xz",
            "xz",
            &[
                "-c",
                "-T1",
                "--format=xz",
                "--lzma2=preset=0,dict=64MiB,depth=1,nice=32",
            ],
        ),
        ("gzip", "gzip", &["-c", "-1"]),
    ];
    for (format, program, arguments) in packings {
        pack(program, arguments, &at("raw"), &at(format));
    }
    let converted = Command::new("qemu-img")
        .args(["convert", "-f", "raw", "-O", "qcow2"])
        .args([at("raw"), at("qcow2")])
        .status();
    let converted = converted.expect("qemu-img; `cargo xtask setup test` installs it");
    assert!(converted.success(), "{converted}");
    for format in ["raw", "zstd", "xz", "gzip", "qcow2"] {
        let (outcome, peak) = write_apart(format, &at(format), &at("disk"));
        assert_eq!(outcome, DISK.to_string(), "{format}");
        eprintln!("{format}: {} MiB", peak >> 20);
        assert!(peak < BOUND, "{format}: {} MiB", peak >> 20);
        arrived(&at("disk"), &at("raw"));
    }
}

#[test]
fn a_window_beyond_the_bound_is_refused_in_words_before_it_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| -> PathBuf { folder.path().join(name) };
    // The window that a file asks for is in its head, however little is behind it.
    std::fs::write(at("raw"), [7; 1 << 20]).unwrap();
    let packings: [(&str, &str, &[&str]); 2] = [
        ("zstd", "zstd", &["-c", "-q", "-1", "--long=28"]),
        (
            "xz",
            "xz",
            &["-c", "-T1", "--format=xz", "--lzma2=preset=0,dict=256MiB"],
        ),
    ];
    for (format, program, arguments) in packings {
        pack(program, arguments, &at("raw"), &at(format));
        let (outcome, peak) = write_apart(format, &at(format), &at("disk"));
        for words in ["large cannot be unpacked", "--long=26", "xz -9"] {
            assert!(outcome.contains(words), "{format}: {outcome}");
        }
        eprintln!("{format}: {outcome}, {} MiB", peak >> 20);
        assert!(peak < BOUND / 2, "{format}: {} MiB", peak >> 20);
        // Nothing of it can boot.
        let mut head = [1; 512];
        File::open(at("disk")).unwrap().read_exact_at(&mut head, 0).unwrap();
        assert_eq!(head, [0; 512], "{format}");
    }
}
