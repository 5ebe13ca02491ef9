//! A problem in a file that a user wrote, with its place.

use std::fmt;

/// What is wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path within the file: `gates[0].criteria[2].threshold`; empty for the file as a whole.
    pub path: String,
    /// The line, from 1, where it is known.
    pub line: Option<u64>,
    /// What is wrong, in a sentence without a full stop.
    pub text: String,
}

impl Problem {
    /// A problem at a path.
    pub fn at(path: impl Into<String>, text: impl Into<String>) -> Self {
        Self { path: path.into(), line: None, text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(line) = self.line {
            write!(f, "line {line}: ")?;
        }
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.text)
    }
}
