use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::datatypes::Schema;
use async_trait::async_trait;
use bytes::Bytes;
use kiro_ingest::decode::Decoder;
use kiro_integrations::platforms;
use kiro_log::{EmbeddedLog, EmbeddedOptions};
use kiro_ports::{
    Assignment, Clock as _, EventLog, Headers, LogConsumer, LogState, NewRecord, Normaliser, PortError, Position, RECORD_ID, Record,
    ReplayRequest, SqlAnswer, SqlEngine, SqlRequest, Subscription, SystemClock, Watermarks,
};
use kiro_schemas::{Event, Micros, OffsetVector, Tenant, TopicPartition};
use kiro_store::{Store, StoreConfig};
use serde_json::{Value, json};

use super::{Cursor, PART, Raw, Rest, TOGETHER, moment};
use crate::journal::Journal;

const TOPIC: &str = "webhooks";
const HISTORY: &str = "history";
/// When the first delivery came.
const CAME: i64 = 1_700_000_000_000_000;

#[test]
fn a_moment_is_a_time_or_how_long_ago() {
    let now = Micros::parse("2026-11-24T12:00:00Z").expect("a time");
    for (text, expected) in [("2d", "2026-11-22T12:00:00Z"), ("12h", "2026-11-24T00:00:00Z"), ("30m", "2026-11-24T11:30:00Z")] {
        assert_eq!(moment(text, now), Micros::parse(expected), "{text}");
    }
    assert_eq!(moment("2026-11-01T00:00:00Z", now), Micros::parse("2026-11-01T00:00:00Z"));
    for wrong in ["", "d", "-1d", "2w", "tomorrow", "99999999999d"] {
        assert_eq!(moment(wrong, now), None, "{wrong}");
    }
}

#[test]
fn a_cursor_is_read_as_it_was_written() {
    let cursor = Cursor(BTreeMap::from([(0, Rest { next: 3, end: 9 }), (2, Rest { next: 5, end: 5 })]));
    let text = serde_json::to_string(&cursor).expect("text");
    assert_eq!(Cursor::parse(&text), Some(cursor.clone()));
    assert!(!cursor.is_done() && cursor.left() == 6);
    for wrong in ["", "{}x", r#"{"0":{"next":9,"end":3}}"#, r#"{"0":{"next":-1,"end":3}}"#, "[1]"] {
        assert_eq!(Cursor::parse(wrong), None, "{wrong}");
    }
}

/// A delivery as the door keeps it; who took it wrote the moment into its id.
fn raw(number: usize, tenant: &str, platform: &str, known_at: i64) -> NewRecord {
    let run = json!({
        "action": "completed", "repository": {"html_url": "https://github.com/acme/shop", "name": "shop"},
        "workflow_run": {
            "id": number, "name": "ci", "run_attempt": 1, "status": "completed", "conclusion": "success", "event": "push",
            "head_branch": "main", "head_sha": "0a1b2c", "html_url": "https://github.com/acme/shop/runs/1",
            "created_at": "2026-11-20T10:00:00Z", "run_started_at": "2026-11-20T10:00:05Z", "updated_at": "2026-11-20T10:07:00Z",
        },
    });
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let headers: Headers = vec![
        ("x-github-event".to_owned(), text("workflow_run")),
        ("kiro-format".to_owned(), text(platform)),
        (RECORD_ID.to_owned(), text(&format!("{known_at}-door"))),
        ("kiro-tenant".to_owned(), text(tenant)),
    ];
    NewRecord { topic: TOPIC.to_owned(), key: Some(text(&number.to_string())), value: text(&run.to_string()), headers }
}

/// Tables without rows.
#[derive(Debug)]
struct Empty;

#[async_trait]
impl SqlEngine for Empty {
    async fn query(self: Arc<Self>, _request: SqlRequest) -> Result<SqlAnswer, PortError> {
        let (schema, offsets) = (Arc::new(Schema::empty()), OffsetVector::default());
        Ok(SqlAnswer { schema, offsets, rows: Box::pin(futures::stream::empty()) })
    }
}

struct World {
    raw: Raw,
    log: Arc<EmbeddedLog>,
    _folder: tempfile::TempDir,
}

