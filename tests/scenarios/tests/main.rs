//! Stories told with the real appliance image. One file per story.

mod alone;
mod bad_file;
mod bmc_ways;
mod demo;
mod erased;
mod firmware;
mod https;
mod install;
mod installer;
mod ipxe;
mod local_disk;
mod media;
mod mixed;
mod offline;
mod operator;
mod page;
mod ports;
mod power_cut;
mod proxy;
mod rack_verb;
mod refused;
mod reproducible;
mod seen;
mod shipped;
mod storage;
mod trunk;
