//! The list of packages of an RPM repository, `primary.xml`, package by package: memory does not grow with it.
//!
//! It is not signed: its digest is in the signed `repomd.xml`.

use std::io::BufRead;

use crate::rpm::{RpmError, Said, number, once};
use crate::sums::Sum;
use crate::xml::{Tag, Xml};

/// Bytes of one tag or text. Descriptions are the longest that are met, with some 100 KiB.
const MAX_PIECE: usize = 1 << 20;
/// Packages of one list at most. Fedora's largest list has 75,000.
const MAX_PACKAGES: u64 = 500_000;
/// Bytes of all names, versions and paths of one list: whoever reads it may hold them all. With 150 bytes a
/// package, Fedora's largest has 11 MB.
const MAX_WORDS: u64 = 64 << 20;
/// Bytes of a name, a version or an architecture.
const MAX_WORD: usize = 512;

/// A package as the list has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RpmPackage {
    /// Name.
    pub name: String,
    /// `epoch:version-release`, without an epoch of 0.
    pub version: String,
    /// Architecture.
    pub architecture: String,
    /// Path below the repository's URL.
    pub path: String,
    /// Digest of the file.
    pub sum: Sum,
    /// Length of the file in bytes, when that is said.
    pub bytes: Option<u64>,
}

/// Reads a list that is unpacked, and gives each package to `found`; gives how many there were.
///
/// # Errors
/// When it makes no sense, is cut short, has more packages than are taken, or one with a digest that is neither SHA-256
/// nor SHA-512, or a path that leads elsewhere. What was found before was given already: none of it counts then.
pub fn read_primary(input: impl BufRead, found: &mut dyn FnMut(RpmPackage)) -> Result<u64, RpmError> {
    let mut xml = Xml::new(input, MAX_PIECE);
    xml.root("metadata")?;
    let (mut count, mut words) = (0_u64, 0_u64);
    while let Some(tag) = xml.child()? {
        if tag.name != "package" {
            xml.skip()?;
            continue;
        }
        let package = package(&mut xml)?;
        let all = [&package.name, &package.version, &package.architecture, &package.path];
        count = count.saturating_add(1);
        words = all
            .iter()
            .fold(words, |sum, word| sum.saturating_add(word.len() as u64));
        if count > MAX_PACKAGES {
            return Err(RpmError::Many("500,000 packages"));
        }
        if words > MAX_WORDS {
            return Err(RpmError::Many("64 MiB of names and paths"));
        }
        found(package);
    }
    xml.end()?;
    Ok(count)
}

/// Reads a `package` element that was entered.
fn package<R: BufRead>(xml: &mut Xml<R>) -> Result<RpmPackage, RpmError> {
    let (mut name, mut architecture, mut version, mut bytes) = (None, None, None, None);
    let mut said = Said::default();
    while let Some(tag) = xml.child()? {
        // Only for people: what is wrong is told with the name where it is known by then.
        let of = of(name.as_deref());
        match tag.name.as_str() {
            "name" => once(&mut name, xml.text()?, &of, "name")?,
            "arch" => once(&mut architecture, xml.text()?, &of, "architecture")?,
            "checksum" => {
                let text = xml.text()?;
                said.checksum(&tag, text, &of)?;
            }
            "version" => {
                once(&mut version, written(&tag), &of, "version")?;
                xml.skip()?;
            }
            "size" => {
                let size = tag.get("package").map(|text| number(text, &of, "size"));
                once(&mut bytes, size.transpose()?, &of, "size")?;
                xml.skip()?;
            }
            "location" => {
                said.location(&tag, &of)?;
                xml.skip()?;
            }
            _ => xml.skip()?,
        }
    }
    let of = of(name.as_deref());
    let word = |text: Option<String>, what: &'static str| {
        let text = text.filter(|text| !text.is_empty() && text.len() <= MAX_WORD && !text.contains(char::is_control));
        text.ok_or_else(|| RpmError::Missing { of: of.clone(), what })
    };
    let (path, sum) = said.judged(&of)?;
    Ok(RpmPackage {
        name: word(name, "name")?,
        version: word(version, "version")?,
        architecture: word(architecture, "architecture")?,
        path,
        sum,
        bytes: bytes.flatten(),
    })
}

