//! The file systems every Linux program expects, and standard input and output.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

use crate::report::say;

const SAFE: MsFlags = MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV).union(MsFlags::MS_NOEXEC);

/// Type, target, flags, options. `/run` and `/tmp` are bounded: what fills them must not take the machine down.
const FIRST: [(&str, &str, MsFlags, &str); 7] = [
    ("proc", "/proc", SAFE, ""),
    ("sysfs", "/sys", SAFE, ""),
    // Debian's kernels do not mount devtmpfs by themselves in an initramfs.
    (
        "devtmpfs",
        "/dev",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        "mode=0755",
    ),
    (
        "devpts",
        "/dev/pts",
        MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        "mode=0620,ptmxmode=0666",
    ),
    ("tmpfs", "/dev/shm", SAFE, "mode=1777,size=10%"),
    ("tmpfs", "/run", SAFE, "mode=0755,size=64m"),
    ("tmpfs", "/tmp", SAFE, "mode=1777,size=25%"),
];

/// Mounts one file system, making its folder first. Already mounted is as good.
pub(crate) fn one(source: &str, target: &str, kind: &str, flags: MsFlags, options: &str) -> io::Result<()> {
    fs::create_dir_all(target)?;
    match mount(Some(source), target, Some(kind), flags, Some(options)) {
        Ok(()) | Err(Errno::EBUSY) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Mounts what everything else needs. Failures are returned as words: there may be no console yet to say them on.
pub(crate) fn first() -> Vec<String> {
    let mut faults = Vec::new();
    for (kind, target, flags, options) in FIRST {
        if let Err(error) = one(kind, target, kind, flags, options) {
            faults.push(format!("{kind} cannot be mounted at {target}: {error}"));
        }
    }
    for (folder, mode) in [(crate::capture::LOG_FOLDER, 0o700), (crate::RUN_FOLDER, 0o755)] {
        let made =
            fs::create_dir_all(folder).and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(mode)));
        if let Err(error) = made {
            faults.push(format!("{folder} cannot be made: {error}"));
        }
    }
    faults
}

/// Mounts the EFI variables when the firmware is UEFI; the driver may be a module.
pub(crate) fn efi_variables() {
    if !fs::exists("/sys/firmware/efi").unwrap_or(false) {
        return;
    }
    let target = "/sys/firmware/efi/efivars";
    if let Err(error) = one("efivarfs", target, "efivarfs", SAFE | MsFlags::MS_RDONLY, "") {
        say!("EFI variables cannot be read, so Secure Boot's state stays unknown: {error}");
    }
}

/// Points standard input, output and error at the console. The kernel does so too, but before `/dev` is mounted, and
/// not at all when the image lacks `/dev/console`.
pub(crate) fn console() -> io::Result<()> {
    let console = fs::OpenOptions::new().read(true).write(true).open("/dev/console")?;
    nix::unistd::dup2_stdin(&console)?;
    nix::unistd::dup2_stdout(&console)?;
    nix::unistd::dup2_stderr(&console)?;
    Ok(())
}
