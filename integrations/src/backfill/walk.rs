//! Goes from page to page. Where it stands is a list of questions, which can be kept in a file after any answer.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use kiro_schemas::delivery::Settings;
use kiro_schemas::{Event, Micros};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{Api, Ask, Backfill, Follow, Known, Page, Reply, Round, Row, Span, Told, Without, of};
use crate::{Error, Platform, Result};

/// Platforms show a change a moment after it was made: the next walk begins so much before the end of the last.
const OVERLAP: i64 = 600_000_000;
/// How often a list is read when it changes while it is read.
const ROUNDS: u8 = 4;
/// Pages whose tags are kept: a page that is as it was costs nothing.
const MOST_TAGS: usize = 2_000;
/// Rows of a list that are remembered while it is read.
const MOST_SEEN: usize = 200_000;
/// Rows of a page: more were not asked for.
const MOST_ROWS: usize = 1_000;
/// Pages of a list.
const MOST_PAGES: u32 = 20_000;
/// Notes of what could not be read.
const MOST_NOTES: usize = 20;

/// A page that is known.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tagged {
    tag: String,
    next: Option<String>,
}

/// Where a walk stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Course {
    /// The repository, as the platform names it.
    pub repository: String,
    /// What is older than so many seconds is left alone.
    age: i64,
    span: Option<Span>,
    /// What was reached by the last walk that came to its end, and how far it looked back.
    reached: Option<(Micros, Micros)>,
    asks: VecDeque<Ask>,
    about: Map<String, Value>,
    seen: BTreeSet<u64>,
    tags: BTreeMap<String, Tagged>,
    /// Lists that were not permitted or not there, in this walk or one before.
    #[serde(default)]
    lacks: BTreeSet<String>,
    /// One of them is there now: its past was not read yet.
    #[serde(default)]
    is_short: bool,
    /// Which part of the walk is done, from 0 to 1.
    pub done: f64,
    /// Questions that were answered in this walk.
    pub requests: u64,
    /// Answers among them that were as before.
    pub unchanged: u64,
    /// Events that were found in this walk.
    pub events: u64,
    /// What was not permitted or could not be read.
    pub notes: Vec<String>,
}

impl Course {
    /// A repository of which nothing is known.
    ///
    /// # Errors
    /// [`Error::NoHistory`], [`Error::Repository`].
    pub fn new(platform: &Platform, repository: &str) -> Result<Self> {
        let first = first(platform, repository)?;
        Ok(Self {
            repository: repository.to_owned(),
            age: 0,
            span: None,
            reached: None,
            asks: [first].into(),
            about: Map::new(),
            seen: BTreeSet::new(),
            tags: BTreeMap::new(),
            lacks: BTreeSet::new(),
            is_short: false,
            done: 0.0,
            requests: 0,
            unchanged: 0,
            events: 0,
            notes: Vec::new(),
        })
    }

    /// Begins a walk: on from where the last one came to, or from as long ago as is asked when that is further back. One that
    /// did not come to its end goes on, unless it did not look so far back.
    ///
    /// # Errors
    /// As [`Course::new`].
    pub fn begin(&mut self, platform: &Platform, age_seconds: i64) -> Result<()> {
        let goes_on = !self.asks.is_empty() && self.requests > 0 && age_seconds <= self.age;
        if goes_on {
            return Ok(());
        }
        if age_seconds > self.age {
            (self.age, self.reached) = (age_seconds, None);
            self.tags.clear();
        }
        self.span = None;
        self.asks = [Ask { weight: 1.0, ..first(platform, &self.repository)? }].into();
        self.about.clear();
        self.seen.clear();
        self.notes.clear();
        (self.done, self.requests, self.unchanged, self.events) = (0.0, 0, 0, 0);
        Ok(())
    }

    /// Whether a walk came to its end.
    #[must_use]
    pub const fn reached(&self) -> Option<Micros> {
        match self.reached {
            Some((until, _)) => Some(until),
            None => None,
        }
    }

    /// How many seconds back it looks.
    #[must_use]
    pub const fn age_seconds(&self) -> i64 {
        self.age
    }

    /// What is asked for now.
    #[must_use]
    pub fn at(&self) -> Option<&str> {
        self.asks.front().map(|ask| ask.what.as_str())
    }