fn of(name: Option<&str>) -> String {
    match name {
        Some(name) => format!("package {:?}", name.chars().take(100).collect::<String>()),
        None => "a package".to_owned(),
    }
}

fn written(tag: &Tag) -> String {
    let part = |name: &str| tag.get(name).unwrap_or_default();
    let epoch = Some(part("epoch")).filter(|epoch| !epoch.is_empty() && *epoch != "0");
    let epoch = epoch.map(|epoch| format!("{epoch}:")).unwrap_or_default();
    format!("{epoch}{}-{}", part("ver"), part("rel"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// A package as createrepo_c writes it.
    fn package(name: &str) -> String {
        format!(
            "<package type=\"rpm\"><name>{name}</name><arch>noarch</arch><version epoch=\"0\" ver=\"1.0\" rel=\"1\"/><checksum \
             type=\"sha256\" pkgid=\"YES\">{A}</checksum><summary>A &amp; b</summary><description>Many\nwords &lt;&#233;></description>\
             <packager/><url>http://x</url><time file=\"1\" build=\"1\"/><size package=\"6473\" installed=\"3\" archive=\"612\"/>\
             <location href=\"Packages/{name}-1.0-1.noarch.rpm\"/><format><rpm:license>MIT</rpm:license><rpm:provides><rpm:entry \
             name=\"x\" flags=\"EQ\"/></rpm:provides><file>/usr/share/x</file><name>inner</name></format></package>\n"
        )
    }

    fn text(packages: &str) -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<metadata xmlns=\"http://linux.duke.edu/metadata/common\" \
             xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\" packages=\"2\">\n{packages}</metadata>\n"
        )
    }

    /// A text over and over behind a head.
    struct Again<'a> {
        head: &'a str,
        again: &'a str,
        at: usize,
    }

    impl std::io::Read for Again<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            if self.at >= self.head.len() {
                (self.head, self.at) = (self.again, 0);
            }
            let count = std::io::Read::read(&mut &self.head.as_bytes()[self.at..], out)?;
            self.at += count;
            Ok(count)
        }
    }

    fn read(text: &str) -> Result<Vec<RpmPackage>, RpmError> {
        let mut all = Vec::new();
        let count = read_primary(text.as_bytes(), &mut |one| all.push(one))?;
        assert_eq!(count, all.len() as u64);
        Ok(all)
    }

    #[test]
    fn packages_are_read_with_what_is_theirs_and_not_what_is_deeper_inside() {
        let two = package("two").replace("epoch=\"0\"", "epoch=\"3\"");
        let all = read(&text(&(package("one") + &two))).unwrap();
        let words = |one: &RpmPackage| format!("{} {} {} {}", one.name, one.version, one.architecture, one.path);
        let found: Vec<String> = all.iter().map(words).collect();
        assert_eq!(
            found,
            [
                "one 1.0-1 noarch Packages/one-1.0-1.noarch.rpm",
                "two 3:1.0-1 noarch Packages/two-1.0-1.noarch.rpm"
            ]
        );
        assert_eq!((all[0].sum, all[0].bytes), (Sum::Sha256([0xaa; 32]), Some(6473)));
        assert_eq!(read(&text("")), Ok(Vec::new()));
    }

    #[test]
    fn one_package_that_is_not_as_it_should_be_refuses_the_list_by_its_name() {
        let good = package("tool");
        let with = |from: &str, to: &str| read(&text(&(package("one") + &good.replacen(from, to, 1)))).unwrap_err();
        for (from, to) in [
            ("type=\"sha256\"", "type=\"sha\""),
            ("type=\"sha256\"", "type=\"md5\""),
            ("type=\"sha256\"", "type=\"sha512\""),
            ("type=\"sha256\"", "type=\"SHA256\""),
            (">aaaa", " >aaaaaa"),
            ("href=\"Packages/", "href=\"../Packages/"),
            ("href=\"Packages/", "href=\"/Packages/"),
            ("href=\"Packages/", "href=\"https://b.example/"),
            ("href=\"Packages/", "xml:base=\"https://b.example/\" href=\"Packages/"),
            ("href=\"Packages/", "href=\"%2e%2e/"),
            ("<name>inner", "</format><name>other</name><format><name>inner"),
            ("ver=\"1.0\"", "ver=\"&#10;\""),
            ("package=\"6473\"", "package=\"many\""),
            ("<arch>noarch</arch>", ""),
        ] {
            let error = with(from, to).to_string();
            assert!(error.contains("package \"tool\""), "{to}: {error}");
        }
        assert!(matches!(
            with("type=\"sha256\"", "type=\"sha1\""),
            RpmError::Weak { .. }
        ));
        assert!(matches!(
            with("<summary>", "<summary>&x;</summary><summary>"),
            RpmError::Xml(_)
        ));
        let whole = text(&good);
        for cut in [whole.len() / 3, whole.len() / 2, whole.len() - 12] {
            assert!(read(&whole[..cut]).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn memory_does_not_grow_with_what_a_list_says() {
        let endless = std::io::repeat(b'x');
        let endless = std::io::BufReader::new(std::io::Read::chain(&b"<metadata><package><name>"[..], endless));
        let error = read_primary(endless, &mut |_| {}).unwrap_err();
        assert!(error.to_string().contains("too long"), "{error}");
        let (mut count, whole) = (0_u64, package(&"n".repeat(500)));
        let many = Again {
            head: "<metadata>",
            again: &whole,
            at: 0,
        };
        let error = read_primary(std::io::BufReader::new(many), &mut |_| count += 1).unwrap_err();
        assert_eq!(error, RpmError::Many("64 MiB of names and paths"));
        assert!((60_000..70_000).contains(&count), "{count}");
    }

    proptest! {
        #[test]
        fn a_list_is_taken_with_these_two_digests_in_their_lengths_and_with_no_others(
            kind in prop::sample::select(vec!["sha256", "sha512", "sha384", "sha", "md5", "SHA256", "SHA512", ""]),
            length in prop::sample::select(vec![0_usize, 63, 64, 65, 127, 128, 129]),
            digits in "[0-9a-f]{129}",
        ) {
            let digits = &digits[..length];
            let checksum = format!("type=\"{kind}\" pkgid=\"YES\">{digits}<");
            let one = package("tool").replace(&format!("type=\"sha256\" pkgid=\"YES\">{A}<"), &checksum);
            match read(&text(&(package("first") + &one))) {
                Ok(all) => {
                    prop_assert!(matches!((kind, length), ("sha256", 64) | ("sha512", 128)));
                    prop_assert_eq!(all[0].sum, Sum::Sha256([0xaa; 32]));
                    prop_assert_eq!(all[1].sum.to_string(), digits);
                }
                Err(error) => {
                    prop_assert!(!matches!((kind, length), ("sha256", 64) | ("sha512", 128)), "{}", error);
                    prop_assert!(error.to_string().contains("package \"tool\""), "{}", error);
                }
            }
        }

        #[test]
        fn no_bytes_make_it_panic_and_every_path_stays_inside(
            bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0usize..900,
            more in "(<[a-z/]{0,8}|&[#a-z0-9]{0,6};?|[\"'>=/.]){0,6}",
        ) {
            let _ = read_primary(bytes.as_slice(), &mut |_| {});
            let mut whole = text(&package("tool"));
            let at = (0..=at.min(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
            whole.insert_str(at, &more);
            for one in read(&whole).unwrap_or_default() {
                prop_assert!(!one.path.starts_with('/') && one.path.split('/').all(|part| part != ".."));
            }
        }
    }
}
