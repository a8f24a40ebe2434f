//! What depmod(8) wrote about the modules of one kernel: `modules.alias`, `modules.dep`, `modules.softdep`.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use super::glob;
use crate::Root;

/// Aliases, files and dependencies of the modules below one `/lib/modules/<release>`.
#[derive(Debug, Default)]
pub struct ModuleIndex {
    folder: PathBuf,
    /// Patterns by the text before their first `:` or `-`, in the order of the file. A lookup then tries hundreds
    /// of patterns instead of ten thousand.
    aliases: HashMap<String, Vec<(String, String)>>,
    modules: HashMap<String, Entry>,
}

#[derive(Debug, Default, Clone)]
struct Entry {
    file: String,
    /// Names of all modules that must be there first, the last one first, as depmod writes them.
    needs: Vec<String>,
    pre: Vec<String>,
    post: Vec<String>,
}

/// One module to insert.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Step {
    /// Its name, with underscores.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
}

/// The name as the kernel writes it: file names use `-` and `_` at will.
pub(super) fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

fn name_of(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    canonical(base.split(".ko").next().unwrap_or(base))
}

fn bucket(alias: &str) -> String {
    alias
        .split([':', '-', '*', '?', '['])
        .next()
        .unwrap_or_default()
        .to_owned()
}

impl ModuleIndex {
    /// Reads the index of kernel `release` below `root`. Missing files give an empty index: a kernel with everything
    /// built in needs none.
    pub fn read(root: &Root, release: &str) -> Self {
        let folder = root.path(format!("lib/modules/{release}"));
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let mut index = Self::parse(&text("modules.alias"), &text("modules.dep"), &text("modules.softdep"));
        index.folder = folder;
        index
    }

    /// Reads the three texts.
    pub fn parse(alias: &str, dep: &str, softdep: &str) -> Self {
        let mut index = Self::default();
        for (file, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
            let entry = Entry {
                file: file.trim().to_owned(),
                needs: needs.split_whitespace().map(name_of).collect(),
                ..Entry::default()
            };
            index.modules.insert(name_of(file.trim()), entry);
        }
        for line in alias.lines() {
            let mut words = line.split_whitespace();
            if let (Some("alias"), Some(pattern), Some(name)) = (words.next(), words.next(), words.next()) {
                index
                    .aliases
                    .entry(bucket(pattern))
                    .or_default()
                    .push((pattern.to_owned(), canonical(name)));
            }
        }
        for line in softdep.lines() {
            index.add_softdep(line);
        }
        index
    }

