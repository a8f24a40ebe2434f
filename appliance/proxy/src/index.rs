//! Indexes of packages: which file has which SHA-256 (Debian `Release`, `InRelease`, `Packages`; `repomd.xml` and
//! `primary.xml` of rpm repositories). Pure: bytes in, paths and digests out, line by line or tag by tag, so that memory
//! does not grow with the index.
//!
//! Signatures are not judged here: package managers do that with the keys their owner trusts. What is promised by an
//! index only ever makes us refuse more.

use std::io::{self, BufRead, BufReader, Read};

use quick_xml::events::{BytesStart, Event};
use rackbar_model::Digest;

/// An index longer than this unpacked, in bytes, is not read to its end. Fedora's largest has a fifth of it.
pub const UNPACKED_MOST: u64 = 1 << 30;
/// A line longer than this ends the reading.
const LINE_MOST: u64 = 64 << 10;
/// So does a tag or text of XML longer than this; change logs are the longest that are met.
const PIECE_MOST: usize = 4 << 20;
/// Memory in KiB that unpacking an xz file may take: its head names the dictionary, up to 4 GiB, and whoever sends an index
/// chooses it. `xz -9` needs 65 MiB.
const XZ_KIB: u32 = 96 << 10;

/// What kind of index a key names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Kind {
    /// `Release` or `InRelease`.
    Release,
    /// `Packages`, packed or not.
    Packages,
    /// `repomd.xml`.
    Repomd,
    /// `primary.xml`, packed or not.
    Primary,
}

/// Kind of an index and the key below which its paths lie, with `/` at its end.
pub fn kind_of(key: &str) -> Option<(Kind, String)> {
    let path = key.split('?').next()?;
    let (folder, name) = path.rsplit_once('/')?;
    let root = |folder: &str| match folder.find("/dists/") {
        Some(at) => format!("{}/", folder.get(..at).unwrap_or_default()),
        None => format!("{folder}/"),
    };
    if name == "Release" || name == "InRelease" {
        return Some((Kind::Release, format!("{folder}/")));
    }
    if name == "Packages" || name.starts_with("Packages.") {
        return Some((Kind::Packages, root(folder)));
    }
    if let Some(owner) = folder.strip_suffix("/by-hash/SHA256") {
        let binary = owner.rsplit('/').next().is_some_and(|last| last.starts_with("binary-"));
        return binary.then(|| (Kind::Packages, root(owner)));
    }
    let repository = folder.strip_suffix("/repodata")?;
    match name {
        "repomd.xml" => Some((Kind::Repomd, format!("{repository}/"))),
        _ if name.contains("primary.xml") => Some((Kind::Primary, format!("{repository}/"))),
        _ => None,
    }
}

/// Reads an index, unpacking it when it is packed, and gives each path with its digest to `found`.
///
/// # Errors
/// When it cannot be read or unpacked. What was found before was given already.
pub fn read(kind: &Kind, input: impl Read, found: &mut dyn FnMut(&str, Digest)) -> io::Result<()> {
    unpacked(input, &mut |input| plain(kind, input, found))
}

/// Gives what is in a file that is packed with gzip, xz or Zstandard, or a plain file as it is. Memory is bounded whatever the file
/// asks for.
///
/// # Errors
/// When it is packed in another way, or `to` says so; what cannot be unpacked is an error of the reader that `to` gets.
pub fn unpacked(input: impl Read, to: &mut dyn FnMut(&mut dyn Read) -> io::Result<()>) -> io::Result<()> {
    let mut input = BufReader::with_capacity(64 << 10, input);
    let magic: Vec<u8> = input.fill_buf()?.iter().take(6).copied().collect();
    match magic.as_slice() {
        [0x1f, 0x8b, ..] => to(&mut flate2::bufread::MultiGzDecoder::new(input)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => to(&mut lzma_rust2::XzReader::new_mem_limit(input, true, XZ_KIB)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let unpacked = ruzstd::decoding::StreamingDecoder::new(input);
            to(&mut unpacked.map_err(|error| io::Error::other(error.to_string()))?)
        }
        [b'B', b'Z', b'h', ..] => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "it is packed with bzip2, and gzip, xz and Zstandard are read",
        )),
        _ => to(&mut input),
    }
}

