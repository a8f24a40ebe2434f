//! Which kernel modules go on the media: the list in `data/modules.toml`, completed with everything those modules
//! depend on, and the tables (`modules.dep`, `modules.alias`, `modules.softdep`) by which init finds them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use anyhow::{Context, Result, bail};
use serde::Deserialize;
use toml::Spanned;

use crate::modinfo::{ModuleInfo, canonical};

/// The list that ships with this crate.
pub const SHIPPED: &str = include_str!("../data/modules.toml");

/// A module list, as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    group: Vec<Group>,
    #[serde(default)]
    softdep: Vec<SoftDependency>,
}

/// Modules with one purpose.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    /// For the reader of the list and of error messages.
    purpose: String,
    modules: Vec<Spanned<String>>,
}

/// What a module needs loaded first without saying so itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SoftDependency {
    module: Spanned<String>,
    before: Vec<Spanned<String>>,
}

/// A module list: what is wanted, and why.
#[derive(Debug)]
pub struct List {
    text: String,
    document: Document,
}

impl List {
    /// Reads a list.
    pub fn parse(text: &str) -> Result<Self> {
        let document = toml::from_str(text).context("reading the module list")?;
        Ok(Self {
            text: text.to_owned(),
            document,
        })
    }

    /// The list this crate ships.
    pub fn shipped() -> Result<Self> {
        Self::parse(SHIPPED)
    }

    /// The text it was read from.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Every module the list names, as written.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let groups = self.document.group.iter().flat_map(|group| &group.modules);
        groups.map(|name| name.get_ref().as_str())
    }

    fn line(&self, name: &Spanned<String>) -> usize {
        let before = self.text.get(..name.span().start).unwrap_or_default();
        before.matches('\n').count() + 1
    }
}

/// Every module a kernel package offers, by name.
#[derive(Debug, Default)]
pub struct Offer {
    /// Loadable modules.
    pub modules: BTreeMap<String, ModuleInfo>,
    /// Names of what is built into the kernel, from `modules.builtin`.
    pub builtin: BTreeSet<String>,
}

impl Offer {
    /// Takes in the package's `modules.builtin`.
    pub fn add_builtin(&mut self, text: &str) {
        let files = text.lines().filter_map(|line| line.rsplit('/').next());
        self.builtin
            .extend(files.map(|file| canonical(file.trim_end_matches(".ko"))));
    }

    /// Modules that answer to `name`: the module of that name, else those with that alias. A soft dependency may
    /// name an algorithm (`crc32c`) for which there is a generic and an accelerated module; both count.
    fn answering(&self, name: &str) -> Vec<&ModuleInfo> {
        match self.modules.get(&canonical(name)) {
            Some(module) => vec![module],
            None => self
                .modules
                .values()
                .filter(|module| module.aliases.contains(name))
                .collect(),
        }
    }
}

/// The modules to ship, complete in themselves.
#[derive(Debug)]
pub struct Selection<'a> {
    modules: BTreeMap<&'a str, &'a ModuleInfo>,
    /// Soft dependencies by module, resolved to names of shipped modules.
    before: BTreeMap<&'a str, Vec<&'a str>>,
    after: BTreeMap<&'a str, Vec<&'a str>>,
}

/// Completes a list with everything its modules depend on.
///
/// # Errors
/// When the list names something that is neither a module nor built in, with the line; when a module depends on
/// something the package does not have.
pub fn select<'a>(list: &'a List, offer: &'a Offer) -> Result<Selection<'a>> {
    let mut selection = Selection {
        modules: BTreeMap::new(),
        before: BTreeMap::new(),
        after: BTreeMap::new(),
    };
    let mut stated: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for rule in &list.document.softdep {
        for name in rule.before.iter().chain([&rule.module]) {
            known(list, offer, name, "soft dependencies")?;
        }
        let before = rule.before.iter().map(|name| name.get_ref().as_str());
        stated
            .entry(canonical(rule.module.get_ref()))
            .or_default()
            .extend(before);
    }
    for group in &list.document.group {
        for name in &group.modules {
            known(list, offer, name, &group.purpose)?;
            if let Some(module) = offer.modules.get(&canonical(name.get_ref())) {
                selection.add(module, offer, &stated)?;
            }
        }
    }
    Ok(selection)
}

fn known(list: &List, offer: &Offer, name: &Spanned<String>, purpose: &str) -> Result<()> {
    let wanted = canonical(name.get_ref());
    if !offer.modules.contains_key(&wanted) && !offer.builtin.contains(&wanted) {
        bail!(
            "modules.toml line {}: the kernel package has no module {:?} (under {purpose:?}); correct the name or \
             remove it",
            list.line(name),
            name.get_ref()
        );
    }
    Ok(())
}

impl<'a> Selection<'a> {
    fn add(&mut self, module: &'a ModuleInfo, offer: &'a Offer, stated: &BTreeMap<String, Vec<&str>>) -> Result<()> {
        if self.modules.insert(&module.name, module).is_some() {
            return Ok(());
        }
        for name in &module.depends {
            match offer.modules.get(name) {
                Some(needed) => self.add(needed, offer, stated)?,
                None if offer.builtin.contains(name) => {}
                None => bail!(
                    "module {} depends on {name}, which the kernel package does not have",
                    module.name
                ),
            }
        }
        let said = module.soft_before.iter().map(String::as_str);
        let before = said.chain(stated.get(&module.name).into_iter().flatten().copied());
        let before = self.add_soft(before, offer, stated)?;
        let after = self.add_soft(module.soft_after.iter().map(String::as_str), offer, stated)?;
        self.before.insert(&module.name, before);
        self.after.insert(&module.name, after);
        Ok(())
    }

