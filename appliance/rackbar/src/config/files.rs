//! Files that a configuration names: scripts, and boot files of the site's own, by architecture.

use std::fmt;
use std::sync::Arc;

use rackbar_boot::is_site_name;
use rackbar_model::ClientArch;
use serde::Deserialize;
use toml::Spanned;

use super::check::Checker;

/// The largest boot file in bytes. What a firmware starts has some MiB, and is held in memory.
pub(crate) const MAX_BOOT_FILE: usize = 16 << 20;

/// Most that all boot files take together, in bytes.
const MAX_BOOT_FILES: usize = 64 << 20;

/// Names that TFTP has for programs of our own.
pub(crate) const OUR_PROGRAMS: [&str; 3] = ["loader.efi", "undionly.kpxe", "snponly.efi"];

/// Longest URL of a boot file in octets: that of the DHCP header's field, less its end. Some firmware looks nowhere else.
const MAX_URL: usize = 127;

/// What lies beside the configuration.
pub(crate) trait Files {
    /// The text of a file, or why there is none.
    fn text(&self, name: &str) -> Result<String, String>;

    /// The content of a boot file, or why there is none; `None` where the configuration is to be taken without it.
    fn content(&self, name: &str) -> Result<Option<Arc<[u8]>>, String>;
}

impl<F: Fn(&str) -> Result<String, String>> Files for F {
    fn text(&self, name: &str) -> Result<String, String> {
        self(name)
    }

    fn content(&self, name: &str) -> Result<Option<Arc<[u8]>>, String> {
        Ok(Some(self(name)?.into_bytes().into()))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFile {
    architecture: Option<Spanned<u16>>,
    file: Option<Spanned<String>>,
    url: Option<Spanned<String>>,
}

/// A boot file of the site's own.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct BootFile {
    /// Whose firmware is led to it; `None`: nobody's, it is there for what another program asks for.
    pub(crate) arch: Option<ClientArch>,
    pub(crate) place: Place,
}

/// Where it is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Place {
    /// With us.
    Here(SiteFile),
    /// On another server.
    Url(String),
}

/// A file that is served as it lay beside the configuration when that was taken.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct SiteFile {
    /// Its name there and here.
    pub(crate) name: String,
    /// `None` for one that is gone since the configuration was good.
    pub(crate) content: Option<Arc<[u8]>>,
}

impl fmt::Debug for SiteFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.content.as_ref().map(|content| content.len());
        write!(f, "SiteFile({}, {bytes:?} bytes)", self.name)
    }
}

impl Checker<'_> {
    pub(super) fn boot_files(&mut self, raw: &[Spanned<RawFile>]) -> Vec<BootFile> {
        let mut files: Vec<BootFile> = Vec::new();
        let mut bytes = 0;
        for one in raw {
            let arch = one.get_ref().architecture.as_ref();
            let Ok(arch) = arch.map(|code| self.architecture(code, &files)).transpose() else {
                continue;
            };
            let Some(place) = self.place(one, arch) else { continue };
            if let Place::Here(SiteFile {
                content: Some(content), ..
            }) = &place
            {
                bytes += content.len();
            }
            files.push(BootFile { arch, place });
        }
        if bytes > MAX_BOOT_FILES {
            let problem = format!("all boot files together have {bytes} bytes, and at most {MAX_BOOT_FILES} are held");
            let instead = "let the boot program fetch what is large from another server";
            self.wrong(raw.first().map(Spanned::span), "boot.file", problem, instead);
        }
        files
    }

    /// One that the registry has and that no other entry names.
    fn architecture(&mut self, code: &Spanned<u16>, files: &[BootFile]) -> Result<ClientArch, ()> {
        let field = "boot.file.architecture";
        let arch = ClientArch::from_code(*code.get_ref());
        if !arch.is_registered() {
            let problem = format!("no architecture has the number {}", code.get_ref());
            let instead =
                "write one of IANA's \"Processor Architecture Types\" (DHCP option 93), such as 11 for ARM64 UEFI";
            self.wrong(Some(code.span()), field, problem, instead);
            return Err(());
        }
        if files.iter().any(|other| other.arch == Some(arch)) {
            let problem = format!("there are two boot files for {arch} (architecture {})", arch.code());
            self.wrong(Some(code.span()), field, problem, "keep one");
            return Err(());
        }
        Ok(arch)
    }

    fn place(&mut self, raw: &Spanned<RawFile>, arch: Option<ClientArch>) -> Option<Place> {
        match (&raw.get_ref().file, &raw.get_ref().url, arch) {
            (Some(file), None, _) => self.site_file(file).map(Place::Here),
            (None, Some(url), Some(arch)) => self.url(url, arch).map(Place::Url),
            (None, Some(url), None) => {
                let problem = "nobody would be led to this URL";
                let instead = "write the architecture that it is for";
                self.wrong(Some(url.span()), "boot.file.url", problem, instead);
                None
            }
            _ => {
                let problem = "a boot file has either a file or a url";
                self.wrong(Some(raw.span()), "boot.file", problem, "");
                None
            }
        }
    }

    fn site_file(&mut self, file: &Spanned<String>) -> Option<SiteFile> {
        let name = file.get_ref().clone();
        let files = self.files;
        let mut wrong = |problem: String, instead: &str| {
            self.wrong(Some(file.span()), "boot.file.file", problem, instead);
            None
        };
        if !is_site_name(&name) {
            let problem = format!("{name:?} cannot be the name of a boot file");
            let instead =
                "use 1 to 100 characters of A-Z a-z 0-9 . _ - + and / between folders, none of which begins with a dot";
            return wrong(problem, instead);
        }
        if OUR_PROGRAMS.contains(&name.as_str()) {
            return wrong(
                format!("{name:?} is a program of Rackbar's own"),
                "give yours another name",
            );
        }
        let content = match files.content(&name) {
            Ok(content) => content,
            Err(reason) => {
                let instead = "put the file beside rackbar.toml and write its name here";
                return wrong(format!("{name:?}: {reason}"), instead);
            }
        };
        match content.as_ref().map(|content| content.len()) {
            Some(0) => wrong(format!("{name:?} is empty"), ""),
            Some(bytes) if bytes > MAX_BOOT_FILE => {
                let problem = format!("{name:?} has more than {MAX_BOOT_FILE} bytes");
                wrong(
                    problem,
                    "name a boot program here, which fetches what is large from elsewhere",
                )
            }
            _ => Some(SiteFile { name, content }),
        }
    }

    fn url(&mut self, url: &Spanned<String>, arch: ClientArch) -> Option<String> {
        let text = url.get_ref();
        let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let named = host.is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '['));
        let plain = text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'{' | b'}' | b'"' | b'\\' | b'@'));
        let (problem, instead) = if !arch.is_http() {
            let problem = format!("{arch} (architecture {}) fetches by TFTP and takes no URL", arch.code());
            (
                problem,
                "name a file beside rackbar.toml, or the architecture of its HTTP Boot",
            )
        } else if !named || !plain {
            let problem = format!("{text:?} is no URL of a boot file");
            (
                problem,
                "write http://host/path or https://host/path, without a user name",
            )
        } else if text.len() > MAX_URL {
            let problem = format!("the URL has {} characters, and firmware reads {MAX_URL}", text.len());
            (problem, "give it a shorter path")
        } else {
            return Some(text.clone());
        };
        self.wrong(Some(url.span()), "boot.file.url", problem, instead);
        None
    }
}
