//! Starting the installed kernel without a restart of the firmware: kexec_file_load(2). Init jumps when everything is
//! unmounted, on the order that the agent gives once its answer was noted.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::libc;
use rackbar_messages::JobReport;
use rackbar_model::RootTarget;

use crate::control::refuse;
use crate::setup::Tree;
use crate::target::Installed;
use crate::{Machine, Result};

/// Loads kernel and initrd of the system on a target.
pub(crate) fn load(machine: &Machine, target: &RootTarget) -> Result<JobReport> {
    let installed = Installed::find(machine, target)?;
    let mounted = installed.mount(machine)?;
    let tree = Tree::open(mounted.path())?;
    let (kernel, initrd) = newest(&tree.names("/boot")).ok_or_else(|| {
        refuse(
            "the installed system has no /boot/vmlinuz-*",
            "restart through the firmware instead (`restart = \"firmware\"` in the role)",
        )
    })?;
    let arguments = arguments(&tree, &kernel)?;
    let open = |name: &str| {
        let path = format!("/boot/{name}");
        tree.file(&path).ok_or_else(|| {
            refuse(
                format!("{path} cannot be opened"),
                "restart through the firmware instead",
            )
        })
    };
    let kernel = open(&kernel)?;
    let initrd = initrd.map(|name| open(&name)).transpose()?;
    let line = CString::new(arguments).map_err(|_| refuse("the kernel's arguments have a zero byte in them", ""))?;
    file_load(&kernel, initrd.as_ref(), &line).map_err(|error| {
        let advice = match error {
            Errno::EKEYREJECTED | Errno::EPERM | Errno::ENOKEY => {
                "under Secure Boot only a kernel signed by a key of the firmware's db can be jumped to; restart through the \
                 firmware instead"
            }
            _ => "restart through the firmware instead",
        };
        refuse(format!("the installed kernel cannot be loaded: {error}"), advice)
    })?;
    // Open files of it would keep the file system mounted.
    drop((kernel, initrd, tree));
    mounted.unmount()?;
    Ok(JobReport::Jumping)
}

/// The newest kernel by version and its initrd, which Debian calls `initrd.img-` and others `initramfs-*.img`.
pub(crate) fn newest(names: &[String]) -> Option<(String, Option<String>)> {
    let versions = names.iter().filter_map(|name| name.strip_prefix("vmlinuz-"));
    // Fedora's rescue kernel is no default.
    let version = versions
        .filter(|version| !version.contains("rescue"))
        .max_by_key(|version| order(version))?;
    let candidates = [
        format!("initrd.img-{version}"),
        format!("initramfs-{version}.img"),
        format!("initrd-{version}"),
    ];
    let initrd = candidates.into_iter().find(|name| names.contains(name));
    Some((format!("vmlinuz-{version}"), initrd))
}

/// Numbers of a version one by one, so that 6.10 is above 6.9.
fn order(version: &str) -> Vec<u64> {
    let parts = version
        .split(|c: char| !c.is_ascii_digit())
        .filter(|part| !part.is_empty());
    parts.map(|part| part.parse().unwrap_or(u64::MAX)).collect()
}

/// What the system gives its kernel: the line of grub.cfg for it, or `/etc/kernel/cmdline`.
fn arguments(tree: &Tree, kernel: &str) -> Result<String> {
    let grub = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"]
        .iter()
        .find_map(|path| tree.read(path));
    let of_grub = grub.and_then(|text| {
        let sourced: String = sourced(&text).filter_map(|path| tree.read(path)).collect();
        of_grub(&(sourced + "\n" + &text), kernel)
    });
    let of_file = || {
        tree.read("/etc/kernel/cmdline")
            .map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    };
    let line = of_grub
        .or_else(of_file)
        .filter(|line| line.split_whitespace().any(|word| word.starts_with("root=")));
    line.ok_or_else(|| {
        refuse(
            "neither grub.cfg nor /etc/kernel/cmdline say how the installed kernel finds its root",
            "restart through the firmware instead",
        )
    })
}

/// Files of settings that a configuration of GRUB takes in by their full path.
pub(crate) fn sourced(text: &str) -> impl Iterator<Item = &str> {
    let paths = text.lines().filter_map(|line| line.trim().strip_prefix("source "));
    paths.map(str::trim).filter(|path| path.starts_with('/'))
}

