//! What goes on Rackbar's boot media, as data (`data/`), and the code that writes them: cpio, zstd, PE sections,
//! GPT, ext4, and with `rackbar-boot-media` FAT and ISO 9660. Everything works as an ordinary user, with no loop devices and no outside tools, and the same
//! inputs give the same bytes.
//!
//! [`media::build`] makes all files of `target/image`; [`disk::write`] and [`iso::write`] make one medium with a
//! configuration of its own from a finished `rackbar.efi`, quickly enough to do so per test.

pub mod audit;
pub mod cache;
pub mod compress;
pub mod contents;
pub mod cpio;
pub mod deb;
pub mod digest;
pub mod disk;
pub mod ext4;
mod gpt;
pub mod iso;
pub mod kernel;
pub mod limits;
pub mod media;
pub mod modinfo;
pub mod modules;
pub mod os;
pub mod packs;
pub mod pe;
pub mod sbom;
pub mod sign;

pub use rackbar_boot_media::{epoch, fat};
