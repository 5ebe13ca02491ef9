//! Statements about the session, which tools send without being asked: they are answered and change nothing.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};
use pgwire::error::PgWireError;

use super::fault;
use crate::text::check_text;
use crate::tools;

/// Most statements of one text.
const MAX_STATEMENTS: usize = 64;

/// What a statement asks of the session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// A question for the engine.
    Ask,
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
}

/// The statements of a text, cut at the semicolons that end one.
pub(super) fn split(text: &str) -> Result<Vec<&str>, PgWireError> {
    check_text(text).map_err(|e| fault::of_query(&e))?;
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize_with_location();
    let tokens = tokens.map_err(|e| fault::error("42601", format!("cannot parse the statement: {e}")))?;
    let mut ends = tokens.iter().filter(|t| t.token == Token::SemiColon).map(|t| t.span.start).peekable();
    let (mut found, mut start, mut at) = (Vec::new(), 0, Location { line: 1, column: 1 });
    for (offset, char) in text.char_indices() {
        if ends.next_if(|end| *end == at).is_some() {
            if char != ';' {
                return Err(fault::error("42601", "cannot split the text into statements"));
            }
            found.extend(text.get(start..offset));
            start = offset + 1;
        }
        at = match char {
            '\n' => Location { line: at.line + 1, column: 1 },
            _ => Location { line: at.line, column: at.column + 1 },
        };
    }
    if ends.peek().is_some() {
        return Err(fault::error("42601", "cannot split the text into statements"));
    }
    found.extend(text.get(start..));
    found.retain(|statement| !words(statement, 1).is_empty());
    if found.len() > MAX_STATEMENTS {
        return Err(fault::error("54001", format!("{} statements in one text, at most {MAX_STATEMENTS} are allowed", found.len())));
    }
    Ok(found)
}

/// The first tokens, without comments and white space; words in capitals.
fn words(text: &str, most: usize) -> Vec<String> {
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize().unwrap_or_default();
    let solid = tokens.into_iter().filter(|t| !matches!(t, Token::Whitespace(_)));
    let text = solid.map(|token| match token {
        Token::Word(word) => word.value.to_ascii_uppercase(),
        other => other.to_string(),
    });
    text.take(most).collect()
}

impl Command {
    /// What a statement asks.
    pub(super) fn of(statement: &str) -> Self {
        let words = words(statement, 8);
        let mut rest = words.iter().map(String::as_str);
        match rest.next().unwrap_or_default() {
            "SET" => Self::Done("SET"),
            "RESET" => Self::Done("RESET"),
            "DISCARD" => Self::Done("DISCARD ALL"),
            "DEALLOCATE" => Self::Done("DEALLOCATE"),
            "SAVEPOINT" => Self::Done("SAVEPOINT"),
            "RELEASE" => Self::Done("RELEASE"),
            "UNLISTEN" => Self::Done("UNLISTEN"),
            "CLOSE" => Self::Done("CLOSE CURSOR"),
            "BEGIN" | "START" => Self::Begin,
            "COMMIT" | "END" => Self::Commit,
            "ROLLBACK" if rest.any(|word| word == "TO") => Self::RollbackTo,
            "ROLLBACK" | "ABORT" => Self::Rollback,
            "SHOW" => match rest.next() {
                Some("TABLES" | "COLUMNS" | "FUNCTIONS") | None => Self::Ask,
                Some(first) => Self::Show(rest.fold(first.to_lowercase(), |name, word| match word {
                    "." => name + ".",
                    word if name.ends_with('.') => name + &word.to_lowercase(),
                    word => name + " " + &word.to_lowercase(),
                })),
            },
            _ => Self::Ask,
        }
    }

    /// Whether it may run when the transaction has failed.
    pub(super) fn ends_failure(&self) -> bool {
        matches!(self, Self::Commit | Self::Rollback | Self::RollbackTo)
    }
}

/// The value of a setting.
pub(super) fn setting(name: &str) -> Result<&'static str, PgWireError> {
    tools::setting(name).ok_or_else(|| fault::error("42704", format!("there is no setting {name:?}")))
}
