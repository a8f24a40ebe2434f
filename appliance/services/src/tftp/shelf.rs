//! The files TFTP may give out, by name.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};

use rackbar_artifacts::{Artifact, Artifacts, Content};
use rackbar_model::Digest;
use rackbar_tftp::Files;

use crate::running::lock;

pub(crate) struct Shelf {
    artifacts: Arc<Artifacts>,
    names: Vec<String>,
    /// Files too large to be held in memory always, while some transfer needs them.
    loaded: Mutex<HashMap<Digest, Weak<[u8]>>>,
}

impl Shelf {
    pub(crate) fn new(artifacts: Arc<Artifacts>, names: Vec<String>) -> Self {
        Self {
            artifacts,
            names,
            loaded: Mutex::default(),
        }
    }

    fn load(&self, artifact: &Artifact) -> Option<Arc<[u8]>> {
        let mut loaded = lock(&self.loaded);
        loaded.retain(|_, content| content.strong_count() > 0);
        if let Some(content) = loaded.get(&artifact.digest()).and_then(Weak::upgrade) {
            return Some(content);
        }
        let mut content = vec![0; usize::try_from(artifact.size()).ok()?];
        let count = artifact.read_at(0, &mut content).ok()?;
        content.truncate(count);
        let content: Arc<[u8]> = content.into();
        loaded.insert(artifact.digest(), Arc::downgrade(&content));
        Some(content)
    }
}

impl Files for Shelf {
    fn open(&self, name: &str) -> Option<Arc<[u8]>> {
        let artifact = match self.names.iter().find(|known| *known == name) {
            Some(name) => self.artifacts.by_name(name)?,
            None => self.artifacts.site_file(name)?,
        };
        match artifact.content() {
            Content::Memory(content) => Some(Arc::clone(content)),
            Content::File { .. } => self.load(&artifact),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_names_are_open_and_large_files_are_shared() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("large");
        std::fs::write(&path, vec![5; (1 << 20) + 1]).unwrap();
        let artifacts = Artifacts::new();
        artifacts.add_bytes("loader.efi", &b"MZ"[..]).unwrap();
        artifacts.add_bytes("vmlinuz", &b"MZ"[..]).unwrap();
        artifacts.add_file("large.efi", &path).unwrap();
        let shelf = Shelf::new(
            Arc::new(artifacts),
            vec!["loader.efi".into(), "large.efi".into(), "gone".into()],
        );
        assert_eq!(shelf.open("loader.efi").as_deref(), Some(&b"MZ"[..]));
        assert!(shelf.open("vmlinuz").is_none() && shelf.open("gone").is_none());
        let (one, two) = (shelf.open("large.efi").unwrap(), shelf.open("large.efi").unwrap());
        assert!(Arc::ptr_eq(&one, &two) && one.len() == (1 << 20) + 1);
        let theirs = [
            ("ipxe-arm64.efi", &b"MZ arm"[..]),
            ("vmlinuz", b"theirs"),
            ("gone", b"theirs"),
        ];
        let theirs = theirs.map(|(name, content)| (name, Arc::from(content)));
        shelf.artifacts.set_site_files(theirs).unwrap();
        assert_eq!(shelf.open("ipxe-arm64.efi").as_deref(), Some(&b"MZ arm"[..]));
        assert_eq!(shelf.open("vmlinuz").as_deref(), Some(&b"theirs"[..]));
        assert!(shelf.open("gone").is_none(), "a listed name is ours alone");
        drop((one, two));
        assert_eq!(
            shelf
                .loaded
                .lock()
                .unwrap()
                .values()
                .filter(|c| c.strong_count() > 0)
                .count(),
            0
        );
    }
}
