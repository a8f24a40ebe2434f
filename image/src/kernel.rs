//! The kernel and its modules, out of Debian's package. Unpacking 400 MB takes seconds, so what is used of it is kept
//! in the cache, under the digests of package and module list.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::cache::Cache;
use crate::digest::sha256;
use crate::modules::{List, Offer, select};
use crate::{cpio, deb, modinfo};

/// A kernel and the modules that ship with it.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// The bzImage.
    pub image: Vec<u8>,
    /// Its modules and their tables, as an uncompressed cpio archive below `lib/modules/<release>/`.
    pub modules: Vec<u8>,
}

impl Kernel {
    /// Takes kernel and listed modules out of a `linux-image-*` package whose digest is `digest`.
    pub fn load(package: &Path, digest: &str, list: &List, cache: &Cache) -> Result<Self> {
        let key = sha256(&[digest.as_bytes(), list.text().as_bytes()].concat());
        let (image, modules) = (format!("kernel-{key}.vmlinuz"), format!("kernel-{key}.cpio"));
        if let (Some(image), Some(modules)) = (cache.get(&image)?, cache.get(&modules)?) {
            return Ok(Self { image, modules });
        }
        let kernel = Self::extract(package, list)?;
        cache.put(&modules, &kernel.modules)?;
        cache.put(&image, &kernel.image)?;
        Ok(kernel)
    }

    fn extract(package: &Path, list: &List) -> Result<Self> {
        let mut unpacked = Unpacked::default();
        deb::for_each_file(package, |path, reader| {
            let mut content = || -> Result<Vec<u8>> {
                let mut content = Vec::new();
                reader.read_to_end(&mut content)?;
                Ok(content)
            };
            if path.starts_with("boot/vmlinuz-") {
                unpacked.image = content()?;
            } else if let Some((release, file)) =
                path.strip_prefix("lib/modules/").and_then(|rest| rest.split_once('/'))
            {
                unpacked.release = release.to_owned();
                if file == "modules.builtin" {
                    unpacked.offer.add_builtin(&String::from_utf8_lossy(&content()?));
                } else if file.ends_with(".ko") {
                    unpacked.module(file, content()?)?;
                }
            }
            Ok(())
        })?;
        ensure!(
            !unpacked.image.is_empty(),
            "{} holds no boot/vmlinuz-*",
            package.display()
        );
        unpacked.finish(list)
    }
}

/// What was found in a package so far.
#[derive(Default)]
struct Unpacked {
    release: String,
    image: Vec<u8>,
    offer: Offer,
    files: BTreeMap<String, Vec<u8>>,
}

impl Unpacked {
    fn module(&mut self, path: &str, content: Vec<u8>) -> Result<()> {
        let info = modinfo::read(path, &content).with_context(|| path.to_owned())?;
        self.offer.modules.insert(info.name.clone(), info);
        self.files.insert(path.to_owned(), content);
        Ok(())
    }

    fn finish(self, list: &List) -> Result<Kernel> {
        let selection = select(list, &self.offer)?;
        let folder = format!("lib/modules/{}", self.release);
        let mut archive = cpio::Writer::new();
        for (name, text) in [
            ("modules.alias", selection.alias()),
            ("modules.dep", selection.dep()),
            ("modules.softdep", selection.softdep()),
        ] {
            archive.file(&format!("{folder}/{name}"), 0o644, text.as_bytes());
        }
        let mut paths: Vec<_> = selection.modules().map(|module| module.path.as_str()).collect();
        paths.sort_unstable();
        for path in paths {
            // Byte for byte as signed: stripping a module would drop its signature, and with Secure Boot the kernel
            // then refuses it.
            let content = self
                .files
                .get(path)
                .with_context(|| format!("{path} was not unpacked"))?;
            archive.file(&format!("{folder}/{path}"), 0o644, content);
        }
        Ok(Kernel {
            image: self.image,
            modules: archive.finish(),
        })
    }
}
