//! Indexes of packages: which file has which digest (SHA-256 in Debian's `Release`, `InRelease`, `Packages`; `repomd.xml` and
//! `primary.xml` of rpm repositories, which `rackbar-upstream` reads). Pure: bytes in, paths and digests out, line by line
//! or package by package, so that memory does not grow with the index.
//!
//! Signatures are not judged here: package managers do that with the keys their owner trusts. What is promised by an
//! index only ever makes us refuse more.

use std::io::{self, BufRead, BufReader, Read};

use rackbar_model::Digest;
use rackbar_upstream::{MAX_TEXT, Repomd, RpmError, Sum, read_primary};

/// An index longer than this unpacked, in bytes, is not read to its end. Fedora's largest has a fifth of it.
pub const UNPACKED_MOST: u64 = 1 << 30;
/// A line longer than this ends the reading.
const LINE_MOST: u64 = 64 << 10;
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
pub fn read(kind: &Kind, input: impl Read, found: &mut dyn FnMut(&str, Sum)) -> io::Result<()> {
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

fn plain(kind: &Kind, input: impl Read, found: &mut dyn FnMut(&str, Sum)) -> io::Result<()> {
    let input = BufReader::with_capacity(64 << 10, input.take(UNPACKED_MOST));
    let mut checked = |path: &str, sum: Sum| {
        if is_path(path) {
            found(path.trim_start_matches("./"), sum);
        }
    };
    match kind {
        Kind::Release => release(input, &mut checked),
        Kind::Packages => packages(input, &mut checked),
        Kind::Repomd => repomd(input, &mut checked),
        Kind::Primary => primary(input, &mut checked),
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

fn release(input: impl BufRead, found: &mut dyn FnMut(&str, Sum)) -> io::Result<()> {
    let mut inside = false;
    lines(input, &mut |line| {
        if !line.starts_with(' ') {
            inside = line.eq_ignore_ascii_case("SHA256:");
        } else if inside {
            let mut words = line.split_ascii_whitespace();
            if let (Some(digest), Some(_), Some(path)) = (words.next(), words.next(), words.next()) {
                digest
                    .parse()
                    .into_iter()
                    .for_each(|digest: Digest| found(path, Sum::Sha256(digest.0)));
            }
        }
    })
}

fn packages(input: impl BufRead, found: &mut dyn FnMut(&str, Sum)) -> io::Result<()> {
    stanzas(input, &mut |package| {
        if let Some(digest) = package.digest.filter(|_| !package.path.is_empty()) {
            found(&package.path, Sum::Sha256(digest.0));
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

/// `repomd.xml`, by the reader that judges locked ones: what that takes in no other way promises nothing here.
fn repomd(input: impl BufRead, found: &mut dyn FnMut(&str, Sum)) -> io::Result<()> {
    let mut text = String::new();
    input.take(MAX_TEXT as u64 + 1).read_to_string(&mut text)?;
    if text.len() > MAX_TEXT {
        return Err(invalid(format!("it is longer than {MAX_TEXT} bytes")));
    }
    // How old it is, and whether it is signed, is for the package managers to judge.
    for data in rpm(Repomd::read(&text, u64::MAX))?
        .map(|repomd| repomd.data)
        .unwrap_or_default()
    {
        found(&data.path, data.sum);
    }
    Ok(())
}

fn primary(input: impl BufRead, found: &mut dyn FnMut(&str, Sum)) -> io::Result<()> {
    let read = read_primary(input, &mut |package| found(&package.path, package.sum));
    rpm(read).map(drop)
}

/// Lists with other digests than SHA-256 and SHA-512 are sound, and promise nothing.
fn rpm<T>(read: Result<T, RpmError>) -> io::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(RpmError::Weak { .. }) => Ok(None),
        Err(error) => Err(invalid(error.to_string())),
    }
}

fn invalid(words: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, words)
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
             <open-checksum type='sha256'>{}</open-checksum><location href='repodata/p.xml.gz'/><timestamp>1700000000</timestamp>\
             </data></repomd>",
            A.replace('a', "b")
        );
        assert_eq!(all(&Kind::Repomd, repomd.as_bytes()), one("repodata/p.xml.gz"));
        let primary = format!(
            "<metadata><package type='rpm'><name>a</name><arch>noarch</arch><version epoch='0' ver='1' rel='1'/>\
             <checksum type='sha256' pkgid='YES'>{A}</checksum><location href='a.rpm'/></package></metadata>"
        );
        assert_eq!(all(&Kind::Primary, primary.as_bytes()), one("a.rpm"));
        for (kind, text, path) in [
            (Kind::Repomd, &repomd, "repodata/p.xml.gz"),
            (Kind::Primary, &primary, "a.rpm"),
        ] {
            let long = A.repeat(2);
            let text = text.replace(&format!("'sha256'>{A}"), &format!("'sha512'>{long}"));
            let text = text.replace(
                &format!("'sha256' pkgid='YES'>{A}"),
                &format!("'sha512' pkgid='YES'>{long}"),
            );
            assert_eq!(all(&kind, text.as_bytes()), [(path.to_owned(), long)]);
            // Sound, and nothing to hold anybody to.
            for weak in ["sha", "md5", "sha384", "SHA512"] {
                assert_eq!(
                    all(&kind, text.replace("'sha512'", &format!("'{weak}'")).as_bytes()),
                    []
                );
            }
        }
    }

    #[test]
    fn what_two_readers_of_xml_could_see_differently_promises_nothing() {
        let good = format!(
            "<repomd><data type='primary'><checksum type='sha256'>{A}</checksum><location href='repodata/p.xml.gz'/>\
             <timestamp>1700000000</timestamp></data></repomd>"
        );
        assert_eq!(all(&Kind::Repomd, good.as_bytes()), one("repodata/p.xml.gz"));
        for (from, to) in [
            ("<repomd>", "<!DOCTYPE repomd [<!ENTITY a 'b'>]><repomd>"),
            ("<location", "<location href='other'/><location"),
            ("href=", "href='other' href="),
            ("repodata/p.xml.gz", "../p.xml.gz"),
            ("</repomd>", ""),
        ] {
            let text = good.replacen(from, to, 1);
            let mut found = 0;
            let read = read(&Kind::Repomd, text.as_bytes(), &mut |_, _| found += 1);
            assert!(read.is_err() && found == 0, "{to}: {found}");
        }
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
