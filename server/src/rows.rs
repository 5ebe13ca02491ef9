//! Answers of SQL as JSON values, for evidence.

use std::sync::Arc;

use futures::StreamExt as _;
use kiro_ports::{PortError, SqlEngine, SqlRequest};
use kiro_schemas::OffsetVector;
use serde_json::{Map, Value};

use crate::error::Error;

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

fn broken(error: impl std::error::Error + Send + Sync + 'static) -> PortError {
    Error::Answer(Box::new(error)).into()
}
