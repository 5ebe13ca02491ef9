//! What is known of one pipeline at a moment, and the features that follow from it.

use std::sync::Arc;

use hashbrown::HashMap;
use kiro_schemas::Micros;

/// Windows of the failure rates, in known runs.
const WINDOWS: [usize; 7] = [3, 5, 10, 20, 50, 100, 300];
/// Half-lives of the decaying failure rates, in known runs.
const HALF_LIVES: [f64; 3] = [2.0, 8.0, 40.0];
/// Where decaying rates begin.
const PRIOR: f64 = 0.3;
/// Weight of the newest run in the decaying rate of a kind.
const KIND_WEIGHT: f64 = 0.2;
/// Longest gaps that are told apart, in seconds.
const LONGEST_GAP: f64 = 1e7;
const LONGEST_SINCE_FAILURE: f64 = 1e8;

/// Names a run within its pipeline, and orders those that began at the same moment: digests would order them by chance.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) id: Box<str>,
    pub(super) attempt: i64,
}

/// A run that began.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Began {
    pub(super) start: i64,
    pub(super) key: u128,
    pub(super) name: Arc<Name>,
    pub(super) is_pull_request: bool,
    pub(super) declared: Vec<(u16, f64)>,
}

/// A run that ended: from `known_at` on, and never before it began, others may learn from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) known_at: i64,
    pub(super) start: i64,
    pub(super) key: u128,
    pub(super) name: Arc<Name>,
    /// `None` when its outcome tells nothing.
    pub(super) is_failure: Option<bool>,
    pub(super) is_pull_request: bool,
}

/// A known labelled run, with what holds after it and all before it in the order of their starts.
#[derive(Debug, Clone)]
struct Known {
    ended: Ended,
    failures: usize,
    decayed: [f64; 3],
    kind_last: [f64; 2],
    kind_decayed: [f64; 2],
    streak: i64,
    last_failure: Option<i64>,
}

impl Known {
    fn after(before: Option<&Self>, ended: Ended) -> Self {
        let (is_failure, start) = (ended.is_failure == Some(true), ended.start);
        let label = f64::from(u8::from(is_failure));
        let kind = usize::from(ended.is_pull_request);
        let mut next = match before {
            Some(before) => Self { ended, ..before.clone() },
            None => Self::none(ended),
        };
        next.failures += usize::from(is_failure);
        for (decayed, half_life) in next.decayed.iter_mut().zip(HALF_LIVES) {
            let weight = 1.0 - 0.5_f64.powf(1.0 / half_life);
            *decayed += weight * (label - *decayed);
        }
        next.kind_last[kind] = label;
        next.kind_decayed[kind] += KIND_WEIGHT * (label - next.kind_decayed[kind]);
        next.streak = match (is_failure, next.streak) {
            (true, s) => s.max(0) + 1,
            (false, s) => s.min(0) - 1,
        };
        if is_failure {
            next.last_failure = Some(start);
        }
        next
    }

    fn none(ended: Ended) -> Self {
        Self { ended, failures: 0, decayed: [PRIOR; 3], kind_last: [0.0; 2], kind_decayed: [PRIOR; 2], streak: 0, last_failure: None }
    }
}

impl Ended {
    fn order(&self) -> (i64, &Name) {
        (self.start, &self.name)
    }
}

/// One pipeline: its runs, and a cursor that moves over the moments at which they became known.
#[derive(Debug, Default)]
pub(super) struct History {
    /// By start.
    began: Vec<Began>,
    /// By `known_at`; the first `cursor` of them are known at the moment where the cursor stands.
    ended: Vec<Ended>,
    cursor: usize,
    /// The labelled ones of those, by start.
    known: Vec<Known>,
    /// Changes that are not yet in the above.
    new_began: HashMap<u128, Option<Began>>,
    new_ended: HashMap<u128, Option<Ended>>,
    low_start: Option<i64>,
    low_known: Option<i64>,
    /// Rows from this moment on are to be computed anew.
    stale_from: Option<i64>,
}

fn lower(mark: &mut Option<i64>, to: i64) {
    *mark = Some(mark.map_or(to, |m| m.min(to)));
}

impl History {
    /// Replaces what was known of a run.
    pub(super) fn replace(&mut self, key: u128, old: (Option<&Began>, Option<&Ended>), new: (Option<Began>, Option<Ended>)) {
        if old.0 != new.0.as_ref() {
            for start in [old.0.map(|b| b.start), new.0.as_ref().map(|b| b.start)].into_iter().flatten() {
                lower(&mut self.low_start, start);
                lower(&mut self.stale_from, start);
            }
            self.new_began.insert(key, new.0);
        }
        if old.1 != new.1.as_ref() {
            for known_at in [old.1, new.1.as_ref()].map(|e| e.map(|e| e.known_at)).into_iter().flatten() {
                lower(&mut self.low_known, known_at);
                lower(&mut self.stale_from, known_at);
            }
            self.new_ended.insert(key, new.1);
        }
    }

