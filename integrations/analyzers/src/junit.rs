//! `JUnit` XML: test results. There is no one schema; this is what Surefire, Gradle, pytest, Jest, cargo-nextest, go-junit-report,
//! `PHPUnit`, `GoogleTest` and others write.
//!
//! - Suites lie in suites; a case belongs to the innermost one that has a name.
//! - Counts that a suite tells are not believed: cases are counted.
//! - `flaky…` children are attempts before the last one, `rerun…` children those after the first, each with its own event.
//! - Several cases of one name: after a failure it is another attempt, else another test (`seen`). pytest says nothing of an
//!   attempt that was tried again, and names no two tests alike: there, each but the last of those that follow each other failed.
//! - Properties of a suite are not kept: tools dump their whole environment there. Those of a case are.

use std::borrow::Cow;

use kiro_schemas::report::ReportCounts;
use kiro_schemas::{Micros, Outcome, Subject, Value, subject};
use sha2::{Digest as _, Sha256};

use crate::emit::{Emitter, mix, short};
use crate::error::Fail;
use crate::seen::Seen;
use crate::text::{clip, decode, heard, local, seconds_ms, time};
use crate::xml::{Attributes, Handler};
use crate::{Limits, Stopped};

mod case;

use case::{Case, Kind};

/// Properties of a case that are kept.
const MOST_PROPERTIES: usize = 32;

/// A suite that is open.
#[derive(Debug)]
struct Suite {
    name: String,
    file: String,
    /// When it ended, as far as it tells.
    ended_at: Option<Micros>,
    /// What the ids of its cases begin with.
    hasher: Sha256,
}

/// The columns of a result that a report fills.
#[derive(Debug)]
struct Columns {
    suite: usize,
    class: usize,
    test: usize,
    outcome: usize,
    reason: usize,
    file: usize,
    line: usize,
    started_at: usize,
    finished_at: usize,
    duration_ms: usize,
}

/// Hears of elements and tells of tests.
pub(crate) struct Junit<'j, 'r, 'e> {
    emitter: &'j mut Emitter<'r, 'e>,
    limits: Limits,
    columns: Columns,
    suites: Vec<Suite>,
    /// The depth of the case that is open, and the case.
    open: Option<usize>,
    case: Case,
    cases: usize,
    seen: Seen,
    is_pytest: bool,
    /// Of pytest, the case before: what follows tells how it ended.
    held: Option<Case>,
}

impl<'j, 'r, 'e> Junit<'j, 'r, 'e> {
    pub(crate) fn new(emitter: &'j mut Emitter<'r, 'e>, limits: Limits) -> Self {
        let spec = subject::spec(Subject::TestResult);
        let at = |name: &str| spec.column(name).unwrap_or(usize::MAX);
        let columns = Columns {
            suite: at("suite"),
            class: at("class"),
            test: at("test"),
            outcome: at("outcome"),
            reason: at("reason"),
            file: at("file"),
            line: at("line"),
            started_at: at("started_at"),
            finished_at: at("finished_at"),
            duration_ms: at("duration_ms"),
        };
        let (suites, seen) = (Vec::new(), Seen::default());
        let case = Case::default();
        Self { emitter, limits, columns, suites, open: None, case, cases: 0, seen, is_pytest: false, held: None }
    }

    fn open_root(&mut self, attributes: Attributes<'_>) -> Result<(), Fail> {
        for attribute in attributes {
            self.is_pytest |= attribute? == (b"name", b"pytest tests");
        }
        Ok(())
    }

