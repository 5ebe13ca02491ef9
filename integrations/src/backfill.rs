//! What a platform tells of the past, by its API.
//!
//! A platform gives two pure functions: what is asked for first ([`Backfill::begin`]), and what a page says and what is asked for
//! next ([`Backfill::read`]). What a page says is put into the form of the platform's webhooks and read by the same readers, so
//! that the same fact is the same event. [`Api`] asks, with patience; [`Walk`] goes from page to page and can go on after any of
//! them.

use bytes::Bytes;
use kiro_ports::{NormaliseError, Normaliser as _};
use kiro_schemas::{Event, Micros, Secret, Transition};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod api;
mod turn;
mod walk;

pub use api::{Api, Patience, Reply, Standing};
pub use turn::{Turn, Turns};
pub use walk::{Course, Walk};

use crate::{Error, Platform, Result};

/// What the platform tells may change for so long after it was made: a re-run, an approval that is waited for.
const CHANGES_FOR: i64 = 30 * DAY;
/// A day, in microseconds.
pub(crate) const DAY: i64 = 86_400_000_000;
/// How the id of an event ends that says what no webhook tells.
const BESIDE: &str = "/beside";
/// A platform tells us what it has a moment after it happened, as far as we say so.
const TOLD_AFTER: i64 = 60_000_000;
/// Rows of a page.
pub(crate) const PAGE: usize = 100;

/// How the past of a platform is read.
#[derive(Debug, Clone, Copy)]
pub struct Backfill {
    /// Where its API is, unless somebody runs a server of their own.
    pub api: &'static str,
    /// How a repository is named.
    pub example: &'static str,
    /// The headers that every request has.
    pub headers: fn(&Secret) -> Vec<(&'static str, String)>,
    /// The first question about a repository; `None` when that is no name of one.
    pub begin: fn(&str) -> Option<Ask>,
    /// Reads an answer; `null` stands for what is gone.
    pub read: fn(&Ask, &Known<'_>, &[u8]) -> serde_json::Result<Page>,
    /// What is asked to know the token.
    pub account: &'static [&'static str],
    /// Reads the answers to that.
    pub reach: fn(&[Reply]) -> serde_json::Result<Reach>,
}

/// How the pages of an answer are followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Follow {
    /// It is one page.
    No,
    /// To the last page.
    Pages,
    /// To the last page, and again until nothing new is on any of them: rows move between pages while these are read.
    UntilStill,
}

/// What may be answered instead of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Without {
    /// Nothing: all fails.
    Nothing,
    /// That it is gone: it was deleted after a page named it.
    Gone,
    /// That it is gone or not permitted, which is noted: the part of the platform is switched off.
    Off,
}

/// A question to the API.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ask {
    /// What is asked for: it decides how the answer is read.
    pub what: String,
    /// Path and query, below the address of the API.
    pub path: String,
    /// What the reader of the answer needs of earlier answers.
    #[serde(default)]
    pub with: Value,
    /// How further pages are followed.
    pub follow: Follow,
    /// What may be missing.
    pub without: Without,
    /// Its part of the whole.
    #[serde(default)]
    weight: f64,
    /// Where the pages began, and how they were.
    #[serde(default)]
    round: Round,
}

/// One time through the pages of a list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Round {
    first: Option<String>,
    number: u8,
    pages: u32,
    is_changed: bool,
}

impl Ask {
    pub(crate) fn new(what: &str, path: String, follow: Follow, without: Without) -> Self {
        Self { what: what.to_owned(), path, with: Value::Null, follow, without, weight: 0.0, round: Round::default() }
    }

    pub(crate) fn with(self, with: Value) -> Self {
        Self { with, ..self }
    }
}

/// Which part of the past is asked for.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Span {
    /// What is older is left alone.
    pub since: Micros,
    /// What has not changed since is known.
    pub fresh: Micros,
    /// When it was begun, by the platform's clock.
    pub until: Micros,
}

impl Span {
    /// What was made before cannot have changed since [`Span::fresh`], or is left alone.
    pub(crate) fn horizon(&self) -> Micros {
        self.since.max(self.fresh.plus(-CHANGES_FOR))
    }
}

/// What is known when an answer is read.
#[derive(Debug)]
pub struct Known<'a> {
    /// Which part of the past is asked for.
    pub span: Span,
    /// What earlier answers taught.
    pub about: &'a Map<String, Value>,
    /// Whether a page follows.
    pub has_next: bool,
}

/// Something that a webhook would have told.
#[derive(Debug, Clone)]
pub struct Told {
    /// What the platform calls the event.
    pub event: &'static str,
    /// What it would have sent.
    pub payload: Value,
    /// Attributes of its subject that no webhook tells. They are told as an event of their own: the webhook's has the id of the other
    /// one, and whichever comes second is left out as a repeat.
    pub notes: Vec<(&'static str, String)>,
}

impl Told {
    pub(crate) fn new(event: &'static str, payload: Value) -> Self {
        Self { event, payload, notes: Vec::new() }
    }

