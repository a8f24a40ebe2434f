//! The sensors of a simulated machine: one table, shown as Redfish `Thermal` and `Power` and as IPMI records.

use rackbar_ipmi::command::sensor::{Reading, Scale, SensorRecord};

use super::state::BmcState;
use crate::seat::PowerState;

/// What a sensor measures.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Temperature,
    Fan,
    Voltage,
    Power,
}

/// A sensor.
#[derive(Clone, Copy, Debug)]
pub(super) struct SimSensor {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Raw reading while the machine is on.
    raw: u8,
    m: i16,
    k2: i8,
    /// Reads also while the machine is off.
    standby: bool,
}

/// The table; a sensor's number is its place, from 1.
pub(super) const SENSORS: [SimSensor; 6] = [
    sensor("Inlet Temp", Kind::Temperature, 23, 1, 0, true),
    sensor("CPU1 Temp", Kind::Temperature, 45, 1, 0, false),
    sensor("FAN1", Kind::Fan, 84, 100, 0, false),
    sensor("FAN2", Kind::Fan, 85, 100, 0, false),
    sensor("12V", Kind::Voltage, 201, 6, -2, false),
    sensor("System Power", Kind::Power, 92, 2, 0, false),
];

const fn sensor(name: &'static str, kind: Kind, raw: u8, m: i16, k2: i8, standby: bool) -> SimSensor {
    SimSensor {
        name,
        kind,
        raw,
        m,
        k2,
        standby,
    }
}

impl SimSensor {
    /// The raw reading now, a test's own value before the table's.
    pub(super) fn raw(&self, state: &BmcState) -> Option<u8> {
        let on = self.standby || state.power.state() == PowerState::On;
        on.then(|| state.inner().readings.get(self.name).copied().unwrap_or(self.raw))
    }

    /// The reading now.
    pub(super) fn value(&self, state: &BmcState) -> Option<f64> {
        self.raw(state).map(|raw| self.scale().convert(raw))
    }

    const fn scale(&self) -> Scale {
        Scale {
            m: self.m,
            b: 0,
            k1: 0,
            k2: self.k2,
            format: 0,
        }
    }

    /// Thresholds crossed: a temperature above 80 is critical, a fan that stands still too.
    pub(super) fn crossed(&self, state: &BmcState) -> u8 {
        match (self.kind, self.raw(state)) {
            (Kind::Temperature, Some(raw)) if raw > 80 => 0b01_1000,
            (Kind::Fan, Some(raw)) if raw < 5 => 0b00_0011,
            _ => 0,
        }
    }

    /// The record of the sensor with this number.
    pub(super) fn record(&self, number: u8) -> SensorRecord {
        let (kind, unit) = match self.kind {
            Kind::Temperature => (0x01, 1),
            Kind::Fan => (0x04, 18),
            Kind::Voltage => (0x02, 4),
            Kind::Power => (0x0b, 6),
        };
        SensorRecord {
            number,
            lun: 0,
            owner: 0x20,
            kind,
            reading_type: 1,
            scale: Some(self.scale()),
            unit,
            percent: false,
            name: self.name.to_owned(),
        }
    }

    pub(super) fn reading(&self, state: &BmcState) -> Reading {
        Reading {
            raw: self.raw(state),
            state: self.crossed(state),
        }
    }
}
