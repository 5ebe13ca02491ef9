//! One row to its events.

use std::borrow::Cow;
use std::io::{self, Read};

use kiro_schemas::subject::Kind;
use kiro_schemas::{Event, Micros, Outcome, Value};

use super::{EventRule, FieldRule, From, MAX_LINE_BYTES, Mapping, Reading, Row, RowError, RowProblem, Target};
use crate::decode::json::{Json, at_most, join};
use crate::decode::{DecodeError, Limits};

/// Most columns of a row.
const MOST_CELLS: usize = 4_096;

/// A column of a row with its value.
pub(super) type Cell = (String, Option<String>);

/// The scalars of a JSON row by path; `null` is an empty cell.
pub(super) fn flat(row: Json<'_>) -> Result<Vec<Cell>, RowProblem> {
    let mut cells = Vec::new();
    flatten(row, "", &mut cells).map_err(RowProblem::Json)?;
    Ok(cells)
}

fn flatten(value: Json<'_>, prefix: &str, out: &mut Vec<Cell>) -> Result<(), DecodeError> {
    match value {
        Json::Object(pairs) => pairs.into_iter().try_for_each(|(key, value)| flatten(value, &join(prefix, &key)?, out)),
        Json::Array(values) => {
            values.into_iter().enumerate().try_for_each(|(at, value)| flatten(value, &join(prefix, &at.to_string())?, out))
        }
        scalar => {
            at_most("number of values of a row", out.len() + 1, MOST_CELLS)?;
            out.push((prefix.to_owned(), scalar.scalar().map(Cow::into_owned)));
            Ok(())
        }
    }
}

fn value_error(rule: &FieldRule, text: impl Into<String>) -> RowProblem {
    RowProblem::Value { field: rule.name.clone(), text: text.into() }
}

impl Mapping {
    pub(super) fn row(&self, line: u64, cells: &[Cell], strict: bool) -> Result<Row, RowError> {
        let mut events = Vec::with_capacity(self.events.len());
        for rule in &self.events {
            events.push(self.event(rule, cells, strict).map_err(|problem| RowError { line, problem })?);
        }
        Ok(Row { line, events })
    }

    fn event(&self, rule: &EventRule, cells: &[Cell], strict: bool) -> Result<Event<'static>, RowProblem> {
        let mut event = Event::new(rule.subject, rule.transition, "", "", Micros(0));
        let mut id = None;
        for field in &rule.fields {
            let value = read(field, cells, strict)?;
            match (field.target, value) {
                (Target::Source, Value::Text(text)) => event.source = text,
                (Target::SubjectId, Value::Text(text)) => event.subject_id = text,
                (Target::Id, Value::Text(text)) => id = Some(text),
                (Target::Attempt, Value::Int(attempt)) if attempt >= 1 => event.attempt = attempt,
                (Target::Attempt, Value::Int(_)) => return Err(value_error(field, "must be at least 1")),
                (Target::Time, Value::Time(time)) => event.time = time,
                (Target::KnownAt, Value::Time(time)) => event.known_at = Some(time),
                (Target::Field(at), value) => event.fields[at] = value,
                (Target::Source | Target::SubjectId | Target::Time, _) => return Err(value_error(field, "must not be empty")),
                _ => {}
            }
        }
        event.derive_id();
        if let Some(id) = id {
            event.id = id;
        }
        if self.keep {
            let limits = Limits::default();
            let is_used = |name: &str| rule.fields.iter().any(|field| matches!(&field.from, From::Column(column) if column == name));
            for (name, value) in cells {
                if let Some(value) = value.as_ref().filter(|value| !value.is_empty() && !is_used(name)) {
                    at_most("number of attributes", event.attributes.len() + 1, limits.attributes).map_err(RowProblem::Json)?;
                    at_most("attribute name", name.len(), limits.key_bytes).map_err(RowProblem::Json)?;
                    event.attributes.push((Cow::Owned(name.clone()), Cow::Owned(value.clone())));
                }
            }
        }
        Ok(event)
    }
}

/// Reads a field; an empty cell is null. In CSV (`strict`) each column must be there; JSON may leave keys out.
fn read(rule: &FieldRule, cells: &[Cell], strict: bool) -> Result<Value<'static>, RowProblem> {
    let text = match &rule.from {
        From::Const(text) => text.as_str(),
        From::Column(column) => match cells.iter().rev().find(|(name, _)| name == column) {
            Some((_, Some(text))) => text.as_str(),
            None if strict || matches!(rule.target, Target::Source | Target::SubjectId | Target::Time) => {
                let found = cells.iter().take(50).map(|(name, _)| name.clone()).collect();
                return Err(RowProblem::Column { column: column.clone(), found });
            }
            Some((_, None)) | None => "",
        },
    };
    let text = match rule.words.iter().find(|(from, _)| from == text) {
        Some((_, to)) if to.is_empty() => return Ok(Value::Null),
        Some((_, to)) => to.as_str(),
        None if text.is_empty() => return Ok(Value::Null),
        None if !rule.words.is_empty() => return Err(value_error(rule, format!("{text:?} is not in the map"))),
        None => text,
    };
    convert(rule, text)
}