    fn open_suite(&mut self, attributes: Attributes<'_>) -> Result<(), Fail> {
        let (mut name, mut file) = (Cow::Borrowed(""), Cow::Borrowed(""));
        let (mut began, mut took) = (None, None);
        for attribute in attributes {
            match attribute? {
                (b"name", value) => name = decode(value),
                (b"file" | b"filepath", value) => file = decode(value),
                (b"timestamp", value) => began = heard(value, &mut self.emitter.counts.unread_times, time),
                (b"time", value) => took = heard(value, &mut self.emitter.counts.unread_times, seconds_ms),
                _ => {}
            }
        }
        self.is_pytest |= name == "pytest";
        let outer = self.suites.last();
        let mut hasher = outer.map_or_else(|| self.emitter.hasher(), |suite| suite.hasher.clone());
        mix(&mut hasher, name.as_bytes());
        let chosen = |own: &str, outer: Option<&String>| match outer {
            Some(outer) if own.is_empty() => outer.clone(),
            _ => clip(own, self.limits.name_bytes).to_owned(),
        };
        let suite = Suite {
            name: chosen(&name, outer.map(|suite| &suite.name)),
            file: chosen(&file, outer.map(|suite| &suite.file)),
            ended_at: began.map(|at| at.plus(took.unwrap_or(0) * 1_000)).or_else(|| outer.and_then(|suite| suite.ended_at)),
            hasher,
        };
        self.suites.push(suite);
        Ok(())
    }

    fn open_case(&mut self, attributes: Attributes<'_>, depth: usize) -> Result<(), Fail> {
        self.cases += 1;
        if self.cases > self.limits.cases {
            return Err(Fail::TooLarge("there are too many test cases", self.limits.cases));
        }
        self.open = Some(depth);
        self.case.begin(attributes)
    }

    fn close_case(&mut self) -> Result<(), Stopped> {
        self.open = None;
        self.emitter.counts.unread_times += std::mem::take(&mut self.case.unread);
        self.case.end();
        if !self.is_pytest {
            return self.settle();
        }
        let case = std::mem::take(&mut self.case);
        if let Some(held) = self.held.as_mut().filter(|held| held.was_tried_again(&case)) {
            held.fail();
        }
        self.flush()?;
        self.held = Some(case);
        Ok(())
    }

    /// Settles the case that is held.
    fn flush(&mut self) -> Result<(), Stopped> {
        let Some(held) = self.held.take() else { return Ok(()) };
        self.case = held;
        self.settle()
    }

    /// Counts and tells a case that has ended.
    fn settle(&mut self) -> Result<(), Stopped> {
        let attempts = u32::try_from(self.case.tries.len()).unwrap_or(u32::MAX);
        let last = self.case.tries.last().map_or(Outcome::Success, |last| last.outcome);
        let suite = self.suites.last();
        let mut hasher = suite.map_or_else(|| self.emitter.hasher(), |suite| suite.hasher.clone());
        // The whole names count, also what is not kept of them.
        mix(&mut hasher, self.case.class.as_bytes());
        mix(&mut hasher, self.case.name.as_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let key = digest.iter().take(8).fold(0, |key, byte| (key << 8) | u64::from(*byte));
        let turn = self.seen.take(key, attempts, last);
        let mut id = short(&digest);
        if turn.ordinal > 1 {
            id = format!("{id}-{}", turn.ordinal);
        }
        let counts = &mut self.emitter.counts;
        counts.retries += u64::from(attempts.saturating_sub(1));
        if let Some(ended) = turn.ended {
            *count(counts, ended) -= 1;
            counts.retries += 1;
        }
        *count(counts, last) += 1;
        let before = turn.before;
        for at in 0..self.case.tries.len() {
            self.tell(&id, before, at)?;
        }
        Ok(())
    }

    /// Tells of one attempt.
    fn tell(&mut self, id: &str, before: u32, at: usize) -> Result<(), Stopped> {
        let (case, suite, most) = (&self.case, self.suites.last(), self.limits.name_bytes);
        let Some(attempt) = case.tries.get(at) else { return Ok(()) };
        let made_at = self.emitter.time();
        let (began, took, scope) = (attempt.began, attempt.duration_ms, self.emitter.scope);
        // A clock that runs ahead, or a local time that is taken as UTC: nothing ended after the report was made.
        let ended = began.map(|at| at.plus(took.unwrap_or(0) * 1_000)).or(suite.and_then(|s| s.ended_at)).unwrap_or(made_at).min(made_at);
        let number = before + u32::try_from(at).unwrap_or(u32::MAX) + 1;
        let mut event = self.emitter.test(id, number, ended);
        let class = Some(clip(&case.class, most)).filter(|class| !class.is_empty());
        let name = [case.name.as_str(), case.class.as_str()].into_iter().find(|name| !name.is_empty()).unwrap_or("(no name)");
        let of_suite = suite.map(|suite| suite.name.as_str()).filter(|name| !name.is_empty());
        let file = [case.file.as_str(), suite.map_or("", |suite| &suite.file)].into_iter().find(|file| !file.is_empty());
        let reason = attempt.reason(self.limits.reason_bytes);
        let columns = &self.columns;
        for (column, value) in [
            (columns.suite, text(of_suite)),
            (columns.class, text(class)),
            (columns.test, text(Some(clip(name, most)))),
            (columns.outcome, Value::text(attempt.outcome.as_str())),
            (columns.reason, reason.map_or(Value::Null, Value::text)),
            (columns.file, text(file.map(|file| clip(file, most)))),
            (columns.line, case.line.map_or(Value::Null, Value::Int)),
            (columns.started_at, began.filter(|began| *began <= ended).map_or(Value::Null, Value::Time)),
            (columns.finished_at, Value::Time(ended)),
            (columns.duration_ms, took.map_or(Value::Null, Value::Int)),
        ] {
            if let Some(field) = event.fields.get_mut(column) {
                *field = value;
            }
        }
        let named = [("failure_type", clip(&attempt.kind, most)), ("report", clip(&scope.name, most))];
        event.attributes.extend(named.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| (name.into(), value.into())));
        let properties = case.properties.iter().map(|(name, value)| (Cow::Owned(format!("property.{name}")), value.as_str().into()));
        event.attributes.extend(properties);
        self.emitter.tell(event)
    }
}

