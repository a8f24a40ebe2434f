//! The virtual rack: an L2 switch in this process, QEMU machines with real firmware on its ports, simulated hosts
//! (BMCs, a foreign DHCP server, a web server) beside them. No root, no kernel networking.
//!
//! `cargo xtask rack` and the scenarios use the same library. It depends on nothing that it tests; with the rest of
//! the workspace it shares only the words of `rackbar-model` and the IPMI codec.
//!
//! Reading order: [`switch`] joins everything; [`host`] is a station of ours on it; [`qmp`] and [`machine`] are QEMU;
//! [`site`] is what a site already has (DHCP, web); [`seat`] is where a BMC sits; [`rack`] puts a file's rack together.

pub mod bmc;
pub mod console;
pub mod host;
pub mod machine;
pub mod qmp;
pub mod rack;
pub mod seat;
pub mod site;
pub mod switch;
