//! Events and webhooks in: checked, then appended; durable when answered.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use kiro_ingest::decode::Decoder;
use kiro_ingest::decode::http::{HttpEvent, split};
use kiro_ports::{Clock, EventLog, Headers, Intake, NewRecord, PortError, RECORD_ID, Taken, header};
use kiro_schemas::{Event, Micros, Tenant};
use uuid::Uuid;

use crate::error::Error;
use crate::sources::{Book, Hook, Key, Seen};
use crate::telemetry::{Telemetry, Webhook};

/// A delivery with more bytes takes more than a millisecond to verify.
const LARGE: usize = 256 << 10;
/// Most events of one post.
const MOST_EVENTS: usize = 10_000;

/// The doors for events.
#[derive(Clone)]
pub(crate) struct Doors {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) topic: String,
    /// Where deliveries of webhooks go, as they came but for their secrets.
    pub(crate) webhook_topic: String,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) sources: Book,
    pub(crate) seen: Seen,
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

/// When a door took a record, as its id says.
pub(crate) fn taken_at(headers: &Headers) -> Option<Micros> {
    let (moment, _door) = header(headers, RECORD_ID)?.split_once('-')?;
    moment.parse().ok().map(Micros).filter(|at| at.is_storable())
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

    /// Counts a delivery, for the metrics and for who looks after its source.
    fn count(&self, hook: &Hook, came: Webhook<'_>, now: Micros) {
        self.telemetry.webhook(hook.platform.name, &hook.name, came);
        self.sources.tally(&hook.name, |counts| match came {
            Webhook::Read(event) | Webhook::Unread(event) => {
                counts.taken += 1;
                counts.unread += u64::from(matches!(came, Webhook::Unread(_)));
                (counts.taken_at, counts.last_event) = (now, event.chars().take(80).collect());
            }
            Webhook::Known => counts.known += 1,
            Webhook::Refused(reason) => {
                counts.refused += 1;
                (counts.refused_at, counts.last_refusal) = (now, reason.to_owned());
            }
        });
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

/// A delivery that was proven: what is kept of it.
struct Checked {
    headers: Headers,
    body: Bytes,
    /// What it is known by if it comes again.
    seen: Option<Key>,
}

/// Verifies a delivery, then drops its secrets. A large one takes its time, and does not hold up others meanwhile.
async fn check(hook: &Arc<Hook>, headers: &Headers, body: &Bytes, now: Micros) -> Result<Checked, Error> {
    if body.len() <= LARGE {
        return check_now(hook, headers, body, now);
    }
    let (hook, headers, body) = (Arc::clone(hook), headers.clone(), body.clone());
    let checking = tokio::task::spawn_blocking(move || check_now(&hook, &headers, &body, now));
    checking.await.map_err(Error::Checker)?
}

fn check_now(hook: &Hook, headers: &Headers, body: &Bytes, now: Micros) -> Result<Checked, Error> {
    hook.verify(headers, body, now)?;
    let platform = hook.platform;
    let mut kept = platform.kept_headers(headers);
    let seen = platform.delivery_id(headers).map(|id| Seen::key(&hook.name, id, &kept, body));
    kept.push(("kiro-format".to_owned(), Bytes::from_static(platform.name.as_bytes())));
    let body = match platform.redact(body) {
        Cow::Owned(redacted) => Bytes::from(redacted),
        Cow::Borrowed(_) => body.clone(),
    };
    Ok(Checked { headers: kept, body, seen })
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

    async fn webhook(&self, source: &str, headers: &Headers, body: Bytes) -> Result<Taken, PortError> {
        let Some(hook) = self.sources.hook(source) else {
            return Err(Error::NoSource { name: source.chars().take(80).collect() }.into());
        };
        let now = self.ids.clock.now();
        let checked = match check(&hook, headers, &body, now).await {
            Ok(checked) => checked,
            Err(error) => {
                self.count(&hook, Webhook::Refused(&error.to_string()), now);
                return Err(error.into());
            }
        };
        if checked.seen.is_some_and(|key| self.seen.has(&key)) {
            self.count(&hook, Webhook::Known, now);
            return Ok(Taken::Known);
        }
        let key = hook.platform.delivery_id(headers).map_or_else(|| self.ids.next(), str::to_owned);
        let record = self.record(&hook.tenant, checked.headers, checked.body, key);
        self.log.append(vec![NewRecord { topic: self.webhook_topic.clone(), ..record }]).await?;
        if let Some(key) = checked.seen {
            self.seen.remember(key);
        }
        let event = hook.platform.event_name(headers).unwrap_or_default();
        self.count(&hook, if hook.platform.reads(event) { Webhook::Read(event) } else { Webhook::Unread(event) }, now);
        Ok(Taken::Appended)
    }
}
