//! The head of an RPM repository, `repodata/repomd.xml`: which data files it has, with which digests, and of when it is. Its
//! signature lies beside it, in `repomd.xml.asc`.
//!
//! Nobody has standardised it: this is what `createrepo_c` writes and dnf, yum and zypper read.

use std::collections::HashMap;

use crate::rpm::{RpmError, Said, number, once};
use crate::sums::Sum;
use crate::xml::{Tag, Xml};
use crate::{MAX_AHEAD, MAX_TEXT};

/// Data files at most. openSUSE's largest repository has some 40.
const MAX_DATA: usize = 256;
/// A revision is a time when it is a number of at least this many seconds since 1970, and of fewer than [`TIMES_END`]: others
/// count states, or are a date in digits.
const TIMES_BEGIN: u64 = 1_000_000_000;
const TIMES_END: u64 = 10_000_000_000;

/// What a `repomd.xml` says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Repomd {
    /// What its publisher calls this state.
    pub revision: Option<String>,
    /// When it was made, in seconds since 1970: the newest of its data files, or its revision where that is a time and newer.
    pub date: u64,
    /// Its data files, in their order.
    pub data: Vec<RepoData>,
}

/// A data file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RepoData {
    /// What it is: `primary`, `filelists`, `updateinfo` and so on.
    pub kind: String,
    /// Path below the repository's URL.
    pub path: String,
    /// Digest of the file as it lies there.
    pub sum: Sum,
    /// Its length in bytes, when that is said.
    pub bytes: Option<u64>,
    timestamp: Option<u64>,
}

impl Repomd {
    /// Reads one. `now` is in seconds since 1970.
    ///
    /// # Errors
    /// When it makes no sense, has no list of packages or two, no time or one in the future, a digest that is neither SHA-256
    /// nor SHA-512, or a path that leads elsewhere.
    pub fn read(text: &str, now: u64) -> Result<Self, RpmError> {
        let mut xml = Xml::new(text.as_bytes(), MAX_TEXT);
        xml.root("repomd")?;
        let (mut revision, mut data) = (None, Vec::new());
        while let Some(tag) = xml.child()? {
            match tag.name.as_str() {
                "revision" => once(&mut revision, xml.text()?, "it", "revision")?,
                "data" if data.len() >= MAX_DATA => return Err(RpmError::Many("256 data files")),
                "data" => data.push(one(&mut xml, &tag)?),
                _ => xml.skip()?,
            }
        }
        xml.end()?;
        let mut known = HashMap::new();
        for one in &data {
            if known
                .insert(one.path.as_str(), one.sum)
                .is_some_and(|sum| sum != one.sum)
            {
                return Err(RpmError::Conflict(one.path.clone()));
            }
        }
        match data.iter().filter(|one| one.kind == "primary").count() {
            0 => return Err(RpmError::NoPrimary),
            1 => {}
            _ => {
                let of = "it".to_owned();
                return Err(RpmError::Twice {
                    of,
                    what: "a list of packages (`primary`)",
                });
            }
        }
        let revision = revision.filter(|text: &String| !text.is_empty() && text.len() <= 200);
        let named = revision.as_ref().and_then(|text| number(text, "", "").ok());
        let named = named.filter(|time| (TIMES_BEGIN..TIMES_END).contains(time));
        let newest = data.iter().filter_map(|one| one.timestamp).max();
        let date = newest.max(named).filter(|date| *date > 0).ok_or(RpmError::NoDate)?;
        if date > now.saturating_add(MAX_AHEAD) {
            return Err(RpmError::Future { date, now });
        }
        Ok(Self { revision, date, data })
    }

    /// The list of packages.
    pub fn primary(&self) -> Option<&RepoData> {
        self.data.iter().find(|one| one.kind == "primary")
    }
}

