//! Sensors, event log and health over IPMI.

use rackbar_ipmi::Completion;
use rackbar_ipmi::command::chassis::ChassisStatus;
use rackbar_ipmi::command::sel::{self, SelEntry, Severity};
use rackbar_ipmi::command::sensor::{self, Reading, SdrPart, SensorRecord};
use rackbar_model::Timestamp;

use super::Ipmi;
use crate::error::{Cause, Error};
use crate::{Health, HealthState, LogLine, Sensor};

/// Records walked at most: a chain that bites its own tail ends too.
const RECORDS: usize = 1024;
/// Bytes of a record asked for at once. 16 fit in the buffers of the smallest BMCs; with more they answer CAh.
const PART: u8 = 16;
/// Owner of sensors the BMC reads itself.
const OWN: u8 = 0x20;

impl Ipmi {
    pub(crate) async fn sensors(&mut self) -> Result<Vec<Sensor>, Error> {
        let mut found = Vec::new();
        for record in self.sensor_records().await? {
            let asked = self
                .optional("Get Sensor Reading", sensor::get_reading(record.number))
                .await?;
            let reading = asked.and_then(|data| Reading::decode(&data).ok());
            found.push(told(&record, reading));
        }
        Ok(found)
    }

    async fn sensor_records(&mut self) -> Result<Vec<SensorRecord>, Error> {
        let name = "Get SDR";
        let mut records = Vec::new();
        let mut next = 0;
        let mut reservation = self.reserve().await?;
        for _ in 0..RECORDS {
            let (whole, after) = match self.record(reservation, next).await {
                // C5h: somebody else reserved it in between; the record is read anew.
                Err(Error {
                    cause: Cause::Refused { code: 0xc5, .. },
                    ..
                }) => {
                    reservation = self.reserve().await?;
                    self.record(reservation, next).await?
                }
                // An empty repository.
                Err(Error {
                    cause: Cause::Refused { code, .. },
                    ..
                }) if code == u16::from(Completion::NOT_PRESENT.0) => break,
                other => other?,
            };
            if let Some(record) = self.malformed(name, SensorRecord::decode(&whole))?
                // Satellite controllers' sensors have to be asked there, over a bridge: the BMC has its own in plenty.
                && record.owner == OWN
                && record.lun == 0
            {
                records.push(record);
            }
            if after == u16::MAX || after == next {
                break;
            }
            next = after;
        }
        Ok(records)
    }

    async fn reserve(&mut self) -> Result<u16, Error> {
        let data = self.optional("Reserve SDR Repository", sensor::reserve_sdr()).await?;
        Ok(data
            .and_then(|data| data.first_chunk().copied())
            .map_or(0, u16::from_le_bytes))
    }

    /// A whole record, read in parts, and the number of the next.
    async fn record(&mut self, reservation: u16, record: u16) -> Result<(Vec<u8>, u16), Error> {
        let name = "Get SDR";
        let head = self
            .command(name, sensor::get_sdr(reservation, record, 0, 5), true)
            .await?;
        let head = self.malformed(name, SdrPart::decode(&head.data))?;
        let length = head.data.get(4).copied().unwrap_or_default();
        let mut whole = head.data;
        whole.truncate(5);
        let mut read = 0;
        while read < length {
            let count = (length - read).min(PART);
            let request = sensor::get_sdr(reservation, record, 5u8.saturating_add(read), count);
            let part = self.command(name, request, true).await?;
            let part = self.malformed(name, SdrPart::decode(&part.data))?;
            if part.data.is_empty() {
                break;
            }
            whole.extend_from_slice(part.data.get(..usize::from(count)).unwrap_or(&part.data));
            read = read.saturating_add(count);
        }
        Ok((whole, head.next))
    }

    /// The latest lines of the system event log, newest first. The log is a chain that can only be walked forwards.
    pub(crate) async fn event_log(&mut self, limit: usize) -> Result<Vec<LogLine>, Error> {
        let name = "Get SEL Entry";
        let mut entries = std::collections::VecDeque::new();
        let mut next = 0;
        for _ in 0..RECORDS * 4 {
            let answer = match self.command(name, sel::get_entry(next), true).await {
                // An empty log, or an entry deleted while we walk.
                Err(Error {
                    cause: Cause::Refused { code, .. },
                    ..
                }) if code == u16::from(Completion::NOT_PRESENT.0) => break,
                other => other?,
            };
            let entry = self.malformed(name, SelEntry::decode(&answer.data))?;
            let after = entry.next;
            if entries.len() >= limit {
                entries.pop_front();
            }
            entries.push_back(line(&entry));
            if after == u16::MAX || after == next {
                break;
            }
            next = after;
        }
        entries.truncate(limit);
        Ok(entries.into_iter().rev().collect())
    }

    /// The BMC's clock, by which the entries of the event log are dated.
    pub(crate) async fn clock(&mut self) -> Result<Option<Timestamp>, Error> {
        let name = "Get SEL Time";
        let answer = self.command(name, sel::get_time(), true).await?;
        let seconds = self.malformed(name, sel::decode_time(&answer.data))?;
        Ok(seconds.map(|seconds| Timestamp(u64::from(seconds) * 1000)))
    }

    pub(crate) async fn set_clock(&mut self, now: Timestamp) -> Result<(), Error> {
        let seconds = u32::try_from(now.0 / 1000).unwrap_or(u32::MAX);
        self.command("Set SEL Time", sel::set_time(seconds), true)
            .await
            .map(drop)
    }

    /// Power faults of the chassis, and what the sensors say.
    pub(crate) async fn health(&mut self) -> Result<Health, Error> {
        let name = "Get Chassis Status";
        let answer = self.command(name, ChassisStatus::request(), true).await?;
        let status = self.malformed(name, ChassisStatus::decode(&answer.data))?;
        let mut health = Health {
            state: HealthState::Ok,
            notes: Vec::new(),
        };
        if status.power_fault {
            health.state = HealthState::Critical;
            health.notes.push("power: fault".to_owned());
        }
        for sensor in self.sensors().await? {
            if sensor.state > HealthState::Ok {
                health.state = health.state.max(sensor.state);
                health.notes.push(format!("{}: {}", sensor.name, sensor.state));
            }
        }
        Ok(health)
    }
}

fn told(record: &SensorRecord, reading: Option<Reading>) -> Sensor {
    let raw = reading.and_then(|reading| reading.raw);
    let state = match reading {
        Some(reading) if record.reading_type == 0x01 && raw.is_some() => match reading.state {
            0 => HealthState::Ok,
            // Only non-critical thresholds: lower is bit 0, upper is bit 3.
            state if state & !0b00_1001 == 0 => HealthState::Warning,
            _ => HealthState::Critical,
        },
        _ => HealthState::Unknown,
    };
    Sensor {
        name: record.name.clone(),
        reading: record.scale.zip(raw).map(|(scale, raw)| scale.convert(raw)),
        unit: record.symbol().to_owned(),
        state,
    }
}

fn line(entry: &SelEntry) -> LogLine {
    LogLine {
        time: entry.time.map(|time| Timestamp(u64::from(time) * 1_000).to_string()),
        severity: match entry.severity() {
            Severity::Ok => HealthState::Ok,
            Severity::Warning => HealthState::Warning,
            Severity::Critical => HealthState::Critical,
        },
        message: entry.words(),
        id: entry.record.to_string(),
    }
}
