//! Statements about the session: settings, transactions, and what tools send without being asked.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};
use pgwire::error::PgWireError;

use super::copy::{self, Form};
use super::fault;
use super::settings::{Place, placed};
use crate::text::check_text;
use crate::tools::AS_OF;

/// Most statements of one text.
const MAX_STATEMENTS: usize = 64;

type Result<T> = std::result::Result<T, PgWireError>;

/// What a statement asks of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// A question for the engine.
    Ask,
    /// A question whose rows are copied out.
    Copy(Form),
    /// Answered by its tag.
    Done(&'static str),
    /// Opens a transaction.
    Begin,
    /// Ends one.
    Commit,
    /// Ends one.
    Rollback,
    /// Goes back inside of one.
    RollbackTo,
    /// Asks for a setting.
    Show(String),
    /// Changes a setting.
    Set(Change),
    /// Sets all settings back; answered by its tag.
    Reset(&'static str),
}

/// A setting, its new value (without one: back to the first), where the value stands, and how the change is answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) name: String,
    pub(super) value: Option<String>,
    pub(super) place: Place,
    pub(super) tag: &'static str,
}

/// One statement of a text, and how many characters stand before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) text: &'a str,
    pub(super) before: usize,
}

/// The statements of a text, cut at the semicolons that end one.
pub(super) fn split(text: &str) -> Result<Vec<Part<'_>>> {
    check_text(text).map_err(|e| fault::of_query(&e))?;
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location();
    let tokens = tokens.map_err(|e| fault::error("42601", format!("cannot parse the statement: {e}")))?;
    let mut ends = tokens.iter().filter(|t| t.token == Token::SemiColon).map(|t| t.span.start).peekable();
    let (mut found, mut start, mut before) = (Vec::new(), 0, 0);
    for (count, (offset, char, at)) in places(text).enumerate() {
        if ends.next_if(|end| *end == at).is_some() {
            if char != ';' {
                return Err(fault::error("42601", "cannot split the text into statements"));
            }
            found.extend(text.get(start..offset).map(|text| Part { text, before }));
            (start, before) = (offset + 1, count + 1);
        }
    }
    if ends.peek().is_some() {
        return Err(fault::error("42601", "cannot split the text into statements"));
    }
    found.extend(text.get(start..).map(|text| Part { text, before }));
    found.retain(|statement| !words(statement.text, 1).is_empty());
    if found.len() > MAX_STATEMENTS {
        return Err(fault::error("54001", format!("{} statements in one text, at most {MAX_STATEMENTS} are allowed", found.len())));
    }
    Ok(found)
}

/// Each character with its offset in bytes and the place where the tokenizer sees it.
fn places(text: &str) -> impl Iterator<Item = (usize, char, Location)> {
    text.char_indices().scan(Location { line: 1, column: 1 }, |next, (offset, char)| {
        let at = *next;
        *next = match char {
            '\n' => Location { line: at.line + 1, column: 1 },
            _ => Location { line: at.line, column: at.column + 1 },
        };
        Some((offset, char, at))
    })
}

/// The tokens, without comments and white space.
fn solid(text: &str) -> Vec<TokenWithSpan> {
    let mut tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location().unwrap_or_default();
    tokens.retain(|t| !matches!(t.token, Token::Whitespace(_)));
    tokens
}

fn word(token: &Token) -> String {
    match token {
        Token::Word(word) => word.value.to_ascii_uppercase(),
        other => other.to_string(),
    }
}

/// The first tokens; words in capitals.
fn words(text: &str, most: usize) -> Vec<String> {
    solid(text).iter().take(most).map(|t| word(&t.token)).collect()
}