/// Reads a `data` element that was entered.
fn one(xml: &mut Xml<&[u8]>, tag: &Tag) -> Result<RepoData, RpmError> {
    let kind: String = tag.get("type").unwrap_or_default().chars().take(100).collect();
    let of = format!("its data file {kind:?}");
    let (mut said, mut bytes, mut timestamp) = (Said::default(), None, None);
    while let Some(tag) = xml.child()? {
        match tag.name.as_str() {
            "checksum" => {
                let text = xml.text()?;
                said.checksum(&tag, text, &of)?;
            }
            "location" => {
                said.location(&tag, &of)?;
                xml.skip()?;
            }
            "size" => once(&mut bytes, number(&xml.text()?, &of, "size")?, &of, "size")?,
            "timestamp" => once(&mut timestamp, seconds(&xml.text()?, &of)?, &of, "timestamp")?,
            _ => xml.skip()?,
        }
    }
    let (path, sum) = said.judged(&of)?;
    Ok(RepoData {
        kind,
        path,
        sum,
        bytes,
        timestamp,
    })
}

/// Whole seconds; old programs wrote parts of them too.
fn seconds(text: &str, of: &str) -> Result<u64, RpmError> {
    let whole = text.split_once('.').map_or(text, |(whole, _)| whole);
    number(whole, of, "timestamp")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: u64 = 1_800_000_000;
    const A: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

    /// As createrepo_c writes it.
    fn text() -> String {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<repomd xmlns=\"http://linux.duke.edu/metadata/repo\" \
             xmlns:rpm=\"http://linux.duke.edu/metadata/rpm\">\n  <revision>1700000000</revision>\n  <tags><distro \
             cpeid=\"x\">Ours &amp; theirs</distro></tags>\n  <data type=\"primary\">\n    <checksum type=\"sha256\">{A}</checksum>\n    \
             <open-checksum type=\"sha256\">{}</open-checksum>\n    <location href=\"repodata/{A}-primary.xml.gz\"/>\n    \
             <timestamp>1700000050</timestamp>\n    <size>735</size>\n    <open-size>2012</open-size>\n  </data>\n  \
             <data type=\"filelists\">\n    <checksum type=\"sha256\">{}</checksum>\n    <location \
             href=\"repodata/f.xml.gz\"/>\n    <timestamp>1700000040.5</timestamp>\n  </data>\n</repomd>\n",
            A.replace('a', "b"),
            A.replace('a', "c"),
        )
    }

    fn read(text: &str) -> Result<Repomd, RpmError> {
        Repomd::read(text, NOW)
    }

    #[test]
    fn data_files_are_read_with_digests_and_the_time_of_the_newest() {
        let repomd = read(&text()).unwrap();
        assert_eq!(
            (repomd.revision.as_deref(), repomd.date),
            (Some("1700000000"), 1_700_000_050)
        );
        let primary = repomd.primary().unwrap();
        assert_eq!(primary.path, format!("repodata/{A}-primary.xml.gz"));
        assert_eq!((primary.sum, primary.bytes), (Sum::Sha256([0xaa; 32]), Some(735)));
        let other = &repomd.data[1];
        assert_eq!(
            (other.kind.as_str(), other.bytes, repomd.data.len()),
            ("filelists", None, 2)
        );
        // A revision counts as a time where it can be one.
        let with = |revision: &str| {
            read(&text().replace(">1700000000<", &format!(">{revision}<")))
                .unwrap()
                .date
        };
        assert_eq!(with("1700000099"), 1_700_000_099);
        for other in ["7", "20231114", "20231114221320", "spring", ""] {
            assert_eq!(with(other), 1_700_000_050, "{other}");
        }
    }

    #[test]
    fn sha_512_is_read_too_also_beside_sha_256() {
        let long = "d".repeat(128);
        let with = |from: &str| {
            let from = format!("<checksum type=\"sha256\">{from}</checksum>");
            read(&text().replace(&from, &format!("<checksum type=\"sha512\">{long}</checksum>")))
        };
        let sums = |repomd: Repomd| repomd.data.iter().map(|one| one.sum).collect::<Vec<_>>();
        let other = A.replace('a', "c");
        assert_eq!(
            sums(with(A).unwrap()),
            [Sum::Sha512([0xdd; 64]), Sum::Sha256([0xcc; 32])]
        );
        assert_eq!(
            sums(with(&other).unwrap()),
            [Sum::Sha256([0xaa; 32]), Sum::Sha512([0xdd; 64])]
        );
        // One file with a digest of each kind: that both are of one content nobody here can know.
        let twice = with(&other)
            .map(|repomd| repomd.data[0].path.clone())
            .map(|path| text().replace("repodata/f.xml.gz", &path))
            .unwrap();
        let twice = twice.replace(&format!("\"sha256\">{other}"), &format!("\"sha512\">{long}"));
        assert!(matches!(read(&twice), Err(RpmError::Conflict(_))));
    }

    #[test]
    fn every_other_thing_than_sha_256_and_sha_512_is_refused_in_words() {
        for weak in [
            "sha", "sha1", "md5", "sha224", "sha384", "SHA256", "SHA512", "sha-512", "sha512 ", "",
        ] {
            let other = text().replacen("type=\"sha256\"", &format!("type=\"{weak}\""), 1);
            let error = read(&other).unwrap_err();
            let of = "its data file \"primary\"".to_owned();
            assert_eq!(error, RpmError::Weak { of, kind: weak.into() });
            for words in ["SHA-256", "SHA-512", "createrepo_c --checksum"] {
                assert!(error.to_string().contains(words), "{error}");
            }
        }
        let (short, long) = (A, "a".repeat(128));
        for (kind, digits) in [("sha256", "aabb"), ("sha256", &long), ("sha512", short), ("sha512", "")] {
            let from = format!("<checksum type=\"sha256\">{A}<");
            let other = text().replacen(&from, &format!("<checksum type=\"{kind}\">{digits}<"), 1);
            let error = read(&other).unwrap_err();
            assert!(
                matches!(error, RpmError::Value { what: "checksum", .. }),
                "{kind} {digits}: {error}"
            );
        }
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused_with_the_file_that_has_it() {
        let place = format!("href=\"repodata/{A}-primary.xml.gz\"");
        for bad in [
            "href=\"../x\"",
            "href=\"/x\"",
            "href=\"https://b.example/x\"",
            "href=\"repodata/repomd.xml\"",
            "href=\"repodata/&#x2e;./x\"",
            "href=\"x\" xml:base=\"http://b.example/\"",
            "",
        ] {
            let error = read(&text().replace(&place, bad)).unwrap_err();
            assert!(matches!(error, RpmError::Path { .. }), "{bad}: {error}");
            assert!(error.to_string().contains("\"primary\""), "{error}");
        }
        assert!(read(&text().replace(&format!("<location {place}/>"), "")).is_err());
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let good = text();
        let with = |from: &str, to: &str| read(&good.replacen(from, to, 1));
        let refused = [
            with("<repomd", "<!DOCTYPE repomd [<!ENTITY a \"b\">]><repomd"),
            with("<repomd", "<?php x?><repomd"),
            with("Ours &amp;", "Ours &own;"),
            with("</repomd>", "</repomd><repomd/>"),
            with("</repomd>", ""),
            with("</data>", "</date>"),
            with("type=\"primary\"", "type=\"x\""),
            with("type=\"filelists\"", "type=\"primary\""),
            with("href=\"repodata/f.xml.gz\"", "href=\"repodata/f.xml.gz\" href=\"x\""),
            with("<size>735</size>", "<size>735</size><size>736</size>"),
            with("<size>735</size>", "<size>-1</size>"),
            with("<size>735</size>", "<size>99999999999999999999999</size>"),
            with("repodata/f.xml.gz", &format!("repodata/{A}-primary.xml.gz")),
            with("1700000050", "1900000000"),
            read(
                &good
                    .replace("<timestamp>", "<x>")
                    .replace("</timestamp>", "</x>")
                    .replace(">1700000000<", ">1<"),
            ),
            read(&good.replace("repomd", "metadata")),
            read(&"<a>".repeat(100)),
            read(""),
        ];
        for (at, refused) in refused.into_iter().enumerate() {
            assert!(refused.is_err(), "{at}: {refused:?}");
        }
        let many = "<data type=\"x\"/>".repeat(300);
        assert!(with("</repomd>", &format!("{many}</repomd>")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic_and_every_path_stays_inside(
            text in "[ -~\n]{0,200}", at in 0usize..900, from in "(<[a-z/]{0,8}|&[#a-z0-9]{0,6};?|[\"'>=/.]){0,6}",
        ) {
            let _ = read(&text);
            let mut whole = self::text();
            let at = (0..=at.min(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap_or(0);
            whole.insert_str(at, &from);
            if let Ok(found) = read(&whole) {
                for one in found.data {
                    prop_assert!(!one.path.starts_with('/') && one.path.split('/').all(|part| part != ".."));
                }
            }
        }
    }
}
