//! Starting a kernel that lies in memory.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use rackbar_loader::command_line::{self, Parts};
use rackbar_loader::payload::Payload;
use uefi::boot::{self, LoadImageSource};
use uefi::proto::loaded_image::LoadedImage;
use uefi::{Status, println};

use super::initrd::Initrd;
use super::machine::{Machine, get};
use super::origin;

/// A kernel and what it gets.
pub(super) struct Kernel<'a> {
    /// A bootable EFI image.
    pub(super) image: &'a [u8],
    /// The pieces of its initial RAM filesystem.
    pub(super) initrd: Vec<Cow<'a, [u8]>>,
    /// From the manifest or the image.
    pub(super) command_line: &'a str,
    /// True when the command line came signed over the network.
    pub(super) signed: bool,
}

/// Starts the payload of our own image.
pub(super) fn embedded(machine: &Machine, payload: &Payload<'static>) -> Result<(), String> {
    let kernel = Kernel {
        image: payload.kernel,
        initrd: payload.initrd().map_err(|error| error.to_string())?,
        command_line: payload.command_line,
        signed: false,
    };
    origin::tell(machine);
    start(machine, kernel, || ())
}

/// Starts `kernel`; `last` is done when nothing but the jump is left. Returns only when that failed.
pub(super) fn start(machine: &Machine, kernel: Kernel<'_>, last: impl FnOnce()) -> Result<(), String> {
    let line = command_line::assemble(&Parts {
        base: kernel.command_line,
        load_options: machine.load_options.as_deref(),
        signed: kernel.signed,
        emulated: machine.emulated,
    })
    .map_err(|length| {
        format!(
            "the kernel command line has {length} bytes, {} is the most",
            command_line::LONGEST
        )
    })?;
    let handle = boot::load_image(
        boot::image_handle(),
        LoadImageSource::FromBuffer {
            buffer: kernel.image,
            file_path: None,
        },
    )
    .map_err(|error| explain(error.status(), machine.secure_boot))?;
    // The stub reads UCS-2; all of our characters are ASCII or at least of the basic plane.
    let options: Vec<u16> = line.encode_utf16().chain([0]).collect();
    {
        let mut loaded = get::<LoadedImage>(handle).map_err(|error| format!("the loaded kernel is gone: {error}"))?;
        // SAFETY: `options` lives until the kernel has returned.
        unsafe { loaded.set_load_options(options.as_ptr().cast(), (options.len() * 2) as u32) };
    }
    let _initrd = Initrd::offer(kernel.initrd)
        .map_err(|error| format!("the firmware does not take the initial RAM filesystem: {error}"))?;
    last();
    println!("Rackbar: starting the kernel");
    let result = boot::start_image(handle);
    // After a failed start some firmware has unloaded the image already.
    let _ = boot::unload_image(handle);
    result.map_err(|error| {
        format!(
            "the kernel did not start: {}",
            explain(error.status(), machine.secure_boot)
        )
    })
}

/// A firmware status as words for somebody in front of the machine.
fn explain(status: Status, secure_boot: bool) -> String {
    match status {
        Status::ACCESS_DENIED | Status::SECURITY_VIOLATION if secure_boot => {
            "Secure Boot is on and the firmware has no key that signed this kernel; enrol the site's key in the firmware's \
             setup, or switch Secure Boot off there"
                .into()
        }
        Status::ACCESS_DENIED | Status::SECURITY_VIOLATION => {
            "the firmware's policy refuses this kernel; look for a setting about signed boot images in its setup".into()
        }
        Status::UNSUPPORTED => "the firmware cannot run this kernel: it is for another processor or has no EFI stub".into(),
        Status::OUT_OF_RESOURCES => "the machine has too little memory for the kernel and its initial RAM filesystem".into(),
        Status::LOAD_ERROR => "the kernel is damaged: the firmware cannot read it as an EFI image".into(),
        other => format!("the firmware says {other}"),
    }
}
