//! How each installer is booted from the network: which files of its medium, and what its kernel is told.

use std::fmt;

use rackbar_boot::{BootSpec, SpecFile};
use serde::{Deserialize, Serialize};

use crate::error::{For, Result};
use crate::input::Install;

/// Longest command line an x86 kernel takes, less the end of the string.
const LONGEST: usize = 2047;

/// What a machine is sent to start an installer.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "utoipa", derive(utoipa::ToSchema))]
#[serde(tag = "how", rename_all = "snake_case")]
pub enum NetBoot {
    /// A Linux kernel with its initial RAM file systems.
    Linux {
        /// Path of the kernel on the medium or in the mirror.
        kernel: String,
        /// Paths of the cpio archives, in order.
        initrds: Vec<String>,
        /// The kernel's arguments. Holds the token, where the answers are ours to give.
        command_line: String,
    },
    /// A script for iPXE.
    Ipxe {
        /// The script. Holds the token, where the answers are ours to give.
        script: String,
        /// Paths of the medium's files that it fetches, below the source's URL.
        files: Vec<String>,
    },
}

impl fmt::Debug for NetBoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linux {
                kernel,
                initrds,
                command_line: _,
            } => f
                .debug_struct("Linux")
                .field("kernel", kernel)
                .field("initrds", initrds)
                .finish_non_exhaustive(),
            Self::Ipxe { script: _, files } => f.debug_struct("Ipxe").field("files", files).finish_non_exhaustive(),
        }
    }
}

impl NetBoot {
    /// The boot specification, once the catalogue has the files: `find` gives the one of a path. `None` when one is
    /// missing, and for what no Linux kernel is.
    pub fn spec(&self, find: impl Fn(&str) -> Option<SpecFile>) -> Option<BootSpec> {
        let Self::Linux {
            kernel,
            initrds,
            command_line,
        } = self
        else {
            return None;
        };
        Some(BootSpec {
            kernel: find(kernel)?,
            initrds: initrds.iter().map(|path| find(path)).collect::<Option<_>>()?,
            command_line: command_line.clone(),
        })
    }
}

/// A Linux installer's boot: its own arguments, then those of the site.
pub(crate) fn linux(at: For, install: &Install, files: [&str; 2], arguments: &[String]) -> Result<NetBoot> {
    let mut line = arguments.join(" ");
    let extra = extra(at, install)?;
    if !extra.is_empty() {
        line.push(' ');
        line.push_str(&extra);
    }
    if line.len() > LONGEST {
        let reason = format!(
            "the kernel's command line would have {} bytes, and the kernel takes {LONGEST}",
            line.len()
        );
        return Err(at.error(
            "kernel_arguments",
            reason,
            "shorten the site's arguments, or use fewer NICs",
        ));
    }
    let [kernel, initrd] = files;
    Ok(NetBoot::Linux {
        kernel: kernel.to_owned(),
        initrds: vec![initrd.to_owned()],
        command_line: line,
    })
}

/// The site's own kernel arguments, which the installer's and the installed system's kernel get.
pub(crate) fn extra(at: For, install: &Install) -> Result<String> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b" -_.,:=/+@%".contains(&b);
    let text = install.kernel_arguments.trim();
    if let Some(bad) = text.chars().find(|c| !u8::try_from(*c).is_ok_and(plain)) {
        let reason = format!("the character {} is not taken", bad.escape_debug());
        return Err(at.error("kernel_arguments", reason, "use letters, digits and -_.,:=/+@% only"));
    }
    Ok(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "))
}

/// The NIC as PXELINUX writes it for the kernel: `01-52-54-..`.
pub(crate) fn bootif(install: &Install) -> String {
    format!("BOOTIF=01-{}", install.boot_mac.to_string().replace(':', "-"))
}
