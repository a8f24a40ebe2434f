//! The BMC's own network settings (section 23).

use std::net::Ipv4Addr;

use rackbar_ipmi::command::lan::{AddressSource, LanParameter, parameter};
use rackbar_ipmi::command::number;
use rackbar_ipmi::{NetFn, Request};
use rackbar_model::MacAddr;

use super::Ipmi;
use crate::LanSettings;
use crate::error::{Cause, Error};

impl Ipmi {
    async fn lan_channel(&mut self) -> Result<u8, Error> {
        let channels = self.lan_channels().await?;
        let nothing = || Cause::Unsupported("this BMC tells of no LAN channel".to_owned());
        channels
            .first()
            .copied()
            .ok_or_else(|| self.error("Get Channel Info", nothing()))
    }

    pub(crate) async fn lan(&mut self) -> Result<LanSettings, Error> {
        let name = "Get LAN Configuration Parameters";
        let channel = self.lan_channel().await?;
        let mut lan = LanSettings::default();
        for selector in [
            parameter::ADDRESS,
            parameter::MASK,
            parameter::GATEWAY,
            parameter::SOURCE,
            parameter::VLAN,
            parameter::MAC,
        ] {
            let Some(data) = self.optional(name, LanParameter::get(channel, selector)).await? else {
                continue;
            };
            match self.malformed(name, LanParameter::decode_answer(selector, &data))? {
                LanParameter::Address(address) => lan.address = Some(address).filter(|a| !a.is_unspecified()),
                LanParameter::Mask(mask) => lan.prefix = u8::try_from(mask.to_bits().leading_ones()).unwrap_or(32),
                LanParameter::Gateway(gateway) => lan.gateway = Some(gateway).filter(|a| !a.is_unspecified()),
                LanParameter::Source(source) => lan.dhcp = source == AddressSource::Dhcp,
                LanParameter::Vlan(vlan) => lan.vlan = vlan,
                LanParameter::Mac(mac) => lan.mac = Some(MacAddr(mac)),
                LanParameter::Other { .. } => {}
            }
        }
        Ok(lan)
    }

    /// Sets them. The address comes last: with it, the BMC may be gone from where we talk to it.
    pub(crate) async fn set_lan(&mut self, wanted: &LanSettings) -> Result<(), Error> {
        let channel = self.lan_channel().await?;
        let source = if wanted.dhcp {
            AddressSource::Dhcp
        } else {
            AddressSource::Static
        };
        let mut steps = vec![LanParameter::Vlan(wanted.vlan), LanParameter::Source(source)];
        if !wanted.dhcp {
            let Some(address) = wanted.address else {
                let words = "a fixed address is wanted, but none is given".to_owned();
                return Err(self.error("Set LAN Configuration Parameters", Cause::NotAllowed(words)));
            };
            let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(u32::from(32 - wanted.prefix.min(32))).unwrap_or(0));
            steps.push(LanParameter::Mask(mask));
            steps.push(LanParameter::Gateway(wanted.gateway.unwrap_or(Ipv4Addr::UNSPECIFIED)));
            steps.push(LanParameter::Address(address));
        }
        for step in steps {
            let name = format!("Set LAN Configuration Parameters, parameter {}", step.selector());
            let mut data = vec![channel, step.selector()];
            data.extend(step.value());
            let request = Request::new(NetFn::TRANSPORT, number::SET_LAN, data);
            match self.command(&name, request, false).await {
                // Read-only where this channel cannot do it (82h): fine as long as nothing was to change.
                Err(Error {
                    cause: Cause::Refused { code: 0x80 | 0x82, .. },
                    ..
                }) if step == LanParameter::Vlan(None) => {}
                other => other.map(drop)?,
            }
        }
        Ok(())
    }
}
