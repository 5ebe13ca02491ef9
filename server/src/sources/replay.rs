//! Raw deliveries are read again, after a normaliser was mended: what they say now goes into the history topic, but for events that
//! are in the tables already, by their ids.
//!
//! A call reads a part and says where it ended; whoever asks goes on from there. So nothing has to be kept between calls, and
//! any door can take the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kiro_ingest::decode::Decoder;
use kiro_ingest::persons::Pseudonyms;
use kiro_ports::{
    Assignment, Clock, EventLog, LogBatch, NewRecord, Persons, Poll, PortError, Record, ReplayRequest, SqlEngine, Subscription, Watermarks,
    header,
};
use kiro_schemas::{Event, FaultKind, Micros, Tenant, TopicPartition};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::desk::refused;
use crate::intake::taken_at;
use crate::journal::Journal;
use crate::rows;

/// Records of one part: a second or so.
const PART: u64 = 5_000;
/// Large deliveries take longer: what asks has its own limit of time.
const LONGEST: Duration = Duration::from_secs(20);
const PART_BYTES: usize = 2 << 20;
/// Polls without anything after which the log is taken to be away: some seconds.
const MOST_IDLE: u32 = 50;
const MINUTE: i64 = 60_000_000;
/// Partitions whose beginning is looked for at a time.
const TOGETHER: usize = 16;
/// Records that one look reads: a client of Kafka costs more than what it reads, so a look leaves a sixteenth.
const PROBES: i64 = 15;

/// What is still to be read of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Rest {
    next: i64,
    end: i64,
}

/// What is still to be read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Cursor(BTreeMap<i32, Rest>);

impl Cursor {
    fn parse(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok().filter(|cursor: &Self| cursor.0.values().all(|rest| 0 <= rest.next && rest.next <= rest.end))
    }

    fn is_done(&self) -> bool {
        self.0.values().all(|rest| rest.next >= rest.end)
    }

    fn left(&self) -> i64 {
        self.0.values().map(|rest| (rest.end - rest.next).max(0)).sum()
    }
}

/// What became of the records of a part.
#[derive(Debug, Default)]
struct Counts {
    read: u64,
    /// Of these, those of the platform and tenant.
    matched: u64,
    events: u64,
    unreadable: u64,
}

/// Starts where the cursor stands.
#[derive(Debug)]
struct Start(Cursor);

impl Assignment for Start {
    fn start(&self, partitions: &[TopicPartition]) -> Vec<Option<i64>> {
        partitions.iter().map(|at| self.0.0.get(&at.partition).map(|rest| rest.next)).collect()
    }

    fn revoked(&self, _partitions: &[TopicPartition]) {}
}

/// A moment: a time, or how long ago.
fn moment(text: &str, now: Micros) -> Option<Micros> {
    let ago = |unit: char, minutes: i64| text.strip_suffix(unit)?.parse::<u32>().ok().map(|n| now.plus(-(i64::from(n) * minutes * MINUTE)));
    ago('d', 1_440).or_else(|| ago('h', 60)).or_else(|| ago('m', 1)).or_else(|| Micros::parse(text))
}

/// Raw deliveries, and where what they say goes.
#[derive(Debug, Clone)]
pub(crate) struct Raw {
    pub(crate) log: Arc<dyn EventLog>,
    /// Where they are.
    pub(crate) topic: String,
    pub(crate) history: Journal,
    pub(crate) decoder: Arc<Decoder>,
    pub(crate) clock: Arc<dyn Clock>,
    /// Tells what is in the tables.
    pub(crate) sql: Arc<dyn SqlEngine>,
    /// Tables name persons by pseudonyms, and so do some ids of events.
    pub(crate) persons: Arc<dyn Persons>,
}

impl Raw {
    /// Reads a part of a tenant's deliveries again and appends what they say.
    pub(super) async fn replay(&self, tenant: &Tenant, request: &ReplayRequest) -> Result<Value, PortError> {
        let invalid = |what: String| refused(FaultKind::Invalid, what);
        let platform = kiro_integrations::platform(&request.platform);
        let platform = platform.ok_or_else(|| invalid(format!("{:?} is no platform that is known", request.platform)))?;
        let mut cursor = if let Some(text) = &request.cursor {
            Cursor::parse(text).ok_or_else(|| invalid(format!("{text:?} is no cursor that was given out")))?
        } else {
            let expected = "expected a time (RFC 3339), or how long ago, such as 2d, 12h or 30m";
            let since = moment(&request.since, self.clock.now());
            self.begin(since.ok_or_else(|| invalid(format!("since {:?}: {expected}", request.since)))?).await?
        };
        let mut counts = Counts::default();
        if !cursor.is_done() {
            self.read((tenant, platform.name), &mut cursor, &mut counts).await?;
        }
        let next = if cursor.is_done() { None } else { serde_json::to_string(&cursor).ok() };
        Ok(json!({
            "read": counts.read, "deliveries": counts.matched, "events": counts.events, "unreadable": counts.unreadable,
            "left": cursor.left(), "cursor": next,
        }))
    }

