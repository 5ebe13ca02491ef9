//! Replay of dead letters, a page at a time: each is appended again as it came, from the log while that has it, else from its
//! bytes in quarantine. What was appended is written into the audit log, partition by partition, and is not appended again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiro_ingest::engine::EngineHandle;
use kiro_ports::{
    AuditEntry, Clock, EventLog, Headers, NewRecord, PortError, Principal, RECORD_ID, Record, Replayed, SqlEngine, SqlRequest,
};
use kiro_schemas::{Micros, TopicPartition, Value as Field};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tracing::debug;

use crate::error::Error;
use crate::journal::Journal;
use crate::rows;

/// Letters that one request looks at: it ends well within its time.
const PAGE: usize = 2_000;
/// Letters, and about how many bytes of them, that are appended together.
const TOGETHER: usize = 500;
const TOGETHER_BYTES: u64 = 16 << 20;
/// The action of the audit log under which it stands what was appended again.
const ACTION: &str = "dead_letters.replayed";
/// How long it is waited until that can be asked for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Appends dead letters again.
#[derive(Debug)]
pub(crate) struct Replayer {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) sql: Arc<dyn SqlEngine>,
    pub(crate) engine: EngineHandle,
    pub(crate) journal: Journal,
    pub(crate) clock: Arc<dyn Clock>,
    /// Where the bytes of dead letters lie.
    pub(crate) quarantine: PathBuf,
}

/// Where a page begins: behind this letter, among those that were there when the first page was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Cursor {
    until: Micros,
    behind: Option<(TopicPartition, i64)>,
}

impl Cursor {
    fn read(text: &str) -> Option<Self> {
        let mut parts = text.split('/');
        let (until, topic, partition, offset) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let behind = (TopicPartition::new(topic, partition.parse().ok()?), offset.parse().ok()?);
        parts.next().is_none().then_some(Self { until: Micros(until.parse().ok()?), behind: Some(behind) })
    }

    fn text(until: Micros, letter: &Letter) -> String {
        format!("{}/{}/{}/{}", until.0, letter.at.topic, letter.at.partition, letter.offset)
    }
}

/// A dead letter as its row tells.
#[derive(Debug, Clone)]
struct Letter {
    at: TopicPartition,
    offset: i64,
    digest: String,
    size: u64,
    recorded_at: Micros,
    headers: Headers,
}

impl Letter {
    fn of(row: &[Value]) -> Option<Self> {
        let [topic, partition, offset, digest, size, recorded_at, headers] = row else { return None };
        let pairs = headers.as_object().into_iter().flatten();
        let header = |(name, value): (&String, &Value)| Some((name.clone(), Bytes::from(value.as_str()?.to_owned())));
        Some(Self {
            at: TopicPartition::new(topic.as_str()?, i32::try_from(partition.as_i64()?).ok()?),
            offset: offset.as_i64()?,
            digest: digest.as_str().filter(|digest| is_digest(digest))?.to_owned(),
            size: size.as_u64()?,
            recorded_at: recorded_at.as_str().and_then(Micros::parse)?,
            headers: pairs.filter_map(header).collect(),
        })
    }

    /// The id of its replay: whoever appends it twice, after a crash, appends the same. It begins with a moment of its own, so
    /// that the record is no repeat of what it was.
    fn id(&self) -> String {
        let moment = self.recorded_at.0 + 1 + self.offset.rem_euclid(1_000);
        format!("{moment}-replay-{}-{}-{}", self.at.topic, self.at.partition, self.offset)
    }

    /// The record to append: as it was in the log, if that has it still, else with its bytes from quarantine.
    fn record(&self, found: Option<Record>, quarantine: &Path, tenant: &str) -> Option<NewRecord> {
        let was = found.and_then(|record| Some((record.key, record.headers, record.value?)));
        // Another record may stand there: of a topic that was made anew.
        let was = was.filter(|(_, _, bytes)| hex::encode(Sha256::digest(bytes)) == self.digest);
        let (key, headers, value) = match was {
            Some((key, headers, bytes)) => (key, headers, bytes),
            None => (None, self.kept_headers(tenant), self.kept_bytes(quarantine)?),
        };
        let mut headers: Headers = headers.into_iter().filter(|(name, _)| name != RECORD_ID).collect();
        headers.push((RECORD_ID.to_owned(), Bytes::from(self.id())));
        Some(NewRecord { topic: self.at.topic.to_string(), key, value, headers })
    }

