//! Which test cases of a report came before: a repeat of one that failed is another attempt, any other repeat another test.

use std::collections::{HashMap, HashSet};

use kiro_schemas::Outcome;

/// How a test that came before stands.
#[derive(Debug, Clone, Copy)]
struct Standing {
    ordinal: u32,
    attempts: u32,
    last: Outcome,
}

/// Where a test stands among those of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Which of the tests it is, from 1.
    pub(crate) ordinal: u32,
    /// How many attempts it had before.
    pub(crate) before: u32,
    /// How the last of those ended.
    pub(crate) ended: Option<Outcome>,
}

/// What came before, by a digest of its names. Nearly all tests come once and pass: of those, 8 bytes are kept.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    once: HashSet<u64>,
    others: HashMap<u64, Standing>,
}

impl Seen {
    /// Takes a test with its attempts.
    pub(crate) fn take(&mut self, key: u64, attempts: u32, last: Outcome) -> Turn {
        let before = self.others.get(&key).copied().or_else(|| {
            let passed = Standing { ordinal: 1, attempts: 1, last: Outcome::Success };
            self.once.contains(&key).then_some(passed)
        });
        let turn = match before {
            Some(standing) if matches!(standing.last, Outcome::Failure | Outcome::Error) => {
                Turn { ordinal: standing.ordinal, before: standing.attempts, ended: Some(standing.last) }
            }
            other => Turn { ordinal: other.map_or(1, |standing| standing.ordinal + 1), before: 0, ended: None },
        };
        if before.is_none() && attempts == 1 && last == Outcome::Success {
            self.once.insert(key);
        } else {
            self.others.insert(key, Standing { ordinal: turn.ordinal, attempts: turn.before + attempts, last });
        }
        turn
    }
}

#[cfg(test)]
mod tests {
    use kiro_schemas::Outcome::{Error, Failure, Skip, Success};

    use super::Seen;

    #[test]
    fn a_repeat_after_a_failure_is_an_attempt_and_after_a_success_another_test() {
        let mut seen = Seen::default();
        for (key, attempts, last, (ordinal, before)) in [
            (1, 1, Success, (1, 0)),
            (1, 1, Success, (2, 0)),
            (1, 1, Failure, (3, 0)),
            (1, 1, Skip, (3, 1)),
            (1, 1, Error, (4, 0)),
            (2, 3, Failure, (1, 0)),
            (2, 2, Error, (1, 3)),
            (2, 1, Success, (1, 5)),
            (2, 1, Success, (2, 0)),
        ] {
            let turn = seen.take(key, attempts, last);
            assert_eq!((turn.ordinal, turn.before, turn.ended.is_some()), (ordinal, before, before > 0));
        }
    }
}
