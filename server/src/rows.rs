//! Answers of SQL as JSON values, for evidence.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures::StreamExt as _;
use kiro_ports::{PortError, SqlEngine, SqlRequest};
use kiro_schemas::{Event, OffsetVector, Tenant};
use serde_json::{Map, Value};

use crate::error::Error;

/// Ids of one question whether they are known.
const MOST_IDS: usize = 200;

/// Columns and rows of an answer, and which part of the log it includes.
pub(crate) struct Answer {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Value>>,
    pub(crate) offsets: OffsetVector,
}

/// Asks and collects.
pub(crate) async fn ask(engine: &Arc<dyn SqlEngine>, request: SqlRequest) -> Result<Answer, PortError> {
    let mut answer = Arc::clone(engine).query(request).await?;
    let columns: Vec<String> = answer.schema.fields().iter().map(|f| f.name().clone()).collect();
    let mut rows = Vec::new();
    while let Some(batch) = answer.rows.next().await {
        let mut writer = arrow::json::ArrayWriter::new(Vec::new());
        writer.write(&batch?).and_then(|()| writer.finish()).map_err(broken)?;
        let objects: Vec<Map<String, Value>> = serde_json::from_slice(&writer.into_inner()).map_err(broken)?;
        rows.extend(objects.into_iter().map(|mut row| columns.iter().map(|name| row.remove(name).unwrap_or(Value::Null)).collect()));
    }
    Ok(Answer { columns, rows, offsets: answer.offsets })
}

/// Events that are in the tables already.
pub(crate) struct Known(BTreeSet<(String, String)>);

impl Known {
    /// Whether an event is among them.
    pub(crate) fn has(&self, event: &Event<'_>) -> bool {
        self.0.contains(&(event.source.clone().into_owned(), event.id.to_string()))
    }
}

/// Which of these events are in the tables: the window in which repeats are found is bounded, and each process has its own.
pub(crate) async fn known(engine: &Arc<dyn SqlEngine>, tenant: &Tenant, events: &[Event<'_>]) -> Result<Known, PortError> {
    let mut by_place: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for event in events {
        by_place.entry((event.spec().events_table, &event.source)).or_default().push(&event.id);
    }
    let mut known = BTreeSet::new();
    for ((table, source), ids) in by_place {
        for ids in ids.chunks(MOST_IDS) {
            let places: Vec<String> = (2..ids.len() + 2).map(|at| format!("${at}")).collect();
            let sql = format!("SELECT DISTINCT event_id FROM {table} WHERE source = $1 AND event_id IN ({})", places.join(", "));
            let mut question = SqlRequest::new(tenant.clone(), sql);
            question.parameters = std::iter::once(source).chain(ids.iter().copied()).map(|text| Some(text.to_owned())).collect();
            let answer = ask(engine, question).await?;
            known.extend(answer.rows.into_iter().flatten().filter_map(|id| Some((source.to_owned(), id.as_str()?.to_owned()))));
        }
    }
    Ok(Known(known))
}

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> PortError {
    Error::Answer(Box::new(error)).into()
}
