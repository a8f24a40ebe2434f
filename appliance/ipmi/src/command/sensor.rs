//! Sensors: their records in the repository (section 43), reading those (33.10 to 33.12) and the sensors (35.14).

use crate::command::number;
use crate::read::{Malformed, Reader};
use crate::{NetFn, Request};

/// Asks for part of a sensor record. `record` 0 is the first; the answer names the next, FFFFh after the last.
pub fn get_sdr(reservation: u16, record: u16, offset: u8, count: u8) -> Request {
    let [r0, r1] = reservation.to_le_bytes();
    let [i0, i1] = record.to_le_bytes();
    Request::new(NetFn::STORAGE, number::GET_SDR, [r0, r1, i0, i1, offset, count])
}

/// Reserves the repository, so that a record read in parts is one record.
pub fn reserve_sdr() -> Request {
    Request::new(NetFn::STORAGE, number::RESERVE_SDR, [])
}

/// Asks what a sensor reads now.
pub fn get_reading(sensor: u8) -> Request {
    Request::new(NetFn::SENSOR, number::GET_SENSOR_READING, [sensor])
}

/// A part of a sensor record.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SdrPart {
    /// The record that follows; FFFFh after the last.
    pub next: u16,
    /// The bytes asked for.
    pub data: Vec<u8>,
}

impl SdrPart {
    /// Reads the answer's data.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Get SDR (33.12)", data);
        let next = reader.u16()?;
        Ok(Self {
            next,
            data: reader.rest().to_vec(),
        })
    }
}

/// A sensor as its record describes it (tables 43-1 and 43-2).
#[derive(Clone, PartialEq, Debug)]
pub struct SensorRecord {
    /// Number, for [`get_reading`].
    pub number: u8,
    /// Logical unit of its owner.
    pub lun: u8,
    /// Owner; 20h is the BMC itself.
    pub owner: u8,
    /// Sensor type (table 42-3).
    pub kind: u8,
    /// Event and reading type; 01h reads in numbers with thresholds.
    pub reading_type: u8,
    /// How raw readings become numbers; nothing for a sensor of states.
    pub scale: Option<Scale>,
    /// Base unit (table 43-15).
    pub unit: u8,
    /// The reading is a percentage.
    pub percent: bool,
    /// Name.
    pub name: String,
}

/// The conversion of section 36.3: y = (M x + B 10^k1) 10^k2, for linear sensors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Scale {
    /// M, ten bits signed.
    pub m: i16,
    /// B, ten bits signed.
    pub b: i16,
    /// Exponent of B.
    pub k1: i8,
    /// Exponent of the result.
    pub k2: i8,
    /// Raw readings: 0 unsigned, 1 one's complement, 2 two's complement.
    pub format: u8,
}

impl Scale {
    /// A raw reading as a number.
    pub fn convert(self, raw: u8) -> f64 {
        let x = match self.format {
            // One's complement has two zeros, 00h and FFh.
            1 if raw & 0x80 != 0 => -f64::from(!raw),
            2 => f64::from(raw.cast_signed()),
            _ => f64::from(raw),
        };
        let ten = |exponent: i8| 10f64.powi(i32::from(exponent));
        (f64::from(self.m) * x + f64::from(self.b) * ten(self.k1)) * ten(self.k2)
    }
}

/// Two's complement of the lowest `bits`.
fn signed(value: u16, bits: u32) -> i16 {
    let shift = 16 - bits;
    (value << shift).cast_signed() >> shift
}

impl SensorRecord {
    /// A full record with thresholds and readings.
    pub const FULL: u8 = 0x01;
    /// A compact record: states, no conversion.
    pub const COMPACT: u8 = 0x02;

