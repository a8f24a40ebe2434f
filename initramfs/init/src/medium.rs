//! The appliance's boot medium.

use std::sync::mpsc::Receiver;

use nix::mount::MsFlags;
use rackbar_hardware::cmdline::Arguments;

use crate::mounts;
use crate::report::say;

pub(crate) fn mount_all(_arguments: &Arguments, _blocks: &Receiver<String>) {
    volatile("this version does not look for a data partition yet");
}

/// Puts `/data` into memory and says so.
fn volatile(why: &str) {
    say!("/data is in memory and will be lost at power-off: {why}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if let Err(error) = mounts::one("tmpfs", "/data", "tmpfs", flags, "mode=0700,size=50%") {
        say!("/data cannot even be put into memory: {error}");
    }
    if let Err(error) = std::fs::write(format!("{}/volatile", crate::RUN_FOLDER), why) {
        say!("cannot note that /data is in memory: {error}");
    }
}
