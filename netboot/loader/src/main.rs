//! Rackbar's UEFI boot program: boots the kernel embedded in its own image, or what the site's appliance signs for this
//! machine. Built for `x86_64-unknown-uefi`; elsewhere there is only a word about that.
#![cfg_attr(target_os = "uefi", no_std, no_main)]

#[cfg(target_os = "uefi")]
extern crate alloc;

#[cfg(target_os = "uefi")]
mod firmware;

#[cfg(not(target_os = "uefi"))]
fn main() {
    eprintln!(
        "this program runs in UEFI firmware: cargo build --release -p rackbar-loader --target x86_64-unknown-uefi"
    );
    std::process::exit(2);
}
