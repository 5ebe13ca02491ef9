//! Days, weeks and months as people in a place count them.

use std::fmt;

use chrono::{DateTime, Datelike, Days, LocalResult, Months, NaiveDate, NaiveDateTime, TimeDelta, TimeZone as _};
use chrono_tz::Tz;

use crate::Micros;

/// A time zone of the IANA database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Zone(Tz);

/// How long a window is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Window {
    /// From midnight to midnight.
    Day,
    /// From Monday to Monday (ISO 8601).
    Week,
    /// From the first to the first.
    Month,
}

impl Window {
    /// All of them, the shortest first.
    pub const ALL: [Self; 3] = [Self::Day, Self::Week, Self::Month];

    /// The word in tables.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }

    /// The first day of the window that a day lies in, and the first one after it.
    fn around(self, day: NaiveDate) -> (NaiveDate, NaiveDate) {
        let first = match self {
            Self::Day => day,
            Self::Week => day - Days::new(u64::from(day.weekday().num_days_from_monday())),
            Self::Month => day.with_day(1).unwrap_or(day),
        };
        let next = match self {
            Self::Day => first + Days::new(1),
            Self::Week => first + Days::new(7),
            Self::Month => first + Months::new(1),
        };
        (first, next)
    }
}

/// A window: from its start to before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// Its first moment.
    pub start: Micros,
    /// The first moment after it.
    pub end: Micros,
    /// How many days of the calendar it has.
    pub days: u32,
}

impl Default for Zone {
    fn default() -> Self {
        Self(Tz::UTC)
    }
}

impl Zone {
    /// The zone of that name: `Europe/Berlin`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        name.parse().ok().map(Self)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.0.name()
    }

    /// The window that a moment lies in.
    #[must_use]
    pub fn window(self, window: Window, at: Micros) -> Span {
        let (first, next) = window.around(self.date(at));
        let days = u32::try_from((next - first).num_days()).unwrap_or(1);
        Span { start: self.midnight(first), end: self.midnight(next), days }
    }

    /// The day that a moment lies in, counted from the start of the common era.
    #[must_use]
    pub fn day(self, at: Micros) -> i32 {
        self.date(at).num_days_from_ce()
    }

    fn date(self, at: Micros) -> NaiveDate {
        DateTime::from_timestamp_micros(at.0).unwrap_or_default().with_timezone(&self.0).date_naive()
    }

    /// When a day begins. Where clocks were put forward over midnight, it begins with the first moment that there is.
    fn midnight(self, day: NaiveDate) -> Micros {
        let midnight = NaiveDateTime::from(day);
        let quarters = (0..16).map(|quarter| midnight + TimeDelta::minutes(15 * quarter));
        let mut moments = quarters.filter_map(|local| match self.0.from_local_datetime(&local) {
            LocalResult::Single(moment) | LocalResult::Ambiguous(moment, _) => Some(Micros(moment.timestamp_micros())),
            LocalResult::None => None,
        });
        moments.next().unwrap_or_else(|| Micros(midnight.and_utc().timestamp_micros()))
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{Window, Zone};
    use crate::Micros;

    fn at(text: &str) -> Micros {
        Micros::parse(text).expect("a time")
    }

    #[test]
    fn days_have_the_length_that_the_clocks_say() {
        let berlin = Zone::parse("Europe/Berlin").expect("a zone");
        for (noon, start, end) in [
            ("2026-03-29T10:00:00Z", "2026-03-28T23:00:00Z", "2026-03-29T22:00:00Z"),
            ("2026-10-25T10:00:00Z", "2026-10-24T22:00:00Z", "2026-10-25T23:00:00Z"),
            ("2026-11-24T22:59:59Z", "2026-11-23T23:00:00Z", "2026-11-24T23:00:00Z"),
            ("2026-11-24T23:00:00Z", "2026-11-24T23:00:00Z", "2026-11-25T23:00:00Z"),
        ] {
            let day = berlin.window(Window::Day, at(noon));
            assert_eq!((day.start, day.end, day.days), (at(start), at(end), 1), "{noon}");
        }
        let week = berlin.window(Window::Week, at("2026-10-25T22:59:59Z"));
        assert_eq!((week.start, week.end, week.days), (at("2026-10-18T22:00:00Z"), at("2026-10-25T23:00:00Z"), 7));
        let month = Zone::default().window(Window::Month, at("2024-02-29T12:00:00Z"));
        assert_eq!((month.start, month.end, month.days), (at("2024-02-01T00:00:00Z"), at("2024-03-01T00:00:00Z"), 29));
    }

    #[test]
    fn a_midnight_that_was_skipped_is_the_first_moment_after() {
        let zone = Zone::parse("America/Sao_Paulo").expect("a zone");
        let day = zone.window(Window::Day, at("2018-11-04T15:00:00Z"));
        assert_eq!(day.start, at("2018-11-04T03:00:00Z"));
    }

    proptest! {
        #[test]
        fn windows_follow_one_another_without_a_gap(
            seconds in 946_684_800_i64..2_208_988_800,
            name in prop::sample::select(vec!["UTC", "Europe/Berlin", "America/Sao_Paulo", "Asia/Kathmandu", "Pacific/Apia", "Australia/Lord_Howe"]),
        ) {
            let (zone, at) = (Zone::parse(name).expect("a zone"), Micros::from_seconds(seconds));
            for kind in Window::ALL {
                let span = zone.window(kind, at);
                prop_assert!(span.start <= at && at < span.end, "{kind:?}");
                prop_assert_eq!(zone.window(kind, span.start), span);
                prop_assert_eq!(zone.window(kind, span.end.plus(-1)), span);
                prop_assert_eq!(zone.window(kind, span.end).start, span.end);
            }
        }
    }
}
