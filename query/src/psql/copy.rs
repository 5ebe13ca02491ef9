//! `COPY … TO STDOUT`: the rows of a query as lines, in PostgreSQL's text form or as CSV. To a file, to a program and from anywhere
//! it stays refused, by the engine.

use bytes::{BufMut, Bytes, BytesMut};
use datafusion::sql::sqlparser::ast::{CopyLegacyCsvOption, CopyLegacyOption, CopyOption, CopyTarget, Ident, Statement};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::parser::Parser;
use pgwire::api::results::FieldInfo;
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::data::DataRow;

use super::fault;

/// Deepest recursion of the parser, as for a query.
const RECURSION: usize = 64;

/// How the lines are written.
///
/// # Source
/// PostgreSQL 16, "COPY": options, their defaults, and both forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Form {
    is_csv: bool,
    has_header: bool,
    delimiter: u8,
    null: String,
    quote: u8,
    escape: u8,
    /// Columns whose values always stand in quotes.
    force: Vec<String>,
}

/// What a statement says about the form; what it does not say has a default that depends on the rest.
#[derive(Default)]
struct Said {
    format: Option<String>,
    has_header: bool,
    delimiter: Option<char>,
    null: Option<String>,
    quote: Option<char>,
    escape: Option<char>,
    force: Vec<Ident>,
}

/// The form that a `COPY … TO STDOUT` asks for; `None` when the statement is anything else.
pub(super) fn read(statement: &str) -> PgWireResult<Option<Form>> {
    let dialect = PostgreSqlDialect {};
    let parser = Parser::new(&dialect).with_recursion_limit(RECURSION).try_with_sql(statement);
    let Ok(statements) = parser.and_then(|mut parser| parser.parse_statements()) else { return Ok(None) };
    let [Statement::Copy { to: true, target: CopyTarget::Stdout, options, legacy_options, .. }] = statements.as_slice() else {
        return Ok(None);
    };
    let mut said = Said::default();
    options.iter().try_for_each(|option| said.take(option))?;
    legacy_options.iter().try_for_each(|option| said.take_old(option))?;
    said.form().map(Some)
}

fn wrong(what: impl Into<String>) -> PgWireError {
    fault::error("22023", format!("COPY: {}", what.into()))
}

fn refused(what: &str) -> PgWireError {
    fault::error("0A000", format!("COPY … TO STDOUT does not take {what}"))
}

impl Said {
    fn take(&mut self, option: &CopyOption) -> PgWireResult<()> {
        match option {
            CopyOption::Format(name) => self.format = Some(name.value.to_lowercase()),
            CopyOption::Delimiter(char) => self.delimiter = Some(*char),
            CopyOption::Null(text) => self.null = Some(text.clone()),
            CopyOption::Header(is_wanted) => self.has_header = *is_wanted,
            CopyOption::Quote(char) => self.quote = Some(*char),
            CopyOption::Escape(char) => self.escape = Some(*char),
            CopyOption::ForceQuote(columns) => self.force.clone_from(columns),
            CopyOption::Encoding(name) if is_utf8(name) => {}
            CopyOption::Encoding(name) => return Err(refused(&format!("the encoding {name:?}: there is UTF8"))),
            CopyOption::Freeze(_) | CopyOption::ForceNotNull(_) | CopyOption::ForceNull(_) => return Err(refused(&option.to_string())),
        }
        Ok(())
    }

    fn take_old(&mut self, option: &CopyLegacyOption) -> PgWireResult<()> {
        match option {
            CopyLegacyOption::Csv(options) => {
                self.format = Some("csv".to_owned());
                return options.iter().try_for_each(|option| self.take_old_csv(option));
            }
            CopyLegacyOption::Delimiter(char) => self.delimiter = Some(*char),
            CopyLegacyOption::Null(text) => self.null = Some(text.clone()),
            CopyLegacyOption::Header => self.has_header = true,
            other => return Err(refused(&other.to_string())),
        }
        Ok(())
    }

    fn take_old_csv(&mut self, option: &CopyLegacyCsvOption) -> PgWireResult<()> {
        match option {
            CopyLegacyCsvOption::Header => self.has_header = true,
            CopyLegacyCsvOption::Quote(char) => self.quote = Some(*char),
            CopyLegacyCsvOption::Escape(char) => self.escape = Some(*char),
            CopyLegacyCsvOption::ForceQuote(columns) => self.force.clone_from(columns),
            CopyLegacyCsvOption::ForceNotNull(_) => return Err(refused(&option.to_string())),
        }
        Ok(())
    }