/// The arguments of the first `linux` line for this kernel, or for Debian's link `/vmlinuz` to the newest one. Of GRUB's
/// variables those are known that the text sets; what GRUB only finds out when it runs is of no use here.
pub(crate) fn of_grub(text: &str, kernel: &str) -> Option<String> {
    let settings = text.lines().filter_map(|line| line.trim().strip_prefix("set "));
    let settings: BTreeMap<&str, &str> = settings.filter_map(|setting| setting.split_once('=')).collect();
    let value = |word: &str| -> Option<String> {
        let Some(name) = word.strip_prefix('$') else {
            return (!word.contains('$')).then(|| word.to_owned());
        };
        let name = name.trim_start_matches('{').trim_end_matches('}');
        let value = settings.get(name)?.trim().trim_matches(['"', '\'']);
        (!value.is_empty() && !value.contains('$')).then(|| value.to_owned())
    };
    let of_kernel = |line: &str| {
        let mut words = line.split_whitespace();
        let command = words.next()?;
        let path = words.next()?;
        let name = path.rsplit('/').next()?;
        let fits = command.starts_with("linux") && (name == kernel || name == "vmlinuz");
        let rest: Vec<String> = words.filter_map(value).collect();
        fits.then(|| rest.join(" "))
    };
    text.lines().map(str::trim_start).find_map(of_kernel)
}

/// The system call.
fn file_load(kernel: &File, initrd: Option<&File>, line: &CString) -> std::result::Result<(), Errno> {
    const KEXEC_FILE_NO_INITRAMFS: libc::c_ulong = 4;
    let flags = if initrd.is_some() { 0 } else { KEXEC_FILE_NO_INITRAMFS };
    let length = line.as_bytes_with_nul().len() as libc::c_ulong;
    let initrd = initrd.map_or(-1, AsRawFd::as_raw_fd);
    // SAFETY: the kernel reads two open files and `length` bytes of a string that ends in zero; all live until the call
    // returns.
    let result = unsafe {
        libc::syscall(
            libc::SYS_kexec_file_load,
            kernel.as_raw_fd(),
            initrd,
            length,
            line.as_ptr(),
            flags,
        )
    };
    Errno::result(result).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_kernel_and_its_initrd() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let debian = names(&[
            "config-6.1.0-9-amd64",
            "initrd.img-6.1.0-10-amd64",
            "vmlinuz-6.1.0-10-amd64",
            "vmlinuz-6.1.0-9-amd64",
        ]);
        let found = newest(&debian).unwrap();
        assert_eq!(
            found,
            (
                "vmlinuz-6.1.0-10-amd64".into(),
                Some("initrd.img-6.1.0-10-amd64".into())
            )
        );
        let fedora = names(&[
            "initramfs-6.5.6-300.fc39.x86_64.img",
            "vmlinuz-0-rescue-abc",
            "vmlinuz-6.5.6-300.fc39.x86_64",
        ]);
        assert_eq!(
            newest(&fedora).unwrap().1.as_deref(),
            Some("initramfs-6.5.6-300.fc39.x86_64.img")
        );
        assert_eq!(newest(&names(&["grub"])), None);
    }

    #[test]
    fn the_line_of_this_kernel_is_taken() {
        let text = "menuentry 'Debian' {\n\tlinux\t/boot/vmlinuz-6.1.0-9-amd64 root=UUID=old ro\n}\n\
                    menuentry 'new' {\n\tlinux\t/boot/vmlinuz-6.1.0-10-amd64 root=UUID=abc ro console=ttyS0 $extra\n}\n";
        assert_eq!(
            of_grub(text, "vmlinuz-6.1.0-10-amd64").unwrap(),
            "root=UUID=abc ro console=ttyS0"
        );
        assert_eq!(of_grub(text, "vmlinuz-7"), None);
    }

    #[test]
    fn the_link_to_the_newest_kernel_and_settings_of_other_files_are_followed() {
        let menu = "source /boot/grub/cmdline.cfg\nsource $prefix/x.cfg\n\
                    menuentry 'Debian' {\n    linux /vmlinuz root=UUID=abc ro $rack_args ${other}\n}\n\
                    menuentry 'old' {\n    linux /vmlinuz.old root=UUID=abc ro\n}\n";
        assert_eq!(sourced(menu).collect::<Vec<_>>(), ["/boot/grub/cmdline.cfg"]);
        let text = format!("# a word\nset rack_args=\"console=ttyS0,115200 quiet\"\n{menu}");
        assert_eq!(
            of_grub(&text, "vmlinuz-6.1.0-9-amd64").unwrap(),
            "root=UUID=abc ro console=ttyS0,115200 quiet"
        );
    }

    proptest::proptest! {
        #[test]
        fn any_menu_is_read(text: String) {
            let _ = (of_grub(&text, "vmlinuz-1"), sourced(&text).count());
        }
    }
}
