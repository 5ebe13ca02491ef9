//! A mapping file to a checked [`Mapping`]: raw shape by serde, then every problem at once.

use std::collections::BTreeMap;
use std::fmt;

use chrono_tz::Tz;
use kiro_schemas::subject::{Kind, spec};
use kiro_schemas::{Problem, Subject, SubjectSpec, Tenant, Transition};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_saphyr::Spanned;

use super::time::{self, TimeForm, TimeRule};
use super::{EventRule, FieldRule, From, Mapping, Reading, Target, row};

const MAX_FILE_BYTES: usize = 256 << 10;
/// Each gives an event a row.
const MAX_EVENTS: usize = 64;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    version: u32,
    rows: Option<String>,
    timezone: Option<Spanned<String>>,
    tenant: Option<Spanned<String>>,
    source: Option<Spanned<Written>>,
    #[serde(default)]
    keep: bool,
    events: Vec<Spanned<RawEvent>>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawEvent {
    subject: String,
    transition: String,
    fields: BTreeMap<String, Spanned<Written>>,
}

#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    column: Option<String>,
    r#const: Option<Scalar>,
    r#as: Option<String>,
    format: Option<String>,
    plus: Option<String>,
    map: Option<BTreeMap<String, String>>,
}

/// A field as it is written: the name of a column, or a rule.
struct Written(RawField);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(WrittenVisitor)
    }
}

struct WrittenVisitor;

impl<'de> Visitor<'de> for WrittenVisitor {
    type Value = Written;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the name of a column, {column, as, map} or {const}")
    }

    fn visit_str<E: serde::de::Error>(self, column: &str) -> Result<Written, E> {
        Ok(Written(RawField { column: Some(column.to_owned()), ..RawField::default() }))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Written, A::Error> {
        RawField::deserialize(MapAccessDeserializer::new(map)).map(Written)
    }
}

/// A scalar of YAML as text.
#[derive(Debug, Clone)]
struct Scalar(String);

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Scalar)
    }
}

struct Check {
    zone: Option<Tz>,
    source: Option<(Written, u64)>,
    problems: Vec<Problem>,
}

impl Check {
    fn report(&mut self, path: impl Into<String>, line: u64, text: impl Into<String>) {
        self.problems.push(Problem { path: path.into(), line: Some(line).filter(|line| *line > 0), text: text.into() });
    }
}

fn whole(text: String) -> Vec<Problem> {
    vec![Problem::at("", text)]
}

pub(super) fn parse(yaml: &str) -> Result<Mapping, Vec<Problem>> {
    if yaml.len() > MAX_FILE_BYTES {
        return Err(whole(format!("is larger than {MAX_FILE_BYTES} bytes")));
    }
    let options = serde_saphyr::options! { budget: serde_saphyr::budget! { max_nodes: 20_000, max_anchors: 32, max_aliases: 64, max_depth: 16 }, with_snippet: false };
    let raw: Raw = serde_saphyr::from_str_with_options(yaml, options).map_err(|error| {
        vec![Problem { path: String::new(), line: error.location().map(|at| at.line()), text: error.without_snippet().to_string() }]
    })?;
    check(raw)
}

fn check(raw: Raw) -> Result<Mapping, Vec<Problem>> {
    let mut check = Check { zone: None, source: None, problems: Vec::new() };
    if raw.version != 1 {
        check.report("version", 0, format!("is {}, this program knows version 1", raw.version));
    }
    if let Some(zone) = raw.timezone {
        match zone.value.parse::<Tz>() {
            Ok(known) => check.zone = Some(known),
            Err(_) => check.report("timezone", zone.referenced.line(), format!("is not an IANA time zone: {:?}", zone.value)),
        }
    }
    if let Some(tenant) = raw.tenant.as_ref().filter(|tenant| !kiro_schemas::id::is_tenant(&tenant.value)) {
        check.report("tenant", tenant.referenced.line(), "must be 1 to 64 of a-z 0-9 - _");
    }
    check.source = raw.source.map(|source| (source.value, source.referenced.line()));
    if raw.events.is_empty() {
        check.report("events", 0, "is empty");
    }
    if raw.events.len() > MAX_EVENTS {
        check.report("events", 0, format!("has {} entries, more than {MAX_EVENTS}", raw.events.len()));
    }
    let mut events = Vec::with_capacity(raw.events.len());
    for (at, event) in raw.events.into_iter().enumerate() {
        let line = event.referenced.line();
        events.extend(check_event(&mut check, &format!("events[{at}]"), line, event.value));
    }
    if !check.problems.is_empty() {
        return Err(check.problems);
    }
    let rows = raw.rows.unwrap_or_default();
    let rows = rows.trim_start_matches('$').split('.').filter(|key| !key.is_empty()).map(str::to_owned).collect();
    Ok(Mapping { rows, tenant: raw.tenant.map(|tenant| Tenant::new(tenant.value)), keep: raw.keep, events })
}

