//! iPXE scripts: the one we write for every machine, and the site's own.
//!
//! Written for the iPXE of 2019 that distributions still ship as well as for today's: no command younger than that.
//! The command line holds the machine's token. It stands on the `kernel` line, which iPXE does not echo; nothing here
//! prints it.

use alloc::format;
use alloc::string::String;
use core::fmt;
use core::fmt::Write as _;

use rackbar_model::MacAddr;

use crate::{BootSpec, SpecFile};

/// How often the script tries before it hands back to the firmware; the waits between are 2, 4, 8 and 16 s.
const TRIES: u32 = 5;

/// The script that boots `spec`. `base_url` is the boot server as this machine reaches it, `http://192.0.2.1`.
pub fn render_ipxe(spec: &BootSpec, base_url: &str, mac: MacAddr) -> String {
    format!("#!ipxe\n{}", boot_part(spec, base_url, mac))
}

/// The part of a script that boots `spec`, from the label `:rackbar` on.
fn boot_part(spec: &BootSpec, base_url: &str, mac: MacAddr) -> String {
    let base_url = base_url.trim_end_matches('/');
    // UEFI: the kernel's EFI stub opens what `initrd=` names in the filesystem that iPXE offers it, so the names must
    // be those of the `initrd` lines, and be there. BIOS: iPXE puts the files behind each other and the kernel ignores
    // these arguments.
    let mut arguments = String::new();
    for file in &spec.initrds {
        arguments.push_str(" initrd=");
        arguments.push_str(file.name());
    }
    let mut script = format!(
        ":rackbar\n\
         echo Rackbar: {mac} boots from {base_url}\n"
    );
    for arch in OTHER_ARCHITECTURES {
        let _ = writeln!(script, "iseq ${{buildarch}} {arch} && goto rackbar-foreign ||");
    }
    let _ = write!(
        script,
        "set attempt:int32 0\n\
         :rackbar-try\n\
         inc attempt\n\
         imgfree\n\
         echo Rackbar: {}, try ${{attempt}} of {TRIES}\n",
        sizes(spec)
    );
    let mut line = |command: &str, file: &SpecFile, arguments: &str| {
        let _ = writeln!(
            script,
            "{command} --name {} {base_url}{}{arguments} || goto rackbar-failed",
            file.name(),
            file.path()
        );
    };
    // `initrd=` first: a command line of the kernel's greatest length then loses the site's arguments, not these.
    line("kernel", &spec.kernel, &format!("{arguments} {}", spec.command_line));
    for file in &spec.initrds {
        line("initrd", file, "");
    }
    script.push_str("echo Rackbar: starting the kernel\nboot || goto rackbar-failed\n");
    script.push_str(&failure_part(base_url));
    script.push_str(
        ":rackbar-foreign\n\
         echo Rackbar: this machine is ${buildarch}, and Rackbar has a kernel for x86-64 only: handing back to the firmware\n\
         sleep 10\n\
         exit 1\n",
    );
    script
}

/// What iPXE calls the processors that our kernel does not run on: their iPXE comes from the site.
const OTHER_ARCHITECTURES: [&str; 5] = ["arm32", "arm64", "riscv32", "riscv64", "loong64"];

/// What the machine is about to fetch, in words.
fn sizes(spec: &BootSpec) -> String {
    let mut words = String::from("fetching");
    for (n, file) in core::iter::once(&spec.kernel).chain(&spec.initrds).enumerate() {
        let comma = if n == 0 { "" } else { "," };
        let _ = write!(words, "{comma} {} {} KiB", file.name(), file.size().div_ceil(1024));
    }
    words
}

/// How many of the BIOS's disks the script tries, in its order.
const BIOS_DISKS: u32 = 4;

/// The script for a machine that is installed: it boots its disk.
///
/// UEFI: `exit 1`. The firmware's boot manager goes on to the next boot option only after an error (UEFI 2.10 section
/// 3.1.1); after a success EDK2 opens its menu and waits there for ever.
///
/// BIOS: `sanboot` of each disk in the BIOS's order, then `exit 1`. To leave is not enough: a network card's own PXE ROM
/// that started us often hangs or starts over when its boot program comes back. A disk without a boot sector is passed
/// over, so an erased disk in front of the installed one does no harm.
pub fn render_local_disk(mac: MacAddr) -> String {
    let mut script = format!(
        "#!ipxe\n\
         echo Rackbar: {mac} is installed: going on to its disk\n\
         iseq ${{platform}} efi && goto rackbar-firmware ||\n"
    );
    for disk in 0..BIOS_DISKS {
        let _ = writeln!(script, "sanboot --no-describe --drive {:#x} ||", 0x80 + disk);
    }
    script.push_str(
        ":rackbar-firmware\n\
         echo Rackbar: handing back to the firmware, which goes on with its boot order\n\
         exit 1\n",
    );
    script
}

