//! What the readers of all platforms share: borrowed texts, lenient times, and how fields are set.

use std::borrow::Cow;

use kiro_schemas::{Event, Micros, Outcome, Value};
use serde::{Deserialize, Deserializer};

mod push;

pub(crate) use push::{Commit, Push, is_nothing};

/// Most labels of a change or an incident that are kept.
const MOST_LABELS: usize = 50;

/// A text that is borrowed unless it has escapes.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Text<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Whether a text says something.
pub(crate) fn is_named(text: &Text<'_>) -> bool {
    !text.0.is_empty()
}

/// Something of which only the name is read.
#[derive(Deserialize)]
#[serde(bound(deserialize = "'de: 'a"))]
pub(crate) struct Named<'a> {
    pub(crate) name: Option<Text<'a>>,
}

/// A list that may be null where it is empty.
pub(crate) fn list<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Vec<T>, D::Error> {
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// A time in any of the forms that platforms use: RFC 3339, or Ruby's `2016-08-12 15:23:28 UTC` and `… +0200`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct When(pub(crate) Micros);

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        time(&text).map(Self).ok_or_else(|| serde::de::Error::custom(format_args!("not a time: {text:?}")))
    }
}

fn time(text: &str) -> Option<Micros> {
    let Some((stamp, zone)) = text.rsplit_once(' ').filter(|(stamp, _)| stamp.contains([' ', 'T'])) else { return Micros::parse(text) };
    if zone == "UTC" {
        return Micros::parse(&format!("{stamp}Z"));
    }
    let (hours, minutes) = zone.split_at_checked(3)?;
    Micros::parse(&format!("{stamp}{hours}:{minutes}"))
}

/// An empty text says nothing.
pub(crate) fn set<'a>(event: &mut Event<'a>, name: &str, text: Option<Text<'a>>) {
    event.set_text(name, text.map(|text| text.0).filter(|text| !text.is_empty()));
}

/// A time before 1970 says nothing: some platforms write the year 1 for "never".
pub(crate) fn set_time(event: &mut Event<'_>, name: &str, time: Option<Micros>) {
    if let Some(time) = time.filter(|time| time.is_storable()) {
        event.set(name, Value::Time(time));
    }
}

pub(crate) fn set_int(event: &mut Event<'_>, name: &str, value: Option<i64>) {
    if let Some(value) = value {
        event.set(name, Value::Int(value));
    }
}

/// The end of a run.
pub(crate) fn set_end(event: &mut Event<'_>, outcome: Option<Outcome>, started: Option<Micros>, finished: Option<Micros>) {
    set_time(event, "finished_at", finished);
    if let Some(outcome) = outcome {
        event.set("outcome", Value::text(outcome.as_str()));
    }
    let micros = started.zip(finished).map(|(started, finished)| finished.0.saturating_sub(started.0));
    set_int(event, "duration_ms", micros.filter(|micros| *micros >= 0).map(|micros| micros / 1000));
}

/// Keeps what has no column of its own; an empty text says nothing.
pub(crate) fn note<'a>(event: &mut Event<'a>, name: &'static str, text: Option<impl Into<Cow<'a, str>>>) {
    if let Some(text) = text.map(Into::into).filter(|text| !text.is_empty()) {
        event.attributes.push((Cow::Borrowed(name), text));
    }
}

/// Keeps the labels, in order, separated by commas.
pub(crate) fn note_all<'t, 'a: 't>(event: &mut Event<'_>, name: &'static str, labels: impl Iterator<Item = &'t Text<'a>>) {
    let labels: Vec<&str> = labels.map(|label| &*label.0).filter(|label| !label.is_empty()).take(MOST_LABELS).collect();
    note(event, name, Some(labels.join(",")));
}

/// Tells two facts of one subject apart that may happen at the same moment.
pub(crate) fn tell_apart(event: &mut Event<'_>, by: impl std::fmt::Display) {
    event.id = Cow::Owned(format!("{}/{by}", event.id));
}