    fn kept_headers(&self, tenant: &str) -> Headers {
        let tenant = ("kiro-tenant".to_owned(), Bytes::copy_from_slice(tenant.as_bytes()));
        self.headers.iter().cloned().chain([tenant]).collect()
    }

    /// Its bytes in quarantine; `None` when they are gone or not what they were.
    fn kept_bytes(&self, quarantine: &Path) -> Option<Bytes> {
        let file = quarantine.join(&self.digest);
        if std::fs::metadata(&file).ok()?.len() != self.size {
            return None;
        }
        let bytes = std::fs::read(file).ok()?;
        (hex::encode(Sha256::digest(&bytes)) == self.digest).then(|| bytes.into())
    }
}

fn is_digest(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl Replayer {
    /// Appends the next page of the letters whose reason begins so.
    pub(crate) async fn page(&self, who: &Principal, reason: &str, after: Option<&str>) -> Result<Replayed, PortError> {
        let cursor = match after {
            Some(text) => Cursor::read(text).ok_or_else(|| Error::Cursor(text.to_owned()))?,
            None => Cursor { until: self.clock.now(), behind: None },
        };
        let mut done = Replayed::default();
        if cursor.behind.is_none() {
            done.of = Some(self.count(who, reason, cursor.until).await?);
        }
        let letters = self.letters(who, reason, &cursor).await?;
        done.next = letters.last().filter(|_| letters.len() == PAGE).map(|last| Cursor::text(cursor.until, last));
        let marks = self.marks(who, &letters).await?;
        let (before, letters): (Vec<Letter>, Vec<Letter>) =
            letters.into_iter().partition(|letter| marks.get(&letter.at).is_some_and(|marked| marked.contains(&letter.offset)));
        let (empty, letters): (Vec<Letter>, Vec<Letter>) = letters.into_iter().partition(|letter| letter.size == 0);
        (done.already, done.empty) = (before.len() as u64, empty.len() as u64);
        for part in parts(&letters) {
            self.append(who, part, &mut done).await?;
        }
        Ok(done)
    }

    async fn count(&self, who: &Principal, reason: &str, until: Micros) -> Result<u64, PortError> {
        let mut request = SqlRequest::new(who.tenant.clone(), "SELECT count(*) FROM dead_letters WHERE starts_with(reason, $1)");
        (request.parameters, request.as_of) = (vec![Some(reason.to_owned())], Some(until));
        let answer = rows::ask(&self.sql, request).await?;
        Ok(answer.rows.first().and_then(|row| row.first()).and_then(Value::as_u64).unwrap_or(0))
    }

    async fn letters(&self, who: &Principal, reason: &str, cursor: &Cursor) -> Result<Vec<Letter>, PortError> {
        let mut parameters = vec![Some(reason.to_owned())];
        let behind = cursor.behind.as_ref().map_or_else(String::new, |(at, offset)| {
            parameters.push(Some(at.topic.to_string()));
            let partition = at.partition;
            format!("AND (_topic > $2 OR _topic = $2 AND (_partition > {partition} OR _partition = {partition} AND _offset > {offset}))")
        });
        let sql = format!(
            "SELECT _topic, _partition, _offset, sha256, size_bytes, recorded_at, headers FROM dead_letters \
             WHERE starts_with(reason, $1) {behind} ORDER BY _topic, _partition, _offset LIMIT {PAGE}"
        );
        let mut request = SqlRequest::new(who.tenant.clone(), sql);
        (request.parameters, request.as_of) = (parameters, Some(cursor.until));
        let answer = rows::ask(&self.sql, request).await?;
        answer.rows.iter().map(|row| Letter::of(row).ok_or_else(|| Error::Letter(json!(row).to_string()).into())).collect()
    }

    /// The offsets that were appended again before, in the partitions of these letters.
    async fn marks(&self, who: &Principal, letters: &[Letter]) -> Result<BTreeMap<TopicPartition, BTreeSet<i64>>, PortError> {
        let mut marks = BTreeMap::new();
        for part in letters.chunk_by(|a, b| a.at == b.at) {
            let Some(at) = part.first().map(|letter| letter.at.clone()) else { continue };
            let wanted: BTreeSet<i64> = part.iter().map(|letter| letter.offset).collect();
            let mut request = SqlRequest::new(who.tenant.clone(), "SELECT detail FROM audit_log WHERE action = $1 AND object = $2");
            request.parameters = vec![Some(ACTION.to_owned()), Some(at.to_string())];
            let told = rows::ask(&self.sql, request).await?;
            let ranges = told.rows.iter().filter_map(|row| ranges(row.first()?.as_str()?)).flatten();
            let marked = ranges.flat_map(|(first, last)| wanted.range(first..=last.max(first)).copied().collect::<Vec<_>>()).collect();
            marks.insert(at, marked);
        }
        Ok(marks)
    }

    /// Appends letters of one partition again, then writes down that it was done.
    async fn append(&self, who: &Principal, letters: &[Letter], done: &mut Replayed) -> Result<(), PortError> {
        let Some(at) = letters.first().map(|letter| letter.at.clone()) else { return Ok(()) };
        let offsets: Vec<i64> = letters.iter().map(|letter| letter.offset).collect();
        let all = offsets.len() as u64;
        let found = self.log.read_each(&at, &offsets).await?;
        let (letters, quarantine, tenant) = (letters.to_vec(), self.quarantine.clone(), who.tenant.clone());
        let read = move || -> Vec<(i64, Option<NewRecord>)> {
            let pairs = letters.iter().zip(found);
            pairs.map(|(letter, found)| (letter.offset, letter.record(found, &quarantine, tenant.as_str()))).collect()
        };
        let made = tokio::task::spawn_blocking(read).await.map_err(Error::Replay)?;
        let (offsets, records): (Vec<i64>, Vec<NewRecord>) =
            made.into_iter().filter_map(|(offset, record)| Some((offset, record?))).unzip();
        let count = records.len() as u64;
        done.lost += all - count;
        if records.is_empty() {
            return Ok(());
        }
        self.log.append(records).await?;
        done.replayed += count;
        self.mark(who, &at, &offsets).await
    }

    /// Writes down what was appended again, and waits until that can be asked for: who asks again finds it.
    async fn mark(&self, who: &Principal, at: &TopicPartition, offsets: &[i64]) -> Result<(), PortError> {
        let entry = AuditEntry {
            tenant: who.tenant.clone(),
            actor: who.name.clone(),
            action: ACTION.to_owned(),
            object: at.to_string(),
            refused: None,
        };
        let mut event = self.journal.audit_event(&entry);
        event.set("detail", Field::text(json!({ "offsets": compact(offsets) }).to_string()));
        for place in self.journal.append(&who.tenant, &[event]).await? {
            let shown = tokio::time::timeout(PATIENCE, self.engine.reached(&place.at, place.offset)).await;
            if shown.is_err() {
                debug!(at = %place.at, offset = place.offset, "what was appended again is written down and not shown yet");
            }
        }
        Ok(())
    }
}

/// Letters that are appended together: of one partition, a bounded number, of bounded size.
fn parts(letters: &[Letter]) -> Vec<&[Letter]> {
    let mut sum = (0_usize, 0_u64);
    let is_together = |a: &Letter, b: &Letter| {
        sum = (sum.0 + 1, sum.1 + a.size);
        let is_room = a.at == b.at && sum.0 < TOGETHER && sum.1 + b.size <= TOGETHER_BYTES;
        if !is_room {
            sum = (0, 0);
        }
        is_room
    };
    letters.chunk_by(is_together).collect()
}

/// Offsets, which rise, as ranges from the first to the last.
fn compact(offsets: &[i64]) -> Vec<(i64, i64)> {
    let runs = offsets.chunk_by(|a, b| *b == a + 1);
    runs.filter_map(|run| Some((*run.first()?, *run.last()?))).collect()
}

/// The ranges that stand in a row of the audit log.
fn ranges(detail: &str) -> Option<Vec<(i64, i64)>> {
    let detail: Value = serde_json::from_str(detail).ok()?;
    serde_json::from_value(detail.get("offsets")?.clone()).ok()
}

#[cfg(test)]
mod tests;
