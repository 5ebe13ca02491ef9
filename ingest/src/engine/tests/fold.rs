//! A fold whose rows are easily checked: how many events each run has. It forgets runs, and asks for them when they come again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use kiro_ports::{Derived, Folding, Missing, PortError};
use kiro_schemas::{Kind, Micros, Value};
use kiro_tables::{Rows, Table};

use super::crash::{CrashPoint, Life};

/// A run with so many events is forgotten.
const MANY: usize = 3;

#[derive(Debug)]
pub(super) struct CountFold {
    life: Arc<Life>,
    /// Ids of the events of each run.
    runs: BTreeMap<String, BTreeSet<String>>,
    forgotten: BTreeSet<String>,
    changed: BTreeSet<String>,
    /// What the table holds: revision and count.
    held: BTreeMap<String, (i64, i64)>,
}

pub(super) fn output() -> &'static Table {
    Table::find("pipeline_runs").expect("a table")
}

/// Runs, revisions and counts of rows of the output.
pub(super) fn counts(batch: &RecordBatch) -> Vec<(String, i64, i64)> {
    let run = batch.column_by_name("run_id").expect("a column").as_string_view();
    let int = |name: &str| batch.column_by_name(name).expect("a column").as_primitive::<Int64Type>().clone();
    let (rev, count) = (int("_rev"), int("duration_ms"));
    (0..batch.num_rows()).map(|at| (run.value(at).to_owned(), rev.value(at), count.value(at))).collect()
}

impl CountFold {
    pub(super) fn new(life: Arc<Life>) -> Self {
        Self { life, runs: BTreeMap::new(), forgotten: BTreeSet::new(), changed: BTreeSet::new(), held: BTreeMap::new() }
    }

    fn add(&mut self, events: &RecordBatch) {
        let column = |name: &str| events.column_by_name(name).expect("a column").as_string_view().clone();
        let (runs, ids) = (column("run_id"), column("event_id"));
        for (run, id) in runs.iter().zip(ids.iter()) {
            let run = run.expect("an id").to_owned();
            self.runs.entry(run.clone()).or_default().insert(id.expect("an id").to_owned());
            self.changed.insert(run);
        }
    }

    fn row(run: &str, rev: i64, count: i64, now: Micros) -> Vec<Value<'static>> {
        let value = |name: &str, kind: Kind, nullable: bool| match (name, kind, nullable) {
            ("run_id", ..) => Value::text(run.to_owned()),
            ("_rev", ..) => Value::Int(rev),
            ("duration_ms", ..) => Value::Int(count),
            (_, _, true) => Value::Null,
            (_, Kind::Text, _) => Value::text("-"),
            (_, Kind::Time, _) => Value::Time(now),
            _ => Value::Int(0),
        };
        output().columns.iter().map(|c| value(c.name, c.kind, c.nullable)).collect()
    }
}

impl Folding for CountFold {
    fn outputs(&self) -> Vec<&'static Table> {
        vec![output()]
    }

    fn restore(&mut self, _table: &'static Table, rows: &RecordBatch) -> Result<(), PortError> {
        self.held.extend(counts(rows).into_iter().map(|(run, rev, count)| (run, (rev, count))));
        Ok(())
    }

    fn apply(&mut self, table: &'static Table, events: &RecordBatch) -> Result<(), PortError> {
        self.life.strike(CrashPoint::Fold);
        if table.name == "pipeline_runs_events" {
            self.add(events);
        }
        Ok(())
    }

    fn missing(&mut self) -> Vec<Missing> {
        let ids: Vec<String> = self.changed.intersection(&self.forgotten).cloned().collect();
        if ids.is_empty() {
            return Vec::new();
        }
        let (tenants, sources) = (vec!["default".to_owned()], vec!["https://ci/a".to_owned()]);
        vec![Missing { table: "pipeline_runs_events", column: "run_id", tenants, sources, ids }]
    }

    fn supply(&mut self, _table: &'static Table, events: &RecordBatch) -> Result<(), PortError> {
        self.add(events);
        Ok(())
    }

    fn emit(&mut self, recorded_at: Micros) -> Result<Vec<Derived>, PortError> {
        self.life.strike(CrashPoint::Emit);
        let mut rows = Rows::new(output());
        for run in std::mem::take(&mut self.changed) {
            self.forgotten.remove(&run);
            let events = self.runs.get(&run).map_or(0, BTreeSet::len);
            let count = i64::try_from(events).expect("few");
            let held = self.held.get(&run).copied();
            if held.is_none_or(|(_, known)| known != count) {
                let rev = held.map_or(0, |(rev, _)| rev + 1);
                self.held.insert(run.clone(), (rev, count));
                rows.push(&Self::row(&run, rev, count, recorded_at)).expect("a row");
            }
            if events >= MANY {
                self.runs.remove(&run);
                self.forgotten.insert(run);
            }
        }
        if rows.is_empty() { Ok(Vec::new()) } else { Ok(vec![(output(), rows.finish().expect("rows"))]) }
    }

    fn open(&mut self) -> Result<Vec<Derived>, PortError> {
        Ok(Vec::new())
    }
}
