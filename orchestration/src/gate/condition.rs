//! Conditions with a fixed threshold: `<= 0.2`.

use std::fmt;

/// How a value is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `>=`
    GreaterOrEqual,
    /// `>`
    Greater,
}

impl Operator {
    /// The sign.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::GreaterOrEqual => ">=",
            Self::Greater => ">",
        }
    }
}

/// The signs, longest first.
const SIGNS: &[(&str, Operator)] = &[
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("!=", Operator::NotEqual),
    ("==", Operator::Equal),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("=", Operator::Equal),
];

/// Why a text is no condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ConditionError {
    /// It does not begin with an operator.
    #[error("a condition begins with one of < <= = != >= >")]
    NoOperator,
    /// `+5` or `10%`: it compares with a baseline.
    #[error("`+` and `%` compare with a baseline, which gates do not have; write a fixed number")]
    Baseline,
    /// No finite number follows.
    #[error("a condition ends with a finite number")]
    NoNumber,
}

/// One comparison with a fixed number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Condition {
    /// How.
    pub operator: Operator,
    /// With what; finite.
    pub threshold: f64,
}

impl Condition {
    /// Reads `<= 0.2`. A minus is a negative number.
    ///
    /// # Errors
    /// The text has no operator, no finite number, or asks for a baseline.
    ///
    /// # Source
    /// Keptn 1.4.5 lighthouse, criteria without a sign and without `%`.
    pub fn parse(text: &str) -> Result<Self, ConditionError> {
        let text = text.trim();
        let found = SIGNS.iter().find_map(|(sign, operator)| text.strip_prefix(sign).map(|rest| (*operator, rest.trim())));
        let (operator, number) = found.ok_or(ConditionError::NoOperator)?;
        if number.starts_with('+') || number.ends_with('%') {
            return Err(ConditionError::Baseline);
        }
        if !number.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '.') {
            return Err(ConditionError::NoNumber);
        }
        let threshold = number.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or(ConditionError::NoNumber)?;
        Ok(Self { operator, threshold })
    }

    /// Whether a finite value fulfils it.
    #[must_use]
    #[expect(clippy::float_cmp, reason = "`= 0` means exactly that; the sign is the user's choice")]
    pub fn holds(&self, value: f64) -> bool {
        match self.operator {
            Operator::Less => value < self.threshold,
            Operator::LessOrEqual => value <= self.threshold,
            Operator::Equal => value == self.threshold,
            Operator::NotEqual => value != self.threshold,
            Operator::GreaterOrEqual => value >= self.threshold,
            Operator::Greater => value > self.threshold,
        }
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operator.as_str(), self.threshold)
    }
}

/// Blocks of conditions: all conditions of one block must hold, and one block suffices. None at all never holds.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Thresholds(pub Vec<Vec<Condition>>);

impl Thresholds {
    /// Whether there is nothing to hold.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a finite value fulfils one block.
    #[must_use]
    pub fn hold(&self, value: f64) -> bool {
        self.0.iter().any(|block| !block.is_empty() && block.iter().all(|condition| condition.holds(value)))
    }
}

impl fmt::Display for Thresholds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, block) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str(" or ")?;
            }
            for (at, condition) in block.iter().enumerate() {
                if at > 0 {
                    f.write_str(" and ")?;
                }
                write!(f, "{condition}")?;
            }
        }
        Ok(())
    }
}
