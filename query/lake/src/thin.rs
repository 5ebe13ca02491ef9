//! Which versions of a row stay: all for a week, then the last of each hour, after 90 days the last of each day.
//!
//! A version goes only if a later one of the same hour or day is at hand, so the last version of a row always stays, and
//! who asks as of the end of an hour that is kept gets the same answer as before.

use std::collections::HashSet;

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;
use arrow::error::ArrowError;
use arrow::row::{RowConverter, SortField};
use kiro_schemas::Micros;
use kiro_tables::Table;

use crate::compact::revisions;

const HOUR: i64 = 3_600 * 1_000_000;
const DAY: i64 = 24 * HOUR;
/// All versions are kept for so long, then one an hour, and after the second time one a day.
const ALL: i64 = 7 * DAY;
const HOURLY: i64 = 90 * DAY;

/// How far the versions in a file are thinned; it stands in the file's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    All,
    Hourly,
    Daily,
}

impl Level {
    /// Of a file of that name.
    pub(crate) fn of(path: &str) -> Self {
        [Self::Daily, Self::Hourly].into_iter().find(|level| path.contains(level.mark())).unwrap_or(Self::All)
    }

    /// How far versions up to that time are to be thinned.
    pub(crate) fn due(to: Micros, now: Micros) -> Self {
        match bucket(to, now) {
            None => Self::All,
            Some((HOUR, _)) => Self::Hourly,
            Some(_) => Self::Daily,
        }
    }

    /// What stands in the name.
    pub(crate) const fn mark(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Hourly => ".hourly",
            Self::Daily => ".daily",
        }
    }
}

/// The hour or day that has one version only; `None` where all are kept.
fn bucket(at: Micros, now: Micros) -> Option<(i64, i64)> {
    // Hours and days go when they are over as a whole.
    let is_before = |age: i64, span: i64| at.0 < (now.0 - age).div_euclid(span) * span;
    let span = if is_before(HOURLY, DAY) {
        DAY
    } else if is_before(ALL, HOUR) {
        HOUR
    } else {
        return None;
    };
    Some((span, at.0.div_euclid(span)))
}

/// For each row the revision that it goes on with; `None` for a row that goes.
///
/// Where all versions from the first on are at hand, those that stay are counted anew from 0: a row of which one version is
/// left is then no correction any more. Versions elsewhere come later and have higher revisions.
pub(crate) fn thin(table: &Table, batches: &[RecordBatch], now: Micros) -> Result<Vec<Option<i64>>, ArrowError> {
    let key: Vec<usize> = table.key.iter().filter_map(|name| table.position(name)).collect();
    let schema = table.schema();
    let converter = RowConverter::new(key.iter().map(|at| SortField::new(schema.field(*at).data_type().clone())).collect())?;
    let (mut keys, mut places) = (converter.empty_rows(0, 0), Vec::new());
    let recorded = table.position("recorded_at");
    for batch in batches {
        let columns: Vec<ArrayRef> = key.iter().map(|at| ArrayRef::clone(batch.column(*at))).collect();
        converter.append(&mut keys, &columns)?;
        let (revs, times) =
            (revisions(table, batch), recorded.and_then(|at| batch.column(at).as_primitive_opt::<TimestampMicrosecondType>()));
        let (Some(revs), Some(times)) = (revs, times) else {
            return Err(ArrowError::SchemaError(format!("{} has no versions", table.name)));
        };
        places.extend(revs.values().iter().copied().zip(times.values().iter().copied()));
    }
    let mut stays: Vec<Option<i64>> = places.iter().map(|(rev, _)| Some(*rev)).collect();
    if places.iter().all(|(_, at)| bucket(Micros(*at), now).is_none()) {
        return Ok(stays);
    }
    let mut order: Vec<usize> = (0..places.len()).collect();
    order.sort_unstable_by(|a, b| keys.row(*a).cmp(&keys.row(*b)).then_with(|| (places[*a], a).cmp(&(places[*b], b))));
    for versions in order.chunk_by(|a, b| keys.row(*a) == keys.row(*b)) {
        let is_whole = versions.iter().zip(0..).all(|(row, rev)| places[*row].0 == rev);
        let mut taken = HashSet::new();
        let is_kept = |row: &&usize| bucket(Micros(places[**row].1), now).is_none_or(|bucket| taken.insert(bucket));
        let mut kept: Vec<usize> = versions.iter().rev().filter(is_kept).copied().collect();
        kept.reverse();
        for row in versions {
            stays[*row] = None;
        }
        for (row, rev) in kept.into_iter().zip(0..) {
            stays[row] = Some(if is_whole { rev } else { places[row].0 });
        }
    }
    Ok(stays)
}

#[cfg(test)]
mod tests;
