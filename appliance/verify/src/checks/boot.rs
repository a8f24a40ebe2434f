//! What the firmware is set to, and what it boots first.

use super::{Probed, Verdict};
use crate::{BootFirst, Context};

type Probe = Result<Option<String>, String>;

pub(super) fn bios_probe(context: &Context) -> Probe {
    match context.wanted.attributes.is_empty() {
        true => Err("the role wants no firmware settings".into()),
        false => Ok(None),
    }
}

pub(super) fn bios(context: &Context, _: &Probed) -> Verdict {
    let wanted = &context.wanted.attributes;
    let Some(seen) = &context.seen.attributes else {
        return Verdict::Failed {
            wanted: format!("{} firmware settings", wanted.len()),
            observed: "the BMC did not tell its firmware settings".into(),
            advice: "see that the BMC answers (`rackbar node show`); settings cannot be read in any other way".into(),
        };
    };
    let faults: Vec<String> = wanted
        .iter()
        .filter(|(name, value)| seen.get(*name) != Some(value))
        .map(|(name, value)| match seen.get(name) {
            Some(other) => format!("{name} is {other} instead of {value}"),
            None => format!("{name} is not known to this machine"),
        })
        .collect();
    let words: Vec<_> = wanted.iter().map(|(name, value)| format!("{name}={value}")).collect();
    Verdict::by(
        &faults,
        words.join(", "),
        "as wanted",
        "commit a new plan: it sets what differs and restarts the machine. A name that is not known is misspelt in the \
         role, or this machine has no such setting",
    )
}

const VARIABLE: &str = "-8be4df61-93ca-11d2-aa0d-00e098032b8c";

pub(super) fn order_probe(context: &Context) -> Probe {
    if context.wanted.target.is_none() {
        return Err("Rackbar put no system on its disk".into());
    }
    // Of each variable four bytes of attributes come first (kernel documentation, efivarfs).
    Ok(Some(format!(
        "cd /sys/firmware/efi/efivars 2>/dev/null || {{ echo mode=bios; exit; }}\necho mode=uefi\n\
         hex() {{ od -An -v -tx1 \"$1\" | tr -d ' \\n'; }}\n\
         echo \"order=$(hex BootOrder{VARIABLE})\"\necho \"current=$(hex BootCurrent{VARIABLE})\"\n\
         for v in Boot[0-9A-F][0-9A-F][0-9A-F][0-9A-F]{VARIABLE}; do\n\
         n=${{v#Boot}}; echo \"entry=${{n%{VARIABLE}}} $(hex \"$v\")\"; done\n"
    )))
}

const ADVICE: &str = "a machine that boots the network first waits for it at every start, and does not start without \
                      it: commit a new plan, which puts the disk first, or set it in the firmware";

pub(super) fn order(context: &Context, probed: &Probed) -> Verdict {
    let wanted = "the disk first";
    match (probed.one("mode"), &context.seen.boot_first) {
        (Some("uefi"), _) => uefi_order(probed),
        (_, Some(BootFirst::Disk(name))) => Verdict::of(true, wanted, format!("the BMC says {name}"), ""),
        (_, Some(BootFirst::Network(name))) => {
            let observed = format!("the BMC says the network is first ({name})");
            Verdict::of(false, wanted, observed, ADVICE)
        }
        (_, Some(BootFirst::Other(name))) => {
            Verdict::of(false, wanted, format!("the BMC says {name} is first"), ADVICE)
        }
        _ => Verdict::Skipped(
            "a PC BIOS does not tell its boot order to the system, and no BMC told it; that the machine restarted into its \
             disk is known"
                .into(),
        ),
    }
}