impl Command {
    /// What a statement asks.
    pub(super) fn of(statement: &str) -> Result<Self> {
        let words = words(statement, 8);
        let mut rest = words.iter().map(String::as_str);
        Ok(match rest.next().unwrap_or_default() {
            "SET" => set(statement)?,
            "RESET" => reset(rest),
            "DISCARD" if rest.next() == Some("ALL") => Self::Reset("DISCARD ALL"),
            "DISCARD" => Self::Done("DISCARD"),
            "DEALLOCATE" => Self::Done("DEALLOCATE"),
            "SAVEPOINT" => Self::Done("SAVEPOINT"),
            "RELEASE" => Self::Done("RELEASE"),
            "UNLISTEN" => Self::Done("UNLISTEN"),
            "CLOSE" => Self::Done("CLOSE CURSOR"),
            "COPY" => copy::read(statement)?.map_or(Self::Ask, Self::Copy),
            "BEGIN" | "START" => Self::Begin,
            "COMMIT" | "END" => Self::Commit,
            "ROLLBACK" if rest.any(|word| word == "TO") => Self::RollbackTo,
            "ROLLBACK" | "ABORT" => Self::Rollback,
            "SHOW" => match rest.next() {
                Some("TABLES" | "COLUMNS" | "FUNCTIONS") | None => Self::Ask,
                Some(first) => Self::Show(setting_name(first, rest)),
            },
            _ => Self::Ask,
        })
    }

    /// Whether it may run when the transaction has failed.
    pub(super) const fn ends_failure(&self) -> bool {
        matches!(self, Self::Commit | Self::Rollback | Self::RollbackTo)
    }
}

/// `a . b` as `a.b`, `time zone` as `time zone`.
fn setting_name<'a>(first: &str, rest: impl Iterator<Item = &'a str>) -> String {
    rest.fold(first.to_lowercase(), |name, word| match word {
        "." => name + ".",
        word if name.ends_with('.') => name + &word.to_lowercase(),
        word => name + " " + &word.to_lowercase(),
    })
}

fn reset<'a>(mut rest: impl Iterator<Item = &'a str>) -> Command {
    match rest.next() {
        None | Some("ALL") => Command::Reset("RESET"),
        Some(first) => Command::Set(Change { name: setting_name(first, rest), value: None, place: None, tag: "RESET" }),
    }
}

/// `SET [SESSION | LOCAL] name {TO | =} value`, and the forms that have words of their own.
fn set(statement: &str) -> Result<Command> {
    let tokens = solid(statement);
    let said: Vec<String> = tokens.iter().map(|t| word(&t.token)).collect();
    let mut at = 1;
    let is_local = said.get(at).is_some_and(|word| word == "LOCAL");
    let is_scope =
        is_local || (said.get(at).is_some_and(|word| word == "SESSION") && said.get(at + 1).is_none_or(|w| w != "CHARACTERISTICS"));
    at += usize::from(is_scope);
    let name = match said.get(at).map(String::as_str) {
        Some("TRANSACTION" | "SESSION") => return Ok(Command::Done("SET")),
        Some("TIME") => "timezone".to_owned(),
        Some("NAMES") => "client_encoding".to_owned(),
        _ => {
            let end = said.iter().position(|word| word == "TO" || word == "=").unwrap_or(said.len());
            let mut name = said.get(at..end).unwrap_or_default().iter().map(String::as_str);
            at = end;
            setting_name(name.next().unwrap_or_default(), name)
        }
    };
    let values = tokens.get(at + 1..).unwrap_or_default();
    let Some(first) = values.first() else {
        return Err(fault::error("42601", "SET: expected the name of a setting, TO, and its value"));
    };
    let place = places(statement).position(|(_, _, place)| place == first.span.start).map(|before| before + 1);
    if is_local && name == AS_OF {
        return Err(placed(fault::error("0A000", "SET LOCAL: there are no transactions; SET holds until RESET"), place));
    }
    let is_default = values.len() == 1 && word(&first.token) == "DEFAULT";
    let value = (!is_default).then(|| values.iter().map(|t| plain(&t.token)).collect::<String>());
    Ok(Command::Set(Change { name, value, place, tag: "SET" }))
}

/// The value of a token, without its quotes.
fn plain(token: &Token) -> String {
    match token {
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
        Token::Word(word) => word.value.clone(),
        other => other.to_string(),
    }
}
