//! Answer files for outside installers.

mod cephadm;
mod kubespray;
mod packstack;

pub use cephadm::cephadm;
pub use kubespray::kubespray;
pub use packstack::packstack;
