//! One test case while it is read: its names, and its attempts in their order.

use std::borrow::Cow;

use kiro_schemas::{Micros, Outcome};

use super::MOST_PROPERTIES;
use crate::error::Fail;
use crate::text::{clip, decode, heard, seconds_ms, time};
use crate::xml::Attributes;

/// Bytes of a message that are held; of its reason no more are kept.
const MESSAGE_BYTES: usize = 16 << 10;
/// Bytes of a property that are kept.
const PROPERTY_BYTES: usize = 1 << 10;
/// Bytes of a property's name that are kept.
const PROPERTY_NAME_BYTES: usize = 200;

/// What a child of a case tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// How the case ended.
    Ended(Outcome),
    /// How an attempt before the last one ended.
    Flaky(Outcome),
    /// How an attempt after the first one ended.
    Rerun(Outcome),
    Property,
    /// What was printed meanwhile, which is not kept.
    Output,
}

impl Kind {
    pub(super) fn of(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"failure" => Self::Ended(Outcome::Failure),
            b"error" => Self::Ended(Outcome::Error),
            b"skipped" | b"skip" | b"ignored" | b"disabled" => Self::Ended(Outcome::Skip),
            b"flakyFailure" => Self::Flaky(Outcome::Failure),
            b"flakyError" => Self::Flaky(Outcome::Error),
            b"rerunFailure" | b"rerun" => Self::Rerun(Outcome::Failure),
            b"rerunError" => Self::Rerun(Outcome::Error),
            b"property" => Self::Property,
            b"system-out" | b"system-err" => Self::Output,
            _ => return None,
        })
    }

    pub(super) fn is_attempt(self) -> bool {
        !matches!(self, Self::Property | Self::Output)
    }
}

/// One attempt.
#[derive(Debug)]
pub(super) struct Try {
    pub(super) outcome: Outcome,
    pub(super) kind: String,
    pub(super) began: Option<Micros>,
    pub(super) duration_ms: Option<i64>,
    message: String,
    /// The beginning of its text, with references.
    text: Vec<u8>,
}

impl Try {
    const fn new(outcome: Outcome) -> Self {
        Self { outcome, kind: String::new(), began: None, duration_ms: None, message: String::new(), text: Vec::new() }
    }

    /// Why it ended so: its message, and its text where that says more.
    pub(super) fn reason(&self, most: usize) -> Option<String> {
        let text = decode(&self.text);
        let (message, text) = (self.message.trim(), text.trim());
        let whole = match (message.is_empty(), text.is_empty()) {
            (true, true) => return None,
            (false, true) => Cow::Borrowed(message),
            (true, false) => Cow::Borrowed(text),
            (false, false) if text.contains(message) => Cow::Borrowed(text),
            (false, false) => Cow::Owned(format!("{message}\n{text}")),
        };
        Some(clip(&whole, most).to_owned())
    }
}

/// The case that is read.
#[derive(Debug, Default)]
pub(super) struct Case {
    pub(super) name: String,
    pub(super) class: String,
    pub(super) file: String,
    pub(super) line: Option<i64>,
    pub(super) tries: Vec<Try>,
    pub(super) properties: Vec<(String, String)>,
    began: Option<Micros>,
    duration_ms: Option<i64>,
    /// Times that are there and cannot be read.
    pub(super) unread: u64,
    /// What the case says of itself, where no child says more.
    status: Option<Outcome>,
    /// Where in `tries` the case's own end stands.
    own: Option<usize>,
    /// Attempts that stand before it.
    flaky: usize,
    /// Which of the tries hears text.
    hears: Option<usize>,
    /// How far below the case output began, which is not heard.
    muted: Option<usize>,
    /// The name of a property whose value is its text.
    property: Option<String>,
    value: Vec<u8>,
}

fn put(into: &mut String, raw: &[u8]) {
    into.clear();
    into.push_str(&decode(raw));
}

impl Case {
    pub(super) fn begin(&mut self, attributes: Attributes<'_>) -> Result<(), Fail> {
        for text in [&mut self.name, &mut self.class, &mut self.file] {
            text.clear();
        }
        (self.line, self.began, self.duration_ms, self.status) = (None, None, None, None);
        (self.own, self.flaky, self.hears, self.muted, self.property) = (None, 0, None, None, None);
        self.tries.clear();
        self.properties.clear();
        for attribute in attributes {
            match attribute? {
                (b"name", value) => put(&mut self.name, value),
                (b"classname" | b"class", value) => put(&mut self.class, value),
                (b"file" | b"filepath", value) => put(&mut self.file, value),
                (b"line" | b"lineno", value) => self.line = decode(value).trim().parse().ok().filter(|line| *line >= 0),
                (b"time" | b"duration", value) => self.duration_ms = heard(value, &mut self.unread, seconds_ms),
                (b"timestamp", value) => self.began = heard(value, &mut self.unread, time),
                (b"status" | b"result", value) => self.status = self.status.or_else(|| status(&decode(value))),
                _ => {}
            }
        }
        Ok(())
    }

    /// A child begins, `level` below the case.
    pub(super) fn open(&mut self, kind: Option<Kind>, attributes: Attributes<'_>, level: usize) -> Result<(), Fail> {
        match kind {
            Some(Kind::Property) => self.open_property(attributes),
            Some(Kind::Output) => {
                self.muted = self.muted.or(Some(level));
                Ok(())
            }
            Some(kind) if level == 1 => self.open_try(kind, attributes),
            // What else lies below an attempt, such as its stack trace, belongs to it.
            _ => Ok(()),
        }
    }

