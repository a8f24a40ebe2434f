//! The bill of materials, as CycloneDX 1.5 JSON: every crate in a shipped program, the kernel package and the iPXE
//! package, with versions and digests. No time stamp and no random serial number: the same parts give the same file.

use serde::Serialize;
use serde_json::{Value, json};

use crate::epoch::SOURCE_DATE_EPOCH;

/// Where a part comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Origin {
    /// A crate.
    Cargo,
    /// A Debian package.
    Debian,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Component {
    /// Where it comes from.
    pub origin: Origin,
    /// Its name there.
    pub name: String,
    /// Its version there.
    pub version: String,
    /// SHA-256 of what was downloaded, as hex; our own crates have none.
    pub sha256: Option<String>,
    /// SPDX expression, when the origin states one.
    pub license: Option<String>,
}

impl Component {
    /// The package URL (purl) that names it.
    fn purl(&self) -> String {
        // The only characters of crate and Debian versions that purl reserves.
        let version = self.version.replace('+', "%2B").replace('~', "%7E").replace(':', "%3A");
        match self.origin {
            Origin::Cargo => format!("pkg:cargo/{}@{version}", self.name),
            Origin::Debian => format!("pkg:deb/debian/{}@{version}?arch=amd64", self.name),
        }
    }

    fn json(&self) -> Value {
        let purl = self.purl();
        let mut value = json!({
            "type": match self.origin { Origin::Cargo => "library", Origin::Debian => "operating-system" },
            "bom-ref": purl,
            "name": self.name,
            "version": self.version,
            "purl": purl,
        });
        if let Some(digest) = &self.sha256 {
            value["hashes"] = json!([{ "alg": "SHA-256", "content": digest }]);
        }
        if let Some(license) = &self.license {
            // Some crates still write `MIT/Apache-2.0`.
            value["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
        }
        value
    }
}

/// The document for these parts of Rackbar `version`.
pub fn cyclonedx(version: &str, components: &[Component]) -> String {
    let mut components = components.to_vec();
    components.sort();
    components.dedup();
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "timestamp": "2026-01-01T00:00:00Z",
            "component": { "type": "firmware", "bom-ref": "rackbar", "name": "rackbar", "version": version },
            "properties": [{ "name": "rackbar:source-date-epoch", "value": SOURCE_DATE_EPOCH.to_string() }],
        },
        "components": components.iter().map(Component::json).collect::<Vec<_>>(),
    });
    format!("{document:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_each_part_once_with_its_digest() {
        let kernel = Component {
            origin: Origin::Debian,
            name: "linux-image".into(),
            version: "6.1~1+b".into(),
            sha256: Some("ab".repeat(32)),
            license: None,
        };
        let krate = Component {
            origin: Origin::Cargo,
            name: "toml".into(),
            version: "1.2.1+spec".into(),
            sha256: None,
            license: Some("MIT/Apache-2.0".into()),
        };
        let text = cyclonedx("0.1.0", &[kernel.clone(), krate, kernel]);
        let document: Value = serde_json::from_str(&text).unwrap();
        let components = document["components"].as_array().unwrap();
        assert_eq!(components.len(), 2);
        assert_eq!(components[0]["purl"], "pkg:cargo/toml@1.2.1%2Bspec");
        assert_eq!(components[0]["licenses"][0]["expression"], "MIT OR Apache-2.0");
        assert_eq!(components[1]["hashes"][0]["content"], "ab".repeat(32));
    }
}
