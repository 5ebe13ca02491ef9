//! Time as the product keeps it: microseconds since 1970-01-01T00:00:00Z.

use std::fmt;

use chrono::{DateTime, Datelike, NaiveDate, Timelike};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, UTC, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub i64);

const SECOND: i64 = 1_000_000;

/// Earliest time that is taken: 1970-01-01.
pub const EARLIEST: Micros = Micros(0);
/// Latest time that is taken: 9999-12-31T23:59:59.999999Z.
pub const LATEST: Micros = Micros(253_402_300_799_999_999);

impl Micros {
    /// From whole seconds.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds * SECOND)
    }

    /// Parses RFC 3339 (`2026-11-23T09:40:00.5+01:00`). The offset is required; digits beyond microseconds are dropped.
    ///
    /// # Source
    /// RFC 3339 section 5.6. Leap second `:60` is taken as `:59.999999`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        if bytes.len() < 20 || bytes.len() > 64 {
            return None;
        }
        let two = |at: usize| digits(bytes, at, 2);
        if bytes[4] != b'-' || bytes[7] != b'-' || bytes[13] != b':' || bytes[16] != b':' {
            return None;
        }
        if !matches!(bytes[10], b'T' | b't' | b' ') {
            return None;
        }
        let (year, month, day) = (digits(bytes, 0, 4)?, two(5)?, two(8)?);
        let (hour, minute, mut second) = (two(11)?, two(14)?, two(17)?);
        let (mut micros, mut at) = fraction(bytes, 19)?;
        if hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        if second == 60 {
            (second, micros) = (59, 999_999);
        }
        let offset = match bytes.get(at)? {
            b'Z' | b'z' => 0,
            sign @ (b'+' | b'-') => {
                let (h, m) = (two(at + 1)?, two(at + 4)?);
                if *bytes.get(at + 3)? != b':' || h > 23 || m > 59 {
                    return None;
                }
                at += 5;
                let seconds = h * 3600 + m * 60;
                if *sign == b'+' { seconds } else { -seconds }
            }
            _ => return None,
        };
        if at + 1 != bytes.len() {
            return None;
        }
        let date = NaiveDate::from_ymd_opt(i32::try_from(year).ok()?, u32::try_from(month).ok()?, u32::try_from(day).ok()?)?;
        let days = i64::from(date.num_days_from_ce()) - 719_163;
        let seconds = days * 86_400 + hour * 3600 + minute * 60 + second - offset;
        Some(Self(seconds * SECOND + micros))
    }

    /// Whether the time lies in the years that are stored (1970 to 9999).
    #[must_use]
    pub fn is_storable(self) -> bool {
        (EARLIEST..=LATEST).contains(&self)
    }

    /// This time plus a number of microseconds.
    #[must_use]
    pub const fn plus(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// Seconds from `earlier` to `self`.
    #[must_use]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0 - earlier.0) as f64 / SECOND as f64
    }

    /// Hour of the day, 0 to 23, UTC.
    #[must_use]
    pub fn hour(self) -> u32 {
        self.date_time().map_or(0, |t| t.hour())
    }

    /// Day of the week, 0 = Monday, UTC.
    #[must_use]
    pub fn weekday(self) -> u32 {
        self.date_time().map_or(0, |t| t.weekday().num_days_from_monday())
    }

    fn date_time(self) -> Option<DateTime<chrono::Utc>> {
        DateTime::from_timestamp_micros(self.0)
    }
}

fn digits(bytes: &[u8], at: usize, count: usize) -> Option<i64> {
    bytes.get(at..at + count)?.iter().try_fold(0_i64, |sum, b| b.is_ascii_digit().then(|| sum * 10 + i64::from(b - b'0')))
}

/// Reads `.123456789` if it is there: microseconds and where it ends.
fn fraction(bytes: &[u8], at: usize) -> Option<(i64, usize)> {
    if bytes.get(at) != Some(&b'.') {
        return Some((0, at));
    }
    let run = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
    if run == 0 {
        return None;
    }
    let kept = run.min(6);
    let scale = 10_i64.pow(6 - u32::try_from(kept).ok()?);
    Some((digits(bytes, at + 1, kept)? * scale, at + 1 + run))
}

impl fmt::Display for Micros {
    /// `2026-11-23T09:40:00.500Z`, with as many digits as are needed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.date_time() {
            Some(time) => f.write_str(&time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
            None => write!(f, "{} µs", self.0),
        }
    }
}

impl Serialize for Micros {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Micros {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom(format_args!("not an RFC 3339 time: {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Micros;

    #[test]
    fn parses_what_rfc_3339_allows() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", 0),
            ("1970-01-01t00:00:00z", 0),
            ("1970-01-01T01:00:00+01:00", 0),
            ("2026-11-23T09:40:00.5Z", 1_795_426_800_500_000),
            ("2023-03-20T14:27:05.315384Z", 1_679_322_425_315_384),
            ("2023-03-20T14:27:05.315384999-00:30", 1_679_324_225_315_384),
        ] {
            assert_eq!(Micros::parse(text), Some(Micros(micros)), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in [
            "",
            "2026-11-23",
            "2026-11-23T09:40:00",
            "2026-13-01T00:00:00Z",
            "2026-02-30T00:00:00Z",
            "2026-11-23T24:00:00Z",
            "2026-11-23T09:40:00.Z",
            "2026-11-23T09:40:00Zz",
            "2026-11-23T09:40:00+0100",
        ] {
            assert_eq!(Micros::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn agrees_with_chrono(seconds in 0_i64..253_402_300_799, micros in 0_i64..1_000_000) {
            let time = Micros(seconds * 1_000_000 + micros);
            prop_assert_eq!(Micros::parse(&time.to_string()), Some(time));
        }

        #[test]
        fn never_panics(text in "\\PC{0,40}") {
            prop_assert!(Micros::parse(&text).is_none_or(|t| Micros::parse(&t.to_string()) == Some(t)));
        }
    }
}
