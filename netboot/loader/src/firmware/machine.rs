//! What we are told about ourselves and the machine: our own image, load options, Secure Boot, the emulator.

use alloc::string::String;
use core::arch::x86_64::__cpuid;

use rackbar_loader::command_line::load_options_text;
use uefi::boot::{self, OpenProtocolAttributes, OpenProtocolParams, ScopedProtocol};
use uefi::proto::ProtocolPointer;
use uefi::proto::device_path::DevicePath;
use uefi::proto::loaded_image::LoadedImage;
use uefi::runtime::{self, VariableVendor};
use uefi::{Handle, cstr16};

/// What we know before anything is started.
pub(super) struct Machine {
    /// Our own image as the firmware loaded it.
    pub(super) image: &'static [u8],
    /// The device we were loaded from.
    pub(super) device: Option<Handle>,
    /// Text from the firmware's boot entry. `None` under Secure Boot, whatever it says.
    pub(super) load_options: Option<String>,
    /// True when firmware starts only what is signed with its keys.
    pub(super) secure_boot: bool,
    /// True under QEMU's emulator (not when it uses the processor's virtualisation).
    pub(super) emulated: bool,
}

impl Machine {
    pub(super) fn look() -> uefi::Result<Self> {
        let loaded = get::<LoadedImage>(boot::image_handle())?;
        let (base, size) = loaded.info();
        // SAFETY: the firmware placed our image there; it stays until we exit, and nobody writes to the sections that
        // are read through this slice (headers, payload).
        let image = unsafe { core::slice::from_raw_parts(base.cast::<u8>(), size as usize) };
        let secure_boot = secure_boot();
        let load_options = loaded.load_options_as_bytes().and_then(load_options_text);
        Ok(Self {
            image,
            device: loaded.device(),
            load_options: load_options.filter(|_| !secure_boot),
            secure_boot,
            emulated: emulated(),
        })
    }

    /// The device path of the device we were loaded from, as bytes.
    pub(super) fn device_path(&self) -> Option<alloc::vec::Vec<u8>> {
        let path = get::<DevicePath>(self.device?).ok()?;
        Some(path.as_bytes().to_vec())
    }
}

/// Opens a protocol to look at it, leaving whoever else uses it alone.
pub(super) fn get<P: ProtocolPointer + ?Sized>(handle: Handle) -> uefi::Result<ScopedProtocol<P>> {
    let params = OpenProtocolParams {
        handle,
        agent: boot::image_handle(),
        controller: None,
    };
    // SAFETY: nothing we do between opening and closing makes the firmware take the protocol away.
    unsafe { boot::open_protocol::<P>(params, OpenProtocolAttributes::GetProtocol) }
}

/// UEFI 2.10 section 3.3: `SecureBoot` is 1 when the firmware enforces signatures.
fn secure_boot() -> bool {
    let mut value = [0u8; 1];
    runtime::get_variable(cstr16!("SecureBoot"), &VariableVendor::GLOBAL_VARIABLE, &mut value)
        .is_ok_and(|(value, _)| value == [1])
}

/// QEMU's translator names itself in the hypervisor leaf. On bare metal that leaf answers with other words.
fn emulated() -> bool {
    let leaf = __cpuid(0x4000_0000);
    let mut name = [0u8; 12];
    for (part, register) in name.chunks_exact_mut(4).zip([leaf.ebx, leaf.ecx, leaf.edx]) {
        part.copy_from_slice(&register.to_le_bytes());
    }
    name == *b"TCGTCGTCGTCG"
}