    /// What the webhook says, by the same reader, and what none says.
    ///
    /// # Errors
    /// It is not of the shape of the webhook.
    pub fn events(&self, platform: &Platform) -> std::result::Result<Vec<Event<'static>>, NormaliseError> {
        let headers: Vec<_> =
            platform.event_header.map(|name| (name.to_owned(), Bytes::from_static(self.event.as_bytes()))).into_iter().collect();
        let payload = self.payload.to_string();
        let mut events: Vec<_> = platform.normalise(&headers, payload.as_bytes())?.into_iter().map(Event::into_owned).collect();
        let beside = events.last().filter(|_| !self.notes.is_empty()).map(|last| self.beside(last));
        events.extend(beside);
        for event in &mut events {
            event.known_at = Some(event.time.plus(TOLD_AFTER));
        }
        Ok(events)
    }

    fn beside(&self, event: &Event<'static>) -> Event<'static> {
        let (source, subject_id) = (event.source.clone(), event.subject_id.clone());
        let mut said = Event { attempt: event.attempt, ..Event::new(event.subject, Transition::Updated, source, subject_id, event.time) };
        said.derive_id();
        said.id.to_mut().push_str(BESIDE);
        said.attributes.extend(self.notes.iter().map(|(name, text)| ((*name).into(), text.clone().into())));
        said
    }
}

/// Whether an event says what no webhook tells, so that none was missed.
#[must_use]
pub fn is_beside(event: &Event<'_>) -> bool {
    event.id.ends_with(BESIDE)
}

/// A row of a page.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// What it says changes with this: a row that was seen so is passed over while the list is read again.
    pub key: u64,
    /// What it tells.
    pub told: Vec<Told>,
    /// What is asked for because of it.
    pub asks: Vec<Ask>,
}

/// What an answer says.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// Its rows.
    pub rows: Vec<Row>,
    /// What is asked for next.
    pub asks: Vec<Ask>,
    /// What is remembered.
    pub learnt: Vec<(String, Value)>,
    /// What the reader of the next page needs.
    pub carried: Value,
    /// No page after it is of interest.
    pub is_last: bool,
    /// Other questions stand in its place.
    pub is_replaced: bool,
}

/// Who a token stands for and what it permits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The account.
    pub account: String,
    /// What the token permits, where the platform tells.
    pub scopes: Vec<String>,
    /// What it should permit and does not.
    pub missing: Vec<&'static str>,
    /// Requests that are left in the platform's window.
    pub remaining: Option<u64>,
}

/// Asks a platform who the token stands for and what it permits.
///
/// # Errors
/// [`Error::NoHistory`], and as [`Api::get`].
pub async fn reach(platform: &Platform, api: &Api) -> Result<Reach> {
    let backfill = of(platform)?;
    let mut replies = Vec::new();
    for path in backfill.account {
        replies.push(api.get(path, None).await?);
    }
    let mut reach = (backfill.reach)(&replies).map_err(|source| api.unreadable(backfill.account.concat().as_str(), source))?;
    reach.remaining = api.standing().remaining;
    Ok(reach)
}

/// How a platform's past is read.
///
/// # Errors
/// [`Error::NoHistory`]: it tells none.
pub fn of(platform: &Platform) -> Result<&'static Backfill> {
    platform.backfill.ok_or_else(|| {
        let known: Vec<&str> = crate::platforms().iter().filter(|known| known.backfill.is_some()).map(|known| known.name).collect();
        Error::NoHistory { platform: platform.name.to_owned(), known: known.join(" and ") }
    })
}

/// A number for what a row says, the same in every process (FNV-1a).
pub(crate) fn key(parts: &[&str]) -> u64 {
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The values of some fields; what is not named may hold secrets and stays out of files.
pub(crate) fn pick(row: &Value, names: &[&str]) -> Value {
    let picked = names.iter().filter_map(|name| Some(((*name).to_owned(), row.get(name)?.clone())));
    Value::Object(picked.collect())
}

/// A field that is a text, or nothing.
pub(crate) fn text<'v>(row: &'v Value, name: &str) -> &'v str {
    row.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A field that is a time.
pub(crate) fn time(row: &Value, name: &str) -> Option<Micros> {
    Micros::parse(text(row, name))
}

/// A field that is an id.
pub(crate) fn id(row: &Value, name: &str) -> Option<i64> {
    row.get(name).and_then(Value::as_i64)
}

/// A time as it stands in queries.
pub(crate) fn stamp(time: Micros) -> String {
    Micros::from_seconds(time.0.div_euclid(1_000_000)).to_string()
}

/// The rows of an answer; one that is gone has none.
pub(crate) fn rows(body: &[u8]) -> serde_json::Result<Vec<Value>> {
    serde_json::from_slice::<Option<Vec<Value>>>(body).map(Option::unwrap_or_default)
}