/// Waits and tries again, or says why not and hands back to the firmware.
fn failure_part(base_url: &str) -> String {
    let mut script = String::from(":rackbar-failed\n");
    for attempt in 1..TRIES {
        let wait = 1 << attempt;
        let _ = writeln!(
            script,
            "iseq ${{attempt}} {attempt} && echo Rackbar: that failed, the line above says why: again in {wait} s ||\n\
             iseq ${{attempt}} {attempt} && sleep {wait} ||\n\
             iseq ${{attempt}} {attempt} && goto rackbar-try ||"
        );
    }
    let _ = write!(
        script,
        "echo Rackbar: giving up after {TRIES} tries. Can this machine reach {base_url}?\n\
         echo Rackbar: look at its timeline on the appliance: handing back to the firmware\n\
         sleep 10\n\
         imgfree\n\
         exit 1\n"
    );
    script
}

/// The largest script of a site in bytes: a menu has some hundred lines, and every boot carries it.
pub const MAX_SITE_SCRIPT: usize = 64 << 10;

/// A script of the site's own, for one machine or for all, in place of ours.
///
/// It may use `${rackbar-url}` (the boot server), `${rackbar-mac}`, and `goto rackbar` for the boot it replaces: a menu
/// is a script of a few `item` lines.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SiteScript {
    mac: Option<MacAddr>,
    text: String,
}

impl SiteScript {
    /// A script for the machine with `mac`, or without one for all.
    ///
    /// # Errors
    /// iPXE takes only text that begins with `#!ipxe` for a script; `:rackbar` is the label of ours; and it is at most
    /// [`MAX_SITE_SCRIPT`] bytes long.
    pub fn new(mac: Option<MacAddr>, text: &str) -> Result<Self, BadScript> {
        if text.len() > MAX_SITE_SCRIPT {
            return Err(BadScript::TooLong { bytes: text.len() });
        }
        // A file from an editor on Windows: iPXE would take the carriage return as part of the last word.
        let text = text.replace("\r\n", "\n");
        if text.lines().next().map(str::trim_end) != Some("#!ipxe") {
            return Err(BadScript::NoMagic);
        }
        if let Some(at) = text.lines().position(|line| line.trim_start().starts_with(":rackbar")) {
            return Err(BadScript::OurLabel { line: at + 1 });
        }
        Ok(Self { mac, text })
    }

    /// The machine it is for; `None` for all.
    pub fn mac(&self) -> Option<MacAddr> {
        self.mac
    }

    /// The script as it goes to the machine: the site's text between its variables and our boot. When it ends without
    /// a jump, the machine goes back to its firmware.
    pub fn render(&self, spec: &BootSpec, base_url: &str, mac: MacAddr) -> String {
        let body = self.text.split_once('\n').map_or("", |(_, body)| body);
        format!(
            "#!ipxe\nset rackbar-url {}\nset rackbar-mac {mac}\n{body}\nexit\n{}",
            base_url.trim_end_matches('/'),
            boot_part(spec, base_url, mac)
        )
    }
}

/// The site's script for a machine, if it has one: that for its MAC address, else that for all.
pub fn site_script(scripts: &[SiteScript], mac: MacAddr) -> Option<&SiteScript> {
    let of = |wanted: Option<MacAddr>| scripts.iter().find(|script| script.mac == wanted);
    of(Some(mac)).or_else(|| of(None))
}

/// Why a site's script was not taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BadScript {
    /// The first line is not `#!ipxe`.
    NoMagic,
    /// It defines a label that begins with `:rackbar`.
    OurLabel {
        /// The line, from 1.
        line: usize,
    },
    /// It is longer than [`MAX_SITE_SCRIPT`].
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

impl fmt::Display for BadScript {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoMagic => f.write_str("line 1 of an iPXE script must be `#!ipxe`"),
            Self::TooLong { bytes } => write!(
                f,
                "it has {bytes} bytes; an iPXE script of a site has at most {MAX_SITE_SCRIPT}: `chain` what is larger"
            ),
            Self::OurLabel { line } => {
                write!(
                    f,
                    "line {line}: labels beginning with `:rackbar` are Rackbar's own; choose another name"
                )
            }
        }
    }
}