fn uefi_order(probed: &Probed) -> Verdict {
    let wanted = "the disk first";
    let told = |field| probed.one(field).is_some_and(|hex| !hex.trim().is_empty());
    if !told("order") && !told("current") && probed.all("entry").next().is_none() {
        return Verdict::Skipped("the system does not show its firmware's boot entries".into());
    }
    let entries: Vec<_> = probed.all("entry").filter_map(Entry::read).collect();
    let order = bytes(probed.one("order").unwrap_or_default());
    let numbers = order.get(4..).unwrap_or_default().chunks_exact(2);
    let first = numbers
        .filter_map(|pair| pair.try_into().ok().map(u16::from_le_bytes))
        .find_map(|number| entries.iter().find(|entry| entry.number == number && entry.counts()));
    match first {
        Some(entry) => Verdict::of(
            entry.kind == Kind::Disk,
            wanted,
            format!("Boot{:04X} \"{}\", {}", entry.number, entry.title, entry.kind.words()),
            ADVICE,
        ),
        // The firmware then goes to \EFI\BOOT\BOOTX64.EFI of any disk (UEFI 2.10 section 3.3), and to the network
        // only when it finds none.
        None => Verdict::of(
            true,
            wanted,
            "no entry at all: the firmware looks for a boot disk by itself",
            "",
        ),
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Disk,
    Network,
    Other,
}

impl Kind {
    const fn words(self) -> &'static str {
        match self {
            Self::Disk => "a disk",
            Self::Network => "the network",
            Self::Other => "neither disk nor network",
        }
    }
}

/// A load option (UEFI 2.10 section 3.1.3).
struct Entry {
    number: u16,
    attributes: u32,
    title: String,
    kind: Kind,
}

impl Entry {
    /// From `0001 07000000...`: number, variable in hexadecimal.
    fn read(line: &str) -> Option<Self> {
        let (number, hex) = line.split_once(' ')?;
        let data = bytes(hex);
        let option = data.get(4..)?;
        let attributes = u32::from_le_bytes(option.get(..4)?.try_into().ok()?);
        let path_length = usize::from(u16::from_le_bytes(option.get(4..6)?.try_into().ok()?));
        let rest = option.get(6..)?;
        let units = rest
            .chunks_exact(2)
            .filter_map(|pair| pair.try_into().ok().map(u16::from_le_bytes));
        let title: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
        let from = title.len().checked_add(1)?.checked_mul(2)?;
        let path = rest.get(from..from.checked_add(path_length)?)?;
        Some(Self {
            number: u16::from_str_radix(number, 16).ok()?,
            attributes,
            title: String::from_utf16_lossy(&title),
            kind: kind_of(path),
        })
    }

    /// Active, and no application such as a setup menu: those are not tried at a normal start.
    const fn counts(&self) -> bool {
        self.attributes & 1 == 1 && self.attributes & 0x1f00 == 0
    }
}