    fn open_try(&mut self, kind: Kind, attributes: Attributes<'_>) -> Result<(), Fail> {
        let (Kind::Ended(outcome) | Kind::Flaky(outcome) | Kind::Rerun(outcome)) = kind else { return Ok(()) };
        let mut new = Try::new(outcome);
        for attribute in attributes {
            match attribute? {
                (b"message", value) => clip(&decode(value), MESSAGE_BYTES).clone_into(&mut new.message),
                (b"type", value) => clip(&decode(value), MESSAGE_BYTES).clone_into(&mut new.kind),
                (b"time", value) => new.duration_ms = heard(value, &mut self.unread, seconds_ms),
                (b"timestamp", value) => new.began = heard(value, &mut self.unread, time),
                _ => {}
            }
        }
        let at = match (kind, self.own) {
            (Kind::Flaky(_), _) => {
                self.flaky += 1;
                self.own = self.own.map(|own| own + 1);
                self.flaky - 1
            }
            (Kind::Rerun(_), _) => self.tries.len(),
            // What is skipped and fails has failed; else the first child decides.
            (_, Some(own)) => {
                if self.tries.get(own).is_some_and(|old| old.outcome == Outcome::Skip) {
                    self.tries[own] = new;
                    self.hears = Some(own);
                } else {
                    self.hears = None;
                }
                return Ok(());
            }
            (_, None) => {
                self.own = Some(self.flaky);
                self.flaky
            }
        };
        self.tries.insert(at, new);
        self.hears = Some(at);
        Ok(())
    }

    fn open_property(&mut self, attributes: Attributes<'_>) -> Result<(), Fail> {
        let (mut name, mut value) = (None, None);
        for attribute in attributes {
            match attribute? {
                (b"name", raw) => name = Some(decode(raw).into_owned()),
                (b"value", raw) => value = Some(decode(raw).into_owned()),
                _ => {}
            }
        }
        match (name, value) {
            (Some(name), Some(value)) => self.keep(&name, &value),
            (Some(name), None) => self.property = Some(name),
            _ => {}
        }
        Ok(())
    }

    fn keep(&mut self, name: &str, value: &str) {
        let (name, value) = (clip(name.trim(), PROPERTY_NAME_BYTES), clip(value.trim(), PROPERTY_BYTES));
        let is_new = self.properties.iter().all(|(known, _)| known != name);
        if is_new && !name.is_empty() && self.properties.len() < MOST_PROPERTIES {
            self.properties.push((name.to_owned(), value.to_owned()));
        }
    }

    pub(super) fn text(&mut self, text: &[u8], is_literal: bool, most: usize) {
        let into = match (&self.property, self.hears) {
            (Some(_), _) => &mut self.value,
            (None, Some(at)) if self.muted.is_none() => match self.tries.get_mut(at) {
                Some(attempt) => &mut attempt.text,
                None => return,
            },
            (None, _) => return,
        };
        // References are up to six times as long as what they stand for.
        let room = (most * 6).saturating_sub(into.len());
        let kept = &text[..text.len().min(room)];
        if !is_literal {
            into.extend_from_slice(kept);
            return;
        }
        for byte in kept {
            into.push(*byte);
            if *byte == b'&' {
                into.extend_from_slice(b"amp;");
            }
        }
    }

    /// A child ends.
    pub(super) fn close(&mut self, level: usize) {
        if let Some(name) = self.property.take() {
            let value = std::mem::take(&mut self.value);
            self.keep(&name, &decode(&value));
        } else if self.muted == Some(level) {
            self.muted = None;
        } else if level == 1 {
            self.hears = None;
        }
    }

    /// The case ends: what is not said by its children is said by itself.
    pub(super) fn end(&mut self) {
        let own = self.own.unwrap_or_else(|| {
            let outcome = self.status.unwrap_or(Outcome::Success);
            // Reruns of a case that says of no end of its own: they are all that is known of it, and the last passed.
            let at = if self.tries.len() > self.flaky { self.tries.len() } else { self.flaky };
            self.tries.insert(at, Try::new(outcome));
            at
        });
        if let Some(own) = self.tries.get_mut(own) {
            own.duration_ms = own.duration_ms.or(self.duration_ms);
            own.began = own.began.or(self.began);
        }
    }

    /// Whether it has the same names and nothing is said of this one: pytest writes so of attempts that were tried again.
    pub(super) fn was_tried_again(&self, next: &Self) -> bool {
        let is_bare = self.own.is_none() && self.tries.len() == 1 && self.status.is_none();
        is_bare && self.name == next.name && self.class == next.class
    }

    /// It failed, for it was tried again; why is not told.
    pub(super) fn fail(&mut self) {
        if let Some(last) = self.tries.last_mut() {
            last.outcome = Outcome::Failure;
        }
    }
}

/// What a case says of itself: `GoogleTest` says `notrun` and `suppressed`, others use words that platforms use as well.
fn status(word: &str) -> Option<Outcome> {
    match word.to_ascii_lowercase().as_str() {
        "notrun" | "suppressed" | "disabled" | "ignored" | "pending" | "todo" => Some(Outcome::Skip),
        other => Outcome::of_provider(other),
    }
}