    /// Brings the changes in; only what lies behind the earliest of them is sorted anew.
    fn settle(&mut self) {
        if let Some(low) = self.low_start.take() {
            let from = self.began.partition_point(|b| b.start < low);
            let new = std::mem::take(&mut self.new_began);
            let mut rest = self.began.split_off(from);
            rest.retain(|b| !new.contains_key(&b.key));
            rest.extend(new.into_values().flatten());
            rest.sort_by(|a, b| (a.start, &a.name).cmp(&(b.start, &b.name)));
            self.began.append(&mut rest);
        }
        if let Some(low) = self.low_known.take() {
            self.rewind(low);
            let from = self.ended.partition_point(|e| e.known_at < low);
            let new = std::mem::take(&mut self.new_ended);
            let mut rest = self.ended.split_off(from);
            rest.retain(|e| !new.contains_key(&e.key));
            rest.extend(new.into_values().flatten());
            rest.sort_by(|a, b| (a.known_at, a.order()).cmp(&(b.known_at, b.order())));
            self.ended.append(&mut rest);
        }
    }

    /// Moves the cursor back so that nothing with `known_at >= low` is known.
    fn rewind(&mut self, low: i64) {
        let cursor = self.ended.partition_point(|e| e.known_at < low);
        if cursor >= self.cursor {
            return;
        }
        let gone = self.ended[cursor..self.cursor].iter().filter(|e| e.is_failure.is_some());
        let first = gone.map(Ended::order).min();
        let from = first.map(|first| self.known.partition_point(|k| k.ended.order() < first));
        self.cursor = cursor;
        if let Some(from) = from {
            let rest = self.known.split_off(from);
            self.extend(rest.into_iter().map(|k| k.ended).filter(|e| e.known_at < low).collect());
        }
    }

    /// Moves the cursor to a moment: known is what could be told then.
    fn move_to(&mut self, at: i64) {
        self.rewind(at.saturating_add(1));
        let news = self.ended[self.cursor..].iter().take_while(|e| e.known_at <= at);
        let count = news.clone().count();
        let mut news: Vec<_> = news.filter(|e| e.is_failure.is_some()).cloned().collect();
        self.cursor += count;
        if let Some(first) = news.iter().map(Ended::order).min() {
            let from = self.known.partition_point(|k| k.ended.order() < first);
            if from < self.known.len() {
                news.extend(self.known.split_off(from).into_iter().map(|k| k.ended));
            }
            news.sort_by(|a, b| a.order().cmp(&b.order()));
            self.extend(news);
        }
    }

    fn extend(&mut self, sorted: Vec<Ended>) {
        for ended in sorted {
            let next = Known::after(self.known.last(), ended);
            self.known.push(next);
        }
    }

    /// The features at a moment, in the order of the table, and how many labelled runs were known. Runs that began at the
    /// very moment do not count: not the run itself, nor its twins.
    ///
    /// # Source
    /// History features of build outcome prediction (`RavenBuild`, FSE 2024; `BuildFast`, ASE 2020): previous outcomes, failure
    /// rates over windows and with decay, streak and gaps.
    pub(super) fn at(&mut self, at: i64, is_pull_request: bool) -> (Vec<f64>, usize) {
        self.settle();
        self.move_to(at);
        let known = &self.known;
        let (count, kind) = (known.len(), usize::from(is_pull_request));
        let label = |back: usize| count.checked_sub(back).map_or(0.0, |i| f64::from(u8::from(known[i].ended.is_failure == Some(true))));
        let before = self.began.partition_point(|b| b.start < at);
        let state = known.last();
        let since = |then: i64, longest: f64| Micros(at).seconds_since(Micros(then)).clamp(0.0, longest).ln_1p();
        let first = self.began.first().map_or(at, |b| b.start.min(at));
        let previous = before.checked_sub(1).map_or(at, |i| self.began[i].start);
        let streak = state.map_or(0, |k| k.streak) as f64;
        let mut row = Vec::with_capacity(21);
        row.extend([label(1), label(2)]);
        row.extend(WINDOWS.iter().map(|w| rate(known, *w)));
        row.extend(state.map_or([PRIOR; 3], |k| k.decayed));
        row.push(state.map_or(0.0, |k| k.kind_last[kind]));
        row.push(state.map_or(PRIOR, |k| k.kind_decayed[kind]));
        row.push(since(previous, LONGEST_GAP));
        row.push(since(state.map_or(first, |k| k.ended.start), LONGEST_GAP));
        row.push((before.saturating_sub(self.cursor) as f64).ln_1p());
        row.push(if streak == 0.0 { 0.0 } else { streak.signum() * streak.abs().ln_1p() });
        row.push(since(state.and_then(|k| k.last_failure).unwrap_or(first), LONGEST_SINCE_FAILURE));
        row.extend([f64::from(Micros(at).hour()), f64::from(Micros(at).weekday())]);
        (row, count)
    }

    /// Computes the rows that changes may have touched.
    pub(super) fn refresh<E>(&mut self, mut each: impl FnMut(&Began, (Vec<f64>, usize)) -> Result<(), E>) -> Result<(), E> {
        let Some(from) = self.stale_from.take() else { return Ok(()) };
        self.settle();
        let first = self.began.partition_point(|b| b.start < from);
        for i in first..self.began.len() {
            let (start, is_pull_request) = (self.began[i].start, self.began[i].is_pull_request);
            let row = self.at(start, is_pull_request);
            each(&self.began[i], row)?;
        }
        Ok(())
    }
}

fn rate(known: &[Known], window: usize) -> f64 {
    let from = known.len().saturating_sub(window);
    let total = known.last().map_or(0, |k| k.failures);
    let before = from.checked_sub(1).map_or(0, |i| known[i].failures);
    (total - before) as f64 / (known.len() - from).max(1) as f64
}