/// Where an outcome is counted.
const fn count(counts: &mut ReportCounts, outcome: Outcome) -> &mut u64 {
    match outcome {
        Outcome::Success => &mut counts.success,
        Outcome::Failure | Outcome::Cancel => &mut counts.failure,
        Outcome::Error => &mut counts.error,
        Outcome::Skip => &mut counts.skip,
    }
}

fn text(text: Option<&str>) -> Value<'_> {
    text.map_or(Value::Null, Value::text)
}

impl Handler for Junit<'_, '_, '_> {
    fn open(&mut self, name: &[u8], attributes: Attributes<'_>, depth: usize) -> Result<(), Fail> {
        if let Some(case) = self.open {
            if local(name) == b"testcase" {
                return Err(Fail::broken("a testcase lies within a testcase"));
            }
            let kind = Kind::of(local(name));
            if depth == case + 1 && kind.is_some_and(Kind::is_attempt) && self.case.tries.len() > self.limits.retries {
                return Err(Fail::TooLarge("a test has too many attempts", self.limits.retries));
            }
            return self.case.open(kind, attributes, depth - case);
        }
        match local(name) {
            b"testcase" => self.open_case(attributes, depth),
            b"testsuite" => {
                self.flush()?;
                self.open_suite(attributes)
            }
            b"testsuites" if depth == 0 => self.open_root(attributes),
            _ if depth == 0 => {
                let name = String::from_utf8_lossy(name);
                Err(Fail::broken(format!(
                    "<{}> is the root, neither <testsuites> nor <testsuite>: this is no JUnit report",
                    clip(&name, 60)
                )))
            }
            _ => Ok(()),
        }
    }

    fn text(&mut self, text: &[u8], is_literal: bool) {
        if self.open.is_some() {
            self.case.text(text, is_literal, self.limits.reason_bytes);
        }
    }

    fn close(&mut self, name: &[u8], depth: usize) -> Result<(), Fail> {
        match self.open {
            Some(case) if case == depth => Ok(self.close_case()?),
            Some(case) => {
                self.case.close(depth - case);
                Ok(())
            }
            None => {
                if local(name) == b"testsuite" {
                    self.flush()?;
                    self.suites.pop();
                }
                Ok(())
            }
        }
    }
}
