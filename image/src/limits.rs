//! How large what ships may be. A rack fetches the same files hundreds of times at once and every node holds them in
//! memory, so an image that has outgrown its limits is an error: somebody has to decide.

use anyhow::{Result, bail};

use crate::media::Output;

const MIB: u64 = 1 << 20;

/// The most that the loader may have: firmware fetches it by TFTP, block by block.
pub const LOADER: u64 = MIB / 4;
/// The most that the appliance may have as one UEFI program.
pub const APPLIANCE: u64 = 36 * MIB;
/// The most that a node fetches before it runs: kernel and base archive together.
pub const NODE_BOOT: u64 = 24 * MIB;
/// The most that init and agent may have together, stripped.
pub const NODE_PROGRAMS: u64 = 3 * MIB;

/// Files with a limit of their own.
const FILES: [(&str, u64); 2] = [("loader.efi", LOADER), ("rackbar.efi", APPLIANCE)];
/// Files that a node boots.
const NODE_FILES: [&str; 2] = ["vmlinuz", "base.cpio.zst"];

/// A file, or several together, and how large they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Size {
    /// What it is.
    pub name: &'static str,
    /// What it is for.
    pub purpose: &'static str,
    /// In bytes.
    pub bytes: u64,
    /// The most that it may have, if anything is said of it.
    pub most: Option<u64>,
}

impl Size {
    /// True when it is not larger than it may be.
    pub fn fits(&self) -> bool {
        self.most.is_none_or(|most| self.bytes <= most)
    }
}

/// The sizes of what was written, and of what counts together. `node_programs` are the bytes of init and agent.
pub fn sizes(outputs: &[Output], node_programs: u64) -> Vec<Size> {
    let of_its_own = |name: &str| FILES.iter().find(|(file, _)| *file == name).map(|(_, most)| *most);
    let files = outputs.iter().map(|output| Size {
        name: output.name,
        purpose: output.purpose,
        bytes: output.size,
        most: of_its_own(output.name),
    });
    let fetched = outputs.iter().filter(|output| NODE_FILES.contains(&output.name));
    let together = [
        Size {
            name: "node boot set",
            purpose: "vmlinuz and base.cpio.zst",
            bytes: fetched.map(|output| output.size).sum(),
            most: Some(NODE_BOOT),
        },
        Size {
            name: "init and agent",
            purpose: "in every node's memory",
            bytes: node_programs,
            most: Some(NODE_PROGRAMS),
        },
    ];
    files.chain(together).collect()
}

/// Refuses media of which anything is larger than it may be.
///
/// # Errors
/// Names all that is too large.
pub fn check(sizes: &[Size]) -> Result<()> {
    let large = sizes.iter().filter(|size| !size.fits()).map(|size| {
        let most = size.most.map(human).unwrap_or_default();
        format!("{} has {} and may have {most}", size.name, human(size.bytes))
    });
    let large: Vec<_> = large.collect();
    if large.is_empty() {
        return Ok(());
    }
    bail!(
        "too large: {}. Make it smaller, or raise its limit in image/src/limits.rs and say why",
        large.join(", ")
    )
}

/// Bytes for people.
pub fn human(bytes: u64) -> String {
    match bytes {
        0..1_048_576 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        _ => format!("{:.1} MiB", bytes as f64 / 1_048_576.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(name: &'static str, size: u64) -> Output {
        Output {
            name,
            purpose: "",
            size,
            sha256: String::new(),
        }
    }

    /// Media in which everything is as large as it may be.
    fn just_right() -> (Vec<Output>, u64) {
        let outputs = vec![
            output("vmlinuz", 10 * MIB),
            output("base.cpio.zst", 14 * MIB),
            output("loader.efi", 256 << 10),
            output("rackbar.efi", 36 * MIB),
            output("rackbar.img", 900 * MIB),
        ];
        (outputs, 3 * MIB)
    }

    #[test]
    fn media_that_outgrew_a_limit_are_refused_by_name() {
        let (outputs, programs) = just_right();
        check(&sizes(&outputs, programs)).unwrap();
        let grown = |name: &str| {
            let mut outputs = outputs.clone();
            let file = outputs.iter_mut().find(|output| output.name == name).unwrap();
            file.size += 1;
            check(&sizes(&outputs, programs)).unwrap_err().to_string()
        };
        assert!(grown("vmlinuz").contains("node boot set has 24.0 MiB"));
        assert!(grown("base.cpio.zst").contains("node boot set"));
        assert!(grown("loader.efi").contains("loader.efi has 256.0 KiB and may have 256.0 KiB"));
        assert!(grown("rackbar.efi").contains("rackbar.efi"));
        let agent = check(&sizes(&outputs, programs + 1)).unwrap_err().to_string();
        assert!(agent.contains("init and agent has 3.0 MiB"), "{agent}");
    }
}