    fn form(self) -> PgWireResult<Form> {
        let is_csv = match self.format.as_deref() {
            None | Some("text") => false,
            Some("csv") => true,
            Some(other) => return Err(refused(&format!("the format {other:?}: there are text and csv"))),
        };
        if !is_csv && (self.quote.is_some() || self.escape.is_some() || !self.force.is_empty()) {
            return Err(wrong("quotes and escapes are those of the format csv"));
        }
        let byte = |char: Option<char>, otherwise: u8| match char.map(u8::try_from) {
            None => Ok(otherwise),
            Some(Ok(byte)) if byte.is_ascii() && !matches!(byte, 0 | b'\n' | b'\r') => Ok(byte),
            Some(_) => Err(wrong("a delimiter, quote or escape is one character of ASCII, and no line end")),
        };
        let delimiter = byte(self.delimiter, if is_csv { b',' } else { b'\t' })?;
        let quote = byte(self.quote, b'"')?;
        let escape = byte(self.escape, quote)?;
        let null = self.null.unwrap_or_else(|| if is_csv { String::new() } else { "\\N".to_owned() });
        if null.contains(['\n', '\r']) || null.bytes().any(|b| b == delimiter || (is_csv && b == quote)) {
            return Err(wrong("the text for null holds a line end, the delimiter or the quote"));
        }
        if is_csv && delimiter == quote {
            return Err(wrong("the delimiter is the quote, too"));
        }
        // In the text form these would be read as parts of an escape or of a value.
        if !is_csv && (delimiter.is_ascii_lowercase() || delimiter.is_ascii_digit() || matches!(delimiter, b'\\' | b'.')) {
            return Err(wrong("the text form has no such delimiter"));
        }
        let force = self.force.into_iter().map(|column| column.value).collect();
        Ok(Form { is_csv, has_header: self.has_header, delimiter, null, quote, escape, force })
    }
}

fn is_utf8(name: &str) -> bool {
    matches!(name.to_ascii_lowercase().replace('-', "").as_str(), "utf8" | "unicode")
}

impl Form {
    /// The columns whose values always stand in quotes.
    pub(super) fn forced(&self, fields: &[FieldInfo]) -> PgWireResult<Vec<bool>> {
        if let Some(unknown) = self.force.iter().find(|name| fields.iter().all(|field| field.name() != *name)) {
            return Err(fault::error("42703", format!("COPY: the column {unknown:?} of FORCE_QUOTE is not copied")));
        }
        Ok(fields.iter().map(|field| self.force.iter().any(|name| name == field.name())).collect())
    }

    /// The line of names, when it is wanted.
    pub(super) fn header(&self, fields: &[FieldInfo]) -> Option<Bytes> {
        let names = fields.iter().map(|field| (Some(field.name().as_bytes()), false));
        self.has_header.then(|| self.line(names, fields.len() == 1))
    }

    /// A row as a line: the values are spelled as in an answer to a query.
    pub(super) fn row(&self, row: &DataRow, forced: &[bool]) -> Bytes {
        self.line(Cells(&row.data).zip(forced.iter().copied()), forced.len() == 1)
    }

    fn line<'a>(&self, cells: impl Iterator<Item = (Option<&'a [u8]>, bool)>, is_alone: bool) -> Bytes {
        let mut line = BytesMut::new();
        for (at, (cell, is_forced)) in cells.enumerate() {
            if at > 0 {
                line.put_u8(self.delimiter);
            }
            match cell {
                None => line.put_slice(self.null.as_bytes()),
                Some(value) if self.is_csv => self.put_csv(&mut line, value, is_forced, is_alone),
                Some(value) => self.put_text(&mut line, value),
            }
        }
        line.put_u8(b'\n');
        line.freeze()
    }

    fn put_text(&self, line: &mut BytesMut, value: &[u8]) {
        for byte in value {
            let letter = match byte {
                0x08 => b'b',
                0x0c => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                0x0b => b'v',
                other if *other == b'\\' || *other == self.delimiter => *other,
                other => {
                    line.put_u8(*other);
                    continue;
                }
            };
            line.put_slice(&[b'\\', letter]);
        }
    }

    /// A value that would be read as null, as the end of the data or as several values stands in quotes.
    fn put_csv(&self, line: &mut BytesMut, value: &[u8], is_forced: bool, is_alone: bool) {
        let is_special = |byte: &u8| [self.delimiter, self.quote, b'\n', b'\r'].contains(byte);
        let needs_quotes = is_forced || value == self.null.as_bytes() || value.iter().any(is_special) || (is_alone && value == b"\\.");
        if !needs_quotes {
            return line.put_slice(value);
        }
        line.put_u8(self.quote);
        for byte in value {
            if *byte == self.quote || *byte == self.escape {
                line.put_u8(self.escape);
            }
            line.put_u8(*byte);
        }
        line.put_u8(self.quote);
    }
}

/// The values of a row as the protocol carries them: the length of each, -1 for null, then its bytes.
struct Cells<'a>(&'a [u8]);

impl<'a> Iterator for Cells<'a> {
    type Item = Option<&'a [u8]>;

    fn next(&mut self) -> Option<Self::Item> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let Ok(length) = usize::try_from(i32::from_be_bytes(*length)) else {
            self.0 = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(Some(value))
    }
}
