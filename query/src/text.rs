//! The text of a statement, before it is parsed: its size, depth and number of parts.

use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};

use crate::{Error, Result};

/// Longest text.
const MAX_BYTES: usize = 64 * 1024;
/// Deepest nesting of brackets and `CASE`.
const MAX_DEPTH: usize = 64;
/// Most operators: each is a level of a left-deep tree, which the engine walks and drops recursively.
const MAX_OPERATORS: usize = 2_000;
/// Most `SELECT`, `JOIN`, `UNION`, …: planning is more than linear in them.
const MAX_CLAUSES: usize = 200;

/// Checks the limits of a text.
pub(crate) fn check_text(sql: &str) -> Result<()> {
    limit("its length in bytes", sql.len(), MAX_BYTES)?;
    if sql.contains('\0') {
        return Err(Error::Syntax("the text holds a zero byte".into()));
    }
    let tokens = Tokenizer::new(&PostgreSqlDialect {}, sql).tokenize().map_err(|e| Error::Syntax(e.to_string()))?;
    let (mut depth, mut deepest, mut operators, mut clauses) = (0_usize, 0, 0, 0);
    for token in &tokens {
        match token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                depth += 1;
                deepest = deepest.max(depth);
                operators += usize::from(!matches!(token, Token::LParen));
            }
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            Token::Word(word) => match word.keyword {
                Keyword::SELECT | Keyword::JOIN | Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT | Keyword::FROM => clauses += 1,
                Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::BETWEEN
                | Keyword::IN
                | Keyword::AT
                | Keyword::COLLATE
                | Keyword::CASE
                | Keyword::ESCAPE => operators += 1,
                _ => {}
            },
            Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) => {}
            _ => operators += 1,
        }
    }
    limit("its depth of nesting", deepest, MAX_DEPTH)?;
    limit("its number of operators", operators, MAX_OPERATORS)?;
    limit("its number of clauses", clauses, MAX_CLAUSES)
}

fn limit(what: &'static str, found: usize, limit: usize) -> Result<()> {
    if found > limit { Err(Error::StatementTooLarge { what, found, limit }) } else { Ok(()) }
}