impl World {
    /// A log, and a decoder with or without normalisers: one that was mended later.
    async fn new(is_mended: bool) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let clock = Arc::new(SystemClock);
        let log = Arc::new(EmbeddedLog::open(&folder.path().join("log"), EmbeddedOptions::default(), clock.clone()).expect("a log"));
        for topic in [TOPIC, HISTORY] {
            log.ensure_topic(topic, 2).await.expect("a topic");
        }
        let all = platforms().iter().filter(|_| is_mended).map(|platform| Arc::new(**platform) as Arc<dyn Normaliser>);
        let decoder = Arc::new(Decoder::new(all.collect(), Vec::new()));
        let history = Journal { log: Arc::clone(&log) as _, topic: HISTORY.to_owned(), clock: clock.clone() };
        let store = Store::open(StoreConfig::Sqlite(folder.path().join("control.sqlite"))).await.expect("a store");
        let (sql, persons) = (Arc::new(Empty), Arc::new(store));
        let raw = Raw { log: Arc::clone(&log) as _, topic: TOPIC.to_owned(), history, decoder, clock, sql, persons };
        Self { raw, log, _folder: folder }
    }

    /// Replays to the end: the sums, and how many parts there were.
    async fn replay(&self, tenant: &str, since: &str) -> (Value, usize) {
        self.replay_of("github", tenant, since).await
    }

    async fn replay_of(&self, platform: &str, tenant: &str, since: &str) -> (Value, usize) {
        let (mut sums, mut parts, mut cursor) = (json!({"deliveries": 0, "events": 0, "unreadable": 0}), 0, None);
        loop {
            let request = ReplayRequest { platform: platform.to_owned(), since: since.to_owned(), cursor };
            let mut part = self.raw.replay(&Tenant::new(tenant), &request).await.expect("a part");
            for (key, sum) in sums.as_object_mut().expect("an object") {
                *sum = (sum.as_u64().unwrap_or(0) + part[key].as_u64().expect("a number")).into();
            }
            parts += 1;
            cursor = part["cursor"].take().as_str().map(str::to_owned);
            if cursor.is_none() {
                return (sums, parts);
            }
        }
    }

    /// What stands in the topic of history.
    async fn history(&self) -> Vec<(String, Micros)> {
        let mut found = Vec::new();
        for (at, marks) in self.log.watermarks(HISTORY).await.expect("marks") {
            for offset in marks.low..marks.high {
                let record = self.log.read(&at, offset).await.expect("read").expect("there");
                let event = Event::from_json(record.value.as_deref().expect("a value")).expect("an event");
                found.push((event.id.to_string(), event.known_at.expect("known")));
            }
        }
        found.sort();
        found
    }
}

#[tokio::test]
async fn what_a_mended_normaliser_reads_comes_as_history_known_since_it_came() {
    let old = World::new(false).await;
    let records: Vec<_> = (0..7).map(|number| raw(number, "acme", "github", CAME + i64::try_from(number).expect("small"))).collect();
    old.log.append(records.clone()).await.expect("appended");
    assert_eq!(old.replay("acme", "1d").await.0, json!({"deliveries": 7, "events": 0, "unreadable": 7}), "nobody reads them yet");
    assert!(old.history().await.is_empty());

    let new = World::new(true).await;
    let others = [raw(100, "other", "github", 1), raw(101, "acme", "gitlab", 1)];
    new.log.append(records.into_iter().chain(others).collect()).await.expect("appended");
    let (sums, parts) = new.replay("acme", "1d").await;
    assert_eq!((sums, parts), (json!({"deliveries": 7, "events": 7, "unreadable": 0}), 1));
    let history = new.history().await;
    assert_eq!(history.len(), 7, "its own tenant's and platform's alone");
    for ((id, known_at), number) in history.iter().zip(0_i64..) {
        assert_eq!(id, &format!("pipeline_run/{number}/1/finished/2026-11-20T10:07:00Z"));
        assert_eq!(known_at.0, CAME + number, "when it came, not when it was read again");
    }
    assert_eq!(new.replay("acme", "2100-01-01T00:00:00Z").await.0["deliveries"], 0, "nothing came since then");
}

#[tokio::test]
async fn many_are_read_in_parts_and_each_once() {
    let world = World::new(true).await;
    let count = usize::try_from(PART).expect("small") * 2 + 10;
    for chunk in (0..count).collect::<Vec<_>>().chunks(1_000) {
        world.log.append(chunk.iter().map(|number| raw(*number, "acme", "github", 5)).collect()).await.expect("appended");
    }
    let (sums, parts) = world.replay("acme", "1d").await;
    assert_eq!(sums["events"], count);
    assert!(parts > 1, "{parts} parts");
    let mut ids: Vec<String> = world.history().await.into_iter().map(|(id, _)| id).collect();
    let all = ids.len();
    ids.dedup();
    assert_eq!((all, ids.len()), (count, count));
}

