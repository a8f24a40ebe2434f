//! The `.modinfo` section of a kernel module: `key=value` strings that say what the module is called, what it needs
//! and which devices it serves. `depmod` builds its tables from the same strings; Debian runs it only at
//! installation, so the package holds no tables and we make our own.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

/// What one module says about itself. All module names are in the kernel's form, with `_` for `-`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ModuleInfo {
    /// Name as `/proc/modules` shows it.
    pub name: String,
    /// Path below `/lib/modules/<release>/`.
    pub path: String,
    /// Modules whose symbols it uses: must be loaded first.
    pub depends: Vec<String>,
    /// Modules or algorithms it wants before itself, as written.
    pub soft_before: Vec<String>,
    /// Modules or algorithms it wants after itself, as written.
    pub soft_after: Vec<String>,
    /// Patterns of the devices and services it stands for.
    pub aliases: BTreeSet<String>,
}

/// A module's name in the kernel's form.
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads a module file. `path` is where it is below `/lib/modules/<release>/`.
pub fn read(path: &str, module: &[u8]) -> Result<ModuleInfo> {
    let file = path.rsplit('/').next().unwrap_or(path);
    let mut info = ModuleInfo {
        name: canonical(file.trim_end_matches(".ko")),
        path: path.to_owned(),
        ..ModuleInfo::default()
    };
    for string in section(module, b".modinfo")?.split(|byte| *byte == 0) {
        let string = String::from_utf8_lossy(string);
        match string.split_once('=') {
            Some(("name", value)) => info.name = canonical(value),
            Some(("depends", value)) => {
                info.depends = value
                    .split(',')
                    .filter(|name| !name.is_empty())
                    .map(canonical)
                    .collect();
            }
            Some(("alias", value)) => {
                info.aliases.insert(value.to_owned());
            }
            Some(("softdep", value)) => soft(value, &mut info),
            _ => {}
        }
    }
    Ok(info)
}

/// Takes in one `softdep` string: `pre: a b post: c`.
fn soft(value: &str, info: &mut ModuleInfo) {
    let mut after = false;
    for word in value.split_whitespace() {
        match word {
            "pre:" => after = false,
            "post:" => after = true,
            name if after => info.soft_after.push(name.to_owned()),
            name => info.soft_before.push(name.to_owned()),
        }
    }
}

/// The bytes of a section of a 64-bit little-endian ELF file.
fn section<'a>(elf: &'a [u8], name: &[u8]) -> Result<&'a [u8]> {
    ensure!(
        elf.starts_with(b"\x7fELF\x02\x01"),
        "not a 64-bit little-endian ELF file"
    );
    let table = number(elf, 0x28, 8)?;
    let (entry, count, names) = (number(elf, 0x3A, 2)?, number(elf, 0x3C, 2)?, number(elf, 0x3E, 2)?);
    let header = |index: usize| -> Result<&[u8]> { bytes(elf, table.saturating_add(index.saturating_mul(entry)), 64) };
    let content =
        |header: &[u8]| -> Result<&'a [u8]> { bytes(elf, number(header, 0x18, 8)?, number(header, 0x20, 8)?) };
    let strings = content(header(names)?)?;
    for index in 0..count {
        let header = header(index)?;
        let text = strings.get(number(header, 0, 4)?..).unwrap_or_default();
        if text.strip_prefix(name).is_some_and(|rest| rest.first() == Some(&0)) {
            return content(header);
        }
    }
    Ok(&[])
}

fn bytes(data: &[u8], at: usize, length: usize) -> Result<&[u8]> {
    let end = at.checked_add(length).context("ELF sizes overflow")?;
    data.get(at..end)
        .with_context(|| format!("ELF file ends before {end:#x}"))
}

fn number(data: &[u8], at: usize, size: usize) -> Result<usize> {
    let value = bytes(data, at, size)?
        .iter()
        .rev()
        .fold(0u64, |value, byte| value << 8 | u64::from(*byte));
    usize::try_from(value).context("ELF number does not fit")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A minimal ELF file with a `.modinfo` section.
    pub(crate) fn elf(modinfo: &str) -> Vec<u8> {
        let names = b"\0.modinfo\0.shstrtab\0";
        let mut file = vec![0u8; 64];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        let mut sections = vec![[0u64; 3]];
        for (name, content) in [(1u64, modinfo.as_bytes()), (10, &names[..])] {
            sections.push([name, file.len() as u64, content.len() as u64]);
            file.extend_from_slice(content);
        }
        let table = file.len() as u64;
        for [name, at, size] in sections {
            let mut header = [0u8; 64];
            header[..4].copy_from_slice(&(name as u32).to_le_bytes());
            header[0x18..0x20].copy_from_slice(&at.to_le_bytes());
            header[0x20..0x28].copy_from_slice(&size.to_le_bytes());
            file.extend_from_slice(&header);
        }
        file[0x28..0x30].copy_from_slice(&table.to_le_bytes());
        file[0x3A] = 64;
        file[0x3C] = 3;
        file[0x3E] = 2;
        file
    }

    #[test]
    fn reads_names_dependencies_and_aliases() {
        let module = elf("alias=pci:v00008086d*\0alias=fs-x\0depends=mii,crc-x\0softdep=pre: crc32c post: more\0");
        let info = read("kernel/drivers/net/my-net.ko", &module).unwrap();
        assert_eq!(info.name, "my_net");
        assert_eq!(info.depends, ["mii", "crc_x"]);
        assert_eq!(info.soft_before, ["crc32c"]);
        assert_eq!(info.soft_after, ["more"]);
        assert!(info.aliases.contains("fs-x") && info.aliases.len() == 2);
    }

    proptest! {
        #[test]
        fn damaged_modules_never_panic(cut in 0usize..400, changes in proptest::collection::vec((0usize..400, any::<u8>()), 0..6)) {
            let mut module = elf("depends=a,b\0softdep=pre: c\0");
            for (at, byte) in changes {
                if let Some(target) = module.get_mut(at) {
                    *target = byte;
                }
            }
            module.truncate(cut);
            let _ = read("kernel/x.ko", &module);
        }
    }
}
