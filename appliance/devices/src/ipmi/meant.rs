//! Whether the BMC that answers is the one that is meant. IPMI proves who asks and not who answers, and BMCs on DHCP swap
//! addresses: two of them that share a login would take each other's orders.

use std::pin::Pin;
use std::sync::Arc;

use rackbar_ipmi::command::lan::{LanParameter, parameter};
use rackbar_model::MacAddr;

use super::{IDLE, Ipmi};
use crate::error::{Cause, Error};

const GET_LAN: &str = "Get LAN Configuration Parameters";

impl Ipmi {
    /// The BMC with this MAC address is meant, and no other. Without one it is whichever is seen first.
    pub(crate) fn mean(&mut self, mac: Option<MacAddr>) {
        self.meant = mac;
    }

    /// A client of the same BMC with the same login, in a session of its own.
    pub(crate) fn twin(&self) -> Self {
        let mut twin = Self::new(
            self.address,
            self.timing,
            self.credentials.clone(),
            Arc::clone(&self.pace),
        );
        twin.mean(self.meant);
        twin.count_in(Arc::clone(&self.attempts));
        (twin.suite_alone, twin.password_bytes) = (self.suite_alone, self.password_bytes);
        twin
    }

    /// The session can be used.
    pub(super) fn is_alive(&self) -> bool {
        let live = self.live.as_ref();
        live.is_some_and(|live| live.used.elapsed() <= IDLE && live.session.is_ready())
    }

    pub(super) fn was_looked_at(&self) -> bool {
        self.is_alive() && self.live.as_ref().is_some_and(|live| live.looked_at)
    }

    /// The certificate that Redfish shows at this address is the right one: nothing is to be compared.
    pub(crate) async fn is_vouched_for(&mut self) -> Result<(), Error> {
        if !self.is_alive() {
            self.close().await;
            self.log_in().await?;
        }
        if let Some(live) = &mut self.live {
            live.looked_at = true;
        }
        Ok(())
    }

    /// Compares the MAC addresses of its LAN channels (section 23.2, parameter 5), once in each session. A BMC that tells
    /// none is taken at its address's word. In a box, as it asks questions of its own.
    pub(crate) fn is_the_one(&mut self) -> Pin<Box<dyn Future<Output = Result<(), Error>> + Send + '_>> {
        Box::pin(async move {
            if self.was_looked_at() {
                return Ok(());
            }
            if !self.is_alive() {
                self.close().await;
                self.log_in().await?;
            }
            // A session that is opened anew in the middle of this is looked at anew.
            if let Some(live) = &mut self.live {
                live.looked_at = true;
            }
            let looked = self.compare().await;
            if looked.is_err() {
                self.close().await;
            } else if !self.was_looked_at() {
                let words = "its session ended while it was asked who it is".to_owned();
                return Err(self.error(GET_LAN, Cause::Unreachable(words)));
            }
            looked
        })
    }

    async fn compare(&mut self) -> Result<(), Error> {
        // Channel 1 nearly everywhere: one question then.
        if let Some(first) = self.mac_of(1).await?
            && *self.meant.get_or_insert(first) == first
        {
            return Ok(());
        }
        let mut told = Vec::new();
        for channel in self.lan_channels().await? {
            told.extend(self.mac_of(channel).await?);
        }
        let Some(seen) = told.first() else { return Ok(()) };
        let meant = *self.meant.get_or_insert(*seen);
        if told.contains(&meant) {
            return Ok(());
        }
        Err(self.error(GET_LAN, Cause::AnotherBmc { meant, told }))
    }

    /// MAC address of a LAN channel, where it has one.
    pub(super) async fn mac_of(&mut self, channel: u8) -> Result<Option<MacAddr>, Error> {
        let data = self
            .optional(GET_LAN, LanParameter::get(channel, parameter::MAC))
            .await?;
        let told = data.and_then(|data| LanParameter::decode_answer(parameter::MAC, &data).ok());
        Ok(match told {
            Some(LanParameter::Mac(mac)) => Some(MacAddr(mac)).filter(MacAddr::is_unicast),
            _ => None,
        })
    }
}
