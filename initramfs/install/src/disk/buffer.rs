//! Memory that O_DIRECT takes: its address is a multiple of a page. `unsafe` for the allocation alone.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};

/// Alignment in bytes; no disk has larger sectors.
pub(crate) const ALIGN: usize = 4096;

/// Zeroed bytes at an aligned address.
pub(crate) struct Buffer {
    start: std::ptr::NonNull<u8>,
    layout: Layout,
}

// SAFETY: a buffer owns its memory alone, as a Vec does.
unsafe impl Send for Buffer {}
// SAFETY: shared access only reads.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// `length` zeros, rounded up to whole pages; at least one.
    pub(crate) fn new(length: usize) -> Self {
        let length = length.clamp(1, 1 << 30).next_multiple_of(ALIGN);
        let Ok(layout) = Layout::from_size_align(length, ALIGN) else {
            unreachable!("a GiB at most, aligned to a power of two")
        };
        // SAFETY: the layout's size is not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = std::ptr::NonNull::new(start).unwrap_or_else(|| handle_alloc_error(layout));
        Self { start, layout }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout and given back once.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the memory is initialised, as long as the layout says, and lives as long as the buffer.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.layout.size()) }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and the buffer is borrowed mutably.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.layout.size()) }
    }
}