    fn add_softdep(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some("softdep"), Some(name)) = (words.next(), words.next()) else {
            return;
        };
        let Some(entry) = self.modules.get_mut(&canonical(name)) else {
            return;
        };
        let mut post = false;
        for word in words {
            match word {
                "pre:" => post = false,
                "post:" => post = true,
                other if post => entry.post.push(other.to_owned()),
                other => entry.pre.push(other.to_owned()),
            }
        }
    }

    /// The modules that announce themselves for `modalias`, or the module of that name, present in the image.
    pub fn find(&self, modalias: &str) -> Vec<String> {
        let name = canonical(modalias);
        if self.modules.contains_key(&name) {
            return vec![name];
        }
        let mut found: Vec<String> = Vec::new();
        // Aliases of crypto algorithms and file systems are names and may use either sign; patterns with a wildcard
        // in front live in the bucket of the empty text.
        for key in [bucket(modalias), String::new()] {
            for (pattern, name) in self.aliases.get(&key).into_iter().flatten() {
                if !found.contains(name) && self.modules.contains_key(name) && glob::matches(pattern, modalias) {
                    found.push(name.clone());
                }
            }
        }
        found
    }

    /// The modules to insert for module `name`, dependencies first, each once.
    pub fn plan(&self, name: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        self.visit(&canonical(name), &mut HashSet::new(), &mut steps);
        steps
    }

    /// Depth first; `seen` ends the circles that soft dependencies may form.
    fn visit(&self, name: &str, seen: &mut HashSet<String>, steps: &mut Vec<Step>) {
        let Some(entry) = self.modules.get(name) else { return };
        if !seen.insert(name.to_owned()) {
            return;
        }
        for soft in &entry.pre {
            self.visit_soft(soft, seen, steps);
        }
        for need in entry.needs.iter().rev() {
            self.visit(need, seen, steps);
        }
        steps.push(Step {
            name: name.to_owned(),
            file: self.folder.join(&entry.file),
        });
        for soft in &entry.post {
            self.visit_soft(soft, seen, steps);
        }
    }

    /// A soft dependency may be an alias: `softdep libcrc32c pre: crc32c`, which `crc32c_generic` provides.
    fn visit_soft(&self, soft: &str, seen: &mut HashSet<String>, steps: &mut Vec<Step>) {
        for name in self.find(soft) {
            self.visit(&name, seen, steps);
        }
    }

    /// Number of modules known.
    pub fn len(&self) -> usize {
        self.modules.len()
    }

    /// True when no module is known.
    pub fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALIAS: &str = "# Aliases extracted from modules themselves.\n\
        alias pci:v00001AF4d*sv*sd*bc*sc*i* virtio_pci\n\
        alias virtio:d00000001v* virtio_net\n\
        alias crc32c crc32c_generic\nalias crypto-crc32c crc32c_generic\nalias crypto-crc32c crc32c-intel\n\
        alias fs-xfs xfs\n";
    const DEP: &str = "kernel/drivers/virtio/virtio_pci.ko: kernel/drivers/virtio/virtio_pci_legacy_dev.ko kernel/drivers/virtio/virtio_ring.ko kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/virtio/virtio_pci_legacy_dev.ko:\n\
        kernel/drivers/virtio/virtio_ring.ko: kernel/drivers/virtio/virtio.ko\n\
        kernel/drivers/virtio/virtio.ko:\n\
        kernel/crypto/crc32c_generic.ko:\nkernel/arch/x86/crypto/crc32c-intel.ko:\n\
        kernel/lib/libcrc32c.ko:\nkernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko\n";
    const SOFT: &str = "softdep libcrc32c pre: crc32c\nsoftdep xfs pre: crc32c\n";

    fn names(steps: &[Step]) -> Vec<&str> {
        steps.iter().map(|s| s.name.as_str()).collect()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let index = ModuleIndex::parse(ALIAS, DEP, SOFT);
        let found = index.find("pci:v00001AF4d00001000sv00001AF4sd00000001bc02sc00i00");
        assert_eq!(found, ["virtio_pci"]);
        let plan = index.plan("virtio-pci");
        assert_eq!(
            names(&plan),
            ["virtio", "virtio_ring", "virtio_pci_legacy_dev", "virtio_pci"]
        );
        assert_eq!(plan[3].file, PathBuf::from("kernel/drivers/virtio/virtio_pci.ko"));
    }

    #[test]
    fn soft_dependencies_may_be_aliases() {
        let index = ModuleIndex::parse(ALIAS, DEP, SOFT);
        assert_eq!(index.find("fs-xfs"), ["xfs"]);
        assert_eq!(names(&index.plan("xfs")), ["crc32c_generic", "libcrc32c", "xfs"]);
        assert_eq!(index.find("crypto-crc32c"), ["crc32c_generic", "crc32c_intel"]);
    }

    #[test]
    fn an_alias_of_a_module_not_in_the_image_finds_nothing() {
        let index = ModuleIndex::parse(ALIAS, DEP, SOFT);
        assert_eq!(index.find("virtio:d00000001v00001AF4"), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn any_text_is_read(alias in "(alias [a:*?-]{1,5} [a-c]\n|.{0,20}\n){0,9}", dep in "([a-c].ko: ([a-c].ko ){0,3}\n|.{0,20}\n){0,9}",
                            soft in "(softdep [a-c] (pre: |post: )[a-c]\n){0,9}", wanted in "[a-c:-]{0,6}") {
            let index = ModuleIndex::parse(&alias, &dep, &soft);
            for name in index.find(&wanted) {
                let plan = index.plan(&name);
                let unique: HashSet<_> = plan.iter().map(|s| &s.name).collect();
                prop_assert_eq!(unique.len(), plan.len());
            }
        }
    }
}
