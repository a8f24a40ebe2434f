//! The loader's thinking: everything that can be decided without firmware, and so tested on any machine.
//!
//! All of it reads bytes that come from outside (packets, headers, device paths, a damaged disk) and never panics on
//! them. What talks to the firmware is in the program, under `firmware/`.
#![no_std]

extern crate alloc;

pub mod command_line;
pub mod cpio;
pub mod device_path;
pub mod fetch;
pub mod http;
pub mod medium;
pub mod packet;
pub mod payload;
pub mod progress;
pub mod server;
