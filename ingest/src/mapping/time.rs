//! Times of other people's files.

use chrono::{DateTime, NaiveDate, NaiveDateTime, TimeDelta, TimeZone};
use chrono_tz::Tz;
use kiro_schemas::Micros;

/// How a column of times is read.
#[derive(Debug, Clone)]
pub(crate) struct TimeRule {
    pub(super) form: TimeForm,
    pub(super) plus: i64,
}

#[derive(Debug, Clone)]
pub(super) enum TimeForm {
    Rfc3339,
    Seconds,
    Millis,
    /// A format with an offset in it.
    Offset(String),
    /// A format without one.
    Local(String, Tz),
}

impl TimeRule {
    pub(super) fn read(&self, text: &str) -> Option<Micros> {
        let text = text.trim();
        let time = match &self.form {
            TimeForm::Rfc3339 => Micros::parse(text)?,
            TimeForm::Seconds => epoch(text, 1_000_000)?,
            TimeForm::Millis => epoch(text, 1_000)?,
            TimeForm::Offset(format) => Micros(DateTime::parse_from_str(text, format).ok()?.timestamp_micros()),
            TimeForm::Local(format, zone) => {
                let midnight = || NaiveDate::parse_from_str(text, format).ok().and_then(|date| date.and_hms_opt(0, 0, 0));
                resolve(NaiveDateTime::parse_from_str(text, format).ok().or_else(midnight)?, *zone)?
            }
        };
        let time = Micros(time.0.checked_add(self.plus)?);
        time.is_storable().then_some(time)
    }
}

/// Whole or fractional units since 1970, without going through floats.
fn epoch(text: &str, micros: i64) -> Option<Micros> {
    if text.starts_with('-') {
        return None;
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut sum = whole.parse::<i64>().ok()?.checked_mul(micros)?;
    let mut unit = micros;
    for byte in fraction.bytes() {
        if !byte.is_ascii_digit() {
            return None;
        }
        unit /= 10;
        sum = sum.checked_add(unit * i64::from(byte - b'0'))?;
    }
    Some(Micros(sum))
}

/// A local time in its zone. A time that is there twice (clocks went back) is the earlier; one that was skipped (clocks
/// went forward) is read with the offset from before the gap, so 02:30 in a gap of an hour becomes 03:30.
fn resolve(local: NaiveDateTime, zone: Tz) -> Option<Micros> {
    if let Some(time) = zone.from_local_datetime(&local).earliest() {
        return Some(Micros(time.timestamp_micros()));
    }
    let before = local.checked_sub_signed(TimeDelta::hours(24))?;
    let time = zone.from_local_datetime(&before).latest()?.checked_add_signed(TimeDelta::hours(24))?;
    Some(Micros(time.timestamp_micros()))
}

/// Whether a format carries an offset.
pub(super) fn has_offset(format: &str) -> bool {
    ["%z", "%:z", "%::z", "%#z", "%+"].iter().any(|item| format.contains(item))
}

/// Whether chrono knows all items of a format.
pub(super) fn is_format(format: &str) -> bool {
    !chrono::format::StrftimeItems::new(format).any(|item| item == chrono::format::Item::Error)
}

/// A length such as `30m`, `-2h`, `90s`, `1d` in microseconds.
pub(super) fn length(text: &str) -> Option<i64> {
    let (count, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        "d" => 86_400,
        _ => return None,
    };
    count.parse::<i64>().ok()?.checked_mul(seconds)?.checked_mul(1_000_000)
}