fn convert(rule: &FieldRule, text: &str) -> Result<Value<'static>, RowProblem> {
    let bad = |what: &str| value_error(rule, format!("not {what}: {text:?}"));
    Ok(match &rule.reading {
        Reading::Text if rule.name == "outcome" && Outcome::parse(text).is_none() => {
            return Err(bad("success, failure, cancel, error or skip"));
        }
        Reading::Text => Value::Text(Cow::Owned(text.to_owned())),
        Reading::Int => Value::Int(text.trim().parse().map_err(|_ignored: std::num::ParseIntError| bad("an integer"))?),
        Reading::Float => match text.trim().parse::<f64>() {
            Ok(value) if value.is_finite() => Value::Float(value),
            _ => return Err(bad("a number")),
        },
        Reading::Bool => match text.trim().to_ascii_lowercase().as_str() {
            "true" | "1" | "yes" => Value::Bool(true),
            "false" | "0" | "no" => Value::Bool(false),
            _ => return Err(bad("true or false")),
        },
        Reading::Time(time) => Value::Time(time.read(text).ok_or_else(|| bad("a time of this form"))?),
    })
}

/// How values of a kind are read when the mapping does not say.
pub(super) fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Int => "int",
        Kind::Float => "float",
        Kind::Bool => "bool",
        Kind::Time => "time",
        Kind::Text | Kind::Map => "text",
    }
}

/// The rows of a CSV file, as they are read; a record of more than [`MAX_LINE_BYTES`] ends it with an error.
#[derive(Debug)]
pub struct CsvRows<'m, R: Read> {
    mapping: &'m Mapping,
    reader: csv::Reader<Capped<R>>,
    names: Option<Vec<String>>,
    record: csv::StringRecord,
    ended: bool,
}

/// Refuses to read on when one record has taken too many bytes.
#[derive(Debug)]
struct Capped<R> {
    inner: R,
    left: usize,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let most = buffer.len().min(self.left);
        let count = self.inner.read(buffer.get_mut(..most).unwrap_or_default())?;
        self.left -= count;
        Ok(count)
    }
}

impl<'m, R: Read> CsvRows<'m, R> {
    pub(super) fn new(mapping: &'m Mapping, reader: R) -> Self {
        let reader = csv::ReaderBuilder::new().has_headers(false).from_reader(Capped { inner: reader, left: MAX_LINE_BYTES });
        Self { mapping, reader, names: None, record: csv::StringRecord::new(), ended: false }
    }

    fn fail(&mut self, error: &csv::Error) -> RowError {
        let line = error.position().map_or_else(|| self.reader.position().line(), csv::Position::line);
        let problem = match error.kind() {
            csv::ErrorKind::Io(io) if io.kind() == io::ErrorKind::FileTooLarge => RowProblem::TooLong,
            _ => RowProblem::Csv(error.to_string()),
        };
        self.ended = matches!(error.kind(), csv::ErrorKind::Io(_));
        RowError { line, problem }
    }
}

impl<R: Read> Iterator for CsvRows<'_, R> {
    type Item = Result<Row, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            self.reader.get_mut().left = MAX_LINE_BYTES;
            match self.reader.read_record(&mut self.record) {
                Ok(false) => self.ended = true,
                Err(error) => return Some(Err(self.fail(&error))),
                Ok(true) => {
                    let line = self.record.position().map_or(0, csv::Position::line);
                    if self.record.len() > MOST_CELLS {
                        self.ended = true;
                        let problem = RowProblem::Csv(format!("{} columns, the limit is {MOST_CELLS}", self.record.len()));
                        return Some(Err(RowError { line, problem }));
                    }
                    let Some(names) = &self.names else {
                        let names = self.record.iter().map(|name| name.trim_start_matches('\u{feff}').trim().to_owned());
                        self.names = Some(names.collect());
                        continue;
                    };
                    let cells: Vec<Cell> = names.iter().cloned().zip(self.record.iter().map(|cell| Some(cell.to_owned()))).collect();
                    return Some(self.mapping.row(line, &cells, true));
                }
            }
        }
        None
    }
}