    /// Questions that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.asks.len()
    }

    fn span(&mut self, now: Micros) -> Span {
        let (reached, age) = (self.reached, self.age);
        *self.span.get_or_insert_with(|| {
            let since = reached.map_or(now.plus(-age.saturating_mul(1_000_000)), |(_, since)| since);
            Span { since, fresh: reached.map_or(since, |(until, _)| until.plus(-OVERLAP)), until: now }
        })
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < MOST_NOTES && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The rows that were not seen yet in this list.
    fn unseen(&mut self, ask: &Ask, rows: Vec<Row>) -> Vec<Row> {
        if ask.follow != Follow::UntilStill {
            return rows;
        }
        let has_room = self.seen.len() < MOST_SEEN;
        rows.into_iter()
            .filter(|row| row.key == 0 || if has_room { self.seen.insert(row.key) } else { !self.seen.contains(&row.key) })
            .collect()
    }

    /// Puts what comes next before what waits, and shares the part of the whole that was this question's.
    fn go_on(&mut self, ask: &Ask, asks: Vec<Ask>, next: Option<Ask>) {
        let for_next = if next.is_some() { ask.weight / 2.0 } else { 0.0 };
        let here = ask.weight - for_next;
        if asks.is_empty() {
            self.done += here;
        }
        let share = here / asks.len().max(1) as f64;
        let shared = asks.into_iter().map(|child| Ask { weight: share, ..child });
        let all: Vec<Ask> = shared.chain(next.map(|next| Ask { weight: for_next, ..next })).collect();
        for one in all.into_iter().rev() {
            self.asks.push_front(one);
        }
    }

    fn remember(&mut self, path: &str, reply: &Reply, next: Option<&str>) {
        let Some(tag) = reply.header("etag") else { return };
        if self.tags.len() >= MOST_TAGS {
            self.tags.clear();
        }
        self.tags.insert(path.to_owned(), Tagged { tag: tag.to_owned(), next: next.map(str::to_owned) });
    }
}

fn first(platform: &Platform, repository: &str) -> Result<Ask> {
    let backfill = of(platform)?;
    let is_plain = repository.len() <= 255 && !repository.contains(|c: char| c.is_control());
    let none = || Error::Repository { name: repository.to_owned(), platform: platform.name, example: backfill.example };
    (backfill.begin)(repository).filter(|_| is_plain).ok_or_else(none)
}

/// Walks through the past of a repository.
#[derive(Debug)]
pub struct Walk {
    platform: &'static Platform,
    backfill: &'static Backfill,
    api: Api,
    rules: Option<Settings>,
    /// Where it stands.
    pub course: Course,
}

impl Walk {
    /// Goes on from where a course stands.
    ///
    /// # Errors
    /// [`Error::NoHistory`].
    pub fn new(platform: &'static Platform, api: Api, course: Course) -> Result<Self> {
        Ok(Self { platform, backfill: of(platform)?, api, rules: None, course })
    }

    /// The same without the issues that no rule makes incidents: nobody keeps them, so that they would be missed each time.
    #[must_use]
    pub fn with_rules(self, rules: Settings) -> Self {
        Self { rules: Some(rules), ..self }
    }

