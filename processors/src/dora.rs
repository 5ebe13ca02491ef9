//! The `dora` fold: DORA's five metrics of each service, by day, week and month.
//!
//! Kept are small facts: of each deployment, merged change and incident its times and what ties it to others. They are kept
//! for `keep_days` by the clock, whole months at a time, and of each service the [`LOOKBACK`] deployments before; names of
//! services are kept for good. Periods that began earlier stay in the table as they were told last.

use std::collections::BTreeSet;

use arrow::array::RecordBatch;
use hashbrown::{HashMap, HashSet};
use kiro_ports::Derived as Output;
use kiro_schemas::delivery::{Settings, Variant};
use kiro_schemas::{Micros, Value, Window, Zone};
use kiro_tables::{Rows, Table};

mod assess;
mod evidence;
mod facts;
mod figures;
mod repository;
mod rows;
mod state;
#[cfg(test)]
mod tests;

use crate::hashing::Hashing;
use crate::versions::{Versions, finish};
use crate::{Result, Shard};
use facts::Reading;
use rows::{KEY_COLUMNS, Line, Told};
use state::State;

/// How many successful deployments before another one can be touched by it: a rollback goes back no further.
const LOOKBACK: usize = 20;
const DAY: i64 = 86_400_000_000;
/// How long before its merge a change may have had its first commit that pushes show; what is older belongs to something else.
const BRANCH_LIFE: i64 = 180 * DAY;
/// How much longer commits of branches are kept, for merges that are told late.
const TOLD_LATE: i64 = 31 * DAY;

/// The fold.
#[derive(Debug)]
pub(crate) struct Dora {
    settings: Settings,
    reading: Reading,
    state: State,
    versions: Versions,
    /// The rows that were told: key to the start of its period.
    told: HashMap<u128, i64>,
    /// Of those found in the table the columns of the key, until the first rows are given: what is not told again by other
    /// settings is told to be empty.
    restored: HashMap<u128, Vec<Value<'static>>>,
    /// Periods that begin earlier are told no more.
    edge: i64,
    /// Commits of branches that were made earlier are let go.
    commits_edge: i64,
}

impl Dora {
    pub(crate) fn new(table: &'static Table, hashing: &Hashing, settings: Settings) -> Self {
        Self {
            settings,
            reading: Reading::new(hashing),
            state: State::new(hashing),
            versions: Versions::new(table, hashing.clone()),
            told: HashMap::new(),
            restored: HashMap::new(),
            edge: i64::MIN,
            commits_edge: i64::MIN,
        }
    }

    /// Its table.
    pub(crate) const fn table(&self) -> &'static Table {
        self.versions.table
    }

    /// Whether it folds the subjects of a table.
    pub(crate) fn reads(&self, table: &str) -> bool {
        match table {
            "deployments" | "changes" | "incidents" => true,
            "pipeline_runs" => self.settings.counts_runs(),
            _ => false,
        }
    }

    /// Takes a subject as it stands; what it said before is taken back.
    pub(crate) fn fold(&mut self, table: &'static Table, key: u128, values: &[Value<'_>]) {
        if self.reads(table.name) {
            let fact = self.reading.fact(&self.settings, table, values);
            self.state.replace(self.reading.key(table, key), fact);
        }
    }

    /// Makes known what the table holds already.
    pub(crate) fn restore(&mut self, rows: &RecordBatch, shard: Shard) -> Result<()> {
        let (told, restored) = (&mut self.told, &mut self.restored);
        self.versions.restore(
            rows,
            |tenant, _| shard.holds_tenant(tenant),
            |key, values| {
                let start = values.get(rows::PERIOD_START).and_then(Value::as_time).map_or(i64::MIN, |at| at.0);
                told.insert(key, start);
                restored.insert(key, values.iter().take(KEY_COLUMNS).cloned().map(Value::into_owned).collect());
            },
        )
    }

    /// The rows that changed.
    pub(crate) fn emit(&mut self, recorded_at: Micros) -> Result<Option<Output>> {
        self.advance(recorded_at);
        let mut rows = Rows::new(self.versions.table);
        let mut again = HashSet::new();
        for unit in self.state.take_stale() {
            for line in self.lines(unit) {
                let key = self.versions.key(&line.values);
                again.insert(key);
                if line.is_empty && !self.told.contains_key(&key) {
                    continue;
                }
                self.told.insert(key, line.start);
                self.versions.offer(&mut rows, key, &line.values, recorded_at)?;
            }
            self.state.settle(unit);
        }
        for (key, columns) in std::mem::take(&mut self.restored) {
            if self.told.contains_key(&key) && !again.contains(&key) {
                self.versions.offer(&mut rows, key, &rows::emptied(columns, &self.settings), recorded_at)?;
            }
        }
        finish(&mut rows)
    }

    /// The rows of a service that may have changed, under each set of definitions.
    fn lines(&self, unit: usize) -> Vec<Line> {
        let of = &self.state.units[unit];
        let zone = self.settings.zone(&of.name.service);
        let changed = of.times();
        let Some(first) = changed.first() else { return Vec::new() };
        let starts = Window::ALL.map(|window| zone.window(window, Micros(*first)).start.0);
        let earliest = starts.into_iter().min().unwrap_or(*first);
        let mut lines = Vec::new();
        for variant in &self.settings.variants {
            let definitions = variant.definitions();
            let outcomes = assess::outcomes(&self.state, unit, earliest, definitions);
            for window in Window::ALL {
                let spans: BTreeSet<_> = changed.iter().map(|at| zone.window(window, Micros(*at))).collect();
                for span in spans.into_iter().filter(|span| span.start.0 >= self.edge) {
                    let figures = figures::of(of, &outcomes, span, zone, definitions);
                    lines.push(Told { unit: of, variant: *variant, window, span, zone, figures }.line(&self.settings));
                }
            }
        }
        lines
    }

    /// Moves the edge with the clock, a month at a time, and forgets what lies behind it.
    fn advance(&mut self, now: Micros) {
        let kept = now.plus(-i64::from(self.settings.keep_days).saturating_mul(DAY));
        let month = |at: Micros| Zone::default().window(Window::Month, at).start.0;
        let edge = month(kept);
        let commits_edge = month(now.plus(-(BRANCH_LIFE + TOLD_LATE)));
        if commits_edge > self.commits_edge {
            self.commits_edge = commits_edge;
            self.state.shed(commits_edge);
        }
        if edge <= self.edge {
            return;
        }
        self.edge = edge;
        self.state.forget(edge);
        let (told, restored) = (&mut self.told, &mut self.restored);
        told.retain(|_, start| *start >= edge);
        restored.retain(|key, _| told.contains_key(key));
        self.versions.retain(|key| told.contains_key(&key));
    }
}

/// The longest that a change waits for its deployment in any set of definitions that limits it.
fn longest_wait() -> i64 {
    Variant::ALL.into_iter().filter_map(|variant| variant.definitions().longest_wait_days).max().unwrap_or(0).saturating_mul(DAY)
}
