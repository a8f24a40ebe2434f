//! Stories told with the real appliance image. One file per story.

mod demo;
mod media;
mod power_cut;
mod proxy;
