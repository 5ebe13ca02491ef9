//! Views in memory for tests.

use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use datafusion::catalog::TableProvider;
use futures::{TryStreamExt, future};
use kiro_ports::{Clock, PortError, SqlRequest, TableView, TailBatch, View, Views};
use kiro_schemas::{Kind, Micros, Tenant, TopicPartition, Value};
use kiro_tables::{Rows, Table};

use crate::{Door, Error, Providers, Query, QueryConfig};

#[derive(Debug)]
pub(crate) struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Micros {
        Micros(1_000_000)
    }
}

#[derive(Debug, Default)]
pub(crate) struct Memory(Mutex<View>);

impl Views for Memory {
    fn view(&self) -> Arc<View> {
        Arc::new(self.0.lock().expect("a lock").clone())
    }
}

impl Memory {
    pub(crate) fn tail(&self, table: &'static str, rows: RecordBatch) {
        let batch = TailBatch { at: TopicPartition::new("events", 0), start: 0, next: 1, rows };
        self.edit(table, |view| view.tail.push(Arc::new(batch)));
    }

    pub(crate) fn edit(&self, table: &'static str, change: impl FnOnce(&mut TableView)) {
        change(self.0.lock().expect("a lock").tables.entry(table).or_default());
    }
}

/// Rows from named values; what is not named is made up when it may not be null.
pub(crate) fn rows(table: &'static str, given: &[&[(&str, Value<'static>)]]) -> RecordBatch {
    let table = Table::find(table).expect("a table");
    let mut rows = Rows::new(table);
    for row in given {
        let values: Vec<Value<'static>> = table
            .columns
            .iter()
            .map(|c| match row.iter().find(|(name, _)| *name == c.name) {
                Some((_, value)) => value.clone(),
                None if c.nullable => Value::Null,
                None if c.name == "tenant" => Value::text("default"),
                None => match c.kind {
                    Kind::Int => Value::Int(0),
                    Kind::Float => Value::Float(0.0),
                    Kind::Bool => Value::Bool(false),
                    Kind::Time => Value::Time(Micros(0)),
                    _ => Value::text("x"),
                },
            })
            .collect();
        rows.push(values.iter()).expect("a row");
    }
    rows.finish().expect("a batch")
}

/// One pipeline run.
pub(crate) fn run(tenant: &'static str, id: &'static str, rev: i64, recorded_at: i64, branch: &'static str) -> RecordBatch {
    rows(
        "pipeline_runs",
        &[&[
            ("tenant", Value::text(tenant)),
            ("run_id", Value::text(id)),
            ("_rev", Value::Int(rev)),
            ("recorded_at", Value::Time(Micros(recorded_at))),
            ("branch", Value::text(branch)),
        ]],
    )
}

/// A lake without files.
pub(crate) fn no_files() -> Providers {
    Arc::new(|_| Box::pin(future::ready(Err(PortError::of(Error::Lost)))))
}

/// A lake in which every version has these files.
pub(crate) fn files(provider: Arc<dyn TableProvider>) -> Providers {
    Arc::new(move |_| Box::pin(future::ready(Ok(Arc::clone(&provider)))))
}

pub(crate) fn engine(memory: Arc<Memory>) -> Arc<Query> {
    let config = QueryConfig { memory: 64 << 20, partitions: 2, ..QueryConfig::default() };
    Query::new(memory, no_files(), Arc::new(Fixed), config).expect("an engine")
}

pub(crate) fn request(sql: &str) -> SqlRequest {
    SqlRequest::new(Tenant::default(), sql)
}

pub(crate) async fn answer(engine: &Arc<Query>, request: SqlRequest) -> Result<Vec<RecordBatch>, PortError> {
    let answer = engine.ask(request, Door::Api).await.map_err(PortError::of)?;
    answer.rows.try_collect().await
}

/// The answer as lines, columns joined by `|`, in order.
pub(crate) async fn lines(engine: &Arc<Query>, request: SqlRequest) -> Vec<String> {
    let sql = request.sql.clone();
    let batches = answer(engine, request).await.unwrap_or_else(|e| panic!("{sql}: {e}"));
    let options = arrow::util::display::FormatOptions::default().with_null("null");
    let mut lines = Vec::new();
    for batch in batches {
        let columns: Vec<_> =
            batch.columns().iter().map(|c| arrow::util::display::ArrayFormatter::try_new(c, &options).expect("a formatter")).collect();
        for row in 0..batch.num_rows() {
            lines.push(columns.iter().map(|c| c.value(row).to_string()).collect::<Vec<_>>().join("|"));
        }
    }
    lines
}
