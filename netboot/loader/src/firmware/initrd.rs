//! Handing the initial RAM filesystem to the kernel: its EFI stub looks for the LoadFile2 protocol on a device path of
//! one vendor node (Linux 5.8 and later, drivers/firmware/efi/libstub/efi-stub-helper.c).

use alloc::borrow::Cow;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ffi::c_void;

use uefi::proto::device_path::DevicePath;
use uefi::proto::media::load_file::LoadFile2;
use uefi::{Handle, Identify, Status, boot, guid};

/// LINUX_EFI_INITRD_MEDIA_GUID in a vendor-defined media node (type 4, subtype 3, 20 bytes), then the end of the path.
static PATH: [u8; 24] = {
    let guid = guid!("5568e427-68fc-4f3d-ac74-ca555231cc68").to_bytes();
    let mut path = [0u8; 24];
    path[0] = 4;
    path[1] = 3;
    path[2] = 20;
    let mut at = 0;
    while at < 16 {
        path[4 + at] = guid[at];
        at += 1;
    }
    path[20] = 0x7f;
    path[21] = 0xff;
    path[22] = 4;
    path
};

type LoadFileFn = unsafe extern "efiapi" fn(*mut c_void, *const c_void, u8, *mut usize, *mut c_void) -> Status;

/// EFI_LOAD_FILE2_PROTOCOL, which is one function, and behind it what it gives out. The firmware hands the address of
/// the whole to the function.
#[repr(C)]
struct Offer<'a> {
    load_file: LoadFileFn,
    pieces: Vec<Cow<'a, [u8]>>,
}

/// An initial RAM filesystem on offer. Withdrawn when dropped.
pub(super) struct Initrd<'a> {
    handle: Handle,
    offer: *mut Offer<'a>,
}

impl<'a> Initrd<'a> {
    /// Offers `pieces`, one behind the other.
    pub(super) fn offer(pieces: Vec<Cow<'a, [u8]>>) -> uefi::Result<Self> {
        let offer = Box::into_raw(Box::new(Offer { load_file, pieces }));
        // SAFETY: the path is static and the interface is on the heap until `drop` has withdrawn it.
        let handle = unsafe {
            boot::install_protocol_interface(None, &DevicePath::GUID, PATH.as_ptr().cast())
                .and_then(|handle| boot::install_protocol_interface(Some(handle), &LoadFile2::GUID, offer.cast()))
        };
        match handle {
            Ok(handle) => Ok(Self { handle, offer }),
            Err(error) => {
                // SAFETY: nobody else has the pointer.
                drop(unsafe { Box::from_raw(offer) });
                Err(error)
            }
        }
    }
}

impl Drop for Initrd<'_> {
    fn drop(&mut self) {
        // SAFETY: these two were installed by `offer`, with these very pointers.
        let withdrawn = unsafe {
            boot::uninstall_protocol_interface(self.handle, &LoadFile2::GUID, self.offer.cast())
                .and_then(|()| boot::uninstall_protocol_interface(self.handle, &DevicePath::GUID, PATH.as_ptr().cast()))
        };
        // Somebody may still hold the protocol open; then it must stay in memory.
        if withdrawn.is_ok() {
            // SAFETY: made by `Box::into_raw`, and nobody can reach it any more.
            drop(unsafe { Box::from_raw(self.offer) });
        }
    }
}

/// EFI_LOAD_FILE2_PROTOCOL.LoadFile (UEFI 2.10 section 13.2): asked without a buffer it says the size, then it fills.
unsafe extern "efiapi" fn load_file(
    this: *mut c_void,
    _path: *const c_void,
    boot_policy: u8,
    buffer_size: *mut usize,
    buffer: *mut c_void,
) -> Status {
    if this.is_null() || buffer_size.is_null() {
        return Status::INVALID_PARAMETER;
    }
    if boot_policy != 0 {
        return Status::UNSUPPORTED;
    }
    // SAFETY: `this` is what we installed: an `Offer`.
    let pieces = unsafe { &(*this.cast::<Offer<'_>>()).pieces };
    let size: usize = pieces.iter().map(|piece| piece.len()).sum();
    // SAFETY: checked for null; the caller owns it.
    let room = unsafe { buffer_size.replace(size) };
    if buffer.is_null() || room < size {
        return Status::BUFFER_TOO_SMALL;
    }
    let mut to = buffer.cast::<u8>();
    for piece in pieces {
        // SAFETY: the caller's buffer has room for `size` bytes, the sum of all pieces; it is no part of ours.
        unsafe {
            core::ptr::copy_nonoverlapping(piece.as_ptr(), to, piece.len());
            to = to.add(piece.len());
        }
    }
    Status::SUCCESS
}
