//! What a node's description says of its processors and its memory modules: what QEMU would refuse, or a guest
//! would read otherwise, is refused with the name of the field.

use super::NodeFile;
use crate::machine::Processors;

/// Logical processors of a node: more than these are not emulated in any useful time.
const CPUS: u32 = 64;
/// Bytes of a text of the SMBIOS table; the standard knows no limit, firmware has few kilobytes for all of them.
const TEXT: usize = 64;

/// The processors of a node that was checked.
pub(super) fn processors(node: &NodeFile) -> Processors {
    let spread = node.sockets.saturating_mul(node.threads).max(1);
    Processors {
        sockets: node.sockets,
        cores: node.cpus / spread,
        threads: node.threads,
    }
}

/// Refuses what no machine has.
pub(super) fn check(node: &NodeFile) -> Result<(), String> {
    let (cpus, sockets, threads) = (node.cpus, node.sockets, node.threads);
    if !(1..=CPUS).contains(&cpus) {
        return Err(format!("`cpus`: {cpus}; 1 to {CPUS} are possible"));
    }
    if !(1..=2).contains(&threads) {
        return Err(format!("`threads`: {threads}; a core has 1 or 2"));
    }
    let spread = sockets.saturating_mul(threads);
    if sockets == 0 || cpus % spread.max(1) != 0 {
        return Err(format!(
            "`sockets`: {cpus} `cpus` cannot be spread over {sockets} sockets with cores of {threads} threads; make \
             `cpus` a multiple of both together"
        ));
    }
    if let Some(modules) = &node.modules {
        let texts = [
            ("manufacturer", &modules.manufacturer),
            ("part", &modules.part),
            ("serial", &modules.serial),
        ];
        for (name, text) in texts {
            let printed = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
            if text.is_empty() || text.len() > TEXT || !printed {
                return Err(format!(
                    "`modules.{name}`: {text:?} is not 1 to {TEXT} printable ASCII characters"
                ));
            }
        }
        // SMBIOS 3.6, 7.18.4: 0 is unknown, 0xffff says that the speed is in another field.
        if matches!(modules.speed_mts, 0 | u16::MAX) {
            return Err(format!(
                "`modules.speed_mts`: {} is not a speed (1 to 65534)",
                modules.speed_mts
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::RackFile;
    use super::*;

    fn node(more: &str) -> Result<NodeFile, String> {
        let text =
            format!("name = \"t\"\ndescription = \"\"\n[[node]]\nname = \"n\"\nfirmware = \"bios-ipxe\"\n{more}\n");
        let mut file = RackFile::parse(&text, "t.toml").map_err(|error| error.to_string())?;
        Ok(file.nodes.remove(0))
    }

    #[test]
    fn processors_are_spread_as_written() {
        let are = processors(&node("cpus = 8\nsockets = 2\nthreads = 2").unwrap());
        assert_eq!((are.sockets, are.cores, are.threads, are.logical()), (2, 2, 2, 8));
        assert_eq!(processors(&node("cpus = 3").unwrap()), Processors::one_socket(3));
        assert_eq!(processors(&node("").unwrap()), Processors::one_socket(1));
    }

    #[test]
    fn what_no_machine_has_is_refused_by_the_fields_name() {
        let modules = |text: &str, speed: u32| {
            format!("modules = {{ manufacturer = \"M\", part = \"{text}\", serial = \"S\", speed_mts = {speed} }}")
        };
        assert!(node(&modules("P-1, rev. 2", 3200)).is_ok());
        for (more, field) in [
            ("cpus = 0".to_owned(), "`cpus`"),
            ("cpus = 65".to_owned(), "`cpus`"),
            ("cpus = 4\nthreads = 3".to_owned(), "`threads`"),
            ("cpus = 4\nsockets = 0".to_owned(), "`sockets`"),
            ("cpus = 4\nsockets = 3".to_owned(), "`sockets`"),
            ("cpus = 2\nsockets = 2\nthreads = 2".to_owned(), "`sockets`"),
            ("sockets = 4294967295\nthreads = 2".to_owned(), "`sockets`"),
            (modules("", 3200), "`modules.part`"),
            (modules("\\u0007", 3200), "`modules.part`"),
            (modules(&"p".repeat(65), 3200), "`modules.part`"),
            (modules("P", 0), "`modules.speed_mts`"),
            (modules("P", 65_535), "`modules.speed_mts`"),
        ] {
            let error = node(&more).map(drop).expect_err(&more);
            assert!(error.contains("node `n`") && error.contains(field), "{more}: {error}");
        }
        let unknown = node("modules = { manufacturer = \"M\", part = \"P\", serial = \"S\", speed = 1 }").map(drop);
        assert!(unknown.expect_err("an unknown field").contains("`speed`"));
    }
}
