//! Kernel modules: which ones the machine's devices ask for, and inserting them in order.
//!
//! Only what is present is loaded: inserting all 150 drivers of the image takes 3 seconds, the ones a machine needs
//! take a tenth of that. The kernel names each device by a modalias; depmod's tables name the modules for it.

mod glob;
mod index;
mod loader;
mod scan;

pub use index::{ModuleIndex, Step};
pub use loader::{Loader, Outcome, Settings};
pub use scan::{Wanted, missing_drivers, present};