impl core::error::Error for BadScript {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::example;

    const MAC: MacAddr = MacAddr([0x52, 0x54, 0, 0x12, 0x34, 0x56]);

    #[test]
    fn the_script_loads_kernel_then_initrds_and_names_them_for_uefi() {
        let script = render_ipxe(&example(), "http://192.0.2.1/", MAC);
        assert!(script.starts_with("#!ipxe\n"));
        let kernel = format!(
            "kernel --name vmlinuz http://192.0.2.1/boot/v1/files/{}/vmlinuz initrd=base.cpio.zst initrd=extra.cpio rackbar.role=node",
            "11".repeat(32)
        );
        let base = format!(
            "initrd --name base.cpio.zst http://192.0.2.1/boot/v1/files/{}/base.cpio.zst ||",
            "22".repeat(32)
        );
        let (at_kernel, at_base) = (script.find(&kernel).unwrap(), script.find(&base).unwrap());
        let at_extra = script.find("initrd --name extra.cpio ").unwrap();
        let at_boot = script.find("\nboot || goto rackbar-failed\n").unwrap();
        assert!(at_kernel < at_base && at_base < at_extra && at_extra < at_boot);
    }

    #[test]
    fn every_jump_has_its_label() {
        let script = render_ipxe(&example(), "http://192.0.2.1", MAC);
        for (_, rest) in script.match_indices("goto ").map(|(at, _)| script.split_at(at + 5)) {
            let label = rest.split_whitespace().next().unwrap();
            assert!(script.lines().any(|l| l == format!(":{label}")), "{label}");
        }
    }

    #[test]
    fn nothing_that_is_printed_holds_the_token() {
        let script = render_ipxe(&example(), "http://192.0.2.1", MAC);
        assert_eq!(
            script.lines().filter(|l| l.contains("5ec2e7")).count(),
            1,
            "the kernel line only"
        );
        assert!(
            !script
                .lines()
                .any(|l| l.starts_with("echo") && l.contains("rackbar.token"))
        );
    }

    #[test]
    fn an_installed_machine_tries_its_disks_on_bios_and_fails_upwards_on_uefi() {
        let script = render_local_disk(MAC);
        let at = |what: &str| script.find(what).unwrap();
        assert!(script.starts_with("#!ipxe\n"));
        assert!(at("goto rackbar-firmware ||") < at("sanboot --no-describe --drive 0x80 ||"));
        assert!(at("--drive 0x83 ||") < at("\n:rackbar-firmware\n") && script.ends_with("exit 1\n"));
    }

    #[test]
    fn a_script_for_the_machine_wins_over_one_for_all() {
        let script = |mac, word: &str| SiteScript::new(mac, &format!("#!ipxe\necho {word}\n")).unwrap();
        let scripts = [script(None, "all"), script(Some(MAC), "machine")];
        let chosen = |mac| site_script(&scripts, mac).map(|s| s.text.as_str());
        assert_eq!(chosen(MAC), Some("#!ipxe\necho machine\n"));
        assert_eq!(chosen(MacAddr([2; 6])), Some("#!ipxe\necho all\n"));
        assert_eq!(site_script(&scripts[1..], MacAddr([2; 6])), None);
    }

    #[test]
    fn a_menu_of_the_site_can_still_boot_ours() {
        let menu = "#!ipxe\r\nmenu Rack 7\r\nitem rackbar Inspect\r\nchoose what && goto ${what}\r\n";
        let script = SiteScript::new(None, menu)
            .unwrap()
            .render(&example(), "http://192.0.2.1", MAC);
        assert!(
            script.starts_with("#!ipxe\nset rackbar-url http://192.0.2.1\nset rackbar-mac 52:54:00:12:34:56\nmenu")
        );
        assert!(script.contains("\nexit\n:rackbar\n") && !script.contains('\r'));
        assert_eq!(SiteScript::new(None, "echo hi"), Err(BadScript::NoMagic));
        let ours = SiteScript::new(None, "#!ipxe\n:rackbar-try\n");
        assert_eq!(ours, Err(BadScript::OurLabel { line: 2 }));
        let long = format!("#!ipxe\n{}", "#\n".repeat(MAX_SITE_SCRIPT / 2));
        assert!(matches!(SiteScript::new(None, &long), Err(BadScript::TooLong { .. })));
    }
}
