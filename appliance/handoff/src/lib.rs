//! Handing ready machines over to other tools. So far: Ansible, as a dynamic inventory.

mod ansible;

pub use ansible::{Host, ansible, ansible_host, group_name};
