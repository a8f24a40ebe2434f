//! Handing ready machines over to other tools: what each of them reads, from the rack's state and the site file's
//! `[handoff]`, and the one-time secrets by which an installed system enrols itself there.
//!
//! Pure: asks no network, reads no clock, keeps nothing. Whatever a tool asks for at its own run is there and empty when
//! we know nothing of the machine, so that the tool goes on without us.

mod ansible;
mod answers;
pub mod chef;
pub mod consul;
pub mod csr;
pub mod enrol;
pub mod facts;
mod member;
mod place;
pub mod puppet;
mod render;
mod salt;
mod yaml;

pub use ansible::{Host, ansible, ansible_host, group_name};
pub use member::{Member, Rack};
pub use place::{NoFiles, chef_files, files, puppet_files, salt_files};
pub use render::{EXPORTS, Export, ExportError, render};