fn check_event(check: &mut Check, path: &str, line: u64, raw: RawEvent) -> Option<EventRule> {
    let Some(subject) = Subject::parse(&raw.subject).filter(|subject| !subject.is_ours()) else {
        check.report(format!("{path}.subject"), line, format!("no subject {:?}", raw.subject));
        return None;
    };
    let spec = spec(subject);
    let transition = Transition::parse(&raw.transition).filter(|transition| spec.transition(*transition).is_some());
    if transition.is_none() {
        let known: Vec<&str> = spec.transitions.iter().map(|step| step.transition.as_str()).collect();
        check.report(format!("{path}.transition"), line, format!("a {subject} has {}, not {:?}", known.join(", "), raw.transition));
    }
    let mut fields = Vec::with_capacity(raw.fields.len() + 1);
    for (name, field) in raw.fields {
        let path = format!("{path}.fields.{name}");
        fields.extend(check_field(check, spec, &path, &name, (field.value, field.referenced.line())));
    }
    if !fields.iter().any(|field: &FieldRule| field.target == Target::Source)
        && let Some((Written(source), line)) = &check.source
    {
        let source = (Written(source.clone()), *line);
        fields.extend(check_field(check, spec, "source", "source", source));
    }
    for (target, name) in [(Target::Source, "source"), (Target::SubjectId, "subject_id"), (Target::Time, "time")] {
        if !fields.iter().any(|field| field.target == target) {
            check.report(format!("{path}.fields"), line, format!("{name:?} is missing"));
        }
    }
    Some(EventRule { subject, transition: transition?, fields })
}

fn check_field(check: &mut Check, spec: &SubjectSpec, path: &str, name: &str, (raw, line): (Written, u64)) -> Option<FieldRule> {
    let Written(raw) = raw;
    let (target, kind) = match name {
        "source" => (Target::Source, Kind::Text),
        "subject_id" => (Target::SubjectId, Kind::Text),
        "id" => (Target::Id, Kind::Text),
        "attempt" => (Target::Attempt, Kind::Int),
        "time" => (Target::Time, Kind::Time),
        "known_at" => (Target::KnownAt, Kind::Time),
        name => {
            if let Some(at) = spec.field(name) {
                (Target::Field(at), spec.columns[at].kind)
            } else {
                check.report(path, line, format!("a {} has no such field", spec.name));
                return None;
            }
        }
    };
    let wanted = row::kind_name(kind);
    let reading = raw.r#as.as_deref().unwrap_or(wanted);
    if reading != wanted && !(wanted == "float" && reading == "int") {
        check.report(path, line, format!("is read as {reading}, the field is {wanted}"));
        return None;
    }
    let reading = match kind {
        Kind::Time => Reading::Time(check_time(check, path, line, &raw)?),
        _ if raw.format.is_some() || raw.plus.is_some() => {
            check.report(path, line, "format and plus are for times");
            return None;
        }
        Kind::Int => Reading::Int,
        Kind::Float => Reading::Float,
        Kind::Bool => Reading::Bool,
        Kind::Text | Kind::Map => Reading::Text,
    };
    let from = match (raw.column, raw.r#const) {
        (Some(column), None) => From::Column(column),
        (None, Some(Scalar(text))) => From::Const(text),
        _ => {
            check.report(path, line, "needs either column or const");
            return None;
        }
    };
    let words: Vec<(String, String)> = raw.map.unwrap_or_default().into_iter().collect();
    let outcome = |word: &str| kiro_schemas::Outcome::parse(word).is_some();
    if let Some((_, word)) = words.iter().find(|(_, word)| name == "outcome" && !word.is_empty() && !outcome(word)) {
        check.report(path, line, format!("{word:?} is not success, failure, cancel, error or skip"));
    }
    Some(FieldRule { target, name: name.to_owned(), from, reading, words })
}

fn check_time(check: &mut Check, path: &str, line: u64, raw: &RawField) -> Option<TimeRule> {
    let plus = match raw.plus.as_deref().map(time::length) {
        None => 0,
        Some(Some(plus)) => plus,
        Some(None) => {
            check.report(path, line, "plus is not a length such as 30m, 2h or 1d");
            return None;
        }
    };
    let form = match raw.format.as_deref() {
        None | Some("rfc3339") => TimeForm::Rfc3339,
        Some("seconds" | "epoch" | "epoch_seconds" | "epoch_s") => TimeForm::Seconds,
        Some("millis" | "epoch_millis" | "epoch_ms") => TimeForm::Millis,
        Some(format) if !format.contains('%') || !time::is_format(format) => {
            check.report(path, line, format!("{format:?} is not rfc3339, seconds, millis or a format such as %Y-%m-%d %H:%M"));
            return None;
        }
        Some(format) if time::has_offset(format) => TimeForm::Offset(format.to_owned()),
        Some(format) => {
            if let Some(zone) = check.zone {
                TimeForm::Local(format.to_owned(), zone)
            } else {
                check.report(path, line, "times without an offset need a timezone in the file");
                return None;
            }
        }
    };
    Some(TimeRule { form, plus })
}