/// What a device path leads to (UEFI 2.10 section 10.3): by its nodes' types and subtypes.
fn kind_of(mut path: &[u8]) -> Kind {
    let mut kind = Kind::Other;
    while let Some(&[node, sub, low, high]) = path.get(..4).and_then(|head| head.first_chunk()) {
        match (node, sub) {
            // MAC, IPv4, IPv6, Wi-Fi, URI: whatever else is in the path, this goes over a network.
            (3, 11 | 12 | 13 | 24 | 28) => return Kind::Network,
            // ATAPI, SCSI, USB, SATA, NVMe namespace, SD, UFS, eMMC; a hard drive's partition.
            (3, 1 | 2 | 5 | 18 | 23 | 25 | 26 | 29) | (4, 1) => kind = Kind::Disk,
            _ => {}
        }
        let length = usize::from(u16::from_le_bytes([low, high]));
        match path.get(length..) {
            Some(rest) if length >= 4 => path = rest,
            _ => break,
        }
    }
    kind
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = hex.as_bytes().chunks_exact(2);
    pairs
        .map_while(|pair| match *pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rackbar_model::Timestamp;

    use super::*;

    /// A load option as efivarfs gives it.
    fn option(attributes: u32, title: &str, nodes: &[(u8, u8, usize)]) -> String {
        let mut path = Vec::new();
        for (kind, sub, more) in nodes {
            path.extend([*kind, *sub, (*more + 4) as u8, 0]);
            path.extend(std::iter::repeat_n(0, *more));
        }
        path.extend([0x7f, 0xff, 4, 0]);
        let mut data = vec![7, 0, 0, 0];
        data.extend(attributes.to_le_bytes());
        data.extend((path.len() as u16).to_le_bytes());
        data.extend(title.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        data.extend(path);
        data.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn judge(order: &str, entries: &[(u16, String)]) -> Verdict {
        let mut text = format!("mode=uefi\norder=07000000{order}\n");
        entries
            .iter()
            .for_each(|(number, hex)| text += &format!("entry={number:04X} {hex}\n"));
        super::order(
            &super::super::tests::wishes(),
            &Probed::new(text, Timestamp(0), Timestamp(0)),
        )
    }

    #[test]
    fn the_first_entry_that_counts_decides() {
        let setup = (0, option(0x109, "UiApp", &[(4, 7, 16)]));
        let disk = (1, option(1, "debian", &[(2, 1, 8), (4, 1, 38), (4, 4, 20)]));
        let net = (
            2,
            option(1, "UEFI PXEv4", &[(2, 1, 8), (1, 1, 2), (3, 11, 33), (3, 12, 23)]),
        );
        let virtio = (3, option(1, "UEFI Misc Device", &[(2, 1, 8), (1, 1, 2), (3, 2, 4)]));
        let off = (4, option(0, "PXE off", &[(3, 11, 33)]));
        let all = [setup, disk, net, virtio, off];
        assert!(matches!(judge("000001000200", &all), Verdict::Passed { .. }));
        assert!(matches!(judge("040003000200", &all), Verdict::Passed { .. }));
        let Verdict::Failed { observed, .. } = judge("00000200", &all) else {
            panic!("the network was first");
        };
        assert_eq!(observed, "Boot0002 \"UEFI PXEv4\", the network");
        assert!(matches!(judge("", &[]), Verdict::Passed { .. }));
        // Where nothing could be read, nothing is known.
        let hidden = Probed::new("mode=uefi\norder=\ncurrent=\n".into(), Timestamp(0), Timestamp(0));
        let hidden = super::order(&super::super::tests::wishes(), &hidden);
        assert!(matches!(hidden, Verdict::Skipped(_)), "{hidden:?}");
    }

    #[test]
    fn without_uefi_the_bmc_decides_or_nobody() {
        let mut context = super::super::tests::wishes();
        let bios = || Probed::new("mode=bios\n".into(), Timestamp(0), Timestamp(0));
        assert!(matches!(super::order(&context, &bios()), Verdict::Skipped(_)));
        context.seen.boot_first = Some(BootFirst::Disk("Hdd".into()));
        assert!(matches!(super::order(&context, &bios()), Verdict::Passed { .. }));
        context.seen.boot_first = Some(BootFirst::Network("Pxe".into()));
        assert!(matches!(super::order(&context, &bios()), Verdict::Failed { .. }));
    }

    #[test]
    fn settings_that_differ_are_named() {
        let mut context = super::super::tests::wishes();
        let judge = |context: &Context| bios(context, &Probed::default());
        assert!(matches!(judge(&context), Verdict::Failed { observed, .. } if observed.contains("did not tell")));
        context.seen.attributes = Some([("X".into(), "Off".into())].into());
        assert!(matches!(judge(&context), Verdict::Failed { observed, .. } if observed == "X is Off instead of On"));
        context.seen.attributes = Some([("X".into(), "On".into())].into());
        assert!(matches!(judge(&context), Verdict::Passed { .. }));
    }

    proptest! {
        #[test]
        fn no_variable_panics(data: Vec<u8>) {
            let hex: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
            let _ = Entry::read(&format!("0001 {hex}"));
            let _ = kind_of(&data);
        }
    }
}
