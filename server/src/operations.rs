//! What operators ask for: status, readiness, training, replay of dead letters.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiro_ingest::engine::EngineHandle;
use kiro_lake::Lake;
use kiro_ports::{Anchors, EventLog, LogState, NewRecord, Operations, Outbox, PortError, Principal, SqlEngine, SqlRequest};
use kiro_schemas::TopicPartition;
use serde_json::{Value, json};

use crate::error::Error;
use crate::models::Shelf;
use crate::{audit, rows};

/// How long `settle` waits.
const SETTLE: Duration = Duration::from_secs(30);
/// Dead letters that one replay appends at most.
const MOST_REPLAYED: usize = 10_000;

/// The operator's side of a process.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) engine: EngineHandle,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) topics: Vec<String>,
    pub(crate) sql: Arc<dyn SqlEngine>,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) lake: Arc<Lake>,
    pub(crate) anchors: Arc<dyn Anchors>,
}

#[async_trait]
impl Operations for Desk {
    async fn status(&self) -> Value {
        let status = self.engine.status();
        let partitions: Vec<Value> = status
            .partitions
            .iter()
            .map(|p| json!({"partition": p.at.to_string(), "next": p.next, "committed": p.committed, "lag": p.lag, "stopped": p.stopped}))
            .collect();
        let log = match &status.log {
            LogState::Up => json!({"state": "up"}),
            LogState::Down { reason } => json!({"state": "down", "reason": reason}),
        };
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "is_ready": status.is_ready,
            "log": log,
            "partitions": partitions,
            "tail_rows": status.tail_rows,
            "tail_bytes": status.tail_bytes,
            "dead_letters": status.dead_letters,
            "repeats": status.repeats,
            "gaps": status.gaps,
            "deliveries_waiting": self.outbox.waiting().await.ok(),
            "broken_invariants": kiro_schemas::invariant::broken(),
        })
    }

    async fn ready(&self) -> Result<(), String> {
        let status = self.engine.status();
        match status.log {
            LogState::Down { reason } => Err(format!("the log does not answer: {reason}")),
            LogState::Up if !status.is_ready => Err("catching up with the log".to_owned()),
            LogState::Up => Ok(()),
        }
    }

    async fn evaluate_model(&self, who: &Principal) -> Result<Value, PortError> {
        self.shelf.train(&who.tenant).await
    }

    async fn replay_dead_letters(&self, who: &Principal, reason_prefix: &str) -> Result<u64, PortError> {
        let sql = "SELECT _topic, _partition, _offset FROM dead_letters WHERE starts_with(reason, $1) ORDER BY _topic, _partition, _offset";
        let mut request = SqlRequest::new(who.tenant.clone(), sql);
        request.parameters = vec![Some(reason_prefix.to_owned())];
        request.max_rows = MOST_REPLAYED;
        let answer = rows::ask(&self.sql, request).await?;
        let mut replayed = 0;
        for row in answer.rows {
            let (Some(topic), Some(partition), Some(offset)) = (row[0].as_str(), row[1].as_i64(), row[2].as_i64()) else { continue };
            let at = TopicPartition::new(topic, i32::try_from(partition).unwrap_or(-1));
            let Some(record) = self.log.read(&at, offset).await? else { continue };
            let Some(value) = record.value else { continue };
            let again = NewRecord { topic: topic.to_owned(), key: record.key, value, headers: record.headers };
            self.log.append(vec![again]).await?;
            replayed += 1;
        }
        Ok(replayed)
    }

    async fn verify_audit(&self) -> Result<Value, PortError> {
        Ok(audit::verify(&self.lake, self.anchors.as_ref()).await?.to_json())
    }

    async fn settle(&self) -> Result<(), PortError> {
        let mut ends = Vec::new();
        for topic in &self.topics {
            ends.extend(self.log.watermarks(topic).await?);
        }
        let all = async {
            for (at, marks) in ends.iter().filter(|(_, marks)| marks.high > marks.low) {
                self.engine.reached(at, marks.high - 1).await;
            }
        };
        tokio::time::timeout(SETTLE, all).await.map_err(|_elapsed| Error::Settle(SETTLE).into())
    }
}
