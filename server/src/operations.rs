//! What operators ask for: status, readiness, training, replay of dead letters.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kiro_ingest::engine::EngineHandle;
use kiro_lake::Lake;
use kiro_log::{SpillLog, SpillStatus};
use kiro_ports::{Anchors, Clock, EventLog, LogState, Operations, Outbox, PortError, Principal, Replayed};
use serde_json::{Value, json};

use crate::error::Error;
use crate::models::Shelf;
use crate::replay::Replayer;
use crate::{audit, maintain};

/// How long `settle` waits.
const SETTLE: Duration = Duration::from_secs(30);
/// The operator's side of a process.
#[derive(Debug)]
pub(crate) struct Desk {
    pub(crate) engine: EngineHandle,
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) spill: Option<Arc<SpillLog>>,
    pub(crate) topics: Vec<String>,
    pub(crate) replayer: Replayer,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) outbox: Arc<dyn Outbox>,
    pub(crate) lake: Arc<Lake>,
    pub(crate) anchors: Arc<dyn Anchors>,
    pub(crate) clock: Arc<dyn Clock>,
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
            "spill": self.spill.as_ref().map(|spill| told(&spill.status())),
            "partitions": partitions,
            "tail_rows": status.tail_rows,
            "tail_bytes": status.tail_bytes,
            "dead_letters": status.dead_letters,
            "repeats": status.repeats,
            "gaps": status.gaps,
            "deliveries_waiting": self.outbox.waiting().await.ok(),
            "broken_invariants": kiro_schemas::invariant::broken(),
            "upkeep": maintain::told(self.lake.upkeep_note().await, self.clock.now()),
        })
    }

    async fn ready(&self) -> Result<String, String> {
        let status = self.engine.status();
        let spill = self.spill.as_ref().map(|spill| spill.status());
        match (status.log, spill) {
            (LogState::Down { reason }, Some(spill)) if status.is_ready && !spill.is_full() => {
                Ok(format!("ready; the log does not answer, posts are spilled ({}): {reason}", room(&spill)))
            }
            (LogState::Down { reason }, Some(spill)) if spill.is_full() => {
                Err(format!("the log does not answer, and the spill is full ({}): {reason}", room(&spill)))
            }
            (LogState::Down { reason }, _) => Err(format!("the log does not answer: {reason}")),
            (LogState::Up, _) if !status.is_ready => Err("catching up with the log".to_owned()),
            (LogState::Up, Some(spill)) if spill.since.is_some() => Ok(format!("ready; spilled posts go into the log ({})", room(&spill))),
            (LogState::Up, _) => Ok("ready".to_owned()),
        }
    }

    async fn evaluate_model(&self, who: &Principal) -> Result<Value, PortError> {
        self.shelf.train(&who.tenant).await
    }

    async fn replay_dead_letters(&self, who: &Principal, reason_prefix: &str, after: Option<&str>) -> Result<Replayed, PortError> {
        self.replayer.page(who, reason_prefix, after).await
    }

    async fn verify_audit(&self) -> Result<Value, PortError> {
        Ok(audit::verify(&self.lake, self.anchors.as_ref()).await?.to_json())
    }

    async fn settle(&self) -> Result<(), PortError> {
        let all = async {
            if let Some(spill) = &self.spill {
                spill.drained().await;
            }
            let mut ends = Vec::new();
            for topic in &self.topics {
                ends.extend(self.log.watermarks(topic).await?);
            }
            for (at, marks) in ends.iter().filter(|(_, marks)| marks.high > marks.low) {
                self.engine.reached(at, marks.high - 1).await;
            }
            Ok(())
        };
        tokio::time::timeout(SETTLE, all).await.unwrap_or_else(|_elapsed| Err(Error::Settle(SETTLE).into()))
    }
}

/// How the spill is, for operators.
fn told(spill: &SpillStatus) -> Value {
    json!({
        "bytes": spill.bytes,
        "limit_bytes": spill.limit,
        "since": spill.since.map(|since| since.to_string()),
        "records": spill.spilled,
        "drained": spill.drained,
        "refused": spill.refused,
        "aside": spill.aside,
    })
}

fn room(spill: &SpillStatus) -> String {
    format!("{} of {} bytes", spill.bytes, spill.limit)
}