    /// Reads a whole record, its five bytes of header included; nothing when it describes no sensor.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(record: &[u8]) -> Result<Option<Self>, Malformed> {
        let mut reader = Reader::new("sensor record (43.1, 43.2)", record);
        let [_, _, _, form, _, owner, lun, number] = reader.array()?;
        if !matches!(form, Self::FULL | Self::COMPACT) {
            return Ok(None);
        }
        let [_entity, _instance, _init, _capabilities, kind, reading_type] = reader.array()?;
        let _masks = reader.bytes(6)?;
        let [units, unit, _modifier] = reader.array()?;
        let scale = if form == Self::FULL {
            let [linear, m, m_high, b, b_high, _accuracy, exponents, _flags] = reader.array()?;
            let _limits = reader.bytes(16)?;
            let ten_bits = |low: u8, high: u8| signed(u16::from(low) | u16::from(high & 0xc0) << 2, 10);
            let nibble = |value: u8| i8::try_from(signed(u16::from(value & 0x0f), 4)).unwrap_or_default();
            let scale = Scale {
                m: ten_bits(m, m_high),
                b: ten_bits(b, b_high),
                k1: nibble(exponents),
                k2: nibble(exponents >> 4),
                format: units >> 6,
            };
            // Non-linear sensors want a table per reading (section 36.2): shown without a number.
            (units >> 6 != 3 && linear & 0x7f == 0).then_some(scale)
        } else {
            let _sharing = reader.bytes(8)?;
            None
        };
        let length = reader.u8()?;
        // Table 43-15: type in the upper bits; 11b is 8-bit ASCII and Latin 1, the only one in the field.
        let name = reader.bytes(usize::from(length & 0x1f)).unwrap_or(reader.rest());
        Ok(Some(Self {
            number,
            lun: lun & 3,
            owner,
            kind,
            reading_type,
            scale,
            unit,
            percent: units & 1 != 0,
            name: name
                .iter()
                .filter(|b| **b != 0)
                .map(|b| char::from(*b))
                .collect::<String>()
                .trim()
                .to_owned(),
        }))
    }

    /// A full record with a linear conversion, as a BMC stores it.
    pub fn encode(&self, record: u16) -> Vec<u8> {
        let name: Vec<u8> = self.name.bytes().take(16).collect();
        let scale = self.scale.unwrap_or(Scale {
            m: 1,
            b: 0,
            k1: 0,
            k2: 0,
            format: 3,
        });
        let [id_low, id_high] = record.to_le_bytes();
        let mut out = vec![
            id_low,
            id_high,
            0x51,
            Self::FULL,
            0,
            self.owner,
            self.lun,
            self.number,
            7,
            1,
            0x7f,
            0x68,
        ];
        out.extend_from_slice(&[self.kind, self.reading_type, 0, 0, 0, 0, 0, 0]);
        out.extend_from_slice(&[scale.format << 6 | u8::from(self.percent), self.unit, 0, 0]);
        let [m, m_high] = scale.m.to_le_bytes();
        let [b, b_high] = scale.b.to_le_bytes();
        let exponents = scale.k2.cast_unsigned() << 4 | scale.k1.cast_unsigned() & 0x0f;
        out.extend_from_slice(&[m, m_high << 6, b, b_high << 6, 0, exponents, 0]);
        out.extend_from_slice(&[0; 16]);
        out.push(0xc0 | u8::try_from(name.len()).unwrap_or(16));
        out.extend_from_slice(&name);
        if let Some(length) = out.get_mut(4) {
            *length = u8::try_from(name.len() + 43).unwrap_or(u8::MAX);
        }
        out
    }

    /// The unit's symbol (UCUM), or nothing for one that is not in use on servers.
    pub const fn symbol(&self) -> &'static str {
        if self.percent {
            return "%";
        }
        match self.unit {
            1 => "Cel",
            2 => "[degF]",
            3 => "K",
            4 => "V",
            5 => "A",
            6 => "W",
            7 => "J",
            18 => "RPM",
            19 => "Hz",
            _ => "",
        }
    }
}

/// What a sensor reads now (table 35-15).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Raw; nothing when the sensor has none now.
    pub raw: Option<u8>,
    /// Thresholds crossed, for a sensor of reading type 01h: bits 0 to 2 lower non-critical, critical,
    /// non-recoverable, bits 3 to 5 upper.
    pub state: u8,
}

impl Reading {
    /// Reads the answer's data.
    ///
    /// # Errors
    /// When it is cut short.
    pub fn decode(data: &[u8]) -> Result<Self, Malformed> {
        let mut reader = Reader::new("Get Sensor Reading (35.14)", data);
        let [raw, flags] = reader.array()?;
        // Bit 5: no reading, for example a fan of a machine that is off. Bit 6 clear: not scanned.
        let there = flags & 0x20 == 0 && flags & 0x40 != 0;
        Ok(Self {
            raw: there.then_some(raw),
            state: reader.u8().unwrap_or(0) & 0x3f,
        })
    }

    /// The answer's data.
    pub fn encode(self) -> Vec<u8> {
        let flags = if self.raw.is_some() { 0xc0 } else { 0xe0 };
        vec![self.raw.unwrap_or(0), flags, 0xc0 | self.state]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn reads_what_it_writes(number: u8, unit: u8, m in -512i16..512, b in -512i16..512, k1 in -8i8..8, k2 in -8i8..8,
                                format in 0u8..3, percent: bool, name in "[A-Za-z0-9 ]{0,14}[a-z]") {
            let record = SensorRecord { number, lun: 0, owner: 0x20, kind: 1, reading_type: 1, unit, percent, name,
                scale: Some(Scale { m, b, k1, k2, format }) };
            let name = record.name.trim().to_owned();
            let bytes = record.encode(7);
            prop_assert_eq!(usize::from(bytes[4]) + 5, bytes.len());
            prop_assert_eq!(SensorRecord::decode(&bytes), Ok(Some(SensorRecord { name, ..record })));
        }

        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..70), raw: u8) {
            let _ = SdrPart::decode(&bytes);
            let _ = Reading::decode(&bytes);
            if let Ok(Some(record)) = SensorRecord::decode(&bytes) {
                let _ = record.scale.map(|scale| scale.convert(raw));
            }
        }
    }

    #[test]
    fn converts_as_section_36_3_says() {
        let celsius = Scale {
            m: 1,
            b: 0,
            k1: 0,
            k2: 0,
            format: 2,
        };
        assert_eq!((celsius.convert(45), celsius.convert(0xf6)), (45.0, -10.0));
        let volts = Scale {
            m: 6,
            b: 0,
            k1: 0,
            k2: -2,
            format: 0,
        };
        assert!((volts.convert(200) - 12.0).abs() < 1e-9);
        let shifted = Scale {
            m: 1,
            b: 5,
            k1: 1,
            k2: 0,
            format: 0,
        };
        assert!((shifted.convert(2) - 52.0).abs() < 1e-9);
    }
}
