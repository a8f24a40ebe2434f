//! The doors of the services, opened: events and leases come in here.

use rackbar_model::{EventKind, FirmwareHabit, Lease, MacAddr};
use rackbar_services::{EventSink, LeaseLog, LeaseLogError};

use crate::Rack;

impl EventSink for Rack {
    fn event(&self, mac: Option<MacAddr>, kind: EventKind) {
        self.queue_event(mac, kind);
    }
}

impl LeaseLog for Rack {
    fn load(&self) -> Result<Vec<Lease>, LeaseLogError> {
        self.store().leases().map_err(|error| LeaseLogError(error.to_string()))
    }

    fn commit(&self, batch: &[Lease]) -> Result<(), LeaseLogError> {
        self.store()
            .commit_leases(batch)
            .map_err(|error| LeaseLogError(error.to_string()))?;
        self.leases_committed(batch);
        Ok(())
    }

    fn habits(&self) -> Result<Vec<FirmwareHabit>, LeaseLogError> {
        self.firmware_habits().map_err(|error| LeaseLogError(error.to_string()))
    }

    fn learnt(&self, mac: MacAddr, habit: Option<&FirmwareHabit>) {
        self.record_firmware(mac, habit);
    }
}