    /// Where each partition's records begin that came since a time, and where they end now.
    async fn begin(&self, since: Micros) -> Result<Cursor, PortError> {
        let rest = |(at, marks): (TopicPartition, Watermarks)| async move {
            let next = self.first(&at, marks, since).await?;
            Ok::<_, PortError>((at.partition, Rest { next, end: marks.high }))
        };
        let marks = self.log.watermarks(&self.topic).await?;
        Ok(Cursor(stream::iter(marks).map(rest).buffer_unordered(TOGETHER).try_collect().await?))
    }

    /// The first record of a partition that came since a time.
    async fn first(&self, at: &TopicPartition, marks: Watermarks, since: Micros) -> Result<i64, PortError> {
        let (mut low, mut high) = (marks.low, marks.high);
        while low < high {
            let mut offsets: Vec<i64> = (1..=PROBES).map(|part| low + (high - low).saturating_mul(part) / (PROBES + 1)).collect();
            offsets.dedup();
            for (offset, record) in offsets.iter().zip(self.log.read_each(at, &offsets).await?) {
                // What is not there any more is older than all that is.
                if record.is_none_or(|record| record.recorded_at < since) {
                    low = offset + 1;
                } else {
                    high = *offset;
                    break;
                }
            }
        }
        Ok(low)
    }

    async fn read(&self, whose: (&Tenant, &str), cursor: &mut Cursor, counts: &mut Counts) -> Result<(), PortError> {
        let subscription = Subscription { topics: vec![self.topic.clone()], group: None, max_batch_bytes: PART_BYTES };
        let mut consumer = self.log.consume(subscription, Arc::new(Start(cursor.clone()))).await?;
        let (mut idle, began) = (0, Instant::now());
        while !cursor.is_done() && counts.read < PART && began.elapsed() < LONGEST {
            match consumer.poll().await? {
                Poll::Batch(batch) => {
                    idle = 0;
                    self.take(whose, &batch, cursor, counts).await?;
                }
                // Retention came between: what is left is read from where it begins now.
                Poll::Gap(gap) => {
                    if let Some(rest) = cursor.0.get_mut(&gap.at.partition) {
                        rest.next = gap.found.unwrap_or(rest.end).clamp(rest.next, rest.end);
                    }
                    return Ok(());
                }
                Poll::Idle if idle >= MOST_IDLE => {
                    return Err(refused(FaultKind::Unavailable, "the log does not give its records for now"));
                }
                Poll::Idle => idle += 1,
                Poll::Assigned(_) | Poll::Revoked(_) => {}
            }
        }
        Ok(())
    }

    async fn take(&self, whose: (&Tenant, &str), batch: &LogBatch, cursor: &mut Cursor, counts: &mut Counts) -> Result<(), PortError> {
        let Some(rest) = cursor.0.get_mut(&batch.at.partition) else { return Ok(()) };
        let (tenant, platform) = whose;
        let is_wanted = |record: &&Record| (rest.next..rest.end).contains(&record.offset);
        let mut events = Vec::new();
        for record in batch.records.iter().filter(is_wanted) {
            counts.read += 1;
            let is_theirs = header(&record.headers, "kiro-tenant") == Some(tenant.as_str());
            if is_theirs && header(&record.headers, "kiro-format") == Some(platform) {
                counts.matched += 1;
                events.extend(self.said(record, counts));
            }
        }
        counts.events += events.len() as u64;
        Pseudonyms::new(Arc::clone(&self.persons)).rename_all(tenant, &mut events, self.clock.now()).await?;
        let known = rows::known(&self.sql, tenant, &events).await?;
        let new: Vec<NewRecord> = events.iter().filter(|event| !known.has(event)).map(|event| self.history.record(tenant, event)).collect();
        if !new.is_empty() {
            self.history.log.append(new).await?;
        }
        rest.next = batch.next.clamp(rest.next, rest.end);
        Ok(())
    }

    /// What a raw record says now: known since it came, whenever it is said.
    fn said(&self, record: &Record, counts: &mut Counts) -> Vec<Event<'static>> {
        let Some(bytes) = &record.value else { return Vec::new() };
        let Ok(events) = self.decoder.decode(&self.topic, &record.headers, bytes) else {
            // It is a dead letter already.
            counts.unreadable += 1;
            return Vec::new();
        };
        let known_at = taken_at(&record.headers).unwrap_or(record.recorded_at);
        let again = |mut event: Event<'_>| {
            event.known_at.get_or_insert(known_at);
            event.into_owned()
        };
        events.into_iter().map(again).collect()
    }
}

#[cfg(test)]
mod tests;
