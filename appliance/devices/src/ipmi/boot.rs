//! Boot flags (section 28.12 and 28.13): where the next boot, or each boot, comes from.

use rackbar_ipmi::command::chassis::{BootDevice, BootFlags};
use rackbar_model::FirmwareMode;

use super::Ipmi;
use crate::error::{Cause, Error};
use crate::{BootOverride, BootTarget};

impl Ipmi {
    pub(crate) async fn get_boot(&mut self) -> Result<BootOverride, Error> {
        let name = "Get System Boot Options";
        let answer = self.command(name, BootFlags::get(), true).await?;
        let flags = self.malformed(name, BootFlags::decode_answer(&answer.data))?;
        let target = match flags.device {
            _ if !flags.valid => BootTarget::Default,
            BootDevice::None => BootTarget::Default,
            BootDevice::Pxe => BootTarget::Network,
            BootDevice::Disk | BootDevice::SafeMode => BootTarget::Disk,
            BootDevice::Cd | BootDevice::RemoteCd => BootTarget::Cd,
            BootDevice::Setup => BootTarget::Setup,
            other @ (BootDevice::Diagnostic | BootDevice::RemoteFloppy | BootDevice::Floppy) => {
                BootTarget::Other(format!("{other:?}"))
            }
        };
        let mode = flags.valid.then_some(if flags.uefi {
            FirmwareMode::Uefi
        } else {
            FirmwareMode::Bios
        });
        Ok(BootOverride {
            target,
            once: flags.valid && !flags.persistent,
            mode,
            url: None,
        })
    }

    pub(crate) async fn set_boot_once(&mut self, target: &BootTarget, mode: Option<FirmwareMode>) -> Result<(), Error> {
        self.set_flags(target, mode, false).await
    }

    /// Boot flags that stay until they are changed, read back. They are no boot order: firmware asks the BMC at each
    /// start, and goes on with its own order when that device does not boot.
    pub(crate) async fn set_boot_first(
        &mut self,
        target: &BootTarget,
        mode: Option<FirmwareMode>,
    ) -> Result<(), Error> {
        self.set_flags(target, mode, true).await?;
        let shown = self.get_boot().await?;
        if shown.target == *target && !shown.once {
            return Ok(());
        }
        let what = format!(
            "a lasting boot from {target} (it shows {}, once: {})",
            shown.target, shown.once
        );
        Err(self.error(
            "Set System Boot Options",
            Cause::NotSeen {
                what,
                after: self.timing.repeat,
            },
        ))
    }

    async fn set_flags(
        &mut self,
        target: &BootTarget,
        mode: Option<FirmwareMode>,
        persistent: bool,
    ) -> Result<(), Error> {
        let name = "Set System Boot Options";
        let device = match target {
            BootTarget::Default => BootDevice::None,
            BootTarget::Network => BootDevice::Pxe,
            BootTarget::Disk => BootDevice::Disk,
            BootTarget::Cd => BootDevice::Cd,
            BootTarget::Setup => BootDevice::Setup,
            BootTarget::Http | BootTarget::Other(_) => {
                return Err(self.error(name, Cause::Unsupported(format!("IPMI cannot ask for {target}"))));
            }
        };
        // Firmware that knows only UEFI ignores a request without this bit; machines with a BIOS mode say so by `mode`.
        let uefi = mode != Some(FirmwareMode::Bios);
        let flags = BootFlags {
            valid: device != BootDevice::None,
            persistent,
            uefi,
            device,
        };
        // Not every BMC knows the acknowledge parameter, and none needs it to take the flags.
        match self.command(name, BootFlags::announce(), false).await {
            Ok(_)
            | Err(Error {
                cause: Cause::Refused { .. } | Cause::Unsupported(_),
                ..
            }) => {}
            Err(error) => return Err(error),
        }
        self.command(name, flags.set(), false).await.map(drop)
    }
}
