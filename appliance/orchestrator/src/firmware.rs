//! What DHCP learnt of machines' boot firmware, in the store. DHCP decides what is believed; here it is only kept and
//! shown.

use rackbar_model::{FirmwareHabit, MacAddr, Node};
use rackbar_store::{StoreError, Table};

use crate::Rack;

impl Rack {
    /// What was learnt of all machines' boot firmware.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn firmware_habits(&self) -> Result<Vec<FirmwareHabit>, StoreError> {
        let read = |(key, json): (Vec<u8>, Vec<u8>)| match serde_json::from_slice(&json) {
            Ok(habit) => Some(habit),
            Err(error) => {
                tracing::warn!(?key, %error, "what was learnt of a firmware cannot be read; it is learnt anew");
                None
            }
        };
        Ok(self
            .store()
            .list(Table::Firmware)?
            .into_iter()
            .filter_map(read)
            .collect())
    }

    /// What was learnt of one machine's boot firmware: one entry for each interface it tried to boot by.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn firmware_of(&self, node: &Node) -> Result<Vec<FirmwareHabit>, StoreError> {
        let mut habits = Vec::new();
        for mac in &node.macs {
            if let Some(json) = self.store().get(Table::Firmware, &mac.0)? {
                habits.extend(serde_json::from_slice::<FirmwareHabit>(&json).ok());
            }
        }
        Ok(habits)
    }

    /// Queues what was learnt of a machine's boot firmware, or that nothing is; returns at once.
    pub fn record_firmware(&self, mac: MacAddr, habit: Option<&FirmwareHabit>) {
        match habit.map(serde_json::to_vec).transpose() {
            Ok(json) => self.store().queue(Table::Firmware, &mac.0, json.as_deref()),
            Err(error) => tracing::error!(%mac, %error, "what was learnt of a firmware could not be written as JSON"),
        }
    }
}
