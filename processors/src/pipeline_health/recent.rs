//! The newest days of each pipeline put together, for metrics.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kiro_schemas::Value;
use kiro_schemas::names::{ALL_TENANTS, MOST_NAMES, OTHER, top};

use super::{DAY, Day, Days, Sample};
use crate::telemetry::{Recency, Recent, Window};

/// How many days are put together.
const WINDOW_DAYS: i64 = 7;

/// Tenant, source, pipeline.
type Name<'a> = [&'a str; 3];

impl Recency for Mutex<Days> {
    fn window(&self) -> Window {
        self.lock().unwrap_or_else(PoisonError::into_inner).window()
    }
}

impl Days {
    /// The days up to the newest one that has runs and is not ahead of the clock.
    fn window(&self) -> Window {
        let known = self.list.iter().filter(|day| day.runs > 0 && day.start <= self.now.0);
        let Some(newest) = known.clone().map(|day| day.start).max() else { return Window::default() };
        let first = newest - (WINDOW_DAYS - 1) * DAY;
        let mut pipelines: BTreeMap<Name<'_>, Vec<&Day>> = BTreeMap::new();
        for day in known.filter(|day| day.start >= first) {
            pipelines.entry(name(day)).or_default().push(day);
        }
        let runs = |days: &Vec<&Day>| days.iter().map(|day| day.runs.unsigned_abs()).sum::<u64>();
        let shown = top(pipelines.iter().map(|(name, days)| (*name, runs(days))), MOST_NAMES);
        let (shown, rest): (Vec<_>, Vec<_>) = pipelines.into_iter().partition(|(name, _)| shown.contains(name));
        let rest: Vec<&Day> = rest.into_iter().flat_map(|(_, days)| days).collect();
        let rest = (!rest.is_empty()).then_some(([ALL_TENANTS, OTHER, OTHER], rest));
        let pipelines = shown.into_iter().chain(rest).map(|(name, days)| recent(name, &days)).collect();
        Window { pipelines, end_seconds: Some((newest + DAY) as f64 / 1e6) }
    }
}

fn name(day: &Day) -> Name<'_> {
    let text = |at: usize| day.key.get(at).and_then(Value::as_text).unwrap_or_default();
    [text(0), text(1), text(2)]
}

fn recent(name: Name<'_>, days: &[&Day]) -> Recent {
    let sum = |of: fn(&Day) -> i64| days.iter().map(|day| of(day)).sum::<i64>();
    let (successes, failures) = (sum(|d| d.successes), sum(|d| d.failures));
    let quantiles = |of: fn(&Day) -> &Sample| {
        let mut sample = Sample { values: days.iter().flat_map(|day| of(day).values.iter().copied()).collect(), is_sorted: false };
        [0.5, 0.95].map(|q| sample.quantile(q).map(|ms| ms / 1_000.0))
    };
    Recent {
        name: name.map(str::to_owned),
        runs: [successes, failures, sum(|d| d.runs) - successes - failures],
        duration_seconds: quantiles(|d| &d.durations),
        queue_seconds: quantiles(|d| &d.queues),
    }
}
