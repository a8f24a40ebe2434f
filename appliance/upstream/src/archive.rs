//! Which files of a Debian archive a set of components and architectures needs, by what its Release says.

use crate::release::{Release, ReleaseError};

/// How a list of packages may be packed, in the order to try.
const PACKED: [&str; 3] = [".xz", ".gz", ".zst"];

/// One list of packages: the ways it is had in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PackageList {
    /// Path below the suite without its ending, such as `main/binary-amd64/Packages`.
    pub path: String,
    /// Packed forms that the Release names, the first to be tried first: path, length in bytes, SHA-256.
    pub packed: Vec<(String, u64, [u8; 32])>,
    /// The plain form, when the Release names it. Archives often say its digest and do not have it.
    pub plain: Option<(String, u64, [u8; 32])>,
}

impl Release {
    /// The lists of packages of these components and architectures. Packages for all architectures have a list of their own
    /// in some archives; it is given where the Release names it. Without components it is a flat one: the list beside the Release.
    ///
    /// # Errors
    /// When the Release has no list of one of them, or one with two digests.
    pub fn package_lists(
        &self,
        components: &[String],
        architectures: &[String],
    ) -> Result<Vec<PackageList>, ReleaseError> {
        let mut out = Vec::new();
        if components.is_empty() {
            return self.package_list("Packages".to_owned()).map(|list| vec![list]);
        }
        for component in components {
            for architecture in architectures.iter().map(String::as_str).chain(["all"]) {
                let path = format!("{component}/binary-{architecture}/Packages");
                match self.package_list(path) {
                    Err(ReleaseError::Missing(_)) if architecture == "all" => {}
                    list => out.push(list?),
                }
            }
        }
        out.dedup_by(|a, b| a.path == b.path);
        Ok(out)
    }

    fn package_list(&self, path: String) -> Result<PackageList, ReleaseError> {
        let packed = PACKED.iter().map(|ending| format!("{path}{ending}"));
        let packed = packed.map(|path| self.optional(path)).collect::<Result<Vec<_>, _>>()?;
        let packed: Vec<_> = packed.into_iter().flatten().collect();
        let plain = self.optional(path.clone())?;
        match packed.is_empty() && plain.is_none() {
            true => Err(ReleaseError::Missing(path)),
            false => Ok(PackageList { path, packed, plain }),
        }
    }

    fn optional(&self, path: String) -> Result<Option<(String, u64, [u8; 32])>, ReleaseError> {
        match self.file(&path) {
            Ok((bytes, crate::Sum::Sha256(sum))) => Ok(Some((path, bytes, sum))),
            Ok(_) | Err(ReleaseError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|word| (*word).to_owned()).collect()
    }

    fn release(paths: &[&str]) -> Release {
        let mut text = "Date: Sat, 6 Sep 2025 09:15:22 UTC\nAcquire-By-Hash: yes\nSHA256:\n".to_owned();
        for (number, path) in paths.iter().enumerate() {
            text.push_str(&format!(" {:064x} {number} {path}\n", number + 1));
        }
        Release::read(&text).unwrap()
    }

    #[test]
    fn the_lists_of_components_and_architectures_are_found_in_the_forms_they_have() {
        let release = release(&[
            "main/binary-amd64/Packages",
            "main/binary-amd64/Packages.gz",
            "main/binary-amd64/Packages.xz",
            "main/binary-all/Packages.gz",
            "extra/binary-amd64/Packages",
        ]);
        assert!(release.by_hash);
        let lists = release
            .package_lists(&words(&["main", "extra"]), &words(&["amd64"]))
            .unwrap();
        let paths: Vec<&str> = lists.iter().map(|list| list.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "main/binary-amd64/Packages",
                "main/binary-all/Packages",
                "extra/binary-amd64/Packages"
            ]
        );
        let packed: Vec<&str> = lists[0].packed.iter().map(|one| one.0.as_str()).collect();
        assert_eq!(
            packed,
            ["main/binary-amd64/Packages.xz", "main/binary-amd64/Packages.gz"]
        );
        assert!(lists[0].plain.is_some() && lists[1].plain.is_none() && lists[2].packed.is_empty());
    }

    #[test]
    fn a_flat_one_has_its_list_beside_it() {
        let flat = release(&["Packages", "Packages.gz", "main/binary-amd64/Packages"]);
        let lists = flat.package_lists(&[], &words(&["amd64"])).unwrap();
        assert_eq!((lists.len(), lists[0].path.as_str()), (1, "Packages"));
        assert_eq!(lists[0].packed[0].0, "Packages.gz");
        let none = release(&["main/binary-amd64/Packages"]).package_lists(&[], &[]);
        assert_eq!(none, Err(ReleaseError::Missing("Packages".to_owned())));
    }

    #[test]
    fn a_component_or_architecture_that_is_not_there_is_refused_by_its_list() {
        let release = release(&["main/binary-amd64/Packages.gz"]);
        for (component, architecture) in [("other", "amd64"), ("main", "arm64")] {
            let missing = format!("{component}/binary-{architecture}/Packages");
            let refused = release.package_lists(&words(&[component]), &words(&[architecture]));
            assert_eq!(refused, Err(ReleaseError::Missing(missing)));
        }
    }

    #[test]
    fn digests_of_512_bits_are_read_beside_those_of_256() {
        let long = "ab".repeat(64);
        let text = format!(
            "Date: Sat, 6 Sep 2025 09:15:22 UTC\nSHA512:\n {long} 7 main/a\n short 7 main/b\nSHA256:\n {} 7 main/a\n",
            "01".repeat(32)
        );
        let release = Release::read(&text).unwrap();
        assert_eq!(release.long_digests().collect::<Vec<_>>(), [("main/a", long.as_str())]);
        assert_eq!(release.files().collect::<Vec<_>>(), [("main/a", 7, [1; 32])]);
        assert!(!release.by_hash);
    }
}
