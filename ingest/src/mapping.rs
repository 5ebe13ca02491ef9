//! Mapping files: rows of CSV, NDJSON or nested JSON to events.
//!
//! ```yaml
//! version: 1
//! timezone: Europe/Zurich
//! source: {const: https://ci.example/acme/shop}
//! keep: true
//! events:
//!   - subject: pipeline_run
//!     transition: finished
//!     fields:
//!       subject_id: build_id
//!       time: {column: ended, as: time, format: "%Y-%m-%d %H:%M"}
//!       outcome: {column: failed, map: {"1": failure, "0": success}}
//! ```
//! Ids are derived from content, so a repeated row gives the same events.

use std::io::Read;

use kiro_schemas::{Blame, Event, Fault, FaultKind, Problem, Subject, Tenant, Transition};

use crate::decode::DecodeError;
use crate::decode::json::Json;

mod file;
mod row;
#[cfg(test)]
mod tests;
mod time;

pub use row::CsvRows;

/// Bytes of a line at most.
pub const MAX_LINE_BYTES: usize = 1 << 20;
const DEPTH: usize = 64;

/// A mapping file that was checked.
#[derive(Debug, Clone)]
pub struct Mapping {
    pub(crate) rows: Vec<String>,
    pub(crate) tenant: Option<Tenant>,
    pub(crate) keep: bool,
    pub(crate) events: Vec<EventRule>,
}

#[derive(Debug, Clone)]
pub(crate) struct EventRule {
    pub(crate) subject: Subject,
    pub(crate) transition: Transition,
    pub(crate) fields: Vec<FieldRule>,
}

#[derive(Debug, Clone)]
pub(crate) struct FieldRule {
    pub(crate) target: Target,
    pub(crate) name: String,
    pub(crate) from: From,
    pub(crate) reading: Reading,
    pub(crate) words: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Target {
    Source,
    SubjectId,
    Attempt,
    Time,
    KnownAt,
    Id,
    Field(usize),
}

#[derive(Debug, Clone)]
pub(crate) enum From {
    Column(String),
    Const(String),
}

#[derive(Debug, Clone)]
pub(crate) enum Reading {
    Text,
    Int,
    Float,
    Bool,
    Time(time::TimeRule),
}

/// The events of one row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The line, or the number of the row in a JSON document, from 1.
    pub line: u64,
    /// Its events, as many as the mapping has rules.
    pub events: Vec<Event<'static>>,
}

/// Why a row gives no events.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("line {line}: {problem}")]
pub struct RowError {
    /// The line, or the number of the row, from 1.
    pub line: u64,
    /// What is wrong.
    pub problem: RowProblem,
}

/// What is wrong with a row.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RowProblem {
    /// A column that the file does not have.
    #[error("no column {column:?}; there are {}", .found.join(", "))]
    Column {
        /// The column of the mapping.
        column: String,
        /// The columns that are there.
        found: Vec<String>,
    },
    /// A value that cannot be read.
    #[error("field {field:?}: {text}")]
    Value {
        /// Our field.
        field: String,
        /// What is wrong.
        text: String,
    },
    /// A line that passes the limit.
    #[error("longer than {} bytes", MAX_LINE_BYTES)]
    TooLong,
    /// Not CSV.
    #[error("not CSV: {0}")]
    Csv(String),
    /// Not JSON.
    #[error(transparent)]
    Json(DecodeError),
}

impl Fault for RowError {
    fn kind(&self) -> FaultKind {
        match &self.problem {
            RowProblem::TooLong => FaultKind::TooLarge,
            RowProblem::Json(error) => error.kind(),
            _ => FaultKind::Invalid,
        }
    }

    fn blame(&self) -> Blame {
        Blame::Caller
    }

    fn code(&self) -> &'static str {
        match &self.problem {
            RowProblem::Column { .. } => "KIR-0230",
            RowProblem::Value { .. } => "KIR-0231",
            RowProblem::TooLong => "KIR-0232",
            RowProblem::Csv(_) => "KIR-0233",
            RowProblem::Json(error) => error.code(),
        }
    }
}

impl Mapping {
    /// Reads and checks a mapping file.
    ///
    /// # Errors
    /// All problems of the file, each with its path and, where it is known, its line.
    pub fn parse(yaml: &str) -> Result<Self, Vec<Problem>> {
        file::parse(yaml)
    }

    /// The tenant that the file names.
    #[must_use]
    pub const fn tenant(&self) -> Option<&Tenant> {
        self.tenant.as_ref()
    }

    /// The rows of a CSV file with a header, as they are read.
    pub fn csv<R: Read>(&self, reader: R) -> CsvRows<'_, R> {
        CsvRows::new(self, reader)
    }

    /// The rows of a JSON document, found under `rows`; without `rows` the document is a row, or an array of rows.
    ///
    /// # Errors
    /// The document is not JSON, or has no rows where the mapping says.
    pub fn json(&self, bytes: &[u8]) -> Result<impl Iterator<Item = Result<Row, RowError>> + use<'_>, DecodeError> {
        self.json_with_depth(bytes, DEPTH)
    }

    pub(crate) fn json_with_depth(
        &self,
        bytes: &[u8],
        depth: usize,
    ) -> Result<impl Iterator<Item = Result<Row, RowError>> + use<'_>, DecodeError> {
        let mut document = Json::parse(bytes, depth)?;
        for key in &self.rows {
            document = document.take(key).ok_or_else(|| DecodeError::shape(self.rows.join("."), "is not there"))?;
        }
        let rows = match document {
            Json::Array(rows) => rows,
            row => vec![row],
        };
        let rows: Vec<_> = rows.into_iter().map(row::flat).collect();
        let read = move |(line, cells): (u64, Result<Vec<row::Cell>, RowProblem>)| match cells {
            Ok(cells) => self.row(line, &cells, false),
            Err(problem) => Err(RowError { line, problem }),
        };
        Ok((1_u64..).zip(rows).map(read))
    }

    /// The rows of NDJSON, one document a line.
    pub fn ndjson<'r>(&'r self, bytes: &'r [u8]) -> impl Iterator<Item = Result<Row, RowError>> + 'r {
        let lines = (1_u64..).zip(bytes.split(|byte| *byte == b'\n')).filter(|(_, line)| !line.trim_ascii().is_empty());
        lines.flat_map(move |(line, bytes)| {
            let fail = |problem| -> Vec<Result<Row, RowError>> { vec![Err(RowError { line, problem })] };
            if bytes.len() > MAX_LINE_BYTES {
                return fail(RowProblem::TooLong);
            }
            match self.json(bytes) {
                Ok(rows) => rows.map(|row| row.map(|row| Row { line, ..row }).map_err(|error| RowError { line, ..error })).collect(),
                Err(error) => fail(RowProblem::Json(error)),
            }
        })
    }
}
