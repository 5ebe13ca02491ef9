//! The `pipeline_health` fold: how the runs of a pipeline and branch went, day by day, exactly.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::{HashMap, HashSet};
use kiro_ports::Derived as Output;
use kiro_schemas::{Micros, Value};
use kiro_tables::{Rows, Table};

mod recent;
#[cfg(test)]
mod tests;

use crate::Result;
use crate::hashing::Hashing;
use crate::quantile::quantile;
use crate::run::Run;
use crate::versions::{Versions, finish};

const DAY: i64 = 86_400_000_000;

/// Numbers whose quantiles are asked for; sorted when they are.
#[derive(Debug, Default)]
struct Sample {
    values: Vec<i64>,
    is_sorted: bool,
}

impl Sample {
    fn add(&mut self, value: i64) {
        self.values.push(value);
        self.is_sorted = false;
    }

    fn remove(&mut self, value: i64) {
        self.sort();
        if let Ok(at) = self.values.binary_search(&value) {
            self.values.remove(at);
        }
    }

    fn sort(&mut self) {
        if !self.is_sorted {
            self.values.sort_unstable();
            self.is_sorted = true;
        }
    }

    /// The quantile; none when there is no value.
    fn quantile(&mut self, q: f64) -> Option<f64> {
        self.sort();
        quantile(&self.values, q)
    }
}

#[derive(Debug, Default)]
struct Day {
    /// The values of the key: tenant, source, pipeline, branch, day.
    key: Vec<Value<'static>>,
    /// The last of them, in microseconds.
    start: i64,
    runs: i64,
    successes: i64,
    failures: i64,
    durations: Sample,
    queues: Sample,
}

/// What one run adds to its day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    day: usize,
    label: Option<bool>,
    duration: Option<i64>,
    queue: Option<i64>,
}

impl Day {
    fn add(&mut self, part: &Part, sign: i64) {
        self.runs += sign;
        match part.label {
            Some(true) => self.failures += sign,
            Some(false) => self.successes += sign,
            None => {}
        }
        let change = |sample: &mut Sample, value| if sign > 0 { sample.add(value) } else { sample.remove(value) };
        if let Some(duration) = part.duration {
            change(&mut self.durations, duration);
        }
        if let Some(queue) = part.queue {
            change(&mut self.queues, queue);
        }
    }

    fn values(&mut self) -> Vec<Value<'static>> {
        let labelled = self.successes + self.failures;
        let ratio = if labelled == 0 { Value::Null } else { Value::Float(self.failures as f64 / labelled as f64) };
        let mut row = self.key.clone();
        row.extend([Value::Int(self.runs), Value::Int(self.successes), Value::Int(self.failures), ratio]);
        let quantiles = [self.durations.quantile(0.5), self.durations.quantile(0.95), self.queues.quantile(0.5)];
        row.extend(quantiles.map(|q| q.map_or(Value::Null, Value::Float)));
        row
    }
}

/// All days, shared with those who ask for metrics.
#[derive(Debug, Default)]
pub(crate) struct Days {
    list: Vec<Day>,
    /// When rows were last asked for: a day beyond is no news.
    now: Micros,
}

/// The fold.
#[derive(Debug)]
pub(crate) struct PipelineHealth {
    hashing: Hashing,
    days: Arc<Mutex<Days>>,
    by_key: HashMap<u128, usize>,
    parts: HashMap<u128, Part>,
    dirty: HashSet<usize>,
    pub(crate) versions: Versions,
}

impl PipelineHealth {
    pub(crate) fn new(table: &'static Table, hashing: &Hashing) -> Self {
        Self {
            hashing: hashing.clone(),
            days: Arc::default(),
            by_key: HashMap::new(),
            parts: HashMap::new(),
            dirty: HashSet::new(),
            versions: Versions::new(table, hashing.clone()),
        }
    }

    /// Takes a run as it stands; what it added before is taken back.
    pub(crate) fn fold(&mut self, key: u128, run: &Run<'_>) {
        let part = self.part(run);
        if self.parts.get(&key) == part.as_ref() {
            return;
        }
        if let Some(old) = self.parts.remove(&key) {
            self.lock().list[old.day].add(&old, -1);
            self.dirty.insert(old.day);
        }
        if let Some(part) = part {
            self.lock().list[part.day].add(&part, 1);
            self.dirty.insert(part.day);
            self.parts.insert(key, part);
        }
    }

    /// What can be asked for metrics.
    pub(crate) fn days(&self) -> Arc<Mutex<Days>> {
        Arc::clone(&self.days)
    }

    fn lock(&self) -> MutexGuard<'_, Days> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&mut self, run: &Run<'_>) -> Option<Part> {
        let finished_at = run.finished_at.filter(|_| run.is_final)?;
        let label = run.label();
        let queue = run.started_at.zip(run.queued_at).map(|(started, queued)| (started - queued) / 1000);
        Some(Part {
            day: self.day(run, finished_at.div_euclid(DAY) * DAY),
            label,
            duration: run.duration_ms.filter(|d| label.is_some() && *d >= 0),
            queue: queue.filter(|q| *q >= 0),
        })
    }

    fn day(&mut self, run: &Run<'_>, start: i64) -> usize {
        let texts = [run.tenant, run.source, run.pipeline.unwrap_or_default(), run.branch];
        let key = [Value::text(texts[0]), Value::text(texts[1]), Value::text(texts[2]), Value::text(texts[3]), Value::Time(Micros(start))];
        let hash = self.hashing.key(key.iter());
        let days = &mut self.days.lock().unwrap_or_else(PoisonError::into_inner).list;
        *self.by_key.entry(hash).or_insert_with(|| {
            days.push(Day { key: key.into_iter().map(Value::into_owned).collect(), start, ..Day::default() });
            days.len() - 1
        })
    }

    /// The days that changed.
    pub(crate) fn emit(&mut self, recorded_at: Micros) -> Result<Option<Output>> {
        let mut rows = Rows::new(self.versions.table);
        let mut dirty: Vec<_> = self.dirty.drain().collect();
        dirty.sort_unstable();
        let days = Arc::clone(&self.days);
        let mut days = days.lock().unwrap_or_else(PoisonError::into_inner);
        days.now = recorded_at;
        for at in dirty {
            let values = days.list[at].values();
            let key = self.versions.key(&values);
            if days.list[at].runs > 0 || self.versions.contains(key) {
                self.versions.offer(&mut rows, key, &values, recorded_at)?;
            }
        }
        finish(&mut rows)
    }
}