fn plain(kind: &Kind, input: impl Read, found: &mut dyn FnMut(&str, Digest)) -> io::Result<()> {
    let input = BufReader::with_capacity(64 << 10, input.take(UNPACKED_MOST));
    let mut checked = |path: &str, digest: Digest| {
        if is_path(path) {
            found(path.trim_start_matches("./"), digest);
        }
    };
    match kind {
        Kind::Release => release(input, &mut checked),
        Kind::Packages => packages(input, &mut checked),
        Kind::Repomd | Kind::Primary => rpm(input, &mut checked),
    }
}

/// An index speaks of what lies below it and of nothing else.
fn is_path(path: &str) -> bool {
    let sound = path.bytes().all(|byte| byte.is_ascii_graphic());
    let inside = !path.starts_with('/') && path.split('/').all(|part| part != "..");
    sound && inside && !path.is_empty() && path.len() <= 2048 && !path.contains("://")
}

fn lines(mut input: impl BufRead, each: &mut dyn FnMut(&str)) -> io::Result<()> {
    let mut line = Vec::new();
    loop {
        line.clear();
        let count = input.by_ref().take(LINE_MOST).read_until(b'\n', &mut line)?;
        if count == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') && count as u64 == LINE_MOST {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "a line is longer than 64 KiB",
            ));
        }
        each(std::str::from_utf8(&line).unwrap_or_default().trim_end());
    }
}

fn release(input: impl BufRead, found: &mut dyn FnMut(&str, Digest)) -> io::Result<()> {
    let mut inside = false;
    lines(input, &mut |line| {
        if !line.starts_with(' ') {
            inside = line.eq_ignore_ascii_case("SHA256:");
        } else if inside {
            let mut words = line.split_ascii_whitespace();
            if let (Some(digest), Some(_), Some(path)) = (words.next(), words.next(), words.next()) {
                digest.parse().into_iter().for_each(|digest| found(path, digest));
            }
        }
    })
}

fn packages(input: impl BufRead, found: &mut dyn FnMut(&str, Digest)) -> io::Result<()> {
    stanzas(input, &mut |package| {
        if let Some(digest) = package.digest.filter(|_| !package.path.is_empty()) {
            found(&package.path, digest);
        }
    })
}

/// A package as a Debian list of packages has it.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Package {
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// Architecture.
    pub architecture: String,
    /// Path from where the list's paths count.
    pub path: String,
    /// SHA-256, where the list says it.
    pub digest: Option<Digest>,
    /// Length in bytes, where the list says it.
    pub bytes: Option<u64>,
}

fn stanzas(input: impl BufRead, found: &mut dyn FnMut(&Package)) -> io::Result<()> {
    let mut package = Package::default();
    let mut each = |line: &str| {
        if line.is_empty() {
            if package != Package::default() {
                found(&std::mem::take(&mut package));
            }
            return;
        }
        let Some((name, value)) = line.split_once(':') else {
            return;
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            "package" => value.clone_into(&mut package.name),
            "version" => value.clone_into(&mut package.version),
            "architecture" => value.clone_into(&mut package.architecture),
            "filename" => value.clone_into(&mut package.path),
            "sha256" => package.digest = value.parse().ok(),
            "size" => package.bytes = value.parse().ok(),
            _ => {}
        }
    };
    lines(input, &mut each)?;
    each("");
    Ok(())
}

/// Reads a Debian list of packages, unpacking it when it is packed; packages whose path could lead elsewhere are left out.
///
/// # Errors
/// When it cannot be read or unpacked.
pub fn read_packages(input: impl Read, found: &mut dyn FnMut(Package)) -> io::Result<()> {
    unpacked(input, &mut |input| {
        let input = BufReader::with_capacity(64 << 10, input.take(UNPACKED_MOST));
        stanzas(input, &mut |package| {
            if is_path(&package.path) {
                let path = package.path.trim_start_matches("./").to_owned();
                found(Package {
                    path,
                    ..package.clone()
                });
            }
        })
    })
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let value = tag.try_get_attribute(name).ok()??;
    Some(value.unescape_value().ok()?.into_owned())
}

/// Lets so many bytes through until it is told anew: the XML reader holds a whole tag or text in memory.
struct Bounded<R> {
    inner: R,
    left: usize,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = self.fill_buf()?.read(out)?;
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let data = self.inner.fill_buf()?;
        if self.left == 0 && !data.is_empty() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a tag or text is too long"));
        }
        Ok(data.get(..self.left).unwrap_or(data))
    }

    fn consume(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
        self.inner.consume(count);
    }
}

