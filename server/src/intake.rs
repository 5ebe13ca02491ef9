//! Events and webhooks in: checked, then appended; durable when answered.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use kiro_ingest::decode::Decoder;
use kiro_ingest::decode::http::{HttpEvent, split};
use kiro_integrations::Platform;
use kiro_ports::{Clock, EventLog, Headers, Intake, NewRecord, PortError, RECORD_ID, header};
use kiro_schemas::{Event, Secret, Tenant};
use uuid::Uuid;

use crate::error::Error;
use crate::telemetry::Telemetry;

/// Most events of one post.
const MOST_EVENTS: usize = 10_000;

/// A platform, its secrets and whose its events are.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) platform: &'static Platform,
    pub(crate) secrets: Vec<Secret>,
    pub(crate) tenant: Tenant,
}

/// The doors for events.
#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) topic: String,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) hooks: BTreeMap<String, Hook>,
    pub(crate) ids: RecordIds,
    pub(crate) telemetry: Telemetry,
}

/// Names records, so that one that the log holds twice is known.
#[derive(Debug, Clone)]
pub(crate) struct RecordIds {
    clock: Arc<dyn Clock>,
    door: String,
    last: Arc<AtomicI64>,
}

impl RecordIds {
    pub(crate) fn new(clock: &Arc<dyn Clock>) -> Self {
        Self { clock: Arc::clone(clock), door: Uuid::new_v4().simple().to_string(), last: Arc::default() }
    }

    /// When it came, a little later if another came at the same moment; and at which door.
    fn next(&self) -> String {
        let now = self.clock.now().0;
        let last = self.last.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |last| Some(now.max(last + 1))).unwrap_or(now);
        format!("{}-{}", now.max(last + 1), self.door)
    }
}

impl std::fmt::Debug for Doors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Doors").field("topic", &self.topic).finish_non_exhaustive()
    }
}

impl Doors {
    fn record(&self, tenant: &Tenant, mut headers: Headers, bytes: Bytes, key: String) -> NewRecord {
        headers.push((RECORD_ID.to_owned(), Bytes::from(self.ids.next())));
        headers.push(("kiro-tenant".to_owned(), Bytes::copy_from_slice(tenant.as_str().as_bytes())));
        NewRecord { topic: self.topic.clone(), key: Some(Bytes::from(key)), value: bytes, headers }
    }

    /// The record of an event that was made here of what was sent.
    pub(crate) fn native(&self, tenant: &Tenant, event: &Event<'_>) -> NewRecord {
        let headers = vec![("kiro-format".to_owned(), Bytes::from_static(b"native"))];
        let bytes = Bytes::from(serde_json::to_vec(event).unwrap_or_default());
        self.record(tenant, headers, bytes, format!("{}\n{}", event.source, event.subject_id))
    }

    /// Decodes once at the door, so that the sender hears what is wrong; the subject keeps its order by the key.
    fn checked(&self, tenant: &Tenant, events: Vec<HttpEvent>) -> Result<Vec<NewRecord>, PortError> {
        let check = |(index, event): (usize, HttpEvent)| {
            let place = |error: &dyn std::fmt::Display| invalid(format!("event {}: {error}", index + 1));
            let key = {
                let decoded = self.decoder.decode(&self.topic, &event.headers, &event.bytes).map_err(|e| place(&e))?;
                if let Some(ours) = decoded.iter().find(|event| event.subject.is_ours()) {
                    return Err(place(&format_args!("events of {} are written by the product alone", ours.subject)));
                }
                decoded.first().map(|e| format!("{}\n{}", e.source, e.subject_id)).unwrap_or_default()
            };
            Ok(self.record(tenant, event.headers, event.bytes, key))
        };
        events.into_iter().enumerate().map(check).collect()
    }
}

fn invalid(what: String) -> PortError {
    Error::Event(what).into()
}

#[async_trait]
impl Intake for Doors {
    async fn post(&self, tenant: &Tenant, headers: &Headers, body: Bytes) -> Result<usize, PortError> {
        let content_type = header(headers, "content-type").unwrap_or("application/json");
        let events = split(content_type, headers, &body).map_err(|error| invalid(error.to_string()))?;
        if events.len() > MOST_EVENTS {
            return Err(Error::ManyEvents { count: events.len(), most: MOST_EVENTS }.into());
        }
        let count = events.len();
        let records = self.checked(tenant, events)?;
        if !records.is_empty() {
            self.log.append(records).await?;
        }
        Ok(count)
    }

    async fn webhook(&self, platform: &str, headers: &Headers, body: Bytes) -> Result<usize, PortError> {
        let Some(Hook { platform: known, secrets, tenant }) = self.hooks.get(platform) else {
            return Err(Error::NoPlatform { platform: platform.to_owned() }.into());
        };
        let now = self.ids.clock.now();
        known.verify(secrets, headers, &body, now).map_err(|refusal| Error::Signature(refusal.to_string()))?;
        let redacted = match known.redact(&body) {
            Cow::Owned(redacted) => Some(redacted),
            Cow::Borrowed(_) => None,
        };
        let mut kept = known.kept_headers(headers);
        kept.push(("kiro-format".to_owned(), Bytes::from_static(known.name.as_bytes())));
        let key = known.delivery_id(headers).map_or_else(|| self.ids.next(), str::to_owned);
        let record = self.record(tenant, kept, redacted.map_or(body, Bytes::from), key);
        self.log.append(vec![record]).await?;
        let event = known.event_name(headers).unwrap_or_default();
        self.telemetry.webhook(known.name, event, known.reads(event));
        Ok(1)
    }
}
