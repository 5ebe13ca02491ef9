//! Our own events: decisions, assessments, audit entries. Appended to the log, answered after its acknowledgement.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use kiro_ports::{Audit, AuditEntry, Clock, EventLog, NewRecord, PortError, Position};
use kiro_schemas::{Event, Subject, Tenant, Transition, Value};
use uuid::Uuid;

use crate::error::Error;

/// The source of our own events.
pub(crate) const SOURCE: &str = "urn:kirolinter";

/// Appends our own events.
#[derive(Debug, Clone)]
pub(crate) struct Journal {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) topic: String,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Journal {
    /// An event of ours, at this moment, about `id`.
    pub(crate) fn event(&self, subject: Subject, id: &str) -> Event<'static> {
        Event::new(subject, Transition::Recorded, SOURCE, id.to_owned(), self.clock.now())
    }

    /// Appends events; they are durable when this returns, and what they tell of is not done when it fails.
    pub(crate) async fn append(&self, tenant: &Tenant, events: &[Event<'_>]) -> Result<Vec<Position>, PortError> {
        let records = events.iter().map(|event| self.record(tenant, event)).collect();
        self.log.append(records).await.map_err(|error| Error::Unrecorded(error).into())
    }

    /// The record of an event.
    pub(crate) fn record(&self, tenant: &Tenant, event: &Event<'_>) -> NewRecord {
        NewRecord {
            topic: self.topic.clone(),
            key: Some(Bytes::from(format!("{}\n{}", event.source, event.subject_id))),
            value: Bytes::from(serde_json::to_vec(event).unwrap_or_default()),
            headers: vec![
                ("kiro-tenant".to_owned(), Bytes::copy_from_slice(tenant.as_str().as_bytes())),
                ("kiro-format".to_owned(), Bytes::from_static(b"native")),
            ],
        }
    }

    /// The audit event of an entry.
    pub(crate) fn audit_event(&self, entry: &AuditEntry) -> Event<'static> {
        let mut event = self.event(Subject::AuditEntry, &Uuid::now_v7().to_string());
        event.set("actor", Value::text(entry.actor.clone()));
        event.set("action", Value::text(entry.action.clone()));
        event.set("object", Value::text(entry.object.clone()));
        event.set("result", Value::text(if entry.refused.is_some() { "refused" } else { "allowed" }));
        event.set_text("reason", entry.refused.clone());
        event
    }
}

#[async_trait]
impl Audit for Journal {
    async fn record(&self, entry: AuditEntry) -> Result<(), PortError> {
        self.append(&entry.tenant, &[self.audit_event(&entry)]).await?;
        Ok(())
    }
}