/// `repomd.xml` has `data`, `primary.xml` has `package`; in both a `checksum` of type sha256 and a `location`.
fn rpm(input: impl BufRead, found: &mut dyn FnMut(&str, Digest)) -> io::Result<()> {
    let mut reader = quick_xml::Reader::from_reader(Bounded {
        inner: input,
        left: PIECE_MOST,
    });
    let mut buffer = Vec::new();
    let (mut path, mut digest, mut reading) = (None, None, false);
    loop {
        buffer.clear();
        reader.get_mut().left = PIECE_MOST;
        let event = reader.read_event_into(&mut buffer);
        match event.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))? {
            Event::Start(tag) | Event::Empty(tag) => match tag.local_name().as_ref() {
                b"data" | b"package" => (path, digest) = (None, None),
                b"checksum" => reading = attribute(&tag, "type").as_deref() == Some("sha256"),
                b"location" => path = attribute(&tag, "href"),
                _ => {}
            },
            Event::Text(text) if reading => {
                digest = std::str::from_utf8(&text)
                    .ok()
                    .and_then(|text| text.trim().parse().ok());
                reading = false;
            }
            Event::End(tag) => {
                reading = false;
                let ended = matches!(tag.local_name().as_ref(), b"data" | b"package");
                if let (true, Some(path), Some(digest)) = (ended, &path, digest) {
                    found(path, digest);
                }
            }
            Event::Eof => return Ok(()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    fn all(kind: &Kind, bytes: &[u8]) -> Vec<(String, String)> {
        let mut out = Vec::new();
        read(kind, bytes, &mut |path, digest| {
            out.push((path.to_owned(), digest.to_string()))
        })
        .unwrap();
        out
    }

    fn one(path: &str) -> Vec<(String, String)> {
        vec![(path.to_owned(), A.to_owned())]
    }

    #[test]
    fn each_kind_is_told_by_its_key_with_the_place_its_paths_count_from() {
        let root = kind_of;
        let some = |kind, root: &str| Some((kind, root.to_owned()));
        assert_eq!(
            root("mirror:d/dists/x/InRelease"),
            some(Kind::Release, "mirror:d/dists/x/")
        );
        assert_eq!(
            root("http://a/d/dists/x/main/binary-amd64/Packages.xz"),
            some(Kind::Packages, "http://a/d/")
        );
        assert_eq!(
            root("http://a/d/dists/x/main/binary-amd64/by-hash/SHA256/00"),
            some(Kind::Packages, "http://a/d/")
        );
        assert_eq!(root("http://a/flat/Packages"), some(Kind::Packages, "http://a/flat/"));
        assert_eq!(
            root("http://a/os/repodata/repomd.xml"),
            some(Kind::Repomd, "http://a/os/")
        );
        assert_eq!(
            root("http://a/os/repodata/00-primary.xml.gz"),
            some(Kind::Primary, "http://a/os/")
        );
        assert_eq!(root("http://a/pool/x.deb"), None);
        assert_eq!(root("http://a/d/dists/x/main/i18n/by-hash/SHA256/00"), None);
    }

    #[test]
    fn debian_and_rpm_indexes_give_their_digests() {
        let release =
            format!("Origin: x\nMD5Sum:\n 00 1 main/a\nSHA256:\n {A}  12 main/Packages.xz\nX: y\n {A} 1 no\n");
        assert_eq!(all(&Kind::Release, release.as_bytes()), one("main/Packages.xz"));
        let packages = format!("Package: a\nFilename: ./pool/a.deb\nSHA256: {A}\n\nPackage: b\nFilename: pool/b.deb\n");
        assert_eq!(all(&Kind::Packages, packages.as_bytes()), one("pool/a.deb"));
        let repomd = format!(
            "<?xml version='1.0'?><repomd xmlns='x'><data type='primary'><checksum type='sha256'>{A}</checksum>\
             <open-checksum type='sha256'>{}</open-checksum><location href='repodata/p.xml.gz'/></data></repomd>",
            A.replace('a', "b")
        );
        assert_eq!(all(&Kind::Repomd, repomd.as_bytes()), one("repodata/p.xml.gz"));
    }

    #[test]
    fn packages_are_read_with_their_names_and_none_leads_elsewhere() {
        let text = format!(
            "Package: a\nVersion: 1-2\nArchitecture: amd64\nFilename: ./pool/a.deb\nSize: 7\nSHA256: {A}\n\n\nPackage: b\n\
             Filename: ../b.deb\n\nPackage: c\nFilename: pool/c.deb\nSHA256: none\n"
        );
        let mut found = Vec::new();
        read_packages(text.as_bytes(), &mut |package| found.push(package)).unwrap();
        let words = |package: &Package| {
            let Package {
                name,
                version,
                architecture,
                path,
                digest,
                bytes,
            } = package;
            format!("{name} {version} {architecture} {path} {} {bytes:?}", digest.is_some())
        };
        let found: Vec<String> = found.iter().map(words).collect();
        assert_eq!(
            found,
            ["a 1-2 amd64 pool/a.deb true Some(7)", "c   pool/c.deb false None"]
        );
    }

    #[test]
    fn packed_indexes_are_unpacked() {
        use std::io::Write as _;
        let text = format!("Filename: pool/a.deb\nSHA256: {A}\n");
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(text.as_bytes()).unwrap();
        assert_eq!(all(&Kind::Packages, &gz.finish().unwrap()), one("pool/a.deb"));
    }

    /// `Filename: pool/a.deb` and its digest as `xz -0` packs it, its head asking for a dictionary by this code (`.xz` file
    /// format, section 5.3.1).
    fn xz(dictionary: u8) -> Vec<u8> {
        let packed = "fd377a585a0000016922de36020021010c0000008f98419ce0005d00265d00231a49866a3555a5f8ae3654f5706825bf5c7bc1d519c60a\
                      bd5d4996756c1249125b6fb03d60000000478d06a300013e5ea5d290ed9042990d010000000001595a";
        let digit = |at: usize| u8::from_str_radix(&packed[at..at + 2], 16).unwrap();
        let mut all: Vec<u8> = (0..packed.len()).step_by(2).map(digit).collect();
        // After 12 bytes of the stream's header: the block header's size in words, flags, and LZMA2 with one property.
        let length = (usize::from(all[12]) + 1) * 4;
        let at = 12
            + all[12..12 + length]
                .windows(2)
                .position(|two| two == [0x21, 1])
                .unwrap()
            + 2;
        all[at] = dictionary;
        let end = 12 + length - 4;
        let mut crc = flate2::Crc::new();
        crc.update(&all[12..end]);
        all[end..end + 4].copy_from_slice(&crc.sum().to_le_bytes());
        all
    }

    #[test]
    fn an_xz_file_that_asks_for_more_memory_than_packing_ever_needs_is_refused() {
        // 64 MiB, as `xz -9` has it.
        assert_eq!(all(&Kind::Packages, &xz(28)), one("pool/a.deb"));
        for dictionary in [30, 39, 40] {
            let mut found = 0;
            let read = read(&Kind::Packages, xz(dictionary).as_slice(), &mut |_, _| found += 1);
            assert!(read.is_err() && found == 0, "{dictionary}");
        }
    }

    #[test]
    fn a_text_without_end_is_not_taken_into_memory() {
        let text = io::repeat(b'x').take(UNPACKED_MOST);
        let error = read(&Kind::Primary, b"<metadata>".chain(text), &mut |_, _| {}).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        let line = io::repeat(b'x').take(UNPACKED_MOST);
        assert!(read(&Kind::Packages, line, &mut |_, _| {}).is_err());
    }

    #[test]
    fn an_index_cannot_promise_anything_for_what_does_not_lie_below_it() {
        for path in ["../x", "/etc/passwd", "a/../../b", "http://b/x", ""] {
            let text = format!("Filename: {path}\nSHA256: {A}\n");
            assert_eq!(all(&Kind::Packages, text.as_bytes()), [], "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in "[ -~\n<>]{0,200}") {
            for kind in [Kind::Release, Kind::Packages, Kind::Repomd, Kind::Primary] {
                let _ = read(&kind, bytes.as_slice(), &mut |_, _| {});
                let _ = read(&kind, text.as_bytes(), &mut |_, _| {});
                let _ = read_packages(bytes.as_slice(), &mut |_| {});
                let packed = [&[0xfd, b'7', b'z', b'X', b'Z', 0][..], &bytes].concat();
                let _ = read(&kind, packed.as_slice(), &mut |_, _| {});
                let packed = [&[0x28, 0xb5, 0x2f, 0xfd][..], &bytes].concat();
                let _ = read(&kind, packed.as_slice(), &mut |_, _| {});
            }
        }
    }
}