/// The first line of a text.
pub(crate) fn first_line(text: Text<'_>) -> Text<'_> {
    match text.0 {
        Cow::Borrowed(text) => Text(Cow::Borrowed(text.lines().next().unwrap_or_default())),
        Cow::Owned(text) => Text(Cow::Owned(text.lines().next().unwrap_or_default().to_owned())),
    }
}

/// Scheme and host of an address; what is none stays as it is.
pub(crate) fn origin(url: &str) -> String {
    let host = url.split_once("://").map(|(scheme, rest)| (scheme, rest.split(['/', '?', '#']).next().unwrap_or_default()));
    host.map_or_else(|| url.to_owned(), |(scheme, host)| format!("{scheme}://{host}"))
}

/// Says that what is told is an issue: the rules decide whether it is an incident. Webhooks and APIs write types differently.
pub(crate) fn issue_type(event: &mut Event<'_>, kind: Option<Text<'_>>) {
    let kind = kind.filter(is_named).map_or_else(|| "issue".to_owned(), |kind| kind.0.to_lowercase());
    note(event, "issue_type", Some(kind));
}

/// How bad an incident is by its labels: `severity…`, `sev…`, `priority…` or `P0` to `P5`, as it stands there.
pub(crate) fn severity<'a>(labels: impl Iterator<Item = Text<'a>>) -> Option<Text<'a>> {
    let mut found = labels.filter(|label| {
        let word = label.0.to_ascii_lowercase();
        let is_digit = |rest: &str| rest.len() == 1 && rest.bytes().all(|b| b.is_ascii_digit());
        word.starts_with("severity")
            || word.starts_with("priority")
            || word.strip_prefix("sev").or(word.strip_prefix('p')).is_some_and(is_digit)
    });
    found.next()
}

/// What is made of a version, by its package URL.
///
/// # Source
/// The purl specification: `pkg:type/namespace/name@version`, with `%`, `@`, `?`, `#` and spaces escaped.
pub(crate) fn purl(kind: &str, full_name: &str, version: &str) -> String {
    let mut escaped = String::with_capacity(version.len());
    for character in version.chars() {
        match character {
            '%' => escaped.push_str("%25"),
            '@' => escaped.push_str("%40"),
            '?' => escaped.push_str("%3F"),
            '#' => escaped.push_str("%23"),
            ' ' => escaped.push_str("%20"),
            other => escaped.push(other),
        }
    }
    format!("pkg:{kind}/{}@{escaped}", full_name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::{Text, origin, purl, severity, time};

    #[test]
    fn times_of_all_forms() {
        for (text, same) in [
            ("2016-08-12 15:23:28 UTC", "2016-08-12T15:23:28Z"),
            ("2021-04-28 21:50:00 +0200", "2021-04-28T19:50:00Z"),
            ("2012-01-03T23:36:29+02:00", "2012-01-03T21:36:29Z"),
            ("2012-01-03T23:36:29.5Z", "2012-01-03T23:36:29.500Z"),
        ] {
            assert_eq!(time(text).map(|time| time.to_string()).as_deref(), Some(same), "{text}");
        }
        for text in ["", "UTC", " UTC", "2016-08-12", "2016-08-12 15:23:28", "2016-08-12 15:23:28 CET", "2016-08-12 15:23:28 +é00", "never"]
        {
            assert_eq!(time(text), None, "{text}");
        }
    }

    fn labels(texts: &[&'static str]) -> Vec<Text<'static>> {
        texts.iter().map(|text| Text((*text).into())).collect()
    }

    #[test]
    fn labels_say_how_bad_an_incident_is() {
        for bad in ["severity::2", "sev1", "SEV2", "p0", "P1", "priority: high"] {
            assert_eq!(severity(labels(&["incident", bad]).into_iter()).map(|text| text.0).as_deref(), Some(bad));
        }
        for not in ["several", "pending", "p10", "seven"] {
            assert!(severity(labels(&[not]).into_iter()).is_none(), "{not}");
        }
    }

    #[test]
    fn an_address_has_an_origin() {
        assert_eq!(origin("https://acme.pagerduty.com/incidents/PGR0VU2"), "https://acme.pagerduty.com");
        assert_eq!(origin("https://acme.example?x"), "https://acme.example");
        assert_eq!(origin("no address"), "no address");
    }

    #[test]
    fn versions_have_one_name() {
        assert_eq!(purl("github", "Codertocat/Hello-World", "v1 @2"), "pkg:github/codertocat/hello-world@v1%20%402");
    }
}
