//! The BMC's own clock (DSP0268, `Manager.DateTime`).

use rackbar_model::Timestamp;
use serde_json::{Value, json};

use super::{Redfish, view};
use crate::error::{Cause, Error};

impl Redfish {
    pub(crate) async fn clock(&mut self) -> Result<Option<Timestamp>, Error> {
        let (path, manager) = self.manager().await?;
        let told = view::text(&manager, "/DateTime");
        let told = told.ok_or_else(|| self.no_clock(&path))?;
        let read = date_time(&told);
        let strange = || {
            Cause::Malformed(format!(
                "DateTime is {told:?}, which is no time (DSP0266 section 9.5.2)"
            ))
        };
        read.ok_or_else(|| self.error(format!("GET {path}"), strange()))
    }

    pub(crate) async fn set_clock(&mut self, now: Timestamp) -> Result<(), Error> {
        let (path, manager) = self.manager().await?;
        if manager.get("DateTime").is_none() {
            return Err(self.no_clock(&path));
        }
        if let Some(protocol) = view::link(&manager, "/NetworkProtocol")
            && let Some(protocol) = self.get_if_there(&protocol).await?
            && protocol.pointer("/NTP/ProtocolEnabled").and_then(Value::as_bool) == Some(true)
        {
            let words = "the BMC follows NTP servers of its own: look at those".to_owned();
            return Err(self.error(format!("PATCH {path}"), Cause::NotAllowed(words)));
        }
        // With an offset and without a fraction, which all of them take; not all take a `Z`.
        let utc = now.to_string();
        let text = format!("{}+00:00", utc.get(..19).unwrap_or(&utc));
        self.patch(&path, &json!({"DateTime": text})).await
    }

    async fn manager(&mut self) -> Result<(String, Value), Error> {
        let system = self.system_path().await?;
        let system = self.get(&system).await?;
        let path = self.manager_path(&system).await?;
        let none = || Cause::Unsupported("this BMC shows no manager".to_owned());
        let path = path.ok_or_else(|| self.error("clock".to_owned(), none()))?;
        let manager = self.get(&path).await?;
        Ok((path, manager))
    }

    fn no_clock(&self, path: &str) -> Error {
        let words = "this BMC tells no time".to_owned();
        self.error(format!("GET {path}"), Cause::Unsupported(words))
    }
}

/// A time with an offset from UTC (RFC 3339). `Some(None)`: a time before 1971, which is a clock that nobody set.
fn date_time(text: &str) -> Option<Option<Timestamp>> {
    const YEAR: u64 = 365 * 24 * 3_600_000;
    let text = text.trim();
    let (bare, offset) = match text.strip_suffix(['Z', 'z']) {
        Some(bare) => (bare, 0),
        None => {
            let at = text.len().checked_sub(6)?;
            let (bare, offset) = (text.get(..at)?, text.get(at..)?);
            let sign = match offset.get(..1)? {
                "+" => 1,
                "-" => -1,
                _ => return None,
            };
            let (hours, minutes) = offset.get(1..)?.split_once(':')?;
            let (hours, minutes): (i64, i64) = (hours.parse().ok()?, minutes.parse().ok()?);
            let sound = (0..=14).contains(&hours) && (0..60).contains(&minutes);
            (bare, sound.then_some(sign * (hours * 60 + minutes) * 60_000)?)
        }
    };
    let there: Timestamp = format!("{bare}Z").parse().ok()?;
    let utc = there.0.saturating_add_signed(offset.checked_neg()?);
    Some(Some(Timestamp(utc)).filter(|time| time.0 > YEAR))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_read_with_any_offset() {
        let utc = |text: &str| date_time(text).flatten().map(|time| time.to_string());
        for text in [
            "2026-11-28T09:30:00Z",
            "2026-11-28T11:30:00+02:00",
            "2026-11-28T04:00:00.000-05:30",
        ] {
            assert_eq!(utc(text).as_deref(), Some("2026-11-28T09:30:00.000Z"), "{text}");
        }
        assert_eq!(date_time("1970-01-01T02:10:00+00:00"), Some(None), "nobody set it");
        for text in [
            "",
            "now",
            "2026-11-28T09:30:00",
            "2026-11-28T09:30:00+99:00",
            "2026-11-28T09:30:00 01:00",
        ] {
            assert_eq!(date_time(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "\\PC{0,40}", offset in "[-+]\\PC{0,6}") {
            let _ = date_time(&text);
            let _ = date_time(&format!("2026-11-28T09:30:00{offset}"));
        }
    }
}
