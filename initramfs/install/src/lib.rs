//! The agent's hands: emptying disks, writing images to them, giving the installed system its identity, and starting it.
//!
//! Only kernel interfaces are used: a node has no tools. Every part works on plain files and loop devices too, so that
//! it is tested where it is built. Nothing here trusts what lies on a disk or comes over the network: parsers never
//! panic, an image is bootable only after its digest was right, and no path leads out of the installed system's root.

mod burnin;
mod condition;
mod control;
mod disk;
mod efi;
mod erase;
#[doc(hidden)]
pub mod fuzzing;
mod kernel_log;
mod kexec;
mod layout;
mod mirror;
mod mount;
pub mod own;
mod probe;
mod rescue;
mod setup;
mod stream;
mod table;
mod target;
#[cfg(test)]
mod testing;

use rackbar_hardware::{Root, bmc};
use rackbar_messages::{BmcSetup, JobReport, Work};

pub use control::{Control, Progress, Result};
pub use kernel_log::KernelLog;

/// The machine that is worked on.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// Where its `sys`, `proc` and `dev` are.
    pub root: Root,
}

impl Machine {
    /// Loads a kernel module that nothing asks for by itself. Init knows how, and is the one program besides the agent;
    /// whether it worked shows when the module is used.
    fn load_module(&self, name: &str) {
        let init = self.root.path("init");
        if init.exists() {
            let _ = std::process::Command::new(init).args(["-q", "--", name]).status();
        }
    }
}

/// Carries out a job.
///
/// # Errors
/// What failed, in words for the operator.
pub fn perform(machine: &Machine, work: &Work, control: &Control) -> Result<JobReport> {
    match work {
        Work::Erase { disks, method } => erase::erase(machine, disks, *method, control),
        Work::Write { target, image } => target::write(machine, target, image, control),
        Work::Setup { target, setup } => setup::setup(machine, target, setup, control),
        Work::Adjust { target, setup, gone } => setup::adjust(machine, target, setup, gone, control),
        Work::Layout => Ok(JobReport::Layout(layout::read(machine))),
        Work::BootOrder { target, label } => efi::boot_order(machine, target, label),
        Work::Kexec { target } => kexec::load(machine, target),
        Work::BurnIn(wanted) => burnin::run(machine, wanted, control),
        Work::Condition => Ok(JobReport::Condition(condition::read(&machine.root))),
        Work::BmcSetup(wanted) => bmc_setup(machine, wanted),
        Work::Rescue {
            target,
            script,
            seconds,
        } => rescue::run(machine, target, script, *seconds, control),
    }
}

fn bmc_setup(machine: &Machine, wanted: &BmcSetup) -> Result<JobReport> {
    let address = wanted.address.map(|fixed| (fixed.address, fixed.prefix, fixed.gateway));
    let user = wanted
        .user
        .as_ref()
        .map(|(slot, name, password)| (*slot, name.as_str(), password.0.as_str()));
    let wanted = bmc::Wanted {
        dhcp: wanted.dhcp,
        address,
        vlan: wanted.vlan,
        user,
    };
    let advice = "look into the BMC's own page; some makers lock these settings against the host";
    let info = bmc::configure(&machine.root, &wanted).map_err(|reason| control::fault(reason, advice))?;
    Ok(JobReport::Bmc(info))
}