/// Counts how often records are looked for, and how many such looks there are at once.
#[derive(Debug)]
struct Counted {
    log: Arc<EmbeddedLog>,
    looks: AtomicUsize,
    at_once: AtomicUsize,
    most: AtomicUsize,
}

#[async_trait]
impl EventLog for Counted {
    async fn ensure_topic(&self, topic: &str, partitions: i32) -> Result<(), PortError> {
        self.log.ensure_topic(topic, partitions).await
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Vec<Position>, PortError> {
        self.log.append(records).await
    }

    async fn consume(&self, subscription: Subscription, assignment: Arc<dyn Assignment>) -> Result<Box<dyn LogConsumer>, PortError> {
        self.log.consume(subscription, assignment).await
    }

    async fn watermarks(&self, topic: &str) -> Result<Vec<(TopicPartition, Watermarks)>, PortError> {
        self.log.watermarks(topic).await
    }

    async fn read(&self, at: &TopicPartition, offset: i64) -> Result<Option<Record>, PortError> {
        Ok(self.read_each(at, &[offset]).await?.pop().flatten())
    }

    async fn read_each(&self, at: &TopicPartition, offsets: &[i64]) -> Result<Vec<Option<Record>>, PortError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        let now = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        let found = self.log.read_each(at, offsets).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        found
    }

    fn state(&self) -> LogState {
        self.log.state()
    }
}

#[tokio::test]
async fn the_beginning_of_many_partitions_is_found_in_few_looks_at_several_at_once() {
    const PARTITIONS: i32 = 40;
    let world = World::new(true).await;
    let counted = Arc::new(Counted {
        log: Arc::clone(&world.log),
        looks: AtomicUsize::new(0),
        at_once: AtomicUsize::new(0),
        most: AtomicUsize::new(0),
    });
    let raw = Raw { log: Arc::clone(&counted) as _, topic: "wide".to_owned(), ..world.raw.clone() };
    counted.ensure_topic("wide", PARTITIONS).await.expect("a topic");
    let records = |numbers: std::ops::Range<usize>| {
        let record = |number| NewRecord { topic: "wide".to_owned(), ..self::raw(number, "acme", "github", 1) };
        numbers.map(record).collect::<Vec<_>>()
    };
    counted.append(records(0..3_000)).await.expect("appended");
    let before = counted.watermarks("wide").await.expect("marks");
    let since = SystemClock.now();
    counted.append(records(3_000..6_000)).await.expect("appended");
    let found = raw.begin(since).await.expect("a cursor");
    let marks = counted.watermarks("wide").await.expect("marks");
    let expected = before.iter().zip(&marks).map(|((at, then), (_, now))| (at.partition, Rest { next: then.high, end: now.high }));
    assert_eq!(found, Cursor(expected.collect()));
    let (looks, most) = (counted.looks.load(Ordering::SeqCst), counted.most.load(Ordering::SeqCst));
    assert!(looks <= 3 * marks.len(), "{looks} looks");
    assert!((2..=TOGETHER).contains(&most), "{most} at once");
}

/// The id of an approval ends in who approved: tables have it with the pseudonym, and so must what is looked for there.
#[tokio::test]
async fn who_approved_is_looked_for_by_the_pseudonym() {
    let world = World::new(true).await;
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../integrations/tests/gitlab/Merge-Request-Hook.approved.own.json");
    let payload = std::fs::read(path).expect("a payload");
    let name = serde_json::from_slice::<Value>(&payload).expect("JSON")["user"]["username"].as_str().expect("a user").to_owned();
    let text = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    let names = [("x-gitlab-event", "Merge Request Hook"), ("kiro-format", "gitlab"), ("kiro-tenant", "acme")];
    let headers: Headers = names.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect();
    let record = NewRecord { topic: TOPIC.to_owned(), key: None, value: payload.into(), headers };
    world.log.append(vec![record]).await.expect("appended");
    assert_eq!(world.replay_of("gitlab", "acme", "1d").await.0["events"], 1);
    let (id, _) = world.history().await.remove(0);
    let pseudonym = world.raw.persons.pseudonym(&Tenant::new("acme"), &name).await.expect("asked").expect("named");
    assert!(id.ends_with(&format!("/{pseudonym}")) && !id.contains(&name), "{id}");
}