    /// Asks the next question and tells what the answer says; `None` at the end. When this fails, or what it told is lost before
    /// it was kept, the same question is asked again from the course that was kept before.
    ///
    /// # Errors
    /// As [`Api::get`], and [`Error::Page`].
    pub async fn step(&mut self) -> Result<Option<Vec<Event<'static>>>> {
        let Some(ask) = self.course.asks.front().cloned() else { return Ok(None) };
        let tagged = self.course.tags.get(&ask.path).filter(|_| ask.follow == Follow::UntilStill).cloned();
        let reply = match (self.api.get(&ask.path, tagged.as_ref().map(|tagged| tagged.tag.as_str())).await, ask.without) {
            (Ok(reply), _) => Some(reply),
            (Err(error @ Error::Absent { .. }), Without::Gone | Without::Off) | (Err(error @ Error::Permission { .. }), Without::Off) => {
                // A whole list that is absent is worth a word; of what was deleted meanwhile there is nothing to say.
                if ask.follow == Follow::UntilStill {
                    self.course.lacks.insert(ask.what.clone());
                    self.course.note(error.to_string());
                }
                None
            }
            (Err(error), _) => return Err(error),
        };
        if reply.is_some() && self.course.lacks.remove(&ask.what) {
            self.course.is_short = true;
        }
        let span = self.course.span(reply.as_ref().and_then(Reply::date).unwrap_or_else(|| self.api.now()));
        self.course.asks.pop_front();
        self.course.requests += 1;
        let is_unchanged = reply.as_ref().is_some_and(|reply| reply.status == 304);
        if let (true, Some(tagged)) = (is_unchanged, tagged) {
            self.course.unchanged += 1;
            self.follow(&ask, tagged.next, Vec::new(), false);
            self.end_if_empty(span);
            return Ok(Some(Vec::new()));
        }
        let events = match self.take(&ask, span, reply.as_ref()) {
            Ok(events) => events,
            Err(error) => {
                self.course.asks.push_front(ask);
                return Err(error);
            }
        };
        self.course.events += events.len() as u64;
        self.end_if_empty(span);
        Ok(Some(events))
    }

    fn end_if_empty(&mut self, span: Span) {
        if self.course.asks.is_empty() {
            // Of a list that was absent before only what is new was read now: the next walk reads all.
            let is_short = std::mem::take(&mut self.course.is_short) && span.fresh > span.since;
            self.course.reached = (!is_short).then_some((span.until, span.since));
            if is_short {
                self.course.tags.clear();
                self.course.note("a list that was not permitted before is there now: its past is read the next time".to_owned());
            }
            self.course.done = 1.0;
        }
    }

    fn take(&mut self, ask: &Ask, span: Span, reply: Option<&Reply>) -> Result<Vec<Event<'static>>> {
        let next = reply.and_then(Reply::next).filter(|_| ask.follow != Follow::No).map(str::to_owned);
        let known = Known { span, about: &self.course.about, has_next: next.is_some() };
        let body = reply.map_or(b"null".as_slice(), |reply| reply.body.as_slice());
        let Page { rows, asks, learnt, carried, is_last, is_replaced } =
            (self.backfill.read)(ask, &known, body).map_err(|source| self.api.unreadable(&ask.path, source))?;
        self.course.about.extend(learnt);
        let next = next.filter(|_| !is_last && !is_replaced);
        // A page that others stand for says nothing of what is on these.
        if let (Some(reply), Follow::UntilStill, false) = (reply, ask.follow, is_replaced) {
            self.course.remember(&ask.path, reply, next.as_deref());
        }
        let rows = self.course.unseen(ask, rows.into_iter().take(MOST_ROWS).collect());
        let is_new = !rows.is_empty();
        let (mut events, mut all) = (Vec::new(), Vec::new());
        for row in rows {
            for told in &row.told {
                self.read(told, &mut events);
            }
            all.extend(row.asks);
        }
        all.extend(asks);
        if is_replaced {
            self.course.go_on(ask, all, None);
        } else {
            let ask = Ask { with: if carried.is_null() { ask.with.clone() } else { carried }, ..ask.clone() };
            self.follow(&ask, next, all, is_new);
        }
        Ok(events)
    }

    /// The page after this one, or the list again, or the end of it.
    fn follow(&mut self, ask: &Ask, next: Option<String>, asks: Vec<Ask>, is_new: bool) {
        let Round { first, number, pages, is_changed } = &ask.round;
        let is_changed = *is_changed || is_new;
        if let Some(query) = next.filter(|_| *pages < MOST_PAGES) {
            let path = ask.path.split('?').next().unwrap_or_default();
            let round = Round { first: first.clone().or_else(|| Some(ask.path.clone())), number: *number, pages: pages + 1, is_changed };
            let next = Ask { path: format!("{path}?{query}"), round, ..ask.clone() };
            return self.course.go_on(ask, asks, Some(next));
        }
        let again = first.as_ref().filter(|_| ask.follow == Follow::UntilStill && is_changed && number + 1 < ROUNDS);
        let again = again.map(|first| {
            let round = Round { number: number + 1, ..Round::default() };
            Ask { path: first.clone(), round, ..ask.clone() }
        });
        if again.is_none() && ask.follow == Follow::UntilStill {
            self.course.seen.clear();
        }
        self.course.go_on(ask, asks, again);
    }

    /// Reads what a webhook would have told. A row that cannot be read is noted, and the others are read.
    fn read(&mut self, told: &Told, events: &mut Vec<Event<'static>>) {
        match told.events(self.platform) {
            Ok(found) => events.extend(found.into_iter().filter(|event| self.rules.as_ref().is_none_or(|rules| rules.takes(event)))),
            Err(error) => self.course.note(error.reason),
        }
    }
}