    /// Adds soft dependencies; one that nothing answers to is left out, as modprobe does.
    fn add_soft<'n>(
        &mut self,
        names: impl Iterator<Item = &'n str>,
        offer: &'a Offer,
        stated: &BTreeMap<String, Vec<&str>>,
    ) -> Result<Vec<&'a str>> {
        let mut found = Vec::new();
        for name in names {
            for module in offer.answering(name) {
                self.add(module, offer, stated)?;
                found.push(module.name.as_str());
            }
        }
        Ok(found)
    }

    /// The modules, by name.
    pub fn modules(&self) -> impl Iterator<Item = &'a ModuleInfo> {
        self.modules.values().copied()
    }

    /// `modules.dep`: each module's path, then the paths of all it needs, in the order `modprobe` expects: what is
    /// to be loaded first stands last.
    pub fn dep(&self) -> String {
        let mut text = String::new();
        for module in self.modules() {
            let mut order = Vec::new();
            self.load_order(module, &mut order);
            let _ = write!(text, "{}:", module.path);
            for needed in order.iter().rev().skip(1) {
                let _ = write!(text, " {}", needed.path);
            }
            text.push('\n');
        }
        text
    }

    /// Appends what `module` needs and then itself, first loaded first, each once.
    fn load_order(&self, module: &'a ModuleInfo, order: &mut Vec<&'a ModuleInfo>) {
        if order.iter().any(|seen| seen.name == module.name) {
            return;
        }
        for needed in module.depends.iter().filter_map(|name| self.modules.get(name.as_str())) {
            self.load_order(needed, order);
        }
        order.push(module);
    }

    /// `modules.alias`, restricted to the shipped modules.
    pub fn alias(&self) -> String {
        let mut text = String::from("# Aliases extracted from modules themselves.\n");
        for module in self.modules() {
            for alias in &module.aliases {
                let _ = writeln!(text, "alias {alias} {}", module.name);
            }
        }
        text
    }

    /// `modules.softdep`. Unlike depmod's it names modules only, never algorithms, so that a reader needs no second
    /// look-up.
    pub fn softdep(&self) -> String {
        let mut text = String::from("# Soft dependencies, resolved to modules of this image.\n");
        for module in self.modules() {
            let list = |table: &BTreeMap<&str, Vec<&str>>| table.get(module.name.as_str()).map(|names| names.join(" "));
            let before = list(&self.before).filter(|names| !names.is_empty());
            let after = list(&self.after).filter(|names| !names.is_empty());
            if before.is_none() && after.is_none() {
                continue;
            }
            let _ = write!(text, "softdep {}", module.name);
            for (word, names) in [("pre:", before), ("post:", after)] {
                if let Some(names) = names {
                    let _ = write!(text, " {word} {names}");
                }
            }
            text.push('\n');
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::modinfo;
    use crate::modinfo::tests::elf;

    fn offer(modules: &[(&str, &str)]) -> Offer {
        let mut offer = Offer::default();
        for (path, info) in modules {
            let module = modinfo::read(path, &elf(info)).unwrap();
            offer.modules.insert(module.name.clone(), module);
        }
        offer.add_builtin("kernel/fs/nls/nls_base.ko\n");
        offer
    }

    fn kernel() -> Offer {
        offer(&[
            ("kernel/fs/xfs.ko", "depends=libcrc32c\0alias=fs-xfs\0"),
            ("kernel/lib/libcrc32c.ko", "depends=\0softdep=pre: crc32c\0"),
            ("kernel/crypto/crc32c-generic.ko", "alias=crc32c\0"),
            ("kernel/arch/crc32c-intel.ko", "alias=crc32c\0"),
            ("kernel/fs/nls_utf8.ko", ""),
            ("kernel/net/wifi.ko", "alias=pci:v1\0"),
        ])
    }

    const LIST: &str = "[[group]]\npurpose = \"test\"\nmodules = [\n\"xfs\",\n\"nls_base\"]\n\
                        [[softdep]]\nmodule = \"xfs\"\nbefore = [\"nls_utf8\"]\n";

    #[test]
    fn dependencies_come_along_and_nothing_else() {
        let (offer, list) = (kernel(), List::parse(LIST).unwrap());
        let selection = select(&list, &offer).unwrap();
        let names: Vec<_> = selection.modules().map(|module| module.name.as_str()).collect();
        assert_eq!(
            names,
            ["crc32c_generic", "crc32c_intel", "libcrc32c", "nls_utf8", "xfs"]
        );
        assert!(selection.dep().contains("kernel/fs/xfs.ko: kernel/lib/libcrc32c.ko\n"));
        assert!(
            selection
                .softdep()
                .contains("softdep libcrc32c pre: crc32c_generic crc32c_intel\n")
        );
        assert!(selection.softdep().contains("softdep xfs pre: nls_utf8\n"));
        assert!(selection.alias().contains("alias fs-xfs xfs\n"));
        assert!(!selection.alias().contains("wifi"));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_says_where() {
        let list = List::parse(&LIST.replace("\"xfs\",", "\"xsf\",")).unwrap();
        let error = select(&list, &kernel()).unwrap_err().to_string();
        assert!(error.contains("line 4") && error.contains("\"xsf\""), "{error}");
    }

    #[test]
    fn the_deepest_dependency_stands_last_in_modules_dep() {
        let offer = offer(&[
            ("kernel/a.ko", "depends=b\0"),
            ("kernel/b.ko", "depends=c\0"),
            ("kernel/c.ko", ""),
        ]);
        let list = List::parse("[[group]]\npurpose = \"x\"\nmodules = [\"a\"]\n").unwrap();
        let dep = select(&list, &offer).unwrap().dep();
        assert_eq!(dep.lines().next(), Some("kernel/a.ko: kernel/b.ko kernel/c.ko"));
    }
}
